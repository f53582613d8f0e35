"""The future of one publish: a real ``concurrent.futures.Future`` that costs little until somebody waits on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# One for all futures: held for a few attribute reads only, never while anything else is taken or called.
_making = threading.Lock()


class Pending(Future[T], Generic[T]):
    """A Future whose condition (a lock and a queue) and lists are made when it is first waited on: they are most of its
    cost, its memory and its work for the garbage collector.

    It starts as running, so ``cancel()`` answers False: what was handed to Kafka cannot be taken back. Everything else
    behaves as documented for Future, ``asyncio.wrap_future`` and ``concurrent.futures.wait`` included.

    ``seen`` says whether anybody has asked for the outcome; who closes a publisher is told of failures nobody saw.
    """

    seen = False
    _made: threading.Condition | None

    def __init__(self) -> None:
        # Future.__init__ is left out on purpose: it makes the condition and the lists. Every method of Future takes
        # the condition before it looks at a list.
        self._made = None
        self._state = "RUNNING"
        self._result = None
        self._exception = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        made = self._made
        if made is None:
            with _making:
                made = self._made
                if made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Callable[[Future[T]], object]] = []
                    made = self._made = threading.Condition()
        return made

    def settle(self, result: T) -> None:
        """``set_result``, cheaper where nobody waits."""
        # Who waits or adds a callback makes the condition first. So if there is none while we hold _making, nobody
        # has: whoever comes next makes it after us and finds the state finished.
        with _making:
            if self._made is None:
                self._result = result
                self._state = "FINISHED"
                return
        self.set_result(result)

    def result(self, timeout: float | None = None) -> T:
        """The outcome, waiting at most ``timeout`` seconds; TimeoutError says nothing about the outcome."""
        self.seen = True
        if self._state == "FINISHED" and self._exception is None:
            return self._result  # type: ignore[return-value]
        return super().result(timeout)

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._state == "FINISHED"

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The failure, or None, waiting at most ``timeout`` seconds."""
        self.seen = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """``fn(future)`` when it is settled (in the thread that polls Kafka's reports: be quick), or now."""
        self.seen = True
        super().add_done_callback(fn)
