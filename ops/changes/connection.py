"""The kinds ``connection_pause`` and ``connection_resume``: they act at once, in every worker, and are audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from consumers.control import State, connection_record
from ops.changes.kinds import ChangeKind
from ops.changes.plan import JsonValue, Plan
from ops.changes.running import because, check_state, check_unchanged, planned, read_back, state_plan
from ops.changes.store import Journal
from schemas.errors import NotFoundError, RefusedError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App

RUNNING = State(state="running")


def pause_plan(app: App, name: str, reason: str) -> Plan:
    """Raises NotFoundError; RefusedError if a person has paused it already."""
    now = _state(app, name)
    if now.state == "paused":
        raise RefusedError(f"{name} is paused already{because(now)}.")
    return _plan(app, "connection_pause", name, now, State(state="paused", reason=reason))


def resume_plan(app: App, name: str) -> Plan:
    """Also for a connection that its workers stopped or keep waiting: they ask again at once. Raises NotFoundError;
    RefusedError if it runs in every worker."""
    from ops.connections import connection_status
    from ops.watch.heartbeats import read_heartbeats

    now = _state(app, name)
    if now.state == "running":
        whole = connection_status(name, control=now, beats=read_heartbeats(app).fresh)
        if whole.state in ("running", "unused"):
            raise RefusedError(f"{name} is running already.")
    return _plan(app, "connection_resume", name, now, RUNNING)


def _state(app: App, name: str) -> State:
    connections = app.project.connections
    if name not in connections:
        raise NotFoundError(f"There is no connection '{name}'.{did_you_mean(name, connections)}")
    return app.control().connections.get(name, RUNNING)


def _plan(app: App, kind: str, name: str, before: State, after: State, undoes: str = "") -> Plan:
    from ops.connections import users_of

    users = users_of(name, app.control().subscriptions)
    concerned = f"it concerns {', '.join(users)}" if users else "no attached subscription uses it"
    title = f"{kind.removeprefix('connection_')} the connection {name}"
    return state_plan(app, kind, name, before, after, title=title, summary=[concerned], undoes=undoes)


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    check_state(plan, _state(app, plan.subject))


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    from ops.control import require_control, write_control

    with journal.step(plan.kind) as todo:
        if todo:
            require_control(app)
            write_control(app, [connection_record(plan.subject, planned(plan))])
    return read_back(plan, _state(app, plan.subject))


def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
    now = _state(app, plan.subject)
    before = State(**plan.preconditions["state"])
    check_unchanged(plan, now)
    if now.state == before.state:
        raise RefusedError(f"{plan.subject} was {before.state} before it, too: there is nothing to take back.")
    kind = "connection_resume" if before.state == "running" else "connection_pause"
    return _plan(app, kind, plan.subject, now, before, undoes=plan.id)


KIND_CONNECTION_PAUSE = ChangeKind(name="connection_pause", precheck=precheck, act=act, undo=undo)
KIND_CONNECTION_RESUME = ChangeKind(name="connection_resume", precheck=precheck, act=act, undo=undo)
