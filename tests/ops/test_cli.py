"""The manners of the command line, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ops.app import App, screen_options
from ops.cli import SECTIONS, Root, cli
from schemas.errors import (
    BackboneError,
    CheckFailedError,
    InputError,
    NotAllowedError,
    NotFoundError,
    PartlyDoneError,
    RefusedError,
    UnreachableError,
)
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project

HEAVY = ("confluent_kafka", "pydantic", "aiohttp", "rich", "sqlalchemy", "fastavro", "yaml", "jinja2", "structlog",
         "urllib3", "prometheus_client", "asyncio")  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    return make_project(tmp_path, "t")


def all_commands() -> list[list[str]]:
    found = []
    for section in SECTIONS.values():
        for name, entry in section.items():
            found.append([name])
            if entry.verbs is not None:
                found += [[name, verb] for verb in entry.verbs]
    return found


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = f"import ops.cli, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_command_has_help_that_explains_it(path: list[str]) -> None:
    result = CliRunner().invoke(cli, [*path, "-h"])
    assert result.exit_code == 0, result.output
    assert "Usage: backbone" in result.stdout
    assert "-h, --help" in result.stdout


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_option_of_every_command_has_help(path: list[str]) -> None:
    context = click.Context(cli, info_name="backbone")
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
    commands = [command]
    if isinstance(command, click.Group):
        commands = [verb for name in command.list_commands(context) if (verb := command.get_command(context, name))]
    for one in commands:
        assert one.help, f"{path} {one.name}"
        for option in one.params:
            if isinstance(option, click.Option):
                assert option.help, f"{path} {one.name} {option.opts}"


def test_without_arguments_the_commands_are_listed_by_what_people_do() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 0
    assert "What is going on:" in result.stdout
    assert "Change, and change back:" in result.stdout
    assert result.stderr == ""


def test_a_noun_without_a_verb_is_a_usage_error_with_its_help_on_stderr() -> None:
    result = CliRunner().invoke(cli, ["context"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "list" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lga"], 2, "There is no command 'lga'. Did you mean 'lag'?"),
        (["context", "lst"], 2, "list"),
        (["context", "list", "--outptu", "json"], 2, "--output"),
        (["context", "list", "--output", "xml"], 2, "xml"),
        (["context", "show", "prdo"], 5, "Did you mean 'prod'?"),
        (["-c", "prdo", "context", "list"], 5, "Did you mean 'prod'?"),
        (["context", "list", "-c", "prdo"], 5, "Did you mean 'prod'?"),
        (["context", "list", "--fields", "nme"], 2, "Did you mean 'name'?"),
        (["context", "list", "--sort", "nme"], 2, "Did you mean 'name'?"),
        (["apply", "../../etc/passwd"], 5, "There is no change"),
        (["apply", "ch-22222"], 5, "There is no change 'ch-22222'"),
        (["undo", "ch-22222"], 5, "There is no change 'ch-22222'"),
        (["subscription", "attach"], 2, "--all"),
        (["subscription", "attach", "nobody"], 5, "There is no subscription 'nobody'"),
        (["subscription", "attach", "./none.yaml"], 5, "none.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_sentence_with_the_right_exit_code_in_both_modes(
    project: TestProject, arguments: list[str], code: int, words: str
) -> None:
    plain = project.run(*arguments)
    assert plain.exit_code == code, plain.output
    assert words in plain.stderr
    assert plain.stdout == ""
    assert len(plain.stderr.strip().splitlines()) == 1
    if "--output" not in arguments:
        machine = project.run(*arguments, "--output", "json")
        assert machine.exit_code == code
        document = json.loads(machine.stdout)
        assert document["schema"] == "backbone.error/v1"
        assert document["error"]["code"] == code
        assert words in document["error"]["message"]


def test_json_lines_hold_one_document_a_line(project: TestProject) -> None:
    lines = project.run("context", "list", "--output", "ndjson", "--fields", "name").stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == [{"name": "local"}, {"name": "prod"}]


def test_the_context_is_the_first_word_of_a_screen_unless_it_is_local(project: TestProject) -> None:
    assert project.run("-c", "prod", "context", "list").stderr.startswith("prod")
    assert project.run("context", "list", BACKBONE_CONTEXT="prod").stderr.startswith("prod")
    assert project.run("context", "list").stderr == ""


def test_quiet_silences_words_but_not_data(project: TestProject) -> None:
    result = project.run("-c", "prod", "context", "list", "-q")
    assert result.stderr == ""
    assert "prod" in result.stdout


def test_tables_in_a_pipe_are_neither_cut_nor_coloured_nor_padded(project: TestProject) -> None:
    table = project.run("context", "list").stdout
    assert "\x1b" not in table
    assert all(line == line.rstrip() for line in table.splitlines())


def test_a_command_that_is_not_installed_says_so_when_it_is_used() -> None:
    from ops.cli import Entry, LazyGroup

    group = LazyGroup({"x": {"later": Entry("ops.commands.no_such:later", "Later.")}}, name="backbone")
    with pytest.raises(BackboneError, match="'later' is not part of this installation"):
        group.get_command(click.Context(group), "later")


def failing(error: BaseException) -> Root:
    @click.command()
    @screen_options
    @click.pass_obj
    def fail(app: App) -> None:
        raise error

    root = Root({}, name="backbone")
    root.add_command(fail)
    root._entries["fail"] = None  # type: ignore[assignment]
    root.get_command = lambda ctx, name: fail  # type: ignore[method-assign]
    return root


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x is none."), 2),
        (CheckFailedError("It is late."), 3),
        (NotAllowedError("You may not."), 4),
        (NotFoundError("There is no x."), 5),
        (RefusedError("Nothing was changed."), 6),
        (PartlyDoneError("1 of 2 was."), 7),
        (UnreachableError("Nobody answers."), 8),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (ValueError("payload with ana@example.org"), 1),
        (BrokenPipeError(), 141),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_command_raises_ends_with_one_sentence_and_an_exit_code(error: BaseException, code: int) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert "ana@example.org" not in result.output
    if code == 141:
        return
    assert len(result.stderr.strip().splitlines()) == 1
    machine = CliRunner().invoke(failing(error), ["fail", "--output", "json"])
    assert machine.exit_code == code
    document = json.loads(machine.stdout)  # exactly one
    assert (document["schema"], document["data"], document["error"]["code"]) == ("backbone.error/v1", None, code)
    assert "ana@example.org" not in machine.output


def test_the_traceback_is_shown_to_whoever_asks_for_it() -> None:
    result = CliRunner(env={"BACKBONE_DEBUG": "1"}).invoke(failing(ValueError("x")), ["fail"])
    assert "Traceback" in result.stderr


def test_a_reader_that_goes_away_ends_the_command_quietly(project: TestProject) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "completion", "bash", "-q"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(project: TestProject, shell: str) -> None:
    assert "_BACKBONE_COMPLETE" in project.run("completion", shell).stdout


def test_commands_are_completed() -> None:
    result = CliRunner(env={"_BACKBONE_COMPLETE": "bash_complete", "COMP_WORDS": "backbone subs", "COMP_CWORD": "1"})
    done = result.invoke(cli, [], prog_name="backbone")
    assert "subscription" in done.stdout


def test_credentials_are_shown_as_references_only(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_THING", "hunter2")
    file = project.folder / "backbone.toml"
    file.write_text(
        file.read_text()
        + '[contexts.shop]\nregistry.url="https://r.example"\nregistry.token="env:SECRET_THING"\n'
        + '[contexts.shop.kafka]\nbootstrap.servers="k:9092"\nsasl.password="env:SECRET_THING"\n'
    )
    result = project.run("context", "show", "shop")
    assert result.exit_code == 0, result.output
    assert "env:SECRET_THING" in result.stdout
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"bootstrap.serverz" = "k:1"', "librdkafka knows no setting 'bootstrap.serverz'"),
        ('"security.protocol" = "tls"', "librdkafka does not take this value of 'security.protocol'"),
        ('"session.timeout.ms" = 99999999', None),
        ('"security.protocol" = "SASL_SSL"\n"sasl.mechanism" = "PLAIN"', "sasl.username and sasl.password must be set"),
    ],
)
def test_a_kafka_setting_that_the_client_does_not_take_is_named(
    project: TestProject, monkeypatch: pytest.MonkeyPatch, line: str, words: str | None
) -> None:
    """It was `Kafka answered _INVALID_ARG.` with exit code 1."""
    monkeypatch.setattr("ops.topics.CLUSTER_TIMEOUT_S", 0.5)
    file = project.folder / "backbone.toml"
    file.write_text(file.read_text() + f'[contexts.x.kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n{line}\n')
    result = project.run("-c", "x", "topic", "list")
    if words is None:  # a setting of group membership: commands that join none do not use it
        assert result.exit_code == 8
        return
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "backbone.toml: contexts.x.kafka" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["subscription", "new", "x" * 5000, "--connection", "rows", "--event", "accounts.UserSignedUp"],
        ["schema", "check", "x" * 5000],
        ["apply", "x" * 5000],
        ["x" * 5000],
        ["context", "show", "x" * 5000],
    ],
    ids=lambda arguments: arguments[0][:12],
)
def test_a_very_long_name_is_an_ordinary_mistake_and_is_not_repeated_whole(
    project: TestProject, arguments: list[str]
) -> None:
    """A name that no file system takes was `Something unexpected happened`; five screens of x were the sentence."""
    result = project.run(*arguments)
    assert result.exit_code in (2, 5), result.output
    assert len(result.stderr) < 1000
    document = project.document(*arguments, code=result.exit_code)
    assert len(document["error"]["message"]) < 1000


def test_a_folder_in_place_of_a_file_is_said_to_be_one(project: TestProject) -> None:
    """`backbone schema check schemas/events` is what everybody tries; it said there was no such file."""
    for arguments in (["schema", "check", "schemas/events"], ["subscription", "check", "./consumers/subscriptions"]):
        folder = str(project.folder / arguments[-1])
        result = project.run(*arguments[:-1], folder)
        assert result.exit_code == 2, result.output
        assert "is a folder" in result.stderr


def test_a_file_that_is_not_there_is_not_found(project: TestProject) -> None:
    for arguments in (
        ["schema", "check", "./none.avsc"],
        ["subscription", "check", "./none.yaml"],
        ["event", "publish", "accounts.UserSignedUp", "--source", "t", "--file", "./none.jsonl"],
    ):
        result = project.run(*arguments)
        assert result.exit_code == 5, result.output
        assert "none." in result.stderr


def test_a_cluster_that_does_not_answer_is_said_in_one_sentence(
    project: TestProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.topics.CLUSTER_TIMEOUT_S", 0.5)
    result = project.run("topic", "list")
    assert result.exit_code == 8
    assert result.stderr == "Error: The Kafka cluster at 127.0.0.1:1 does not answer. Start it: backbone local up\n"


def test_a_local_stack_that_is_not_running_is_said(project: TestProject) -> None:
    (project.folder / ".backbone" / "local.json").unlink()
    result = project.run("topic", "list")
    assert result.exit_code == 8
    assert "Start it: backbone local up" in result.stderr


def test_outside_a_project_the_way_to_one_is_said(tmp_path: Path) -> None:
    result = CliRunner(env={"BACKBONE_PROJECT": str(tmp_path)}).invoke(cli, ["topic", "list"])
    assert result.exit_code == 5
    assert "backbone.toml" in result.stderr
