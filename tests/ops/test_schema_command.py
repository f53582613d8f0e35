"""``backbone schema check | generate | register`` and ``backbone doctor``, with files and a real registry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project


@pytest.fixture
def project(tmp_path: Path, prefix: str) -> TestProject:
    return make_project(tmp_path, prefix)


@pytest.fixture
def running(tmp_path: Path, stack: Stack, prefix: str) -> TestProject:
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = made.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    return made


def edit(project: TestProject, event: str, change: Callable[[dict[str, Any]], None]) -> Path:
    path = project.folder / "schemas" / "events" / f"{event.replace('.', '/')}.avsc"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def add_field(default: bool) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        new: dict[str, Any] = {"name": "channel", "type": "string", "doc": "Where they came from.", "examples": ["web"]}
        content["fields"].append(new | ({"default": ""} if default else {}))

    return change


def test_good_contracts_pass_and_a_bad_one_is_a_finding_with_exit_code_3(project: TestProject) -> None:
    assert project.run("schema", "check").exit_code == 0
    path = edit(project, "accounts.UserErased", lambda content: content["backbone"].pop("owner"))
    found = project.document("schema", "check", code=3)["data"]
    assert [(Path(row["file"]), row["severity"]) for row in found] == [(path, "error")]
    assert project.run("schema", "check", str(path)).exit_code == 3
    annotations = project.run("schema", "check", "--output", "github")
    assert annotations.exit_code == 3
    assert annotations.stdout.startswith("::error file=")


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"type": "record"}', "[" * 5000, '"string"'])
def test_a_file_that_is_no_contract_is_a_finding_and_never_a_traceback(project: TestProject, content: str) -> None:
    path = project.folder / "x.avsc"
    path.write_text(content)
    result = project.run("schema", "check", str(path))
    assert result.exit_code == 3, result.output
    assert "x.avsc" in result.stdout


def test_a_file_that_is_not_there_is_said(project: TestProject) -> None:
    assert project.run("schema", "check", "none.avsc").exit_code == 5
    assert project.run("schema", "check", "none.avsc", "--all").exit_code == 2


def test_models_are_written_and_found_current_until_a_contract_changes(project: TestProject) -> None:
    assert project.run("schema", "generate", "--check").exit_code == 3
    written = project.document("schema", "generate")["data"]["written"]
    assert str(project.folder / "schemas" / "models" / "accounts.py") in written
    assert project.document("schema", "generate")["data"]["written"] == []
    assert project.run("schema", "generate", "--check").exit_code == 0
    edit(project, "accounts.UserErased", add_field(default=True))
    assert project.run("schema", "generate", "--check").exit_code == 3


def test_a_change_is_compared_with_a_revision_of_git(project: TestProject) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "start")
    assert project.run("schema", "check", "--base", "HEAD").exit_code == 0
    edit(project, "accounts.UserErased", add_field(default=False))
    found = project.document("schema", "check", "--base", "HEAD", code=3)["data"]
    assert found[0]["rule"] == "incompatible"
    assert "HEAD" in found[0]["message"]
    assert project.run("schema", "check", "--base", "no-such").exit_code == 2


@pytest.mark.integration
def test_registering_twice_changes_nothing_the_second_time(running: TestProject) -> None:
    assert running.document("schema", "register", "--apply", "--yes")["data"] == {"state": "unchanged"}
    assert running.run("schema", "check", "--registry").exit_code == 0


@pytest.mark.integration
def test_a_compatible_change_becomes_a_new_version(running: TestProject) -> None:
    edit(running, "accounts.UserErased", add_field(default=True))
    data = running.document("schema", "register", "accounts.UserErased", "--apply", "--yes")["data"]
    states = {row["name"]: row["state"] for row in data["rows"]}
    assert states[f"{running.users}-accounts.UserErased"] == "new version"
    assert data["after"][f"{running.users}-accounts.UserErased"] == 2
    undone = running.run("undo", data["id"], "--yes")
    assert undone.exit_code == 6
    assert "cannot be taken back" in undone.stderr


@pytest.mark.integration
def test_an_incompatible_change_is_refused_with_its_reasons_and_nothing_is_registered(running: TestProject) -> None:
    edit(running, "accounts.UserErased", add_field(default=False))
    result = running.run("schema", "register", "--apply", "--yes")
    assert result.exit_code == 6
    assert "accounts.UserErased" in result.stderr
    assert "channel" in result.stderr
    found = running.document("schema", "check", "--registry", code=3)["data"]
    assert "channel" in " ".join(f"{row['path']} {row['message']}" for row in found)


@pytest.mark.integration
def test_what_is_registered_is_asked_of_those_who_read_it(running: TestProject) -> None:
    edit(running, "accounts.UserErased", add_field(default=True))
    assert running.run("schema", "register", "accounts.UserErased", "--apply", "--yes", "-q").exit_code == 0
    edit(running, "accounts.UserErased", lambda content: content["fields"].pop())
    found = running.document("schema", "check", "--registry", code=3)["data"]
    (row,) = [row for row in found if row["rule"] == "field-read"]
    assert f"since version 2 'channel' was removed, and it is read by {running.subscription}" in row["message"]
    assert not [row for row in found if row["rule"] == "incompatible"]  # every rule of Avro lets it go


@pytest.mark.integration
def test_another_topic_is_seen_in_the_registry_where_the_event_has_another_subject(running: TestProject) -> None:
    edit(running, "accounts.UserErased", lambda content: content["backbone"].update(topic=f"{running.prefix}.others"))
    (row,) = [
        row
        for row in running.document("schema", "check", "--registry", code=3)["data"]
        if row["rule"] == "promise-read"
    ]
    assert f"the topic is {running.prefix}.others and was " in row["message"]  # or another test's, in this registry


@pytest.mark.integration
def test_a_registered_event_without_a_file_is_said_with_those_who_read_it(running: TestProject) -> None:
    (running.folder / "schemas" / "events" / "accounts" / "UserErased.avsc").unlink()
    found = running.document("schema", "check", "--registry", code=3)["data"]
    (row,) = [row for row in found if row["rule"] == "event-read" and running.prefix in row["message"]]
    assert "accounts.UserErased was in the registry (version 1) and has no file any more" in row["message"]


@pytest.mark.integration
def test_registered_versions_are_compared_with_each_other_and_with_files(running: TestProject) -> None:
    path = edit(running, "accounts.UserErased", add_field(default=True))
    assert running.run("schema", "register", "accounts.UserErased", "--apply", "--yes", "-q").exit_code == 0
    for old, new in (("accounts.UserErased:1", "accounts.UserErased:latest"), ("accounts.UserErased:1", str(path))):
        data = running.document("schema", "diff", old, new)["data"]
        assert [(one["field"], one["kind"]) for one in data["differences"]] == [("channel", "added")]
        assert data["compatible"]["full"]
    assert running.run("schema", "diff", "accounts.UserErased:9", str(path)).exit_code == 5


@pytest.mark.integration
def test_an_announced_end_is_registered_as_a_new_version(running: TestProject) -> None:
    assert running.run("schema", "deprecate", "accounts.UserErased", "--sunset", "2999-12-31").exit_code == 0
    data = running.document("schema", "register", "accounts.UserErased", "--apply", "--yes")["data"]
    assert data["after"][f"{running.users}-accounts.UserErased"] == 2


def test_a_replacement_that_the_two_do_not_agree_on_is_not_registered(project: TestProject) -> None:
    edit(project, "accounts.UserErased", lambda content: content["backbone"].update(replaces="accounts.Nothing"))
    result = project.run("schema", "register")
    assert result.exit_code == 6
    assert "there is no event 'accounts.Nothing'" in result.stderr


@pytest.mark.integration
def test_an_event_that_is_not_known_is_not_found(running: TestProject) -> None:
    result = running.run("schema", "register", "accounts.UserErasd")
    assert result.exit_code == 5
    assert "Did you mean 'accounts.UserErased'" in result.stderr


@pytest.mark.integration
def test_topics_are_listed_with_what_they_are_for(running: TestProject) -> None:
    row = running.document("topic", "list", running.users)["data"][0]
    assert (row["partitions"], row["cleanup"], row["time"]) == (3, "delete", "arrival")
    assert "accounts.UserSignedUp" in row["for"]
    assert running.run("topic", "list", f"{running.users}x").exit_code == 5
    names = [
        row["topic"] for row in running.document("topic", "plan", code=running.run("topic", "plan").exit_code)["data"]
    ]
    assert {running.users, running.invoices, "backbone.audit", "backbone.control"} <= set(names)


@pytest.mark.integration
def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(running: TestProject) -> None:
    edit(running, "accounts.UserErased", add_field(default=False))
    found = {row["check"]: row for row in running.document("doctor", code=3)["data"]}
    assert found["cluster"]["verdict"] == "ok"
    assert found["registry"]["verdict"] == "ok"
    assert found["connection rows"]["verdict"] == "ok"
    assert found["ledger"]["verdict"] == "ok"
    assert "made when a worker starts" in found["ledger"]["found"]
    assert found["schema accounts.UserErased"]["verdict"] == "fail"
    assert "backbone schema check" in found["schema accounts.UserErased"]["advice"]


def test_the_doctor_goes_on_when_nothing_answers(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.topics.CLUSTER_TIMEOUT_S", 0.5)
    found = {row["check"]: row for row in project.document("doctor", code=3)["data"]}
    assert "does not answer" in found["cluster"]["found"]
    assert found["topics"]["found"] == "not looked at: the cluster does not answer"
    assert found["contracts"]["verdict"] == "ok"
