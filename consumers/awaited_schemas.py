"""Schemas that are not in memory: fetched in a thread while the lanes that need them wait; other lanes go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from consumers.settlement import backoff
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.errors import BackboneError, NotFoundError

AWAY_MAX_S = 15.0
"""A registry that is back is noticed within this time: the lanes of new schemas wait for nothing else."""


class AwaitedSchemas:
    """Lives on one event loop. ``load`` blocks and is called in threads; ``release`` is called with the works that
    waited, once their schema is there or is known to be missing; ``spawn`` runs a coroutine as the runtime's own."""

    def __init__(
        self,
        *,
        load: Callable[[SchemaWanted], None],
        release: Callable[[Sequence[Work | None]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        limits: Limits,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._load, self._release, self._spawn = load, release, spawn
        self._limits, self._clock, self._chance = limits, clock, chance
        self._waiting: dict[object, list[Work | None]] = {}
        self._missing: set[object] = set()

    def is_missing(self, wanted: SchemaWanted) -> bool:
        """Whether the registry has said long enough that there is no such schema."""
        return wanted.key in self._missing

    def wait(self, work: Work | None, wanted: SchemaWanted) -> None:
        """Keep the work until the registry has answered. None: what is folded waits for it."""
        if wanted.key in self._waiting:
            self._waiting[wanted.key].append(work)
        else:
            self._waiting[wanted.key] = [work]
            self._spawn(self._fetch(wanted))

    async def _fetch(self, wanted: SchemaWanted) -> None:
        since, failures = self._clock(), 0
        while True:
            try:
                await asyncio.to_thread(self._load, wanted)
                break
            except NotFoundError:
                # It may be on its way (replication lag): the lane waits a while before the event is set aside.
                waited = self._clock() - since
                if waited >= self._limits.schema_wait_s:
                    self._missing.add(wanted.key)
                    asyncio.get_running_loop().call_later(self._limits.schema_wait_s, self._missing.discard, wanted.key)
                    break
                delay = min(self._limits.schema_retry_s, self._limits.schema_wait_s - waited)
            except BackboneError:
                # The registry's failure is never the event's: its time does not count.
                since = self._clock()
                delay = min(AWAY_MAX_S, backoff(failures, self._chance))
                failures += 1
            await asyncio.sleep(delay)
        self._release(self._waiting.pop(wanted.key))
