"""``backbone rewind`` and its undo, at a real broker: foreign groups, our subscriptions, and workers that leave."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from consumers.control import Control, Leave, Start, leave_record
from consumers.offsets import encode_runs
from ops.app import App
from ops.changes import group_positions
from ops.lag.cluster import Commit, Place
from schemas.errors import PartlyDoneError, RefusedError
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import Broker
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return Broker(stack)


@pytest.fixture
def project(tmp_path: Path, stack: Stack, prefix: str) -> TestProject:
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = made.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    return made


@pytest.fixture
def ours(broker: Broker, make_topic: MakeTopic, prefix: str) -> Iterator[Callable[..., str]]:
    """Attach a subscription named like the prefix to a new topic of 2 partitions; answers the topic."""

    def make(**settings: Any) -> str:
        topic = make_topic("source", partitions=2)
        broker.attach(prefix, {topic: 2}, **settings)
        return topic

    yield make
    broker.detach(prefix)


def offsets(broker: Broker, group: str) -> dict[int, int]:
    return {partition: offset for (_, partition), (offset, _) in broker.commits(group).items()}


def rows(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (row["partition"], row["committed"], row["target"], row["again"], row["skipped"], row["note"])
        for row in document["data"]["rows"]
    ]


def control(broker: Broker, name: str) -> Any:
    """What backbone.control says of a name now."""
    reader = broker.consumer(isolation_level="read_committed")
    reader.assign([TopicPartition("backbone.control", 0, 0)])
    fold = Control()
    ended = False
    while not ended:
        for message in reader.consume(100, 0.5):
            if message.error() is None:
                fold.apply(message.key(), message.value())
            else:
                ended = True
    reader.close()
    return fold.snapshot().subscriptions.get(name)


def test_a_plan_shows_every_partition_and_changes_nothing(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours(starts={})
    broker.produce(topic, 10, partition=0)
    broker.produce(topic, 4, partition=1)
    broker.commit(prefix, topic, {0: 8})
    plan = project.document("rewind", prefix, "--to", "2")
    assert rows(plan) == [(0, 8, 2, 6, 0, ""), (1, None, 2, 0, 2, "no commit before")]
    assert plan["data"]["state"] == "planned"
    assert plan["data"]["apply"].startswith(f"backbone apply {plan['data']['id']}")
    assert offsets(broker, prefix) == {0: 8}
    human = project.run("rewind", prefix, "--to", "earliest")
    assert human.exit_code == 0, human.output
    assert "Nothing was changed. Do it: backbone apply ch-" in human.stderr
    assert "about 8 offsets are read again" in human.stderr


def test_a_rewind_moves_positions_clears_their_map_and_undo_restores_both(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 10)
    kept = encode_runs(8, [(9, 10)])
    broker.commit(prefix, topic, {0: 8}, metadata=kept)
    done = project.document("rewind", prefix, "--to", "-5", f"{topic}:0", "--apply", "--yes")
    assert done["data"]["after"] == {f"{topic}/0": 3}
    # the map of what was finished beyond would say that events were done which shall be done again
    assert broker.commits(prefix) == {(topic, 0): (3, "")}
    assert control(broker, prefix).leave is None
    undone = project.document("undo", done["data"]["id"], "--yes")
    assert undone["data"]["after"] == {f"{topic}/0": 8}
    assert broker.commits(prefix) == {(topic, 0): (8, kept)}


def test_undo_removes_commits_that_did_not_exist_and_the_start_waits_again(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours(starts={})
    broker.produce(topic, 10, partition=0)
    broker.produce(topic, 10, partition=1)
    broker.commit(prefix, topic, {0: 4})
    done = project.document("rewind", prefix, "--to", "6", "--apply", "--yes", "--confirm", prefix)
    assert offsets(broker, prefix) == {0: 6, 1: 6}
    assert control(broker, prefix).starts[topic, 1].state == "started"
    project.document("undo", done["data"]["id"], "--yes")
    assert offsets(broker, prefix) == {0: 4}
    assert control(broker, prefix).starts[topic, 1] == Start(
        offset=0, state="pending", at=control(broker, prefix).starts[topic, 1].at
    )


def test_a_time_goes_to_the_first_record_of_then_and_one_behind_the_last_record_leaves_the_partition_alone(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(partitions=2, config={"message.timestamp.type": "CreateTime"})
    broker.attach(prefix, {topic: 2})
    now = time.time()
    for age in (7200, 3500, 1800):
        broker.produce(topic, 1, partition=0, at_ms=int((now - age) * 1000))
        broker.produce(topic, 1, partition=1, at_ms=int((now - age - 4000) * 1000))
    broker.commit(prefix, topic, {0: 3, 1: 1})
    plan = project.document("rewind", prefix, "--to", "@-1h")
    first, second = rows(plan)
    assert first == (0, 3, 1, 2, 0, "")
    # it has lag; "no record since then" must not become "latest" and skip what waits
    assert second[:5] == (1, 1, 1, 0, 0)
    assert second[5].startswith("no record since ")
    assert second[5].endswith(", unchanged")
    assert plan["data"]["rows"][0]["first_record"] is not None
    project.document("apply", plan["data"]["id"])
    assert offsets(broker, prefix) == {0: 1, 1: 1}
    refused = project.run("rewind", prefix, "--to", "@-1s")
    assert refused.exit_code == 6
    assert "Nothing would change" in refused.stderr
    broker.detach(prefix)


def test_skipping_is_severe_and_needs_its_name(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 10)
    broker.commit(prefix, topic, {0: 2})
    refused = project.run("rewind", prefix, "--to", "latest", f"{topic}:0", "--apply", "--yes")
    assert refused.exit_code == 6
    assert f"severe (8 offsets would never be read): repeat it with --confirm {prefix}" in refused.stderr
    wrong = project.run("rewind", prefix, "--to", "latest", f"{topic}:0", "--apply", "--yes", "--confirm", "other")
    assert wrong.exit_code == 6
    assert offsets(broker, prefix) == {0: 2}
    project.document("rewind", prefix, "--to", "latest", f"{topic}:0", "--apply", "--yes", "--confirm", prefix)
    assert offsets(broker, prefix) == {0: 10}


def test_a_foreign_group_with_members_is_refused_with_their_names(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    broker.produce(topic, 5)
    broker.commit(prefix, topic, {0: 5})
    member = broker.join(prefix, topic, client_id="their-service")
    refused = project.run("rewind", prefix, "--to", "earliest", "--apply", "--yes", "--confirm", prefix)
    member.close()
    assert refused.exit_code == 6
    assert "has members" in refused.stderr
    assert "their-service" in refused.stderr
    assert offsets(broker, prefix) == {0: 5}


def test_a_foreign_group_that_is_empty_can_be_rewound_and_restored(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    topic, other = make_topic("a", partitions=2), make_topic("b")
    broker.produce(topic, 5)
    broker.commit(prefix, topic, {0: 5})
    broker.commit(prefix, other, {0: 0})
    refused = project.run("rewind", prefix, "--to", "earliest", topic, "--apply", "--yes")
    assert refused.exit_code == 6
    assert "not one of ours" in refused.stderr
    done = project.document("rewind", prefix, "--to", "earliest", topic, "--apply", "--yes", "--confirm", prefix)
    assert broker.commits(prefix) == {(topic, 0): (0, ""), (topic, 1): (0, ""), (other, 0): (0, "")}
    project.document("undo", done["data"]["id"], "--yes")
    assert broker.commits(prefix) == {(topic, 0): (5, ""), (other, 0): (0, "")}


def test_a_foreign_group_that_moved_since_the_plan_makes_it_stale(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    broker.produce(topic, 5)
    broker.commit(prefix, topic, {0: 4})
    plan = project.document("rewind", prefix, "--to", "1")
    broker.commit(prefix, topic, {0: 5})
    refused = project.run("apply", plan["data"]["id"], "--confirm", prefix)
    assert refused.exit_code == 6
    assert "moved from 4 to 5 meanwhile" in refused.stderr
    assert offsets(broker, prefix) == {0: 5}


def test_one_of_ours_may_go_on_between_plan_and_apply_but_not_past_a_skip(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 20)
    broker.commit(prefix, topic, {0: 10})
    back = project.document("rewind", prefix, "--to", "5", f"{topic}:0")
    skip = project.document("rewind", prefix, "--to", "12", f"{topic}:0")
    broker.commit(prefix, topic, {0: 15})
    refused = project.run("apply", skip["data"]["id"], "--confirm", prefix)
    assert refused.exit_code == 6
    assert "moved from 10 to 15 meanwhile" in refused.stderr
    project.document("apply", back["data"]["id"])
    assert offsets(broker, prefix) == {0: 5}


def test_targets_that_retention_deleted_since_make_the_plan_stale(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 10)
    broker.commit(prefix, topic, {0: 10})
    plan = project.document("rewind", prefix, "--to", "2", f"{topic}:0")
    broker.admin.delete_records([TopicPartition(topic, 0, 6)])[TopicPartition(topic, 0)].result()
    refused = project.run("apply", plan["data"]["id"])
    assert refused.exit_code == 6
    assert f"The records of {topic}/0 from 2 to 6 are deleted by now" in refused.stderr


def test_undo_is_refused_when_the_group_has_gone_on_and_says_how_many_events_it_would_cost(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 20)
    broker.commit(prefix, topic, {0: 10})
    done = project.document("rewind", prefix, "--to", "4", f"{topic}:0", "--apply", "--yes")
    broker.commit(prefix, topic, {0: 13})
    refused = project.run("undo", done["data"]["id"], "--yes")
    assert refused.exit_code == 6
    assert "about 3 events would be processed once more" in refused.stderr
    assert offsets(broker, prefix) == {0: 13}
    broker.commit(prefix, topic, {0: 7})  # on its way between the new and the old position: nothing is done again
    project.document("undo", done["data"]["id"], "--yes")
    assert offsets(broker, prefix) == {0: 10}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody", "--to", "earliest"), 5, "There is no group 'nobody'"),
        (("NAME", "--to", "yesterday"), 2, "'yesterday' is not a position"),
        (("NAME", "--to", "14:00"), 2, "A time begins with @: @14:00"),
        (("NAME", "--to", "earliest", "TOPIC:7"), 2, "has 2 partitions, the last is 1"),
        (("NAME", "--to", "earliest", "TOPIC:x"), 2, "'x' is not a partition"),
        (("NAME", "--to", "earliest", "another.topic"), 5, "does not read another.topic"),
        (("NAME",), 2, "--to"),
    ],
)
def test_what_can_be_typed_wrong_is_one_sentence(
    project: TestProject,
    broker: Broker,
    ours: Callable[..., str],
    prefix: str,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    topic = ours()
    typed = [part.replace("NAME", prefix).replace("TOPIC", topic) for part in arguments]
    result = project.run("rewind", *typed)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output


class Member:
    """A stand-in for our worker: in the group while ``backbone.control`` does not ask it to leave."""

    def __init__(self, broker: Broker, name: str, topic: str) -> None:
        self._broker, self._name, self._topic = broker, name, topic
        self._over = threading.Event()
        self.joined = threading.Event()
        self.left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.joined.wait(30)

    def _run(self) -> None:
        tail = self._broker.consumer(isolation_level="read_committed")
        tail.assign([TopicPartition("backbone.control", 0, 0)])
        fold = Control()
        member: Any = None
        while not self._over.is_set():
            message = tail.poll(0.05)
            if message is not None and message.error() is None:
                fold.apply(message.key(), message.value())
                continue
            found = fold.snapshot().subscriptions.get(self._name)
            away = found is not None and found.leave is not None
            if away and member is not None:
                member.close()
                member = None
                self.left.set()
            elif not away and found is not None and member is None:
                member = self._broker.join(self._name, self._topic)
                self.joined.set()
            elif member is not None:
                member.poll(0)
        tail.close()
        if member is not None:
            member.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join(20)


def test_workers_leave_for_the_change_and_come_back(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    topic = ours()
    broker.produce(topic, 6)
    broker.commit(prefix, topic, {0: 6})
    member = Member(broker, prefix, topic)
    try:
        member.joined.clear()
        done = project.document("rewind", prefix, "--to", "1", f"{topic}:0", "--apply", "--yes")
        assert done["data"]["after"] == {f"{topic}/0": 1}
        assert member.left.is_set()
        assert member.joined.wait(30)
        assert offsets(broker, prefix) == {0: 1}
    finally:
        member.close()


def test_members_that_do_not_leave_end_the_change_before_anything_is_changed(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.changes.leaving.EMPTY_WITHIN_S", 1.0)
    topic = ours()
    broker.produce(topic, 6)
    broker.commit(prefix, topic, {0: 6})
    deaf = broker.join(prefix, topic, client_id="not-a-worker")
    refused = project.run("rewind", prefix, "--to", "1", f"{topic}:0", "--apply", "--yes")
    deaf.close()
    assert refused.exit_code == 6, refused.output
    assert "still has members after 1 s: not-a-worker" in refused.stderr
    assert offsets(broker, prefix) == {0: 6}
    assert control(broker, prefix).leave is None


def test_a_change_that_is_cut_between_its_steps_is_finished_by_apply(
    project: TestProject, broker: Broker, ours: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = ours()
    broker.produce(topic, 6)
    broker.commit(prefix, topic, {0: 6})
    plan = project.document("rewind", prefix, "--to", "1", f"{topic}:0")
    change = plan["data"]["id"]

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ops.changes.rewind.set_positions", cut)
        assert project.run("apply", change).exit_code == 130
    assert offsets(broker, prefix) == {0: 6}
    assert control(broker, prefix).leave is not None
    project.document("apply", change)
    assert offsets(broker, prefix) == {0: 1}
    assert control(broker, prefix).leave is None
    project.document("undo", change, "--yes")
    assert offsets(broker, prefix) == {0: 6}


def test_a_request_to_leave_that_nobody_took_back_runs_out(
    broker: Broker, ours: Callable[..., str], prefix: str
) -> None:
    """The machine of the person who asked may die: the worker comes back by the clock."""
    from datetime import UTC, datetime, timedelta

    ours()
    now = datetime.now(UTC)
    broker.control(leave_record(prefix, Leave(change="ch-7f3a", until=(now + timedelta(minutes=5)).isoformat())))
    found = control(broker, prefix)
    assert found.away_at(now)
    assert not found.away_at(now + timedelta(minutes=5, seconds=1))


class Alters:
    """Answers of alter_consumer_group_offsets that name an error for single partitions, as a broker gives them."""

    def __init__(self, refused: dict[Place, str]) -> None:
        self.refused = refused

    def __call__(self, app: Any, name: str, positions: dict[Place, Commit]) -> dict[Place, Any]:
        class Error:
            def __init__(self, name: str) -> None:
                self._name = name

            def code(self) -> int:
                return 0

            def name(self) -> str:
                return self._name

        return {place: Error(name) for place, name in self.refused.items() if place in positions}


def test_some_partitions_refused_is_partly_done_and_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {("t", p): Commit(5) for p in (0, 1)}
    monkeypatch.setattr(group_positions, "_alter", Alters({("t", 1): "UNKNOWN_MEMBER_ID"}))
    with pytest.raises(PartlyDoneError, match=r"1 of 2 positions of g were not set \(t/1: the group has members\)"):
        group_positions.set_positions(None, "g", wanted)  # type: ignore[arg-type]
    monkeypatch.setattr(group_positions, "_alter", Alters(dict.fromkeys(wanted, "UNKNOWN_MEMBER_ID")))
    with pytest.raises(RefusedError, match="Nothing was changed"):
        group_positions.set_positions(None, "g", wanted)  # type: ignore[arg-type]


def test_a_real_broker_that_refuses_one_partition_leaves_it_partly_done_and_all_of_them_refused(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reports success for the whole; each partition's own error must be read."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    group, topic = f"{prefix}-foreign", make_topic("partly", partitions=1)
    broker.produce(topic, 3)
    broker.commit(group, topic, {0: 3})
    app = App()
    try:
        with pytest.raises(PartlyDoneError, match=rf"1 of 2 positions of {group} were not set \({topic}/7") as partly:
            group_positions.set_positions(app, group, {(topic, 0): Commit(1), (topic, 7): Commit(1)})
        assert partly.value.exit_code == 7
        assert broker.commits(group) == {(topic, 0): (1, "")}
        with pytest.raises(RefusedError, match="Nothing was changed") as refused:
            group_positions.set_positions(app, group, {(topic, 7): Commit(2)})
        assert refused.value.exit_code == 6
    finally:
        app.close()
    assert broker.commits(group) == {(topic, 0): (1, "")}


def test_a_rewind_that_the_broker_does_in_part_exits_7_and_undo_restores_what_was_done(
    project: TestProject, broker: Broker, make_topic: MakeTopic, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its topics is deleted between the last look and the setting. The undo used to be refused for it as a
    whole."""
    group, kept, gone = f"{prefix}-parts", make_topic("kept"), make_topic("gone")
    for topic in (kept, gone):
        broker.produce(topic, 3)
        broker.commit(group, topic, {0: 3})
    plan = project.document("rewind", group, "--to", "1")["data"]
    alter = group_positions._alter

    def alter_when_gone(app: App, name: str, positions: Any) -> Any:
        broker.admin.delete_topics([gone])[gone].result(20)
        eventually(lambda: gone not in broker.admin.list_topics(timeout=10).topics, about=f"{gone} to be gone")
        monkeypatch.setattr(group_positions, "_alter", alter)
        return alter(app, name, positions)

    monkeypatch.setattr(group_positions, "_alter", alter_when_gone)
    result = project.run("apply", plan["id"], "--confirm", group, "--output", "json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["error"]["code"]) == (7, 7)
    assert f"1 of 2 positions of {group} were not set ({gone}/0: UNKNOWN_TOPIC_OR_PART)" in document["error"]["message"]
    assert broker.commits(group)[kept, 0] == (1, "")
    for words in (f"backbone apply {plan['id']}", f"backbone undo {plan['id']}"):
        assert words in document["error"]["message"]
    undone = project.run("undo", plan["id"], "--yes")
    assert undone.exit_code == 0, undone.output
    assert f"left out: {gone}/0, which does not exist any more" in undone.stderr
    assert broker.commits(group) == {(kept, 0): (3, "")}


def test_a_real_worker_leaves_reads_again_and_gets_level(project: TestProject, broker: Broker, stack: Stack) -> None:
    name = project.subscription
    events = [
        {"user_id": f"u-{n}", "email": f"u{n}@example.org", "plan": "starter", "signed_up_at": "2026-05-01T09:30:00Z"}
        for n in range(30)
    ]
    lines = project.folder / "events.jsonl"
    lines.write_text("\n".join(json.dumps(event) for event in events))
    published = project.run("event", "publish", "accounts.UserSignedUp", "--file", str(lines), "-q")
    assert published.exit_code == 0, published.output
    extra = "personal_data: {purpose: 'We keep our own events.', allow: [email, name]}\n"
    project.write_subscription(extra=extra)
    attached = project.run("subscription", "attach", name, "--from", "earliest", "--apply", "--yes")
    assert attached.exit_code == 0, attached.output
    log = (project.folder / "worker.log").open("w")
    here = {"PATH": "/usr/bin", "BACKBONE_PROJECT": str(project.folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ops.cli", "run", name, "--log", "json"]
    worker = subprocess.Popen(command, cwd=project.folder, stdout=log, stderr=log, env=here)

    def level() -> bool:
        assert worker.poll() is None, (project.folder / "worker.log").read_text()[-2000:]
        (row,) = project.document("lag", name)["data"]
        return bool(row["lag"] == 0 and row["no_commit"] == 0 and row["members"] == 1)

    def calls() -> int:
        text = (project.folder / "worker.log").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return sum(int(line["deliveries"]) for line in lines if line["event"] == "vendor_called")

    try:
        eventually(level, 40, about="the worker to read everything once")
        assert calls() == 30
        done = project.document("rewind", name, "--to", "earliest", "--apply", "--yes")
        assert "30 of them read here: 30 UserSignedUp" in " ".join(done["data"]["summary"])
        eventually(lambda: level() and calls() == 60, 40, about="the worker to come back and read everything again")
        assert control(broker, name).leave is None
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(40)
        log.close()
        project.run("subscription", "detach", name, "--apply", "--yes")
