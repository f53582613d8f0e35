"""One subscription on the event loop: records in, lanes, deliveries, outcomes settled, offsets to commit.

The Kafka side is ``consumers/kafka.py``; the decisions are the pure cores ``settlement``, ``lanes``, ``offsets`` and
``pipeline``. Nothing here blocks, and nothing per event makes a thread hop, a task, a future or a log line.
An inbox (redrive, replay), merging, receipts and parked keys are to come in between ``receive`` and ``_finish``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from connectors.connection import Connection
from connectors.connector import Delivered, Outcome, Rejected, RetryLater, Skipped, Unavailable, Unknown
from consumers import facts
from consumers.awaited_schemas import AwaitedSchemas
from consumers.batches import Batches
from consumers.control import Begin, NoPosition
from consumers.deadletter import DeadLetter, letter_of
from consumers.kafka import Assigned, Commit, Handover, Owner, Place
from consumers.lanes import Lane, Lanes
from consumers.letters import Letters, Producer
from consumers.offsets import METADATA_BYTES_MAX, Entry
from consumers.pipeline import NotOurs, Pipeline, Refused, ToDeliver, Wanted
from consumers.settlement import (
    DeadOutcome,
    Decision,
    Finish,
    Halve,
    Hold,
    PauseConnection,
    RejectionGuard,
    SetAside,
    StopConnection,
    decide,
)
from consumers.subscription import Subscription
from consumers.work import Limits, Partition, Work
from schemas.codec import SchemaWanted
from schemas.event import Record


class Runtime:
    """Runs one subscription until it is closed. Made and used on the event loop.

    ``resolve`` and ``started`` are called on the Kafka thread (see Owner); ``load_schema`` in a worker thread;
    ``stopped`` on the loop, once, when the subscription cannot go on by itself."""

    def __init__(
        self,
        *,
        subscription: Subscription,
        pipeline: Pipeline,
        connection: Connection,
        producer: Producer,
        kafka: Mapping[str, Any],
        resolve: Callable[[Mapping[Place, int | None]], Mapping[Place, Begin | NoPosition]],
        started: Callable[[Mapping[Place, int]], None],
        load_schema: Callable[[SchemaWanted], None],
        stopped: Callable[[str], None],
        observer: facts.Observer,
        accept: int = 0,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settled_records = self.settled_bytes = 0
        self.stop_reason = ""
        self.oldest_at: float | None = None
        """the timestamp of the oldest record that waits at the head of a lane, seconds since the epoch, as of the last
        second; read by other threads"""
        self.limits = limits or Limits()
        self._subscription, self._pipeline, self._connection = subscription, pipeline, connection
        self._name, self._kind = subscription.name, subscription.connector
        self._on_stop = stopped
        self._observe, self._clock, self._chance = observer, clock, chance
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[Place, Partition] = {}
        self._lanes: Lanes[Work] = Lanes()
        self._guard = RejectionGuard(accept=accept)
        self._batches = Batches(self._kind.batch_max)
        self._idle: deque[asyncio.Future[None]] = deque()
        self._letters = Letters(subscription.dead_topic, producer)
        self._schemas = AwaitedSchemas(
            load=load_schema,
            release=self._schema_arrived,
            spawn=self._spawn,
            limits=self.limits,
            clock=clock,
            chance=chance,
        )
        self._drains: list[tuple[list[Partition], Future[Sequence[Commit]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._owner = Owner(
            settings=kafka,
            group=self._name,
            topics=subscription.topics,
            reader=self,
            loop=self._loop,
            resolve=resolve,
            started=started,
            drain_s=self.limits.drain_s,
            records_max=self.limits.records_max,
            bytes_max=self.limits.bytes_max,
            log=logging.getLogger("kafka"),
        )

    def start(self) -> None:
        for _ in range(self._connection.calls_max):
            self._spawn(self._deliver_batches())
        self._spawn(self._commit_regularly())
        self._owner.start()
        self._observe(facts.SubscriptionStarted(self._name, self._subscription.version))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger("backbone").error("a task of %s failed", self._name, exc_info=error)
            self.stop(f"an error of the backbone itself ({type(error).__name__}); see the log")

    @property
    def unfinished(self) -> int:
        """Records taken in and not settled."""
        return sum(partition.tracker.unfinished for partition in self._partitions.values())

    @property
    def lanes_held(self) -> int:
        return self._lanes.held

    # ---- what the Kafka thread says (consumers.kafka.Reader)

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        for one in partitions:
            self._partitions[one.place] = Partition(one)
            if self.stop_reason:
                self._partitions[one.place].admitting = False
        self._observe(facts.PartitionsAssigned(self._name, tuple(one.place for one in partitions)))

    def receive(self, handover: Handover) -> None:
        """Take records into their lanes. What belongs to an older epoch, or to a partition that is being left, is
        dropped whole: it is read again by whoever is assigned next."""
        not_ours = 0
        partitions, epochs = self._partitions, handover.epochs
        open_places = {
            place: partition
            for place, partition in partitions.items()
            if partition.admitting and partition.epoch == epochs.get(place)
        }
        for record in handover.records:
            partition = open_places.get((record.topic, record.partition))
            if partition is None:
                self._settled(record)
                continue
            entry = partition.tracker.fetched(record.offset)
            if entry is None:
                partition.dirty = True
                self._settled(record)
            elif self._pipeline.route(record) is False:
                self._finished(partition, entry, record)
                not_ours += 1
            else:
                work = Work(partition, entry, record)
                key = record.offset if record.key is None else record.key
                work.lane = self._lanes.add((record.topic, record.partition, key), work)
                if len(work.lane.queue) >= self.limits.lane_records_max and not partition.paused:
                    partition.paused = True
                    self._owner.pause(partition.place, True)
        for place, position in handover.positions.items():
            if (partition := open_places.get(place)) is not None:
                partition.tracker.read_to(position)
                partition.dirty = True
        if not_ours:
            self._observe(facts.RecordsNotOurs(self._name, not_ours))
        self._pump()

    def revoke(self, places: Sequence[Place], reply: Future[Sequence[Commit]]) -> None:
        """Stop admitting, let what is in flight end (at most ``drain_s``), then answer what may be committed."""
        leaving = [self._partitions[place] for place in places if place in self._partitions]
        self._close_admission(leaving)
        self._drains.append((leaving, reply))
        self._loop.call_later(self.limits.drain_s, self._drained, leaving, reply)
        self._check_drains()

    def _check_drains(self) -> None:
        for leaving, reply in list(self._drains):
            if not any(partition.in_flight for partition in leaving):
                self._drained(leaving, reply)

    def _drained(self, leaving: list[Partition], reply: Future[Sequence[Commit]]) -> None:
        if reply.done():
            return
        self._drains = [drain for drain in self._drains if drain[1] is not reply]
        commits = [Commit(p.place, p.epoch, p.tracker.committable(), p.tracker.metadata()) for p in leaving if p.live]
        drained = not any(partition.in_flight for partition in leaving)
        for partition in leaving:
            partition.live = False
            if self._partitions.get(partition.place) is partition:
                del self._partitions[partition.place]
        reply.set_result(commits)
        if leaving:
            self._observe(facts.PartitionsRevoked(self._name, tuple(p.place for p in leaving), drained))

    def lost(self, places: Sequence[Place]) -> None:
        """Somebody else has them already: forget everything, commit nothing."""
        leaving = [self._partitions.pop(place) for place in places if place in self._partitions]
        self._close_admission(leaving)
        for partition in leaving:
            partition.live = False
        if leaving:
            self._observe(facts.PartitionsRevoked(self._name, tuple(p.place for p in leaving), False))

    def _close_admission(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            partition.admitting = False
            for work in self._lanes.drop(*partition.place):
                if not work.in_flight:
                    self._settled(work.record)

    def commit_failed(self, reason: str) -> None:
        # the same offsets are not sent again (they may be another member's by now): what is due now for the
        # partitions that are still ours is, so that a quiet topic's lag ends when the broker is back
        for partition in self._partitions.values():
            partition.not_committed()
        self._observe(facts.CommitFailed(self._name, reason))

    def stop(self, reason: str) -> None:
        """Deliver nothing more and stay a member: what is in flight ends, what waits is dropped and read again."""
        if self.stop_reason:
            return
        self.hold(reason)
        self._observe(facts.SubscriptionStopped(self._name, reason))
        self._on_stop(reason)

    def hold(self, reason: str) -> None:
        """The same without telling: somebody else has stopped or paused the subscription."""
        self.stop_reason = reason
        self._owner.hold(True)
        self._close_admission(list(self._partitions.values()))

    async def close(self, reason: str) -> bool:
        """Leave the group: drain, commit, stop the thread and the tasks. False when draining took too long."""
        in_time = await asyncio.to_thread(self._owner.close, self.limits.drain_s + 15)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in (self._flush_timer, self._due_timer):
            if timer is not None:
                timer.cancel()
        self._observe(facts.SubscriptionLeft(self._name, reason))
        return in_time

    # ---- lanes to batches

    def _pump(self) -> None:
        """Project the heads of ready lanes into batches, as many as there may be calls for."""
        self._lanes.due(self._clock())
        room = self._connection.calls_max
        while len(self._batches.ready) < room and (lane := self._lanes.take()) is not None:
            self._prepare(lane)
        if self._batches.forming and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self.limits.batch_wait_s, self._flush)
        self._wake_idle()
        self._arm_due()

    def _wake_idle(self) -> None:
        for _ in range(min(len(self._batches.ready), len(self._idle))):
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _arm_due(self) -> None:
        due = self._lanes.next_due()
        if due is None or (self._due_timer is not None and self._due_at <= due):
            return
        if self._due_timer is not None:
            self._due_timer.cancel()
        self._due_at = due
        self._due_timer = self._loop.call_later(max(0.0, due - self._clock()), self._due)

    def _due(self) -> None:
        self._due_timer = None
        self._pump()

    def _prepare(self, lane: Lane[Work]) -> None:
        work = lane.queue[0]
        if work.delivery is None and not self._project(work):
            return
        self._batches.add(work)

    def _flush(self) -> None:
        self._flush_timer = None
        self._batches.flush()
        self._wake_idle()

    def _project(self, work: Work) -> bool:
        """Decode and project; False when there is nothing to send (yet)."""
        began = time.perf_counter()
        projection = self._pipeline.project(work.record)
        took = time.perf_counter() - began
        match projection:
            case ToDeliver():
                work.delivery = projection.delivery
                work.event_type = projection.event.type
                work.event_time = projection.event.time.timestamp()
                if took > self.limits.slow_projection_s:
                    self._observe(facts.SlowProjection(self._name, work.event_type, took))
                return True
            case NotOurs():
                self._finished(work.partition, work.entry, work.record)
                self._lanes.finish(work.lane)
                self._observe(facts.RecordsNotOurs(self._name, 1))
            case Wanted():
                if not self._schemas.is_missing(projection.schema):
                    self._schemas.wait(work, projection.schema)
                else:
                    self._depart(work)
                    self._set_aside(work, "undecodable", "schema_unknown", str(projection.schema.key))
            case Refused():
                work.event_type = projection.event_type
                self._depart(work)
                self._set_aside(work, projection.kind, projection.rejected.reason, projection.rejected.detail)
        return False

    def _schema_arrived(self, waited: Sequence[Work]) -> None:
        for work in waited:
            self._lanes.release(work.lane)
        self._pump()

    # ---- batches to the vendor

    async def _deliver_batches(self) -> None:
        """One of the connection's callers: takes batches as long as the subscription runs."""
        ready = self._batches.ready
        while True:
            while not ready:
                idle: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(idle)
                await idle
            await self._connection.enter()
            try:
                if ready:
                    await self._deliver(ready.popleft())
            finally:
                self._connection.leave()
            self._pump()

    async def _deliver(self, waiting: list[Work]) -> None:
        if self._clock() - self._owner.last_poll > self.limits.zombie_after_s and not await self._still_member():
            for work in waiting:
                self._lanes.release(work.lane)
            return
        batch = [work for work in waiting if work.partition.admitting]
        if not batch:
            return
        began = self._clock()
        deliveries = []
        for work in batch:
            assert work.delivery is not None
            self._depart(work)
            work.succeeded = self._connection.succeeded
            deliveries.append(work.delivery)
            if work.attempts.first_at is None:
                work.attempts.first_at = began
        outcomes = await self._connection.call(deliveries)
        now = self._clock()
        worst = max(outcomes, key=_badness)
        self._observe(
            facts.CallMade(
                self._name,
                self._connection.name,
                deliveries[0].action,
                len(deliveries),
                now - began,
                type(worst).__name__,
                deliveries[0].idempotency_key,
            )
        )
        if any(_vendor_is_there(outcome) for outcome in outcomes):
            self._connection.worked(sum(isinstance(outcome, Delivered) for outcome in outcomes))
        self._settle(batch, outcomes, now)

    async def _still_member(self) -> bool:
        """The zombie guard: a process that was frozen learns from one commit whether its partitions are still its."""
        return await asyncio.wrap_future(self._owner.prove())

    def _settle(self, batch: list[Work], outcomes: Sequence[Outcome], now: float) -> None:
        refused: list[Work] = []
        holds: list[tuple[Work, float]] = []
        for work, outcome in zip(batch, outcomes, strict=True):
            if not work.partition.live:
                self._arrive(work)  # of an old epoch: whoever has the partition now delivers it again
                self._settled(work.record)
                continue
            decision: Decision = decide(
                outcome,
                work.attempts,
                self._subscription.policies,
                now=now,
                alone=len(batch) == 1,
                others_succeed=self._connection.succeeded > work.succeeded,
                random=self._chance,
            )
            match decision:
                case Finish():
                    self._finish(work, decision.outcome, now)
                case SetAside():
                    self._set_aside(work, decision.outcome, decision.reason, decision.detail)
                case Hold():
                    holds.append((work, decision.seconds))
                    self._told_held(work, outcome)
                case PauseConnection():
                    self._connection.pause(decision.seconds, decision.reason)
                    self._again(work)
                case StopConnection():
                    self._connection.stop(decision.reason)
                    self._again(work)
                case Halve():
                    refused.append(work)
        if refused:
            self._batches.halve([work for work in refused if self._arrive_waiting(work)])
        # A call that failed as a whole gives its lanes one due time, so that they are one batch again.
        together = max(seconds for _, seconds in holds) if len(holds) == len(batch) else None
        for work, seconds in holds:
            if self._arrive_waiting(work):
                self._lanes.hold(work.lane, now + (seconds if together is None else together))

    def _again(self, work: Work) -> None:
        if self._arrive_waiting(work):
            self._lanes.release(work.lane)

    def _told_held(self, work: Work, outcome: Outcome) -> None:
        assert work.delivery is not None
        self._observe(
            facts.DeliveryHeld(
                self._name,
                self._connection.name,
                work.delivery.action,
                work.event_type,
                outcome,
                work.attempts.count,
            )
        )

    # ---- what is in flight, and what is over

    def _depart(self, work: Work) -> None:
        work.in_flight = True
        work.partition.in_flight += 1

    def _arrive(self, work: Work) -> None:
        work.in_flight = False
        work.partition.in_flight -= 1
        if self._drains and not work.partition.in_flight:
            self._check_drains()

    def _arrive_waiting(self, work: Work) -> bool:
        """It is not over and waits again; False when its lane was dropped meanwhile (left, stopped)."""
        if not work.partition.admitting:
            self._settled(work.record)
            self._arrive(work)
            return False
        self._arrive(work)
        return True

    def _finish(self, work: Work, outcome: Delivered | Skipped, now: float) -> None:
        self._guard.succeeded()
        self._told_settled(work, outcome, now)
        self._over(work)

    def _over(self, work: Work) -> None:
        self._finished(work.partition, work.entry, work.record)
        self._lanes.finish(work.lane)
        self._arrive(work)

    def _finished(self, partition: Partition, entry: Entry, record: Record) -> None:
        partition.tracker.finish(entry)
        partition.dirty = True
        self._settled(record)

    def _settled(self, record: Record) -> None:
        self.settled_records += 1
        self.settled_bytes += (len(record.value) if record.value else 0) + (len(record.key) if record.key else 0)

    def _told_settled(self, work: Work, outcome: Outcome, now: float) -> None:
        delivery, first_at = work.delivery, work.attempts.first_at
        self._observe(
            facts.DeliverySettled(
                self._name,
                self._connection.name,
                "" if delivery is None else delivery.action,
                work.event_type,
                outcome,
                work.attempts.count,
                0.0 if first_at is None else now - first_at,
                time.time() - (work.event_time or work.record.timestamp / 1000),
            )
        )

    # ---- dead letters

    def _set_aside(self, work: Work, outcome: DeadOutcome, reason: str, detail: str) -> None:
        """Write the dead letter; its lane goes on, and its offset may move, only when it is acked. ``work`` is in
        flight until then, so leaving a partition waits for it."""
        if self.stop_reason:
            self._settled(work.record)
            self._arrive(work)
            return
        first_at = work.attempts.first_at
        letter = letter_of(
            work.record,
            outcome=outcome,
            reason=reason,
            detail=detail,
            attempts=work.attempts.count,
            seconds_tried=0.0 if first_at is None else self._clock() - first_at,
            version=f"{self._name}@{self._subscription.version}",
            now=datetime.now(UTC),
        )
        self._letters.write(letter, lambda error: self._letter_settled(work, letter, error))

    def _letter_settled(self, work: Work, letter: DeadLetter, error: str | None) -> None:
        if error is not None:
            self._settled(work.record)
            self._arrive(work)
            self.stop(
                f"a dead letter cannot be written to {self._subscription.dead_topic} ({error}); nothing was "
                f"passed over. Mend it, then: backbone subscription resume {self._name}"
            )
            return
        self._observe(
            facts.DeadLettered(self._name, letter.outcome, letter.reason, str(letter.origin), work.event_type)
        )
        if not work.partition.live:
            self._settled(work.record)
            self._arrive(work)
            return
        self._told_settled(work, Rejected(letter.reason), self._clock())
        lane = work.lane.key
        self._over(work)
        if (too_many := self._guard.rejected(lane)) is not None:
            self.stop(
                f"{too_many}; the last for {letter.reason}. Look: backbone deadletter list {self._name}. Go on: "
                f"backbone subscription resume {self._name} --accept N"
            )
        self._pump()

    # ---- offsets

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.limits.commit_every_s)
            self.oldest_at = min((lane.queue[0].record.timestamp / 1000 for lane in self._lanes.all()), default=None)
            commits = []
            for partition in list(self._partitions.values()):
                if partition.paused:
                    self._unpause(partition)
                due = partition.take_due()
                if due is not None:
                    commits.append(Commit(partition.place, partition.epoch, *due))
                    if len(due[1]) > METADATA_BYTES_MAX * 0.9 and not partition.paused:
                        partition.paused = True
                        self._owner.pause(partition.place, True)
            if commits:
                self._owner.commit(commits)

    def _unpause(self, partition: Partition) -> None:
        lane_is_short = self._lanes.longest(*partition.place) < self.limits.lane_records_max / 2
        if lane_is_short and len(partition.tracker.metadata()) < METADATA_BYTES_MAX / 2:
            partition.paused = False
            self._owner.pause(partition.place, False)


_BADNESS = {kind: n for n, kind in enumerate((Delivered, Skipped, RetryLater, Unknown, Rejected, Unavailable))}


def _badness(outcome: Outcome) -> int:
    return _BADNESS[type(outcome)]


def _vendor_is_there(outcome: Outcome) -> bool:
    match outcome:
        case Delivered() | RetryLater() | Rejected() | Unavailable(scope="entity"):
            return True
        case _:
            return False
