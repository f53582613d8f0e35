"""The circuit breaker alone: when it opens, what it lets through, when it closes."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connectors.breaker import CLOSES, IN_A_ROW, Breaker, Circuit, Ticket, Verdict, verdict
from connectors.connector import (
    Delivered,
    Outcome,
    Rejected,
    RetryLater,
    Skipped,
    Unavailable,
    Unknown,
)

CIRCUIT = Circuit(open_s=60, open_max_s=300, slow_s=10)


def breaker(chance: float = 0.5) -> Breaker:
    return Breaker(CIRCUIT, lambda: chance)


def call(one: Breaker, said: Verdict, now: float, seconds: float = 0.1) -> None:
    ticket = one.admit(now)
    assert ticket is not None
    one.settle(ticket, said, seconds, now)


def opened(now: float = 0.0) -> Breaker:
    one = breaker()
    for _ in range(IN_A_ROW):
        call(one, "failed", now)
    assert one.state == "open"
    return one


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([Unknown("timeout")], "failed"),
        ([Unknown("server_error"), Unknown("server_error")], "failed"),
        ([Unavailable("refused")], "failed"),
        ([Unavailable("unavailable", timedelta(seconds=5))], "failed"),
        ([Rejected("invalid_body"), Unavailable("refused")], "failed"),
        ([Delivered(), Unknown("no_result")], "worked"),
        ([RetryLater("conflict")], "worked"),
        ([Rejected("refused")], "refused"),
        ([Rejected("refused", scope="call")], "refused"),
        ([Rejected("refused"), Delivered()], "worked"),
        ([Skipped("superseded")], "worked"),
        ([Unavailable("locked", scope="entity")], "worked"),
        ([Unavailable("rate_limited", timedelta(seconds=5), limited=True)], "neither"),
        ([Unavailable("unauthorized", needs_operator=True)], "neither"),
        ([Rejected("invalid_body"), Unavailable("rate_limited", limited=True)], "neither"),
        ([], "neither"),
    ],
    ids=str,
)
def test_what_counts_is_whether_somebody_answered(outcomes: list[Outcome], said: Verdict) -> None:
    assert verdict(outcomes) == said


def test_it_opens_at_a_steady_failure_rate_of_80_percent_though_some_calls_succeed() -> None:
    """No library measured does (facts.md): every success sets their count of failures back."""
    one = breaker()
    for number in range(100):
        if one.state == "open":
            break
        call(one, "worked" if number % 5 == 4 else "failed", number * 0.1)
    assert one.state == "open"
    assert number == 20, "at the twentieth call"


def test_five_failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() -> None:
    one = breaker()
    for said in ("failed", "failed", "failed", "failed", "worked", "failed", "failed", "failed", "failed"):
        call(one, said, 0.0)  # type: ignore[arg-type]
    assert one.state == "closed"
    call(one, "failed", 0.0)
    assert (one.state, one.reason) == ("open", "failures_in_a_row")


def test_a_tenth_of_twenty_calls_opens_it_and_less_does_not() -> None:
    one = breaker()
    for number in range(1, 400):
        call(one, "failed" if number % 11 == 0 else "worked", number * 0.01)
    assert one.state == "closed"
    for number in range(1, 400):
        if one.state == "open":
            break
        call(one, "failed" if number % 5 == 0 else "worked", 4 + number * 0.01)
    assert (one.state, one.reason) == ("open", "failures")


def test_failures_of_more_than_a_minute_ago_are_forgotten() -> None:
    one = breaker()
    for _ in range(3):
        call(one, "failed", 0.0)
    for number in range(30):
        call(one, "worked", 61.0 + number)
    call(one, "failed", 91.0)
    assert one.state == "closed"


def test_calls_that_are_nearly_all_slow_open_it_and_a_few_slow_ones_do_not() -> None:
    one = breaker()
    for number in range(50):
        call(one, "worked", number * 0.1, seconds=11.0 if number % 2 else 1.0)
    assert one.state == "closed"
    other = breaker()
    for number in range(20):
        call(other, "worked", number * 0.1, seconds=11.0)
    assert (other.state, other.reason) == ("open", "slow")


def test_while_open_nothing_passes_and_then_exactly_one_probe_at_a_time() -> None:
    one = opened()
    assert all(one.admit(second) is None for second in range(60))
    probe = one.admit(60.0)
    assert probe is not None
    assert one.state == "half_open"
    assert all(one.admit(60.0 + second) is None for second in range(1000))
    one.settle(probe, "worked", 0.1, 61.0)
    following = one.admit(61.0)
    assert following is not None
    assert one.admit(61.0) is None


def test_three_probes_that_work_close_it_and_a_failing_one_opens_it_for_twice_as_long() -> None:
    one = opened()
    for length in (120, 240, 300, 300):
        start = one.until
        call(one, "failed", start)
        assert one.until - start == pytest.approx(length)
        assert one.admit(one.until - 0.1) is None
    start = one.until
    for number in range(CLOSES):
        assert one.state != "closed", number
        call(one, "worked", start)
    assert one.state == "closed"
    for _ in range(IN_A_ROW):
        call(one, "failed", start)
    assert one.until - start == pytest.approx(60), "after it had closed the patience is as at first"


def test_the_times_are_spread_by_chance_so_that_processes_do_not_ask_together() -> None:
    lengths = set()
    for seed in range(50):
        one = Breaker(CIRCUIT, random.Random(seed).random)
        for _ in range(IN_A_ROW):
            call(one, "failed", 0.0)
        assert 54 <= one.until <= 66
        lengths.add(one.until)
    assert len(lengths) == 50


def test_a_call_that_began_before_it_opened_neither_closes_nor_reopens_it() -> None:
    one = breaker()
    early = [one.admit(0.0) for _ in range(10)]
    for _ in range(IN_A_ROW):
        call(one, "failed", 1.0)
    until = one.until
    for ticket, said in zip(early, ["worked", "failed"] * 5, strict=True):
        assert ticket is not None
        one.settle(ticket, said, 0.1, 2.0)  # type: ignore[arg-type]
    assert (one.state, one.until) == ("open", until)
    probe = one.admit(until)
    for ticket in early:
        assert ticket is not None
        one.settle(ticket, "failed", 0.1, until)
    assert one.state == "half_open"
    assert one.admit(until) is None, "the probe is still out"
    assert probe is not None


def test_a_probe_that_was_not_made_or_says_nothing_makes_room_for_the_next() -> None:
    one = opened()
    first = one.admit(one.until)
    assert first is not None
    one.cancel(first)
    second = one.admit(one.until)
    assert second is not None
    one.settle(second, "neither", 0.1, one.until)
    assert one.state == "half_open"
    assert one.admit(one.until) is not None


def test_a_refusal_is_an_answer_but_closes_nothing_since_the_connector_may_have_refused_it_itself() -> None:
    """Three deliveries that were wrong before they were sent used to close the circuit of a vendor that was away."""
    one = breaker()
    for said in ("failed", "failed", "refused", "failed", "failed", "failed", "failed"):
        call(one, said, 0.0)  # type: ignore[arg-type]
    assert one.state == "closed", "it was not five in a row"
    call(one, "failed", 0.0)
    for _ in range(10):
        call(one, "refused", one.until)
        assert one.state == "half_open"
    for _ in range(CLOSES):
        call(one, "worked", one.until)
    assert one.state == "closed"


def test_a_person_may_have_it_asked_at_once() -> None:
    one = opened()
    one.ask_now(3.0)
    assert one.admit(3.0) is not None
    assert one.admit(3.0) is None


SAID = st.sampled_from(["worked", "refused", "failed", "neither"])


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: one probe at most, nothing while open, times that only go on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(CIRCUIT, lambda: 0.5)
        self.out: list[tuple[Ticket, float]] = []
        self.probes: list[Ticket] = []

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def somebody_asks(self) -> None:
        was, until = self.breaker.state, self.breaker.until
        could = self.breaker.admits(self.now)
        ticket = self.breaker.admit(self.now)
        assert (ticket is not None) == could
        if was == "open" and self.now < until:
            assert ticket is None
        if was != "closed" and self.probes:
            assert ticket is None
        if was == "closed":
            assert ticket is not None
        if ticket is not None:
            self.out.append((ticket, self.now))
            if ticket.is_probe:
                self.probes.append(ticket)

    @rule(
        which=st.integers(0, 10), said=st.sampled_from(["worked", "refused", "failed", "neither"]), data=st.booleans()
    )
    def one_ends(self, which: int, said: Verdict, data: bool) -> None:
        if not self.out:
            return
        ticket, began = self.out.pop(which % len(self.out))
        was_open, until = self.breaker.state == "open", self.breaker.until
        if ticket in self.probes:
            self.probes.remove(ticket)
        if data:
            self.breaker.settle(ticket, said, self.now - began, self.now)
        else:
            self.breaker.cancel(ticket)
        if was_open:
            assert (self.breaker.state, self.breaker.until) == ("open", until)
        if self.breaker.state != "half_open":
            self.probes.clear()

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert len(self.probes) <= 1

    @invariant()
    def it_does_not_wait_longer_than_five_minutes_and_a_tenth(self) -> None:
        assert self.breaker.until <= self.now + 330


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
