"""Waiting for a condition with a deadline: the only way a test waits for anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], deadline_s: float = 15.0, *, poll_s: float = 0.02, about: str = "") -> T:
    """The first true answer of ``condition``; fails the test when there is none within ``deadline_s``.

    An AssertionError inside the condition counts as "not yet" and is shown when time is up; others pass through.
    """
    until = time.monotonic() + deadline_s
    while True:
        answer, why = _ask(condition)
        if answer:
            return answer
        if time.monotonic() >= until:
            raise AssertionError(_late(deadline_s, about, answer, why))
        time.sleep(poll_s)


async def eventually_async(
    condition: Callable[[], T | Awaitable[T]], deadline_s: float = 15.0, *, poll_s: float = 0.02, about: str = ""
) -> T:
    """The same on an event loop: ``condition`` is a plain or a coroutine function; other tasks run in between."""
    until = time.monotonic() + deadline_s
    while True:
        answer, why = None, None
        try:
            asked = condition()
            answer = await asked if isinstance(asked, Awaitable) else asked
        except AssertionError as error:
            why = error
        if answer:
            return answer
        if time.monotonic() >= until:
            raise AssertionError(_late(deadline_s, about, answer, why))
        await asyncio.sleep(poll_s)


def _ask(condition: Callable[[], T]) -> tuple[T | None, AssertionError | None]:
    try:
        return condition(), None
    except AssertionError as error:
        return None, error


def _late(deadline_s: float, about: str, answer: object, why: AssertionError | None) -> str:
    return f"not within {deadline_s:g} s: {about or 'the condition'} (last answer: {why or answer!r})"
