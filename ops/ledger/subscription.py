"""The backbone's own subscription ``ledger``: reads ``backbone.deliveries`` and writes the ledger.

An ordinary subscription, run by the same runtime as any other, but built in code: nobody attaches it. It begins at the
earliest receipt wherever its group has no position, so a ledger that was deleted is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from connectors.connector import Connector
from consumers.control import AttachedSubscription, Definition
from consumers.receipts import RANGE as RANGE_SETTLED
from consumers.receipts import SETTLED, TOPIC
from consumers.subscription import Policies, Projected, Retry, Route, Subscription
from ops.app import CLUSTER_TIMEOUT_S
from ops.ledger.connector import RANGE, RECEIPT, TYPE, LedgerSettings
from ops.ledger.database import Address, parse_address, prepare
from ops.ledger.store import TEXT_MAX, delivery_key, storable
from ops.ledger.tables import RANGE_FIELDS, RECEIPT_FIELDS
from ops.topics import LEDGER
from schemas.contract import engine_contracts
from schemas.errors import BackboneError, RefusedError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from ops.app import App
    from schemas.event import Event

VERSION = hashlib.sha256(" ".join((*RECEIPT_FIELDS, *RANGE_FIELDS)).encode()).hexdigest()[:6]


def project_receipt(event: Event) -> Projected:
    body = event.data
    if any(type(value) is str and len(value) > TEXT_MAX for value in body.values()):
        # a record's key may be as long as its producer liked, longer than the body of a delivery may be
        body = {name: storable(value) if type(value) is str else value for name, value in body.items()}
    return Projected(action=RECEIPT, entity=delivery_key(event.data), body=body)


def project_range(event: Event) -> Projected:
    return Projected(action=RANGE, entity=event.data["range"], body=event.data)


def subscription() -> Subscription:
    """The built-in subscription. Pure."""

    def route(name: str, project: Any) -> tuple[Route, ...]:
        return (Route(events=(name,), fits=None, project=project, action=None, reads=None, source={"event": name}),)

    contracts = engine_contracts()
    return Subscription(
        name=LEDGER,
        description="Keeps the receipts in a database, for trace and receipt list.",
        owner="backbone",
        connection=LEDGER,
        connector=TYPE,
        policies=Policies(slo=timedelta(minutes=1), retry=Retry(), on_unknown="resend"),
        routes={SETTLED: route(SETTLED, project_receipt), RANGE_SETTLED: route(RANGE_SETTLED, project_range)},
        contracts={name: contracts[name] for name in (SETTLED, RANGE_SETTLED)},
        version=VERSION,
        text="",
        projection_hashes={},
        personal_data_allowed=frozenset(),
        purpose="operations",
    )


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """What a worker needs to run the ledger beside the attached subscriptions. Made on the main thread;
    ``subscription`` may be called from any other, again after it failed. ``admin`` answers the client to ask by;
    ``kafka_error`` translates Kafka's errors."""

    name: str
    attached: AttachedSubscription
    address: Address
    admin: Callable[[], AdminClient]
    kafka_error: Callable[[Any], BackboneError]

    def subscription(self) -> Subscription:
        """The subscription, after its database was made ready: made, migrated, and begun anew where it is empty.
        Blocks; raises BackboneError where it cannot be (the worker says so, runs the others and tries again)."""
        from confluent_kafka import KafkaException

        try:
            cluster = self.admin().list_topics(TOPIC, timeout=CLUSTER_TIMEOUT_S).cluster_id
            prepare(self.address, cluster=str(cluster), begin_anew=self._begin_anew)
        except KafkaException as error:
            raise self.kafka_error(error.args[0]) from None
        return subscription()

    def connector(self) -> Connector:
        """The ledger's connector, to be used on the running event loop. Does not block."""
        url = self.address.url.render_as_string(hide_password=False)
        return TYPE.open(LedgerSettings.model_validate({"url": url}))

    def _begin_anew(self) -> None:
        """Forget how far the receipts were read for a ledger that is gone."""
        from confluent_kafka import KafkaError, KafkaException

        try:
            self.admin().delete_consumer_groups([self.name], request_timeout=CLUSTER_TIMEOUT_S)[self.name].result()
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.NON_EMPTY_GROUP:
                raise RefusedError(
                    f"The ledger {self.address} is empty, and other workers write this cluster's receipts into another "
                    "one. Give every worker the same ledger, or stop the others and start again."
                ) from None
            if code != KafkaError.GROUP_ID_NOT_FOUND:
                raise


def built_in(app: App) -> BuiltIn | None:
    """The ledger of the context; None where none is kept. Does not block. Raises InputError for a wrong address."""
    address = ledger_address(app)
    if address is None:
        return None
    attached = AttachedSubscription(
        name=LEDGER,
        definition=Definition(
            text="", version=VERSION, author="backbone", at="", connection=LEDGER,
            events=(SETTLED, RANGE_SETTLED), topics={},
        ),
    )  # fmt: skip
    return BuiltIn(LEDGER, attached, address, app.admin, app.kafka_error)


def ledger_address(app: App) -> Address | None:
    """Where the context keeps its ledger; None: nowhere. Raises InputError."""
    text = app.context.ledger
    if text is None:
        return None
    return parse_address(text, root=app.project.root, place=f"contexts.{app.context.name}.ledger")
