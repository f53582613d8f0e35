"""One time limit for many waits, by one timer: what ``asyncio.timeout`` does at a fifth of its cost.

Every call to a vendor is bounded twice (the request's total, the connector's whole answer), thousands of times a
second, and next to none expires. ``asyncio.timeout`` makes a timer for each and cancels it again (5 µs, 10 in a busy
process). Here all waits last equally long, so the one that began first is due first: a dictionary in the order of
entry, and one timer for the oldest in it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Bounds every ``with deadlines.bound():`` block to ``seconds``. For one event loop, inside tasks.

    As with ``asyncio.timeout``, the task of a block that lasts longer is cancelled in it and the block raises
    TimeoutError; a cancellation from elsewhere stays one. Never early; late only by what the loop itself is late."""

    __slots__ = ("_open", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[Bound, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def bound(self) -> Bound:
        """A block that may last so long; to be entered once, in a task."""
        return Bound(self)

    def entered(self, bound: Bound) -> None:
        loop = asyncio.get_running_loop()
        due = self._open[bound] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._due)

    def left(self, bound: Bound) -> None:
        del self._open[bound]

    def _due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._open:
            bound, due = next(iter(self._open.items()))
            if due > now:
                self._timer = loop.call_at(due, self._due)
                return
            del self._open[bound]
            bound.expire()


class Bound:
    """One block under a deadline."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline holds inside a task only")
        self._task, self._cancelling = task, task.cancelling()
        self._deadlines.entered(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._expired:
            self._deadlines.left(self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            # nobody else has cancelled it meanwhile
            raise TimeoutError from error

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()
