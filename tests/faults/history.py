"""What was written down while faults were made: one JSON line a fact, flushed, stamped with both clocks.

``at`` is CLOCK_MONOTONIC in nanoseconds, which is one clock for all processes of a Linux machine; ``wall`` is
milliseconds since the epoch, which a broker's LogAppendTime can be compared with.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Journal:
    """Appends facts to one file, a line each, flushed at once: a reader, or a kill, finds whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, kind: str, **facts: Any) -> None:
        stamp = {"at": time.monotonic_ns(), "wall": time.time_ns() // 1_000_000, "kind": kind}
        self._file.write(json.dumps(stamp | facts) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def facts(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a journal; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of a source topic as the log holds it. ``event`` is its id; ``readable`` is false for what nobody can
    decode."""

    place: Place
    event: str
    key: str
    readable: bool = True
    raw: tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]] = (None, None, ())
    """key, value and headers, byte for byte"""


@dataclass(frozen=True, slots=True)
class Applied:
    """The vendor did what it was asked (whatever it answered)."""

    at: int
    event: str
    entity: str
    trace: str
    """the idempotency key that came with it"""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that reached the vendor. ``asked`` are (event, idempotency key) of each delivery in it; ``behaviour``
    what the vendor was ordered to do wrong with it, if anything."""

    at: int
    asked: tuple[tuple[str, str], ...] = ()
    behaviour: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A committed offset as the cluster answered it; stamped after the answer, so what it covers was done before."""

    at: int
    wall: int
    partition: tuple[str, int]
    offset: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One incarnation of a dead letter, as it stands in the dead topic; ``wall`` is when the broker took it."""

    wall: int
    origin: Place
    outcome: str
    raw: tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
    omitted: bool = False
    """too large for the dead topic: a pointer without its value"""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known of one group, by processes that were never faulted."""

    acked: Mapping[str, Place] = field(default_factory=dict)
    """the publisher's ledger: event to place"""
    planned: int = 0
    stored: Sequence[Stored] = ()
    """the source topics, read at the end, in the order of each partition"""
    filtered: frozenset[str] = frozenset()
    """events that no route of this subscription is for"""
    keys: Mapping[str, str] = field(default_factory=dict)
    """the idempotency key that every attempt of an event must carry"""
    applied: Sequence[Applied] = ()
    calls: Sequence[Call] = ()
    samples: Sequence[Sample] = ()
    letters: Sequence[Letter] = ()
    closed: frozenset[Place] = frozenset()
    """origins of dead letters that were closed: redriven and delivered"""
    receipts: Mapping[Place, int] = field(default_factory=dict)
    """when the broker took the first receipt of each record, in milliseconds since the epoch"""
    final: Mapping[str, str] = field(default_factory=dict)
    """entity to the event whose state the vendor holds in the end"""

    def dead(self, *outcomes: str) -> set[str]:
        """Events with an open dead letter (of these outcomes; of any without)."""
        origins = {letter.origin for letter in self.letters if not outcomes or letter.outcome in outcomes}
        return {one.event for one in self.stored if one.place in origins - self.closed}


def spans(moments: Iterable[int]) -> list[int]:
    """The gaps between moments, in nanoseconds."""
    ordered = sorted(moments)
    return [later - earlier for earlier, later in itertools.pairwise(ordered)]
