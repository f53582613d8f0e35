"""What a redrive would overwrite: asked of a real ledger, filled with receipts as the runtime writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from consumers.deadletter import DeadLetter, letter_of
from consumers.pipeline import Pipeline, ToDeliver, Wanted
from consumers.receipts import TOPIC, Receipt, ReceiptForm
from consumers.subscription import Subscription
from ops.app import App
from ops.changes.staleness import Guard, Verdict, attached_subscription
from ops.ledger.store import receipt_row
from schemas.contract import example
from schemas.event import Origin, Record
from tests.conftest import Stack
from tests.ops.broker import Broker
from tests.ops.ledgers import address_of, open_store
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.integration

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

    def delivered(self, record: Record, *, outcome: Any = "delivered") -> None:
        """Its receipt stands in the ledger."""
        pipeline = Pipeline(self.subscription, self.app.decoder)
        made = pipeline.project(record)
        while isinstance(made, Wanted):
            self.app.decoder.load(made.schema)
            made = pipeline.project(record)
        assert isinstance(made, ToDeliver)
        now = time.time()
        receipt = Receipt(
            record=record, outcome=outcome, at=now, first_at=now, attempts=1, event=made.event, route=made.route,
            delivery=made.delivery, sent=True,
        )  # fmt: skip
        fields = ReceiptForm(self.subscription, self.app.context.installation_key).settled(receipt)
        self.store.put_receipts([receipt_row(fields, Origin(TOPIC, 0, record.offset))])

    def verdict(self, record: Record) -> Verdict:
        guard = Guard(self.app, self.subscription)
        return guard.judge([self.letter(record)])[record.origin]


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    project = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    (project.folder / "consumers" / "subscriptions" / f"{project.subscription}.yaml").write_text(TEXT)
    for arguments in (
        ("schema", "register", "--apply", "--yes", "-q"),
        ("subscription", "attach", project.subscription, "--from", "earliest", "--apply", "--yes", "-q"),
    ):
        result = project.run(*arguments)
        assert result.exit_code == 0, result.output
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    broker, app = Broker(stack), App()
    reader = broker.consumer()
    partitions = broker.admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    ends = {p: reader.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[1] for p in partitions}
    reader.close()
    broker.commit("ledger", TOPIC, ends)  # this ledger has read what the tests before have written
    yield Rows(project, app, broker)
    app.close()
    project.run("subscription", "detach", project.subscription, "--apply", "--yes")


def test_of_an_old_upsert_what_newer_deliveries_have_sent_since_is_left_out(rows: Rows) -> None:
    created = rows.record("billing.InvoiceCreated", 3, total_minor=100)
    rows.delivered(rows.record("billing.InvoicePaid", 2))  # older: what it sent is overwritten, as it always was
    rows.delivered(rows.record("billing.InvoicePaid", 9, invoice_id="INV-2"))
    assert rows.verdict(created) == Verdict("fresh")
    rows.delivered(rows.record("billing.InvoicePaid", 7))
    assert rows.verdict(created) == Verdict("stale", ("state",))
    rows.delivered(rows.record("billing.InvoiceCreated", 8, total_minor=200))
    assert rows.verdict(created) == Verdict("superseded", ("state", "total"))
    draft = rows.record("billing.InvoiceCreated", 3, total_minor=0)  # another table of the same entity
    assert rows.verdict(draft) == Verdict("fresh")
    other = rows.record("billing.InvoiceCreated", 0, partition=2, total_minor=100)
    assert rows.verdict(other) == Verdict("fresh")  # nothing was sent since it was set aside


def test_what_may_have_been_sent_counts_as_sent(rows: Rows) -> None:
    rows.delivered(rows.record("billing.InvoicePaid", 7), outcome="unknown")
    assert rows.verdict(rows.record("billing.InvoiceCreated", 3)).kind == "stale"


def test_what_the_map_refuses_or_does_not_take_any_more_is_told_apart(rows: Rows) -> None:
    assert rows.verdict(rows.record("billing.InvoiceCreated", 3, total_minor=13)).kind == "not_ours"
    undecodable = Record(rows.project.invoices, 1, 4, b"k", b"no bytes of ours", (), 1_777_000_000_000)
    assert rows.verdict(undecodable).kind == "refused"
