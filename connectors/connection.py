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
from datetime import timedelta
from typing import Literal, TypeAlias

from connectors.connector import Connector, ConnectorType, Delivery, Outcome, Unknown

IN_FLIGHT = 256
"""Deliveries in flight on a connection at most, batches counted by what they may hold."""
PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 60.0
PROBE_EVERY_S = 60.0

ConnectionState: TypeAlias = Literal["running", "paused", "stopped"]


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
        if self._in_flight >= self.calls_max or self._quiet_for() > 0:
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
