"""The composition root of ``backbone run``: what a worker needs, from the project, the context and the registry."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from connectors.connection import Connection, ConnectionState
from consumers import facts
from consumers.control import AttachedSubscription
from consumers.pipeline import Pipeline
from consumers.subscription import Subscription
from schemas.codec import Decoder, SchemaWanted
from schemas.errors import InputError

if TYPE_CHECKING:
    from ops.app import App


def collect_less() -> None:
    """Let Python look for garbage in cycles less often. An event's objects die without it, but the thousands in flight
    make it look every few events (20 of 290 µs an event); what is loaded by now stays anyway. For the whole process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class Wiring:
    """``consumers.worker.Make`` for one process: ``subscription`` and ``load_schema`` may be called from threads."""

    def __init__(self, app: App, decoder: Decoder, observer: facts.Observer) -> None:
        self._app, self._decoder, self._observe = app, decoder, observer
        # made here, on the main thread: App is not thread-safe
        self._project, self._context = app.project, app.context
        self._connector_types = app.connector_types
        self._connection_types = app.connection_types
        self._contracts = app.contracts

    def subscription(self, attached: AttachedSubscription) -> Subscription:
        """The subscription as it was attached: the text and the events that ``backbone.control`` holds, projections
        from the project's files, which must be the same. Blocks on reading files."""
        from consumers.subscription import load_text

        definition = attached.definition
        assert definition is not None
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
        return Pipeline(subscription, self._decoder)

    def connection(self, name: str) -> Connection:
        """A connection opened with this context's settings; InputError when it has none here."""
        resolved = self._context.connection(name)
        kind = self._connector_types.get(resolved.connector)
        if kind is None:
            raise InputError(f"The connection '{name}' needs the connector '{resolved.connector}': install it.")

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

        return Connection(name, kind, kind.open(resolved.settings(kind)), observer=changed)

    def load_schema(self, wanted: SchemaWanted) -> None:
        self._decoder.load(wanted)
