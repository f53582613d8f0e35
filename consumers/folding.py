"""``attach --fold``: the past of a partition becomes one delivery a thing before anything of it is sent. Pure.

Three steps for each partition whose start asks for it, from its committed position up to the hand-over position:

1. *reading*: the records are read beside the group (``consumers/past.py``), projected, and what is about one thing is
   merged as ``send: latest`` merges what waits (``consumers/merging.py``). Rows are kept in ``consumers/spill.py``.
2. *sending*: the rows go out in full batches, through a flow of their own: the same settle table, retries and dead
   letters as ever, only that what comes of a delivery is kept in its row instead of being written.
3. Now the group's consumer, which was paused, reads the same records: each takes the end that its row has
   (``Flow`` asks ``row_of``), so each leaves its receipt, or its dead letter, and is committed in the ordinary way.

Nothing is written or committed before step 3, so whoever gets the partition after a crash folds the same events to the
same deliveries with the same keys. What cannot be folded is left to step 3, where it goes its ordinary way: what is
expired, erased or cannot be read; what the vendor rejected as a whole, one by one; and of a key everything from the
first event on that has to be sent in its place (an action that is no upsert, a schema that nobody has, a dead letter
that parks its key).

Not thread-safe; who drives it (``consumers/runtime.py``, the simulation) hands in records, answers and the time.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Literal, Protocol

from connectors.connector import Delivery
from consumers import facts
from consumers.assignment import Assigned, Commit, Handover, Place
from consumers.deadletter import DeadLetter
from consumers.erased import Erased
from consumers.flow import Flow, Reader, Settled
from consumers.merging import merged
from consumers.offsets import Runs
from consumers.pipeline import Projection, Refused, ToDeliver, Wanted
from consumers.receipts import RangeSettled, Receipt
from consumers.spill import End, Folded, Spill, Thing, thing_of
from consumers.subscription import Route, Subscription, carried_by
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.event import Event, Origin, Record

FOLDED_AT_ONCE = 200
"""Records projected in one go; about 10 ms."""
SHUT_KEYS_MAX = 1_000
"""Keys of a partition of which no more is folded, at most; with more, the fold ends where it is."""
AGAIN_MAX = 3
"""So often a partition is folded anew because somebody was erased meanwhile; then what was not sent goes unfolded."""

Phase = Literal["reading", "writing", "sending", "over"]


class Effects(Protocol):
    """What is asked of the rim. Everything returns at once."""

    def read_past(self, ticket: int, place: Place, start: int, until: int) -> None:
        """Read these records, and hand them to ``Folds.take`` with the ticket, in order."""
        ...

    def end_reading(self, ticket: int) -> None:
        """What was asked for with this ticket is not wanted any more."""
        ...

    def is_missing(self, wanted: SchemaWanted) -> bool: ...
    def await_past_schema(self, wanted: SchemaWanted) -> None:
        """Fetch it, then call ``Folds.go_on``."""
        ...

    def folded(self, place: Place) -> None:
        """Everything that was folded of this partition has its end: the group's consumer may read it."""
        ...


class _Fold:
    """One partition. ``ticket`` is new with every reading; ``read_to``: how far it was folded; ``cut``: nothing from
    there on is; ``sent_to``: rows that were first seen up to there were handed to the flow."""

    __slots__ = (
        "again", "alone", "cut", "done", "done_from", "ended", "events", "handed", "marks", "phase", "place",
        "position", "queue", "read_to", "sent_to", "shut", "shut_at_first", "start", "ticket", "until", "waits",
    )  # fmt: skip

    def __init__(self, place: Place, start: int, until: int, done: Runs, shut: frozenset[bytes]) -> None:
        self.place, self.start, self.until = place, start, until
        self.done, self.done_from = done, [first for first, _ in done]
        self.shut_at_first = shut
        self.again = 0

    def begin(self, ticket: int, marks: int) -> None:
        self.ticket, self.marks = ticket, marks
        self.phase: Phase = "reading"
        self.queue: deque[Record] = deque()
        self.position = self.read_to = self.start
        self.cut = self.until
        self.shut = set(self.shut_at_first)
        self.waits = False
        self.sent_to = -1
        self.handed = self.ended = self.events = self.alone = 0

    def is_done(self, offset: int) -> bool:
        at = bisect_right(self.done_from, offset) - 1
        return at >= 0 and offset < self.done[at][1]


class Progress:
    """How far the folds of a process are: offsets read, deliveries sent."""

    __slots__ = ("read", "rows", "sent", "to_read")

    def __init__(self, folds: Sequence[_Fold], rows: Callable[[Place], int]) -> None:
        self.to_read = sum(fold.until - fold.start for fold in folds)
        self.read = sum((fold.read_to if fold.phase == "reading" else fold.until) - fold.start for fold in folds)
        self.rows = sum(rows(fold.place) for fold in folds)
        self.sent = sum(fold.ended for fold in folds)


class Folds:
    """The folds of one subscription in one process. ``erased`` as the flow has it; ``accept`` rejections pass before
    the rejections of folded deliveries end the folding (then everything left is sent unfolded, and the flow's own
    guard has its say)."""

    def __init__(
        self,
        *,
        subscription: Subscription,
        pipeline: Reader,
        effects: Effects,
        observer: facts.Observer,
        limits: Limits,
        chance: Callable[[], float],
        wall: Callable[[], float] = time.time,
        accept: int = 0,
        erased: Erased | None = None,
        spill: Spill | None = None,
    ) -> None:
        policies = subscription.policies
        self._subscription, self._pipeline, self._effects, self._wall = subscription, pipeline, effects, wall
        self._observe = observer
        self._actions = subscription.connector.actions
        self._batch_max = subscription.connector.batch_max
        self._merges = policies.send == "latest"
        self._parks = policies.on_dead_letter == "park_key"
        self._expire_after = None if policies.expire_after is None else policies.expire_after.total_seconds()
        self._erased = erased or Erased()
        self._spill = spill or Spill()
        self._open_max = max(2 * self._batch_max, int(limits.records_max * limits.background_share))
        self._folds: dict[Place, _Fold] = {}
        self._reading: dict[int, _Fold] = {}
        self._tickets = 0
        self._open: dict[tuple[Place, int], tuple[Thing, Folded]] = {}
        """rows that were handed to the flow and have no end yet, by where they were first seen"""
        self._acks: deque[Callable[[], None]] = deque()
        self._is_over = False
        self.taken = 0
        """records that were handed in and are let go of"""
        self.flow = Flow(
            subscription=replace(
                subscription, policies=replace(policies, send="every", expire_after=None, on_dead_letter="continue")
            ),
            pipeline=_Rows(self._open, subscription),
            effects=_Ends(self),
            observer=lambda fact: observer(fact) if isinstance(fact, facts.DeliveryHeld) else None,
            limits=limits,
            chance=chance,
            wall=wall,
            accept=accept,
        )

    # ---- partitions

    def begin(self, assigned: Sequence[Assigned]) -> None:
        """Fold the past of those for which it is asked; the others are no business of this."""
        for one in assigned if self._merges else ():
            if one.folds and one.until is not None:
                keys = frozenset(key for key, _ in one.open_letters if key is not None) if self._parks else frozenset()
                fold = self._folds[one.place] = _Fold(one.place, one.offset, one.until, one.done, keys)
                self._read(fold)

    def _read(self, fold: _Fold) -> None:
        self._tickets += 1
        fold.begin(self._tickets, self._erased.changes)
        if self._is_over or self._erased.is_blind_to(self._subscription.routes):
            self._over(fold)
            return
        self._reading[fold.ticket] = fold
        self._effects.read_past(fold.ticket, fold.place, fold.start, fold.until)

    def revoke(self, places: Sequence[Place], answer: Callable[[], None]) -> object:
        """Begin nothing more for these; ``answer`` when no call is out. The token ends the wait (``end_drain``)."""
        self._leave(places)
        return self.flow.revoke(places, lambda commits: answer())

    def end_drain(self, token: object) -> None:
        self.flow.end_drain(token)

    def lost(self, places: Sequence[Place]) -> None:
        self._leave(places)
        self.flow.lost(places)

    def forget(self, places: Sequence[Place]) -> None:
        """All that was folded of these is finished and committed."""
        self._leave(places)

    def hold(self, reason: str) -> None:
        """The subscription stands still: read and send nothing more."""
        self._is_over = True
        for fold in self._folds.values():
            self._end_reading(fold)
        self.flow.hold(reason)

    def close(self) -> None:
        self._spill.close()

    def commit_due(self) -> None:
        """Once a second: what the flow holds of deliveries that have their end is let go of."""
        self.flow.commit_due()

    def _leave(self, places: Sequence[Place]) -> None:
        for place in places:
            if (fold := self._folds.pop(place, None)) is not None:
                self._end_reading(fold)
                self._forget_rows(place)

    def _forget_rows(self, place: Place) -> None:
        self._spill.forget(place)
        for key in [key for key in self._open if key[0] == place]:
            del self._open[key]

    def _end_reading(self, fold: _Fold) -> None:
        if self._reading.pop(fold.ticket, None) is not None:
            self._effects.end_reading(fold.ticket)
            self.taken += len(fold.queue)
            fold.queue.clear()

    # ---- reading

    def take(self, ticket: int, records: Sequence[Record], position: int) -> None:
        """Records that were asked for, with the position behind them. An old ticket's are dropped."""
        fold = self._reading.get(ticket)
        if fold is None:
            self.taken += len(records)
            return
        fold.queue.extend(records)
        fold.position = position

    def give_up(self, ticket: int) -> None:
        """What was asked for is not there any more; the group's consumer says so when it comes to it."""
        if (fold := self._reading.get(ticket)) is not None:
            self._end_reading(fold)
            self._over(fold)

    def go_on(self) -> None:
        """A schema is there, or is known to be missing."""
        for fold in self._reading.values():
            fold.waits = False

    def step(self) -> bool:
        """Do what there is to do, a little of it; whether there is more that waits for nothing."""
        for _ in range(len(self._acks)):
            self._acks.popleft()()
        for fold in list(self._folds.values()):
            if fold.phase != "over" and fold.marks != self._erased.changes:
                self._fold_again(fold)
        more = self._fold_some()
        for fold in list(self._folds.values()):
            if fold.phase == "writing":
                more = True
                if not self._spill.write_some():
                    fold.phase = "sending"
                    epoch = fold.ticket
                    self.flow.assigned([Assigned(fold.place, epoch, 0, ())])
        self._hand_over()
        for fold in list(self._folds.values()):
            if fold.phase == "sending" and fold.ended == self._spill.count(fold.place):
                self._sent(fold)
        return more or bool(self._acks)

    def _fold_again(self, fold: _Fold) -> None:
        """Somebody was erased: what was folded may hold what must not be sent any more."""
        fold.marks = self._erased.changes
        fold.again += 1
        self._end_reading(fold)

        def drained(commits: Sequence[Commit]) -> None:
            if self._folds.get(fold.place) is not fold:
                return
            if fold.again > AGAIN_MAX:
                self._over(fold)
            else:
                self._forget_rows(fold.place)
                self._read(fold)

        fold.phase = "over"  # until its calls have ended
        self.flow.revoke([fold.place], drained)

    def _fold_some(self) -> bool:
        left = FOLDED_AT_ONCE
        for fold in list(self._reading.values()):
            queue = fold.queue
            while queue and left and not fold.waits:
                left -= 1
                if self._take_in(fold, queue[0]):
                    fold.read_to = queue.popleft().offset + 1
                    self.taken += 1
            if not queue and (fold.position >= fold.until or fold.cut < fold.until):
                self._end_reading(fold)
                fold.phase = "writing"
                rows = self._spill.count(fold.place)
                self._observe(facts.PastFolded(self._subscription.name, fold.place, fold.events, rows))
        return not left or any(fold.queue and not fold.waits for fold in self._reading.values())

    def _take_in(self, fold: _Fold, record: Record) -> bool:
        """Fold one record, or leave it out; False when it waits for its schema."""
        offset, key = record.offset, record.key
        if offset >= fold.cut or fold.is_done(offset) or (key is not None and key in fold.shut):
            return True
        if self._pipeline.route(record) is False:
            return True
        match projection := self._pipeline.project(record):
            case ToDeliver():
                self._fold(fold, record, projection)
            case Wanted():
                if not self._effects.is_missing(projection.schema):
                    fold.waits = True
                    self._effects.await_past_schema(projection.schema)
                    return False
                # Should it turn up later: what came after it must not have been sent before.
                self._shut(fold, record)
            case Refused() if self._parks:
                self._shut(fold, record)
        return True

    def _fold(self, fold: _Fold, record: Record, projection: ToDeliver) -> None:
        delivery, event = projection.delivery, projection.event
        action = self._actions[delivery.action]
        if not action.upsert:
            if record.key is not None:
                self._shut(fold, record)
            return
        thing = thing_of(record, delivery, action)
        folded = self._spill.get(fold.place, thing)
        if self._is_expired(record):
            if folded is not None:  # times that go back: what is in a row lies between its first and its newest
                self._shut(fold, record)
            return
        size = len(record.value or b"") + len(record.key or b"")
        fold.events += 1
        if folded is None:
            self._spill.add(
                fold.place,
                thing,
                Folded(
                    first=record.offset, delivery=delivery, key=record.key, timestamp=record.timestamp, size=size,
                    event_id=event.id, event_type=event.type, event_source=event.source,
                    event_time=event.time.timestamp(), routes=(projection.route.place,),
                ),
            )  # fmt: skip
            return
        folded.delivery = merged((folded.delivery, delivery), action)
        folded.count += 1
        if projection.route.place not in folded.routes:
            folded.routes += (projection.route.place,)
        folded.timestamp, folded.event_time = record.timestamp, event.time.timestamp()
        folded.event_id, folded.event_type, folded.event_source = event.id, event.type, event.source
        self._spill.change(fold.place, thing, folded, size)

    def _shut(self, fold: _Fold, record: Record) -> None:
        """From this record on nothing of its key is folded."""
        if record.key is not None and len(fold.shut) < SHUT_KEYS_MAX:
            fold.shut.add(record.key)
        else:
            fold.cut = record.offset

    def _is_expired(self, record: Record) -> bool:
        return self._expire_after is not None and self._wall() - record.timestamp / 1000 > self._expire_after

    # ---- sending

    def _hand_over(self) -> None:
        """Keep the flow supplied. While another partition is still being read only full batches go."""
        sending = [fold for fold in self._folds.values() if fold.phase == "sending"]
        waiting = sum(self._spill.count(fold.place) - fold.handed for fold in sending)
        room = min(self._open_max - len(self._open), waiting)
        if any(fold.phase in ("reading", "writing") for fold in self._folds.values()):
            room -= room % self._batch_max
        for fold in sending:
            if room <= 0:
                return
            rows = self._spill.in_order(fold.place, fold.sent_to, room)
            for thing, row in rows:
                self._open[fold.place, row.first] = (thing, row)
            if rows:
                room -= len(rows)
                fold.handed += len(rows)
                fold.sent_to = rows[-1][1].first
                records = [Record(*fold.place, row.first, row.key, b"", (), row.timestamp) for _, row in rows]
                self.flow.receive(Handover(records, {}, {fold.place: fold.ticket}), 0.0)

    def ended(self, place: Place, first: int, end: End) -> None:
        """What came of a row."""
        found, fold = self._open.pop((place, first), None), self._folds.get(place)
        if found is not None and fold is not None:
            thing, row = found
            row.end = end
            self._spill.change(place, thing, row)
            fold.ended += 1
            fold.alone += end.outcome == "alone"

    def set_aside(self, letter: DeadLetter) -> None:
        """A row that nobody takes. What was rejected as one may be fine one by one; what was given up is given up for
        all of its events, as ever where events go as one."""
        place = (letter.origin.topic, letter.origin.partition)
        found = self._open.get((place, letter.origin.offset))
        many = found is not None and found[1].count > 1
        outcome: Any = "alone" if letter.outcome == "rejected" and many else letter.outcome
        end = End(outcome=outcome, reason=letter.reason, detail=letter.detail, attempts=letter.attempts)
        self.ended(place, letter.origin.offset, end)

    def acked(self, settled: Settled) -> None:
        """What the flow wanted written counts as written with the next step."""
        self._acks.append(partial(settled, None))

    def rejects(self) -> None:
        """Too much was rejected: the rest goes unfolded, and those that are rejected become dead letters."""
        self._is_over = True
        for fold in list(self._folds.values()):
            if fold.phase != "over":
                self._end_reading(fold)
                fold.phase = "over"
                self.flow.revoke([fold.place], partial(self._given_up, fold))

    def _given_up(self, fold: _Fold, commits: Sequence[Commit]) -> None:
        if self._folds.get(fold.place) is fold:
            self._over(fold)

    def _sent(self, fold: _Fold) -> None:
        fold.phase = "over"
        self.flow.revoke([fold.place], partial(self._given_up, fold))

    def _over(self, fold: _Fold) -> None:
        fold.phase = "over"
        rows = self._spill.count(fold.place)
        unfolded = rows - fold.ended + fold.alone
        self._observe(facts.PastSent(self._subscription.name, fold.place, rows, unfolded))
        self._effects.folded(fold.place)

    # ---- what the others ask

    def row_of(self, record: Record, delivery: Delivery) -> Folded | None:
        """The row that carried this event's delivery, if it was folded."""
        fold = self._folds.get((record.topic, record.partition))
        if fold is None or record.offset >= fold.cut:
            return None
        action = self._actions[delivery.action]
        if not action.upsert:
            return None
        row = self._spill.get(fold.place, thing_of(record, delivery, action))
        return row if row is not None and row.first <= record.offset <= row.newest else None

    @property
    def is_busy(self) -> bool:
        """Whether there may be something for ``step``."""
        return bool(self._folds) or bool(self._acks)

    @property
    def is_working(self) -> bool:
        return any(fold.phase != "over" for fold in self._folds.values())

    def progress(self) -> Progress | None:
        """How far it is; None when nothing is read or sent here."""
        return Progress(list(self._folds.values()), self._spill.count) if self.is_working else None


class _Rows:
    """What the flow of folded deliveries takes for its pipeline: a row is projected already."""

    def __init__(self, rows: Mapping[tuple[Place, int], tuple[Thing, Folded]], subscription: Subscription) -> None:
        self._rows, self._subscription = rows, subscription

    @cached_property
    def _route(self) -> Route:
        """What stands for the routes of all events in a row: whoever shows a call masks what any of them carries."""
        routes = [route for routes in self._subscription.routes.values() for route in routes]
        return replace(routes[0], carried=carried_by(routes))

    def route(self, record: Record) -> bool:
        return True

    def project(self, record: Record, revision: str = "") -> Projection:
        _, row = self._rows[(record.topic, record.partition), record.offset]
        event = Event(
            id=row.event_id,
            type=row.event_type,
            source=row.event_source,
            time=datetime.fromtimestamp(row.event_time, UTC),
            subject=None,
            key=None,
            data={},
        )
        return ToDeliver(event, row.delivery, self._route)


class _Ends:
    """What the flow of folded deliveries asks for: the end of each is kept with its row."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds

    def write_receipt(self, receipt: Receipt, settled: Settled) -> None:
        record, outcome = receipt.record, receipt.outcome
        if outcome in ("delivered", "skipped"):
            end = End(
                outcome=outcome, reason=receipt.reason, reference=receipt.reference, attempts=receipt.attempts,
                first_at=receipt.first_at, at=receipt.at,
            )  # fmt: skip
            self._folds.ended((record.topic, record.partition), record.offset, end)
        self._folds.acked(settled)

    def write_letter(self, letter: DeadLetter, settled: Settled) -> None:
        self._folds.set_aside(letter)
        self._folds.acked(settled)

    def close_letter(self, origin: Origin, settled: Settled) -> None:
        raise AssertionError("nothing that is folded comes from the inbox")

    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None:
        self._folds.acked(settled)

    def commit(self, commits: Sequence[Commit]) -> None:
        """Nothing is committed before the records are read again."""

    def pause_partition(self, place: Place, paused: bool) -> None:
        """It is supplied as it has room."""

    def caught_up(self, places: Sequence[Place]) -> None:
        """The ordinary flow says when."""

    def is_missing(self, wanted: SchemaWanted) -> bool:
        raise AssertionError("what is folded is decoded")

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        raise AssertionError("what is folded is decoded")

    def stopped(self, reason: str) -> None:
        self._folds.rejects()
