"""Completion of names: every argument that takes one is known, from files, without what is slow to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from ops.cli import cli
from ops.completing import SOURCES, TAKES, remember
from ops.docs import commands
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project

FREE = {
    ("event get", "place"), ("catalog search", "words"), ("change throttle", "rate"), ("deadletter show", "id_"),
    ("deadletter redrive", "ids"), ("deadletter discard", "ids"), ("deadletter set-aside", "offset"),
    ("subscription new", "name"),
}  # fmt: skip
"""Arguments of which nobody knows what may be written: offsets, words, ids of letters, the name of something new."""


def test_every_argument_takes_names_of_a_kind_or_is_known_to_take_none() -> None:
    """A command that is added says what its argument takes, in ``ops.completing.TAKES``."""
    found: dict[tuple[str, str], click.Parameter] = {}
    for path, command, _ in commands():
        found |= {(" ".join(path), param.name or ""): param for param in command.params}
    arguments = {
        place
        for place, param in found.items()
        if isinstance(param, click.Argument) and not isinstance(param.type, click.Choice)
    }
    assert arguments - FREE <= TAKES.keys()
    assert TAKES.keys() <= found.keys(), "what takes names is there"
    assert {kind for kinds in TAKES.values() for kind in kinds} <= {*SOURCES, "file", "dir"}


@pytest.fixture
def project(tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> TestProject:
    made = make_project(tmp_path, prefix)
    monkeypatch.setenv("BACKBONE_PROJECT", str(made.folder))
    monkeypatch.delenv("BACKBONE_CONTEXT", raising=False)
    return made


def offered(line: str) -> list[str]:
    """What the shell is told after this line, whose last word is being typed."""
    *words, incomplete = line.split(" ")
    shell = ShellComplete(cli, {}, "backbone", "_BACKBONE_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


def test_names_of_the_project_are_offered(project: TestProject) -> None:
    name = project.subscription
    assert offered(f"subscription pause {project.prefix}") == [name]
    assert offered("connection show ") == ["rows"]
    assert offered("event publish accounts.UserS") == ["accounts.UserSignedUp"]
    assert offered("-c p") == offered("status -c p") == offered("context show p") == ["prod"]
    assert project.users in offered(f"topic list {project.prefix}")
    assert {name, "rows", "accounts.UserSignedUp"} <= {*offered("catalog show ")}
    assert "user_id=" in offered("erase u")
    assert offered("topic acls wor") == ["worker"]
    assert "no-owner" in offered("rule show no-")
    assert offered("run m") == ["monitor"]
    assert offered("receipt list --subscription t") == [name]


def test_changes_of_the_context_that_the_line_names_are_offered_the_newest_first(project: TestProject) -> None:
    for number, (context, change) in enumerate((("local", "ch-22222"), ("local", "ch-23456"), ("prod", "ch-33333"))):
        folder = project.folder / ".backbone" / "changes" / context
        folder.mkdir(parents=True, exist_ok=True)
        for file in (f"{change}.json", f"{change}.state.json", f"{change}.lock"):
            (folder / file).write_text("{}")
            os.utime(folder / file, (number, number))
    assert offered("apply ") == offered("change pause ch-") == ["ch-23456", "ch-22222"]
    assert offered("-c prod undo ") == offered("change show -c prod ") == ["ch-33333"]


def test_what_a_command_saw_of_the_cluster_is_offered_when_that_is_away(project: TestProject) -> None:
    app: Any = SimpleNamespace(project=SimpleNamespace(root=project.folder), screen=SimpleNamespace(context="local"))
    remember(app, "group", ["their-group"])
    remember(app, "group", ["other-group"])
    remember(app, "change", ["ch-77777"])
    remember(app, "subscription", ["gone"], whole=True)
    remember(app, "subscription", ["elsewhere"], whole=True)
    assert offered("rewind o") == ["other-group"]
    assert {"their-group", "other-group", "elsewhere"} <= {*offered("lag ")}
    assert offered("change watch ") == ["ch-77777"]
    assert "gone" not in offered("replay ")
    assert "their-group" not in offered("-c prod lag ")


@pytest.mark.parametrize("text", ["", "[project", "connections = 7\nproject = 'x'\ncontexts = []", "\0"])
def test_a_project_that_is_broken_has_no_names_and_no_errors(project: TestProject, text: str) -> None:
    (project.folder / "backbone.toml").write_text(text)
    (project.folder / ".backbone" / "names").mkdir()
    (project.folder / ".backbone" / "names" / "local.json").write_text('{"topic": 7, "change": [1, null], "group"')
    event = next((project.folder / "schemas").rglob("*.avsc"))
    event.write_text(json.dumps({"name": "X", "backbone": 7, "fields": {}}))
    for line in ("connection show ", "-c ", "event publish ", "erase ", "topic list ", "change show ", "lag "):
        offered(line)


def test_completion_imports_nothing_that_is_slow(project: TestProject) -> None:
    """What is quick enough to be typed against: measured as what it loads, not by a clock."""
    script = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from ops.cli import cli\n"
        "shell = ShellComplete(cli, {}, 'backbone', '_BACKBONE_COMPLETE')\n"
        "for line in (['subscription', 'pause'], ['change', 'show'], ['lag'], ['event', 'tail'], ['replay']):\n"
        "    shell.get_completions(line, '')\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'pydantic', 'confluent_kafka', 'rich', 'aiohttp', 'sqlalchemy', 'fastavro', 'jinja2', 'yaml'}))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=True)
    assert result.stdout.split() == []
