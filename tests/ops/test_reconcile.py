"""``backbone reconcile`` at a real broker with a real ledger and a database. No worker runs: what is judged, what is
not, and what is said of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from connectors.connector import Delivered, Delivery
from connectors.sql import CONNECTOR as SQL
from consumers.control import erased_record
from consumers.deadletter import letter_of, letter_record
from consumers.erased import ErasedPerson, key_id, mark_of
from consumers.pipeline import Pipeline, ToDeliver
from ops.control import write_control
from ops.ledger.tables import COUNTS
from schemas.event import Origin, Record
from tests.conftest import Stack
from tests.ops.rows import Rows, new_rows

pytestmark = pytest.mark.integration
CREATED, PAID = "billing.InvoiceCreated", "billing.InvoicePaid"


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    with new_rows(tmp_path, stack, prefix) as made:
        yield made


def run(rows: Rows, *more: str, code: int = 0) -> Any:
    return rows.project.document("reconcile", "run", rows.subscription.name, *more, code=code)["data"]


def refusal(rows: Rows, *words: str) -> tuple[int, str]:
    result = rows.project.run("reconcile", *words, "--output", "json")
    document = json.loads(result.stdout)
    return result.exit_code, document["error"]["message"]


def read(rows: Rows, offset: int) -> None:
    rows.broker.commit(rows.subscription.name, rows.project.invoices, {1: offset})


def counted(rows: Rows, start: int, end: int, **counts: int) -> None:
    """A range as a worker has recorded it."""
    row = dict.fromkeys(COUNTS, 0) | counts | {
        "subscription": rows.subscription.name, "topic": rows.project.invoices, "partition": 1,
        "from_offset": start, "to_offset": end, "subscription_version": "v", "at": datetime.now(UTC),
    }  # fmt: skip
    rows.store.put_ranges([row])


def made(rows: Rows, record: Record) -> Delivery:
    found = Pipeline(rows.subscription, rows.app.decoder).project(record)
    assert isinstance(found, ToDeliver)
    return found.delivery


def written(rows: Rows, *records: Record) -> None:
    """They are in the database, as a worker would have written them."""

    async def write() -> None:
        folder = rows.project.folder / ".backbone" / "fakes"
        opened = SQL.open(SQL.settings(**SQL.fake_settings("", folder)))
        for record in records:
            assert await opened.deliver([made(rows, record)]) == [Delivered()]
        await opened.close()

    asyncio.run(write())


def set_aside(rows: Rows, record: Record, outcome: Any) -> None:
    """It has an open dead letter."""
    letter = letter_of(
        record, outcome=outcome, reason="timeout", detail="", attempts=1, seconds_tried=0, version="v",
        now=datetime.now(UTC),
    )  # fmt: skip
    line = letter_record(letter)
    producer = Producer({"bootstrap.servers": rows.broker.bootstrap, "log_level": 0})
    producer.produce(rows.subscription.dead_topic, line.value, line.key, line.partition, headers=list(line.headers))
    assert producer.flush(10) == 0


def kinds(data: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in data["rows"]:
        found.setdefault(row["kind"], []).append(row["entity"] if row["entity"] is not None else row["start"])
    return found


def test_each_record_is_counted_once_and_what_nobody_can_judge_is_said(rows: Rows) -> None:
    fine, doubtful = (rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(2))
    maybe = rows.publish(PAID, key="INV-1")
    lost_letter = rows.publish(CREATED, key="INV-3", total_minor=100)
    rows.publish(CREATED, key="INV-4", total_minor=13)  # no route wants it
    missing = rows.publish(CREATED, key="INV-5", total_minor=100)
    missing_newer = rows.publish(PAID, key="INV-5")
    moving = rows.publish(CREATED, key="INV-6", total_minor=100)
    rows.publish(PAID, key="INV-6")  # waits
    read(rows, 8)
    counted(rows, 0, 3, delivered=2, dead=1)
    counted(rows, 3, 8, delivered=3, dead=1, not_ours=1)
    for record in (fine, doubtful, missing, missing_newer, moving):
        rows.delivered(record)
    rows.delivered(maybe, outcome="unknown")
    set_aside(rows, maybe, "unknown")
    rows.delivered(lost_letter, outcome="rejected")
    written(rows, fine, doubtful, maybe)
    before = rows.broker.commits(rows.subscription.name)
    data = run(rows, code=3)
    assert data["stages"] | {
        "delivered": 5, "dead": 1, "not_ours": 1, "waiting": 1, "letter_missing": 1, "receipt_missing": 0,
    } == data["stages"]  # fmt: skip
    assert (data["published"], sum(data["stages"].values()), data["proved"], data["holes"]) == (9, 9, 8, 0)
    assert kinds(data) == {"letter_missing": [3], "missing": ["INV-5"]}
    (row,) = [one for one in data["rows"] if one["kind"] == "missing"]
    topic = rows.project.invoices
    assert (row["send"], row["as_of"]) == ([f"{topic}/1/5", f"{topic}/1/6"], f"{topic}/1/6")
    vendor = data["vendor"]
    assert (vendor["entities"], vendor["equal"], vendor["open_letter"], vendor["in_motion"]) == (2, 1, 1, 1)
    said = rows.project.run("reconcile", "show", rows.subscription.name)
    assert said.exit_code == 3
    assert "does not agree: 1 letter_missing, 1 missing" in said.stderr
    assert f"backbone reconcile repair {data['id']}" in said.stderr
    assert "--only failed" in said.stderr
    assert "1 behind an open dead letter" in said.stdout
    assert rows.broker.commits(rows.subscription.name) == before

    plan = rows.project.document("reconcile", "repair", data["id"])["data"]
    assert plan["rows"] == [
        {"action": "row.upsert", "about": "invoices", "difference": "missing", "things": 1, "events": 2}
    ]
    # somebody publishes about the same thing: the repair leaves it to that
    rows.publish(PAID, key="INV-5")
    done = rows.project.document("apply", plan["id"])["data"]
    assert (done["after"]["sent"], done["after"]["left_out"]) == (0, {"newer": 2})
    assert run(rows, code=3)["vendor"]["in_motion"] == 2


def test_what_is_gone_or_older_than_the_subscription_and_ledger_is_said_and_no_difference(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(5)]
    read(rows, 5)
    counted(rows, 3, 5, delivered=2)
    for record in records[3:]:
        rows.delivered(record)
    written(rows, *records)
    place = TopicPartition(rows.project.invoices, 1, 1)
    rows.broker.admin.delete_records([place])[place].result(20)
    data = run(rows)
    assert (data["agrees"], data["published"], data["stages"]["not_known"], data["proved"]) == (True, 4, 2, 2)
    assert data["said"][0] == "1 offset deleted from the topics by retention: nothing can be said of them"
    assert "2 records older than the ledger: whether delivered is not known" in data["said"]
    assert (data["vendor"]["listed"], data["vendor"]["before"]) == (5, 1)  # INV-0's event is gone: not too much
    part = run(rows, "--from", "4", "--no-extra")
    assert (part["published"], part["uncounted"], part["vendor"]["extra_why"]) == (1, 1, "not asked for")


def test_what_workers_counted_and_the_topic_are_held_side_by_side(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(4)]
    read(rows, 4)
    counted(rows, 0, 2, delivered=1)
    counted(rows, 2, 4, delivered=2)
    for record in records[:3]:
        rows.delivered(record)
    data = run(rows, "--no-vendor", code=3)
    assert [(row["kind"], row["start"], row["end"], row["count"]) for row in data["rows"]] == [
        ("unaccounted", 0, 2, 1), ("receipt_missing", 3, 4, 1),
    ]  # fmt: skip
    assert data["vendor"]["why"] == "not asked for"
    until = run(rows, "--to", "2", code=3)
    assert (until["published"], until["vendor"]["compared"]) == (2, False)
    # the same judge as replaying what is missing
    plan = rows.project.document("replay", rows.subscription.name, "--from", "earliest", "--only", "missing")["data"]
    assert "1 event delivered again" in " ".join(plan["summary"])


def test_who_was_erased_is_neither_missing_nor_repaired(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(3)]
    read(rows, 3)
    counted(rows, 0, 3, delivered=3)
    for record in records:
        rows.delivered(record)
    # one by the mark that everybody skips events by, one whose row was erased by an entity that events still name
    key = rows.app.installation_key
    person = ErasedPerson(
        field="invoice_id", events=(CREATED,), at=datetime.now(UTC).isoformat(timespec="milliseconds"), change="ch-1",
        key_id=key_id(key),
    )  # fmt: skip
    mark = mark_of("invoice_id", "INV-0", key)
    write_control(rows.app, [erased_record(mark, person)])
    try:
        rows.delivered(
            records[1], action="row.delete", change_kind="erase", change_id="ch-1", revision="ch-1/1", body_sha256=None
        )
        written(rows, records[2])
        data = run(rows)
    finally:
        write_control(rows.app, [erased_record(mark, None)])
    assert data["agrees"]
    assert (data["vendor"]["entities"], data["vendor"]["erased"]) == (1, 1)
    assert data["stages"]["delivered"] == 3


def test_what_cannot_be_asked_is_refused_with_a_sentence(rows: Rows) -> None:
    name = rows.subscription.name
    assert refusal(rows, "run", "nobody")[0] == 5
    code, sentence = refusal(rows, "run", name)
    assert (code, "has no record from earliest" in sentence) == (6, True)
    record = rows.publish(CREATED, key="INV-0", total_minor=100)
    read(rows, 1)
    counted(rows, 0, 1, delivered=1)
    rows.delivered(record)
    assert refusal(rows, "run", name, "--vendor", "--to", "1")[0] == 2
    code, sentence = refusal(rows, "show", "nobody")
    assert (code, "backbone reconcile run nobody" in sentence) == (5, True)
    written(rows, record)
    agreed = run(rows)
    assert agreed["agrees"]
    code, sentence = refusal(rows, "repair", agreed["id"])
    assert (code, "nothing is missing or different" in sentence) == (6, True)
    assert Origin(rows.project.invoices, 1, 0) == record.origin
    other = rows.project.folder / "consumers" / "subscriptions" / f"{name}.yaml"
    other.write_text(other.read_text().replace("state: open", "state: new"))
    rows.project.document("subscription", "attach", name, "--apply", "--yes")
    # the map is another one now, and nothing was sent again: the vendor has what the old one said
    data = run(rows, code=3)
    (difference,) = data["rows"]
    assert difference["fields"] == [{"name": "state", "expected": "new", "found": "open"}]
    code, sentence = refusal(rows, "repair", agreed["id"])
    assert (code, "is attached by now" in sentence) == (6, True)
