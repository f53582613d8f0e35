"""A long change while it runs: its pace, and the people who pause, throttle or cancel it from another terminal.

The kind ``steer`` writes what a person wants beside the plan; the process that acts looks there between two sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from ops.changes.kinds import ChangeKind, kind
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.store import Journal, Progressed, Steering, Store
from schemas.errors import InputError, PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from ops.app import App

LOOK_EVERY_S: Final = 0.2
Verb = Literal["pause", "resume", "cancel", "throttle"]


class ChangeCancelledError(PartlyDoneError):
    """A person cancelled the change; ``after`` says how far it came."""

    def __init__(self, change_id: str, after: Mapping[str, JsonValue], sentence: str) -> None:
        super().__init__(f"{change_id} was cancelled: {sentence}")
        self.after = dict(after)


class Cancelled(Exception):
    """Somebody cancelled; whoever acts ends where it is, and raises ChangeCancelledError with its counts."""


class Pace:
    """Lets one send after another go: no faster than the rate, not while paused, and no more once cancelled.

    ``rate`` is the plan's, a number a second, 0: no limit; a person's throttle takes its place. One thread, which
    ``wait`` blocks. ``clock`` and ``sleep`` are arguments for tests."""

    def __init__(
        self,
        app: App,
        plan: Plan,
        *,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._app, self._id, self._rate = app, plan.id, rate
        self._store = Store.of(app)
        self._clock, self._sleep = clock, sleep
        self._looked_at = self._next_at = clock() - LOOK_EVERY_S
        self._steering = Steering()

    def wait(self) -> None:
        """Return when the next may be sent. Raises Cancelled."""
        self.look()
        while (pause := self._next_at - self._clock()) > 0:
            self._sleep(min(pause, LOOK_EVERY_S))
            self.look()
        rate = self._rate if self._steering.rate is None else self._steering.rate
        # what was not used is not saved up: after a pause it does not come in a burst
        self._next_at = self._clock() + (1 / rate if rate else 0.0)

    def look(self) -> None:
        """See what people want, and stay here while it is paused. Raises Cancelled."""
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        told = False
        while True:
            before, self._steering = self._steering, self._store.steering(self._id)
            if self._steering.state == "cancelled":
                raise Cancelled
            if before.rate != self._steering.rate:
                self._next_at = min(self._next_at, self._clock())  # a long wait of the old rate ends
            if self._steering.state == "running":
                return
            if not told:
                self._app.screen.say(f"{self._id} is paused. Go on: backbone change resume {self._id}")
                told = True
            self._sleep(LOOK_EVERY_S)


def begin(app: App, plan: Plan) -> None:
    """The change is applied by a person now: what somebody had paused goes on, a throttle stays."""
    store = Store.of(app)
    steering = store.steering(plan.id)
    if steering.state != "running":
        store.steer(plan.id, replace(steering, state="running"))


# ---- the kind -------------------------------------------------------------------------------------------------------


def steer_plan(app: App, change_id: str, verb: Verb, *, rate: float | None = None) -> Plan:
    """The small change that acts on a running one. Raises NotFoundError, RefusedError if it does not run, or cannot
    be steered."""
    store = Store.of(app)
    target = store.load(change_id)
    now = store.steering(change_id)
    _check(store, target, verb, now)
    wanted = {
        "pause": replace(now, state="paused"),
        "resume": replace(now, state="running"),
        "cancel": replace(now, state="cancelled"),
        "throttle": replace(now, rate=rate),
    }[verb]
    pace = "" if verb != "throttle" else f" to {rate:g} a second" if rate else " no more"
    return new_plan(
        app,
        kind="steer",
        subject=change_id,
        title=f"{verb} {change_id} ({target.title}){pace}",
        steps=[verb],
        before={"state": now.state, "rate": now.rate},
        after={"state": wanted.state, "rate": wanted.rate},
        details={"verb": verb, "state": wanted.state, "rate": wanted.rate},
    )


def _check(store: Store, target: Plan, verb: str, now: Steering) -> None:
    name = target.id
    if not kind(target.kind).long:
        raise RefusedError(f"{name} ({target.kind}) ends by itself within seconds: it cannot be steered.")
    state = store.progressed(name).state
    if state != "applying":
        was = "was never applied" if state == "planned" else f"is {state} already"
        raise RefusedError(f"{name} {was}: there is nothing to {verb}.")
    if verb != "cancel" and not store.is_running(name):
        raise RefusedError(f"{name} was cut and does not run. Go on: backbone apply {name}")
    if verb == "pause" and now.state == "paused":
        raise RefusedError(f"{name} is paused already.")
    if verb == "resume" and now.state == "running":
        raise RefusedError(f"{name} is not paused.")


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    store = Store.of(app)
    _check(store, store.load(plan.subject), plan.details["verb"], Steering(state="running") if done else _now(plan))


def _now(plan: Plan) -> Steering:
    return Steering(state=plan.before["state"], rate=plan.before["rate"])


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    store = Store.of(app)
    wanted = Steering(state=plan.details["state"], rate=plan.details["rate"])
    with journal.step(plan.details["verb"]) as todo:
        if todo:
            store.steer(plan.subject, wanted)
            if wanted.state == "cancelled" and not store.is_running(plan.subject):
                _end(store, plan.subject)
    return {"state": wanted.state, "rate": wanted.rate}


def _end(store: Store, change_id: str) -> None:
    """Nobody runs it any more, so nobody would see that it is cancelled: what was cut is ended here."""
    with store.locked(change_id):
        progressed = store.progressed(change_id)
        if progressed.state == "applying":
            progressed.state, progressed.doing = "cancelled", ""
            store.keep(change_id, progressed)


def followed(app: App, change_id: str) -> Progressed:
    """Wait until nobody runs the change any more, with its progress on the screen; how far it came. Blocks as long as
    it runs. Raises NotFoundError; RefusedError if it was never applied."""
    store = Store.of(app)
    plan = store.load(change_id)
    progressed = store.progressed(change_id)
    if progressed.state == "planned":
        raise RefusedError(f"{change_id} was not applied yet. Do it: backbone apply {change_id}")
    first = progressed.notes.get("progress") or {"total": len(plan.steps), "unit": "steps"}
    with app.screen.progress(first["total"], first["unit"]) as progress:
        while True:
            running = store.is_running(change_id)  # before the state is read: what ends in between is read as ended
            progressed = store.progressed(change_id)
            noted = progressed.notes.get("progress")
            done = len(progressed.done) if noted is None else noted["done"]
            progress.advance(done - progress.done)
            if not running or progressed.state != "applying":
                return progressed
            time.sleep(LOOK_EVERY_S)  # another process writes the file; nobody tells


def parse_rate(text: str) -> float:
    """``50/s`` or ``50``, ``0.5/s``; ``none`` for no limit (0). Raises InputError."""
    number = text.strip().removesuffix("/s")
    if number == "none":
        return 0.0
    try:
        rate = float(number)
    except ValueError:
        rate = -1.0
    if not 0.001 <= rate <= 1_000_000:
        raise InputError(f"'{text[:40]}' is no rate: say how many a second, like 50/s, or none for no limit.")
    return rate


KIND = ChangeKind(
    name="steer",
    precheck=precheck,
    act=act,
    not_undoable="it acted at once; pause and resume are each other's opposite",
)
