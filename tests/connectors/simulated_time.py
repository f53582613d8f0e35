"""An event loop whose clock jumps to the next timer instead of waiting for it: hours pass in milliseconds, and the same
code runs in the same order every time. For code that waits for nothing but timers (no sockets, no threads)."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Answers at once and says how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing will ever happen again: everybody waits for somebody else")
        if timeout > 0:
            self.now += timeout
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def simulate(story: Coroutine[Any, Any, T]) -> T:
    """Run a story to its end on a loop of its own. AssertionError when it hangs."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(story)


def now() -> float:
    return asyncio.get_running_loop().time()
