"""The kinds ``pause`` and ``resume``: they act at once and are audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from consumers.control import State, state_record
from ops.changes.kinds import ChangeKind
from ops.changes.plan import JsonValue, Plan
from ops.changes.running import because, check_state, check_unchanged, planned, read_back, state_plan
from ops.changes.store import Journal
from ops.topics import LEDGER
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from ops.app import App


def pause_plan(app: App, name: str, reason: str) -> Plan:
    """Raises NotFoundError; RefusedError if it does not run."""
    now = _state(app, name)
    if now.state != "running":
        raise RefusedError(f"{name} is {now.state} already{because(now)}.")
    return _plan(app, "pause", name, now, State(state="paused", reason=reason))


def resume_plan(app: App, name: str, accept: int) -> Plan:
    """``accept``: so many rejections may pass before it stops again. Raises NotFoundError; RefusedError if it runs."""
    now = _state(app, name)
    if now.state == "running":
        raise RefusedError(f"{name} is running already.")
    return _plan(app, "resume", name, now, State(state="running", accept=accept))


def _state(app: App, name: str) -> State:
    """Of an attached subscription, or of the backbone's own one, which nobody attaches. Raises NotFoundError."""
    from ops.changes.attach_plan import attached_named

    control = app.control()
    if name == LEDGER and app.context.ledger is not None:
        return control.detached[name].state if name in control.detached else State(state="running")
    return attached_named(control, name).state


def _plan(app: App, kind: str, name: str, before: State, after: State, undoes: str = "") -> Plan:
    title = f"{kind} {name}" + (f", {after.accept} rejections may pass" if after.accept else "")
    return state_plan(app, kind, name, before, after, title=title, undoes=undoes)


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    check_state(plan, _state(app, plan.subject))


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    from ops.control import write_control

    with journal.step(plan.kind) as todo:
        if todo:
            write_control(app, [state_record(plan.subject, planned(plan))])
    return read_back(plan, _state(app, plan.subject))


def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
    now = _state(app, plan.subject)
    before = State(**plan.preconditions["state"])
    if now.state == before.state:
        raise RefusedError(f"{plan.subject} is {now.state} again already.")
    check_unchanged(plan, now)
    kind = "resume" if before.state == "running" else "pause"
    return _plan(app, kind, plan.subject, now, before, undoes=plan.id)


KIND_PAUSE = ChangeKind(name="pause", precheck=precheck, act=act, undo=undo)
KIND_RESUME = ChangeKind(name="resume", precheck=precheck, act=act, undo=undo)
