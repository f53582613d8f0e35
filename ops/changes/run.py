"""How every change goes: plan, preview, question, audit, act, read back, report; and back again.

The order is the guarantee: the audit record is acknowledged before the first step, and every step is on the disk
before and after it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ops.changes import approval, audit, steering
from ops.changes.kinds import ChangeKind, kind
from ops.changes.steering import ChangeCancelledError
from ops.changes.store import Journal, Progressed, Store
from ops.screen import Column
from schemas.errors import BackboneError, PartlyDoneError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from ops.app import App
    from ops.changes.plan import Plan

F = TypeVar("F", bound=Callable[..., Any])


def change_options(command: F) -> F:
    """Give a command ``--apply --yes --reason --confirm`` as keyword arguments of those names."""
    for decorate in (
        click.option("--confirm", metavar="NAME", help="Name what is changed; severe changes need it."),
        click.option("--reason", metavar="TEXT", help="Why, for the audit; needed in a production context."),
        click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal."),
        click.option("--apply", is_flag=True, help="Do it now, after a question."),
    ):
        command = decorate(command)
    return command


def run_change(
    app: App,
    plan: Plan,
    *,
    apply: bool,
    yes: bool = False,
    reason: str | None = None,
    confirm: str | None = None,
    columns: Sequence[Column] | None = None,
) -> None:
    """Save and show a plan; with ``apply`` ask and do it. JSON mode: one document ``backbone.change/v1``.

    Raises RefusedError when something speaks against it (nothing was changed), PartlyDoneError when it broke in the
    middle, and what the kind raises.
    """
    plan = replace(plan, reason=reason or plan.reason)
    store = Store.of(app)
    if not apply:
        store.save(plan)
        if approval.is_asked_for(app, plan):
            approval.propose(app, plan)
            _show(app, plan, "proposed", columns)
            app.screen.say(
                f"Nothing was changed. Another person approves it: {_line(app, 'change approve', plan)} --reason …\n"
                f"Then do it: {_apply_line(app, plan)}     (valid 60 min)"
            )
            return
        _show(app, plan, "planned", columns)
        app.screen.say(f"Nothing was changed. Do it: {_apply_line(app, plan)}     (valid 60 min)")
        return
    _check_words(app, plan, confirm)
    if approval.is_asked_for(app, plan):
        raise RefusedError(
            f"'{plan.context}' asks for two persons: plan it without --apply, and have another person approve it. "
            "Nothing was changed."
        )
    if app.screen.output == "table":
        _show(app, plan, "planned", columns)
    said, app.interrupted = app.interrupted, "Interrupted. Nothing was changed."
    if not app.screen.confirm(f"{plan.title}?", yes=yes):
        raise RefusedError("Nothing was changed.")
    app.interrupted = said
    store.save(plan)
    after = _apply(app, store, plan)
    _report(app, plan, after)


def act_at_once(app: App, plan: Plan, *, reason: str | None = None) -> None:
    """Do a small change without plan and question (pause, resume); audited like every other."""
    plan = replace(plan, reason=reason or plan.reason)
    _check_words(app, plan, None)
    store = Store.of(app)
    store.save(plan)
    after = _apply(app, store, plan, at_once=True)
    _report(app, plan, after)


def apply_by_id(app: App, change_id: str, *, reason: str | None = None, confirm: str | None = None) -> None:
    """``backbone apply ID``: do what was planned, or go on with what was cut."""
    store = Store.of(app)
    plan = store.load(change_id)
    _check_words(app, replace(plan, reason=reason or plan.reason), confirm)
    after = _apply(app, store, plan, reason=reason or "")
    _report(app, plan, after)


def undo_by_id(
    app: App, change_id: str, *, yes: bool = False, reason: str | None = None, confirm: str | None = None
) -> None:
    """``backbone undo ID``: take back what was done of a change, after a question."""
    store = Store.of(app)
    plan = store.load(change_id)
    progressed = store.progressed(change_id)
    if progressed.state == "undone":
        raise RefusedError(f"{change_id} was taken back already, by {progressed.undone_by}.")
    if progressed.state == "planned":
        raise RefusedError(f"{change_id} was never applied: there is nothing to take back.")
    if progressed.state == "failed" and not progressed.done:
        raise RefusedError(f"{change_id} failed before it changed anything: there is nothing to take back.")
    how = kind(plan.kind)
    if how.undo is None:
        raise RefusedError(f"{change_id} cannot be taken back: {how.not_undoable}")
    back = replace(how.undo(app, plan, progressed.notes, frozenset(progressed.done)), undoes=change_id)
    run_change(app, back, apply=True, yes=yes, reason=reason, confirm=confirm)
    with store.locked(change_id):
        progressed.state = "undone"
        progressed.undone_by = back.id
        store.keep(change_id, progressed)
    _close_audit(app, plan, "undone", {}, "")


# ---- inside ---------------------------------------------------------------------------------------------------------


def _apply(app: App, store: Store, plan: Plan, *, reason: str = "", at_once: bool = False) -> dict[str, Any]:
    how = kind(plan.kind)
    with store.locked(plan.id):
        progressed = store.progressed(plan.id)
        if progressed.state in ("applied", "cancelled", "undone"):
            raise RefusedError(f"{plan.id} was {progressed.state} already, at {progressed.at}. Nothing was changed.")
        resumed = progressed.state == "applying"
        if plan.expired_at(datetime.now(UTC)) and not (resumed and how.long):
            raise RefusedError(_stale(plan, progressed, "it is older than 60 minutes"))
        if resumed and how.long:
            steering.begin(app, plan, progressed)
        how.precheck(app, plan, frozenset(progressed.done))
        if not at_once and approval.is_asked_for(app, plan):
            approval.check(app, plan)
        if resumed:
            app.screen.say(f"{plan.id} was cut: {_count(plan, progressed)}. It goes on.")
        if how.before_audit is not None:
            how.before_audit(app, plan)
        try:
            audit.record(app, plan, "planned", reason=reason)
        except UnreachableError as error:
            raise UnreachableError(
                f"{app.sentence(error)} Nothing was changed: a change begins with its record in the audit."
            ) from None
        progressed.state = "applying"
        progressed.error = ""
        store.keep(plan.id, progressed)
        return _act(app, store, plan, how, progressed, reason)


def _act(app: App, store: Store, plan: Plan, how: ChangeKind, progressed: Progressed, reason: str) -> dict[str, Any]:
    said = app.interrupted
    back = "" if how.undo is None else f" Take it back: {_line(app, 'undo', plan)}"
    app.interrupted = (
        f"Interrupted while {plan.id} was being applied. See how far it came: backbone change show {plan.id}. "
        f"Go on: {_apply_line(app, plan)}.{back}"
    )
    try:
        after = how.act(app, plan, Journal(store, plan, progressed))
    except ChangeCancelledError as cancelled:
        app.interrupted = said
        progressed.state, progressed.doing, progressed.after = "cancelled", "", dict(cancelled.after)
        store.keep(plan.id, progressed)
        _close_audit(app, plan, "partly_applied", cancelled.after | {"cancelled": True}, reason)
        steering.forget(app, plan.id)
        raise
    except Exception as error:
        known = error if isinstance(error, BackboneError) else app.translated(error)
        sentence = str(known) if known is not None else f"unexpected {type(error).__name__}"
        progressed.error = sentence
        # a step that began may have had its effect, unless it says that it was refused
        untouched = not progressed.done and (not progressed.doing or isinstance(error, RefusedError))
        if untouched:
            progressed.state = "failed"
            progressed.doing = ""
        store.keep(plan.id, progressed)
        app.interrupted = said
        _close_audit(app, plan, "failed" if untouched else "partly_applied", {}, reason)
        if untouched:
            if how.long:
                steering.forget(app, plan.id)
            raise
        raise PartlyDoneError(
            f"{plan.id} is partly done ({_count(plan, progressed)}): {sentence} Go on: {_apply_line(app, plan)}.{back}"
        ) from error
    app.interrupted = said
    progressed.state = "applied"
    progressed.after = after
    store.keep(plan.id, progressed)
    _close_audit(app, plan, "applied", after, reason)
    if how.long:
        steering.forget(app, plan.id)
    return after


def _close_audit(app: App, plan: Plan, phase: audit.Phase, after: Mapping[str, Any], reason: str) -> None:
    try:
        audit.record(app, plan, phase, after=after, reason=reason)
    except BackboneError as error:
        # what was done is done, and its beginning is audited; the person must know that the end is missing
        app.screen.warn(f"The audit has the beginning of {plan.id} but not its end ({phase}): {error}")


def _check_words(app: App, plan: Plan, confirm: str | None) -> None:
    if app.project.context_settings(plan.context).production and not plan.reason:
        raise RefusedError(f"'{plan.context}' is in production: say why with --reason. Nothing was changed.")
    if confirm is not None and confirm != plan.subject:
        raise RefusedError(f"--confirm names '{confirm}', but this changes '{plan.subject}'. Nothing was changed.")
    if plan.severe and confirm is None:
        raise RefusedError(
            f"This is severe ({plan.severe}): repeat it with --confirm {plan.subject}. Nothing was changed."
        )


def _show(app: App, plan: Plan, state: str, columns: Sequence[Column] | None) -> None:
    fields = list(dict.fromkeys(name for row in plan.rows for name in row))
    chosen = list(columns) if columns is not None else [Column(name) for name in fields]
    app.screen.document(
        "change",
        _data(app, plan, state, {}),
        lambda _: [app.screen.table(plan.rows, chosen)] if plan.rows else [],
        title=plan.title,
    )
    for sentence in plan.summary:
        app.screen.say(sentence)


def _report(app: App, plan: Plan, after: Mapping[str, Any]) -> None:
    """Say that it is done. Raises PartlyDoneError where something is left for a person."""
    if app.screen.output != "table":
        app.screen.document("change", _data(app, plan, "applied", after))
    how = kind(plan.kind)
    undoable = how.undo is not None and not plan.undoes
    app.screen.say(
        f"Done: {plan.title} ({plan.id})." + (f" Take it back: {_line(app, 'undo', plan)}" if undoable else "")
    )
    if how.left_over is not None and (sentence := how.left_over(after)):
        raise PartlyDoneError(sentence)


def _data(app: App, plan: Plan, state: str, after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": plan.id,
        "kind": plan.kind,
        "subject": plan.subject,
        "title": plan.title,
        "state": state,
        "expires": plan.expires,
        "hash": plan.hash,
        "severe": plan.severe,
        "undoes": plan.undoes,
        "summary": list(plan.summary),
        "rows": list(plan.rows),
        "before": plan.before,
        "after": dict(after) if state == "applied" else plan.after,
        "apply": _apply_line(app, plan),
        **({"effects": plan.details["effects"]} if "effects" in plan.details else {}),
    }


def _stale(plan: Plan, progressed: Progressed, why: str) -> str:
    if progressed.done:
        return (
            f"{plan.id} is stale ({why}) and {_count(plan, progressed)}. Take it back: backbone undo {plan.id}, "
            "or plan it again."
        )
    return f"{plan.id} is stale: {why}. Nothing was changed. Plan it again."


def _count(plan: Plan, progressed: Progressed) -> str:
    total = f" of {len(plan.steps)}" if plan.steps else ""
    doing = f", cut in '{progressed.doing}'" if progressed.doing else ""
    come = progressed.notes.get("progress")
    far = f" after {come['done']:,} of {come['total']:,} {come['unit']}" if come and progressed.doing else ""
    return f"{len(progressed.done)}{total} steps are done{doing}{far}"


def _line(app: App, verb: str, plan: Plan) -> str:
    where = "" if plan.context == "local" else f"-c {plan.context} "
    return f"backbone {where}{verb} {plan.id}"


def _apply_line(app: App, plan: Plan) -> str:
    line = _line(app, "apply", plan)
    if plan.severe:
        line += f" --confirm {plan.subject}"
    if not plan.reason and app.project.context_settings(plan.context).production:
        line += " --reason …"
    return line
