"""What ``status`` says of the ledger: nobody attaches it, and yet it must not fail in silence."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.connection import ConnectionView
from consumers.control import AttachedSubscription, ControlSnapshot, State
from ops.connections import ConnectionStatus
from ops.diagnosis import built_in_problems

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def control(state: State | None = None) -> ControlSnapshot:
    known = {} if state is None else {"ledger": AttachedSubscription(name="ledger", state=state)}
    return ControlSnapshot(subscriptions={}, connections={}, detached=known)


def database(state: str, reason: str = "") -> ConnectionStatus:
    view = ConnectionView(name="ledger", state="running")
    return ConnectionStatus(name="ledger", state=state, reason=reason, agreeing=1, views=(("w1", view),))


@pytest.mark.parametrize(
    ("reason", "words"),
    [("disk_full", "the disk is full: make room"), ("no_ledger", "its tables are gone"), ("unheard_of", "unheard_of")],
)
def test_a_ledger_that_cannot_be_written_is_a_problem_with_its_cause(reason: str, words: str) -> None:
    (problem,) = built_in_problems(control(), database("stopped", reason), NOW)
    assert (problem.kind, problem.subject) == ("connection_stopped", "ledger")
    assert words in problem.cause
    assert "the other subscriptions go on" in problem.cause


def test_a_ledger_that_is_written_or_not_kept_is_none() -> None:
    for state in ("running", "unused"):
        assert built_in_problems(control(), database(state), NOW) == []
        assert built_in_problems(control(State(state="running")), database(state), NOW) == []


def test_a_stopped_ledger_is_said_once_with_the_command_that_goes_on() -> None:
    stopped = State(state="stopped", reason="5 events in a row were rejected", by="w1", at="2026-05-01T11:00:00+00:00")
    (problem,) = built_in_problems(control(stopped), database("stopped", "disk_full"), NOW)
    assert (problem.kind, problem.age_s) == ("stopped", 3600)
    assert problem.command == "backbone subscription resume ledger"
