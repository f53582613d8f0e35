"""``backbone change``: what was planned here and done anywhere; and steering what runs, on whatever machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.changes.audit import Entry
    from ops.changes.beat import Heard
    from ops.changes.steering import Verb

COLUMNS = [
    Column("id"),
    Column("at"),
    Column("state"),
    Column("kind"),
    Column("title", "WHAT"),
    Column("author", "BY"),
    Column("reason"),
    Column("undone_by"),
    Column("runs_on"),
    Column("progress"),
]
STATES = {
    "proposed": "proposed",
    "approved": "approved",
    "planned": "begun",
    "applied": "applied",
    "partly_applied": "partly",
    "failed": "failed",
    "undone": "undone",
}
"""What the last audit entry of a change says of it, seen from another machine."""
MAY_RUN = ("begun", "partly")


@click.group(no_args_is_help=True)
def change() -> None:
    """Changes: planned on this machine, and all that were begun anywhere, from the audit."""


@change.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many.")
@screen_options
@click.pass_obj
def list_(app: App, limit: int) -> None:
    """The newest changes, the newest last; of those that run now also where, and how far they are.

    JSON: one row a change: id, at, state, kind, title, author, reason, undone_by; of what runs: runs_on (host/pid),
    progress.
    """
    from ops.changes.store import Store
    from ops.completing import remember

    found = _merged(app)
    planned = {change_id: place for place, change_id in enumerate(Store.of(app).ids())}  # several in one second
    rows = sorted(found.values(), key=lambda row: (row["at"], planned.get(row["id"], -1), row["id"]))[-limit:]
    remember(app, "change", [row["id"] for row in reversed(rows)])
    app.screen.rows("changes", rows, COLUMNS, empty="No change was planned here, and the audit is empty.")


@change.command()
@click.argument("change_id", metavar="ID")
@screen_options
@click.pass_obj
def show(app: App, change_id: str) -> None:
    """One change: its plan, how far it came, its audit entries, and whether it runs.

    Its steps and what was noted of them are known on the machine that planned it only; elsewhere the audit, and what
    the process that applies it says, are shown.
    """
    from ops.changes.store import Store
    from schemas.errors import NotFoundError

    audit = [entry for entry in _audit(app) if entry.change_id == change_id]
    store = Store.of(app)
    try:
        plan = store.load(change_id)
    except NotFoundError:
        if not audit:
            raise
        data = _from_audit(audit)
        now = _now(app, change_id, data["state"])
        app.screen.document("change", data | now | {"audit": [_line(entry) for entry in audit]}, _render(app))
        app.screen.say(_known_elsewhere(data, now))
        return
    progressed = store.progressed(change_id)
    state = _state(plan.expires, progressed.state, progressed.done, audit)
    data = {
        "id": plan.id,
        "kind": plan.kind,
        "title": plan.title,
        "state": state,
        "author": plan.author,
        "reason": plan.reason,
        "created": plan.created,
        "expires": plan.expires,
        "severe": plan.severe,
        "undoes": plan.undoes,
        "undone_by": progressed.undone_by,
        "hash": plan.hash,
        "summary": list(plan.summary),
        "steps": [{"step": name, "done": name in progressed.done} for name in plan.steps],
        "doing": progressed.doing,
        "error": progressed.error,
        "before": plan.before,
        "after": progressed.after or plan.after,
        "rows": list(plan.rows),
        **_now(app, change_id, state),
        "audit": [_line(entry) for entry in audit],
    }
    app.screen.document("change", data, _render(app))


@change.command()
@click.argument("change_id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is right, for the audit.")
@screen_options
@click.pass_obj
def approve(app: App, change_id: str, reason: str) -> None:
    """Approve what another person has planned, where a context asks for two persons.

    Look at it first: backbone change show ID. What is approved is the plan by its hash, as long as it is valid. JSON:
    id, title, hash, planned_by, approved_by.
    """
    from ops.changes.approval import approve as approve_plan

    proposal, approval = approve_plan(app, change_id, reason=reason)
    data = {
        "id": change_id,
        "title": approval.summary,
        "hash": approval.plan_hash,
        "planned_by": proposal.author,
        "approved_by": approval.author,
    }
    app.screen.document(
        "change.approved", data, lambda _: f"Approved: {approval.summary} ({change_id}), planned by {proposal.author}."
    )
    app.screen.say(f"Whoever planned it does it: backbone apply {change_id}")


@change.command()
@click.argument("change_id", metavar="ID")
@screen_options
@click.pass_obj
def watch(app: App, change_id: str) -> None:
    """Follow a change that runs in another process, here or on another machine, until it ends. Exit 7 if it was cut or
    cancelled.

    Ctrl-C ends the watching, not the change. JSON: id, state, error, after.
    """
    from ops.changes.steering import followed
    from schemas.errors import PartlyDoneError

    app.interrupted = f"You stopped watching. {change_id} goes on."
    ended = followed(app, change_id)
    data = {"id": change_id, "state": ended.state, "error": ended.error, "after": ended.after}
    app.screen.document("change.watch", data)
    if ended.state == "applying":
        raise PartlyDoneError(
            f"{change_id} was cut and does not run any more. Go on where it was planned: backbone apply {change_id}"
        )
    if ended.state == "cancelled":
        raise PartlyDoneError(f"{change_id} was cancelled.")


def _steers(verb: Verb, help_: str) -> None:
    """The command ``backbone change VERB ID``."""

    @change.command(verb, help=help_)
    @click.argument("change_id", metavar="ID")
    @click.option("--reason", metavar="TEXT", help="Why, for the audit; needed in a production context.")
    @screen_options
    @click.pass_obj
    def steer(app: App, change_id: str, reason: str | None) -> None:
        from ops.changes.run import act_at_once
        from ops.changes.steering import steer_plan

        act_at_once(app, steer_plan(app, change_id, verb), reason=reason)


_steers("pause", "Let a running change rest between two sends, whatever machine it runs on; what was sent goes on.")
_steers("resume", "Let a paused change go on, whatever machine it runs on.")
_steers(
    "cancel",
    "End a running change where it is, whatever machine it runs on, or one that was cut. What was done stays done.",
)


@change.command()
@click.argument("change_id", metavar="ID")
@click.argument("rate", metavar="N/s")
@click.option("--reason", metavar="TEXT", help="Why, for the audit; needed in a production context.")
@screen_options
@click.pass_obj
def throttle(app: App, change_id: str, rate: str, reason: str | None) -> None:
    """Let a running change send at most so many a second, whatever machine it runs on; 'none' for no limit."""
    from ops.changes.run import act_at_once
    from ops.changes.steering import parse_rate, steer_plan

    act_at_once(app, steer_plan(app, change_id, "throttle", rate=parse_rate(rate)), reason=reason)


def _merged(app: App) -> dict[str, dict[str, Any]]:
    """Rows by id: what the audit knows, and over it what this machine knows better."""
    from ops.changes.store import Store
    from schemas.errors import InputError

    by_change: dict[str, list[Entry]] = {}
    for entry in _audit(app):
        by_change.setdefault(entry.change_id, []).append(entry)
    rows = {change_id: _row(_from_audit(entries)) for change_id, entries in by_change.items()}
    store = Store.of(app)
    for change_id in store.ids():
        try:
            plan, progressed = store.load(change_id), store.progressed(change_id)
        except InputError as error:
            app.screen.warn(str(error))
            continue
        rows[change_id] = _row(
            {
                "id": change_id,
                "at": plan.created,
                "state": _state(plan.expires, progressed.state, progressed.done, by_change.get(change_id, [])),
                "kind": plan.kind,
                "title": plan.title,
                "author": plan.author,
                "reason": plan.reason,
                "undone_by": progressed.undone_by,
            }
        )
    if any(row["state"] in MAY_RUN for row in rows.values()):
        for change_id, heard in _beats(app).items():
            if heard.is_fresh and change_id in rows:
                rows[change_id] |= {"runs_on": heard.beat.process, "progress": heard.beat.progress}
    return rows


def _beats(app: App) -> dict[str, Heard]:
    """What runs; where it cannot be seen that is said, and the rest is shown."""
    from ops.changes.beat import read_beats
    from schemas.errors import BackboneError

    try:
        return read_beats(app)
    except BackboneError as error:
        app.screen.warn(f"Whether a change runs cannot be seen: {error}")
        return {}


def _now(app: App, change_id: str, state: str) -> dict[str, Any]:
    """Whether it runs, and what people want of it; both None for one that has ended."""
    from dataclasses import asdict

    from schemas.errors import BackboneError

    if state not in MAY_RUN:
        return {"runs": None, "wanted": None}
    heard = _beats(app).get(change_id)
    try:
        wanted = app.control().changes.get(change_id)
    except BackboneError:  # the warning about what runs says it
        wanted = None
    runs = None
    if heard is not None and heard.is_fresh:
        runs = {name: value for name, value in asdict(heard.beat).items() if name != "change"}
        runs["heard_s"] = round(heard.age_s, 1)
    return {"runs": runs, "wanted": None if wanted is None else asdict(wanted)}


def _known_elsewhere(data: dict[str, Any], now: dict[str, Any]) -> str:
    elsewhere = "Its steps, and what was noted of them, are known on the machine that planned it only."
    if data["state"] not in MAY_RUN or now["runs"] is not None:
        return elsewhere
    return f"Nothing is heard of it: it was cut, or its machine is away; {data['author']} goes on there. {elsewhere}"


def _audit(app: App) -> list[Entry]:
    """The audit; what this machine knows is shown also without it."""
    from ops.changes.audit import entries
    from schemas.errors import BackboneError

    try:
        return entries(app)
    except BackboneError as error:
        app.screen.warn(f"The audit cannot be read, only this machine's changes are shown: {error}")
        return []


def _from_audit(entries: list[Entry]) -> dict[str, Any]:
    first, last = entries[0], entries[-1]
    proposed = first.after if first.phase == "proposed" else {}
    ended = last.after if last.phase not in ("proposed", "approved") else {}
    return {
        "id": first.change_id,
        "kind": first.kind,
        "title": first.summary,
        "state": "cancelled" if last.after.get("cancelled") else STATES.get(last.phase, last.phase),
        "author": first.author,
        "reason": first.reason,
        "at": first.at,
        "hash": first.plan_hash,
        "before": first.before,
        "after": ended or proposed.get("after") or first.after,
        "severe": proposed.get("severe", ""),
        "summary": proposed.get("summary", []),
        "rows": proposed.get("rows", []),
    }


def _state(expires: Any, state: str, done: list[str], audit: list[Entry]) -> str:
    from datetime import UTC, datetime

    if state == "planned" and datetime.now(UTC) >= expires:
        return "expired"
    if state == "planned" and audit:
        return STATES.get(audit[-1].phase, state)
    if state == "applying":
        return "partly" if done else "begun"
    return state


def _row(data: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "at", "state", "kind", "title", "author", "reason", "undone_by", "runs_on", "progress")
    return {name: data.get(name) or None for name in names}


def _line(entry: Entry) -> dict[str, Any]:
    return {"at": entry.at, "phase": entry.phase, "author": entry.author, "reason": entry.reason}


def _render(app: App) -> Any:
    def render(data: dict[str, Any]) -> list[Any]:
        from ops.screen import plain_json, shown

        parts: list[Any] = []
        plain = {key: value for key, value in data.items() if not isinstance(value, list | dict) and value}
        width = max(len(key) for key in plain)
        parts.append("\n".join(f"{key:<{width}}  {shown(value)}" for key, value in plain.items()))
        parts += list(data.get("summary", []))
        for name in ("before", "after", "runs", "wanted"):
            if data.get(name):
                parts.append(f"{name}: {plain_json(data[name])}")
        for name in ("rows", "steps", "audit"):
            rows = data.get(name)
            if rows:
                fields = list(dict.fromkeys(field for row in rows for field in row))
                parts.append(app.screen.table(rows, [Column(field) for field in fields], title=name))
        return parts

    return render
