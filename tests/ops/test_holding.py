"""What holds a subscription, case by case: what workers say in their heartbeats becomes a sentence and a command."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connection import ConnectionView
from consumers.control import AttachedSubscription, State
from consumers.heartbeat import Heartbeat, Held, SubscriptionView
from ops.app import App
from ops.connections import ConnectionStatus, as_row, connection_status
from ops.diagnosis import held_by, problems_of
from ops.holding import connection_problems
from ops.lag.attached import Header
from ops.lag.measure import GroupLag
from ops.origins import Standing, parse_origin
from ops.problems import Case, Kind, Problem, Sight, worst_first
from ops.watch import heartbeats
from ops.watch.heartbeats import Beat, Beats
from schemas.errors import NotAllowedError
from tests.consumers.test_heartbeat import connections as any_connection
from tests.consumers.test_heartbeat import subscriptions as any_subscription
from tests.ops.projects import make_project
from tests.ops.test_status import DEFINITION, NO_LETTERS, NOW, WORKER, case, dead, partition

T = NOW.timestamp()
ORIGIN = "billing.invoices/0/17"


def beat(*views: SubscriptionView | ConnectionView, process: str = "host/1", age_s: float = 2.0) -> Beat:
    return Beat(
        Heartbeat(
            process=process,
            at=T - age_s,
            subscriptions=tuple(view for view in views if isinstance(view, SubscriptionView)),
            connections=tuple(view for view in views if isinstance(view, ConnectionView)),
        ),
        age_s,
    )


def seen(given: Case | None = None, **view: Any) -> Case:
    """A case of which one worker says this."""
    said = SubscriptionView(name="billing-alerts", partitions=2, **view)
    return replace(given or case(), sight=Sight(views=((beat(said), said),)))


def held(**more: Any) -> Held:
    usual: dict[str, Any] = {"origin": ORIGIN, "why": "retry", "since": T - 120, "waiting": 41, "reason": "http_500"}
    return Held(**(usual | more))


def account(**more: Any) -> ConnectionView:
    usual: dict[str, Any] = {
        "name": "slack", "state": "running", "reason": "", "until": None, "in_flight": 0, "quota_used": None,
        "waiting": 0,
    }  # fmt: skip
    return ConnectionView(**(usual | more))


LATE = case(partition(end=1130, age_s=720.0))
STAYS = "backbone status billing-alerts"
CASES: dict[str, tuple[Case, Kind, str, float | None, str]] = {
    "a key is retried": (
        seen(held=(held(due=T + 12),), held_total=1), "key_held",
        f"{ORIGIN}: an attempt failed (http_500), tried again in 12s; 41 events wait behind it.", 120.0,
        f"backbone event get {ORIGIN}",
    ),
    "its object is busy": (
        seen(held=(held(why="busy", reason="channel_locked", waiting=1),), held_total=3), "key_held",
        "the vendor says that its object is busy (channel_locked); 1 event waits behind it. 2 more keys are held.",
        120.0, f"backbone event get {ORIGIN}",
    ),
    "its schema is not known": (
        seen(held=(held(why="schema", reason="schema_unknown", waiting=0),), held_total=1), "key_held",
        "its schema is not known here yet (schema_unknown); 0 events wait behind it.", 120.0, "backbone doctor",
    ),
    "a word of a newer version": (
        seen(held=(held(why="asleep", reason=""),), held_total=1), "key_held", f"{ORIGIN}: asleep; 41 events", 120.0,
        f"backbone event get {ORIGIN}",
    ),
    "a key is parked": (
        seen(parked=(held(why="parked", reason="invalid_channel", waiting=7),), parked_keys=2), "keys_parked",
        f"2 keys are parked behind open dead letters; the oldest: {ORIGIN}, 7 events wait behind it.", 120.0,
        "backbone deadletter list billing-alerts",
    ),
    "parked keys that are not named": (
        seen(parked_keys=1), "keys_parked", "1 key is parked behind open dead letters.", None,
        "backbone deadletter list billing-alerts",
    ),
    "a slow projection": (
        seen(slow_projection_s=0.3), "slow_projection", "Its projection took 0.3s for one event", None,
        "backbone subscription preview billing-alerts",
    ),
    "a worker cannot run it": (
        seen(state="waiting", reason="the projection file has other bytes than were attached"), "cannot_run",
        "It cannot run in host/1: the projection file has other bytes than were attached.", None, STAYS,
    ),
    "nobody is heard": (
        replace(case(), sight=Sight(is_blind=True, silent_s=55.0)), "not_seen",
        "No heartbeat from any worker for 55s: what holds it inside its workers cannot be seen.", 55.0,
        "backbone lag billing-alerts -v",
    ),
    "nobody was ever heard": (
        replace(case(), sight=Sight(is_blind=True)), "not_seen", "No heartbeat from any worker: what", None,
        "backbone lag billing-alerts -v",
    ),
    "late, and catching up": (
        replace(seen(LATE, records_per_s=110.0), produced_per_s=10.0), "catching_up",
        "1,030 offsets wait. It is catching up: level in about 10s.", 720.0, "backbone lag billing-alerts --watch",
    ),
    "late, and not getting closer": (
        replace(seen(LATE, records_per_s=10.0), produced_per_s=10.0), "behind", "It does not get closer.", 720.0,
        "backbone lag billing-alerts -v",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "words", "age_s", "command"), CASES.values(), ids=CASES.keys())
def test_what_a_worker_says_is_a_cause_with_its_age_and_what_to_type(
    given: Case, kind: Kind, words: str, age_s: float | None, command: str
) -> None:
    (problem,) = problems_of(given, NOW)
    assert problem.kind == kind
    assert words in problem.cause
    assert problem.age_s == age_s
    assert problem.command == command
    assert (problem.subject, problem.owner) == ("billing-alerts", "team-sales-ops")


def test_the_record_that_is_held_is_named_with_its_event_and_its_masked_key() -> None:
    named = Standing(ORIGIN, "billing.InvoiceCreated", "‹email›", T - 120)
    given = replace(seen(held=(held(),), held_total=1), standing={ORIGIN: named})
    (problem,) = problems_of(given, NOW)
    assert problem.cause.startswith(f"{ORIGIN}, billing.InvoiceCreated of ‹email›: an attempt failed")
    assert (problem.origin, problem.key, problem.waiting) == (ORIGIN, "‹email›", 41)


def test_of_several_workers_the_oldest_key_is_named_and_all_are_counted() -> None:
    one = SubscriptionView(name="s", held=(held(origin="t/0/5", since=T - 30),), held_total=4)
    other = SubscriptionView(name="s", held=(held(origin="t/1/9", since=T - 300),), held_total=1)
    sight = Sight(views=((beat(one), one), (beat(other, process="host/2"), other)))
    (problem,) = problems_of(replace(case(), sight=sight), NOW)
    assert problem.cause.startswith("t/1/9: ")
    assert "4 more keys are held" in problem.cause
    assert problem.age_s == 300.0


def test_a_parked_key_is_as_old_as_its_dead_letter_where_its_worker_does_not_know() -> None:
    parked = held(origin="billing.invoices/0/7", why="parked", since=0.0, waiting=7)
    without = seen(parked=(parked,), parked_keys=1)
    assert [(one.kind, one.age_s) for one in problems_of(without, NOW)] == [("keys_parked", None)]
    found = {one.kind: one.age_s for one in problems_of(replace(without, dead=dead("invalid_channel")), NOW)}
    assert found["keys_parked"] == 7200.0


def test_a_first_retry_is_everyday_and_no_problem() -> None:
    assert problems_of(seen(held=(held(since=T - 3),), held_total=1), NOW) == []


def test_a_stop_in_a_worker_from_before_a_resume_is_not_shown() -> None:
    resumed = State(state="running", at=(NOW - timedelta(seconds=1)).isoformat())
    given = seen(case(state=resumed), state="stopped", reason="5 rejections in a row")
    assert problems_of(given, NOW) == []
    earlier = State(state="running", at=(NOW - timedelta(seconds=60)).isoformat())
    assert [one.kind for one in problems_of(replace(given, attached=replace(given.attached, state=earlier)), NOW)] == [
        "cannot_run"
    ]


def status(*views: ConnectionView, control: State | None = None) -> ConnectionStatus:
    beats = [beat(view, process=f"host/{number}") for number, view in enumerate(views)]
    return connection_status("slack", control=control, beats=beats, subscriptions=["billing-alerts", "finance-feed"])


UNTIL = datetime(2026, 5, 1, 12, 1, 30, tzinfo=UTC)
HELD = State(state="paused", reason="INC-412", by="kim", at="2026-05-01T11:50:00+00:00")
CONNECTIONS: dict[str, tuple[ConnectionStatus, Kind, str, str]] = {
    "circuit open": (
        status(account(state="open", reason="timeout", until=UNTIL.timestamp())), "circuit_open",
        "The circuit of slack is open (timeout), until 12:01:30Z", "backbone connection check slack",
    ),
    "circuit open in one of two": (
        status(account(), account(state="open", reason="timeout")), "circuit_open", "is open in 1 of 2 workers",
        "backbone connection check slack",
    ),
    "half open": (
        status(account(state="half_open", reason="timeout")), "circuit_open", "half open (timeout)",
        "backbone connection show slack",
    ),
    "the vendor asks to wait": (
        status(account(state="paused", reason="http_429", until=UNTIL.timestamp())), "connection_paused",
        "slack waits for its vendor (http_429), until 12:01:30Z: it asked for quiet, or did not answer.",
        "backbone connection show slack",
    ),
    "the vendor's own quota": (
        status(account(state="paused", reason="quota", until=UNTIL.timestamp())), "quota",
        "The vendor's quota of slack is used up, until 12:01:30Z.", "backbone connection show slack",
    ),
    "our rate is used up": (
        status(account(quota_used=0.99, waiting=2)), "quota", "The rate of slack is used up (99%)",
        "backbone connection show slack",
    ),
    "stopped": (
        status(account(state="stopped", reason="invalid_auth")), "connection_stopped",
        "slack stopped (invalid_auth): a person must mend", "backbone connection check slack",
    ),
    "paused by a person": (
        status(account(state="held", reason="INC-412"), control=HELD), "connection_held",
        "The connection slack is paused by kim (INC-412): no call is made.", "backbone connection resume slack",
    ),
    "paused by a person, and nobody runs": (
        status(control=HELD), "connection_held", "is paused by kim", "backbone connection resume slack"
    ),
    "a state of a newer version": (
        status(account(state="resting")), "connection_paused", "The connection slack is resting.",
        "backbone connection show slack",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "words", "command"), CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_a_connection_that_holds_its_subscriptions_says_so_once_for_all_of_them(
    given: ConnectionStatus, kind: Kind, words: str, command: str
) -> None:
    (problem,) = connection_problems(given, NOW)
    assert (problem.kind, problem.subject, problem.command) == (kind, "slack", command)
    assert words in problem.cause
    assert "It holds billing-alerts and 1 more subscription." in problem.cause
    assert problem.subscriptions == ("billing-alerts", "finance-feed")
    assert problem.concerns("finance-feed")


@pytest.mark.parametrize("given", [status(), status(account()), status(account(quota_used=0.99))])
def test_a_connection_that_lets_everybody_call_is_no_problem(given: ConnectionStatus) -> None:
    assert connection_problems(given, NOW) == []


def test_what_a_person_has_ended_is_not_shown_from_a_heartbeat_of_before() -> None:
    resumed = State(state="running", by="kim", at=NOW.isoformat())
    assert status(account(state="held", reason="INC-412"), control=resumed).state == "running"
    later = replace(resumed, at=(NOW - timedelta(seconds=30)).isoformat())
    assert status(account(state="stopped", reason="invalid_auth"), control=later).state == "stopped"


def test_a_connection_that_nobody_opened_is_unused() -> None:
    row = as_row(status())
    assert (row["state"], row["workers"], row["quota_used"]) == ("unused", 0, None)


def test_held_by_names_what_holds_in_words_the_worst_first() -> None:
    def one(kind: Kind) -> Problem:
        return Problem(kind=kind, subject="s", cause="", age_s=None, owner="", command="")

    given = [one("quota"), one("dead_letters"), one("circuit_open"), one("key_held"), one("circuit_open")]
    assert held_by(given) == ["open circuit", "held key", "vendor quota"]


@given(any_subscription, st.lists(any_connection, max_size=3), st.none() | st.sampled_from(["running", "paused", "x"]))
def test_whatever_workers_say_a_sentence_comes_of_it(
    view: SubscriptionView, accounts: list[ConnectionView], said: Any
) -> None:
    control = None if said is None else State(state=said, at="no time")
    views = [replace(one, name="slack") for one in accounts]
    found = connection_status("slack", control=control, beats=[beat(*views)])
    attached = AttachedSubscription(name="s", definition=DEFINITION)
    header = Header(description="", owner="", slo=None, reads=())
    group = GroupLag(
        name="s", ours=True, state="stable", members=(WORKER,), partitions=(), at=T, slo_s=None, problem=None
    )
    given_case = Case(
        attached=attached, header=header, group=group, dead=NO_LETTERS, not_read_yet=(),
        sight=Sight(views=((beat(view), view),)), connection=found,
    )  # fmt: skip
    for one in worst_first([*problems_of(given_case, NOW), *connection_problems(found, NOW)]):
        assert one.cause.endswith(".") or "backbone " in one.cause
        assert one.command.startswith("backbone ")


def test_a_process_that_is_silent_for_long_says_nothing_of_now() -> None:
    view = SubscriptionView(name="s")
    beats = Beats(all=(beat(view, process="host/1", age_s=39), beat(view, process="host/2", age_s=41)))
    assert [one.heartbeat.process for one, _ in beats.of_subscription("s")] == ["host/1"]
    assert Beats(all=(beat(view, age_s=41),)).fresh == ()
    assert (Beats(all=(beat(view, age_s=41),)).silent_s, Beats().silent_s) == (41, None)


def test_heartbeats_that_may_not_be_read_are_a_warning_and_no_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: object) -> Beats:
        raise NotAllowedError("The Kafka cluster of 'prod' does not permit this (TOPIC_AUTHORIZATION_FAILED).")

    make_project(tmp_path, "t")
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    monkeypatch.setattr(heartbeats, "_read", refused)
    app = App()
    assert heartbeats.read_heartbeats(app) == Beats(topic_exists=False)
    assert "What the workers do cannot be seen" in app.screen.warnings[0]
    app.close()


@given(st.text(max_size=30))
def test_only_a_place_is_an_origin(text: str) -> None:
    origin = parse_origin(text)
    assert origin is None or parse_origin(str(origin)) == origin


def test_an_origin_has_topic_partition_and_offset() -> None:
    assert parse_origin("billing.invoices/3/17") == ("billing.invoices", 3, 17)
    assert parse_origin("billing.invoices/3") is None
