"""Two persons for one change: in a context with ``approval = "two-person"`` another person than the one who planned it
approves a plan before it is applied, by its hash, from whatever machine.

The plan is proposed in the audit when it is made, and the approval is an entry there too; so who may write to
``backbone.audit`` may approve, and who a person is, is what their machine says (``ops.settings.user_name``). What acts
at once (pause, resume, steering) and what takes a change back waits for nobody: both are audited all the same.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ops.changes import audit
from ops.changes.audit import Entry
from ops.changes.kinds import kind
from schemas.errors import NotFoundError, RefusedError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App
    from ops.changes.plan import Plan

ROWS_MAX: Final = 200
"""So many rows of a plan are proposed with it; all of them are what is approved (the hash)."""


def is_asked_for(app: App, plan: Plan) -> bool:
    """Whether somebody else must approve the plan. Registering is what makes the audit: until there is one it waits for
    nobody. Blocks then."""
    if app.project.context_settings(plan.context).approval is None or plan.undoes:
        return False
    return kind(plan.kind).before_audit is None or audit.exists(app)


def propose(app: App, plan: Plan) -> None:
    """Say in the audit what is planned, so that another person can look at it anywhere. Blocks; raises as
    ``audit.record``."""
    shown = {
        "expires": plan.expires.isoformat(),
        "severe": plan.severe,
        "summary": list(plan.summary),
        "rows": list(plan.rows[:ROWS_MAX]),
        "after": plan.after,
    }
    audit.record(app, plan, "proposed", after=shown)


def check(app: App, plan: Plan) -> None:
    """Raises RefusedError where nobody but its author has approved this very plan."""
    approved = [one for one in audit.entries(app) if one.change_id == plan.id and one.phase == "approved"]
    if not any(one.plan_hash == plan.hash and one.author != plan.author for one in approved):
        raise RefusedError(
            f"'{plan.context}' asks for two persons: {plan.id} was planned by {plan.author} and is not approved by "
            f"anybody else. Nothing was changed. Another person does it: backbone change approve {plan.id} --reason …"
        )


def approve(app: App, change_id: str, *, reason: str) -> tuple[Entry, Entry]:
    """Approve what was proposed under this id; the proposal, and the entry that approves it. Blocks. Raises
    NotFoundError, RefusedError for
    one's own plan, one that is too old, was begun, or is approved already."""
    from ops.settings import user_name

    entries = audit.entries(app)
    mine = [one for one in entries if one.change_id == change_id]
    proposal = next((one for one in reversed(mine) if one.phase == "proposed"), None)
    if proposal is None:
        waiting = sorted({one.change_id for one in entries if one.phase == "proposed"})
        raise NotFoundError(
            f"No change '{change_id}' waits for an approval.{did_you_mean(change_id, waiting)} "
            "See: backbone change list"
        )
    person = user_name()
    if proposal.author == person:
        raise RefusedError(f"{change_id} was planned by {person}: another person must approve it.")
    if begun := [one for one in mine if one.phase not in ("proposed", "approved")]:
        raise RefusedError(f"{change_id} was begun already, at {begun[0].at:%Y-%m-%dT%H:%M:%SZ}.")
    if datetime.now(UTC) >= datetime.fromisoformat(proposal.after["expires"]):
        raise RefusedError(f"{change_id} is older than 60 minutes. Have it planned again.")
    if earlier := [one for one in mine if one.phase == "approved" and one.plan_hash == proposal.plan_hash]:
        raise RefusedError(f"{change_id} was approved already, by {earlier[0].author}.")
    approval = replace(proposal, phase="approved", author=person, reason=reason, after={}, at=datetime.now(UTC))
    audit.append(app, approval)
    return proposal, approval
