"""Known mistakes, each switched into our code, which the simulation must catch: a check that cannot fail is a defect.

The first seven are the table of proof.md, section 2 (mistakes that real systems shipped), then those of the issue that
asked for this simulation, then one for each rule of the flow that had none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from connectors.connector import Delivered, Rejected, RetryLater, Unavailable, Unknown
from consumers import control, deadletter, folding, merging, settlement
from consumers import flow as flows
from consumers import work as works
from consumers.assignment import Assignment, Commit
from consumers.control import Begin
from consumers.flow import Flow
from consumers.lanes import Lanes
from consumers.offsets import Tracker
from consumers.parking import ParkedKeys
from consumers.spill import End, thing_of
from tests.simulation import process as processes
from tests.simulation.process import Process

Switch = Callable[[], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """``caught`` are the invariants, one of which must name it; ``switch`` makes the context in which it is in."""

    caught: tuple[str, ...]
    switch: Switch


MUTANTS: dict[str, Mutant] = {}


def mutant(name: str, *caught: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    def add(switch: Callable[[], Iterator[None]]) -> None:
        MUTANTS[name] = Mutant(caught, contextmanager(switch))

    return add


# ---- the table of proof.md


@mutant("the highest offset seen is committed", "I4")
def _highest_seen() -> Iterator[None]:
    def committable(self: Tracker) -> int:
        entries = self._entries
        while entries and entries[0].ended is not None:
            entries.popleft()
        self._committable = max(self._committable, entries[-1].offset + 1 if entries else self._position)
        return self._committable

    with patch.object(Tracker, "committable", committable):
        yield


@mutant("the polled position is committed", "I4")
def _polled_position() -> Iterator[None]:
    def committable(self: Tracker) -> int:
        return self._position

    with patch.object(Tracker, "committable", committable):
        yield


@mutant("commits for partitions that are not owned any more are sent", "I5")
def _not_owned() -> Iterator[None]:
    def admit(self: Assignment, commits: Sequence[Commit]) -> tuple[list[Commit], list[Commit]]:
        return list(commits), []

    with patch.object(Assignment, "admit", admit):
        yield


@mutant("dead letters are fire-and-forget", "I3", "I4", "I13")
def _fire_and_forget() -> Iterator[None]:
    write_letter = Process.write_letter

    def forget(self: Process, letter: Any, settled: flows.Settled) -> None:
        write_letter(self, letter, _ignored)
        self.to_loop.append(lambda: settled(None))

    with patch.object(Process, "write_letter", forget):
        yield


@mutant("lanes are kept over a revoke", "I10")
def _lanes_kept() -> Iterator[None]:
    def close(self: Flow, partitions: Sequence[Any]) -> None:
        for partition in partitions:
            partition.admitting = False

    with patch.object(Flow, "_close_admission", close):
        yield


@mutant("a tracker is used again after a partition came back", "I4", "I5", "I10", "I13", "I15")
def _tracker_kept() -> Iterator[None]:
    assigned = Flow.assigned
    kept: dict[tuple[int, Any], Tracker] = {}

    def again(self: Flow, partitions: Sequence[Any]) -> None:
        assigned(self, partitions)
        for one in partitions:
            partition = self._partitions[one.place]
            partition.tracker = kept.setdefault((id(self), one.place), partition.tracker)

    with patch.object(Flow, "assigned", again):
        yield


@mutant("a retried delivery goes behind the others of its key", "I3")
def _no_order() -> Iterator[None]:
    hold = Lanes.hold

    def behind(self: Lanes[Any], lane: Any, until: float) -> None:
        hold(self, lane, until)
        lane.queue.rotate(-1)

    with patch.object(Lanes, "hold", behind):
        yield


# ---- those of the issue


@mutant("the commit guard is off and an old commit is run late", "I5")
def _guard_off() -> Iterator[None]:
    def admit(self: Assignment, commits: Sequence[Commit]) -> tuple[list[Commit], list[Commit]]:
        return [commit for commit in commits if commit.place in self], []

    with patch.object(Assignment, "admit", admit):
        yield


@mutant("the position is read when the commit is made", "I4")
def _position_late() -> Iterator[None]:
    commit_due = Flow.commit_due

    def late(self: Flow) -> None:
        for place, partition in self._partitions.items():
            partition.tracker.read_to(self._effects.positions.get(place, -1))  # type: ignore[attr-defined]
            partition.dirty = True
        commit_due(self)

    with patch.object(Flow, "commit_due", late):
        yield


@mutant("merged events are finished before their carrier", "I13")
def _merged_early() -> Iterator[None]:
    merged = Flow._merged

    def early(self: Flow, lane: Any) -> Any:
        carrier = merged(self, lane)
        older, carrier.merged = carrier.merged, []
        for one in older:
            lane.queue.popleft()
            lane.live -= 1
            self._open_one(one)
            self._record(
                one, "merged", "skipped", "merged", None, merged_into=str(carrier.ready and carrier.ready.event.id)
            )
        return carrier

    with patch.object(Flow, "_merged", early):
        yield


@mutant("a key is unparked before its last letter is closed", "I3p")
def _unparked_early() -> Iterator[None]:
    def closed(self: ParkedKeys, place: Any, key: bytes | None, offset: int) -> None:
        self._open.get(place, {}).pop(key or b"", None)

    with patch.object(ParkedKeys, "closed", closed):
        yield


@mutant("the receipt is written after the commit", "I4")
def _receipt_late() -> Iterator[None]:
    write_receipt = Process.write_receipt

    def late(self: Process, receipt: Any, settled: flows.Settled) -> None:
        self.to_loop.append(lambda: settled(None))
        write_receipt(self, receipt, _ignored)

    with patch.object(Process, "write_receipt", late):
        yield


@mutant("the start is the broker's reset", "I4")
def _reset() -> Iterator[None]:
    def begin_at(attached: Any, topic: str, partition: int, committed: int | None) -> Begin:
        return Begin(None, first=True, at_end=True) if committed is None else Begin(committed, first=False)

    with patch.object(processes, "begin_at", begin_at):
        yield


# ---- every rule has one


@mutant("a redriven letter does not unpark its key", "I10")
def _never_unparked() -> Iterator[None]:
    with patch.object(ParkedKeys, "closed", lambda self, place, key, offset: None):
        yield


@mutant("a lane goes on before the tombstone of its letter is acked", "I3p", "I10")
def _tombstone_late() -> Iterator[None]:
    close_letter = Process.close_letter

    def late(self: Process, origin: Any, settled: flows.Settled) -> None:
        self.to_loop.append(lambda: settled(None))
        close_letter(self, origin, _ignored)

    with patch.object(Process, "close_letter", late):
        yield


@mutant("letters that were open before are not read", "I3p")
def _letters_unread() -> Iterator[None]:
    begin = ParkedKeys.begin
    with patch.object(ParkedKeys, "begin", lambda self, place, letters: begin(self, place, ())):
        yield


@mutant("parked keys are delivered", "I3p")
def _not_parked() -> Iterator[None]:
    with patch.object(Flow, "_is_parked", lambda self, work: False):
        yield


@mutant("offsets of a key finish in the order of their acks", "I3b")
def _any_order() -> Iterator[None]:
    def finished(self: Flow, work: Any, ended: Any) -> None:
        line = self._lines.get(work.lane.key)
        if line is not None and work in line:
            line.remove(work)
        work.partition.tracker.finish(work.entry, ended)
        work.partition.dirty = True
        self._closed(work)

    with patch.object(Flow, "_finished", finished):
        yield


@mutant("the number of the attempt is in the idempotency key", "I6")
def _attempt_in_key() -> Iterator[None]:
    depart = Flow._depart

    def numbered(self: Flow, work: Any, now: float) -> None:
        key = f"{work.delivery.idempotency_key}-{work.attempts.count}"
        work.delivery = dataclasses.replace(work.delivery, idempotency_key=key)
        depart(self, work, now)

    with patch.object(Flow, "_depart", numbered):
        yield


@mutant("a merged delivery has the key of its newest event", "I6")
def _key_of_newest() -> Iterator[None]:
    merged = merging.merged

    def keyed(deliveries: Sequence[Any], action: Any) -> Any:
        return dataclasses.replace(merged(deliveries, action), idempotency_key=deliveries[-1].idempotency_key)

    with patch.object(flows, "merged", keyed):
        yield


@mutant("what is left of a redriven delivery keeps its key", "I6")
def _key_of_whole() -> Iterator[None]:
    without = merging.without

    def keyed(delivery: Any, omit: Sequence[str], action: Any) -> Any:
        left = without(delivery, omit, action)
        return None if left is None else dataclasses.replace(left, idempotency_key=delivery.idempotency_key)

    with patch.object(flows, "without", keyed):
        yield


@mutant("the oldest value wins where events merge", "I14")
def _oldest_wins() -> Iterator[None]:
    merged = merging.merged

    def reversed_(deliveries: Sequence[Any], action: Any) -> Any:
        whole = merged(deliveries, action)
        return dataclasses.replace(whole, body=merged(deliveries[::-1], action).body)

    with patch.object(flows, "merged", reversed_):
        yield


@mutant("a merged delivery that is rejected is set aside whole", "I2")
def _never_unmerged() -> Iterator[None]:
    def whole(self: Flow, carrier: Any) -> None:
        group = [*carrier.merged, carrier]
        carrier.merged = []
        self._set_aside(group, "rejected", "invalid", "")

    with patch.object(Flow, "_unmerge", whole):
        yield


@mutant("a call that is refused as a whole rejects everything in it", "I2")
def _never_halved() -> Iterator[None]:
    with _decided(lambda outcome: Rejected(outcome.reason) if isinstance(outcome, Rejected) else outcome):
        yield


@mutant("an unknown outcome counts as delivered", "I13", "I3", "I1")
def _unknown_is_success() -> Iterator[None]:
    with _decided(lambda outcome: Delivered() if isinstance(outcome, Unknown) else outcome):
        yield


@mutant("a vendor that is away uses up attempts", "I9")
def _away_counts() -> Iterator[None]:
    def counted(outcome: Any) -> Any:
        away = isinstance(outcome, Unavailable) and outcome.scope == "connection" and not outcome.needs_operator
        return RetryLater(outcome.reason) if away else outcome

    with _decided(counted):
        yield


@mutant("a letter loses the event's headers", "I7")
def _headers_lost() -> Iterator[None]:
    letter_of = deadletter.letter_of
    with patch.object(
        flows, "letter_of", lambda record, **rest: letter_of(dataclasses.replace(record, headers=()), **rest)
    ):
        yield


@mutant("expired events are counted as delivered", "I13")
def _expired_delivered() -> Iterator[None]:
    finish = Tracker.finish

    def counted(self: Tracker, entry: Any, ended: Any) -> None:
        finish(self, entry, "delivered" if ended == "expired" else ended)

    with patch.object(Tracker, "finish", counted):
        yield


@mutant("records that an earlier assignment finished are not counted", "I13")
def _earlier_uncounted() -> Iterator[None]:
    take_counts = Tracker.take_counts

    def counts(self: Tracker) -> Mapping[Any, int]:
        return {ended: count for ended, count in take_counts(self).items() if ended != "earlier"}

    with patch.object(Tracker, "take_counts", counts):
        yield


@mutant("the runs in a commit's metadata are ignored", "I15")
def _runs_ignored() -> Iterator[None]:
    with patch.object(processes, "decode_runs", lambda base, metadata: []):
        yield


@mutant("the runs in a commit's metadata have no gaps", "I4")
def _runs_too_long() -> Iterator[None]:
    runs = Tracker.runs

    def joined(self: Tracker) -> list[tuple[int, int]]:
        found = runs(self)
        return [(found[0][0], found[-1][1])] if found else []

    with patch.object(Tracker, "runs", joined):
        yield


@mutant("a process that was frozen calls the vendor before it knows that it is no member any more", "I3b")
def _no_zombie_guard() -> Iterator[None]:
    limits = dataclasses.replace(processes.LIMITS, zombie_after_s=1e9)
    with patch.object(processes, "LIMITS", limits):
        yield


@mutant("a discarded letter is read, and set aside anew", "I10")
def _discarded_again() -> Iterator[None]:
    receive_again = Flow._receive_again

    def as_redrive(self: Flow, partition: Any, entry: Any, record: Any) -> int:
        headers = tuple((name, b"redrive" if content == b"discarded" else content) for name, content in record.headers)
        return receive_again(self, partition, entry, dataclasses.replace(record, headers=headers))

    with patch.object(Flow, "_receive_again", as_redrive):
        yield


@mutant("what was omitted because newer events sent it is sent", "I14", "I6")
def _stale() -> Iterator[None]:
    with patch.object(flows, "without", lambda delivery, omit, action: delivery):
        yield


@mutant("a paused partition is never read again", "I10")
def _paused_for_ever() -> Iterator[None]:
    with patch.object(Flow, "_unpause", lambda self, partition: None):
        yield


# ---- an attach is caught up with and handed over


@mutant("what is caught up with takes the turns of what is live", "I16")
def _catch_up_live() -> Iterator[None]:
    class Live(works.Work):
        __slots__ = ()

        def __init__(self, partition: Any, entry: Any, record: Any, order: Any = None) -> None:
            super().__init__(partition, entry, record, order)
            self.background = order is not None

    with patch.object(flows, "Work", Live):
        yield


@mutant("all of a partition is background while it catches up", "I16")
def _all_background() -> Iterator[None]:
    class Behind(works.Work):
        __slots__ = ()

        def __init__(self, partition: Any, entry: Any, record: Any, order: Any = None) -> None:
            super().__init__(partition, entry, record, order)
            self.background |= bool(partition.until) and not partition.handed_over

    with patch.object(flows, "Work", Behind):
        yield


@mutant("what is caught up with has a lane of its own", "I3")
def _lane_of_its_own() -> Iterator[None]:
    add = Flow._add

    def apart(self: Flow, work: Any, key: Any) -> None:
        topic, partition, name = key
        catches_up = work.background and work.order is None
        add(self, work, (f"{topic} until {work.partition.until}" if catches_up else topic, partition, name))

    with patch.object(Flow, "_add", apart):
        yield


@mutant("an attach begins at its hand-over position", "I3", "I4", "I13")
def _begins_live() -> Iterator[None]:
    begin_at = control.begin_at

    def at_until(attached: Any, topic: str, partition: int, committed: int | None) -> Any:
        begin = begin_at(attached, topic, partition, committed)
        if isinstance(begin, Begin) and begin.first and begin.until is not None:
            return dataclasses.replace(begin, offset=begin.until)
        return begin

    with patch.object(processes, "begin_at", at_until):
        yield


@mutant("a hand-over is told when its position is read", "I16")
def _handed_over_early() -> Iterator[None]:
    with patch.object(works.Partition, "is_committed", lambda self, offset: self.tracker._position >= offset):
        yield


@mutant("catch-up that was bounded is never read on", "I10")
def _bounded_for_ever() -> Iterator[None]:
    bound = Flow._bound_catch_up

    def for_ever(self: Flow) -> None:
        bound(self)
        if self._catch_up_full:
            self._catch_up_open += 1_000

    with patch.object(Flow, "_bound_catch_up", for_ever):
        yield


# ---- what is folded


@mutant("what is live is sent while the past is folded", "I3", "I3b", "I13", "I17")
def _folded_beside() -> Iterator[None]:
    assigned = Flow.assigned

    def beside(self: Flow, partitions: Sequence[Any]) -> None:
        assigned(self, partitions)
        for partition in self._partitions.values():
            partition.folding = False

    with patch.object(Flow, "assigned", beside):
        yield


@mutant("what was folded counts as delivered before it is", "I13")
def _folded_early() -> Iterator[None]:
    row_of = folding.Folds.row_of

    def over(self: folding.Folds, record: Any, delivery: Any) -> Any:
        row = row_of(self, record, delivery)
        if row is not None and row.end is None:
            row.end = End(outcome="delivered")
        return row

    def at_once(self: folding.Folds) -> None:
        for fold in list(self._folds.values()):
            if fold.phase == "sending":
                self._over(fold)

    with patch.object(folding.Folds, "row_of", over), patch.object(folding.Folds, "_hand_over", at_once):
        yield


@mutant("an event behind one that is sent in its place counts as folded", "I13", "I3b", "I1")
def _folded_beyond() -> Iterator[None]:
    def row_of(self: folding.Folds, record: Any, delivery: Any) -> Any:
        fold = self._folds.get((record.topic, record.partition))
        action = self._actions[delivery.action]
        return None if fold is None else self._spill.get(fold.place, thing_of(record, delivery, action))

    with patch.object(folding.Folds, "row_of", row_of):
        yield


@contextmanager
def _decided(change: Callable[[Any], Any]) -> Iterator[None]:
    decide = settlement.decide
    with patch.object(flows, "decide", lambda outcome, *rest, **more: decide(change(outcome), *rest, **more)):
        yield


def _ignored(error: str | None) -> None:
    """Nobody hears whether it was written."""
