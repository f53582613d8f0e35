"""The settle table, row by row, and the guard against rejecting everything."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Delivered, Outcome, Rejected, RetryLater, Skipped, Unavailable, Unknown
from consumers.settlement import (
    Attempts,
    Decision,
    Finish,
    Halve,
    Hold,
    PauseConnection,
    RejectionGuard,
    SetAside,
    StopConnection,
    backoff,
    decide,
)
from consumers.subscription import Policies, Retry

POLICIES = Policies(
    slo=timedelta(minutes=5), retry=Retry(attempts=3, within=timedelta(seconds=60)), on_unknown="resend"
)
HOLDING = Policies(slo=timedelta(minutes=5), retry=Retry(), on_unknown="hold")


def settle(outcome: Outcome, attempts: Attempts | None = None, **changed: object) -> Decision:
    arguments: dict[str, object] = {
        "now": 100.0, "alone": True, "others_succeed": False, "random": lambda: 0.5, "policies": POLICIES,
    }  # fmt: skip
    arguments |= changed
    policies = arguments.pop("policies")
    return decide(outcome, attempts or Attempts(), policies, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "decision", "counted"),
    [
        (Delivered("v1"), Finish(Delivered("v1")), 1),
        (Skipped("merged"), Finish(Skipped("merged")), 0),
        (RetryLater("locked"), Hold(1.0), 1),
        (RetryLater("locked", timedelta(seconds=7)), Hold(7.0), 1),
        (Unavailable("away"), PauseConnection(None, "away"), 0),
        (Unavailable("busy", timedelta(seconds=3)), PauseConnection(3.0, "busy"), 0),
        (Unavailable("channel", timedelta(seconds=3), scope="entity"), Hold(3.0), 0),
        (Unavailable("unauthorised", needs_operator=True), StopConnection("unauthorised"), 0),
        (Unknown("timeout"), Hold(1.0), 1),
        (Rejected("no_such_property", "plan"), SetAside("rejected", "no_such_property", "plan"), 1),
    ],
)
def test_each_outcome_is_settled_as_the_table_says(outcome: Outcome, decision: Decision, counted: int) -> None:
    attempts = Attempts()
    assert settle(outcome, attempts) == decision
    assert attempts.count == counted


def test_a_refused_call_is_halved_and_a_single_delivery_of_it_rejected() -> None:
    refused = Rejected("bad_request", scope="call")
    assert settle(refused, alone=False) == Halve(refused)
    assert settle(refused, alone=True) == SetAside("rejected", "bad_request", "")


def test_unknown_is_held_for_a_person_where_the_policy_says_so() -> None:
    assert settle(Unknown("cut"), policies=HOLDING) == SetAside("unknown", "cut")


def test_a_rejection_after_an_unknown_is_an_unknown_because_it_may_have_happened() -> None:
    attempts = Attempts()
    settle(Unknown("cut"), attempts)
    assert settle(Rejected("bad"), attempts) == SetAside("unknown", "bad", "")


def test_retries_end_only_when_both_the_attempts_and_the_time_are_used_up() -> None:
    attempts = Attempts()
    for now in (0.0, 1.0, 2.0, 3.0):
        assert isinstance(settle(RetryLater("locked"), attempts, now=now), Hold)
    assert settle(RetryLater("locked"), attempts, now=60.0) == SetAside("exhausted", "locked")
    slow = Attempts()
    settle(RetryLater("locked"), slow, now=0.0)
    assert isinstance(settle(RetryLater("locked"), slow, now=500.0), Hold)
    assert isinstance(settle(RetryLater("locked"), slow, now=501.0), SetAside)


def test_a_vendor_that_is_away_for_a_week_uses_no_attempt_and_makes_no_dead_letter() -> None:
    attempts = Attempts()
    for hour in range(24 * 7):
        assert isinstance(settle(Unavailable("away"), attempts, now=hour * 3600.0), PauseConnection)
    assert attempts.count == 0


def test_an_object_that_stays_busy_while_others_succeed_counts_as_a_failed_attempt_every_third_time() -> None:
    attempts = Attempts()
    busy = Unavailable("channel", scope="entity")
    for _ in range(3):
        assert isinstance(settle(busy, attempts, others_succeed=True), Hold)
    assert attempts.count == 1
    lonely = Attempts()
    for _ in range(9):
        settle(busy, lonely, others_succeed=False)
    assert lonely.count == 0


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_never_negative_and_never_above_two_minutes(failures: int, chance: float) -> None:
    assert 0 <= backoff(failures, lambda: chance) < 120


def test_five_rejections_in_a_row_in_distinct_lanes_stop_it() -> None:
    guard = RejectionGuard()
    assert [guard.rejected(lane) for lane in "abcd"] == [None] * 4
    assert guard.rejected("e") is not None


def test_one_poisoned_key_does_not_stop_it() -> None:
    guard = RejectionGuard()
    assert all(guard.rejected("a") is None for _ in range(50))


def test_a_success_between_begins_the_row_anew() -> None:
    guard = RejectionGuard()
    for _ in range(20):
        assert guard.rejected("a") is None
        assert guard.rejected("b") is None
        guard.succeeded()


def test_a_tenth_of_the_last_thousand_rejected_stops_it() -> None:
    guard = RejectionGuard()
    said = []
    for number in range(2000):
        if number % 9 == 0:
            said.append(guard.rejected(number))
        else:
            guard.succeeded()
    assert any(said)


def test_what_left_the_window_is_not_counted_any_more() -> None:
    guard = RejectionGuard(share=0.1, window=100)
    for lane in range(9):
        guard.rejected(lane)
        guard.succeeded()
    for _ in range(200):
        guard.succeeded()
    for lane in range(9):
        assert guard.rejected(lane) is None
        guard.succeeded()


def test_accepted_rejections_pass_after_a_resume() -> None:
    guard = RejectionGuard(accept=10)
    assert all(guard.rejected(lane) is None for lane in range(10))
    assert [guard.rejected(lane) for lane in range(4)] == [None] * 4
    assert guard.rejected(9) is not None
