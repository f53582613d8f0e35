"""Lanes that wait for a schema."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from consumers.awaited_schemas import AwaitedSchemas
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.errors import NotFoundError, UnreachableError
from tests.consumers.test_batches import work
from tests.waiting import eventually_async

WANTED = SchemaWanted(7)


class Room:
    """The runtime's part: what was released, the tasks that run."""

    def __init__(self, load: Callable[[SchemaWanted], None], limits: Limits) -> None:
        self.released: list[Work] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.schemas = AwaitedSchemas(
            load=load,
            release=self._release,
            spawn=lambda coroutine: self._tasks.append(asyncio.get_running_loop().create_task(coroutine)),
            limits=limits,
            clock=asyncio.get_running_loop().time,
            chance=lambda: 0.001,
        )

    def _release(self, works: Sequence[Work]) -> None:
        self.released += works


async def test_all_that_wait_for_a_schema_are_released_by_one_look_up() -> None:
    asked: list[SchemaWanted] = []
    room = Room(asked.append, Limits())
    works = [work("a", str(number)) for number in range(3)]
    for one in works:
        room.schemas.wait(one, WANTED)
    await eventually_async(lambda: room.released == works)
    assert asked == [WANTED]
    assert not room.schemas.is_missing(WANTED)


async def test_a_schema_that_appears_in_time_is_no_missing_one() -> None:
    answers = [NotFoundError("none"), NotFoundError("none"), None]

    def load(_: SchemaWanted) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    room = Room(load, Limits(schema_wait_s=30.0, schema_retry_s=0.01))
    room.schemas.wait(work("a", "x"), WANTED)
    await eventually_async(lambda: room.released)
    assert not room.schemas.is_missing(WANTED)


async def test_a_schema_that_never_appears_is_missing_after_its_time() -> None:
    def load(_: SchemaWanted) -> None:
        raise NotFoundError("none")

    room = Room(load, Limits(schema_wait_s=0.05, schema_retry_s=0.01))
    room.schemas.wait(work("a", "x"), WANTED)
    await eventually_async(lambda: room.released)
    assert room.schemas.is_missing(WANTED)


async def test_the_time_of_a_registry_that_is_away_does_not_count() -> None:
    answers: list[Exception | None] = [UnreachableError("away")] * 8 + [NotFoundError("none"), None]

    def load(_: SchemaWanted) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    room = Room(load, Limits(schema_wait_s=0.2, schema_retry_s=0.01))
    room.schemas.wait(work("a", "x"), WANTED)
    await eventually_async(lambda: room.released)
    assert not room.schemas.is_missing(WANTED)
