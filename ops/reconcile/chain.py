"""The ranges of a partition (``RangeSettled``), followed from one commit to the next. Pure.

Each range goes on where the one before it ended. What a killed worker had recorded and not committed begins within a
range that was recorded later, and does not count. After a rewind ranges lie over others that cannot be cut in two:
what only such a piece covers was read again, and its counts are not to be added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settled:
    """One range as the ledger has it: ``[start, end)`` and how many records in it ended how."""

    start: int
    end: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Link:
    """A stretch ``[start, end)``. counted: a whole range, with its counts · part: some range covers it, which reaches
    farther or was read again · gap: no range says anything of it."""

    kind: Literal["counted", "part", "gap"]
    start: int
    end: int
    counts: Mapping[str, int] = field(default_factory=dict)


def follow(ranges: Iterable[Settled], low: int, high: int) -> Iterator[Link]:
    """Links that lie end to end over ``[low, high)``. ``ranges`` are in the order of their beginnings, at most one
    for a beginning; those that end before ``low`` may be left out. ``high`` is where the group has committed, or
    less: what lies behind it was not committed."""
    at, covered = low, low
    """told up to here; and so far some range reaches that is not of the chain"""
    for one in ranges:
        if one.end <= max(low, one.start):
            continue
        if at >= high or one.start >= high:
            break
        if one.start > at and covered > at:
            yield Link("part", at, min(covered, one.start, high))
            at = min(covered, one.start, high)
        if one.start > at:
            yield Link("gap", at, one.start)
            at = one.start
        if one.start == at and one.end <= high:
            yield Link("counted", at, one.end, one.counts)
            at = one.end
        else:
            covered = max(covered, one.end)
    if at < high and covered > at:
        yield Link("part", at, min(covered, high))
        at = min(covered, high)
    if at < high:
        yield Link("gap", at, high)
