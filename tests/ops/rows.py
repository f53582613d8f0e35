"""An attached subscription that writes invoices as rows, with real records, and a ledger that is filled with receipts
as the runtime writes them. No worker runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicPartition

from consumers.deadletter import DeadLetter, letter_of
from consumers.merging import merged
from consumers.pipeline import Pipeline, ToDeliver, Wanted
from consumers.receipts import TOPIC, Receipt, ReceiptForm
from consumers.subscription import Subscription
from ops.app import App
from ops.changes.staleness import Guard, Verdict, attached_subscription
from ops.lag.cluster import Cluster
from ops.ledger.store import receipt_row
from ops.ledger.tables import COUNTS
from ops.reading import read_spans
from schemas.contract import example
from schemas.event import Origin, Record
from tests.conftest import Stack
from tests.ops.broker import Broker
from tests.ops.ledgers import address_of, open_store
from tests.ops.projects import TestProject, make_project

TEXT = """
description: Invoices as rows.
owner: team-data
connection: rows
routes:
  - event: billing.InvoiceCreated
    where: data.total_minor != 13
    action: row.upsert
    entity: "{{ data.invoice_id }}"
    body:
      table: "{{ 'drafts' if data.total_minor == 0 else 'invoices' }}"
      row: {state: open, total: "{{ data.total_minor }}"}
  - event: billing.InvoicePaid
    action: row.upsert
    entity: "{{ data.invoice_id }}"
    body: {table: invoices, row: {state: paid}}
"""


class Rows:
    """A subscription that is attached, and its ledger."""

    def __init__(self, project: TestProject, app: App, broker: Broker) -> None:
        self.project, self.app, self.broker = project, app, broker
        self.published: list[Record] = []
        self._numbers = itertools.count()
        self.subscription: Subscription = attached_subscription(app, app.control().subscriptions[project.subscription])
        self.store = open_store(address_of(project.folder, "sqlite:///.backbone/ledger.db"))
        app.on_close(self.store.close)

    def record(self, name: str, offset: int, *, partition: int = 1, **data: Any) -> Record:
        contract = self.app.contracts[name]
        encoded = self.app.encoder.encode(
            contract, example(contract) | {"invoice_id": "INV-1"} | data, id=f"e-{partition}-{offset}", source="shop",
            time=datetime.now(UTC),
        )  # fmt: skip
        headers: tuple[tuple[str, bytes | None], ...] = tuple(encoded.headers)
        return Record(contract.topic, partition, offset, encoded.key, encoded.value, headers, 1_777_000_000_000)

    def letter(self, record: Record) -> DeadLetter:
        return letter_of(
            record, outcome="rejected", reason="http_400", detail="", attempts=1, seconds_tried=0, version="v",
            now=datetime.now(UTC),
        )  # fmt: skip

    def publish(self, name: str, *, partition: int = 1, key: str = "INV-1", **data: Any) -> Record:
        """Write an event to its topic; the record as it stands there."""
        made = self.record(name, len(self.published), partition=partition, invoice_id=key, **data)
        placed: list[int] = []
        producer = Producer({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})
        producer.produce(
            made.topic, made.value, made.key, partition=partition, headers=list(made.headers),
            on_delivery=lambda error, message: placed.append(message.offset()),
        )  # fmt: skip
        assert producer.flush(20) == 0
        self.published.append(replace(made, offset=placed[0]))
        return self.published[-1]

    def known_from(self, offset: int, *, partition: int = 1) -> None:
        """The ledger knows what became of the records of a partition from there on."""
        at = datetime.now(UTC)
        row = dict.fromkeys(COUNTS, 0) | {
            "subscription": self.subscription.name, "topic": self.project.invoices, "partition": partition,
            "from_offset": offset, "to_offset": offset + 1, "subscription_version": "v", "at": at,
        }  # fmt: skip
        self.store.put_ranges([row])

    def made(self, record: Record) -> ToDeliver:
        """What the version that was attached first makes of it."""
        pipeline = Pipeline(self.subscription, self.app.decoder)
        made = pipeline.project(record)
        while isinstance(made, Wanted):
            self.app.decoder.load(made.schema)
            made = pipeline.project(record)
        assert isinstance(made, ToDeliver)
        return made

    def delivered(self, record: Record, *, outcome: Any = "delivered", **changed: Any) -> None:
        """Its receipt stands in the ledger."""
        self._settled(record, self.made(record), outcome, True, changed)

    def delivered_as_one(self, records: Sequence[Record], *, known: bool = True) -> None:
        """They went as one, as ``send: latest`` has it. Not ``known``: the ledger lacks the first of them."""
        found = [self.made(record) for record in records]
        *older, carrier = found
        for record, made in list(zip(records, older, strict=False))[0 if known else 1 :]:
            self._settled(record, made, "skipped", False, {"reason": "merged", "merged_into": carrier.event.id})
        action = self.subscription.connector.actions[carrier.delivery.action]
        as_one = merged([one.delivery for one in found], action)
        self._settled(records[-1], replace(carrier, delivery=as_one), "delivered", True, {})

    def _settled(
        self, record: Record, made: ToDeliver, outcome: Any, is_sent: bool, changed: Mapping[str, Any]
    ) -> None:
        now = time.time()
        receipt = Receipt(
            record=record, outcome=outcome, at=now, first_at=now, attempts=1, event=made.event, route=made.route,
            delivery=made.delivery, sent=is_sent,
        )  # fmt: skip
        fields = ReceiptForm(self.subscription, self.app.context.installation_key).settled(receipt)
        self.store.put_receipts([receipt_row({**fields, **changed}, Origin(TOPIC, 0, next(self._numbers)))])

    def compiled(self) -> Subscription:
        """The version that is attached now."""
        return attached_subscription(self.app, self.app.control().subscriptions[self.subscription.name])

    def inbox(self) -> list[Record]:
        """What stands in the subscription's inbox, in the order of each partition."""
        topic = self.subscription.inbox_topic
        ends = Cluster(self.app.admin(), self.app.consumer).ends([(topic, one) for one in range(3)], "committed")
        spans = {place: [(0, end)] for place, end in ends.items() if end}
        found = [record for records in read_spans(self.app, spans) for record in records]
        return sorted(found, key=lambda one: (one.partition, one.offset))

    def verdict(self, record: Record) -> Verdict:
        guard = Guard(self.app, self.subscription)
        return guard.judge([self.letter(record)])[record.origin]


@contextmanager
def new_rows(folder: Path, stack: Stack, prefix: str) -> Iterator[Rows]:
    """BACKBONE_PROJECT must name the folder."""
    project = make_project(folder, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    (project.folder / "consumers" / "subscriptions" / f"{project.subscription}.yaml").write_text(TEXT)
    for arguments in (
        ("schema", "register", "--apply", "--yes", "-q"),
        ("subscription", "attach", project.subscription, "--from", "earliest", "--apply", "--yes", "-q"),
    ):
        result = project.run(*arguments)
        assert result.exit_code == 0, result.output
    broker, app = Broker(stack), App()
    reader = broker.consumer()
    partitions = broker.admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    ends = {p: reader.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in partitions}
    reader.close()
    broker.commit("ledger", TOPIC, ends)  # this ledger has read what the tests before have written
    yield Rows(project, app, broker)
    app.close()
    project.run("subscription", "detach", project.subscription, "--apply", "--yes")
