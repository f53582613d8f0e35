"""One subscription on the event loop: the rim around ``consumers/flow.py``.

The Kafka side is ``consumers/kafka.py``, the vendor side a seat at ``connectors/connection.py``; everything that is
decided, is decided in the flow. Nothing here blocks, and nothing per event makes a thread hop or a log line.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, ParamSpec

from connectors.connection import Connection
from connectors.connector import Outcome
from connectors.exchanges import Exchange, note_exchanges
from consumers import facts
from consumers.assignment import Assigned, Commit, Handover, Place
from consumers.awaited_schemas import AwaitedSchemas
from consumers.batches import Batch
from consumers.calls import asked
from consumers.control import Begin, NoPosition, inbox_topic
from consumers.deadletter import DeadLetter
from consumers.erased import Erased
from consumers.erasure import Unseal
from consumers.flow import Flow, Reader, Settled
from consumers.folding import Folds
from consumers.heartbeat import SubscriptionView
from consumers.kafka import OpenLetters, Owner
from consumers.letters import Letters
from consumers.past import PastReader
from consumers.receipt_writer import ReceiptWriter
from consumers.receipts import RangeSettled, Receipt
from consumers.sender import Producer
from consumers.settlement import PauseConnection
from consumers.spill import SpillError
from consumers.subscription import Subscription
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.event import Origin, Record

_BADNESS = ("Delivered", "Skipped", "RetryLater", "Unknown", "Rejected", "Unavailable")
_P = ParamSpec("_P")


def _or_stop(method: Callable[Concatenate[Runtime, _P], None]) -> Callable[Concatenate[Runtime, _P], None]:
    """What the event loop calls by itself. An exception there would only be logged: a handover taken in half-way, and
    its other records passed over when later positions are committed."""

    def call(self: Runtime, /, *arguments: _P.args, **named: _P.kwargs) -> None:
        try:
            method(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be committed after it
            self._failed(error)

    return call


class Runtime:
    """Runs one subscription until it is closed. Made and used on the event loop.

    ``resolve``, ``started`` and ``open_letters`` are called on the Kafka thread (see Owner); ``load_schema`` in a
    worker thread; ``stopped`` on the loop, once, when the subscription cannot go on by itself; ``caught_up`` on the
    loop, with partitions that are handed over to live. ``receipts`` None: it leaves none, for it reads the backbone's
    own topics. ``erased`` and ``unseal`` as the flow has them."""

    def __init__(
        self,
        *,
        subscription: Subscription,
        pipeline: Reader,
        connection: Connection,
        producer: Producer,
        receipts: ReceiptWriter | None,
        kafka: Mapping[str, Any],
        resolve: Callable[[Mapping[Place, int | None]], Mapping[Place, Begin | NoPosition]],
        started: Callable[[Mapping[Place, int]], None],
        load_schema: Callable[[SchemaWanted], None],
        stopped: Callable[[str], None],
        caught_up: Callable[[Sequence[Place]], None],
        observer: facts.Observer,
        open_letters: OpenLetters | None = None,
        accept: int = 0,
        erased: Erased | None = None,
        unseal: Unseal | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits or Limits()
        self.oldest_at: float | None = None
        """the timestamp of the oldest record that waits at the head of a lane, seconds since the epoch, as of the last
        second; read by other threads"""
        self._subscription, self._connection = subscription, connection
        self._name, self._on_stop = subscription.name, stopped
        self._on_caught_up = caught_up
        self._observe, self._clock = observer, clock
        self._loop = asyncio.get_running_loop()
        self._letters = Letters(subscription.dead_topic, producer)
        self._receipts = receipts
        self._seat = connection.join(self._name, wake=self._pump)
        self._folds = Folds(
            subscription=subscription,
            pipeline=pipeline,
            effects=self,
            observer=observer,
            limits=self.limits,
            chance=chance,
            accept=accept,
            erased=erased,
        )
        self._flow = Flow(
            subscription=subscription,
            pipeline=pipeline,
            effects=self,
            observer=observer,
            limits=self.limits,
            chance=chance,
            accept=accept,
            receipts=receipts is not None,
            erased=erased,
            unseal=unseal,
            past=self._folds,
        )
        self._past = PastReader(
            kafka,
            loop=self._loop,
            take=self._take_past,
            taken=lambda: self._folds.taken,
            lost=self._past_lost,
            log=logging.getLogger("kafka"),
        )
        self._schemas = AwaitedSchemas(
            load=load_schema,
            release=self._schema_arrived,
            spawn=self._spawn,
            limits=self.limits,
            clock=clock,
            chance=chance,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pump_soon = self._fold_soon = False
        self._owner = Owner(
            settings=kafka,
            group=self._name,
            topics=(*subscription.topics, inbox_topic(self._name)),
            reader=self,
            loop=self._loop,
            resolve=resolve,
            started=started,
            drain_s=self.limits.drain_s,
            records_max=self.limits.records_max,
            bytes_max=self.limits.bytes_max,
            log=logging.getLogger("kafka"),
            open_letters=open_letters if subscription.policies.on_dead_letter == "park_key" else None,
        )

    def start(self) -> None:
        self._spawn(self._every_second())
        self._owner.start()
        self._observe(facts.SubscriptionStarted(self._name, self._subscription.version))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        logging.getLogger("backbone").error("%s failed", self._name, exc_info=error)
        self._owner.hold(True)
        if isinstance(error, SpillError):
            self.stop(
                f"what is folded cannot be kept in the folder for temporary files ({error.args[0]}); nothing was "
                f"passed over. Make room there (TMPDIR), then: backbone subscription resume {self._name}"
            )
            return
        self.stop(f"an error of the backbone itself ({type(error).__name__}); see the log")

    @property
    def stop_reason(self) -> str:
        return self._flow.stop_reason

    @property
    def unfinished(self) -> int:
        """Records taken in and not settled."""
        return self._flow.unfinished

    @property
    def lanes_held(self) -> int:
        return self._flow.lanes_held

    @property
    def keys_parked(self) -> int:
        return self._flow.keys_parked

    @property
    def places(self) -> Mapping[Place, int]:
        """The partitions owned now."""
        return self._flow.places

    def view(self) -> SubscriptionView:
        """The subscription in this process, for the heartbeat."""
        view, progress = self._flow.view(self._clock()), self._folds.progress()
        if progress is None:
            return view
        return replace(
            view,
            fold_read=progress.read,
            fold_to_read=progress.to_read,
            fold_sent=progress.sent,
            fold_to_send=progress.rows,
        )

    def renew(self, username: str, password: str) -> None:
        """Kafka's credentials from the next connection on."""
        self._owner.renew(username, password)
        self._past.renew(username, password)

    def share(self, share: float) -> None:
        """This subscription's part of the connection's quota in this process, 0..1."""
        self._seat.share = share

    # ---- what the Kafka thread says (consumers.kafka.Reader)

    @property
    def settled_records(self) -> int:
        return self._flow.settled_records

    @property
    def settled_bytes(self) -> int:
        return self._flow.settled_bytes

    @_or_stop
    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self._flow.assigned(partitions)
        if not self._flow.stop_reason:
            self._folds.begin(partitions)
            self._fold_on()

    @_or_stop
    def receive(self, handover: Handover) -> None:
        self._flow.receive(handover, self._clock())
        self._pump()

    @_or_stop
    def revoke(self, places: Sequence[Place], reply: Future[Sequence[Commit]]) -> None:
        answers: list[Sequence[Commit]] = []

        def answered(commits: Sequence[Commit] = ()) -> None:
            answers.append(commits)
            if len(answers) == 2:
                reply.set_result([commit for commits in answers for commit in commits])

        folds = self._folds.revoke(places, answered)
        drain = self._flow.revoke(places, answered)
        self._fold_on()
        if not reply.done():
            self._loop.call_later(self.limits.drain_s, self._folds.end_drain, folds)
            self._loop.call_later(self.limits.drain_s, self._flow.end_drain, drain)

    @_or_stop
    def lost(self, places: Sequence[Place]) -> None:
        self._folds.lost(places)
        self._flow.lost(places)

    @_or_stop
    def commit_failed(self, reason: str) -> None:
        self._flow.commit_failed(reason)

    def stop(self, reason: str) -> None:
        """Deliver nothing more and stay a member: what is open ends, what waits is dropped and read again."""
        self._flow.stop(reason)

    def hold(self, reason: str) -> None:
        """The same without telling: somebody else has stopped or paused the subscription."""
        self._folds.hold(reason)
        self._flow.hold(reason)
        self._owner.hold(True)

    async def close(self, reason: str) -> bool:
        """Leave the group: drain, commit, stop the thread and the tasks. False when draining took too long."""
        in_time = await asyncio.to_thread(self._owner.close, self.limits.drain_s + 15)
        await asyncio.to_thread(self._past.close)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._folds.close()
        self._seat.close()
        if self._receipts is not None:
            self._receipts.close()
        self._observe(facts.SubscriptionLeft(self._name, reason))
        return in_time

    # ---- batches to the vendor

    @_or_stop
    def _pump(self) -> None:
        """Make as many calls as there may be, live ones first."""
        seat, now = self._seat, self._clock()
        for flow, background, turn in self._turns:
            while flow.waiting(background=background) and seat.try_enter(background=turn):
                batch = flow.next_batch(now, background=background)
                if batch is None:
                    seat.leave()
                    if flow.has_more(background=background):
                        self._pump_again()  # so many in a row had nothing to send that it was enough for one go
                    break
                self._spawn(self._deliver(flow, batch))
        self._arm()

    @property
    def _turns(self) -> tuple[tuple[Flow, bool, bool], ...]:
        """Whose turn it is, the first first: a flow, its class, and the class it has at the connection. What is folded
        is behind what a person has asked for."""
        return ((self._flow, False, False), (self._flow, True, True), (self._folds.flow, False, True))

    def _arm(self) -> None:
        dues = [due for flow in (self._flow, self._folds.flow) if (due := flow.next_due()) is not None]
        due = min(dues, default=None)
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._due)

    @_or_stop
    def _due(self) -> None:
        self._timer = None
        self._flow.due(self._clock())
        self._folds.flow.due(self._clock())
        self._pump()

    async def _deliver(self, flow: Flow, first: Batch) -> None:
        """One call after the other while there is something to send: a task for each would cost more than its lane."""
        following: tuple[Flow, Batch] | None = (flow, first)
        while following is not None:
            try:
                await self._call(*following)
            except BaseException:
                self._seat.leave()
                raise
            following = self._next()

    async def _call(self, flow: Flow, batch: Batch) -> None:
        if self._clock() - self._owner.last_poll > self.limits.zombie_after_s and not await self._still_member():
            flow.give_back(batch)
        elif batch.look_up:
            exchanges = note_exchanges()
            found = await self._seat.look_up(batch.deliveries[0])
            self._told_call(batch, [found], exchanges)
            self._for_connection(flow.look_up_settled(batch, found, self._clock()))
        else:
            succeeded = self._connection.succeeded
            exchanges = note_exchanges()
            outcomes = await self._seat.call(batch.deliveries)
            self._told_call(batch, outcomes, exchanges)
            self._for_connection(
                flow.settle(batch, outcomes, self._clock(), others_succeed=self._connection.succeeded > succeeded)
            )
        if flow is not self._flow:
            self._fold_on()

    def _next(self) -> tuple[Flow, Batch] | None:
        """The place of a call that ended is the next one's, if there is one; what else may be sent gets calls of its
        own."""
        seat, following = self._seat, None
        turns = [turn for turn in self._turns if turn[0].waiting(background=turn[1])]
        if not turns:
            seat.leave()
        else:
            flow, background, turn = turns[0]
            if seat.go_on(background=turn):
                batch = flow.next_batch(self._clock(), background=background)
                if batch is None:
                    seat.leave()
                else:
                    following = (flow, batch)
        self._pump()
        return following

    def _for_connection(self, decisions: Sequence[Any]) -> None:
        for decision in decisions:
            if isinstance(decision, PauseConnection):
                self._connection.pause(decision.seconds, decision.reason)
            else:
                self._connection.stop(decision.reason)

    def _told_call(self, batch: Batch, outcomes: Sequence[Outcome | None], exchanges: Sequence[Exchange]) -> None:
        first, work = batch.deliveries[0], batch.works[0]
        worst = outcomes[0] if len(outcomes) == 1 else max(outcomes, key=_badness)
        self._observe(
            facts.CallMade(
                self._name,
                self._connection.name,
                first.action,
                len(batch.deliveries),
                self._clock() - batch.began,
                "NotThere" if worst is None else type(worst).__name__,
                first.idempotency_key,
                work.attempts.count + 1,
                None if work.ready is None else work.ready.event.traceparent,
                exchanges,
                batch.look_up,
                partial(asked, batch, outcomes),
            )
        )

    async def _still_member(self) -> bool:
        """The zombie guard: a process that was frozen learns from one commit whether its partitions are still its."""
        return await asyncio.wrap_future(self._owner.prove())

    @_or_stop
    def _schema_arrived(self, waited: Sequence[Work | None]) -> None:
        self._flow.go_on([work for work in waited if work is not None])
        if None in waited:
            self._folds.go_on()
            self._fold_on()
        self._pump()

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(self.limits.commit_every_s)
            self.oldest_at = self._flow.oldest_at()
            self._folds.commit_due()
            self._flow.commit_due()
            self._fold_on()

    # ---- what the flow asks for (consumers.flow.Effects)

    def write_letter(self, letter: DeadLetter, settled: Settled) -> None:
        self._letters.write(letter, partial(self._answered, settled))

    def close_letter(self, origin: Origin, settled: Settled) -> None:
        self._letters.close(origin, partial(self._answered, settled))

    def write_receipt(self, receipt: Receipt, settled: Settled) -> None:
        assert self._receipts is not None
        self._receipts.write(receipt, settled)  # no lane waits for it

    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None:
        assert self._receipts is not None
        self._receipts.write_range(settled_range, settled)

    @_or_stop
    def _answered(self, settled: Settled, error: str | None) -> None:
        settled(error)
        self._pump_again()

    def _pump_again(self) -> None:
        if not self._pump_soon:
            self._pump_soon = True
            self._loop.call_soon(self._pump_once)

    def _pump_once(self) -> None:
        self._pump_soon = False
        self._pump()

    def commit(self, commits: Sequence[Commit]) -> None:
        self._owner.commit(commits)

    def pause_partition(self, place: Place, paused: bool) -> None:
        self._owner.pause(place, paused)

    def is_missing(self, wanted: SchemaWanted) -> bool:
        return self._schemas.is_missing(wanted)

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        self._schemas.wait(work, wanted)

    def caught_up(self, places: Sequence[Place]) -> None:
        self._folds.forget(places)
        self._on_caught_up(places)

    # ---- the past, folded (consumers.folding.Effects)

    def read_past(self, ticket: int, place: Place, start: int, until: int) -> None:
        self._past.read(ticket, place, start, until)

    def end_reading(self, ticket: int) -> None:
        self._past.end(ticket)

    def await_past_schema(self, wanted: SchemaWanted) -> None:
        self._schemas.wait(None, wanted)

    def folded(self, place: Place) -> None:
        self._flow.unfold(place, self._clock())
        self._pump_again()

    @_or_stop
    def _take_past(self, ticket: int, records: Sequence[Record], position: int) -> None:
        self._folds.take(ticket, records, position)
        self._fold_on()

    @_or_stop
    def _past_lost(self, ticket: int) -> None:
        self._folds.give_up(ticket)

    def _fold_on(self) -> None:
        if self._folds.is_busy and not self._fold_soon:
            self._fold_soon = True
            self._loop.call_soon(self._fold)

    @_or_stop
    def _fold(self) -> None:
        """A little of it, then the loop's other business."""
        self._fold_soon = False
        more = self._folds.step()
        self._past.room()
        self._pump()
        if more:
            self._fold_on()

    def stopped(self, reason: str) -> None:
        self._folds.hold(reason)
        self._owner.hold(True)
        self._on_stop(reason)


def _badness(outcome: Outcome | None) -> int:
    return _BADNESS.index(type(outcome).__name__)
