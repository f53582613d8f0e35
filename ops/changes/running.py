"""Whether something runs, as a change: the steps that a subscription's pause and resume share with a connection's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from consumers.control import State, timestamp
from ops.changes.plan import JsonValue, Plan, new_plan
from schemas.errors import PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from ops.app import App


def state_plan(
    app: App,
    kind: str,
    name: str,
    before: State,
    after: State,
    *,
    title: str,
    summary: Sequence[str] = (),
    undoes: str = "",
) -> Plan:
    """The plan that brings ``name`` from one state to another, by this user, now."""
    from ops.settings import user_name

    now = State(state=after.state, reason=after.reason, by=user_name(), at=timestamp(), accept=after.accept)
    return new_plan(
        app,
        kind=kind,
        subject=name,
        title=title,
        summary=summary,
        steps=[kind],
        preconditions={"state": asdict(before)},
        before={name: before.state},
        after={name: now.state},
        details={"state": asdict(now)},
        undoes=undoes,
    )


def planned(plan: Plan) -> State:
    """What it is to become."""
    return State(**plan.details["state"])


def check_state(plan: Plan, now: State) -> None:
    """Raises RefusedError where it is by now neither as it was planned from nor as it was planned to be."""
    if now.state not in (plan.preconditions["state"]["state"], planned(plan).state):
        raise RefusedError(f"{plan.subject} is {now.state} by now. Nothing was changed.")


def check_unchanged(plan: Plan, now: State) -> None:
    """Raises RefusedError for an undo after somebody else has changed it."""
    if now.at != planned(plan).at:
        raise RefusedError(f"{plan.id} cannot be taken back: {plan.subject} was changed again since{because(now)}.")


def read_back(plan: Plan, now: State) -> dict[str, JsonValue]:
    """What the change reports; PartlyDoneError where it does not read back as it was written."""
    if now.state != planned(plan).state:
        raise PartlyDoneError(f"{plan.subject} was written, but reads back as {now.state}.")
    return {plan.subject: now.state}


def because(state: State) -> str:
    """Its reason, for the end of a sentence."""
    return f" ({state.reason})" if state.reason else ""
