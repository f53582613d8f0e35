"""Whatever is typed in place of a name, a file or a value: one sentence, a known exit code, and in JSON mode exactly
one document. Every command of the table, against a real cluster; nothing is applied."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.cli import cli
from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.integration

NAMES = {
    "empty": "",
    "long": "x" * 5000,
    "unicode": "naïve\u202e☃",
    "control": "a\x07\x1b[31mb\nc",
    "path": "../../etc/passwd",
    "dash": "-",
    "format": "%s{}{0}[bold]",
    "folder": "/proc",
    "memory": "/proc/self/mem",
    "nowhere": "/nowhere/x.yaml",
}
FILES = {
    "binary": bytes(range(256)) * 20,
    "nothing": b"",
    "ten-megabytes": b"a: b\n" * 2_000_000,
    "deep": b"[" * 100_000,
}
# what an argument stands for decides what comes before and after it
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "status": (["status"], []),
    "lag": (["lag"], []),
    "lag fail-over": (["lag", "--fail-over"], []),
    "lag isolation": (["lag", "--isolation"], []),
    "deadletter list": (["deadletter", "list"], []),
    "deadletter show": (["deadletter", "show"], []),
    "event get": (["event", "get"], []),
    "event tail": (["event", "tail"], ["--no-follow"]),
    "event tail from": (["event", "tail", "accounts.UserSignedUp", "--no-follow", "--from"], []),
    "event tail where": (["event", "tail", "accounts.UserSignedUp", "--no-follow", "--where"], []),
    "event publish": (["event", "publish"], ["--data", "{}"]),
    "event publish data": (["event", "publish", "accounts.UserSignedUp", "--data"], []),
    "event publish file": (["event", "publish", "accounts.UserSignedUp", "--file"], []),
    "topic list": (["topic", "list"], []),
    "catalog list": (["catalog", "list"], []),
    "catalog show": (["catalog", "show"], []),
    "catalog search": (["catalog", "search"], []),
    "catalog lineage": (["catalog", "lineage"], []),
    "catalog dependencies": (["catalog", "dependencies"], []),
    "context show": (["context", "show"], []),
    "context": (["-c"], ["status"]),
    "schema check": (["schema", "check"], []),
    "schema check base": (["schema", "check", "--base"], []),
    "schema register": (["schema", "register"], []),
    "subscription check": (["subscription", "check"], []),
    "subscription test": (["subscription", "test"], []),
    "subscription preview": (["subscription", "preview"], []),
    "subscription attach": (["subscription", "attach"], ["--from", "earliest"]),
    "subscription attach from": (["subscription", "attach", "SUBSCRIPTION", "--from"], []),
    "subscription detach": (["subscription", "detach"], []),
    "subscription pause": (["subscription", "pause"], []),
    "subscription resume": (["subscription", "resume"], []),
    "subscription new connection": (["subscription", "new", "z", "--event", "accounts.UserErased", "--connection"], []),
    "subscription new event": (["subscription", "new", "zzz", "--connection", "rows", "--event"], []),
    "subscription new": (["subscription", "new"], ["--connection", "rows", "--event", "accounts.UserErased"]),
    "run": (["run"], []),
    "run health": (["run", "--health"], []),
    "monitor health": (["monitor", "--health"], []),
    "monitor compat": (["monitor", "--every", "1ms", "--compat"], []),
    "trace": (["trace"], []),
    "receipt list outcome": (["receipt", "list", "--outcome"], []),
    "receipt list from": (["receipt", "list", "--from"], []),
    "receipt list key": (["receipt", "list", "--key"], []),
    "rewind": (["rewind"], ["--to", "earliest"]),
    "rewind to": (["rewind", "SUBSCRIPTION", "--to"], []),
    "apply": (["apply"], []),
    "undo": (["undo"], []),
    "change show": (["change", "show"], []),
    "change list limit": (["change", "list", "--limit"], []),
    "schema package": (["schema", "package", "--date", "2026-11-29", "--name"], []),
    "schema package date": (["schema", "package", "--date"], []),
    "init": (["init", "--name"], ["/nowhere/new"]),
    "completion": (["completion"], []),
    "local logs": (["local", "logs"], []),
    "command": ([], []),
}  # fmt: skip
THAT_TAKE_FILES = {
    "schema check": ".avsc",
    "subscription check": ".yaml",
    "subscription test": ".yaml",
    "subscription preview": ".yaml",
    "subscription attach": ".yaml",
    "event publish file": ".jsonl",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> TestProject:
    made = make_project(tmp_path_factory.mktemp("bad"), "badinput", kafka=stack.bootstrap, registry=stack.registry_url)
    assert made.run("schema", "register", "--apply", "--yes", "-q").exit_code == 0
    return made


def changes(project: TestProject) -> set[str]:
    """All that the audit of this broker knows: other tests have changed things on it before."""
    return {one["id"] for one in project.document("change", "list", "--limit", "10000")["data"]}


@pytest.fixture(scope="module")
def changes_before(project: TestProject) -> set[str]:
    return changes(project)


@pytest.fixture(autouse=True)
def changed_nothing(project: TestProject, changes_before: set[str]) -> Iterator[None]:
    before = sorted(path.name for path in project.folder.rglob("*") if ".backbone" not in path.parts)
    yield
    assert sorted(path.name for path in project.folder.rglob("*") if ".backbone" not in path.parts) == before
    assert changes(project) == changes_before, "something was changed"


def check(project: TestProject, arguments: list[str]) -> None:
    typed = [project.subscription if word == "SUBSCRIPTION" else word for word in arguments]
    result = project.run(*typed, "--output", "json")
    told = f"{[word[:99] for word in typed]}: exit {result.exit_code}\n{result.stdout[:500]}\n{result.stderr[:500]}"
    assert result.exit_code in (2, 3, 5, 6), told
    assert "Traceback" not in result.output, told
    document = json.loads(result.stdout)
    if result.exit_code != 3:  # "checked, and the answer is no" has findings for its data
        assert document["error"]["code"] == result.exit_code, told
        message = document["error"]["message"]
        assert len(message) < 1500, told
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, told
    assert not any(char in result.stderr for char in "\x1b\x07\u202e"), told


@pytest.mark.parametrize("value", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_name_or_value_is_one_sentence(project: TestProject, command: str, value: str) -> None:
    if command == "context show" and value == "":
        pytest.skip("no name: the chosen context")
    before, after = COMMANDS[command]
    check(project, [*before, value, *after])


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("command", THAT_TAKE_FILES)
def test_a_file_with_anything_in_it_is_one_sentence(
    project: TestProject, tmp_path: Path, command: str, content: bytes
) -> None:
    file = tmp_path / f"anything{THAT_TAKE_FILES[command]}"
    file.write_bytes(content)
    before, after = COMMANDS[command]
    check(project, [*before, str(file), *after])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", THAT_TAKE_FILES)
def test_a_file_that_may_not_be_read_is_one_sentence(project: TestProject, tmp_path: Path, command: str) -> None:
    file = tmp_path / f"closed{THAT_TAKE_FILES[command]}"
    file.write_bytes(b"x")
    file.chmod(0)
    before, after = COMMANDS[command]
    result = project.run(*before, str(file), *after, "--output", "json")
    assert result.exit_code in (2, 3, 4)
    assert "Traceback" not in result.output


def leaves(command: click.Command, path: list[str]) -> Iterator[list[str]]:
    if not isinstance(command, click.Group):
        yield path
        return
    yield path
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, [*path, name])


@pytest.mark.parametrize("path", [path for path in leaves(cli, []) if path], ids=" ".join)
def test_an_unknown_option_is_one_sentence_for_every_command(project: TestProject, path: list[str]) -> None:
    check(project, [*path, "--bogus"])
