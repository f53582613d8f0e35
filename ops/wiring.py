"""The composition root of ``backbone run``: what a worker needs, from the project, the context and the registry."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from connectors.breaker import Circuit
from connectors.connection import Connection, ConnectionState
from consumers import facts
from consumers.control import AttachedSubscription
from consumers.erased import Erased
from consumers.erasure import Erasure, unsealed
from consumers.pipeline import Pipeline
from consumers.receipt_writer import ReceiptWriter
from consumers.receipts import ReceiptForm, needs_key
from consumers.sender import Producer
from consumers.subscription import Subscription
from ops.ledger.connector import TYPE as LEDGER_TYPE
from ops.ledger.subscription import BuiltIn, built_in, ledger_address
from ops.secrets import uses
from producers.uuid7 import uuid7
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import engine_contracts
from schemas.errors import InputError

if TYPE_CHECKING:
    from ops.app import App
    from ops.ledger.database import Address
    from ops.secrets.rotation import Use


def collect_less() -> None:
    """Let Python look for garbage in cycles less often. An event's objects die without it, but the thousands in flight
    make it look every few events (20 of 290 µs an event); what is loaded by now stays anyway. For the whole process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _key(app: App) -> bytes | None:
    """The context's installation key; None where it has none: then it can neither hash nor recognise anybody."""
    try:
        return app.context.installation_key
    except InputError:
        return None


CALL_S = 20.0
"""The bound on a call of a connector whose settings have none (``timeout_s``)."""


class Wiring:
    """``consumers.worker.Make`` for one process: ``subscription`` and ``load_schema`` may be called from threads.
    ``opened`` is told of every connection to a vendor that is opened, for gauges, and ``watch`` of how each of them
    takes new credentials."""

    def __init__(
        self,
        app: App,
        decoder: Decoder,
        producer: Producer,
        observer: facts.Observer,
        opened: Callable[[Connection], None] = lambda _: None,
        watch: Callable[[Use], None] = lambda _: None,
    ) -> None:
        self._app, self._decoder, self._producer, self._observe = app, decoder, producer, observer
        self._opened, self._watch = opened, watch
        # made here, on the main thread: App is not thread-safe
        self._project, self._context = app.project, app.context
        self._connector_types = app.connector_types
        self._connection_types = app.connection_types
        self._contracts = app.contracts
        self._encoder = app.encoder
        self._engine_contracts = engine_contracts()
        self._ledger = built_in(app)
        self._key = _key(app)
        self.erased = Erased(self._key)

    @property
    def builtin(self) -> dict[str, AttachedSubscription]:
        """The backbone's own subscriptions in this context, by name: the ledger, where one is kept."""
        return {} if self._ledger is None else {self._ledger.name: self._ledger.attached}

    def subscription(self, attached: AttachedSubscription) -> Subscription:
        """The subscription as it was attached: the text and the events that ``backbone.control`` holds, projections
        from the project's files, which must be the same. Blocks on reading files, or on making the ledger ready."""
        from consumers.subscription import load_text

        if self._ledger is not None and attached.name == self._ledger.name:
            return self._ledger.subscription()
        definition = attached.definition
        assert definition is not None
        newer = sorted(set(definition.events) - {*self._contracts, *self._engine_contracts})
        if newer and self._project.schemas == "registry":
            # not read again here: records may have been decoded without them by now
            raise InputError(f"This worker began before {', '.join(newer)} was in the registry: start it again.")
        return load_text(
            attached.name,
            definition.text,
            folder=self._project.subscriptions,
            contracts=self._contracts,
            connections=self._connection_types,
            events=definition.events,
            projections=definition.projections,
        )

    def pipeline(self, subscription: Subscription) -> Pipeline:
        erased = None if any(topic.startswith("backbone.") for topic in subscription.topics) else self.erased
        return Pipeline(subscription, self._decoder, erased)

    def unseal(self, text: str) -> Erasure | None:
        """What an erasure asks; None where it was sealed with another key than this context's."""
        return None if self._key is None else unsealed(text, self._key)

    def connection(self, name: str) -> Connection:
        """A connection opened with this context's settings; InputError when it has none here."""
        if self._ledger is not None and name == self._ledger.name:
            return self._ledger_connection(self._ledger)
        resolved = self._context.connection(name)
        kind = self._connector_types.get(resolved.connector)
        if kind is None:
            raise InputError(f"The connection '{name}' needs the connector '{resolved.connector}': install it.")

        settings = resolved.settings(kind)
        total_s = float(getattr(settings, "timeout_s", CALL_S))
        connection = Connection(
            name,
            kind,
            kind.open(settings),
            observer=self._connection_changed(name),
            quota=resolved.quota,
            circuit=Circuit.of(open_s=resolved.circuit_open_s, total_s=total_s),
            total=timedelta(seconds=total_s),
        )
        self._opened(connection)
        self._watch(uses.of_connection(connection, resolved, kind, settings))
        return connection

    def _ledger_connection(self, ledger: BuiltIn) -> Connection:
        observer = self._connection_changed(ledger.name)
        connection = Connection(ledger.name, LEDGER_TYPE, ledger.connector(), observer=observer)

        def moved(address: Address) -> BuiltIn:
            self._ledger = replace(ledger, address=address)
            return self._ledger

        self._watch(uses.of_ledger(connection, ledger, lambda: ledger_address(self._app), moved))
        return connection

    def _connection_changed(self, name: str) -> Callable[[ConnectionState, str, float], None]:
        def changed(state: ConnectionState, reason: str, seconds: float) -> None:
            match state:
                case "running":
                    self._observe(facts.ConnectionResumed(name))
                case "paused":
                    self._observe(facts.ConnectionPaused(name, reason, seconds))
                case "open":
                    self._observe(facts.ConnectionOpened(name, reason, seconds))
                case "half_open":
                    self._observe(facts.ConnectionHalfOpen(name))
                case "held":
                    self._observe(facts.ConnectionHeld(name, reason))
                case "stopped":
                    self._observe(facts.ConnectionStopped(name, reason))

        return changed

    def receipts(self, subscription: Subscription) -> ReceiptWriter | None:
        """None for one that reads the backbone's own topics. InputError where personal values would be recorded and
        this context has no key to hash them with."""
        if any(topic.startswith("backbone.") for topic in subscription.topics):
            return None
        key = self._context.installation_key if needs_key(subscription) else None
        return ReceiptWriter(
            ReceiptForm(subscription, key),
            encoder=self._encoder,
            contracts=self._engine_contracts,
            producer=self._producer,
            ids=uuid7,
            chance=random.random,
        )

    def load_schema(self, wanted: SchemaWanted) -> None:
        self._decoder.load(wanted)
