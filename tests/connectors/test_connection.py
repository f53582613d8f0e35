"""A connection shared by subscriptions, in simulated time: bounds, pauses, circuit, and who is asked when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from connectors.breaker import Circuit
from connectors.connection import IN_FLIGHT, Connection, Seat
from connectors.connector import (
    ConnectorType,
    Delivered,
    Delivery,
    Idempotency,
    LookedUp,
    Outcome,
    Rejected,
    Unavailable,
    Unknown,
)
from connectors.pacing import Quota, Rate
from schemas.event import Origin
from tests.connectors.simulated_time import now, simulate

DELIVERY = Delivery(action="a", entity="e", idempotency_key="0" * 64, sequence=Origin("t", 0, 0), body={})
Answer = Sequence[Outcome] | Exception
Told = list[tuple[str, str]]


class Vendor:
    """A connector that answers as it is told, after so many seconds, and keeps the time of each call."""

    def __init__(self) -> None:
        self.pause_until = 0.0
        self.answer: Callable[[float], Answer] = lambda _: [Delivered()]
        self.seconds: Callable[[], float] = lambda: 0.1
        self.credentials: Outcome | Exception = Delivered()
        self.found: LookedUp | Exception = None
        self.calls: list[tuple[float, float]] = []
        self.checks: list[float] = []

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        began = now()
        seconds = self.seconds()
        self.calls.append((began, began + seconds))
        await asyncio.sleep(seconds)
        answer = self.answer(began)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self) -> Outcome:
        self.checks.append(now())
        if isinstance(self.credentials, Exception):
            raise self.credentials
        return self.credentials

    async def look_up(self, delivery: Delivery) -> LookedUp:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def close(self) -> None:
        return None

    def most_at_once(self) -> int:
        return max(sum(one <= began < two for one, two in self.calls) for began, _ in self.calls)


def connect(
    batch_max: int = 1, *, check: bool = False, quota: Quota | None = None, circuit: Circuit | None = None
) -> tuple[Connection, Vendor, Told]:
    kind = ConnectorType(
        name="scripted", doc="", idempotency=Idempotency("upsert"), on_unknown="resend", batch_max=batch_max,
        actions={}, settings=object, open=lambda _: Vendor(), fake=None, check=check,  # type: ignore[arg-type]
        fake_settings=lambda url, folder: {"url": url, "folder": str(Path(folder))},
    )  # fmt: skip
    vendor, told = Vendor(), []  # type: ignore[var-annotated]
    connection = Connection(
        "c", kind, vendor, observer=lambda state, reason, _: told.append((state, reason)), chance=lambda: 0.5,
        quota=quota, circuit=circuit, clock=now, wall=lambda: 1_700_000_000.0 + now(),
    )  # fmt: skip
    return connection, vendor, told


@dataclass
class Caller:
    """What a subscription does: it has ``left`` calls to make, makes as many as it may, and settles the answers."""

    connection: Connection
    left: int
    background: bool = False
    share: float = 1.0
    settles: bool = True
    goes_on: bool = False
    """takes the next call's place by ``go_on`` instead of ``leave`` and ``try_enter``"""

    def __post_init__(self) -> None:
        self.seat: Seat = self.connection.join("s", wake=self.pump)
        self.seat.share = self.share
        self.tasks: set[asyncio.Task[None]] = set()
        self.out = 0
        self.outcomes: list[Outcome] = []
        self.done = asyncio.Event()

    def pump(self) -> None:
        while self.left > 0 and self.seat.try_enter(background=self.background):
            self.left -= 1
            self.out += 1
            task = asyncio.get_running_loop().create_task(self.one())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def one(self) -> None:
        answered = True
        while answered:
            answered = False
            try:
                (outcome,) = await self.seat.call([DELIVERY])
                answered = True
            finally:
                if not answered or not self.goes_on:
                    self.seat.leave()
                    self.out -= 1
            self.settle(outcome)
            answered = self.goes_on and self.went_on()
            if not self.left and not self.out and (isinstance(outcome, Delivered) or not self.settles):
                self.done.set()
            self.pump()

    def settle(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if isinstance(outcome, Unavailable) and self.settles:
            if outcome.needs_operator:
                self.connection.stop(outcome.reason)
            else:
                self.connection.pause(None if outcome.after is None else outcome.after.total_seconds(), outcome.reason)
        if self.settles and not isinstance(outcome, Delivered):
            self.left += 1  # it waits in its lane and is sent again

    def went_on(self) -> bool:
        """The place of the call that ended is the next one's, as in ``Runtime``."""
        if self.left > 0 and self.seat.go_on(background=self.background):
            self.left -= 1
            return True
        if self.left <= 0:
            self.seat.leave()
        self.out -= 1
        return False

    async def finish(self) -> None:
        self.pump()
        await self.done.wait()


def test_what_is_in_flight_is_bounded_by_what_batches_may_hold() -> None:
    async def story() -> None:
        connection, vendor, _ = connect(1)
        assert connection.calls_max == IN_FLIGHT
        await Caller(connection, 1000).finish()
        assert vendor.most_at_once() == IN_FLIGHT
        connection, vendor, _ = connect(100)
        await Caller(connection, 20).finish()
        assert vendor.most_at_once() == 2
        await connection.close()

    simulate(story())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (ValueError("ana@example.org"), Unknown("connector_raised_ValueError")),
        ([], Unknown("connector_wrong_length")),
        ([Delivered(), Delivered()], Unknown("connector_wrong_length")),
    ],
    ids=["raises", "too_few", "too_many"],
)
def test_what_a_connector_does_wrong_is_unknown_and_its_words_are_not_kept(answer: Answer, outcome: Outcome) -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.answer = lambda _: answer
        caller = Caller(connection, 1, settles=False)
        await caller.finish()
        assert caller.outcomes == [outcome]

    simulate(story())


def test_a_call_that_does_not_end_is_given_up_five_seconds_after_the_connectors_own_bound() -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.seconds = lambda: 1e6
        caller, began = Caller(connection, 1, settles=False), now()
        await caller.finish()
        assert caller.outcomes == [Unknown("connector_timeout")]
        assert now() - began == pytest.approx(25)

    simulate(story())


def test_after_a_pause_one_call_goes_first_and_all_follow_when_it_succeeds() -> None:
    async def story() -> None:
        connection, vendor, told = connect()
        connection.pause(5, "rate_limited")
        began = now()
        await Caller(connection, 50).finish()
        assert vendor.calls[0][0] == pytest.approx(began + 5)
        assert all(call[0] >= vendor.calls[0][1] for call in vendor.calls[1:])
        assert vendor.most_at_once() == 49
        assert told == [("paused", "rate_limited"), ("running", "")]

    simulate(story())


def test_many_calls_that_fail_together_make_one_pause() -> None:
    async def story() -> None:
        connection, _, told = connect()
        for _ in range(50):
            connection.pause(None, "unavailable")
        until = connection.view().until
        assert until is not None
        assert until - (1_700_000_000 + now()) == pytest.approx(0.75)
        assert told == [("paused", "unavailable")]

    simulate(story())


def test_a_vendor_that_asks_for_quiet_is_not_away() -> None:
    """Each of several 429 doubled the pause of the next refused connection: a vendor that was away for 5 s was left
    alone for 45."""

    async def story() -> None:
        connection, _, _ = connect()
        for _ in range(6):
            connection.pause(0.01, "rate_limited")
        await asyncio.sleep(1)
        connection.pause(None, "refused")
        until = connection.view().until
        assert until is not None
        assert until - (1_700_000_000 + now()) == pytest.approx(0.75)

    simulate(story())


def test_a_longer_pause_that_is_in_force_stays_and_a_call_from_before_it_does_not_end_it() -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.seconds = lambda: 3.0
        early = Caller(connection, 1)
        early.pump()
        await asyncio.sleep(1)
        began = now()
        connection.pause(60, "rate_limited")
        connection.pause(0.01, "rate_limited")
        await early.done.wait()
        await Caller(connection, 1).finish()
        assert vendor.calls[1][0] == pytest.approx(began + 60)

    simulate(story())


def test_the_vendors_own_word_is_kept_also_when_a_person_wants_it_asked_at_once() -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.pause_until = now() + 30
        assert (connection.view().state, connection.view().reason) == ("paused", "quota")
        caller, began = Caller(connection, 1), now()
        caller.pump()
        connection.release()
        await caller.done.wait()
        assert vendor.calls[0][0] == pytest.approx(began + 30)
        assert connection.view().state == "running"

    simulate(story())


def test_a_vendor_that_fails_is_left_alone_and_met_by_one_call_at_a_time_when_it_is_back() -> None:
    """Away for ten minutes, 256 calls in flight: five fail, the circuit opens, and only probes go there."""

    async def story() -> None:
        connection, vendor, told = connect()
        start = now()
        vendor.answer = lambda began: [Delivered()] if began > start + 600 else [Unavailable("refused")]
        caller = Caller(connection, 2000)
        await caller.finish()
        before = [began for began, _ in vendor.calls if began <= start + 600]
        assert len(before) <= IN_FLIGHT + 4, "256 that were in flight, then probes after 60, 120, 240 and 300 s"
        gaps = [two - one for one, two in pairwise(before[IN_FLIGHT - 1 :])]
        assert gaps == pytest.approx([60, 120, 240, 300][: len(gaps)], rel=0.02)
        after = [call for call in vendor.calls if call[0] > start + 600]
        assert all(two[0] >= one[1] for one, two in pairwise(after[:4])), "one probe at a time"
        assert [state for state, _ in told if state != "paused"][:2] == ["open", "half_open"]
        assert told[-1] == ("running", "")
        assert ("open", "refused") in told
        assert caller.outcomes.count(Delivered()) == 2000

    simulate(story())


def test_the_probe_may_be_another_subscriptions() -> None:
    """One subscription's calls all fail at this vendor, another's work: the circuit does not stay open for both."""

    async def story() -> None:
        connection, vendor, _ = connect(quota=Quota(concurrency=4))
        bad, good = Caller(connection, 5, settles=False), Caller(connection, 0)
        vendor.answer = lambda _: [Unknown("timeout")]
        await bad.finish()
        assert connection.view().state == "open"
        vendor.answer = lambda _: [Delivered()]
        bad.left, good.left = 0, 3
        await good.finish()
        assert connection.state == "running"

    simulate(story())


def test_a_429_pauses_and_does_not_open_the_circuit() -> None:
    async def story() -> None:
        connection, vendor, told = connect(quota=Quota(concurrency=8))
        start = now()
        limited = Unavailable("rate_limited", timedelta(seconds=3), limited=True)
        vendor.answer = lambda began: [Delivered()] if began > start + 20 else [limited]
        await Caller(connection, 100).finish()
        assert {state for state, _ in told} == {"paused", "running"}
        assert len([began for began, _ in vendor.calls if began <= start + 20]) <= 8 + 7

    simulate(story())


def test_credentials_that_fail_stop_it_and_a_harmless_check_a_minute_starts_it_again() -> None:
    async def story() -> None:
        connection, vendor, told = connect(check=True)
        refused = Unavailable("unauthorized", needs_operator=True)
        vendor.answer, vendor.credentials = lambda _: [refused], refused
        caller, began = Caller(connection, 10), now()
        caller.pump()
        await asyncio.sleep(400)
        assert len(vendor.calls) == 10, "what was in flight, and not one delivery more"
        assert [round(at - began) for at in vendor.checks] == [60, 120, 180, 240, 300, 360]
        assert told == [("stopped", "unauthorized")], "said once"
        vendor.credentials = ValueError("xoxb-secret")
        await asyncio.sleep(60)
        vendor.answer, vendor.credentials = lambda _: [Delivered()], Delivered()
        await caller.done.wait()
        assert told[-1] == ("running", "")
        assert now() - began == pytest.approx(480, abs=1)
        await connection.close()

    simulate(story())


def test_a_check_that_works_while_the_calls_are_refused_is_believed_once() -> None:
    """A token without the scope for what is asked passes the check: the connection would stop and run again every
    minute, with an alarm each time."""

    async def story() -> None:
        connection, vendor, told = connect(check=True)
        vendor.answer = lambda _: [Unavailable("missing_scope", needs_operator=True)]
        caller = Caller(connection, 10)
        caller.pump()
        await asyncio.sleep(3600)
        assert told == [("stopped", "missing_scope"), ("running", ""), ("stopped", "missing_scope")]
        assert len(vendor.checks) == 1
        assert len(vendor.calls) <= 10 + 10 + 60, "one call a minute"
        vendor.answer = lambda _: [Delivered()]
        await caller.done.wait()
        assert connection.state == "running"
        connection.stop("unauthorized")
        await asyncio.sleep(61)
        assert len(vendor.checks) == 2, "after a call that worked the check counts again"
        await connection.close()

    simulate(story())


def test_a_person_who_mended_the_credentials_need_not_wait_for_the_minute() -> None:
    async def story() -> None:
        connection, vendor, _ = connect(check=True)
        connection.stop("unauthorized")
        caller = Caller(connection, 1)
        caller.pump()
        await asyncio.sleep(1)
        began = now()
        connection.release()
        await caller.done.wait()
        assert now() - began < 1
        assert len(vendor.checks) == 1

    simulate(story())


def test_where_there_is_no_check_one_call_a_minute_sees_whether_the_credentials_work() -> None:
    async def story() -> None:
        connection, vendor, told = connect(check=False)
        vendor.answer = lambda _: [Unavailable("unauthorized", needs_operator=True)]
        caller = Caller(connection, 10)
        caller.pump()
        await asyncio.sleep(200)
        assert len(vendor.calls) == 10 + 3
        vendor.answer = lambda _: [Rejected("refused")]
        caller.settles = False
        await asyncio.sleep(60)
        assert connection.state == "stopped", "a refused delivery says nothing about the credentials"
        vendor.answer, caller.settles, caller.left = lambda _: [Delivered()], True, 5
        caller.done.clear()
        await caller.finish()
        assert told == [("stopped", "unauthorized"), ("running", "")]

    simulate(story())


def test_a_persons_pause_lets_what_is_in_flight_end_and_nothing_begin() -> None:
    async def story() -> None:
        connection, vendor, told = connect(quota=Quota(concurrency=2))
        caller = Caller(connection, 10)
        caller.pump()
        await asyncio.sleep(0.05)
        connection.hold("contract with the vendor ended")
        await asyncio.sleep(3600)
        assert (len(vendor.calls), connection.view().in_flight, connection.view().waiting) == (2, 0, 1)
        assert connection.view().state == "held"
        connection.release()
        await caller.done.wait()
        assert told == [("held", "contract with the vendor ended"), ("running", "")]

    simulate(story())


def test_the_view_says_what_is_going_on() -> None:
    async def story() -> None:
        connection, _, _ = connect(quota=Quota(rate=Rate(20, 10), concurrency=5))
        caller = Caller(connection, 10)
        caller.pump()
        await asyncio.sleep(0.05)
        view = connection.view()
        assert (view.name, view.state, view.in_flight, view.waiting) == ("c", "running", 2, 1)
        assert view.quota_used == 1.0, "it keeps somebody waiting"
        await caller.done.wait()
        view = connection.view()
        assert (view.in_flight, view.waiting) == (0, 0)
        assert view.quota_used is not None
        assert 0.2 < view.quota_used < 0.6, "of 20 in 10 s, 10 in the last 4 s"
        await asyncio.sleep(100)
        assert connection.view().quota_used == pytest.approx(0.0, abs=0.01)

    simulate(story())


def test_a_place_that_is_given_back_without_a_call_is_free_for_the_next_also_as_a_probe() -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.answer = lambda _: [Unknown("timeout")]
        await Caller(connection, 5, settles=False).finish()
        seat = connection.join("s", wake=lambda: None)
        await asyncio.sleep(100)
        for _ in range(3):
            assert seat.try_enter()
            assert connection.state == "half_open"
            assert not seat.try_enter(), "one probe at a time"
            seat.leave()

    simulate(story())


def test_a_cancelled_call_gives_its_place_back() -> None:
    async def story() -> None:
        connection, vendor, _ = connect(quota=Quota(concurrency=1))
        vendor.seconds = lambda: 10.0
        caller = Caller(connection, 2)
        caller.pump()
        await asyncio.sleep(1)
        (task,) = caller.tasks
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert len(vendor.calls) == 2
        assert vendor.calls[1][0] < vendor.calls[0][1]
        await caller.done.wait()

    simulate(story())


def test_a_subscription_that_left_is_not_asked_and_holds_nobody_up() -> None:
    async def story() -> None:
        connection, _, _ = connect(quota=Quota(concurrency=1))
        first, gone, last = (Caller(connection, 1) for _ in range(3))
        for caller in (first, gone, last):
            caller.pump()
        gone.seat.close()
        gone.seat.close()
        await asyncio.gather(first.done.wait(), last.done.wait())
        assert gone.left == 1

    simulate(story())


@pytest.mark.parametrize("found", [Delivered("C1/1.2"), Rejected("two_found"), None, Unavailable("refused")], ids=str)
def test_a_look_up_says_what_was_found(found: LookedUp) -> None:
    async def story() -> None:
        connection, vendor, _ = connect()
        vendor.found = found
        seat = connection.join("s", wake=lambda: None)
        assert seat.try_enter()
        assert await seat.look_up(DELIVERY) == found
        seat.leave()
        assert connection.succeeded == 0
        vendor.found = ValueError("ana@example.org")
        assert seat.try_enter()
        assert await seat.look_up(DELIVERY) == Unavailable("look_up_raised_ValueError")
        seat.leave()

    simulate(story())


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_the_vendor_never_sees_more_than_it_was_promised(seed: int) -> None:
    """I9, judged by the vendor's own stamps: random arrivals of three subscriptions, live and background, a vendor that
    is slow, limits, fails and comes back. Never more than rate x share + burst, never more than ``concurrency`` at
    once, while the circuit is open nothing and then one at a time; and all of it arrives."""

    async def story() -> None:
        chance = random.Random(seed)
        quota = Quota(rate=Rate(chance.choice([5, 40]), chance.choice([1.0, 10.0])), concurrency=chance.choice([1, 6]))
        assert quota.rate is not None
        assert quota.concurrency is not None
        connection, vendor, told = connect(quota=quota)
        opened: list[tuple[float, str]] = []
        connection._observer = lambda state, reason, _: (told.append((state, reason)), opened.append((now(), state)))  # type: ignore[assignment,func-returns-value]
        start = now()
        share = 0.5
        per_second = quota.rate.count / quota.rate.seconds * share
        bad = (start + 60 / per_second, start + chance.choice([120, 300]) / per_second)

        def answer(began: float) -> Answer:
            if bad[0] <= began < bad[1] and chance.random() < 0.9:
                return [chance.choice([Unknown("timeout"), Unavailable("refused"), Unavailable("unavailable")])]
            if chance.random() < 0.02:
                return [Unavailable("rate_limited", timedelta(seconds=2), limited=True)]
            return [Delivered()]

        vendor.answer, vendor.seconds = answer, lambda: chance.expovariate(5)
        callers = [
            Caller(connection, 1, background=kind == 2, share=share / 3, goes_on=chance.random() < 0.5)
            for kind in range(3)
        ]

        async def arrivals(caller: Caller) -> None:
            for _ in range(40):
                await asyncio.sleep(chance.expovariate(per_second / 10))
                caller.left += chance.randint(1, 5)
                caller.done.clear()
                caller.pump()
            while caller.left or caller.out:
                await asyncio.sleep(1)

        await asyncio.gather(*(arrivals(caller) for caller in callers))
        assert connection.view().state == "running"
        began = sorted(one for one, _ in vendor.calls)
        burst = max(1.0, quota.rate.count * 0.1 * share)
        for first in range(len(began)):
            for last in range(first, len(began), 3):
                assert last - first + 1 <= (began[last] - began[first]) * per_second + burst + 1e-6
        assert vendor.most_at_once() <= max(1, int(quota.concurrency * share))
        for (at, state), (until, _) in pairwise([*opened, (float("inf"), "")]):
            if state == "open":
                assert not [one for one in began if at < one < until], "nothing while open"
            if state == "half_open":
                probes = [call for call in vendor.calls if at <= call[0] < until]
                assert all(two[0] >= one[1] for one, two in pairwise(probes)), "one probe at a time"
        assert any(state == "open" for _, state in opened), "the outage was seen"

    simulate(story())


# ---- credentials that change


def test_the_next_call_takes_the_new_connector_and_the_old_one_is_closed_after_its_last_call() -> None:
    async def story() -> None:
        connection, old, _ = connect()
        closed: list[float] = []

        async def close() -> None:
            closed.append(now())

        old.close = close  # type: ignore[method-assign]
        old.seconds = lambda: 5.0
        caller, new = Caller(connection, 1), Vendor()
        caller.pump()
        began = now()
        await asyncio.sleep(1)
        connection.renew(new)
        caller.left = 1
        caller.pump()
        await asyncio.sleep(1)
        assert closed == []
        assert len(new.calls) == 1
        await asyncio.sleep(5)
        assert closed == [began + 5]
        assert caller.outcomes == [Delivered(), Delivered()]
        await connection.close()

    simulate(story())


def test_a_connector_that_has_no_call_in_flight_is_closed_at_once_and_the_vendors_quiet_stays() -> None:
    async def story() -> None:
        connection, old, _ = connect()
        closed: list[bool] = []

        async def close() -> None:
            closed.append(True)

        old.close = close  # type: ignore[method-assign]
        old.pause_until = now() + 30
        new = Vendor()
        connection.renew(new)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert closed == [True]
        assert new.pause_until == now() + 30
        caller = Caller(connection, 1)
        caller.pump()
        await asyncio.sleep(29)
        assert new.calls == []
        await asyncio.sleep(2)
        assert len(new.calls) == 1

    simulate(story())


def test_new_credentials_of_a_connection_that_stopped_are_tried_at_once_with_and_without_a_check() -> None:
    async def story(check: bool) -> None:
        connection, old, told = connect(check=check)
        refused = Unavailable("unauthorized", needs_operator=True)
        old.answer, old.credentials = lambda _: [refused], refused
        connection.stop("unauthorized")
        began = now()
        caller = Caller(connection, 1)
        caller.pump()
        await asyncio.sleep(5)
        assert connection.state == "stopped"
        connection.renew(Vendor())
        await asyncio.sleep(1)
        assert caller.outcomes == [Delivered()]
        assert connection.state == "running"
        assert now() - began < 10
        assert [state for state, _ in told] == ["stopped", "running"]
        await connection.close()

    simulate(story(check=True))
    simulate(story(check=False))


def test_credentials_that_change_while_the_old_ones_are_checked_are_tried_next_and_not_in_a_minute() -> None:
    async def story() -> None:
        connection, old, _ = connect(check=True)
        refused = Unavailable("unauthorized", needs_operator=True)

        async def slow() -> Outcome:
            await asyncio.sleep(3)
            return refused

        old.check = slow  # type: ignore[method-assign]
        connection.stop("unauthorized")
        await asyncio.sleep(61)
        connection.renew(Vendor())
        await asyncio.sleep(4)
        assert connection.state == "running"
        await connection.close()

    simulate(story())


def test_a_refusal_of_credentials_that_were_replaced_meanwhile_stops_nobody() -> None:
    async def story() -> None:
        connection, old, _ = connect()
        refused = Unavailable("unauthorized", needs_operator=True)
        old.answer, old.seconds = (lambda _: [refused]), (lambda: 5.0)
        caller = Caller(connection, 1, settles=False)
        caller.pump()
        await asyncio.sleep(1)
        connection.renew(Vendor())
        await asyncio.sleep(5)
        assert caller.outcomes == [Unavailable("unauthorized")]

    simulate(story())


def test_a_persons_pause_outlives_new_credentials() -> None:
    async def story() -> None:
        connection, _, _ = connect()
        connection.hold("contract ended")
        connection.renew(Vendor())
        assert connection.state == "held"

    simulate(story())
