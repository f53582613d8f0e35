"""One run: what happens, in which order, at which time; all of it from one seed.

First the plan's faults and the ordinary steps, mixed at random. Then everything is healed, each key gets one more
event, and it runs until it rests. Every open letter is redriven, in order, and what comes back is discarded by a
person; each key gets one more event, which must arrive; and the checker has the last word.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from connectors.connector import Delivered, Delivery, Outcome, Rejected, RetryLater, Unavailable, Unknown
from consumers.control import Definition, Start
from consumers.inbox import InboxOrder, inbox_record
from schemas.event import Origin
from tests.simulation.checker import SOURCE, Checker, Violation
from tests.simulation.plan import Plan, plan_of, subscription_of
from tests.simulation.process import Answer, Call, Process
from tests.simulation.world import Event, Nature, World

ROUNDS_MAX = 400
FIELDS = (("a",), ("b",), ("a", "b"), ("a", "b", "c"), ("c",))
ODD: tuple[Nature, ...] = (
    "poison", "poison", "undecodable", "refused", "foreign", "filtered", "tombstone", "new_schema", "lost_schema",
)  # fmt: skip


class Simulation:
    """Everything of one seed. ``run`` raises Violation; ``checker.history`` is what happened."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.plan: Plan = plan_of(self.rng)
        plan, policies = self.plan, self.plan.policies
        self.checker = checker = Checker()
        checker.park = policies.on_dead_letter == "park_key"
        checker.attempts = policies.retry.attempts
        checker.expire_after = None if policies.expire_after is None else policies.expire_after.total_seconds()
        self.world = World(partitions=plan.partitions, kind=plan.kind, receipts=plan.receipts, checker=checker)
        self._attach()
        self._subscription = subscription_of(plan)
        self._processes: list[Process] = []
        self._names = 0
        self._late: list[tuple[Delivery, list[Event]]] = []
        self._expelled_at: dict[str, float] = {}
        self._changes = 0
        self._healed = False
        for _ in range(plan.processes):
            self._spawn()

    def _attach(self) -> None:
        plan, world = self.plan, self.world
        places = [(SOURCE, partition) for partition in range(plan.partitions)]
        self.checker.starts = dict.fromkeys(places, plan.start)
        definition = Definition(
            text="", version="000000", author="", at="", connection="vendor", events=(),
            topics={SOURCE: plan.partitions},
        )  # fmt: skip
        for _ in range(plan.start * plan.partitions):
            self._publish()
        for place in places:
            while world.logs[place].end < plan.start:
                world.logs[place].hole()
        for _ in range(plan.backlog):
            self._publish()
        starts = {}
        for place in places:
            until = world.logs[place].end if plan.backlog and world.logs[place].end > plan.start else None
            starts[place] = Start(offset=plan.start, state="pending", until=until, fold=plan.folds)
            if until is not None:
                self.checker.untils[place] = until
        world.attach(definition, starts)

    def _spawn(self) -> Process:
        self._names += 1
        process = Process(f"p{self._names}", self.world, self.plan, self._subscription, self.rng)
        self._processes.append(process)
        return process

    # ---- the run

    def run(self) -> Counter[str]:
        """Until it rests. Answers how often what happened."""
        rng, plan, world = self.rng, self.plan, self.world
        names, weights = self._steps()
        for _ in range(2):
            for process in self._processes:
                process.poll(1, False)
        for _ in range(rng.randrange(12)):
            self._publish()
        for step in rng.choices(names, weights, k=plan.steps):
            world.now += rng.random() * 0.4
            step(rng.choice(self._processes))
        self._heal()
        self._publish_last()
        self._rest()
        if world.dead.open:
            self._close_letters()
            self._publish_last()
            self._rest()
        self.checker.finished()
        if world.dead.open:
            self.checker.fail("I10", f"the letters of {list(map(str, world.dead.open))} cannot be closed")
        return self.checker.counts

    def _steps(self) -> tuple[list[Callable[[Process], None]], list[float]]:
        faults = self.plan.faults
        steps: list[tuple[str, Callable[[Process], None], float]] = [
            ("", self._publish_one, 8),
            ("", self._turn, 40),
            ("", self._leap, 2),
            ("", self._control, 3),
            ("holes", self._hole, 3),
            ("crash", self._kill, 0.9),
            ("rebalance", self._rebalance, 1.2),
            ("expel", self._expel, 0.7),
            ("freeze", self._freeze, 1),
            ("freeze", self._thaw, 3),
            ("vendor away", self._vendor, 1.5),
            ("operator", self._operator, 1),
            ("dead topic away", self._dead_topic, 1.2),
            ("receipts away", self._receipts, 0.8),
            ("registry away", self._registry, 1),
            ("late effect", self._land, 3),
            ("changes", self._change, 8),
            ("mend", self._mend, 2),
            ("pause", self._pause, 0.8),
            ("join", self._join, 0.8),
        ]
        chosen = [(step, weight) for fault, step, weight in steps if not fault or fault in faults]
        return [step for step, _ in chosen], [weight for _, weight in chosen]

    # ---- ordinary steps

    def _publish_one(self, _: Process) -> None:
        self._publish()
        if self.rng.random() < 0.5:
            self._publish()

    def _publish(self, partition: int | None = None, key: int | None = None, nature: Nature = "fine") -> None:
        rng, plan = self.rng, self.plan
        number = rng.randrange(plan.partitions) if partition is None else partition
        name = key if key is not None else 0 if rng.random() < 0.4 else rng.randrange(plan.keys)
        if partition is None and "odd events" in plan.faults and rng.random() < 0.25:
            nature = rng.choice(ODD)
        merges = plan.policies.send == "latest"
        action = "post" if plan.kind == "none" and not merges else rng.choice(("put", "put", "row"))
        key_bytes = None if key is None and rng.random() < 0.05 else b"k%d" % name
        about = rng.choice("xxy")
        entity = f"{number}{name}{about}" if key_bytes is not None else f"{number}-{len(self.world.events)}{about}"
        self.world.publish(number, key_bytes, nature, action, entity, rng.choice(FIELDS))

    def _publish_last(self) -> None:
        """One for each key, to see that it still moves."""
        for partition in range(self.plan.partitions):
            for key in range(self.plan.keys):
                self._publish(partition, key)

    def _hole(self, _: Process) -> None:
        self.checker.count("hole")
        self.world.logs[self.rng.choice(list(self.world.logs))].hole()

    def _turn(self, process: Process) -> None:
        """A process gets a moment in which each of its parts may come to something, or not."""
        chances = self.rng.getrandbits(16)
        if chances & 3 and not process.frozen:
            process.poll(1 + (chances >> 4) % 5, bool(chances & 8))
            if process.gone:
                self._replace_gone(process)
        for rest in (chances, chances >> 5)[: 1 + (chances >> 15)]:
            if rest & 0xC and not process.frozen:
                process.pump(1 + rest % 5)
            for call in process.calls:
                if call.answer is None and self.rng.random() < 0.7:
                    self._answer(process, call)
            if process.frozen:
                return
            if rest & 0x30:
                process.pump(1 + rest % 3)
            if rest & 0xC0:
                process.write(1 + rest % 7)
        if chances & 0x800:
            process.commit_due()

    def _replace_gone(self, process: Process) -> None:
        if process.is_idle:
            self._processes.remove(process)
            self._spawn()

    def _leap(self, _: Process) -> None:
        self.world.now += self.rng.random() * 6

    def _control(self, process: Process) -> None:
        """A process hears what the control topic says."""
        state, reason = self.world.attached.state.state, process.flow.stop_reason
        if process.frozen or process.closing:
            return
        if state != "running" and not reason:
            process.hold(self.world.attached.state.reason or state)
        elif state == "running" and reason:
            process.closing = True

    # ---- the vendor

    def _answer(self, process: Process, call: Call) -> None:
        call.answer = self._ask(process, call)
        for carried, outcome in zip(call.carried, call.answer, strict=True):
            if isinstance(outcome, RetryLater | Unknown) or getattr(outcome, "scope", "") == "entity":
                self.checker.answered(carried)

    def _ask(self, process: Process, call: Call) -> Answer:
        rng, vendor, faults = self.rng, self.world.vendor, self.plan.faults
        deliveries = call.batch.deliveries
        if vendor.stopped:
            return [Unavailable("unauthorized", needs_operator=True)] * len(deliveries)
        if vendor.away:
            self.checker.count("vendor away")
            return [Unavailable("503")] * len(deliveries)
        if call.batch.look_up:
            self.checker.count("looked up")
            return [Delivered() if vendor.has(deliveries[0]) else None]
        if self._healed:
            return [self._deliver(process, call, *one) for one in zip(deliveries, call.carried, strict=True)]
        chance = rng.random()
        if "throttle" in faults and chance < 0.08:
            self.checker.count("throttled")
            return [Unavailable("429", after=timedelta(seconds=rng.random() * 5))] * len(deliveries)
        if "lost answer" in faults and chance < 0.2:
            self.checker.count("answer lost")
            for delivery, carried in zip(deliveries, call.carried, strict=True):
                if rng.random() < 0.5:
                    self._deliver(process, call, delivery, carried)
            return [Unknown("timeout")] * len(deliveries)
        if "late effect" in faults and chance < 0.28:
            self.checker.count("effect to come")
            self._late += zip(deliveries, call.carried, strict=True)
            return [Unknown("timeout")] * len(deliveries)
        if "refused call" in faults and len(deliveries) > 1 and (chance < 0.36 or self._has_poison(call)):
            self.checker.count("call refused")
            return [Rejected("invalid", scope="call")] * len(deliveries)
        return [self._one(process, call, *one) for one in zip(deliveries, call.carried, strict=True)]

    def _one(self, process: Process, call: Call, delivery: Delivery, carried: list[Event]) -> Outcome:
        chance, faults = self.rng.random(), self.plan.faults
        if "partial" in faults and chance < 0.12:
            self.checker.count("partial")
            if chance < 0.04:
                self._deliver(process, call, delivery, carried)
                return Unknown("cut")
            return RetryLater("500")
        if "busy" in faults and chance < 0.2:
            self.checker.count("busy")
            return Unavailable("locked", scope="entity")
        return self._deliver(process, call, delivery, carried)

    def _has_poison(self, call: Call) -> bool:
        return any(self._is_poison(delivery) for delivery in call.batch.deliveries)

    def _is_poison(self, delivery: Delivery) -> bool:
        if self.world.mended:
            return False
        events = self.world.events
        body = delivery.body["row"] if delivery.action == "row" else delivery.body
        return self.world.event_at(delivery.sequence).nature == "poison" or any(
            events[number].nature == "poison" for number in body.values()
        )

    def _deliver(self, process: Process | None, call: Call | None, delivery: Delivery, carried: list[Event]) -> Outcome:
        """Without a process or a call: it lands late."""
        if self._is_poison(delivery):
            return Rejected("invalid", "body.a")
        owner = process is not None and process.is_owner(delivery.sequence.partition)
        self.world.vendor.apply(delivery, carried, late=call is None, owner=owner)
        return Delivered("r1")

    def _land(self, process: Process) -> None:
        """The effect of a call that was given up long ago."""
        if self._late:
            self._deliver(None, None, *self._late.pop(self.rng.randrange(len(self._late))))

    def _goes_wrong(self, is_wrong: bool) -> bool:
        """What works breaks sometimes; what is broken is mended when its turn comes."""
        return not is_wrong and self.rng.random() < 0.5

    def _vendor(self, _: Process) -> None:
        self.world.vendor.away = self._goes_wrong(self.world.vendor.away)

    def _operator(self, _: Process) -> None:
        """Credentials are revoked; then mended, and the probe finds out."""
        vendor = self.world.vendor
        vendor.stopped = self._goes_wrong(vendor.stopped)
        if vendor.stopped:
            self.checker.count("credentials revoked")
        else:
            for process in self._processes:
                process.stopped_connection = False

    # ---- topics

    def _mend(self, _: Process) -> None:
        """From now on the vendor takes what it rejected."""
        self.checker.count("mended")
        self.world.mended = True

    def _dead_topic(self, _: Process) -> None:
        self.world.dead.away = self._goes_wrong(self.world.dead.away)

    def _receipts(self, _: Process) -> None:
        self.world.receipts_away = self._goes_wrong(self.world.receipts_away)

    def _registry(self, _: Process) -> None:
        self.world.registry_away = self._goes_wrong(self.world.registry_away)

    # ---- processes

    def _kill(self, process: Process) -> None:
        """SIGKILL: its calls may still land, its writes may have been sent; the group learns of it later."""
        self.checker.count("kill")
        self.checker.note("kill", process.name)
        if self.rng.random() < 0.5:
            process.write(self.rng.randrange(1, 5), lost=True)
        for call in process.calls:
            if (
                call.answer is None
                and self.rng.random() < 0.5
                and not call.batch.look_up
                and not self.world.vendor.away
            ):
                for delivery, carried in zip(call.batch.deliveries, call.carried, strict=True):
                    if self.rng.random() < 0.5:
                        self._deliver(process, call, delivery, carried)
                    else:
                        self._late.append((delivery, carried))
        self._processes.remove(process)
        if self.rng.random() < 0.6:
            self.world.group.leave(process.name)
        self._spawn()

    def _rebalance(self, _: Process) -> None:
        self.checker.count("rebalance")
        self.world.group.rotation += 1

    def _expel(self, process: Process) -> None:
        """The session of one has ended (a frozen one's, or its heartbeats were lost); nobody asks it."""
        if process.member >= 0:
            self.checker.count("expelled")
            self.checker.note("expelled", process.name)
            self.world.group.leave(process.name)

    def _freeze(self, process: Process) -> None:
        """Stopped, and often for longer than its session: somebody else gets its partitions meanwhile."""
        if not process.frozen:
            self.checker.count("freeze")
            self.checker.note("freezes", process.name)
            process.frozen = True
            if self.rng.random() < 0.6:
                self._expel(process)

    def _thaw(self, process: Process) -> None:
        if process.frozen:
            self.checker.note("thaws", process.name)
            process.frozen = False
            self.world.now += self.rng.random() * 15

    def _join(self, _: Process) -> None:
        if len(self._processes) < 4:
            self._spawn()

    # ---- people

    def _pause(self, _: Process) -> None:
        world = self.world
        if world.attached.state.state == "running":
            self.checker.count("paused")
            world.state("paused", "looking")
        else:
            world.state("running", accept=self.rng.randrange(3))

    def _change(self, _: Process) -> None:
        """Resume what stopped; redrive or discard a letter; replay what was delivered."""
        world, rng = self.world, self.rng
        if world.attached.state.state == "stopped":
            self.checker.count("resumed")
            world.state("running", accept=rng.randrange(3))
            return
        chance = rng.random()
        if world.dead.open and chance < 0.8:
            origin = min(world.dead.open) if chance < 0.6 else rng.choice(list(world.dead.open))
            self._redrive(origin) if chance < 0.65 else self._discard(origin)
        elif world.events and self.plan.policies.on_dead_letter == "continue":
            event = rng.choice(world.events)
            committed = world.group.committed.get(event.origin[:2], (0, ""))[0]
            if event.nature == "fine" and self.plan.start <= event.origin.offset < committed:
                self._order(event.origin, "replay", revision=rng.choice(("", f"ch-{self._changes}")))

    def _redrive(self, origin: Origin) -> None:
        self._order(origin, "redrive", redrives=self.world.dead.open[origin].redrives)

    def _discard(self, origin: Origin) -> None:
        self.world.dead.close(origin, by_person=True)
        self._order(origin, "discarded")

    def _order(
        self, origin: Origin, kind: Literal["redrive", "replay", "discarded"], revision: str = "", redrives: int = 0
    ) -> None:
        self.checker.count(kind)
        self._changes += 1
        event = self.world.event_at(origin)
        order = InboxOrder(
            kind=kind, change=f"ch-{self._changes}", origin=origin, timestamp=event.record.timestamp,
            timestamp_type=event.record.timestamp_type, revision=revision, redrives=redrives,
            omit=self.checker.sent_later(event) if kind != "discarded" else (),
            allow_stale=self.rng.random() < 0.5,
        )  # fmt: skip
        offset = self.world.order(inbox_record(order, event.record, partitions=self.plan.partitions))
        self.checker.ordered(offset, origin.partition, order)

    # ---- the end

    def _heal(self) -> None:
        """Every fault ends; the dead processes' sessions too."""
        world = self.world
        self.checker.note("healed")
        self._healed = world.healed = True
        world.vendor.away = world.vendor.stopped = False
        world.dead.away = world.receipts_away = world.registry_away = False
        for process in self._processes:
            process.frozen = False
        names = {process.name for process in self._processes}
        for name in list(world.group.members):
            if name not in names:
                world.group.leave(name)
        for delivery, carried in self._late:
            self._deliver(None, None, delivery, carried)
        self._late = []

    def _rest(self) -> None:
        """Round after round, until nothing is left to do."""
        world = self.world
        for _ in range(ROUNDS_MAX):
            if world.attached.state.state != "running":
                world.state("running", accept=1_000)
            for process in list(self._processes):
                self._control(process)
                process.stopped_connection = False  # the probe, once a minute
                process.poll(100, True)
                if not process.assignment and process.is_idle and not process.gone:
                    continue
                self._calm(process)
                process.commit_due()
                if process.receipts:
                    process.write(1_000)
                    process.pump(100)
                if process.gone:
                    self._replace_gone(process)
            if self._rests():
                return
            world.now += 0.5
            if all(process.is_idle for process in self._processes):
                dues = [due for process in self._processes if (due := process.next_due()) is not None]
                world.now = max(world.now, min(dues, default=0.0))
        self.checker.fail("I10", f"it does not come to rest: {self._unrest()}")

    def _calm(self, process: Process) -> None:
        """Everything that was begun ends, and what follows from it."""
        process.pump(100)
        for _ in range(ROUNDS_MAX):
            if not process.calls and not process.letters and not process.receipts:
                return
            for call in process.calls:
                if call.answer is None:
                    self._answer(process, call)
            process.write(1_000)
            process.pump(100)

    def _rests(self) -> bool:
        world = self.world
        if not all(process.is_idle for process in self._processes):
            return False
        return all(world.group.committed.get(place, (0, ""))[0] == log.end for place, log in world.logs.items())

    def _unrest(self) -> str:
        behind = {
            place: (world_at, log.end)
            for place, log in self.world.logs.items()
            if (world_at := self.world.group.committed.get(place, (0, ""))[0]) != log.end
        }
        views = [
            (process.name, process.flow.view(self.world.now), len(process.calls), len(process.receipts))
            for process in self._processes
        ]
        return f"behind {behind}, {views}"

    def _close_letters(self) -> None:
        """A person redrives every letter, in order, and discards what comes back."""
        world = self.world
        for origin in sorted(world.dead.open):
            self._redrive(origin)
        if self.checker.park:
            self._live_beside()
        self._rest()
        if world.dead.open:
            for origin in sorted(world.dead.open):
                self._discard(origin)
            self._rest()

    def _live_beside(self) -> None:
        """Events of the same keys come while their letters are redriven."""
        rng = self.rng
        for _ in range(4):
            self._publish()
            for _ in range(4):
                self.world.now += rng.random() * 0.4
                self._turn(rng.choice(self._processes))


def simulate(seed: int) -> tuple[Violation | None, Simulation]:
    """One seed; what was violated, if anything was, and the run to be looked at."""
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Violation as violation:
        return violation, simulation
    except Exception as error:
        return Violation("I0", "".join(traceback.format_exception(error))), simulation
    return None, simulation
