"""One noun for changing: a change is planned, shown, applied, audited, sometimes undone.

**A command that changes something** resolves everything to absolute values, makes a plan and hands it over::

    @click.command()
    @click.argument("name")
    @change_options                      # --apply --yes --reason --confirm
    @screen_options
    @click.pass_obj
    def rewind(app: App, name: str, apply: bool, yes: bool, reason: str | None, confirm: str | None) -> None:
        plan = new_plan(
            app, kind="rewind", subject=name, title="…", rows=[...], summary=["about 2,385 events again"],
            steps=["ask our workers to leave", "set the offsets", "let them come back"],
            preconditions={...}, before={...}, after={...}, severe="more than 10,000 events are read again",
        )
        run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=[Column("topic"), ...])

Without ``--apply`` that saves and shows the plan; nothing is changed. ``backbone apply ID`` and ``backbone undo ID``
find the plan and its kind again.

**A kind of change** is a module with a constant ``KIND``, named in ``ops.changes.kinds.KINDS``::

    KIND = ChangeKind(name="rewind", precheck=precheck, act=act, undo=undo)

    def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
        "Raise RefusedError if what the plan was made from is no longer so. ``done``: steps of an earlier, cut try."

    def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
        "Do it, read back, answer the values after. Every step must be harmless when done twice: a process may be
        killed after a step's effect and before its record."
        with journal.step("set the offsets") as todo:
            if todo: ...
        # a RefusedError in the first step means that nothing was changed; any other error there is "partly done"
        journal.note("generation", 7)        # kept in the state file; ``journal.notes`` later, in undo too

    def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
        "The plan that restores, or RefusedError with the reason. It is a plan of any kind, made with
        ``new_plan(..., undoes=plan.id)``; it is asked about, audited and applied like every other."

A kind that may run for hours says ``long=True`` and lets ``ops.changes.steering.Pace`` stand between two sends: people
watch, pause, throttle and cancel it from another terminal, and it goes on after a cut however old its plan is. Its
steps are chunks, checked anew when they begin; ``journal.note("progress", {"done": 3, "total": 9, "unit": "letters"})``
is what watching shows.

The manners in between (question, ``--confirm``, ``--reason`` in production, audit before acting, half-done changes,
resuming) are ``ops.changes.run``'s and the same for all.
"""

from ops.changes.kinds import ChangeKind
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.run import apply_by_id, change_options, run_change, undo_by_id
from ops.changes.store import Journal

__all__ = [
    "ChangeKind",
    "Journal",
    "JsonValue",
    "Plan",
    "apply_by_id",
    "change_options",
    "new_plan",
    "run_change",
    "undo_by_id",
]
