"""Lanes: one ordered queue per key; only its head is ever worked on. Pure: no clock of its own, no I/O.

A lane is made when a record of its key arrives and dropped when it is empty, so memory follows the keys in flight,
not the key space; never ``hash % n``, so a stuck key holds nobody else.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar

LaneKey: TypeAlias = tuple[str, int, bytes | int]
"""Origin topic, origin partition, key bytes; a record without a key has its offset, so a lane of its own."""


W = TypeVar("W")


class Lane(Generic[W]):
    """The queue of one key. ``busy``: its head is being worked on; ``due``: it is held until then (0: it is not)."""

    __slots__ = ("busy", "due", "key", "queue")

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.queue: deque[W] = deque()
        self.busy = False
        self.due = 0.0


class Lanes(Generic[W]):
    """All lanes of one subscription in this process. Not thread-safe."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane[W]] = {}
        self._ready: deque[Lane[W]] = deque()
        self._held: list[tuple[float, int, Lane[W]]] = []
        self._ticket = 0
        self.held = 0

    def __len__(self) -> int:
        return len(self._lanes)

    def all(self) -> Iterable[Lane[W]]:
        """Every lane, in no order."""
        return self._lanes.values()

    def add(self, key: LaneKey, work: W) -> Lane[W]:
        """Put work at the end of its lane."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            self._ready.append(lane)
        lane.queue.append(work)
        return lane

    def take(self) -> Lane[W] | None:
        """The next lane whose head may be worked on, now busy; None when there is none."""
        while self._ready:
            lane = self._ready.popleft()
            if self._lanes.get(lane.key) is lane and not lane.busy and not lane.due and lane.queue:
                lane.busy = True
                return lane
        return None

    def finish(self, lane: Lane[W]) -> None:
        """The head of a busy lane is over: the next one may be worked on, or the lane is dropped."""
        if self._lanes.get(lane.key) is not lane:
            return
        lane.queue.popleft()
        lane.busy = False
        if lane.queue:
            self._ready.append(lane)
        else:
            del self._lanes[lane.key]

    def release(self, lane: Lane[W]) -> None:
        """The head of a busy lane is to be worked on again, before others."""
        if self._lanes.get(lane.key) is lane:
            lane.busy = False
            self._ready.appendleft(lane)

    def hold(self, lane: Lane[W], until: float) -> None:
        """The head of a busy lane waits until then; the lane holds no slot meanwhile."""
        if self._lanes.get(lane.key) is not lane:
            return
        lane.busy = False
        lane.due = max(until, 1e-9)
        self.held += 1
        self._ticket += 1
        heapq.heappush(self._held, (lane.due, self._ticket, lane))

    def due(self, now: float) -> None:
        """Make the lanes ready whose time has come."""
        while self._held and self._held[0][0] <= now:
            _, _, lane = heapq.heappop(self._held)
            if self._lanes.get(lane.key) is lane and lane.due:
                lane.due = 0.0
                self.held -= 1
                self._ready.append(lane)

    def next_due(self) -> float | None:
        """When the first held lane's time comes."""
        return self._held[0][0] if self._held else None

    def drop(self, topic: str, partition: int) -> list[W]:
        """Forget every lane of a partition; the works that were in them, those being worked on included."""
        gone: list[W] = []
        for key in [key for key in self._lanes if key[0] == topic and key[1] == partition]:
            lane = self._lanes.pop(key)
            gone += lane.queue
            if lane.due:
                self.held -= 1
        return gone

    def longest(self, topic: str, partition: int) -> int:
        """How many works the longest lane of a partition holds; looks at every lane."""
        return max((len(lane.queue) for key, lane in self._lanes.items() if key[:2] == (topic, partition)), default=0)
