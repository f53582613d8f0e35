"""Two persons for one change, on a real cluster and registry; the second one sits at another machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.app import App
from ops.changes import approval
from ops.changes.audit import entries
from ops.changes.store import Store
from ops.screen import Screen
from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.integration


def machine(folder: Path, prefix: str, stack: Stack) -> TestProject:
    made = make_project(folder, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    file = made.folder / "backbone.toml"
    file.write_text(file.read_text().replace("production = true", 'production = true\napproval = "two-person"'))
    return made


@pytest.fixture
def mine(tmp_path: Path, stack: Stack, prefix: str) -> TestProject:
    made = machine(tmp_path / "mine", prefix, stack)
    assert made.run("schema", "register", "--apply", "--yes", "-q").exit_code == 0
    return made


@pytest.fixture
def theirs(tmp_path: Path, stack: Stack, prefix: str, mine: TestProject) -> TestProject:
    return machine(tmp_path / "theirs", prefix, stack)


def attach(project: TestProject, *more: str, code: int = 0) -> Any:
    words = ("-c", "prod", "subscription", "attach", project.subscription, "--from", "latest", "--reason", "INC-1")
    return project.document(*words, *more, code=code)


def test_a_change_waits_for_another_person_who_may_sit_at_another_machine(
    mine: TestProject, theirs: TestProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = attach(mine, "--apply", "--yes", code=6)
    assert "'prod' asks for two persons: plan it without --apply" in at_once["error"]["message"]
    plan = attach(mine)["data"]
    assert plan["state"] == "proposed"
    change = plan["id"]
    refused = mine.run("-c", "prod", "apply", change)
    assert refused.exit_code == 6
    assert "was planned by tester and is not approved by anybody else" in refused.stderr
    assert f"backbone -c prod change approve {change} --reason" in refused.stderr
    own = mine.run("-c", "prod", "change", "approve", change, "--reason", "I trust me")
    assert (own.exit_code, "another person must approve it" in own.stderr) == (6, True)
    # at the other machine: what it is, and yes
    shown = theirs.document("-c", "prod", "change", "show", change)["data"]
    assert (shown["state"], shown["hash"], shown["author"]) == ("proposed", plan["hash"], "tester")
    assert shown["rows"] == plan["rows"]
    assert shown["summary"] == plan["summary"]
    other = {"BACKBONE_AUTHOR": "kim"}
    approved = theirs.run("-c", "prod", "change", "approve", change, "--reason", "looked at it", **other)
    assert approved.exit_code == 0, approved.output
    assert f"({change}), planned by tester." in approved.stdout
    twice = theirs.run("-c", "prod", "change", "approve", change, "--reason", "again", **other)
    assert (twice.exit_code, "was approved already, by kim" in twice.stderr) == (6, True)
    assert mine.document("-c", "prod", "change", "show", change)["data"]["state"] == "approved"
    assert mine.run("-c", "prod", "apply", change).exit_code == 0
    monkeypatch.setenv("BACKBONE_PROJECT", str(mine.folder))
    app = App()
    try:
        mine_of = [one for one in entries(app) if one.change_id == change]
    finally:
        app.close()
    assert [(one.phase, one.author, one.reason) for one in mine_of] == [
        ("proposed", "tester", "INC-1"), ("approved", "kim", "looked at it"),
        ("planned", "tester", "INC-1"), ("applied", "tester", "INC-1"),
    ]  # fmt: skip
    assert len({one.plan_hash for one in mine_of}) == 1
    late = theirs.run("-c", "prod", "change", "approve", change, "--reason", "late", **other)
    assert (late.exit_code, "was begun already" in late.stderr) == (6, True)
    # what acts at once and what takes back wait for nobody
    paused = mine.run("-c", "prod", "subscription", "pause", mine.subscription, "--reason", "INC-2")
    assert paused.exit_code == 0, paused.output
    back = mine.run("-c", "prod", "undo", change, "--yes", "--reason", "INC-3")
    assert back.exit_code == 0, back.output


def test_an_approval_is_for_one_plan_only_and_ends_with_it(
    mine: TestProject, theirs: TestProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = attach(mine)["data"]["id"], attach(mine)["data"]["id"]
    other = {"BACKBONE_AUTHOR": "kim"}
    assert theirs.run("-c", "prod", "change", "approve", one, "--reason", "fine", **other).exit_code == 0
    assert mine.run("-c", "prod", "apply", two).exit_code == 6  # the same again, but another plan
    unknown = theirs.run("-c", "prod", "change", "approve", "ch-zzzzz", "--reason", "fine", **other)
    assert (unknown.exit_code, "No change 'ch-zzzzz' waits for an approval" in unknown.stderr) == (5, True)
    monkeypatch.setenv("BACKBONE_PROJECT", str(mine.folder))
    app = App()
    app.screen = Screen(quiet=True)
    app.choose_context("prod")
    try:
        plan = Store.of(app).load(two)
        old = replace(plan, id="ch-22222", created=plan.created - timedelta(hours=2),
                      expires=plan.expires - timedelta(hours=2))  # fmt: skip
        approval.propose(app, old)
    finally:
        app.close()
    late = theirs.run("-c", "prod", "change", "approve", "ch-22222", "--reason", "fine", **other)
    assert (late.exit_code, "is older than 60 minutes" in late.stderr) == (6, True)


def test_a_context_that_asks_for_something_else_is_told_what_there_is(mine: TestProject) -> None:
    file = mine.folder / "backbone.toml"
    file.write_text(file.read_text().replace('approval = "two-person"', "approval = true"))
    wrong = mine.run("change", "list")
    assert wrong.exit_code == 2
    assert "approval" in wrong.stderr
    assert "two-person" in wrong.stderr
