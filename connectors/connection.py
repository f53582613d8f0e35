"""A connection: one configured account of a vendor in this process, shared by every subscription that uses it.

It stands between the subscriptions and the vendor: whether calls may begin at all (``gate``: circuit breaker, quiet,
credentials, a person's pause), whose turn it is and how fast (``pacing``), and the call itself, bounded and never
raising. While a call may not begin, nothing is used up: no attempt, no token.

Where several hold, people are told the first of: held (a person), stopped (credentials), open, half_open (circuit),
paused (the vendor asked for quiet, or did not answer), running.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from connectors.breaker import Circuit
from connectors.connector import (
    Connector,
    ConnectorType,
    Delivered,
    Delivery,
    JsonValue,
    Kept,
    LookedUp,
    Outcome,
    Page,
    Rejected,
    Unavailable,
    Unknown,
)
from connectors.deadlines import Deadlines
from connectors.gate import PROBE_EVERY_S, ConnectionState, Gate, Pass
from connectors.pacing import Pacing, Party, Quota
from connectors.succession import Succession

__all__ = ["IN_FLIGHT", "Connection", "ConnectionState", "ConnectionView", "Seat"]

T = TypeVar("T")
IN_FLIGHT = 256
"""Deliveries in flight on a connection at most where no ``concurrency`` is set, batches counted by what they may
hold."""


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """A connection as people see it: of one process, at one moment.

    ``until``: when it is asked again (epoch seconds), None when only an event or a person ends the state.
    ``in_flight``: deliveries asked and not answered. ``quota_used``: 0..1 of this process's share of the rate lately (1
    while it keeps somebody waiting), else of the vendor's own quota; None when neither is known. ``waiting``:
    subscriptions that want a call and may not make it yet."""

    name: str
    state: ConnectionState = "running"
    reason: str = ""
    until: float | None = None
    in_flight: int = 0
    quota_used: float | None = None
    waiting: int = 0


@dataclass(slots=True)
class _Entry:
    """One place taken. Not frozen: it is made per call."""

    party: Party
    background: bool
    passed: Pass


class Seat:
    """One subscription's place at a connection. Use on the connection's event loop."""

    __slots__ = ("_called", "_connection", "_entered", "_party", "_wake", "subscription")

    def __init__(self, connection: Connection, subscription: str, party: Party, wake: Callable[[], None]) -> None:
        self.subscription = subscription
        self._connection, self._party, self._wake = connection, party, wake
        self._entered: deque[_Entry] = deque()
        self._called: deque[_Entry] = deque()

    @property
    def share(self) -> float:
        """This seat's part (0..1) of the connection's quota over all processes. 1 until the worker says otherwise."""
        return self._party.share

    @share.setter
    def share(self, share: float) -> None:
        if share != self._party.share:
            self._connection._set_share(self._party, share)

    def try_enter(self, *, background: bool = False) -> bool:
        """Take a place for one call, if one may begin now; give it back with ``leave``. Never blocks. After False
        ``wake`` is called, on the loop and never from in here, when it is worth asking again."""
        pacing = self._connection._pacing
        if pacing.is_full:
            pacing.want(self._party, background=background)  # who leaves sees to those who want a place
            return False
        entry = self._connection._enter(self._party, background)
        if entry is None:
            return False
        self._entered.append(entry)
        return True

    def go_on(self, *, background: bool = False) -> bool:
        """``leave`` after a call and ``try_enter`` for the next one in one step. What that saves is the offer of the
        place to those who wait: it is theirs all the same when it is their turn."""
        if not self._called:
            self.leave()
            return self.try_enter(background=background)
        connection = self._connection
        connection._give_back(self._called.popleft())
        entry = connection._enter(self._party, background)
        if entry is None:
            return False
        self._entered.append(entry)
        connection._arm()
        return True

    def leave(self) -> None:
        """Give the place of one call back. Where the call was not made, it has cost nothing of the quota."""
        if self._called:
            self._connection._leave(self._called.popleft())
        else:
            self._connection._cancel(self._entered.popleft())

    async def call(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Ask the vendor, in a place taken with ``try_enter`` (``leave`` follows). Always one outcome a delivery, in a
        bounded time, never an exception. The connection learns from the answers by itself (breaker, pace, whether it
        may run again); ``pause`` and ``stop``, which the settle table decides, are the caller's."""
        entry, connection = self._entered.popleft(), self._connection
        began = connection._clock()
        outcomes: Sequence[Outcome] | None = None
        connection._in_flight += len(batch)
        try:
            outcomes = await connection._deliver(batch)
        finally:
            connection._in_flight -= len(batch)
            self._called.append(entry)
            connection._learn(entry, outcomes, began)
        return outcomes

    async def look_up(self, delivery: Delivery) -> LookedUp:
        """Ask the vendor whether it has the delivery, in a place taken with ``try_enter`` (``leave`` follows). Bounded
        in time, never an exception."""
        return await self._asked("look_up", lambda connector: connector.look_up(delivery))

    async def read_back(self, wanted: Sequence[Delivery]) -> Sequence[Kept | Rejected | None] | Unavailable:
        """Ask what the vendor has of them (``ReadsBack``), in a place taken as for ``look_up``. Always one answer each
        or Unavailable; bounded in time, never an exception."""
        found = await self._asked("read_back", lambda connector: connector.read_back(wanted))
        if not isinstance(found, Unavailable) and len(found) != len(wanted):
            return Unavailable("read_back_wrong_length")
        return found

    async def list_ours(self, about: Mapping[str, JsonValue], after: str) -> Page | Unavailable:
        """A page of what is ours at the vendor (``ListsOurs``), in a place taken as for ``look_up``. Bounded in time,
        never an exception."""
        return await self._asked("list_ours", lambda connector: connector.list_ours(about, after))

    async def _asked(self, what: str, ask: Callable[[Any], Awaitable[T]]) -> T | Unavailable:
        """A question that applies nothing."""
        entry, connection = self._entered.popleft(), self._connection
        began = connection._clock()
        found: T | Unavailable | None = None
        try:
            found = await connection._ask(what, ask)
        finally:
            self._called.append(entry)
            outcome = found if isinstance(found, Rejected | Unavailable) else Delivered()
            connection._learn(entry, [outcome], began, delivered=0)
        return found

    def close(self) -> None:
        """Leave the connection; ``wake`` is not called again. Places still taken are given back as ever."""
        self._connection._left(self._party)


class Connection:
    """Lives on one event loop. ``observer`` is told when the state changes: (state, reason, seconds until it is asked
    again or 0). ``total`` is the connector's own bound on a call; a call that takes 5 s longer is given up."""

    def __init__(
        self,
        name: str,
        kind: ConnectorType,
        connector: Connector,
        *,
        observer: Callable[[ConnectionState, str, float], None],
        quota: Quota | None = None,
        circuit: Circuit | None = None,
        total: timedelta = timedelta(seconds=20),
        probe_every_s: float = PROBE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.kind = name, kind
        self.state: ConnectionState = "running"
        self.reason = ""
        self.succeeded = 0
        """how many deliveries were Delivered so far; a lane compares it to see whether others succeed"""
        self._connector: Any = connector
        self._succession = Succession(connector)
        self._observer = observer
        self._deadlines = Deadlines(total.total_seconds() + 5)
        self._clock, self._wall, self._probe_every_s = clock, wall, probe_every_s
        self._gate = Gate(
            circuit or Circuit.of(open_s=None, total_s=total.total_seconds()),
            has_check=kind.check,
            probe_every_s=probe_every_s,
            chance=chance,
        )
        self._pacing = Pacing(quota or Quota(), calls_max=max(1, IN_FLIGHT // kind.batch_max))
        self._seats: dict[Party, Seat] = {}
        self._in_flight = 0
        self._checks: asyncio.Task[None] | None = None
        self._check_now = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_closed = False

    @property
    def calls_max(self) -> int:
        """Calls in flight at most in this process, of all subscriptions."""
        return self._pacing.slots

    # ---- what a subscription does

    def join(self, subscription: str, *, wake: Callable[[], None]) -> Seat:
        """A place for a subscription. ``wake`` is called on the loop when a refused ``try_enter`` is worth another."""
        party = self._pacing.join(self._clock())
        seat = self._seats[party] = Seat(self, subscription, party, wake)
        return seat

    def pause(self, seconds: float | None, reason: str) -> None:
        """Keep away for so long; None: 1 s doubling to 60 s, with jitter, while nothing succeeds (and nothing while
        the circuit is open, which has times of its own). A longer pause that is in force stays; of many calls that
        fail together one counts."""
        self._gate.pause(seconds, reason, now=self._clock(), asked=self._connector.pause_until)
        self._tell()
        self._arm()

    def stop(self, reason: str) -> None:
        """Only a person can mend it (credentials, permission). Once a minute the connector's ``check`` sees whether
        somebody did; where it has none, or it said that all is well and the calls that followed were refused again
        (a scope that it does not need), one call."""
        self._gate.stop(reason, self._clock())
        if self._gate.needs_check and self._checks is None:
            self._check_now.clear()
            self._checks = asyncio.get_running_loop().create_task(self._check_regularly())
        self._tell()
        self._arm()

    def renew(self, connector: Connector) -> None:
        """Take this connector from the next call on: its credentials are newer. The one before is closed when its
        calls in flight have ended. Where credentials had failed, the vendor is asked at once; a person's pause and the
        vendor's own quiet stay."""
        connector.pause_until = max(connector.pause_until, self._connector.pause_until)
        self._connector = connector
        self._succession.follow(connector)
        self._gate.credentials_changed(self._clock())
        self._check_now.set()
        self._tell()
        self._arm()

    # ---- what a person does

    def hold(self, reason: str) -> None:
        """A person's pause: no call begins until ``release``; what is in flight ends."""
        self._gate.hold(reason or "paused")
        self._tell()

    def release(self) -> None:
        """End a person's pause, and every wait: the vendor is asked at once, one call first where it had failed. Not
        when the vendor itself asked for quiet: that is kept."""
        self._gate.release(self._clock())
        self._check_now.set()
        self._tell()
        self._arm()

    async def check(self) -> Outcome:
        """One harmless call with the credentials (``ConnectorType.check`` says whether there is one). Bounded in time,
        never an exception."""
        turn = self._succession.begin()
        try:
            with self._deadlines.bound():
                outcome: Outcome = await turn.connector.check()
        except TimeoutError:
            return Unavailable("timeout")
        except Exception as error:  # noqa: BLE001 - its words may hold a secret; its type is kept
            return Unavailable(f"check_raised_{type(error).__name__}")
        finally:
            self._succession.end(turn)
        return outcome

    def view(self) -> ConnectionView:
        """What people see of it now."""
        now = self._clock()
        asked: float = self._connector.pause_until
        state, reason, until = self._gate.state(asked)
        if state == "running" and asked > now:
            state, reason, until = "paused", "quota", asked
        used = self._pacing.used(now)
        return ConnectionView(
            name=self.name,
            state=state,
            reason=reason,
            until=None if until is None or until <= now else self._wall() + until - now,
            in_flight=self._in_flight,
            quota_used=getattr(self._connector, "quota_used", None) if used is None else used,
            waiting=self._pacing.waiting,
        )

    async def close(self) -> None:
        """Close the connector and everything that runs by the clock."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.gather(self._checks, return_exceptions=True)
        await self._succession.close()

    # ---- places

    def _enter(self, party: Party, background: bool) -> _Entry | None:
        now = self._clock()
        pacing, gate = self._pacing, self._gate
        if not gate.admits(now, self._connector.pause_until):
            pacing.want(party, background=background)
            self._arm()
            return None
        if not pacing.begin(party, background=background, now=now):
            self._arm()
            return None
        passed = gate.admit(now)
        if passed.ticket.is_probe:
            self._tell()
        return _Entry(party, background, passed)

    def _cancel(self, entry: _Entry) -> None:
        self._gate.cancel(entry.passed)
        self._pacing.cancel(entry.party, background=entry.background)
        self._leave(entry)

    def _leave(self, entry: _Entry) -> None:
        self._give_back(entry)
        self._arm()

    def _give_back(self, entry: _Entry) -> None:
        self._pacing.end(background=entry.background)
        self._gate.leave(entry.passed)

    def _left(self, party: Party) -> None:
        if self._seats.pop(party, None) is not None:
            self._pacing.leave(party, self._clock())
            self._arm()

    def _set_share(self, party: Party, share: float) -> None:
        self._pacing.set_share(party, share, self._clock())
        self._arm()

    def _offer(self) -> None:
        """Tell those who wait that it is their turn, in turn, as long as there is room. Each asks for itself; who no
        longer wants anything lets the next one have it."""
        self._timer = None
        for party in self._pacing.turns(self._clock()):
            now = self._clock()
            at = self._pacing.next_at(now)
            if not self._gate.admits(now, self._connector.pause_until) or at is None or at > now:
                break
            self._pacing.ask(party)
            if (seat := self._seats.get(party)) is not None:
                seat._wake()
        self._arm()

    def _arm(self) -> None:
        """See to it that those who wait are asked when a call may begin."""
        if self._pacing.is_full:
            return  # who leaves comes by here
        if not self._pacing.waiting or self._is_closed:
            return
        now = self._clock()
        turn_at, opens_at = self._pacing.next_at(now), self._gate.opens_at(now, self._connector.pause_until)
        if turn_at is None or opens_at is None:
            return  # who leaves, learns, checks or releases comes by here
        at = max(turn_at, opens_at)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        # also what may begin at once is offered from the loop: whoever asked is still at work
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._offer)

    # ---- calls

    async def _deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Whatever the connector raises or answers in the wrong length is Unknown for all: it may have happened. Only
        the exception's type is kept, its words may hold payload."""
        turn = self._succession.begin()
        try:
            with self._deadlines.bound():
                outcomes: Sequence[Outcome] = await turn.connector.deliver(batch)
        except TimeoutError:
            return [Unknown("connector_timeout")] * len(batch)
        except Exception as error:  # noqa: BLE001 - the settle table's row: any exception is Unknown
            return [Unknown(f"connector_raised_{type(error).__name__}")] * len(batch)
        finally:
            self._succession.end(turn)
        if len(outcomes) != len(batch):
            return [Unknown("connector_wrong_length")] * len(batch)
        return [_with_old_credentials(one) for one in outcomes] if self._succession.is_over(turn) else outcomes

    async def _ask(self, what: str, ask: Callable[[Any], Awaitable[T]]) -> T | Unavailable:
        turn = self._succession.begin()
        try:
            with self._deadlines.bound():
                found = await ask(turn.connector)
        except TimeoutError:
            return Unavailable(f"{what}_timeout")
        except Exception as error:  # noqa: BLE001 - its words may hold payload; its type is kept
            return Unavailable(f"{what}_raised_{type(error).__name__}")
        finally:
            self._succession.end(turn)
        if isinstance(found, Unavailable) and self._succession.is_over(turn):
            return replace(found, needs_operator=False)
        return found

    def _learn(
        self, entry: _Entry, outcomes: Sequence[Outcome] | None, began: float, *, delivered: int | None = None
    ) -> None:
        """What a call that ended says about the vendor; None: it was given up before its end."""
        if outcomes is None:
            self._gate.cancel(entry.passed)
            return
        if delivered is None:
            delivered = [type(one) for one in outcomes].count(Delivered)
        self.succeeded += delivered
        self._gate.learn(entry.passed, outcomes, delivered=delivered > 0, began=began, now=self._clock())
        self._tell()

    async def _check_regularly(self) -> None:
        while self._gate.needs_check:
            self._gate.probed_next(self._clock())
            try:
                async with asyncio.timeout(self._probe_every_s):
                    await self._check_now.wait()
            except TimeoutError:
                pass
            self._check_now.clear()  # before the check: credentials that change while it is under way are tried next
            if isinstance(await self.check(), Delivered):
                self._gate.checked()
        self._checks = None
        self._tell()
        self._arm()

    # ---- what people are told

    def _tell(self) -> None:
        state, reason, until = self._gate.state(self._connector.pause_until)
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._observer(state, reason, 0.0 if until is None else max(0.0, until - self._clock()))


def _with_old_credentials(outcome: Outcome) -> Outcome:
    """A refusal of credentials that were replaced while the call was under way stops nobody: the next has others."""
    if isinstance(outcome, Unavailable) and outcome.needs_operator:
        return replace(outcome, needs_operator=False)
    return outcome
