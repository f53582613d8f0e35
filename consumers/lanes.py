"""Lanes: one ordered queue per key; only its head is ever worked on. Pure: no clock of its own, no I/O.

A lane is made when a record of its key arrives and dropped when it is empty, so memory follows the keys in flight,
not the key space; never ``hash % n``, so a stuck key holds nobody else. Live records and those of the inbox
(background) of one key share its lane; a lane is served as live while anything live waits in it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

LaneKey: TypeAlias = tuple[str, int, bytes | int]
"""Origin topic, partition number, key bytes; a record without a key has its offset, so a lane of its own."""


class Waiting(Protocol):
    """What a lane holds, and knows its lane by."""

    background: bool
    lane: Lane[Any]


W = TypeVar("W", bound=Waiting)


class Lane(Generic[W]):
    """The queue of one key. ``busy``: its head is being worked on; ``due``: it is held until then (0: it is not);
    ``live``: how many of the queue are not background."""

    __slots__ = ("busy", "due", "key", "live", "queue")

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.queue: deque[W] = deque()
        self.busy = False
        self.due = 0.0
        self.live = 0


class Lanes(Generic[W]):
    """All lanes of one subscription in this process. Not thread-safe."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane[W]] = {}
        self._ready: deque[Lane[W]] = deque()
        self._ready_background: deque[Lane[W]] = deque()
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
            lane = work.lane = self._lanes[key] = Lane(key)
            lane.queue.append(work)
            lane.live = 0 if work.background else 1
            (self._ready_background if work.background else self._ready).append(lane)
            return lane
        work.lane = lane
        lane.queue.append(work)
        if not work.background:
            lane.live += 1
            if lane.live == 1 and not lane.busy and not lane.due:
                self._ready.append(lane)  # it was background only; its place there is skipped by ``take``
        return lane

    def ready(self, *, background: bool) -> bool:
        """Whether there may be a lane to take. True may turn out to be wrong, False never."""
        return bool(self._ready_background if background else self._ready)

    def take(self, *, background: bool = False) -> Lane[W] | None:
        """The next lane of that class whose head may be worked on, now busy; None when there is none."""
        ready = self._ready_background if background else self._ready
        while ready:
            lane = ready.popleft()
            if self._lanes.get(lane.key) is not lane or lane.busy or lane.due or not lane.queue:
                continue
            if background == (lane.live > 0):
                continue  # it changed its class, and stands in the other queue since
            lane.busy = True
            return lane
        return None

    def finish(self, lane: Lane[W], count: int = 1) -> None:
        """The first ``count`` of a busy lane are over: the next one may be worked on, or the lane is dropped."""
        if self._lanes.get(lane.key) is not lane:
            return
        for _ in range(count):
            if not lane.queue.popleft().background:
                lane.live -= 1
        lane.busy = False
        if lane.queue:
            self._put(lane)
        else:
            del self._lanes[lane.key]

    def _put(self, lane: Lane[W]) -> None:
        (self._ready if lane.live else self._ready_background).append(lane)

    def release(self, lane: Lane[W], *, first: bool = True) -> None:
        """The head of a busy lane is to be worked on again, before other lanes or behind them."""
        if self._lanes.get(lane.key) is lane:
            lane.busy = False
            ready = self._ready if lane.live else self._ready_background
            if first:
                ready.appendleft(lane)
            else:
                ready.append(lane)

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
                self._put(lane)

    def next_due(self) -> float | None:
        """When the first held lane's time comes."""
        return self._held[0][0] if self._held else None

    def drop(self, gone: Callable[[W], bool]) -> list[W]:
        """Forget every work that is ``gone``, those being worked on included. What is left of a lane is a new lane:
        what still comes of the old one's head is not its business any more."""
        dropped: list[W] = []
        for key, lane in list(self._lanes.items()):
            out = [work for work in lane.queue if gone(work)]
            if not out:
                continue
            dropped += out
            if lane.due:
                self.held -= 1
            del self._lanes[key]
            left = [work for work in lane.queue if not gone(work)]
            if left:
                fresh = self._lanes[key] = Lane(key)
                fresh.queue.extend(left)
                fresh.live = sum(not work.background for work in left)
                for work in left:
                    work.lane = fresh
                same_head = left[0] is lane.queue[0]
                fresh.busy = same_head and bool(lane.busy or lane.due)
                if same_head and lane.due:
                    self.hold(fresh, lane.due)
                elif not fresh.busy:
                    self._put(fresh)
        return dropped

    def longest(self, topic: str, partition: int) -> int:
        """How many works the longest lane of a partition holds; looks at every lane."""
        return max((len(lane.queue) for key, lane in self._lanes.items() if key[:2] == (topic, partition)), default=0)
