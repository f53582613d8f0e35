"""What holds a subscription's keys, as its heartbeat names it: by where their records stand, never by what they say."""

from __future__ import annotations

from collections.abc import Iterable

from consumers.heartbeat import HELD_MAX, Held
from consumers.lanes import Lane
from consumers.parking import ParkedKeys
from consumers.work import Work


def held_lanes(lanes: Iterable[Lane[Work]], *, now: float, wall: float) -> list[Held]:
    """The lanes whose head waits for its time, its schema or its dead letter, the longest first. Looks at every lane.
    ``now`` is the lanes' clock, ``wall`` seconds since the epoch."""
    held: list[Held] = []
    for lane in lanes:
        head = lane.queue[0]
        work = next((one for one in lane.queue if head in one.merged), head)
        if work.held_since is None or not (lane.due or head.held_why in ("schema", "letter")):
            continue
        due = wall + lane.due - now if lane.due else None
        held.append(
            Held(
                origin=str(head.record.origin), why=work.held_why, since=work.held_since,
                waiting=len(lane.queue) - 1, reason=work.reason, due=due,
            )
        )  # fmt: skip
    return sorted(held, key=lambda one: one.since)


def parked_keys(parked: ParkedKeys) -> tuple[Held, ...]:
    """The keys behind open dead letters, the oldest first; since when is told by the letter itself."""
    return tuple(
        Held(origin=f"{place[0]}/{place[1]}/{offset}", why="parked", since=0.0, waiting=count - 1)
        for place, offset, count in parked.oldest(HELD_MAX)
    )
