"""The fold of ``backbone.control`` and where partitions begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.control import (
    AttachedSubscription,
    Begin,
    Control,
    Definition,
    Leave,
    NoPosition,
    Start,
    State,
    Steering,
    begin_at,
    connection_record,
    definition_record,
    leave_record,
    start_record,
    state_record,
    steering_record,
    timestamp,
)

DEFINITION = Definition(
    text="description: x\n", version="3f9a2c", author="ana", at="2026-05-01T12:00:00+00:00", connection="hubspot",
    events=("accounts.UserSignedUp",), topics={"accounts.users": 12}, projections={"a.py": "00"},
)  # fmt: skip


def folded(*records: tuple[bytes, bytes | None]) -> Control:
    control = Control()
    for key, value in records:
        control.apply(key, value)
    return control


def test_a_subscription_is_attached_by_its_definition_and_runs_unless_it_is_told_otherwise() -> None:
    attached = folded(definition_record("crm", DEFINITION)).snapshot().subscriptions["crm"]
    assert attached.definition == DEFINITION
    assert attached.state.state == "running"


def test_state_start_and_leave_have_keys_of_their_own() -> None:
    stopped = State(state="stopped", reason="5 in a row", by="w", at="t", accept=0)
    start = Start(offset=7, state="pending", at="t")
    leave = Leave(change="ch-1", until="2026-05-01T12:10:00+00:00")
    attached = (
        folded(
            start_record("crm", "accounts.users", 3, start),
            definition_record("crm", DEFINITION),
            state_record("crm", stopped),
            leave_record("crm", leave),
        )
        .snapshot()
        .subscriptions["crm"]
    )
    assert (attached.state, attached.starts, attached.leave) == (stopped, {("accounts.users", 3): start}, leave)


def test_a_start_of_an_older_version_has_no_hand_over_position_and_one_with_marks_is_read_back() -> None:
    old = (b"subscription|crm|start|accounts.users/3", b'{"offset": 7, "state": "started", "at": "t"}')
    marked = Start(offset=7, state="pending", at="t", until=4_000, fold=True)
    starts = folded(old, start_record("crm", "accounts.users", 4, marked), definition_record("crm", DEFINITION))
    found = starts.snapshot().subscriptions["crm"].starts
    assert found["accounts.users", 3] == Start(offset=7, state="started", at="t", until=None, fold=False)
    assert found["accounts.users", 4] == marked


def test_a_tombstone_detaches_and_clears() -> None:
    control = folded(
        definition_record("crm", DEFINITION),
        leave_record("crm", Leave(change="c", until="x")),
        leave_record("crm", None),
        start_record("crm", "t", 0, Start(offset=1, state="pending")),
        start_record("crm", "t", 0, None),
        definition_record("crm", None),
        connection_record("hubspot", State(state="paused")),
        connection_record("hubspot", None),
    )
    snapshot = control.snapshot()
    assert "crm" not in snapshot.subscriptions
    assert snapshot.detached["crm"].leave is None
    assert snapshot.detached["crm"].starts == {}
    assert snapshot.connections == {}


def test_a_field_that_a_newer_version_has_added_is_ignored() -> None:
    control = Control()
    control.apply(b"subscription|crm|state", b'{"state": "paused", "reason": "x", "colour": "blue"}')
    control.apply(*definition_record("crm", DEFINITION))
    assert control.snapshot().subscriptions["crm"].state == State(state="paused", reason="x")


@given(st.none() | st.binary() | st.from_regex(rb"(subscription|connection)\|[a-z]*(\|[a-z/0-9]*)*", fullmatch=True),
       st.none() | st.binary() | st.sampled_from([b"{}", b"[]", b"1", b'{"state": 5}', b'{"events": 3}']))  # fmt: skip
def test_a_record_that_cannot_be_read_is_passed_over(key: bytes | None, value: bytes | None) -> None:
    control = folded(definition_record("crm", DEFINITION))
    control.apply(key, value)
    control.snapshot()


def test_being_away_ends_by_itself() -> None:
    now = datetime.now(UTC)
    away = AttachedSubscription(name="crm", leave=Leave(change="c", until=timestamp(now + timedelta(minutes=5))))
    assert away.away_at(now)
    assert not away.away_at(now + timedelta(minutes=6))
    assert not AttachedSubscription(name="crm", leave=Leave(change="c", until="never")).away_at(now)


def attached(**changed: object) -> AttachedSubscription:
    return AttachedSubscription(name="crm", definition=DEFINITION, **changed)  # type: ignore[arg-type]


def test_a_committed_offset_is_where_it_goes_on() -> None:
    assert begin_at(attached(), "accounts.users", 0, 42) == Begin(42, first=False)


def test_without_a_commit_a_pending_start_is_begun_at() -> None:
    starts = {("accounts.users", 0): Start(offset=9, state="pending")}
    assert begin_at(attached(starts=starts), "accounts.users", 0, None) == Begin(9, first=True)


def test_a_start_that_was_begun_and_has_no_commit_any_more_is_never_begun_again() -> None:
    starts = {("accounts.users", 0): Start(offset=9, state="started")}
    answer = begin_at(attached(starts=starts), "accounts.users", 0, None)
    assert isinstance(answer, NoPosition)
    assert "backbone rewind crm --to" in answer.reason


def test_a_partition_added_after_attaching_is_read_from_its_beginning() -> None:
    assert begin_at(attached(), "accounts.users", 12, None) == Begin(None, first=True)


def test_a_partition_nobody_recorded_stops() -> None:
    assert isinstance(begin_at(attached(), "accounts.users", 3, None), NoPosition)
    assert isinstance(begin_at(attached(), "another.topic", 0, None), NoPosition)


def test_what_is_wanted_of_a_change_stands_until_it_has_ended() -> None:
    paused = Steering(state="paused", rate=5.0, by="ana", at="2026-05-01T12:00:00+00:00")
    control = folded(steering_record("ch-7f3ab", paused), steering_record("ch-22222", Steering(state="cancelled")))
    assert control.snapshot().changes == {"ch-7f3ab": paused, "ch-22222": Steering(state="cancelled")}
    assert control.apply(*steering_record("ch-7f3ab", None)) is None  # no subscription or connection: no worker looks
    assert (list(control.snapshot().changes), control.unreadable) == (["ch-22222"], 0)


@pytest.mark.parametrize(
    "value", [b'{"state": "faster"}', b'{"rate": "5"}', b'{"rate": -1}', b'{"rate": 1e999}', b"[]"]
)
def test_steering_that_nobody_could_follow_changes_nothing(value: bytes) -> None:
    control = folded(steering_record("ch-7f3ab", Steering(state="paused")), (b"change|ch-7f3ab", value))
    assert (control.snapshot().changes["ch-7f3ab"].state, control.unreadable) == ("paused", 1)
