"""Replay as a change at a real broker, with a real ledger. No worker runs: what stands in the inbox is looked at."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumers.deadletter import letter_of, letter_record
from consumers.inbox import InboxOrder, parse_inbox
from consumers.offsets import encode_runs
from ops.changes import feeding, replay_plan
from ops.changes.replay_plan import cut
from ops.reading import as_record
from schemas.event import Record
from tests.conftest import Stack
from tests.ops.applying import applications
from tests.ops.rows import Rows, new_rows
from tests.waiting import eventually

CREATED, PAID = "billing.InvoiceCreated", "billing.InvoicePaid"
spans_drawn = st.lists(st.integers(0, 60), unique=True, max_size=12).map(
    lambda found: tuple(zip(*[iter(sorted(found))] * 2, strict=False))
)


@given(spans_drawn, st.integers(0, 60), st.integers(0, 60))
def test_what_is_cut_out_of_spans_is_exactly_what_lies_between(
    spans: tuple[tuple[int, int], ...], start: int, end: int
) -> None:
    def offsets(found: tuple[tuple[int, int], ...]) -> list[int]:
        return [offset for at, to in found for offset in range(at, to)]

    assert offsets(cut(spans, start, end)) == [offset for offset in offsets(spans) if start <= offset < end]


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    with new_rows(tmp_path, stack, prefix) as made:
        yield made


@pytest.fixture
def applying(rows: Rows) -> Iterator[Any]:
    with applications(rows.project) as start:
        yield start


def replay(rows: Rows, *more: str, code: int = 0) -> Any:
    return rows.project.document("replay", rows.subscription.name, *more, code=code)["data"]


def refusal(rows: Rows, *more: str) -> tuple[int, str]:
    """The exit code and the sentence; standard output is one JSON document also then."""
    result = rows.project.run("replay", rows.subscription.name, *more, "--output", "json")
    document = json.loads(result.stdout)
    if result.exit_code == 0:
        return 0, ""
    assert (document["data"], document["error"]["code"]) == (None, result.exit_code)
    return result.exit_code, document["error"]["message"]


def read(rows: Rows, offset: int, *, partition: int = 1, metadata: str = "") -> None:
    """The subscription has everything before the offset behind it."""
    rows.broker.commit(rows.subscription.name, rows.project.invoices, {partition: offset}, metadata)


def inbox(rows: Rows) -> list[tuple[InboxOrder, Record]]:
    topic = rows.subscription.inbox_topic
    reader = rows.broker.consumer(fetch_wait_max_ms=10)
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(3)])
    found: list[Record] = []
    ended: set[int] = set()
    while len(ended) < 3:
        for message in reader.consume(500, 0.1):
            if message.error() is None:
                found.append(as_record(message))
            else:
                ended.add(message.partition() or 0)
    reader.close()
    parsed = [parse_inbox(one) for one in sorted(found, key=lambda one: (one.partition, one.offset))]
    return [one for one in parsed if one is not None]


def sent(rows: Rows, change: str = "") -> list[int]:
    return [order.origin.offset for order, _ in inbox(rows) if change in ("", order.change)]


def words(plan: Any) -> str:
    return " | ".join(plan["summary"])


def delete(rows: Rows, before: int) -> None:
    """As retention does."""
    place = TopicPartition(rows.project.invoices, 1, before)
    rows.broker.admin.delete_records([place])[place].result(20)


@pytest.mark.integration
def test_a_replay_sends_the_originals_in_order_and_moves_no_position(rows: Rows) -> None:
    name, topic = rows.subscription.name, rows.project.invoices
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(4)]
    rows.publish(CREATED, key="INV-9", total_minor=13)  # no route takes it
    rows.publish(CREATED, key="INV-8")  # waits to be read live
    read(rows, 5)
    plan = replay(rows, "--from", "1", f"{topic}:1")
    (row,) = plan["rows"]
    assert (row["from"], row["to"], row["offsets"]) == (1, 5, 4)
    assert row["note"] == "1 of them wait to be read live, and are not sent twice"
    said = words(plan)
    assert "4 offsets are read again; meant are 3 InvoiceCreated" in said
    assert f"3 events delivered again to {name} alone -> at least 1 call to rows" in said
    assert "under their first idempotency keys: rows writes the same once more" in said
    assert f"for example {topic}/1/1: row.upsert INV-1" in said
    assert f"nobody runs {name} now" in said
    assert inbox(rows) == []
    before = rows.broker.commits(name)
    done = rows.project.document("apply", plan["id"])["data"]
    assert done["after"] | {"sent": 3, "waiting": 3, "redriven": 0} == done["after"]
    found = inbox(rows)
    assert [order.origin for order, _ in found] == [one.origin for one in records[1:]]
    for (order, original), record in zip(found, records[1:], strict=True):
        assert (original.key, original.value, original.headers) == (record.key, record.value, record.headers)
        assert (order.kind, order.change, order.revision, order.omit) == ("replay", plan["id"], "", ())
        assert not order.allow_stale
    assert rows.broker.commits(name) == before
    again = rows.project.run("apply", plan["id"])
    assert (again.exit_code, "was applied already" in again.stderr) == (6, True)
    assert "cannot be taken back: what was delivered cannot be unsent" in rows.project.run("undo", plan["id"]).stderr
    # what waits in the inbox is on its way: another replay does not send it twice
    refused = refusal(rows, "--from", "1", f"{topic}:1")
    assert (refused[0], "3 events left out: in the inbox already, by another change" in refused[1]) == (6, True)


@pytest.mark.integration
def test_only_says_which_events_are_due_by_what_the_ledger_knows(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(8)]
    read(rows, 8)
    rows.known_from(1)
    for number, how in {
        2: {},
        3: {"outcome": "rejected"},
        4: {"outcome": "skipped"},
        5: {"body_sha256": "0" * 64},
        6: {"idempotency_key": "0" * 64},
    }.items():
        rows.delivered(records[number], **how)
    missing = replay(rows, "--from", "earliest", "--only", "missing")
    assert "1 event left out: older than what the ledger knows" in words(missing)
    rows.project.document("apply", missing["id"])
    assert sent(rows) == [1, 3, 7]
    rows.broker.commit(rows.subscription.name, rows.subscription.inbox_topic, {1: 3})
    failed = replay(rows, "--from", "earliest", "--only", "failed", "--apply", "--yes")
    assert sent(rows, failed["id"]) == [3]
    rows.broker.commit(rows.subscription.name, rows.subscription.inbox_topic, {1: 4})
    changed = replay(rows, "--from", "earliest", "--only", "changed")
    assert "each under an idempotency key of its own" in words(changed)
    assert "1 event left out: the vendor would be asked what it was asked before" in words(changed)
    assert "1 event left out: sent merged with others" in words(changed)
    done = rows.project.document("apply", changed["id"])["data"]
    assert done["after"]["left_out"] == {"same": 1, "merged": 1}
    ((order, _),) = [one for one in inbox(rows) if one[0].change == changed["id"]]
    assert (order.origin.offset, order.revision) == (5, changed["id"])


@pytest.mark.integration
def test_what_newer_deliveries_have_sent_is_left_out_and_what_was_never_delivered_gets_its_end(rows: Rows) -> None:
    old = [rows.publish(CREATED, key=key, total_minor=100) for key in ("INV-1", "INV-2", "INV-3")]
    newer = [
        rows.publish(PAID, key="INV-1"),
        *(rows.publish(CREATED, key=k, total_minor=2) for k in ("INV-2", "INV-3")),
    ]
    read(rows, 6)
    for record in (*newer, old[0], old[1]):
        rows.delivered(record)
    plan = replay(rows, "--from", "0", "--to", "3")
    assert "2 events not sent to the vendor: newer deliveries have sent all of it" in words(plan)
    assert "1 event without fields that newer deliveries have sent since" in words(plan)
    rows.project.document("apply", plan["id"])
    # of the second the vendor has all that is newer; of the third no receipt says how it ended, so its workers say it
    assert [(order.origin.offset, order.omit) for order, _ in inbox(rows)] == [
        (0, ("state",)), (2, ("state", "total")),
    ]  # fmt: skip
    rows.broker.commit(rows.subscription.name, rows.subscription.inbox_topic, {1: 2})
    all_of_it = replay(rows, "--from", "0", "--to", "3", "--allow-stale", "--apply", "--yes")
    found = [order for order, _ in inbox(rows) if order.change == all_of_it["id"]]
    assert [(order.origin.offset, order.omit, order.allow_stale) for order in found] == [
        (offset, (), True) for offset in range(3)
    ]


@pytest.mark.integration
def test_an_event_with_an_open_dead_letter_is_redriven_which_closes_it(rows: Rows) -> None:
    records = [rows.publish(CREATED, key="INV-1", total_minor=100 + number) for number in range(2)]
    read(rows, 2)
    rows.known_from(0)
    letter = letter_of(records[1], outcome="rejected", reason="http_400", detail="", attempts=1, seconds_tried=0,
                       version="v", now=datetime.now(UTC), redrives=1)  # fmt: skip
    made = letter_record(letter)
    producer = Producer({"bootstrap.servers": rows.broker.bootstrap, "log_level": 0})
    producer.produce(rows.subscription.dead_topic, made.value, made.key, made.partition, headers=list(made.headers))
    assert producer.flush(10) == 0
    plan = replay(rows, "--from", "earliest", "--only", "missing")
    assert "1 event with an open dead letter: redriven, which closes it" in words(plan)
    done = rows.project.document("apply", plan["id"])["data"]
    assert (done["after"]["sent"], done["after"]["redriven"]) == (2, 1)
    assert [(order.kind, order.redrives) for order, _ in inbox(rows)] == [("replay", 0), ("redrive", 1)]


@pytest.mark.integration
def test_filters_choose_by_type_key_entity_and_expression(rows: Rows) -> None:
    for key in ("INV-1", "INV-2"):
        rows.publish(CREATED, key=key, account_id=f"acc-{key}", total_minor=100)
        rows.publish(PAID, key=key, account_id=f"acc-{key}")
    read(rows, 4)
    for filters, expected in (
        (("--type", "InvoicePaid"), [1, 3]),
        (("--key", "acc-INV-2"), [2, 3]),
        (("--entity", "INV-1", "--type", CREATED), [0]),
        (("--where", "data.invoice_id == 'INV-2' and event.name == 'InvoicePaid'"), [3]),
        (("--where", "data.total_minor > 99"), [0, 2]),
    ):
        plan = replay(rows, "--from", "earliest", "--allow-stale", *filters)
        meant = words(plan).partition("meant are ")[2].partition("|")[0]
        assert sum(map(int, re.findall(r"(\d+) Invoice", meant))) == len(expected)
        if "total_minor" in filters[-1]:
            assert "where cannot be said of billing.InvoicePaid, so it is left out" in words(plan)
        rows.project.document("apply", plan["id"])
        assert sent(rows, plan["id"]) == expected
        ends = {1: len(inbox(rows))}
        rows.broker.commit(rows.subscription.name, rows.subscription.inbox_topic, ends)
    for arguments, code, sentence in (
        (("--from", "earliest", "--type", "InvoicePaidd"), 5, "Did you mean 'InvoicePaid'?"),
        (("--from", "earliest", "--where", "data.totl > 1"), 2, "totl"),
        (("--from", "14:00"), 2, "A time begins with @"),
        (("--from", "earliest", "--rate", "fast"), 2, "'fast' is no rate"),
        (("--from", "earliest", f"{rows.project.invoices}:7"), 2, "has 3 partitions, the last is 2"),
        (("--from", "earliest", f"{rows.project.invoices}x"), 5, f"Did you mean '{rows.project.invoices}'?"),
        (("--from", "earliest", "--key", "INV-7", "--allow-stale"), 6, "no event is meant"),
        (("--from", "latest"), 6, "There is nothing to replay"),
        (("--from", "@-0s"), 6, "no record since"),
    ):
        found = refusal(rows, *arguments)
        assert (found[0], sentence in found[1]) == (code, True), found
    unknown = rows.project.run("replay", f"{rows.subscription.name}x", "--from", "earliest")
    assert (unknown.exit_code, f"Did you mean '{rows.subscription.name}'?" in unknown.stderr) == (5, True)
    without = rows.project.run(
        "-c", "prod", "replay", rows.subscription.name, "--from", "earliest", "--only", "missing"
    )
    assert without.exit_code == 6
    assert "keeps no ledger" in without.stderr
    assert "--only all --allow-stale" in without.stderr


@pytest.mark.integration
def test_what_retention_took_is_said_and_makes_an_older_plan_stale_as_rewinds_and_versions_do(rows: Rows) -> None:
    for number in range(6):
        rows.publish(CREATED, key=f"INV-{number}", total_minor=100)
    read(rows, 6)
    delete(rows, 1)
    old = replay(rows, "--from", "earliest", "--allow-stale", f"{rows.project.invoices}:1")
    assert old["rows"][0]["note"] == "the log begins here: 1 older event deleted by retention"
    delete(rows, 3)
    plan = replay(rows, "--from", "1", "--to", "@-0s", "--allow-stale", f"{rows.project.invoices}:1")
    assert "2 events from 1 to 3 are deleted by retention; no record since" in plan["rows"][0]["note"]
    assert (plan["rows"][0]["from"], plan["rows"][0]["offsets"]) == (3, 3)
    stale = rows.project.run("apply", old["id"])
    assert (stale.exit_code, "from 1 to 3 are deleted by now" in stale.stderr) == (6, True)
    read(rows, 4)
    rewound = rows.project.run("apply", plan["id"])
    assert (rewound.exit_code, "was rewound" in rewound.stderr) == (6, True)
    # what is finished beyond the committed place can be replayed, what is not waits to be read live
    read(rows, 4, metadata=encode_runs(4, [(5, 6)]))
    runs = replay(rows, "--from", "earliest", "--allow-stale", f"{rows.project.invoices}:1")
    assert (runs["rows"][0]["offsets"], runs["rows"][0]["note"].startswith("the log begins")) == (2, True)
    path = rows.project.folder / "consumers" / "subscriptions" / f"{rows.subscription.name}.yaml"
    path.write_text(path.read_text().replace("state: paid", "state: settled"))
    assert rows.project.run("subscription", "attach", rows.subscription.name, "--apply", "--yes").exit_code == 0
    other = rows.project.run("apply", runs["id"])
    assert (other.exit_code, "is another version by now" in other.stderr) == (6, True)
    assert inbox(rows) == []


@pytest.mark.integration
def test_many_events_are_severe_and_those_that_are_too_old_are_not_sent(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        rows.publish(CREATED, key=f"INV-{number}", total_minor=100)
    read(rows, 6)
    monkeypatch.setattr(replay_plan, "SEVERE_EVENTS", 4)
    plan = replay(rows, "--from", "earliest", "--allow-stale")
    refused = rows.project.run("apply", plan["id"])
    assert (refused.exit_code, f"--confirm {rows.subscription.name}" in refused.stderr) == (6, True)
    with monkeypatch.context() as patched:  # so many that only a part is looked at
        patched.setattr(replay_plan, "LOOKED_AT_MAX", 1)
        patched.setattr(replay_plan, "JUDGED_MAX", 2)
        about = replay(rows, "--from", "earliest", "--allow-stale")
    assert "about 6 events delivered again" in words(about)
    path = rows.project.folder / "consumers" / "subscriptions" / f"{rows.subscription.name}.yaml"
    path.write_text(path.read_text().replace("routes:", "policies: {expire_after: 1s}\nroutes:"))
    assert rows.project.run("subscription", "attach", rows.subscription.name, "--apply", "--yes").exit_code == 0
    for number in range(3):
        rows.delivered(rows.published[number])
    expired = "not sent to the vendor: older than expire_after"
    eventually(lambda: f"6 events {expired}" in words(replay(rows, "--from", "0")), about="all to be a second old")
    done = replay(rows, "--from", "0", "--apply", "--yes")["after"]
    assert (sent(rows), done["left_out"]) == ([3, 4, 5], {"expired": 6})  # these have no end yet: it is written


@pytest.mark.integration
def test_no_more_is_sent_than_the_workers_take(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        rows.publish(CREATED, key=f"INV-{number}", total_minor=100)
    read(rows, 12)
    monkeypatch.setattr(feeding, "INBOX_MAX", 8)
    monkeypatch.setattr(feeding, "CHUNK", 4)
    plan = replay(rows, "--from", "earliest", "--allow-stale")
    done: list[Any] = []
    running = threading.Thread(target=lambda: done.append(rows.project.document("apply", plan["id"])))
    running.start()
    try:
        eventually(lambda: len(sent(rows)) == 8, 60, about="as many as may wait")
        assert rows.project.document("change", "show", plan["id"])["data"]["state"] == "begun"
        assert len(sent(rows)) == 8
    finally:
        rows.broker.commit(rows.subscription.name, rows.subscription.inbox_topic, {1: 8})
        running.join(60)
    assert sent(rows) == list(range(12))
    assert done[0]["data"]["after"]["sent"] == 12


@pytest.mark.integration
def test_a_replay_that_was_killed_goes_on_sends_each_event_once_and_can_be_steered(rows: Rows, applying: Any) -> None:
    for number in range(60):
        rows.publish(CREATED, key=f"INV-{number % 7}", total_minor=100 + number)
    read(rows, 60)
    plan = replay(rows, "--from", "earliest", "--allow-stale", "--rate", "2/s")
    killed = applying(plan["id"])
    eventually(lambda: len(sent(rows)) >= 3, 60, about="some events of the first chunk in the inbox")
    killed.end(signal.SIGKILL)
    assert len(sent(rows)) < 60
    resumed = applying(plan["id"])
    eventually(lambda: resumed.said("It goes on"), 60)
    assert rows.project.run("change", "throttle", plan["id"], "1000/s").exit_code == 0
    eventually(lambda: len(sent(rows)) >= 25, 60, about="the second chunk")
    resumed.end(signal.SIGINT)
    assert resumed.process.returncode in (0, 130), resumed.log.read_text()
    last = applying(plan["id"])
    assert last.end() in (0, 6), last.log.read_text()
    assert sent(rows) == list(range(60))
    shown = rows.project.document("change", "show", plan["id"])["data"]
    assert (shown["state"], shown["after"]["sent"]) == ("applied", 60)


@pytest.mark.integration
def test_a_cancelled_replay_ends_where_it_is(rows: Rows, applying: Any) -> None:
    for number in range(40):
        rows.publish(CREATED, key=f"INV-{number}", total_minor=100)
    read(rows, 40)
    plan = replay(rows, "--from", "earliest", "--allow-stale", "--rate", "1/s")
    process = applying(plan["id"])
    eventually(lambda: sent(rows), 60)
    rows.project.document("change", "cancel", plan["id"])
    assert process.end() == 7
    assert process.said("What was sent cannot be unsent.")
    there = sent(rows)
    assert 0 < len(there) < 40
    shown = rows.project.document("change", "show", plan["id"])["data"]
    assert (shown["state"], shown["after"]["sent"]) == ("cancelled", len(there))
