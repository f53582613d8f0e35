"""A long change while it runs: its pace, and the people who pause, throttle or cancel it from any machine.

The kind ``steer`` writes what a person wants to ``backbone.control`` (key ``change|ID``); the process that acts hears
it (``ops.changes.live``) and looks there between two sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from consumers.control import TOPIC, Steering, steering_record, timestamp
from ops.changes import afar
from ops.changes.kinds import ChangeKind, kind
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.store import Journal, Progressed, Store
from schemas.errors import BackboneError, InputError, NotFoundError, PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from ops.app import App
    from ops.changes.live import Live

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
        now: Live,
        *,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._app, self._id, self._rate, self._now = app, plan.id, rate, now
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
            before, self._steering = self._steering, self._now.wanted
            if self._steering.state == "cancelled":
                raise Cancelled
            if before.rate != self._steering.rate:
                self._next_at = min(self._next_at, self._clock())  # a long wait of the old rate ends
            if self._steering.state == "running":
                self._now.rests(False)
                return
            if not told:
                who = f", by {self._steering.by}" if self._steering.by else ""
                self._app.screen.say(f"{self._id} is paused{who}. Go on: backbone change resume {self._id}")
                self._now.rests(True)
                told = True
            self._sleep(LOOK_EVERY_S)


@contextmanager
def paced(app: App, plan: Plan, journal: Journal, *, rate: float) -> Iterator[Pace]:
    """The pace of a change while it is applied; meanwhile it is seen and heard (``ops.changes.live``)."""
    from ops.changes.live import live

    with live(app, plan, journal, rate=rate) as now:
        yield Pace(app, plan, now, rate=rate)


def forget(app: App, change_id: str) -> None:
    """The change has ended: nothing is wanted of it any more. A record that cannot be written stays, and nobody
    follows it: that is no reason to call what was done undone."""
    from ops.control import write_control

    try:
        write_control(app, [steering_record(change_id, None)])
    except BackboneError as error:
        app.screen.detail(f"What was wanted of {change_id} stays in {TOPIC}: {error}")


def begin(app: App, plan: Plan, progressed: Progressed) -> None:
    """A person applies what was cut: what somebody had paused goes on, a throttle stays. Raises RefusedError for one
    that was cancelled meanwhile, from another machine: it ends here."""
    wanted = app.control().changes.get(plan.id, Steering())
    if wanted.state == "cancelled":
        _end(Store.of(app), plan.id, progressed)
        forget(app, plan.id)
        raise RefusedError(f"{plan.id} was cancelled by {wanted.by}, at {wanted.at}. Nothing was changed.")
    if wanted.state == "paused":
        _write(app, plan.id, replace(wanted, state="running"))


# ---- the kind -------------------------------------------------------------------------------------------------------


def steer_plan(app: App, change_id: str, verb: Verb, *, rate: float | None = None) -> Plan:
    """The small change that acts on a running one, wherever that runs. Blocks on the cluster. Raises NotFoundError,
    RefusedError if it does not run, or cannot be steered."""
    target = afar.find(app, change_id)
    now = _wanted(app, change_id)
    _check(target, verb, now)
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


def _check(target: afar.Target, verb: str, now: Steering) -> None:
    name = target.id
    if not kind(target.kind).long:
        raise RefusedError(f"{name} ({target.kind}) ends by itself within seconds: it cannot be steered.")
    if target.state != "applying":
        was = "was never applied" if target.state == "planned" else f"is {target.state} already"
        raise RefusedError(f"{name} {was}: there is nothing to {verb}.")
    if verb == "cancel" and now.state == "cancelled":
        raise RefusedError(f"{name} is cancelled already, by {now.by}.")
    if verb != "cancel" and not target.runs:
        if target.is_here:
            raise RefusedError(f"{name} was cut and does not run. Go on: backbone apply {name}")
        raise RefusedError(
            f"Nothing is heard of {name}: it was cut, or its machine is away. It is {target.author}'s, who goes on "
            f"there: backbone apply {name}. End it from here: backbone change cancel {name}"
        )
    if verb == "pause" and now.state == "paused":
        raise RefusedError(f"{name} is paused already.")
    if verb == "resume" and now.state == "running":
        raise RefusedError(f"{name} is not paused.")


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    if done:
        return
    planned = Steering(state=plan.before["state"], rate=plan.before["rate"])
    _check(afar.find(app, plan.subject), plan.details["verb"], planned)


def _wanted(app: App, change_id: str) -> Steering:
    return app.control().changes.get(change_id, Steering())


def _write(app: App, change_id: str, steering: Steering) -> None:
    from ops.control import write_control
    from ops.settings import user_name

    write_control(app, [steering_record(change_id, replace(steering, by=user_name(), at=timestamp()))])


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    wanted = Steering(state=plan.details["state"], rate=plan.details["rate"])
    with journal.step(plan.details["verb"]) as todo:
        if todo:
            _write(app, plan.subject, wanted)
            target = afar.find(app, plan.subject)
            if target.state != "applying":  # what it says of itself at its end came before our record, or will come
                forget(app, plan.subject)
                if wanted.state != "cancelled" or target.state != "cancelled":
                    raise RefusedError(f"{plan.subject} ended meanwhile: there was nothing to {plan.details['verb']}.")
            elif wanted.state == "cancelled" and not target.runs:
                _end_of_cut(app, plan, target)
    return {"state": wanted.state, "rate": wanted.rate}


def _end_of_cut(app: App, plan: Plan, target: afar.Target) -> None:
    """Nobody runs it any more, so nobody would see that it is cancelled: what was cut is ended by whoever cancels it.
    On another machine than its own what is wanted stays in ``backbone.control``: should it be applied again, or be
    running all the same, it ends by that."""
    if target.is_here:
        store = Store.of(app)
        with store.locked(plan.subject):
            progressed = store.progressed(plan.subject)
            if progressed.state != "applying":
                return
            _end(store, plan.subject, progressed)
        forget(app, plan.subject)
    afar.close(app, target, reason=plan.reason)


def _end(store: Store, change_id: str, progressed: Progressed) -> None:
    progressed.state, progressed.doing = "cancelled", ""
    store.keep(change_id, progressed)


def followed(app: App, change_id: str) -> afar.Ended:
    """Wait until nobody runs the change any more, with its progress on the screen; how it ended. Blocks as long as it
    runs. Raises NotFoundError; RefusedError if it was never applied."""
    store = Store.of(app)
    try:
        plan = store.load(change_id)
    except NotFoundError:
        return afar.followed(app, change_id)
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
                return afar.Ended(state=progressed.state, error=progressed.error, after=progressed.after)
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
