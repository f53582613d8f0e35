"""Who reads which field: parsed from YAML, recorded from runs of Python projections."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.app import App
from ops.catalog.readers import NOTES, Reader, overlaps, readers
from tests.ops.projects import TestProject, make_project

PYTHON = """
from consumers.subscription import Projected


def renamed(event):
    return Projected(action="row.upsert", entity=event.data["user_id"], body={"table": "t", "row": {"a": event.id}})
"""
PROJECTED = """
description: Renames.
owner: team-x
connection: rows
routes:
  - event: accounts.UserUpgraded
    projection: renames.py:renamed
"""
TESTED = """
tests:
  - {name: one, given: [{event: accounts.UserUpgraded}], expect: [{action: row.upsert}]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestProject:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    return make_project(tmp_path, "r")


def write(project: TestProject, text: str, python: str = PYTHON) -> None:
    folder = project.folder / "consumers" / "subscriptions"
    (folder / "renames.yaml").write_text(text)
    (folder / "renames.py").write_text(python)


def of(subscription: str) -> dict[str, Reader]:
    return {one.event: one for one in readers(App()) if one.subscription == subscription}


def test_what_yaml_reads_is_parsed_place_by_place(project: TestProject) -> None:
    found = of(project.subscription)["accounts.UserUpgraded"]
    assert (found.how, found.owner, found.connection) == ("parsed", "team-data", "rows")
    assert found.reads == {"body.row": {""}}
    assert found.touches("to_plan")


def test_what_python_reads_is_seen_in_the_tests_of_its_file(project: TestProject) -> None:
    write(project, PROJECTED + TESTED)
    found = of("renames")["accounts.UserUpgraded"]
    assert (found.how, found.events, found.on) == ("recorded", 1, datetime.now(UTC).date())
    assert found.fields == {"user_id"}
    assert found.projections == ("renames.py:renamed",)
    assert found.touches("user_id")
    assert not found.touches("to_plan")


def test_a_projection_that_nobody_ran_may_read_anything(project: TestProject) -> None:
    write(project, PROJECTED)
    found = of("renames")["accounts.UserUpgraded"]
    assert (found.how, found.events) == ("unseen", 0)
    assert found.touches("to_plan")


def test_what_runs_have_shown_is_kept_until_the_projection_changes(project: TestProject) -> None:
    write(project, PROJECTED + TESTED)
    assert project.run("subscription", "test", "renames").exit_code == 0
    kept = json.loads((project.folder / ".backbone" / NOTES).read_text())
    assert kept["subscriptions"]["renames"]["accounts.UserUpgraded"]["fields"] == ["user_id"]
    write(project, PROJECTED)
    assert of("renames")["accounts.UserUpgraded"].how == "recorded"
    write(project, PROJECTED, PYTHON + "\n# another file\n")
    assert of("renames")["accounts.UserUpgraded"].how == "unseen"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "backbone.fields_read/v1", "subscriptions": {"renames": 1}}']
)
def test_notes_that_cannot_be_read_are_as_good_as_none(project: TestProject, text: str) -> None:
    write(project, PROJECTED)
    (project.folder / ".backbone" / NOTES).write_text(text)
    assert of("renames")["accounts.UserUpgraded"].how == "unseen"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "a.b", True),
        ("a.b", "a", True),
        ("", "x", True),
        ("a", "ab", False),
        ("a.b", "a.c", False),
    ],
)
def test_paths_overlap_where_one_holds_the_other(one: str, other: str, expected: bool) -> None:
    assert overlaps(one, other) is expected
