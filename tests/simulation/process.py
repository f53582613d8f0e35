"""One simulated process: our ``Flow`` and ``Assignment``, with a rim that does what ``runtime.py`` and ``kafka.py`` do.

Two threads that talk through queues, as in the real process: the owner (polls, commits, joins and leaves) and the loop
(everything else). The schedule decides when each takes its next step, so every interleaving of the two is possible.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from connectors.connector import Delivered, Outcome
from consumers.assignment import Assigned, Assignment, Commit, Handover, Place
from consumers.batches import Batch
from consumers.control import NoPosition, Start, begin_at
from consumers.deadletter import DeadLetter
from consumers.facts import Fact
from consumers.flow import Flow, Settled
from consumers.folding import Folds
from consumers.offsets import decode_runs
from consumers.receipts import RangeSettled, Receipt
from consumers.settlement import PauseConnection
from consumers.spill import Folded, Spill
from consumers.subscription import Subscription
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.event import Origin
from tests.simulation.checker import SOURCE
from tests.simulation.plan import Pipeline, Plan
from tests.simulation.world import INBOX, Event, World

LIMITS = Limits(records_max=40, lane_records_max=8, drain_s=25.0)
LIMIT_SCHEMA_S = 20.0
FAITH_S = 10.0
"""How long a process may think that it is a member without having polled."""
BACKOFF_S = 2.0
"""How long a connection is left alone when the vendor did not say."""

Write: TypeAlias = tuple[Callable[[], None], Settled, bool]
"""What makes a record last, whom to tell, and whether it goes to a partition that may be slow."""
Answer: TypeAlias = list[Outcome | None]


class FoldedEvents(list[Event]):
    """The events that one folded delivery is for."""


class WatchedSpill(Spill):
    """Keeps little in memory, and the ground truth of what is folded into what."""

    def __init__(self, world: World) -> None:
        super().__init__(held_max=3)
        self._world = world
        self.events: dict[tuple[Place, int], FoldedEvents] = {}

    def add(self, place: Place, thing: bytes, folded: Folded) -> None:
        self.events[place, folded.first] = FoldedEvents([self._world.event_at(folded.delivery.sequence)])
        super().add(place, thing, folded)

    def change(self, place: Place, thing: bytes, folded: Folded, size: int = 0) -> None:
        events, newest = self.events[place, folded.first], folded.delivery.sequence
        if events[-1].origin != newest:
            events.append(self._world.event_at(newest))
        super().change(place, thing, folded, size)


class Call:
    """One call on its way to the vendor. ``answer`` once there is one and the loop has not seen it yet."""

    __slots__ = ("answer", "batch", "carried", "delivered_before", "flow")

    def __init__(self, flow: Flow, batch: Batch, carried: list[list[Event]], delivered_before: int) -> None:
        self.flow, self.batch, self.carried, self.delivered_before = flow, batch, carried, delivered_before
        self.answer: Answer | None = None


class Leaving:
    """The owner waits, inside its callback, for what may be committed of partitions it must give up."""

    __slots__ = ("commits", "partitions", "places", "since")

    def __init__(self, partitions: list[int], places: list[Place], since: float) -> None:
        self.partitions, self.places, self.since = partitions, places, since
        self.commits: Sequence[Commit] | None = None


class Process:
    """One incarnation. ``name`` is its member id. It is also the ``Effects`` of its flow."""

    def __init__(self, name: str, world: World, plan: Plan, subscription: Subscription, rng: random.Random) -> None:
        self.name, self._world, self._plan, self._chance = name, world, plan, rng.random
        self.pipeline = Pipeline(world)
        self.flow = Flow(
            subscription=subscription,
            pipeline=self.pipeline,
            effects=self,
            observer=self._observe,
            limits=LIMITS,
            chance=rng.random,
            wall=world.wall,
            accept=world.attached.state.accept,
            receipts=plan.receipts,
            past=(folds := self._folds_of(subscription, rng)),
        )
        self.folds = folds
        self.past: list[tuple[int, Place, int, int]] = []
        self.folding: set[Place] = set()
        self.assignment = Assignment()
        self.member = -1
        self.to_loop: deque[Callable[[], object]] = deque()
        self.to_owner: deque[Callable[[], None]] = deque()
        self.positions: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.first: list[Commit] = []
        self.calls: list[Call] = []
        self.letters: deque[Write] = deque()
        self.receipts: list[Write] = []
        self.wanted: list[tuple[Work | None, SchemaWanted, float]] = []
        self.missing: set[int | str] = set()
        self.leaving: Leaving | None = None
        self.drains: deque[tuple[float, tuple[object, object]]] = deque()
        self.last_poll = world.now
        self.quiet_until = 0.0
        self.stopped_connection = False
        self.delivered = 0
        self.handed = 0
        self.frozen = self.held = self.closing = self.gone = self.proving = False

    def _folds_of(self, subscription: Subscription, rng: random.Random) -> Folds:
        self.spill = WatchedSpill(self._world)
        return Folds(
            subscription=subscription,
            pipeline=self.pipeline,
            effects=self,
            observer=self._observe,
            limits=LIMITS,
            chance=rng.random,
            wall=self._world.wall,
            accept=self._world.attached.state.accept,
            spill=self.spill,
        )

    def _observe(self, fact: Fact) -> None:
        self._world.checker.counts[type(fact).__name__] += 1

    def note(self, kind: str, *what: object) -> None:
        self._world.checker.note(kind, self.name, *what)

    def is_owner(self, partition: int) -> bool:
        return self._world.group.owners.get(partition) == self.name

    # ---- the owner's thread

    def poll(self, records_max: int, over_markers: bool) -> None:
        """One round of the owner: join, give up, take on, run commands, fetch."""
        world, group = self._world, self._world.group
        if self.leaving is not None:
            self._leave(self.leaving)
            return
        if not group.is_member(self.name, self.member):
            if self.member >= 0 and self._chance() < 0.5:
                self._run_commands()  # it does not know yet: its commits are refused
            self._rejoin()
            return
        self.last_poll = world.now
        target = group.target
        owners, name = group.owners, self.name
        going, coming = [], []
        for partition in range(world.partitions):
            owner = owners.get(partition)
            if owner == name:
                if self.closing or target(partition) != name:
                    going.append(partition)
            elif owner is None and target(partition) == name:
                coming.append(partition)
        if going:
            self._give_up(going)
            return
        if self.closing:
            group.leave(name)
            self.gone = True
            return
        if coming:
            self._take_on(coming)
        self._run_commands()
        if self.first:
            self._commit_first()
        if not self.held and self.handed - self.flow.settled_records < LIMITS.records_max:
            self._fetch(records_max, over_markers)
        self._read_past(records_max)

    def _run_commands(self) -> None:
        for _ in range(len(self.to_owner)):
            self.to_owner.popleft()()

    def _rejoin(self) -> None:
        """It is no member (any more): what it had is lost."""
        if self.assignment:
            self._lose()
        if self.closing:
            self.gone = True
            return
        self.member = self._world.group.join(self.name)
        self.note("joins")

    def _lose(self) -> None:
        places = self.assignment.places
        self.note("loses", places)
        self.to_loop.append(partial(self._lost, places))
        self._forget(places)

    def _lost(self, places: Sequence[Place]) -> None:
        self.folds.lost(places)
        self.folding.difference_update(places)
        self.flow.lost(places)

    def hold(self, reason: str) -> None:
        """A person or somebody else has stopped it."""
        self.held = True
        self.folds.hold(reason)
        self.flow.hold(reason)

    def commit_due(self) -> None:
        self.folds.commit_due()
        self.flow.commit_due()

    def _forget(self, places: Sequence[Place]) -> None:
        self.assignment.forget(places)
        self.paused.difference_update(places)
        self.first = [commit for commit in self.first if commit.place in self.assignment]
        for place in places:
            self.positions.pop(place, None)

    def _take_on(self, partitions: list[int]) -> None:
        world, group = self._world, self._world.group
        taken: list[Assigned] = []
        told: list[tuple[Place, int, str]] = []
        for partition in partitions:
            group.give(partition, self.name)
            for place in ((SOURCE, partition), (INBOX, partition)):
                offset, metadata = group.committed.get(place, (None, ""))
                begin = begin_at(world.attached, *place, offset)
                if isinstance(begin, NoPosition):
                    self.held = True
                    self.to_loop.append(partial(self.flow.stop, begin.reason))
                    continue
                if begin.offset is None:
                    offset = world.logs[place].end if begin.at_end else 0
                else:
                    offset = begin.offset
                epoch = self.assignment.begin(place, offset, metadata)
                letters = [
                    (letter.key, letter.origin.offset)
                    for letter in world.dead.open.values()
                    if letter.origin[:2] == place
                ]
                told.append((place, offset, metadata))
                runs = decode_runs(offset, metadata)
                one = Assigned(place, epoch, offset, runs, letters, begin.until, begin.fold)
                taken.append(one)
                self.positions[place] = offset
                if one.folds and self._chance() < 0.7:
                    self.paused.add(place)
                if begin.first:
                    self.first.append(Commit(place, epoch, offset, ""))
        self.note("takes", [(one.place, one.offset, list(one.done)) for one in taken])

        def assigned() -> None:
            for place, offset, metadata in told:
                world.checker.took(self.name, place, offset, metadata)
            self.folding.update(one.place for one in taken if one.folds and not self.flow.stop_reason)
            self.flow.assigned(taken)
            if not self.flow.stop_reason:
                self.folds.begin(taken)

        self.to_loop.append(assigned)

    def _commit_first(self) -> None:
        world = self._world
        first, self.first = self.first, []
        for commit in first:
            if world.group.commit(self.name, self.member, commit.place, commit.offset, commit.metadata) is None:
                start = world.attached.starts.get(commit.place, Start(offset=commit.offset, state="started"))
                world.started(commit.place, replace(start, offset=commit.offset, state="started"))

    def _fetch(self, records_max: int, over_markers: bool) -> None:
        records = []
        positions = {}
        logs = self._world.logs
        for place in self.assignment.places:
            log, position = logs[place], self.positions[place]
            if place in self.paused or (position == len(log.slots) and position == self.assignment.reached(place)):
                continue
            found, position = log.read(position, records_max, over_markers)
            self.positions[place] = position
            records += found
            if self.assignment.moved(place, position):
                positions[place] = position
        if records or positions:
            self.handed += len(records)
            handover = Handover(records, positions, self.assignment.epochs)
            self.to_loop.append(lambda: self.flow.receive(handover, self._world.now))

    def _give_up(self, partitions: list[int]) -> None:
        places = [place for place in self.assignment.places if place[1] in partitions]
        self.note("gives up", partitions)
        leaving = self.leaving = Leaving(partitions, places, self._world.now)

        answers: list[Sequence[Commit]] = []

        def answered(commits: Sequence[Commit] = ()) -> None:
            answers.append(commits)
            if len(answers) == 2:
                leaving.commits = [commit for commits in answers for commit in commits]

        def revoke() -> None:
            self.folding.difference_update(places)
            tokens = (self.folds.revoke(places, answered), self.flow.revoke(places, answered))
            self.drains.append((self._world.now, tokens))

        self.to_loop.append(revoke)

    def _leave(self, leaving: Leaving) -> None:
        """Inside the callback: wait for the drain, commit, let go. The coordinator waits as long."""
        world, group = self._world, self._world.group
        if not group.is_member(self.name, self.member):
            self.leaving = None  # it took too long; what the loop answers is for nobody
            self._forget(leaving.places)
            return
        if leaving.commits is None:
            if world.now - leaving.since <= LIMITS.drain_s + 5:
                return
            world.checker.count("drain never answered")
            leaving.commits = ()
        self.leaving = None
        self._commit(leaving.commits)
        self._forget(leaving.places)
        for partition in leaving.partitions:
            group.take(partition, self.name)

    def _end_drains(self) -> None:
        """The loop's timers: a drain has taken too long (one that has ended is not cut)."""
        while self.drains and self._world.now - self.drains[0][0] > LIMITS.drain_s:
            of_folds, of_flow = self.drains.popleft()[1]
            self.folds.end_drain(of_folds)
            self.flow.end_drain(of_flow)

    def _commit(self, commits: Sequence[Commit]) -> None:
        admitted, beyond = self.assignment.admit(commits)
        for commit in beyond:
            self._world.checker.fail("I4", f"{self.name} wanted to commit {commit} beyond what was handed over")
        for commit in admitted:
            group = self._world.group
            if commit.place in self.folding:
                self._world.checker.fail("I17", f"{self.name} commits {commit.place}, which it folds")
            refused = group.commit(self.name, self.member, commit.place, commit.offset, commit.metadata)
            if refused is not None:
                self._world.checker.count("commit refused")
                self.note("commit refused", commit.place, commit.offset)
                self.to_loop.append(partial(self.flow.commit_failed, refused))

    def _prove(self) -> None:
        """The zombie guard's commit: is this process still a member?"""
        self.proving = False
        group = self._world.group
        for place, committed in list(self.assignment.committed.items()):
            if group.commit(self.name, self.member, place, *committed) is not None:
                self._world.checker.count("zombie seen")
                self._lose()
                return

    # ---- the loop

    def pump(self, rounds: int) -> None:
        """Let the loop run: messages of the owner, answers of the vendor, schemas, then what may be sent."""
        world, flow = self._world, self.flow
        to_loop = self.to_loop
        while to_loop and rounds:
            to_loop.popleft()()
            rounds -= 1
        for call in [call for call in self.calls if call.answer is not None] if self.calls else ():
            self.calls.remove(call)
            self._settle(call, call.answer or [])
        if self.wanted and not world.registry_away:
            self._load_schemas()
        if self.drains:
            self._end_drains()
        now = world.now
        for _ in range(rounds):
            if not self.folds.step():
                break
        flow.due(now)
        self.folds.flow.due(now)
        while len(self.calls) < self._plan.calls_max and now >= self.quiet_until and not self.stopped_connection:
            live, folded = flow.waiting(background=False), self.folds.flow.waiting(background=False)
            if not live and not folded and not flow.waiting(background=True):
                return
            if now - self.last_poll > LIMITS.zombie_after_s:
                if not self.proving:
                    self.proving = True
                    self.to_owner.append(self._prove)
                return
            batch = (flow.next_batch(now) if live else None) or flow.next_batch(now, background=True)
            if batch is not None:
                self._call(flow, batch)
                continue
            batch = self.folds.flow.next_batch(now)
            if batch is None:
                return
            self._call(self.folds.flow, batch)

    def _call(self, flow: Flow, batch: Batch) -> None:
        events = self._world.event_of
        if flow is self.flow:
            carried = [[*(events(one.record) for one in work.merged), events(work.record)] for work in batch.works]
        else:
            carried = [self.spill.events[work.source, work.record.offset] for work in batch.works]
        self.note("look up" if batch.look_up else "call", [(d.sequence, dict(d.body)) for d in batch.deliveries])
        checker = self._world.checker
        rows = {(delivery.action, delivery.entity) for delivery in batch.deliveries}
        if len(rows) < len(batch.works) or len(batch.works) > self._plan.batch_max:
            checker.fail("I9", f"a batch of {len(batch.works)} about {rows}")
        if not batch.look_up:
            for work, delivery, events_of in zip(batch.works, batch.deliveries, carried, strict=True):
                checker.asked(self.name, delivery, events_of, work.order)
            if flow is self.flow:
                checker.classed(batch.background, [(work.record, work.order) for work in batch.works])
        polled = self._world.now - self.last_poll <= FAITH_S
        if not polled and not all(self.is_owner(delivery.sequence.partition) for delivery in batch.deliveries):
            checker.fail(
                "I3b", f"{self.name} has not polled for {FAITH_S} s, is no member any more, and asks the vendor"
            )
        self.calls.append(Call(flow, batch, carried, self.delivered))

    def _settle(self, call: Call, answer: Answer) -> None:
        flow, now, batch = call.flow, self._world.now, call.batch
        if batch.look_up:
            if isinstance(answer[0], Delivered):
                self._world.checker.confirmed(self.name, batch.deliveries[0], call.carried[0])
            follows = flow.look_up_settled(batch, answer[0], now)
        else:
            outcomes = [outcome for outcome in answer if outcome is not None]
            self.delivered += sum(isinstance(outcome, Delivered) for outcome in outcomes)
            for delivery, carried, outcome in zip(batch.deliveries, call.carried, outcomes, strict=True):
                if isinstance(outcome, Delivered):
                    self._world.checker.confirmed(self.name, delivery, carried)
            others = self.delivered > call.delivered_before
            follows = flow.settle(batch, outcomes, now, others_succeed=others)
        for decision in follows:
            if isinstance(decision, PauseConnection):
                seconds = BACKOFF_S if decision.seconds is None else decision.seconds
                self.quiet_until = max(self.quiet_until, now + seconds)
            else:
                self.stopped_connection = True

    def _load_schemas(self) -> None:
        events, now = self._world.events, self._world.now
        waiting, self.wanted = self.wanted, []
        for work, schema, since in waiting:
            if events[int(schema.key)].nature == "new_schema":
                self.pipeline.schemas.add(schema.key)
            elif now - since < LIMIT_SCHEMA_S:
                self.wanted.append((work, schema, since))
                continue
            else:
                self.missing.add(schema.key)
            if work is None:
                self.folds.go_on()
            else:
                self.flow.go_on([work])

    def write(self, count: int, *, lost: bool = False) -> None:
        """The producer gets so many records through: letters in their order (a letter and its tombstone go to one
        partition), receipts in any (events are spread over partitions). ``lost``: the acks never come back."""
        world, letters, receipts = self._world, self.letters, self.receipts
        letters_go = 0.07 if "slow letters" in self._plan.faults else 0.5
        for _ in range(count):
            if letters and self._chance() < letters_go:
                write, away = letters.popleft(), world.dead.away
            elif receipts:
                write, away = receipts.pop(self._which()), world.receipts_away
            elif not letters:
                return
            else:
                continue
            if away:
                world.checker.count("refused")
                self.to_loop.append(partial(write[1], "_MSG_TIMED_OUT"))
                continue
            write[0]()
            if not lost:
                self.to_loop.append(partial(write[1], None))

    def _which(self) -> int:
        """The receipts are spread over partitions; one of them may be slow."""
        receipts = self.receipts
        if "slow receipts" not in self._plan.faults or self._world.healed:
            return int(self._chance() * min(3, len(receipts)))
        quick = [number for number, write in enumerate(receipts[:6]) if not write[2]]
        return quick[0] if quick and self._chance() < 0.95 else 0

    @property
    def is_idle(self) -> bool:
        waits = self.to_loop or self.calls or self.letters or self.receipts
        return not waits and (self.gone or not self.to_owner)

    def next_due(self) -> float | None:
        """When something may go on by itself."""
        dues = [since + LIMIT_SCHEMA_S for _, _, since in self.wanted]
        dues += [since + LIMITS.drain_s + 0.1 for since, _ in self.drains]
        flows = (self.flow, self.folds.flow)
        dues += [due for flow in flows if (due := flow.next_due()) is not None]
        if any(flow.waiting(background=False) or flow.waiting(background=True) for flow in flows):
            dues.append(self.quiet_until)
        return min(dues, default=None)

    # ---- Effects

    def write_letter(self, letter: DeadLetter, settled: Settled) -> None:
        place = letter.origin[:2]
        epoch = self.flow.places.get(place)

        def make() -> None:
            # one that was begun in an assignment that is over by now is nobody's business here
            owner = self.is_owner(place[1]) and self.assignment.epochs.get(place) == epoch
            self._world.dead.write(letter, owner=owner)

        self.letters.append((make, settled, False))

    def close_letter(self, origin: Origin, settled: Settled) -> None:
        self.letters.append((partial(self._world.dead.close, origin), settled, False))

    def write_receipt(self, receipt: Receipt, settled: Settled) -> None:
        slow = receipt.record.offset % 3 == 0
        self.receipts.append((partial(self._world.checker.receipt, receipt), settled, slow))

    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None:
        self.receipts.append((partial(self._world.checker.ranged, self.name, settled_range), settled, False))

    def commit(self, commits: Sequence[Commit]) -> None:
        self.to_owner.append(partial(self._commit, commits))

    def pause_partition(self, place: Place, paused: bool) -> None:
        if paused and place[0] == SOURCE and self.flow._catch_up_full:
            self._world.checker.count("catch-up bounded")

        def run() -> None:
            if place in self.assignment:
                (self.paused.add if paused else self.paused.discard)(place)

        self.to_owner.append(run)

    def is_missing(self, wanted: SchemaWanted) -> bool:
        return wanted.key in self.missing

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        self.wanted.append((work, wanted, self._world.now))

    def caught_up(self, places: Sequence[Place]) -> None:
        for place in places:
            self._world.checker.caught_up(self.name, place)
        self.folds.forget(places)

    # ---- the effects of folds

    def read_past(self, ticket: int, place: Place, start: int, until: int) -> None:
        self._world.checker.count("folds")
        self.past.append((ticket, place, start, until))

    def end_reading(self, ticket: int) -> None:
        self.past = [one for one in self.past if one[0] != ticket]

    def await_past_schema(self, wanted: SchemaWanted) -> None:
        self.wanted.append((None, wanted, self._world.now))

    def folded(self, place: Place) -> None:
        self._world.checker.count("folded")
        self.folding.discard(place)
        self.flow.unfold(place, self._world.now)

    def _read_past(self, records_max: int) -> None:
        """The reader beside the group; the first of what is asked for."""
        if self.past:
            ticket, place, position, until = self.past[0]
            records, position = self._world.logs[place].read(position, records_max, True)
            records = [record for record in records if record.offset < until]
            self.past[0] = (ticket, place, position, until)
            if position >= until:
                del self.past[0]
            self.to_loop.append(partial(self.folds.take, ticket, records, position))

    def stopped(self, reason: str) -> None:
        self.folds.hold(reason)
        self.note("stops", reason)
        self.held = True
        self._world.stopped(reason)
