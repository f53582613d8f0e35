"""Redrive, discard and set-aside as changes at a real broker. No worker runs: what is written is looked at."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from consumers.deadletter import DeadLetter, letter_of, letter_record
from consumers.inbox import InboxOrder, parse_inbox
from consumers.offsets import decode_runs
from consumers.settlement import DeadOutcome
from ops.app import App
from ops.changes.audit import entries
from ops.reading import as_record
from ops.sending import send_acked
from schemas.event import Origin, Record
from tests.conftest import Stack
from tests.ops.applying import applications
from tests.ops.broker import Broker
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

pytestmark = pytest.mark.integration

POLICIES = "policies: {on_dead_letter: park_key}\n"
TEXT = """
description: Tells sales about invoices.
owner: team-sales-ops
connection: chat
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body: {channel: "#sales", text: "{{ data.invoice_id }}"}
"""


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return Broker(stack)


@pytest.fixture
def project(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[TestProject]:
    """A subscription ``<prefix>-rows`` is attached, which posts messages (so nothing can be stale); no worker runs."""
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    with (made.folder / "backbone.toml").open("a") as file:
        file.write('\n[connections.chat]\nconnector = "slack"\n')
    path = made.folder / "consumers" / "subscriptions" / f"{made.subscription}.yaml"
    path.write_text(TEXT.replace("routes:", f"{POLICIES}routes:"))
    for arguments in (
        ("schema", "register", "--apply", "--yes", "-q"),
        ("subscription", "attach", made.subscription, "--from", "earliest", "--apply", "--yes", "-q"),
    ):
        result = made.run(*arguments)
        assert result.exit_code == 0, result.output
    yield made
    made.run("subscription", "detach", made.subscription, "--apply", "--yes")


def record(project: TestProject, offset: int, *, key: bytes | None = b"k1", value: bytes | None = b"\0bytes") -> Record:
    headers = (("ce_type", b"billing.InvoiceCreated"), ("ce_id", f"e-{offset}".encode()))
    return Record(project.invoices, 1, offset, key, value, headers, 1_777_000_000_000 + offset)


def letter(one: Record, outcome: DeadOutcome = "rejected", *, redrives: int = 0, reason: str = "") -> DeadLetter:
    return letter_of(
        one, outcome=outcome, reason=reason or f"because_{outcome}", detail="", attempts=2, seconds_tried=60,
        version="v@3f9a2c", now=datetime.now(UTC) - timedelta(hours=2), redrives=redrives,
    )  # fmt: skip


def write(broker: Broker, project: TestProject, *letters: DeadLetter, close: bool = False, **how: bool) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for one in letters:
        made = letter_record(one, **how)
        headers: list[tuple[str, str | bytes | None]] = [] if close else list(made.headers)
        value = None if close else made.value
        producer.produce(f"{project.subscription}.dead", value, made.key, made.partition, headers=headers)
    assert producer.flush(10) == 0


def everything(broker: Broker, topic: str, partitions: int = 3) -> list[Record]:
    """Every record of a topic, in the order of its partitions."""
    reader = broker.consumer(fetch_wait_max_ms=10)
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[Record] = []
    ended: set[int] = set()
    while len(ended) < partitions:
        for message in reader.consume(500, 0.1):
            if message.error() is None:
                found.append(as_record(message))
            else:
                ended.add(message.partition() or 0)
    reader.close()
    return sorted(found, key=lambda one: (one.partition, one.offset))


def inbox(broker: Broker, project: TestProject) -> list[tuple[InboxOrder, Record]]:
    parsed = [parse_inbox(one) for one in everything(broker, f"{project.subscription}.inbox")]
    assert all(one is not None for one in parsed)
    return [one for one in parsed if one is not None]


def sent(broker: Broker, project: TestProject) -> list[int]:
    """The offsets of the origins, as they stand in the inbox."""
    return [order.origin.offset for order, _ in inbox(broker, project)]


def redrive(project: TestProject, *more: str, code: int = 0) -> Any:
    return project.document("deadletter", "redrive", project.subscription, *more, code=code)["data"]


def phases(project: TestProject, change_id: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    app = App()
    try:
        return [entry.phase for entry in entries(app) if entry.change_id == change_id]
    finally:
        app.close()


def planned(project: TestProject) -> str:
    """The id of a redrive of everything."""
    change: str = redrive(project, "--all")["id"]
    return change


def interrupted(app: Any, records: Any) -> int:
    raise KeyboardInterrupt


def wanted(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What people want of changes that run, as backbone.control has it."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    app = App()
    try:
        return app.control().changes
    finally:
        app.close()


def another_machine(project: TestProject) -> TestProject:
    """The same project with a state folder of its own: nothing that was planned here is known there."""
    folder = project.folder / "another"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("changes", "*.log", "another"))
    return replace(project, folder=folder)


# ---- redrive --------------------------------------------------------------------------------------------------------


def test_a_redrive_writes_the_originals_to_the_inbox_in_order_and_nothing_before_it_is_applied(
    project: TestProject, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = project.subscription
    write(broker, project, *(letter(record(project, offset)) for offset in (9, 4)))
    write(broker, project, letter(record(project, 7, key=None), "unknown", redrives=2))
    plan = redrive(project, "--all")
    assert {(row["count"], row["outcome"], row["redrives"]) for row in plan["rows"]} == {
        (2, "rejected", 0), (1, "unknown", 2)
    }  # fmt: skip
    summary = " ".join(plan["summary"])
    assert f"3 events are delivered again to {name} alone -> at least 3 calls to chat" in summary
    assert f"nobody runs {name} now" in summary
    assert inbox(broker, project) == []
    done = project.document("apply", plan["id"])["data"]
    assert done["after"] | {"sent": 3, "still_open": 3, "closed": 0, "failed_again": 0} == done["after"]
    found = inbox(broker, project)
    assert [(order.origin.offset, order.redrives) for order, _ in found] == [(4, 0), (7, 2), (9, 0)]
    for order, original in found:
        key = None if order.origin.offset == 7 else b"k1"
        assert original == record(project, order.origin.offset, key=key)
        assert (order.kind, order.change, order.revision, order.omit) == ("redrive", plan["id"], "", ())
        assert not order.allow_stale
    assert {one.partition for one in everything(broker, f"{name}.inbox")} == {1}
    assert phases(project, plan["id"], monkeypatch) == ["planned", "applied"]
    again = project.run("apply", plan["id"])
    assert again.exit_code == 6
    assert "was applied already" in again.stderr
    assert "cannot be taken back: what was delivered cannot be unsent" in project.run("undo", plan["id"]).stderr


def test_a_plan_whose_letters_were_closed_or_failed_again_is_stale(project: TestProject, broker: Broker) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(3)))
    closed, replaced = redrive(project, "--all")["id"], redrive(project, f"{project.invoices}/1/2")["id"]
    write(broker, project, letter(record(project, 1)), close=True)
    result = project.run("apply", closed)
    assert result.exit_code == 6
    assert (
        f"1 of 3 letters were closed or failed once more since this was planned, the first is {project.invoices}/1/1"
        in (result.stderr)
    )
    write(broker, project, letter(record(project, 2), redrives=1))
    assert project.run("apply", replaced).exit_code == 6
    assert inbox(broker, project) == []
    one, two = redrive(project, "--all")["id"], redrive(project, "--all")["id"]
    project.document("apply", one)
    result = project.run("apply", two)
    assert (result.exit_code, f"were sent to the inbox since this was planned, by {one}" in result.stderr) == (6, True)
    assert sent(broker, project) == [0, 2]
    broker.commit(project.subscription, f"{project.subscription}.inbox", {1: 1})  # of 0 came what came
    assert redrive(project, "--all")["after"] == {"sent": 1}


def test_letters_that_failed_three_redrives_are_left_out_unless_a_person_insists(
    project: TestProject, broker: Broker
) -> None:
    write(broker, project, letter(record(project, 0), redrives=3))
    refused = project.run("deadletter", "redrive", project.subscription, "--all")
    assert refused.exit_code == 6
    assert "1 letter is left out after 3 redrives that failed" in refused.stderr
    write(broker, project, letter(record(project, 1, key=b"k2"), redrives=2))
    assert redrive(project, "--all")["after"] == {"sent": 1}
    done = redrive(project, "--all", "--again", "--apply", "--yes")
    assert done["after"]["sent"] == 2
    assert [order.redrives for order, _ in inbox(broker, project)] == [3, 2]


def test_what_is_not_there_is_said_with_the_nearest(project: TestProject, broker: Broker) -> None:
    name = project.subscription
    write(broker, project, letter(record(project, 3)))
    for arguments, code, words in (
        ((name,), 2, "Say which letters: their IDs, --cause CAUSE, --key KEY or --all."),
        ((name, f"{project.invoices}/1/4"), 5, f"Did you mean '{project.invoices}/1/3'?"),
        ((name, "--cause", "because_rejectd"), 5, "Did you mean 'because_rejected'?"),
        ((name, "--key", "k2"), 5, "no open dead letter of that key"),
        ((f"{name}x", "--all"), 5, f"Did you mean '{name}'?"),
        ((name, "--all", "--rate", "fast"), 2, "'fast' is no rate"),
    ):
        result = project.run("deadletter", "redrive", *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert words in result.stderr


def test_what_is_parked_behind_a_chosen_letter_comes_along(project: TestProject, broker: Broker) -> None:
    write(broker, project, letter(record(project, 0)), letter(record(project, 3, key=b"k2"), "parked"))
    write(broker, project, *(letter(record(project, offset), "parked") for offset in (1, 2)))
    row, *_ = project.document("deadletter", "list", project.subscription)["data"][1:]
    assert (row["outcome"], row["parked"]) == ("rejected", 2)
    plan = redrive(project, "--cause", "because_rejected")
    assert "with 2 letters parked behind them" in " ".join(plan["summary"])
    project.document("apply", plan["id"])
    assert sent(broker, project) == [0, 1, 2]
    twice = project.run("deadletter", "redrive", project.subscription, "--all")
    assert (twice.exit_code, f"are in the inbox already, by {plan['id']}, and left out" in twice.stderr) == (0, True)
    behind = redrive(project, f"{project.invoices}/1/2", "--again")
    assert "1 letter is behind an older one of the same key that is not chosen: parked again" in " ".join(
        behind["summary"]
    )


def test_bytes_that_were_too_large_are_read_at_their_origin_or_reported_gone(
    project: TestProject, broker: Broker
) -> None:
    large = b"\0" + b"x" * 5_000
    broker.produce(project.invoices, 2, partition=1, value=large)
    there = [letter(record(project, offset, value=large)) for offset in (0, 1)]
    write(broker, project, *there, omit_value=True)
    broker.admin.delete_records([TopicPartition(project.invoices, 1, 1)])[
        TopicPartition(project.invoices, 1, 1)
    ].result(20)
    plan = redrive(project, "--all")
    assert "1 letter cannot be redriven: the bytes were too large" in " ".join(plan["summary"])
    project.document("apply", plan["id"])
    ((order, original),) = inbox(broker, project)
    assert (order.origin.offset, original.value) == (1, large)


def test_an_upsert_is_not_redriven_without_a_ledger_that_knows_what_was_sent_later(
    project: TestProject, broker: Broker
) -> None:
    path = project.folder / "consumers" / "subscriptions" / f"{project.subscription}.yaml"
    path.write_text(project.write_subscription('["billing.InvoiceCreated"]').read_text())
    attached = project.run("subscription", "attach", project.subscription, "--apply", "--yes")
    assert attached.exit_code == 0, attached.output
    write(broker, project, letter(record(project, 0)))
    refused = project.run("deadletter", "redrive", project.subscription, "--all")
    assert refused.exit_code in (6, 8), refused.output
    assert "overwrite newer values (row.upsert writes what an event said then)" in refused.stderr
    assert "--allow-stale" in refused.stderr
    redrive(project, "--all", "--allow-stale", "--apply", "--yes")
    ((order, _),) = inbox(broker, project)
    assert order.allow_stale


# ---- cut, resumed, steered ------------------------------------------------------------------------------------------


@pytest.fixture
def applying(project: TestProject) -> Iterator[Any]:
    with applications(project) as start:
        yield start


def test_a_redrive_that_was_killed_goes_on_and_sends_nothing_twice(
    project: TestProject, broker: Broker, applying: Any
) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(40)))
    plan = redrive(project, "--all", "--rate", "2/s")
    killed = applying(plan["id"])
    eventually(lambda: len(sent(broker, project)) >= 3, 40, about="some letters of the first chunk in the inbox")
    killed.end(signal.SIGKILL)
    before = sent(broker, project)
    assert len(before) < 40
    shown = project.document("change", "show", plan["id"])["data"]
    assert shown["doing"] == "letters 1 to 20"
    resumed = applying(plan["id"])
    eventually(lambda: resumed.said("It goes on"), 40)
    assert project.run("change", "throttle", plan["id"], "none").exit_code == 0
    assert resumed.end() == 0, resumed.log.read_text()
    assert sent(broker, project) == list(range(40))
    assert project.document("change", "show", plan["id"])["data"]["state"] == "applied"


def test_ctrl_c_says_how_to_go_on(project: TestProject, broker: Broker, applying: Any) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(40)))
    plan = redrive(project, "--all", "--rate", "1/s")
    process = applying(plan["id"])
    eventually(lambda: sent(broker, project), 40)
    assert process.end(signal.SIGINT) == 130
    assert process.said(f"Go on: backbone apply {plan['id']}")
    assert not process.said("Take it back")


def test_a_running_redrive_is_steered_and_watched_from_any_machine_and_all_of_it_is_audited(
    project: TestProject, broker: Broker, applying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(40)))
    plan = redrive(project, "--all", "--rate", "1/s")
    change = plan["id"]
    assert "was never applied" in project.run("change", "pause", change).stderr
    there = another_machine(project)
    unknown = there.run("change", "pause", change)
    assert (unknown.exit_code, "There is no change" in unknown.stderr) == (5, True)  # nobody has begun it
    process = applying(change)
    eventually(lambda: sent(broker, project), 40)
    paused = there.document("change", "pause", change)["data"]
    eventually(lambda: process.said(f"{change} is paused, by tester"), 40)
    still = len(sent(broker, project))
    assert still < 40
    for machine in (project, there):
        twice = machine.run("change", "pause", change)
        assert (twice.exit_code, "is paused already" in twice.stderr) == (6, True)
        shown = machine.document("change", "show", change)["data"]
        assert (shown["runs"]["state"], shown["runs"]["total"]) == ("paused", 40)
        assert (shown["wanted"]["state"], shown["wanted"]["by"]) == ("paused", "tester")
        (row,) = [one for one in machine.document("change", "list")["data"] if one["id"] == change]
        assert (row["runs_on"], row["progress"]) == (shown["runs"]["process"], "0/40 letters")
    assert "known on the machine that planned it only" in there.run("change", "show", change).stderr
    throttled = there.document("change", "throttle", change, "1000/s")["data"]
    assert len(sent(broker, project)) == still
    resumed = project.document("change", "resume", change)["data"]
    watched = there.document("change", "watch", change)["data"]
    assert (watched["state"], watched["after"]["sent"]) == ("applied", 40)
    assert process.end() == 0, process.log.read_text()
    assert project.run("change", "watch", change, "--output", "json").exit_code == 0
    assert sent(broker, project) == list(range(40))
    for one in (paused, throttled, resumed):
        assert phases(project, one["id"], monkeypatch) == ["planned", "applied"]
    for machine in (project, there):
        assert "there is nothing to pause" in machine.run("change", "pause", change).stderr
    assert change not in wanted(project, monkeypatch)


def test_a_cancelled_redrive_ends_where_it_is_and_is_not_gone_on_with(
    project: TestProject, broker: Broker, applying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(40)))
    plan = redrive(project, "--all", "--rate", "1/s")
    process = applying(plan["id"])
    eventually(lambda: sent(broker, project), 40)
    another_machine(project).document("change", "cancel", plan["id"])
    assert process.end() == 7
    assert process.said("were not and stay open. What was sent cannot be unsent.")
    there = sent(broker, project)
    assert there == list(range(len(there)))
    assert len(there) < 40
    shown = project.document("change", "show", plan["id"])["data"]
    assert (shown["state"], shown["after"]["sent"]) == ("cancelled", len(there))
    assert project.run("apply", plan["id"]).exit_code == 6
    assert project.run("change", "watch", plan["id"]).exit_code == 7
    assert phases(project, plan["id"], monkeypatch) == ["planned", "partly_applied"]


def test_a_redrive_that_was_cut_can_be_cancelled_without_going_on(
    project: TestProject, broker: Broker, applying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(broker, project, *(letter(record(project, offset)) for offset in range(40)))
    plan = redrive(project, "--all", "--rate", "1/s")
    process = applying(plan["id"])
    eventually(lambda: sent(broker, project), 40)
    process.end(signal.SIGKILL)
    refused = project.run("change", "pause", plan["id"])
    assert f"was cut and does not run. Go on: backbone apply {plan['id']}" in refused.stderr
    project.document("change", "cancel", plan["id"])
    assert project.document("change", "show", plan["id"])["data"]["state"] == "cancelled"
    assert project.run("apply", plan["id"]).exit_code == 6
    there = another_machine(project)
    assert there.document("change", "show", plan["id"])["data"]["state"] == "cancelled"
    assert plan["id"] not in wanted(project, monkeypatch)


def test_what_was_cut_is_ended_from_another_machine_and_does_not_go_on_at_home(
    project: TestProject, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.changes import beat, redrive

    write(broker, project, letter(record(project, 0)))
    plan = planned(project)
    with monkeypatch.context() as patched:  # as if its machine had lost its power: nobody says that it has left
        patched.setattr(redrive, "send_acked", interrupted)
        patched.setattr(beat.Heard, "is_fresh", False)
        assert project.run("apply", plan).exit_code == 130
        there = another_machine(project)
        refused = there.run("change", "pause", plan)
        assert f"Nothing is heard of {plan}" in refused.stderr
        there.document("change", "cancel", plan)
    assert wanted(project, monkeypatch)[plan].state == "cancelled"
    refused = project.run("apply", plan)
    assert (refused.exit_code, f"{plan} was cancelled by tester" in refused.stderr) == (6, True)
    assert project.document("change", "show", plan)["data"]["state"] == "cancelled"
    assert phases(project, plan, monkeypatch) == ["planned", "partly_applied"]
    assert plan not in wanted(project, monkeypatch)
    assert sent(broker, project) == []


# ---- discard --------------------------------------------------------------------------------------------------------


def test_a_discarded_letter_is_closed_the_subscription_is_told_and_its_bytes_are_not_repeated(
    project: TestProject, broker: Broker
) -> None:
    name = project.subscription
    write(broker, project, letter(record(project, 0)), letter(record(project, 1), "parked"))
    words = ("deadletter", "discard", name, f"{project.invoices}/1/0")
    plan = project.document(*words)["data"]
    assert "1 letter is parked behind them and stays so" in " ".join(plan["summary"])
    refused = project.run("apply", plan["id"])
    assert (refused.exit_code, f"--confirm {name}" in refused.stderr) == (6, True)
    done = project.document("apply", plan["id"], "--confirm", name)["data"]
    assert done["after"] == {"discarded": 1, "open": 1}
    assert [one["id"] for one in project.document("deadletter", "show", name)["data"]] == [f"{project.invoices}/1/1"]
    ((order, original),) = inbox(broker, project)
    assert (order.kind, order.change, order.origin) == ("discarded", plan["id"], Origin(project.invoices, 1, 0))
    assert (original.key, original.value) == (b"k1", None)
    assert dict(original.headers)["ce_id"] == b"e-0"
    assert "cannot be taken back: the letters are gone" in project.run("undo", plan["id"]).stderr


def test_a_discard_that_was_cut_between_closing_and_telling_tells_each_once(
    project: TestProject, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letters are closed by then: what was to be told is known from the journal, what was told from the inbox."""
    from ops.changes import discard

    name = project.subscription
    write(broker, project, *(letter(record(project, offset)) for offset in range(3)))
    plan = project.document("deadletter", "discard", name, "--all")["data"]
    real, calls = send_acked, []

    def cut(app: Any, records: Any) -> int:
        calls.append(1)
        if len(calls) == 2:  # the tombstones stand, of the orders one
            real(app, [next(iter(records))])
            raise KeyboardInterrupt
        return real(app, records)

    with monkeypatch.context() as patched:
        patched.setattr(discard, "send_acked", cut)
        assert project.run("apply", plan["id"], "--confirm", name).exit_code == 130
    assert project.document("deadletter", "show", name)["data"] == []
    assert sent(broker, project) == [0]
    project.document("apply", plan["id"], "--confirm", name)
    assert sent(broker, project) == [0, 1, 2]
    assert {original.key for _, original in inbox(broker, project)} == {b"k1"}


# ---- set aside ------------------------------------------------------------------------------------------------------


def test_the_head_is_set_aside_as_a_letter_and_taking_it_back_is_redriving_it(
    project: TestProject, broker: Broker
) -> None:
    name, topic = project.subscription, project.invoices
    broker.produce(topic, 5, partition=1, value=b"the bytes")
    broker.commit(name, topic, {1: 2})
    plan = project.document("deadletter", "set-aside", name, f"{topic}:1", "2")["data"]
    assert plan["rows"][0] | {"committed": 2, "after": 3, "bytes": 9} == plan["rows"][0]
    assert broker.commits(name)[topic, 1] == (2, "")
    project.document("apply", plan["id"])
    assert broker.commits(name)[topic, 1] == (3, "")
    (row,) = project.document("deadletter", "show", name)["data"]
    assert (row["id"], row["outcome"], row["reason"]) == (f"{topic}/1/2", "rejected", "set_aside")
    refused = project.run("deadletter", "set-aside", name, f"{topic}:1", "2")
    assert (refused.exit_code, "is a dead letter already" in refused.stderr) == (6, True)
    passed = project.run("deadletter", "set-aside", name, f"{topic}:1", "1")
    assert (passed.exit_code, "has this record behind it" in passed.stderr) == (6, True)
    back = project.document("undo", plan["id"], "--yes")["data"]
    assert (back["kind"], back["undoes"]) == ("redrive", plan["id"])
    ((order, original),) = inbox(broker, project)
    assert (order.origin, original.value) == (Origin(topic, 1, 2), b"the bytes")


def test_a_record_beyond_the_head_is_marked_finished_in_the_commits_map(project: TestProject, broker: Broker) -> None:
    name, topic = project.subscription, project.invoices
    broker.produce(topic, 5, partition=1)
    broker.commit(name, topic, {1: 1})
    project.document("deadletter", "set-aside", name, f"{topic}:1", "3", "--apply", "--yes")
    at, metadata = broker.commits(name)[topic, 1]
    assert (at, decode_runs(at, metadata)) == (1, [(3, 4)])


def test_a_partition_without_a_commit_is_set_aside_from_its_recorded_start(
    project: TestProject, broker: Broker
) -> None:
    name, topic = project.subscription, project.invoices
    broker.produce(topic, 2, partition=0)
    project.document("deadletter", "set-aside", name, f"{topic}:0", "0", "--apply", "--yes")
    assert broker.commits(name)[topic, 0] == (1, "")
    assert len(project.document("deadletter", "show", name)["data"]) == 1


def test_places_that_are_not_there_are_said(project: TestProject, broker: Broker) -> None:
    name, topic = project.subscription, project.invoices
    for arguments, code, words in (
        ((f"{topic}:1", "0"), 5, "the partition is empty"),
        ((f"{topic}:9", "0"), 5, "has no partition 9"),
        ((f"{topic}x:1", "0"), 5, f"Did you mean '{topic}'?"),
        ((topic, "0"), 2, "TOPIC:PARTITION"),
    ):
        result = project.run("deadletter", "set-aside", name, *arguments)
        assert result.exit_code == code, result.output
        assert words in result.stderr
