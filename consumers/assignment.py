"""What a member of a group owns now, and the guard over its commits. Pure.

The broker takes a commit for a partition of another member, a step back and an offset past the end (facts: clients on
a real broker); so every commit goes through ``admit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from consumers.offsets import Runs
from schemas.event import Record

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A partition this process now reads, from ``offset``; ``done`` are offsets beyond it that are finished already.
    ``epoch`` grows with every assignment: what carries an older one is dropped. ``open_letters`` are key and offset of
    every open dead letter of the partition, where the subscription parks keys. ``until``: records below it are what an
    attach has to catch up with (``consumers.control.Start``); ``fold``: they are folded first."""

    place: Place
    epoch: int
    offset: int
    done: Runs
    open_letters: Sequence[tuple[bytes | None, int]] = ()
    until: int | None = None
    fold: bool = False

    @property
    def folds(self) -> bool:
        """Whether there is something to be folded."""
        return self.fold and self.until is not None and self.offset < self.until


@dataclass(frozen=True, slots=True)
class Commit:
    place: Place
    epoch: int
    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class Handover:
    """Records in log order, and per partition the position behind them. ``epochs`` says whose records they are."""

    records: Sequence[Record]
    positions: Mapping[Place, int]
    epochs: Mapping[Place, int]


class Assignment:
    """The partitions of one member, each with its epoch, its last commit and how far its records were handed over.
    Not thread-safe."""

    def __init__(self) -> None:
        self._epoch = 0
        self._epochs: dict[Place, int] = {}
        self._committed: dict[Place, tuple[int, str]] = {}
        self._handed_to: dict[Place, int] = {}

    def __bool__(self) -> bool:
        return bool(self._epochs)

    def __contains__(self, place: object) -> bool:
        return place in self._epochs

    @property
    def places(self) -> list[Place]:
        return list(self._epochs)

    @property
    def epochs(self) -> Mapping[Place, int]:
        """A copy: who holds it sees the assignment of this moment."""
        return dict(self._epochs)

    @property
    def committed(self) -> Mapping[Place, tuple[int, str]]:
        """Offset and metadata of each partition's last commit, or where it began."""
        return self._committed

    def begin(self, place: Place, offset: int, metadata: str) -> int:
        """Take a partition on, read from ``offset``; its epoch."""
        self._epoch += 1
        self._epochs[place] = self._epoch
        self._committed[place] = (offset, metadata)
        self._handed_to.pop(place, None)
        return self._epoch

    def moved(self, place: Place, position: int) -> bool:
        """Records before ``position`` are handed over with it; False when nothing has moved (or it is none: negative
        before the first record, and after a seek)."""
        if position < 0 or place not in self._epochs or position == self._handed_to.get(place):
            return False
        self._handed_to[place] = position
        return True

    def reached(self, place: Place) -> int:
        """How far a partition was handed over, or where it began; -1 when it is not ours."""
        return self._handed_to.get(place, self._committed.get(place, (-1, ""))[0])

    def admit(self, commits: Sequence[Commit]) -> tuple[list[Commit], list[Commit]]:
        """Those that may be sent, which then count as committed, and those beyond what was handed over (a defect, to
        be told). Silently left out: a partition that is not ours in this epoch, and a step back."""
        admitted: list[Commit] = []
        beyond: list[Commit] = []
        for commit in commits:
            lowest = self._committed.get(commit.place, (0, ""))[0]
            if self._epochs.get(commit.place) != commit.epoch or commit.offset < lowest:
                continue
            if commit.offset > max(lowest, self._handed_to.get(commit.place, -1)):
                beyond.append(commit)
                continue
            self._committed[commit.place] = (commit.offset, commit.metadata)
            admitted.append(commit)
        return admitted, beyond

    def forget(self, places: Sequence[Place]) -> None:
        """These are not ours any more."""
        for place in places:
            self._epochs.pop(place, None)
            self._committed.pop(place, None)
            self._handed_to.pop(place, None)
