"""A connection: one configured account of a vendor in this process, shared by every subscription that uses it.

It bounds what is in flight, keeps everybody away while the vendor asks for quiet, and lets one call through first when
the quiet is over. (Circuit breaker and pacing by quota are to stand between ``enter`` and the connector.)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from connectors.connector import (
    Connector,
    ConnectorType,
    Delivered,
    Delivery,
    LookedUp,
    Outcome,
    Rejected,
    RetryLater,
    Unavailable,
    Unknown,
)

IN_FLIGHT = 256
"""Deliveries in flight on a connection at most, batches counted by what they may hold."""
PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 60.0
PROBE_EVERY_S = 60.0

ConnectionState: TypeAlias = Literal["running", "paused", "open", "half_open", "stopped", "held"]


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """A connection as people see it: of one process, at one moment.

    ``until``: when it is asked again (epoch seconds), None when only an event or a person ends the state.
    ``in_flight``: deliveries asked and not answered. ``quota_used``: 0..1 of the rate of this process, or of the
    vendor's own quota; None when neither is known. ``waiting``: deliveries next in turn that may not leave yet."""

    name: str
    state: ConnectionState
    reason: str
    until: float | None
    in_flight: int
    quota_used: float | None
    waiting: int


class Seat:
    """One subscription's place at a connection. ``share`` is its part of the connection's quota, 0..1, over all
    processes; the worker sets it. Use on the connection's event loop."""

    __slots__ = ("_connection", "_wake", "share", "subscription", "waiting")

    def __init__(self, connection: Connection, subscription: str, wake: Callable[[], None]) -> None:
        self.subscription, self.share, self.waiting = subscription, 1.0, 0
        self._connection, self._wake = connection, wake

    def try_enter(self, *, background: bool = False, deliveries: int = 1) -> bool:
        """Take a place for one call of so many deliveries, if one may be made now; give it back with ``leave``. Never
        blocks. After False ``wake`` is called (once, on the loop) when it is worth asking again."""
        if self._connection._try_enter():
            return True
        self.waiting = deliveries
        self._connection._arm()
        return False

    def leave(self) -> None:
        """Give the place of one call back, whether the call was made or not."""
        self._connection.leave()

    async def call(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Ask the vendor, in a place taken with ``try_enter``. Always one outcome a delivery, in a bounded time, never
        an exception. The connection learns from the answers by itself (``worked``); what a person or a subscription
        decides because of them (``pause``, ``stop``) is the caller's."""
        outcomes = await self._connection.call(batch)
        if any(isinstance(one, Delivered | RetryLater | Rejected) or _is_entity(one) for one in outcomes):
            self._connection.worked(sum(isinstance(one, Delivered) for one in outcomes))
        return outcomes

    async def look_up(self, delivery: Delivery) -> LookedUp:
        """Ask the vendor whether it has the delivery, in a place taken with ``try_enter``. Bounded, never raises."""
        return await self._connection._look_up(delivery)

    def close(self) -> None:
        """Leave the connection; ``wake`` is not called again."""
        self.waiting = 0
        self._connection._seats.discard(self)


def _is_entity(outcome: Outcome) -> bool:
    return isinstance(outcome, Unavailable) and outcome.scope == "entity"


class Connection:
    """Lives on one event loop. ``observer`` is told when the state changes: (state, reason, seconds)."""

    def __init__(
        self,
        name: str,
        kind: ConnectorType,
        connector: Connector,
        *,
        observer: Callable[[ConnectionState, str, float], None],
        total: timedelta = timedelta(seconds=20),
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.kind = name, kind
        self.state: ConnectionState = "running"
        self.reason = ""
        self.calls_max = max(1, IN_FLIGHT // kind.batch_max)
        self.succeeded = 0
        """how many deliveries were Delivered so far; a lane compares it to see whether others succeed"""
        self._connector = connector
        self._observer = observer
        self._limit_s = total.total_seconds() + 5
        self._clock, self._chance = clock, chance
        self._in_flight = 0
        self._pause_until = 0.0
        self._failures = 0
        self._probing = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._seats: set[Seat] = set()
        self._held = ""

    def join(self, subscription: str, *, wake: Callable[[], None]) -> Seat:
        """A place for a subscription. ``wake`` is called on the loop when a refused ``try_enter`` is worth another."""
        seat = Seat(self, subscription, wake)
        self._seats.add(seat)
        return seat

    def hold(self, reason: str) -> None:
        """A person's pause: no call begins until ``release``."""
        self._held = reason
        self._change("held", reason, 0.0)

    def release(self) -> None:
        """End a person's pause; a connection that stopped or waits for the vendor asks again at once."""
        self._held = ""
        self._pause_until = 0.0
        self._change("paused" if self._failures else "running", "", 0.0)
        self._wake()

    def view(self) -> ConnectionView:
        """What people see of it now."""
        quiet = self._quiet_for()
        until = time.time() + quiet if quiet > 0 and not self._held else None
        waiting = sum(seat.waiting for seat in self._seats)
        return ConnectionView(self.name, self.state, self.reason, until, self._in_flight, None, waiting)

    async def _look_up(self, delivery: Delivery) -> LookedUp:
        connector: Any = self._connector
        try:
            async with asyncio.timeout(self._limit_s):
                found: LookedUp = await connector.look_up(delivery)
        except TimeoutError:
            return Unavailable("look_up_timeout")
        except Exception as error:  # noqa: BLE001 - its words may hold payload; its type is kept
            return Unavailable(f"look_up_raised_{type(error).__name__}")
        return found

    async def enter(self) -> None:
        """Wait until a call may be made and take a place for it; give it back with ``leave``."""
        while not self._try_enter():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            self._arm()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                else:
                    self._wake()  # it had been this one's turn: pass it on
                raise

    def _try_enter(self) -> bool:
        if self._held or self._in_flight >= self.calls_max or self._quiet_for() > 0:
            return False
        if self._failures:
            # After a pause one call goes first: the vendor that has just come back is not met by all at once.
            if self._probing:
                return False
            self._probing = True
        self._in_flight += 1
        return True

    def leave(self) -> None:
        """Give the place of one call back."""
        self._in_flight -= 1
        self._probing = False
        self._wake()

    def _quiet_for(self) -> float:
        asked = getattr(self._connector, "pause_until", 0.0)
        return max(self._pause_until, asked) - self._clock()

    def _wake(self) -> None:
        free = 1 if self._failures else self.calls_max - self._in_flight
        while self._waiting and free > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
        loop = asyncio.get_running_loop()
        for seat in self._seats:
            if seat.waiting:
                seat.waiting = 0
                loop.call_soon(seat._wake)

    def _arm(self) -> None:
        quiet = self._quiet_for()
        if quiet > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(quiet + 0.001, self._quiet_over)

    def _quiet_over(self) -> None:
        self._timer = None
        if self._quiet_for() > 0:
            self._arm()
        else:
            self._wake()

    async def call(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Ask the vendor; always one outcome a delivery, in a bounded time, never an exception.

        Whatever the connector raises or answers in the wrong length is Unknown for all: it may have happened. Only
        the exception's type is kept, its words may hold payload."""
        try:
            async with asyncio.timeout(self._limit_s):
                outcomes = await self._connector.deliver(batch)
        except TimeoutError:
            return [Unknown("connector_timeout")] * len(batch)
        except Exception as error:  # noqa: BLE001 - the settle table's row: any exception is Unknown
            return [Unknown(f"connector_raised_{type(error).__name__}")] * len(batch)
        if len(outcomes) != len(batch):
            return [Unknown("connector_wrong_length")] * len(batch)
        return outcomes

    def worked(self, delivered: int) -> None:
        """A call came back from a vendor that is there."""
        self.succeeded += delivered
        if self._failures:
            self._failures = 0
            self._pause_until = 0.0
            self._change("running", "", 0.0)
            self._wake()

    def pause(self, seconds: float | None, reason: str) -> None:
        """Keep away for so long; None: 1 s doubling to 60 s, with jitter, while nothing succeeds. A longer pause that
        is in force stays; of many calls that fail together one counts."""
        if self._failures and self._quiet_for() > 0 and seconds is None:
            return
        if seconds is None:
            seconds = min(PAUSE_MAX_S, PAUSE_FIRST_S * (1 << min(self._failures, 10))) * (0.5 + self._chance() / 2)
        self._failures += 1
        self._pause_until = max(self._pause_until, self._clock() + seconds)
        self._change("paused", reason, seconds)

    def stop(self, reason: str) -> None:
        """Only a person can mend it (credentials, permission): one call a minute sees whether somebody did."""
        self._failures += 1
        self._pause_until = max(self._pause_until, self._clock() + PROBE_EVERY_S)
        self._change("stopped", reason, PROBE_EVERY_S)

    def _change(self, state: ConnectionState, reason: str, seconds: float) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._observer(state, reason, seconds)

    async def close(self) -> None:
        """Close the connector; whoever waits in ``enter`` is woken by its own cancellation."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._connector.close()
