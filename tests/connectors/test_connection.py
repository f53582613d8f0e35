"""A connection shared by subscriptions: its bound, its pauses, and one call first after them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from connectors.connection import IN_FLIGHT, Connection
from connectors.connector import ConnectorType, Delivered, Delivery, Idempotency, Outcome, Unknown
from schemas.event import Origin
from tests.waiting import eventually_async


class Scripted:
    """A connector that answers as it is told."""

    def __init__(self) -> None:
        self.answer: Sequence[Outcome] | Exception = [Delivered()]

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        return None


def connect(batch_max: int = 1) -> tuple[Connection, Scripted, list[tuple[str, str]]]:
    kind = ConnectorType(
        name="scripted", doc="", idempotency=Idempotency("upsert"), on_unknown="resend", batch_max=batch_max,
        actions={}, settings=object, open=lambda _: Scripted(), fake=None,  # type: ignore[arg-type]
        fake_settings=lambda url, folder: {"url": url, "folder": str(Path(folder))},
    )  # fmt: skip
    scripted, told = Scripted(), []
    connection = Connection(
        "c", kind, scripted, observer=lambda state, reason, _: told.append((state, reason)), chance=lambda: 0.0
    )
    return connection, scripted, told


DELIVERY = Delivery(action="a", entity="e", idempotency_key="0" * 64, sequence=Origin("t", 0, 0), body={})


async def test_what_is_in_flight_is_bounded_by_what_batches_may_hold() -> None:
    assert connect(1)[0].calls_max == IN_FLIGHT
    connection = connect(100)[0]
    for _ in range(connection.calls_max):
        await connection.enter()
    waiting = asyncio.ensure_future(connection.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    connection.leave()
    await asyncio.wait_for(waiting, 5)


async def test_an_exception_in_a_connector_is_unknown_and_its_words_are_not_kept() -> None:
    connection, scripted, _ = connect()
    scripted.answer = ValueError("ana@example.org")
    assert await connection.call([DELIVERY]) == [Unknown("connector_raised_ValueError")]


async def test_an_answer_of_the_wrong_length_is_unknown_for_all() -> None:
    connection, scripted, _ = connect()
    scripted.answer = [Delivered()]
    assert await connection.call([DELIVERY, DELIVERY]) == [Unknown("connector_wrong_length")] * 2


async def test_after_a_pause_one_call_goes_first_and_all_follow_when_it_succeeds() -> None:
    connection, _, told = connect()
    connection.pause(0.05, "rate_limited")
    entered: list[int] = []

    async def call(number: int) -> None:
        await connection.enter()
        entered.append(number)

    calls = [asyncio.ensure_future(call(number)) for number in range(5)]
    await eventually_async(lambda: entered)
    await asyncio.sleep(0.02)
    assert len(entered) == 1
    connection.worked(1)
    connection.leave()
    await asyncio.wait_for(asyncio.gather(*calls), 5)
    assert told == [("paused", "rate_limited"), ("running", "")]


async def test_many_calls_that_fail_together_make_one_pause() -> None:
    connection, _, told = connect()
    for _ in range(50):
        connection.pause(None, "unavailable")
    assert told == [("paused", "unavailable")]
    assert connection._failures == 1


async def test_a_longer_pause_that_is_in_force_stays() -> None:
    connection, _, _ = connect()
    connection.pause(60.0, "rate_limited")
    connection.pause(0.01, "rate_limited")
    waiting = asyncio.ensure_future(connection.enter())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()


async def test_a_caller_that_gives_up_passes_its_turn_on() -> None:
    """A waiter that was woken and cancelled in the same moment used to take its turn with it."""
    connection, _, _ = connect(IN_FLIGHT)
    await connection.enter()
    first, second = asyncio.ensure_future(connection.enter()), asyncio.ensure_future(connection.enter())
    await asyncio.sleep(0)
    connection.leave()
    first.cancel()
    await asyncio.wait_for(second, 5)


async def test_credentials_that_fail_stop_it() -> None:
    connection, _, told = connect()
    connection.stop("unauthorized")
    assert connection.state == "stopped"
    assert told == [("stopped", "unauthorized")]
