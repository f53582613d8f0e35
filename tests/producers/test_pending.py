"""The future of a publish is a real Future: whoever waits, however they wait, gets the outcome once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ALL_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait

import pytest

from producers.pending import Pending


def test_a_result_set_before_anybody_waits_is_there() -> None:
    pending: Pending[int] = Pending()
    assert not pending.done()
    pending.settle(7)
    assert pending.done()
    assert isinstance(pending, Future)
    assert (pending.result(), pending.result(0), pending.exception(0)) == (7, 7, None)


def test_a_failure_is_raised_by_result_and_answered_by_exception() -> None:
    pending: Pending[int] = Pending()
    pending.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        pending.result(0)
    assert isinstance(pending.exception(), KeyError)


def test_waiting_too_briefly_is_a_timeout_and_the_outcome_still_comes() -> None:
    pending: Pending[int] = Pending()
    with pytest.raises(TimeoutError):
        pending.result(0.01)
    with pytest.raises(TimeoutError):
        pending.exception(0)
    pending.settle(1)
    assert pending.result() == 1


def test_it_cannot_be_cancelled_because_what_was_handed_over_cannot_be_taken_back() -> None:
    pending: Pending[int] = Pending()
    assert pending.running()
    assert not pending.cancel()
    pending.settle(1)
    assert not pending.cancelled()


def test_callbacks_added_before_and_after_are_called_once() -> None:
    pending: Pending[int] = Pending()
    called: list[str] = []
    pending.add_done_callback(lambda _: called.append("before"))
    pending.settle(1)
    pending.add_done_callback(lambda _: called.append("after"))
    assert called == ["before", "after"]


def test_wait_and_as_completed_know_it() -> None:
    pending: list[Pending[int]] = [Pending() for _ in range(4)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, pending, 10, ALL_COMPLETED)
        for number, one in enumerate(pending):
            one.settle(number)
        assert waiting.result(10).done == set(pending)
    assert sorted(one.result() for one in as_completed(pending, 1)) == [0, 1, 2, 3]


async def test_asyncio_awaits_it_and_a_cancelled_wait_leaves_it_alone() -> None:
    pending: Pending[int] = Pending()
    waiting = asyncio.ensure_future(asyncio.wrap_future(pending))
    given_up = asyncio.ensure_future(asyncio.wrap_future(pending))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    await asyncio.to_thread(pending.settle, 5)
    assert await waiting == 5
    assert given_up.cancelled()
    assert pending.result(0) == 5


def test_nobody_misses_an_outcome_that_comes_while_they_begin_to_wait() -> None:
    for _ in range(300):
        pending: Pending[int] = Pending()
        barrier = threading.Barrier(3)
        answers: list[int] = []

        def look(pending: Pending[int] = pending, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            answers.append(pending.result(5))  # noqa: B023 - joined below, in the same round

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        barrier.wait()
        pending.settle(3)
        for thread in threads:
            thread.join()
        assert answers == [3, 3]


def test_it_knows_whether_anybody_asked() -> None:
    asked: Pending[int] = Pending()
    asked.add_done_callback(lambda _: None)
    assert asked.seen
    assert not Pending().seen
