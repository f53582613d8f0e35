"""One subscription's records on their way: lanes, projection, merging, batches, outcomes settled, offsets to commit.

The pure core of a subscription. It knows no Kafka, no event loop and no clock: who drives it (``consumers/runtime.py``;
the simulation in the tests) hands records and answers in, with the time, and does what it asks for through ``Effects``.
Not thread-safe.

A work is *open* from its call (or letter) until everything about it is acked: its receipt, its dead letter or the
tombstone of one. Only then is its offset finished, and only finished offsets are committed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from connectors.connector import Delivered, Delivery, Outcome, Rejected, Skipped
from consumers import facts
from consumers.assignment import Assigned, Commit, Handover, Place
from consumers.batches import Batch, Batches
from consumers.commits import Commits, Drain
from consumers.control import inbox_topic
from consumers.deadletter import DeadLetter, letter_of
from consumers.erased import Erased
from consumers.erasure import Unseal, asked
from consumers.heartbeat import HELD_MAX, SubscriptionView
from consumers.holding import held_lanes, parked_keys
from consumers.inbox import inbox_record, parse_inbox
from consumers.lanes import Lane, LaneKey, Lanes
from consumers.merging import MERGED_MAX, can_merge, merged, without
from consumers.offsets import METADATA_BYTES_MAX, Ended, Entry
from consumers.parking import PARKED_KEYS_MAX, ParkedKeys
from consumers.pipeline import NotOurs, OfErased, Projection, Refused, ToDeliver, Wanted
from consumers.receipts import TOPIC, RangeSettled, Receipt, ReceiptOutcome
from consumers.settlement import (
    Attempts,
    DeadOutcome,
    Decision,
    Finish,
    Halve,
    Hold,
    LookUp,
    PauseConnection,
    RejectionGuard,
    SetAside,
    StopConnection,
    decide,
    decide_look_up,
)
from consumers.spill import Folded
from consumers.subscription import Route, Subscription
from consumers.work import Limits, Partition, Work
from schemas.codec import SchemaWanted
from schemas.event import Event, Origin, Record

PREPARE_MAX = 500
"""Works looked at in one go: nothing stands still for longer while a backlog is not ours."""

Settled = Callable[[str | None], None]
"""Called once, later: None when it is acked, else Kafka's name of why it cannot be written."""


class Reader(Protocol):
    """``consumers.pipeline.Pipeline``."""

    def route(self, record: Record) -> bool | SchemaWanted: ...
    def project(self, record: Record, revision: str = "") -> Projection: ...


class Effects(Protocol):
    """What is asked of the rim. Everything returns at once."""

    def write_letter(self, letter: DeadLetter, settled: Settled) -> None: ...
    def close_letter(self, origin: Origin, settled: Settled) -> None: ...
    def write_receipt(self, receipt: Receipt, settled: Settled) -> None: ...
    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None: ...
    def commit(self, commits: Sequence[Commit]) -> None: ...
    def pause_partition(self, place: Place, paused: bool) -> None: ...
    def is_missing(self, wanted: SchemaWanted) -> bool:
        """Whether the registry has said long enough that there is no such schema."""
        ...

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        """Fetch it, then hand the work to ``Flow.go_on``."""
        ...

    def caught_up(self, places: Sequence[Place]) -> None:
        """Everything below the hand-over positions of these partitions is finished and committed, or was when they
        were assigned: from here on they are live. Once for each assignment."""
        ...

    def stopped(self, reason: str) -> None:
        """The subscription cannot go on by itself; ``reason`` is a sentence. Called once."""
        ...


class Past(Protocol):
    """``consumers.folding.Folds``: what was folded of partitions before they are read here."""

    def row_of(self, record: Record, delivery: Delivery) -> Folded | None: ...


def _redrives(work: Work, outcome: DeadOutcome) -> int:
    """How often the letter of a work was redriven so far; parked again is not tried again."""
    if work.order is None:
        return 0
    is_redriven = work.order.kind == "redrive" or work.order.letter is not None
    return work.order.redrives + (is_redriven and outcome != "parked")


class Flow:
    """See the module. ``receipts``: whether settled deliveries leave receipts (not where a subscription reads the
    backbone's own topics). ``erased`` are the people of whom nothing is sent, as the pipeline knows them too;
    ``unseal`` opens what an erasure in the inbox asks (None for one that was sealed with another key). ``past``: what
    is folded elsewhere, and read here only after ``unfold``; None: nothing ever is. ``accept`` rejections pass before
    the guard counts. ``wall`` answers seconds since the epoch, ``chance`` a number in [0, 1)."""

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
        receipts: bool = True,
        erased: Erased | None = None,
        unseal: Unseal | None = None,
        past: Past | None = None,
    ) -> None:
        self.settled_records = self.settled_bytes = 0
        self.stop_reason = ""
        self._subscription, self._pipeline, self._effects = subscription, pipeline, effects
        self._name, self._policies = subscription.name, subscription.policies
        self._actions = subscription.connector.actions
        self._inbox = inbox_topic(subscription.name)
        self._observe, self._limits, self._chance, self._wall = observer, limits, chance, wall
        self._receipts = receipts
        self._erased = erased if erased is not None and receipts else Erased()
        self._unseal, self._past = unseal, past
        # erasing twice does no harm, so an answer that was lost is asked for again whatever the policy
        self._erasing_policies = replace(self._policies, on_unknown="resend")
        self._partitions: dict[Place, Partition] = {}
        self._lanes: Lanes[Work] = Lanes()
        self._lines: dict[LaneKey, deque[Work]] = {}
        """of each lane, what was taken in and is not finished, in order; it outlives the lane"""
        self._live = Batches(subscription.connector.batch_max)
        self._background = Batches(subscription.connector.batch_max)
        self._linger: dict[bool, float] = {}
        self._parked = ParkedKeys()
        self._parks = self._policies.on_dead_letter == "park_key"
        self._guard = RejectionGuard(accept=accept)
        self._commits = Commits(
            self._partitions, effects, ranges=receipts, left=self._leave, failed=self._receipt_failed
        )
        self._inbox_open = self._catch_up_open = 0
        self._inbox_full = self._catch_up_full = False
        self._receipts_acked = 0
        self._slowest_s = 0.0
        self._viewed = (0.0, 0)

    # ---- partitions

    @property
    def unfinished(self) -> int:
        """Records taken in and not settled."""
        return sum(partition.tracker.unfinished for partition in self._partitions.values())

    @property
    def lanes_held(self) -> int:
        return self._lanes.held

    @property
    def keys_parked(self) -> int:
        return len(self._parked)

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        for one in partitions:
            partition = self._partitions[one.place] = Partition(one)
            partition.admitting = not self.stop_reason
            partition.folding = self._past is not None and one.folds and self._merges
            if self._parks:
                self._parked.begin(one.place, one.open_letters)
            # Also where it is not to be paused: a pause of an earlier assignment may still be on its way to the owner.
            if not partition.folding:
                self._effects.pause_partition(one.place, self._is_full(partition))
        self._hold_back()
        self._observe(facts.PartitionsAssigned(self._name, tuple(one.place for one in partitions)))
        self._check_parked()

    def _hold_back(self) -> None:
        """Nothing is read here of partitions that are folded; nor of the inbox beside them: what comes again must not
        come before what is older, and a person that is to be erased there must not be sent afterwards."""
        numbers = {place[1] for place, one in self._partitions.items() if one.folding and place[0] != self._inbox}
        for place, partition in self._partitions.items():
            if place[0] == self._inbox:
                partition.folding = place[1] in numbers
            if partition.folding and not partition.paused:
                partition.paused = True
                self._effects.pause_partition(place, True)

    def unfold(self, place: Place, now: float) -> None:
        """What was folded of this partition has its end: it is read as ever, and each event takes its end there."""
        partition = self._partitions.get(place)
        if partition is None or not partition.folding:
            return
        partition.folding = False
        self._hold_back()
        for other in list(self._partitions.values()):
            if not other.folding and other.place[1] == place[1]:
                early, other.early = other.early, []
                if other.paused:
                    self._unpause(other)
                for handover in early:
                    self.receive(handover, now)

    def revoke(self, places: Sequence[Place], answer: Callable[[Sequence[Commit]], None]) -> object:
        """Stop admitting; when nothing of these partitions is open any more, ``answer`` what may be committed. The
        token ends the wait (``end_drain``)."""
        leaving = [self._partitions[place] for place in places if place in self._partitions]
        self._close_admission(leaving)
        return self._commits.drain(leaving, answer)

    def end_drain(self, token: object) -> None:
        """It took too long: answer what may be committed as it is. After the answer nothing happens."""
        assert isinstance(token, Drain)
        self._commits.end(token)

    def lost(self, places: Sequence[Place]) -> None:
        """Somebody else has them already: forget everything, commit nothing."""
        leaving = [self._partitions[place] for place in places if place in self._partitions]
        self._close_admission(leaving)
        self._leave(leaving, drained=False)

    def _leave(self, leaving: Sequence[Partition], *, drained: bool = True) -> None:
        """From here on nothing that comes back counts for these partitions."""
        for partition in leaving:
            partition.live = False
            self._parked.end(partition.place)
            if self._partitions.get(partition.place) is partition:
                del self._partitions[partition.place]
        self._leave_lines(leaving)
        if leaving:
            drained = drained and not any(partition.open for partition in leaving)
            places = tuple(partition.place for partition in leaving)
            self._observe(facts.PartitionsRevoked(self._name, places, drained))

    def _close_admission(self, partitions: Sequence[Partition]) -> None:
        closing = {id(partition) for partition in partitions}
        for partition in partitions:
            partition.admitting = False
            for record in (record for handover in partition.early for record in handover.records):
                self._count_settled(record)
            partition.early = []
        for work in self._lanes.drop(lambda work: id(work.partition) in closing):
            if not work.open:
                self._settled(work)

    def stop(self, reason: str) -> None:
        """Deliver nothing more and stay a member: what is open ends, what waits is dropped and read again."""
        if self.stop_reason:
            return
        self.hold(reason)
        self._observe(facts.SubscriptionStopped(self._name, reason))
        self._effects.stopped(reason)

    def hold(self, reason: str) -> None:
        """The same without telling: somebody else has stopped or paused the subscription."""
        self.stop_reason = reason
        self._close_admission(list(self._partitions.values()))

    # ---- records in

    def receive(self, handover: Handover, now: float) -> None:
        """Take records into their lanes. What belongs to an older epoch, or to a partition that is being left, is
        dropped whole: it is read again by whoever is assigned next."""
        not_ours = 0
        epochs = handover.epochs
        open_places = {
            place: partition
            for place, partition in self._partitions.items()
            if partition.admitting and partition.epoch == epochs.get(place)
        }
        for record in handover.records:
            partition = open_places.get((record.topic, record.partition))
            if partition is None:
                self._count_settled(record)
                continue
            if partition.folding:
                # It was on its way before the pause; it counts as taken in and is looked at when its turn comes.
                partition.early.append(Handover([record], {}, handover.epochs))
                continue
            entry = partition.tracker.fetched(record.offset)
            if entry is None:
                partition.dirty = True
                self._count_settled(record)
            elif record.topic == self._inbox:
                not_ours += self._receive_again(partition, entry, record)
            elif self._pipeline.route(record) is False:
                self._not_ours(partition, entry, record)
                not_ours += 1
            else:
                key = record.offset if record.key is None else record.key
                work = Work(partition, entry, record)
                self._catch_up_open += work.background
                self._add(work, (record.topic, record.partition, key))
        for place, position in handover.positions.items():
            if (partition := open_places.get(place)) is not None:
                if partition.early:
                    partition.early.append(Handover((), {place: position}, handover.epochs))
                    continue
                partition.tracker.read_to(position)
                partition.dirty = True
                partition.catches_up = position < partition.until
        if self._catch_up_open >= self._background_max and not self._catch_up_full:
            self._bound_catch_up()
        if not_ours:
            self._observe(facts.RecordsNotOurs(self._name, not_ours))

    def _receive_again(self, partition: Partition, entry: Entry, record: Record) -> int:
        """An inbox record goes into the lane of its origin's key; 1 when it is none of ours."""
        found = parse_inbox(record)
        if found is None:
            self._not_ours(partition, entry, record)
            return 1
        order, origin = found
        if order.kind in ("discarded", "erased"):
            self._letter_closed(origin, order.kind)
        work = Work(partition, entry, origin, order)
        if order.kind == "erase":
            self._take_erasure(work)
        self._inbox_open += 1
        # The partition number is the inbox record's: where the key's live events go now, should that have changed.
        key = work.record.offset if work.record.key is None else work.record.key
        self._add(work, (origin.topic, record.partition, key))
        if not self._inbox_full and self._inbox_open >= self._background_max:
            self._inbox_full = True
            self._pause_inbox(True)
        return 0

    def _take_erasure(self, work: Work) -> None:
        """Open what is asked. The mark comes along: from here on nothing older of the person is sent by this process,
        also where it has not yet come by ``backbone.control``."""
        assert work.order is not None
        erasure = work.erasure = None if self._unseal is None else self._unseal(work.order.sealed)
        if erasure is not None:
            self._erased.put(erasure.mark, erasure.person)
            if erasure.key is not None:
                work.record = replace(work.record, key=erasure.key.encode("utf-8", "surrogateescape"))

    @property
    def _background_max(self) -> int:
        return max(1, int(self._limits.records_max * self._limits.background_share))

    def _pause_inbox(self, paused: bool) -> None:
        for place, partition in self._partitions.items():
            if place[0] == self._inbox and not partition.paused:
                self._effects.pause_partition(place, paused)

    def _bound_catch_up(self) -> None:
        """Once a partition of ours is live, what others have to catch up with leaves it room. Until then it has all:
        nothing waits behind it, and a pause throws away what was fetched ahead."""
        catching_up = [one for one in self._partitions.values() if one.catches_up]
        is_live = any(not one.catches_up for place, one in self._partitions.items() if place[0] != self._inbox)
        if catching_up and is_live:
            self._catch_up_full = True
            for partition in catching_up:
                if not partition.paused:
                    self._effects.pause_partition(partition.place, True)

    def _is_full(self, partition: Partition) -> bool:
        """Whether the room for what is read from this partition is taken."""
        if partition.place[0] == self._inbox:
            return self._inbox_full
        return self._catch_up_full and partition.catches_up

    def _add(self, work: Work, key: LaneKey) -> None:
        lane = self._lanes.add(key, work)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
        line.append(work)
        waits = not work.background and lane.live == 1 and lane.busy and not lane.queue[0].open
        if waits and any(self._background.pull(one) for one in lane.queue):
            # Its head waited for the background's turn; with something live behind it the lane is live.
            self._lanes.release(lane)
        partition = work.partition
        if len(lane.queue) >= self._limits.lane_records_max and not partition.paused:
            partition.paused = True
            self._effects.pause_partition(partition.place, True)

    def _not_ours(self, partition: Partition, entry: Entry, record: Record) -> None:
        partition.tracker.finish(entry, "not_ours")
        partition.dirty = True
        self._count_settled(record)

    # ---- lanes to batches

    def waiting(self, *, background: bool) -> bool:
        """Whether there may be a batch to be sent now."""
        batches = self._background if background else self._live
        return bool(batches.ready) or self._lanes.ready(background=background) or batches.forming

    def has_more(self, *, background: bool) -> bool:
        """Whether there are lanes that ``next_batch`` has not come to: it looks at so many in one go."""
        return self._lanes.ready(background=background)

    def next_batch(self, now: float, *, background: bool = False) -> Batch | None:
        """The next call to make; its works are open from here on, until ``settle``, ``look_up_settled`` or
        ``give_back``. None when there is nothing to send, or not enough yet (see ``next_due``)."""
        batches = self._background if background else self._live
        self._lanes.due(now)
        looked = 0
        while not batches.ready and looked < PREPARE_MAX:
            lane = self._lanes.take(background=background)
            if lane is None:
                break
            looked += 1
            work = self._prepared(lane)
            if work is not None:
                batches.add(work)
        if not batches.ready:
            if not batches.forming:
                return None
            linger = self._linger.setdefault(background, now + self._limits.batch_wait_s)
            if now < linger:
                return None
            batches.flush()
        self._linger.pop(background, None)
        works = [work for work in batches.ready.popleft() if work.partition.admitting]
        if not works:
            return self.next_batch(now, background=background)
        deliveries = []
        for work in works:
            self._depart(work, now)
            assert work.delivery is not None
            deliveries.append(work.delivery)
        return Batch(works, deliveries, background, works[0].doubtful, now)

    def due(self, now: float) -> None:
        """Lanes whose time has come are ready again."""
        self._lanes.due(now)

    def next_due(self) -> float | None:
        """When to look again, because a held lane's time comes or a batch has lingered enough; None: for nothing."""
        due = self._lanes.next_due()
        for linger in self._linger.values():
            due = linger if due is None else min(due, linger)
        return due

    def _prepared(self, lane: Lane[Work]) -> Work | None:
        """The head of a busy lane ready to be sent, with what it carries; None when there is nothing to send (yet)."""
        head = lane.queue[0]
        carrier = next((work for work in lane.queue if head in work.merged), None) if self._merges else None
        if carrier is not None and self._erased.fields and any(map(self._is_erased, (*carrier.merged, carrier))):
            self._take_apart(carrier)
        elif carrier is not None:
            return carrier  # it was formed before and is tried again as it is
        if head.order is not None and head.order.kind in ("discarded", "erased"):
            self._open_one(head)  # whatever it is: also if it cannot be read
            self._skip(head, head.order.kind)
            return None
        if head.order is not None and head.order.kind == "erase":
            return head if self._asked(head) else None
        if self._erased.is_blind_to(self._subscription.routes):
            self.stop(
                "somebody was erased with an installation key that this process does not have, so it cannot tell whose "
                f"events must not be sent. Give it that key, then: backbone subscription resume {self._name}"
            )
            return None
        if not self._project(head):
            return None
        if self._is_erased(head):
            self._open_one(head)
            self._skip(head, "erased")
            return None
        if self._past is not None and head.order is None and self._was_folded(head, self._past):
            return None
        if self._parks and self._stays_parked(head):
            self._open_one(head)
            self._set_aside([head], "parked", "key_parked", "")
            return None
        if self._expired(head):
            self._open_one(head)
            self._skip(head, "expired")
            return None
        if head.order is not None and not self._ordered(head):
            return None
        if self._merges and not head.alone and not head.attempts.count:
            return self._merged(lane)
        return head

    def _was_folded(self, work: Work, past: Past) -> bool:
        """Whether the event was carried by a folded delivery: it takes the end that this had."""
        assert work.ready is not None
        row = None if work.alone else past.row_of(work.record, work.ready.delivery)
        if row is None or (end := row.end) is None:
            return False
        outcome, reason = end.outcome, end.reason
        if outcome == "alone":
            work.alone = True  # as one they were rejected
            return False
        self._open_one(work)
        if outcome in ("delivered", "skipped") and row.newest != work.record.offset:
            self._told_settled(work, Skipped("merged"), None)
            self._record(work, "merged", "skipped", "merged", None, merged_into=row.event_id, lane_over=1)
            return True
        work.attempts = Attempts(count=end.attempts)
        if outcome == "delivered" or outcome == "skipped":
            skipped: Any = reason if outcome == "skipped" else None
            work.delivery = row.delivery
            self._told_settled(work, Skipped(skipped) if skipped else Delivered(end.reference), None)
            self._record(
                work, skipped or "delivered", outcome, reason, None, reference=end.reference, sent=not skipped,
                lane_over=1, times=(end.first_at, end.at),
                carried=[one for some in self._subscription.routes.values() for one in some if one.place in row.routes],
            )  # fmt: skip
        else:
            self._set_aside([work], outcome, reason or "", end.detail)
        return True

    def _asked(self, work: Work) -> bool:
        """Make an erasure ready to be sent; False when it is over, or nothing goes on here."""
        assert work.order is not None
        if work.ready is not None:
            return True
        if work.erasure is None:
            self.stop(
                f"an erasure of the change {work.order.change} is sealed with an installation key that this process "
                f"does not have. Give it that key, then: backbone subscription resume {self._name}"
            )
            return False
        made = asked(work.erasure, self._subscription, work.order, work.record, place=self._inbox_place(work))
        if isinstance(made, Refused):
            self._open_one(work)
            self._set_aside([work], made.kind, made.rejected.reason, made.rejected.detail, made.event_type)
            return False
        work.ready, work.delivery = made, made.delivery
        return True

    def _is_erased(self, work: Work) -> bool:
        """Whether its person was erased since it was projected."""
        if not self._erased.fields or work.ready is None:
            return False
        return self._erased.holds(work.ready.event.data, work.record.timestamp)

    def _take_apart(self, carrier: Work) -> None:
        """Works that would go as one go one by one."""
        for work in (*carrier.merged, carrier):
            work.alone = True
            work.delivery = None if work.ready is None else work.ready.delivery
        carrier.merged = []

    def _inbox_place(self, work: Work) -> Origin:
        return Origin(*work.partition.place, work.entry.offset)

    @property
    def _merges(self) -> bool:
        return self._policies.send == "latest"

    def _merged(self, lane: Lane[Work]) -> Work:
        """The newest of the first works in the lane that are about one thing, carrying the others."""
        head = lane.queue[0]
        group = [head]
        for work in list(lane.queue)[1:MERGED_MAX]:
            if head.order is not None or work.order is not None or work.alone or work.attempts.count:
                break
            newest = group[-1].delivery
            assert newest is not None
            action = self._actions[newest.action]
            if not action.upsert or not isinstance(self._projected(work), ToDeliver) or work.ready is None:
                break
            if self._is_erased(work):
                break
            if not can_merge(newest, work.ready.delivery, action):
                break
            work.delivery = work.ready.delivery
            group.append(work)
        carrier = group.pop()
        if group and carrier.delivery is not None:
            deliveries = [work.delivery for work in (*group, carrier) if work.delivery is not None]
            carrier.merged = group
            carrier.delivery = merged(deliveries, self._actions[carrier.delivery.action])
        return carrier

    def _projected(self, work: Work) -> Projection | None:
        """Decode and project once; None when it was done before."""
        if work.ready is not None:
            return work.ready
        began = time.perf_counter()
        projection = self._pipeline.project(work.record, work.order.revision if work.order is not None else "")
        took = time.perf_counter() - began
        if isinstance(projection, ToDeliver):
            work.ready = projection
            if took > self._limits.slow_projection_s:
                self._slowest_s = max(self._slowest_s, took)
                self._observe(facts.SlowProjection(self._name, projection.event.type, took))
        return projection

    def _project(self, work: Work) -> bool:
        """Make the head of a lane ready; False when it is over, or waits for its schema."""
        match projection := self._projected(work):
            case ToDeliver():
                if work.delivery is None:
                    work.delivery = projection.delivery
                return True
            case NotOurs():
                if work.order is None:
                    self._lanes.finish(work.lane)
                    self._finished(work, "not_ours")
                    self._observe(facts.RecordsNotOurs(self._name, 1))
                else:
                    # A person sent it again and no route is for it any more: that is the end of it.
                    self._open_one(work)
                    self._skip(work, "superseded")
            case OfErased():
                self._open_one(work)
                self._skip(work, "erased", event=projection.event, event_type=projection.event_type)
            case Wanted():
                if self._effects.is_missing(projection.schema):
                    self._open_one(work)
                    self._set_aside([work], "undecodable", "schema_unknown", str(projection.schema.key))
                else:
                    self._held(work, "schema", "schema_wanted")
                    self._effects.await_schema(work, projection.schema)
            case Refused():
                rejected = projection.rejected
                self._open_one(work)
                self._set_aside([work], projection.kind, rejected.reason, rejected.detail, projection.event_type)
        return False

    def go_on(self, works: Sequence[Work]) -> None:
        """Their schema is there, or is known to be missing."""
        for work in works:
            if work.partition.admitting:
                self._lanes.release(work.lane)

    def _ordered(self, work: Work) -> bool:
        """What an inbox record says of its delivery; False when nothing is to be sent."""
        order = work.order
        assert order is not None
        assert work.delivery is not None
        if order.omit and not work.attempts.count:
            left = without(work.delivery, order.omit, self._actions[work.delivery.action])
            if left is None:
                self._open_one(work)
                self._skip(work, "superseded")
                return False
            work.delivery = left
        if order.as_of is not None:
            work.delivery = replace(work.delivery, sequence=order.as_of)
        return True

    def _expired(self, work: Work) -> bool:
        expire_after = self._policies.expire_after
        if expire_after is None or (work.order is not None and work.order.allow_stale):
            return False
        return self._wall() - work.record.timestamp / 1000 > expire_after.total_seconds()

    # ---- outcomes

    def settle(
        self, batch: Batch, outcomes: Sequence[Outcome], now: float, *, others_succeed: bool
    ) -> list[PauseConnection | StopConnection]:
        """What came of a call, one outcome a delivery; what follows for the connection. ``others_succeed``: something
        was Delivered on the connection since the call began."""
        for_connection: list[PauseConnection | StopConnection] = []
        refused: list[Work] = []
        holds: list[tuple[Work, Hold]] = []
        for work, outcome in zip(batch.works, outcomes, strict=True):
            if not work.partition.live:
                self._closed(work)  # of an old epoch: whoever has the partition now delivers it again
                continue
            decision = decide(
                outcome,
                work.attempts,
                self._policies if work.erasure is None else self._erasing_policies,
                now=now,
                alone=len(batch.works) == 1,
                others_succeed=others_succeed,
                random=self._chance,
            )
            match decision:
                case Halve():
                    refused.append(work)
                case Hold():
                    holds.append((work, decision))
                    self._told_held(work, outcome)
                case _:
                    self._follow(work, outcome, decision, now, for_connection)
        if refused:
            batches = self._background if batch.background else self._live
            batches.halve([work for work in refused if self._stays(work)])
        # A call that failed as a whole gives its lanes one due time, so that they are one batch again.
        together = max(hold.seconds for _, hold in holds) if len(holds) == len(batch.works) else None
        for work, hold in holds:
            if self._stays(work):
                self._lanes.hold(work.lane, now + (hold.seconds if together is None else together))
        return for_connection

    def look_up_settled(
        self, batch: Batch, found: Outcome | None, now: float
    ) -> list[PauseConnection | StopConnection]:
        """What the vendor said of a delivery that may have happened; None: it has not."""
        for_connection: list[PauseConnection | StopConnection] = []
        (work,) = batch.works
        if not work.partition.live:
            self._closed(work)
            return for_connection
        decision = decide_look_up(found, work.attempts, self._policies, now=now, random=self._chance)
        work.doubtful = found is not None
        if isinstance(decision, Hold):
            if self._stays(work):
                self._lanes.release(work.lane)
        else:
            self._follow(work, found or Delivered(), decision, now, for_connection)
        return for_connection

    def _follow(
        self,
        work: Work,
        outcome: Outcome,
        decision: Decision,
        now: float,
        for_connection: list[PauseConnection | StopConnection],
    ) -> None:
        match decision:
            case Finish():
                self._finish(work, decision.outcome, now)
            case SetAside() if work.merged and isinstance(outcome, Rejected):
                self._unmerge(work)
            case SetAside():
                group = [*work.merged, work]
                work.merged = []
                for one in group[:-1]:
                    one.attempts = work.attempts
                self._set_aside(group, decision.outcome, decision.reason, decision.detail, now=now)
            case LookUp():
                work.doubtful = True
                self._told_held(work, outcome)
                if self._stays(work):
                    self._lanes.hold(work.lane, now + decision.seconds)
            case PauseConnection() | StopConnection():
                for_connection.append(decision)
                if self._stays(work):
                    # Behind the others: the one that finds out whether the vendor is back is another, if there is one.
                    self._lanes.release(work.lane, first=False)

    def give_back(self, batch: Batch) -> None:
        """The call was not made after all."""
        for work in batch.works:
            if self._stays(work):
                self._lanes.release(work.lane)

    def _unmerge(self, carrier: Work) -> None:
        """What was refused as one may be fine one by one; and what is wrong is set aside alone."""
        group = [*carrier.merged, carrier]
        carrier.merged = []
        unknown = carrier.attempts.unknown
        stays = self._stays(carrier, group)
        for work in group:
            work.alone = True
            work.attempts = type(work.attempts)(unknown=unknown)
            work.delivery = None if work.ready is None else work.ready.delivery
        if stays:
            self._lanes.release(carrier.lane)

    def _told_held(self, work: Work, outcome: Outcome) -> None:
        assert work.delivery is not None
        assert work.ready is not None
        reason = getattr(outcome, "reason", "")
        self._held(work, "busy" if getattr(outcome, "scope", "") == "entity" else "retry", reason)
        self._observe(
            facts.DeliveryHeld(
                self._name,
                self._subscription.connection,
                work.delivery.action,
                work.ready.event.type,
                outcome,
                work.attempts.count,
            )
        )

    # ---- what is open, and what is over

    def _depart(self, work: Work, now: float) -> None:
        for one in (*work.merged, work):
            self._open_one(one)
        if work.attempts.first_at is None:
            work.attempts.first_at = now

    def _open_one(self, work: Work) -> None:
        if not work.open:
            work.open = True
            work.partition.open += 1

    def _stays(self, work: Work, group: Sequence[Work] | None = None) -> bool:
        """It is not over and waits again; False when its lane was dropped meanwhile (left, stopped)."""
        if not work.partition.admitting:
            for one in group if group is not None else (*work.merged, work):
                self._closed(one)
            return False
        for one in group if group is not None else (*work.merged, work):
            one.open = False
            one.partition.open -= 1
        self._commits.look()
        return True

    def _closed(self, work: Work) -> None:
        """Nothing more comes of it here: its partition is not ours any more, or the subscription stopped."""
        for one in work.merged:
            self._closed(one)
        work.merged = []
        if work.open:
            work.open = False
            work.partition.open -= 1
        self._settled(work)
        if work.entry.ended is None:
            self._break_line(work)
        self._commits.look()

    def _finish(self, work: Work, outcome: Delivered | Skipped, now: float) -> None:
        """The vendor has it, or a connector had nothing to do."""
        if work.order is None:
            self._guard.succeeded()
        older, work.merged = work.merged, []
        for one in older:
            assert work.ready is not None
            self._told_settled(one, Skipped("merged"), now)
            self._record(one, "merged", "skipped", "merged", now, merged_into=work.ready.event.id)
        self._told_settled(work, outcome, now)
        skipped = isinstance(outcome, Skipped)
        ended: Ended = outcome.reason if isinstance(outcome, Skipped) else "delivered"
        self._record(
            work,
            ended,
            "skipped" if skipped else "delivered",
            outcome.reason if isinstance(outcome, Skipped) else outcome.note,
            now,
            reference=None if isinstance(outcome, Skipped) else outcome.reference,
            sent=not skipped,
            lane_over=1 + len(older),
            carried=[one.ready.route for one in older if one.ready is not None],
        )

    def _skip(self, work: Work, reason: Ended, *, event: Event | None = None, event_type: str = "") -> None:
        """Nothing is sent, on purpose. ``event`` where it was not projected."""
        assert reason in ("expired", "superseded", "discarded", "erased")
        self._told_settled(work, Skipped(reason), None, event_type)
        self._record(work, reason, "skipped", reason, None, lane_over=1, event=event, event_type=event_type)

    def _record(
        self,
        work: Work,
        ended: Ended,
        outcome: ReceiptOutcome,
        reason: str | None,
        now: float | None,
        *,
        reference: str | None = None,
        merged_into: str | None = None,
        sent: bool = False,
        lane_over: int = 0,
        event: Event | None = None,
        event_type: str = "",
        times: tuple[float, float] | None = None,
        carried: Sequence[Route] = (),
    ) -> None:
        """Write the receipt, and for a redriven one close its letter; the offset is finished when all is acked.

        ``lane_over``: so many of the lane are over with it. A lane does not wait for receipts; it does for the letter
        that is closed, which may be what parks the key. ``times``: when it was first tried and when it was over, in
        seconds since the epoch, where that was before. ``carried``: the routes of what was merged into it."""
        work.ended = ended
        # A discarded one was closed by a person; but a redrive that was on its way then may have written it anew.
        order = work.order
        closes = order is not None and (
            order.kind in ("discarded", "erased")
            or ((order.kind == "redrive" or order.letter is not None) and outcome in ("delivered", "skipped"))
        )
        work.acks = int(self._receipts) + int(closes)
        if closes:
            self._effects.close_letter(
                self._letter_record(work).origin, lambda error: self._letter_closing(work, error, lane_over, ended)
            )
        elif lane_over:
            self._lanes.finish(work.lane, lane_over)
        if self._receipts:
            wall = self._wall()
            first_at = work.attempts.first_at
            if times is None:
                times = (wall if first_at is None or now is None else wall - (now - first_at), wall)
            self._effects.write_receipt(
                Receipt(
                    record=work.record,
                    outcome=outcome,
                    reason=reason,
                    at=times[1],
                    first_at=times[0],
                    attempts=work.attempts.count,
                    event=event if work.ready is None else work.ready.event,
                    event_type=event_type,
                    route=None if work.ready is None else work.ready.route,
                    carried=carried,
                    delivery=work.delivery,
                    reference=reference,
                    order=work.order,
                    merged_into=merged_into,
                    sent=sent,
                ),
                lambda error: self._receipt_settled(work, error),
            )
        if not work.acks:
            self._finished(work, ended)

    def _receipt_settled(self, work: Work, error: str | None) -> None:
        if error is None:
            self._receipts_acked += 1
            self._acked(work)
            return
        self._closed(work)
        if work.partition.live:
            self._receipt_failed(error)

    def _receipt_failed(self, error: str) -> None:
        self.stop(
            f"a receipt cannot be written to {TOPIC} ({error}); nothing was passed over. Mend it, then: "
            f"backbone subscription resume {self._name}"
        )

    def _acked(self, work: Work) -> None:
        work.acks -= 1
        if work.acks:
            return
        if work.partition.live:
            self._finished(work, work.ended)
        else:
            self._closed(work)

    def _finished(self, work: Work, ended: Ended) -> None:
        """Everything about it is acked: its offset is finished, once all before it in its lane are.

        Acks come in any order, and what is finished beyond the committed offset is not sent again by the next owner:
        were n + 1 finished and n not, it would send n alone, and the vendor would end with the older one."""
        work.ended, work.acked = ended, True
        if work.blocked:
            self._closed(work)
            return
        self._open_one(work)
        self._move_line(work.lane.key)

    def _move_line(self, key: LaneKey) -> None:
        line = self._lines[key]
        while line and line[0].acked:
            first = line.popleft()
            first.partition.tracker.finish(first.entry, first.ended)
            first.partition.dirty = True
            self._closed(first)
        if not line:
            self._lines.pop(key, None)

    def _break_line(self, work: Work) -> None:
        """It ends here unfinished, and so does what is behind it: it is all read again by whoever is next."""
        line = self._lines.get(work.lane.key)
        if line is None or work not in line:
            return
        behind = []
        while (one := line.pop()) is not work:
            behind.append(one)
        for one in behind:
            one.blocked = True
            if one.acked:
                self._closed(one)
        if not line:
            self._lines.pop(work.lane.key, None)

    def _leave_lines(self, leaving: Sequence[Partition]) -> None:
        """Nothing of these partitions is finished any more; what is left of a lane goes on without them."""
        for key, line in list(self._lines.items()):
            if gone := [work for work in line if work.partition in leaving]:
                self._lines[key] = deque(work for work in line if work.partition not in leaving)
                for work in gone:
                    if work.acked:
                        self._closed(work)  # nothing else would: it waited for those before it alone
                self._move_line(key)

    def _settled(self, work: Work) -> None:
        if work.over:
            return
        work.over = True
        self.settled_records += 1
        self.settled_bytes += work.size
        if work.order is not None:
            self._inbox_open -= 1
            if self._inbox_full and self._inbox_open <= self._background_max / 2:
                self._inbox_full = False
                self._pause_inbox(False)
        elif work.background:
            self._catch_up_open -= 1
            if self._catch_up_full and self._catch_up_open <= self._background_max / 2:
                self._catch_up_full = False
                for place, partition in self._partitions.items():
                    if partition.until and not partition.paused:
                        self._effects.pause_partition(place, False)

    def _count_settled(self, record: Record) -> None:
        self.settled_records += 1
        self.settled_bytes += (len(record.value) if record.value else 0) + (len(record.key) if record.key else 0)

    def _told_settled(self, work: Work, outcome: Outcome, now: float | None, event_type: str = "") -> None:
        first_at, ready = work.attempts.first_at, work.ready
        at = work.record.timestamp / 1000 if ready is None else ready.event.time.timestamp()
        self._observe(
            facts.DeliverySettled(
                self._name,
                self._subscription.connection,
                "" if work.delivery is None else work.delivery.action,
                event_type if ready is None else ready.event.type,
                outcome,
                work.attempts.count,
                0.0 if first_at is None or now is None else now - first_at,
                self._wall() - at,
                work.record.origin,
                "" if ready is None else ready.event.id,
                None if ready is None else ready.event.traceparent,
            )
        )

    # ---- dead letters

    def _set_aside(
        self,
        group: Sequence[Work],
        outcome: DeadOutcome,
        reason: str,
        detail: str,
        event_type: str = "",
        now: float | None = None,
    ) -> None:
        """Write the dead letters of works at the head of a lane; the lane goes on, and their offsets may move, only
        when they are acked. They are open until then, so leaving a partition waits for it."""
        if self.stop_reason:
            for work in group:
                self._closed(work)
            return
        left = [len(group)]
        for work in group:
            first_at = work.attempts.first_at
            letter = letter_of(
                self._letter_record(work),
                outcome=outcome,
                reason=reason,
                detail=detail,
                attempts=work.attempts.count,
                seconds_tried=0.0 if first_at is None or now is None else now - first_at,
                version=f"{self._name}@{self._subscription.version}",
                now=datetime.fromtimestamp(self._wall(), UTC),
                redrives=_redrives(work, outcome),
            )
            self._held(work, "letter", reason)

            def settled(
                error: str | None, work: Work = work, letter: DeadLetter = letter, type_: str = event_type
            ) -> None:
                left[0] -= 1
                self._letter_settled(work, letter, error, type_, len(group) if not left[0] else 0)

            self._effects.write_letter(letter, settled)

    def _letter_record(self, work: Work) -> Record:
        """What the letter of a work holds, with the origin that is its id. An erasure is no event: its letter is about
        the order itself, as it stands in the inbox (or stood there when it was set aside before), and parks no key."""
        order = work.order
        if order is None or order.kind != "erase":
            return work.record
        place = order.letter or self._inbox_place(work)
        bare = replace(work.record, key=None)
        written = inbox_record(replace(order, letter=None), bare, partitions=1)
        return replace(
            bare, topic=place.topic, partition=place.partition, offset=place.offset, headers=tuple(written.headers)
        )

    def _letter_settled(
        self, work: Work, letter: DeadLetter, error: str | None, event_type: str, lane_over: int
    ) -> None:
        if error is not None:
            self._closed(work)
            self.stop(
                f"a dead letter cannot be written to {self._subscription.dead_topic} ({error}); nothing was "
                f"passed over. Mend it, then: backbone subscription resume {self._name}"
            )
            return
        type_ = work.ready.event.type if work.ready is not None else event_type
        self._observe(facts.DeadLettered(self._name, letter.outcome, letter.reason, str(letter.origin), type_))
        if not work.partition.live:
            self._closed(work)
            return
        if self._parks and work.erasure is None:
            self._letter_opened(work)
        self._told_settled(work, Rejected(letter.reason), None, event_type)
        lane = work.lane.key
        parked = letter.outcome == "parked"
        self._record(
            work,
            "parked" if parked else "dead",
            letter.outcome,  # type: ignore[arg-type]  # one of DeadOutcome: made here
            letter.reason,
            None,
            sent=work.attempts.count > 0,
            lane_over=lane_over,
            event_type=event_type,
        )
        if work.order is not None or parked:
            return
        if (too_many := self._guard.rejected(lane)) is not None:
            self.stop(
                f"{too_many}; the last for {letter.reason}. Look: backbone deadletter list {self._name}. Go on: "
                f"backbone subscription resume {self._name} --accept N"
            )

    def _letter_closing(self, work: Work, error: str | None, lane_over: int, ended: Ended) -> None:
        """The tombstone of a redriven letter was acked, or cannot be written."""
        if error is not None:
            self._closed(work)
            self.stop(
                f"a dead letter cannot be closed in {self._subscription.dead_topic} ({error}); its event was "
                f"delivered. Mend it, then: backbone subscription resume {self._name}"
            )
            return
        self._letter_closed(self._letter_record(work), "delivered" if ended == "delivered" else "superseded")
        if work.partition.live and lane_over:
            self._lanes.finish(work.lane, lane_over)
        self._acked(work)

    def _letter_opened(self, work: Work) -> None:
        before = self._parked.is_parked(work.source, work.record.key)
        self._parked.opened(work.source, work.record.key, work.record.offset)
        if not before and self._parked.is_parked(work.source, work.record.key):
            self._observe(facts.KeyParked(self._name, str(work.record.origin)))
            self._check_parked()

    def _letter_closed(self, record: Record, how: str) -> None:
        self._observe(facts.DeadLetterClosed(self._name, str(record.origin), how))  # type: ignore[arg-type]
        place = (record.topic, record.partition)
        before = self._parked.is_parked(place, record.key)
        self._parked.closed(place, record.key, record.offset)
        if before and not self._parked.is_parked(place, record.key):
            self._observe(facts.KeyUnparked(self._name, str(record.origin)))

    def _stays_parked(self, work: Work) -> bool:
        """Whether an open letter of its key is before it. A redriven event passes the letters behind it, its own
        among them; but when one before it has failed once more it waits behind that one as it did."""
        if work.order is None:
            return self._is_parked(work)
        if work.order.kind != "redrive":
            return False
        first = self._parked.first(work.source, work.record.key)
        return first is not None and first < work.record.offset

    def _is_parked(self, work: Work) -> bool:
        return self._parked.is_parked(work.source, work.record.key)

    def _check_parked(self) -> None:
        if len(self._parked) > PARKED_KEYS_MAX:
            self.stop(
                f"more than {PARKED_KEYS_MAX:,} keys are parked behind open dead letters. Look: backbone deadletter "
                f"list {self._name}. Close them, then: backbone subscription resume {self._name}"
            )

    # ---- offsets

    def commit_due(self) -> None:
        """Once a second: ranges first, each commit when its range is acked; and partitions that were too full go on."""
        for partition in list(self._partitions.values()):
            if partition.paused:
                self._unpause(partition)
        self._hand_over()  # by what was committed a second ago: what is due now is sent when its range is acked
        self._commits.due()
        if self._receipts_acked:
            self._observe(facts.ReceiptsWritten(self._name, self._receipts_acked))
            self._receipts_acked = 0

    def _hand_over(self) -> None:
        """Partitions that have caught up. A commit that was sent counts: should it not be taken, what is read again is
        catch-up again."""
        over = [
            partition
            for partition in self._partitions.values()
            if partition.until and not partition.handed_over and partition.is_committed(partition.until)
        ]
        if over:
            for partition in over:
                partition.handed_over = True
            self._effects.caught_up([partition.place for partition in over])

    def _unpause(self, partition: Partition) -> None:
        if partition.folding or self._is_full(partition):
            return
        lane_is_short = self._lanes.longest(*partition.place) < self._limits.lane_records_max / 2
        if lane_is_short and len(partition.tracker.metadata()) < METADATA_BYTES_MAX / 2:
            partition.paused = False
            self._effects.pause_partition(partition.place, False)

    def commit_failed(self, reason: str) -> None:
        """A commit was not taken; what is due then is committed with the next ones."""
        self._commits.refused()
        self._observe(facts.CommitFailed(self._name, reason))

    # ---- what people see

    def _held(self, work: Work, why: str, reason: str) -> None:
        if work.held_since is None or work.held_why != why:
            work.held_since = self._wall()
        work.held_why, work.reason = why, reason  # type: ignore[assignment]  # HeldWhy, by the callers here

    def oldest_at(self) -> float | None:
        """The timestamp of the oldest record at the head of a lane, seconds since the epoch. Looks at every lane."""
        return min((lane.queue[0].record.timestamp / 1000 for lane in self._lanes.all()), default=None)

    def view(self, now: float) -> SubscriptionView:
        """The subscription as it stands, for the heartbeat; rates and the slowest projection since the last one."""
        held = held_lanes(self._lanes.all(), now=now, wall=self._wall())
        since, records = self._viewed
        self._viewed = (now, self.settled_records)
        slowest, self._slowest_s = self._slowest_s, 0.0
        seconds = now - since
        catch_up = [partition.catch_up_left for partition in self._partitions.values()]
        return SubscriptionView(
            name=self._name,
            version=self._subscription.version,
            state="stopped" if self.stop_reason else "running" if self._partitions else "waiting",
            reason=self.stop_reason,
            partitions=sum(place[0] != self._inbox for place in self._partitions),
            unfinished=self.unfinished,
            lanes=len(self._lanes),
            held=tuple(held[:HELD_MAX]),
            held_total=len(held),
            parked_keys=len(self._parked),
            parked=parked_keys(self._parked),
            oldest_at=self.oldest_at(),
            slow_projection_s=slowest,
            records_per_s=(self.settled_records - records) / seconds if since and seconds > 0 else 0.0,
            catching_up=sum(left > 0 for left in catch_up),
            catch_up_left=sum(catch_up),
        )

    @property
    def places(self) -> Mapping[Place, int]:
        """The partitions owned now, with their epochs."""
        return {place: partition.epoch for place, partition in self._partitions.items()}
