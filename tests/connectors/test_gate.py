"""The gate alone: what shuts it, in which order people are told, and when it opens. (In use: test_connection.py.)"""

from __future__ import annotations

import pytest

from connectors.breaker import IN_A_ROW, Circuit
from connectors.connector import Delivered, Outcome, Rejected, Unavailable, Unknown
from connectors.gate import PAUSE_MAX_S, Gate


def gate(*, has_check: bool = True) -> Gate:
    return Gate(Circuit(), has_check=has_check, probe_every_s=60, chance=lambda: 0.5)


def call(one: Gate, outcome: Outcome, now: float, *, began: float | None = None) -> None:
    passed = one.admit(now)
    delivered = isinstance(outcome, Delivered)
    one.learn(passed, [outcome], delivered=delivered, began=now if began is None else began, now=now)
    one.leave(passed)


def test_of_several_reasons_the_one_that_a_person_must_see_first_is_told() -> None:
    one = gate()
    told = [one.state(0.0)[0]]
    one.pause(5, "rate_limited", now=0.0, asked=0.0)
    told.append(one.state(0.0)[0])
    for _ in range(IN_A_ROW):
        call(one, Unknown("timeout"), 6.0)
    told.append(one.state(0.0)[0])
    one.stop("unauthorized", 6.0)
    told.append(one.state(0.0)[0])
    one.hold("contract ended")
    told.append(one.state(0.0)[0])
    assert told == ["running", "paused", "open", "stopped", "held"]
    one.release(7.0)
    assert one.state(0.0)[:2] == ("stopped", "unauthorized"), "a person's word ends no missing credential"
    one.checked()
    assert one.state(0.0)[:2] == ("open", "timeout")


@pytest.mark.parametrize("shut", ["hold", "stop"])
def test_what_only_a_person_or_a_check_ends_has_no_time(shut: str) -> None:
    one = gate()
    one.hold("x") if shut == "hold" else one.stop("unauthorized", 0.0)
    assert not one.admits(1e9, 0.0)
    assert one.opens_at(1e9, 0.0) is None


def test_it_opens_when_the_later_of_its_own_and_the_vendors_time_is_over() -> None:
    one = gate()
    one.pause(5, "rate_limited", now=0.0, asked=0.0)
    assert one.opens_at(1.0, 0.0) == 5.0
    assert one.opens_at(1.0, 9.0) == 9.0
    assert not one.admits(8.9, 9.0)
    assert one.admits(9.0, 9.0)
    first = one.admit(9.0)
    assert one.opens_at(9.0, 9.0) is None, "one goes first"
    one.leave(first)
    assert one.opens_at(9.0, 9.0) == 9.0


def test_only_a_call_that_began_after_it_was_shut_opens_it() -> None:
    one = gate()
    early = one.admit(0.0)
    one.pause(None, "refused", now=1.0, asked=0.0)
    one.learn(early, [Delivered()], delivered=True, began=0.0, now=1.1)
    assert one.state(0.0)[0] == "paused"
    call(one, Rejected("invalid_body"), 3.0)
    assert one.state(0.0)[0] == "paused", "it may never have been sent"
    call(one, Delivered(), 3.0)
    assert one.state(0.0)[0] == "running"


def test_pauses_that_nobody_asked_for_double_to_a_minute_and_begin_anew_after_a_success() -> None:
    one, now, lengths = gate(), 0.0, []
    for _ in range(10):
        one.pause(None, "refused", now=now, asked=0.0)
        at = one.opens_at(now, 0.0)
        assert at is not None
        lengths.append(at - now)
        now = at
    assert lengths[:4] == pytest.approx([0.75, 1.5, 3, 6])
    assert lengths[-1] == pytest.approx(PAUSE_MAX_S * 0.75)
    call(one, Delivered(), now)
    one.pause(None, "refused", now=now, asked=0.0)
    assert one.opens_at(now, 0.0) == pytest.approx(now + 0.75)


def test_without_a_check_one_call_a_minute_tries_the_credentials() -> None:
    one = gate(has_check=False)
    one.stop("unauthorized", 0.0)
    one.stop("unauthorized", 1.0)  # another call that was in flight
    assert one.opens_at(1.0, 0.0) == 60.0
    call(one, Unavailable("unauthorized", needs_operator=True), 60.0)
    one.stop("unauthorized", 60.0)
    assert one.opens_at(60.0, 0.0) == 120.0
    call(one, Delivered(), 120.0)
    assert one.state(0.0)[0] == "running"
