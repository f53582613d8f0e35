from __future__ import annotations

import asyncio

import pytest

from connectors.deadlines import Deadlines

FOREVER_S = 30.0


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_block_that_lasts_too_long_ends_with_a_timeout() -> None:
    deadlines = Deadlines(0.02)
    with pytest.raises(TimeoutError), deadlines.bound():
        await forever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the cancellation of the deadline does not outlive its block"


async def test_a_block_that_ends_in_time_is_left_alone_though_others_expire() -> None:
    deadlines, in_time = Deadlines(0.05), asyncio.Event()

    async def quick() -> str:
        with deadlines.bound():
            await in_time.wait()
        await expired.wait()
        return "done"

    async def slow() -> None:
        with deadlines.bound():
            in_time.set()
            await forever()

    expired = asyncio.Event()
    first = asyncio.create_task(quick())
    with pytest.raises(TimeoutError):
        await slow()
    expired.set()
    assert await first == "done"


async def test_each_block_has_its_own_time_though_one_timer_serves_all() -> None:
    """The second block begins while the timer of the first is armed; it ends after its own time, not with the first."""
    deadlines, loop = Deadlines(0.1), asyncio.get_running_loop()

    async def wait() -> float:
        began = loop.time()
        with pytest.raises(TimeoutError), deadlines.bound():
            await forever()
        return loop.time() - began

    first = asyncio.create_task(wait())
    await asyncio.wait({first}, timeout=0.05)
    second = asyncio.create_task(wait())
    assert min(await asyncio.gather(first, second)) >= 0.1


async def test_blocks_begun_after_all_others_ended_are_bounded_too() -> None:
    deadlines = Deadlines(0.02)
    for _ in range(3):
        with deadlines.bound():
            pass
        with pytest.raises(TimeoutError), deadlines.bound():
            await forever()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    deadlines, begun = Deadlines(FOREVER_S), asyncio.Event()

    async def work() -> None:
        with deadlines.bound():
            begun.set()
            await forever()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_two_nested_blocks_the_shorter_one_expires() -> None:
    outer, inner = Deadlines(FOREVER_S), Deadlines(0.02)
    with outer.bound(), pytest.raises(TimeoutError), inner.bound():
        await forever()
    with pytest.raises(TimeoutError), inner.bound(), outer.bound():
        await forever()


async def test_an_error_of_the_block_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), Deadlines(FOREVER_S).bound():
        raise ZeroDivisionError
