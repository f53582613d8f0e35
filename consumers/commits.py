"""What is committed of the partitions owned here: recorded as a range first, then exactly that. Pure.

An offset is committed when everything before it has its end and its receipt is acked; a RangeSettled that says how the
records in between ended is acked before the commit; and a partition that is left is answered for when nothing of it is
open any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from consumers.assignment import Commit, Place
from consumers.offsets import METADATA_BYTES_MAX
from consumers.receipts import RangeSettled
from consumers.work import Partition

Answer = Callable[[Sequence[Commit]], None]


class Effects(Protocol):
    """The part of ``consumers.flow.Effects`` that is asked for here."""

    def write_range(self, settled_range: RangeSettled, settled: Callable[[str | None], None]) -> None: ...
    def commit(self, commits: Sequence[Commit]) -> None: ...
    def pause_partition(self, place: Place, paused: bool) -> None: ...


class Drain:
    """Partitions that are being left, and who waits for what may be committed of them."""

    __slots__ = ("answer", "leaving")

    def __init__(self, leaving: list[Partition], answer: Answer) -> None:
        self.leaving, self.answer = leaving, answer


class Commits:
    """The commits of ``partitions`` (the flow's own, read here). ``ranges``: whether they are recorded. ``left`` is
    called with partitions for which nothing counts any more, before they are answered for; ``failed`` with Kafka's
    name of why a range cannot be written. Not thread-safe."""

    def __init__(
        self,
        partitions: Mapping[Place, Partition],
        effects: Effects,
        *,
        ranges: bool,
        left: Callable[[Sequence[Partition]], None],
        failed: Callable[[str], None],
    ) -> None:
        self._partitions, self._effects, self._ranges = partitions, effects, ranges
        self._left, self._failed = left, failed
        self._drains: list[Drain] = []

    def drain(self, leaving: list[Partition], answer: Answer) -> Drain:
        """``answer`` what may be committed of them as soon as nothing of them is open; they admit nothing new."""
        drain = Drain(leaving, answer)
        self._drains.append(drain)
        self.look()
        return drain

    def end(self, drain: Drain) -> None:
        """It took too long: answer what may be committed as it is. After the answer nothing happens."""
        if drain in self._drains:
            self._answer(drain)

    def look(self) -> None:
        """Something may have been the last that was open of a partition that is being left."""
        for drain in list(self._drains):
            ours = [partition for partition in drain.leaving if partition.live]
            if any(partition.open or partition.ranging for partition in ours):
                continue
            # Everything is acked: the ranges are the last thing to be written before the commit.
            if unrecorded := [partition for partition in ours if self._needs_range(partition)]:
                for partition in unrecorded:
                    self._write_range(partition)
            elif drain in self._drains:
                self._answer(drain)

    def _answer(self, drain: Drain) -> None:
        self._drains.remove(drain)
        commits = [
            Commit(one.place, one.epoch, one.tracker.committable(), one.tracker.metadata())
            for one in drain.leaving
            if one.live and not one.unrecorded and not self._needs_range(one)
        ]
        self._left(drain.leaving)
        drain.answer(commits)

    def due(self) -> None:
        """Commit what is due: at once where nothing is to be recorded, else when its range is acked."""
        due: list[Commit] = []
        for partition in list(self._partitions.values()):
            if partition.ranging or not partition.dirty or not partition.live:
                continue
            if self._needs_range(partition):
                self._write_range(partition)
            elif (commit := self._take(partition)) is not None:
                due.append(commit)
        if due:
            self._effects.commit(due)

    def refused(self) -> None:
        """The same offsets are not sent again (they may be another member's by now): what is due now for the partitions
        that are still ours is, so that a quiet topic's lag ends when the broker is back."""
        for partition in self._partitions.values():
            partition.not_committed()

    def _needs_range(self, partition: Partition) -> bool:
        return self._ranges and not partition.unrecorded and partition.tracker.committable() > partition.ranged

    def _write_range(self, partition: Partition) -> None:
        """Record what becomes of the records up to here; when that is acked, commit exactly this."""
        start, end = partition.ranged, partition.tracker.committable()
        commit = self._take(partition)
        partition.ranging = True

        def settled(error: str | None) -> None:
            partition.ranging = False
            if error is None:
                partition.ranged = end
                if partition.live and commit is not None:
                    self._effects.commit([commit])
            else:
                partition.unrecorded = True
                partition.not_committed()
                if partition.live:
                    self._failed(error)
            self.look()

        counts = partition.tracker.take_counts()
        self._effects.write_range(RangeSettled(place=partition.place, start=start, end=end, counts=counts), settled)

    def _take(self, partition: Partition) -> Commit | None:
        due = partition.take_due()
        if due is None:
            return None
        if len(due[1]) > METADATA_BYTES_MAX * 0.9 and not partition.paused:
            # its map of what is finished beyond the prefix is nearly full: what is before must end first
            partition.paused = True
            self._effects.pause_partition(partition.place, True)
        return Commit(partition.place, partition.epoch, *due)
