"""Attaching, detaching, pausing and resuming subscriptions, on a real cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from consumers.control import AttachedSubscription
from ops.app import App
from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path, stack: Stack, prefix: str) -> TestProject:
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = made.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    return made


@pytest.fixture
def attached(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """What the control topic says of the project's subscription now; None when it is not attached."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    app = App()
    yield lambda: app.control().subscriptions.get(project.subscription)
    app.close()


def publish(stack: Stack, topic: str, *, partition: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 0})
    for _ in range(count):
        producer.produce(topic, b"x", b"k", partition=partition)
    assert producer.flush(10) == 0


def commit(stack: Stack, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def attach(project: TestProject, *arguments: str, code: int = 0) -> dict[str, Any]:
    return project.document("subscription", "attach", project.subscription, "--apply", "--yes", *arguments, code=code)


def starts_of(found: AttachedSubscription, topic: str) -> list[tuple[int, int, str]]:
    return sorted(
        (partition, start.offset, start.state) for (name, partition), start in found.starts.items() if name == topic
    )


def test_attaching_shows_what_it_will_do_and_does_nothing(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    publish(stack, project.users, partition=1, count=7)
    data = project.document("subscription", "attach", project.subscription, "--from", "earliest")["data"]
    assert data["state"] == "planned"
    assert data["rows"][0]["events"] == 7
    assert data["rows"][0]["partitions"] == 3
    summary = " ".join(data["summary"])
    assert "accounts.UserEmailChanged, accounts.UserErased, accounts.UserSignedUp, accounts.UserUpgraded" in summary
    assert f"creates {project.subscription}.dead (3 partitions), {project.subscription}.inbox (3 partitions)" in summary
    assert "personal data that may leave: none; kept back: email, name" in summary
    (effects,) = data["effects"]
    assert {row["version"] for row in effects["contracts"]} == {1}
    assert effects["personal_data"]["kept_back"] == ["email", "name"]
    assert effects["co_partitioned"] == {"partitions": 3, "topics": [project.users, f"{project.subscription}.inbox"]}
    assert effects["permissions"]["why"] == "the cluster has no authorizer: everybody may do everything"
    caught_up_with = effects["catch_up"]
    assert (caught_up_with["offsets"], caught_up_with["exact"], caught_up_with["dead_letters"]) == (7, True, 7)
    assert caught_up_with["hand_over_about"] == {f"{project.users}/{p}": {1: 7}.get(p, 0) for p in range(3)}
    assert len(caught_up_with["by_event"][0]["examples"]) == 5
    assert [row["needed_s"] for row in effects["retention"]] == [3 * 86_400 + 900]
    assert attached() is None
    assert project.run("topic", "list", f"{project.subscription}.dead").exit_code == 5


def test_attaching_records_start_state_and_definition_and_makes_the_topics(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    publish(stack, project.users, partition=1, count=7)
    attach(project, "--from", "latest")
    found = attached()
    assert starts_of(found, project.users) == [(0, 0, "pending"), (1, 7, "pending"), (2, 0, "pending")]
    assert found.state.state == "running"
    assert found.definition.topics == {project.users: 3}
    assert found.definition.author == "tester"
    assert found.definition.events[0] == "accounts.UserEmailChanged"
    assert found.definition.text == project.write_subscription().read_text()
    rows = project.document("topic", "list", f"{project.subscription}.dead", f"{project.subscription}.inbox")["data"]
    assert [(row["partitions"], row["cleanup"]) for row in rows] == [(3, "compact"), (3, "delete")]


def test_the_hand_over_is_the_end_at_apply_and_is_recorded_and_said(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    publish(stack, project.users, partition=1, count=7)
    planned = project.document("subscription", "attach", project.subscription, "--from", "earliest")["data"]
    publish(stack, project.users, partition=1, count=3)
    applied = project.run("apply", planned["id"])
    assert applied.exit_code == 0, applied.output
    name, place = project.subscription, f"{project.users}/1"
    assert f"{name} catches up with 10 offsets in the background, then it is live: handed over at {place} 10." in (
        " ".join(applied.stderr.split())
    )
    shown = project.document("change", "show", planned["id"])["data"]
    assert shown["after"]["hand_over"] == {f"{name} {place}": 10}
    assert [start.until for _, start in sorted(attached().starts.items())] == [None, 10, None]
    rows = project.document("subscription", "list")["data"]
    (row,) = [one for one in rows if one["subscription"] == name]
    assert (row["catching_up"], row["handed_over_at"]) == (1, None)
    assert row["note"] == "catching up: 1 partition before its hand-over to live"
    in_full = project.document("status", name)["data"]["catch_up"]
    assert in_full == {
        "offsets_left": 10, "folding": "", "eta_seconds": None, "hand_over": {place: 10}, "handed_over_at": None,
    }  # fmt: skip


def test_a_time_behind_the_last_record_is_shown_as_such(project: TestProject, stack: Stack) -> None:
    publish(stack, project.users, partition=0, count=2)
    data = project.document("subscription", "attach", project.subscription, "--from", "@-0s")["data"]
    assert "no record since then in 3 of 3 partitions" in data["rows"][0]["note"]
    early = project.document("subscription", "attach", project.subscription, "--from", "@-1h")["data"]
    assert early["rows"][0]["events"] == 2
    assert early["rows"][0]["first_record"]


def test_where_to_begin_is_asked_for_and_never_guessed(project: TestProject, attached: Callable[[], Any]) -> None:
    result = project.run("subscription", "attach", project.subscription, "--apply", "--yes")
    assert result.exit_code == 2
    assert f"Say where {project.subscription} begins to read {project.users}" in result.stderr
    for position in ("12", "+3", "14:00", "yesterday"):
        assert project.run("subscription", "attach", project.subscription, "--from", position).exit_code == 2
    assert attached() is None


def test_attaching_everything_twice_changes_nothing_the_second_time(
    project: TestProject, attached: Callable[[], Any]
) -> None:
    first = project.run("subscription", "attach", "--all", "--from", "earliest", "--apply", "--yes")
    assert first.exit_code == 0, first.output
    before = attached()
    again = project.document("subscription", "attach", "--all", "--apply", "--yes")
    assert again["data"] == {"state": "unchanged", "unchanged": [project.subscription]}
    assert attached() == before


def test_a_changed_file_keeps_its_positions_and_asks_only_for_new_topics(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    attach(project, "--from", "earliest")
    old = attached()
    publish(stack, project.users, partition=0, count=4)
    publish(stack, project.invoices, partition=2, count=5)
    project.write_subscription('["accounts.*", billing.InvoicePaid]')
    assert project.run("subscription", "attach", project.subscription).exit_code == 2
    data = attach(project, "--from", "latest")["data"]
    kept, new = sorted(data["rows"], key=lambda row: str(row["topic"]), reverse=True)
    assert (kept["from"], kept["events"], kept["note"]) == ("kept", None, "goes on where it stands")
    assert (new["from"], new["events"]) == ("latest", 0)
    assert new["version"] == f"{old.definition.version} -> {attached().definition.version}"
    assert "events: +billing.InvoicePaid" in data["summary"]
    assert starts_of(attached(), project.users) == starts_of(old, project.users)
    assert starts_of(attached(), project.invoices)[2] == (2, 5, "pending")


def test_attaching_can_be_taken_back(project: TestProject, attached: Callable[[], Any]) -> None:
    first = attach(project, "--from", "earliest")["data"]
    old = attached()
    project.write_subscription('["accounts.UserErased"]')
    second = attach(project)["data"]
    assert attached().definition.events == ("accounts.UserErased",)
    assert project.run("undo", first["id"], "--yes").exit_code == 6  # it was attached again since
    assert project.run("undo", second["id"], "--yes").exit_code == 0
    assert attached().definition.text == old.definition.text
    assert attached().starts == old.starts
    assert project.run("undo", first["id"], "--yes").exit_code == 0
    assert attached() is None


def test_detaching_and_taking_it_back_restores_everything(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    attach(project, "--from", "earliest")
    publish(stack, project.users, partition=0, count=3)
    old = attached()
    planned = project.document("subscription", "detach", project.subscription)["data"]
    assert planned["rows"][0]["not_read"] == 3
    assert attached() is not None
    assert project.run("apply", planned["id"]).exit_code == 0
    assert attached() is None
    assert project.run("undo", planned["id"], "--yes").exit_code == 0
    again = attached()
    assert again.starts == old.starts
    assert again.definition.text == old.definition.text


def test_positions_from_an_earlier_life_are_forgotten_and_that_is_said(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    """A group that was detached keeps its commits at the broker: without this the new --from would be ignored."""
    commit(stack, project.subscription, project.users, 42)
    data = attach(project, "--from", "earliest")["data"]
    assert "has positions from before it was detached: they are forgotten" in " ".join(data["summary"])
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": project.subscription})
    assert consumer.committed([TopicPartition(project.users, 0)], timeout=10)[0].offset < 0
    consumer.close()


def test_old_positions_are_not_taken_from_a_group_that_has_members(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    commit(stack, project.subscription, project.users, 0)
    member = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": project.subscription, "client.id": "somebody"})
    member.subscribe([project.users])
    eventually(lambda: member.poll(0.1) is None and bool(member.assignment()), about="the member's assignment")
    result = project.run("subscription", "attach", project.subscription, "--from", "latest", "--apply", "--yes")
    member.close()
    assert result.exit_code == 6
    assert "has members" in result.stderr
    assert "somebody" in result.stderr
    assert attached() is None


def test_sources_with_different_partition_counts_are_refused(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    grow(stack, project.users, 5)
    project.write_subscription('["accounts.*", "billing.*"]')
    result = project.run("subscription", "attach", project.subscription, "--from", "latest")
    assert result.exit_code == 6
    assert f"{project.users} 5" in result.stderr
    assert f"{project.invoices} 3" in result.stderr


def test_a_topic_that_has_grown_keeps_the_count_it_began_with_and_its_own_topics_grow(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    """The partitions that were added are read from their beginning; a definition with the new count would stop them
    for the lack of a start."""
    attach(project, "--from", "latest")
    grow(stack, project.users, 5)
    data = attach(project)["data"]
    assert f"gives {project.subscription}.dead 5 partitions" in " ".join(data["summary"])
    assert attached().definition.topics == {project.users: 3}
    rows = project.document("topic", "list", f"{project.subscription}.dead", f"{project.subscription}.inbox")["data"]
    assert [row["partitions"] for row in rows] == [5, 5]
    assert attach(project)["data"]["state"] == "unchanged"


def test_many_events_are_severe(project: TestProject, monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    monkeypatch.setattr("ops.changes.attach_plan.SEVERE_EVENTS", 5)
    publish(stack, project.users, partition=0, count=6)
    arguments = ("subscription", "attach", project.subscription, "--from", "earliest", "--apply", "--yes")
    refused = project.run(*arguments)
    assert refused.exit_code == 6
    assert f"--confirm {project.subscription}" in refused.stderr
    assert project.run(*arguments, "--confirm", project.subscription).exit_code == 0


def test_pause_and_resume_act_at_once_and_are_audited(project: TestProject, attached: Callable[[], Any]) -> None:
    attach(project, "--from", "latest")
    paused = project.document("subscription", "pause", project.subscription, "--reason", "vendor moves")["data"]
    assert (attached().state.state, attached().state.reason, attached().state.by) == (
        "paused",
        "vendor moves",
        "tester",
    )
    assert project.run("subscription", "pause", project.subscription).exit_code == 6
    resumed = project.document("subscription", "resume", project.subscription, "--accept", "3")["data"]
    assert (attached().state.state, attached().state.accept) == ("running", 3)
    assert project.run("subscription", "resume", project.subscription).exit_code == 6
    assert project.run("undo", paused["id"], "--yes").exit_code == 6
    assert project.run("undo", resumed["id"], "--yes").exit_code == 0
    assert attached().state.state == "paused"
    shown = project.document("change", "show", paused["id"])["data"]
    assert [(line["phase"], line["reason"]) for line in shown["audit"]] == [
        ("planned", "vendor moves"),
        ("applied", "vendor moves"),
    ]


def test_the_backbones_own_subscription_is_paused_and_resumed_like_any_other(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    """Nobody attaches it, so it was not found, and a ledger that had stopped could not be resumed."""
    project.document("subscription", "pause", "ledger", "--reason", "the disk is full")
    found = [one for one in project.document("status")["data"]["problems"] if one["subject"] == "ledger"]
    assert [(one["kind"], one["command"]) for one in found] == [("paused", "backbone subscription resume ledger")]
    assert "the disk is full. By tester." in found[0]["cause"]
    project.document("subscription", "resume", "ledger")
    assert not [one for one in project.document("status")["data"]["problems"] if one["subject"] == "ledger"]


def test_a_paused_subscription_stays_paused_when_its_file_changes(
    project: TestProject, attached: Callable[[], Any]
) -> None:
    attach(project, "--from", "latest")
    project.run("subscription", "pause", project.subscription)
    project.write_subscription('["accounts.UserErased"]')
    data = attach(project)["data"]
    assert "it is paused and stays so until" in " ".join(data["summary"])
    assert attached().state.state == "paused"


@pytest.mark.parametrize("verb", ["pause", "resume", "detach"])
def test_what_is_not_attached_is_not_found(project: TestProject, verb: str) -> None:
    result = project.run("subscription", verb, "nobody")
    assert result.exit_code == 5
    assert "No subscription 'nobody' is attached" in result.stderr


def test_a_plan_is_stale_once_somebody_else_has_attached(project: TestProject, attached: Callable[[], Any]) -> None:
    planned = project.document("subscription", "attach", project.subscription, "--from", "earliest")["data"]
    project.write_subscription('["accounts.UserErased"]')
    attach(project, "--from", "latest")
    result = project.run("apply", planned["id"])
    assert result.exit_code == 6
    assert "has changed since" in result.stderr
    assert attached().definition.events == ("accounts.UserErased",)


def test_a_plan_is_stale_once_the_same_file_is_attached_from_elsewhere(
    project: TestProject, attached: Callable[[], Any]
) -> None:
    """It was applied, said Done, and began nowhere: the starts of the first one stood."""
    planned = project.document("subscription", "attach", project.subscription, "--from", "earliest")["data"]
    attach(project, "--from", "latest")
    result = project.run("apply", planned["id"])
    assert result.exit_code == 6
    assert "has changed since" in result.stderr
    assert project.run("undo", planned["id"], "--yes").exit_code == 6


def test_a_plan_is_stale_once_its_group_has_positions_from_a_life_in_between(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    """A committed position goes before a recorded start: the plan's --from would be ignored."""
    planned = project.document("subscription", "attach", project.subscription, "--from", "earliest")["data"]
    commit(stack, project.subscription, project.users, 42)
    result = project.run("apply", planned["id"])
    assert result.exit_code == 6
    assert "has positions since" in result.stderr
    assert attached() is None


def test_without_the_control_topic_nothing_is_begun_and_the_command_that_makes_it_is_named(
    project: TestProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attach broke off in the middle; `run` said "waiting", deaf to Ctrl-C for 20 s, and "could not be read"."""
    monkeypatch.setattr("ops.control.TOPIC", f"{project.prefix}.no-control")
    for command in (["subscription", "attach", project.subscription, "--from", "latest", "--apply", "--yes"], ["run"]):
        result = project.run(*command)
        assert result.exit_code == 6, result.output
        assert "Make it: backbone schema register" in result.stderr
    mine = [row for row in project.document("change", "list")["data"] if project.subscription in row["title"]]
    assert "applying" not in {row["state"] for row in mine}


def test_topics_that_are_missing_are_named_with_the_command_that_makes_them(
    tmp_path: Path, stack: Stack, prefix: str
) -> None:
    project = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = project.run("subscription", "attach", project.subscription, "--from", "latest")
    assert result.exit_code == 6
    assert project.users in result.stderr
    assert "backbone schema register" in result.stderr


def test_an_inbox_of_another_size_is_refused(project: TestProject, stack: Stack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    inbox = f"{project.subscription}.inbox"
    admin.create_topics([NewTopic(inbox, 7, 1)])[inbox].result(10)
    result = project.run("subscription", "attach", project.subscription, "--from", "latest")
    assert result.exit_code == 6
    assert f"{inbox} exists with 7 partitions" in result.stderr


def test_the_statements_that_a_database_would_run_are_shown(project: TestProject) -> None:
    data = project.document("subscription", "attach", project.subscription, "--from", "latest")["data"]
    statements = [sentence for sentence in data["summary"] if sentence.startswith("rows would run: ")]
    assert len(statements) == 4  # a table an event
    assert any("user_signed_up" in statement for statement in statements)


def test_a_new_subscription_warns_when_events_are_kept_too_short_for_an_outage(
    project: TestProject, stack: Stack
) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    entry = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, project.users, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)
    found = project.document("subscription", "attach", project.subscription, "--from", "latest")
    assert any(f"{project.users} keeps events for 1h only" in warning for warning in found["warnings"])
    plan = project.document("topic", "plan", code=3)["data"]
    assert [row["difference"] for row in plan if row["topic"] == project.users] == [
        "retention.ms is 3600000, not 2592000000"
    ]


def grow(stack: Stack, topic: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(10)
    eventually(
        lambda: len(admin.list_topics(topic, timeout=5).topics[topic].partitions) == count,
        about="the added partitions",
    )


def test_a_fold_is_planned_in_words_and_recorded_where_there_is_a_past_and_refused_elsewhere(
    project: TestProject, attached: Callable[[], Any], stack: Stack
) -> None:
    publish(stack, project.users, partition=1, count=7)
    refused = project.run("subscription", "attach", project.subscription, "--from", "earliest", "--fold")
    assert refused.exit_code == 2
    assert f"--fold merges all events about one thing into one delivery, and {project.subscription}" in refused.stderr
    project.write_subscription(extra="policies: {send: latest}\n")
    for words in (["--from", "latest", "--fold"], ["--fold"]):
        nothing = project.run("subscription", "attach", project.subscription, *words)
        assert nothing.exit_code == 2
        assert "say where it begins, --from earliest or --from @time" in nothing.stderr
    plan = project.document("subscription", "attach", project.subscription, "--from", "earliest", "--fold")["data"]
    assert "folded: about 7 events are read, and one delivery an entity is sent" in " ".join(plan["summary"])
    attach(project, "--from", "earliest", "--fold")
    starts = {
        partition: (start.until, start.fold)
        for (topic, partition), start in attached().starts.items()
        if topic == project.users
    }
    assert starts == {0: (None, True), 1: (7, True), 2: (None, True)}
