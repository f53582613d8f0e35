"""What each role needs of Kafka, from one table: what commands print of it, and that it says what it must."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from ops.permissions import ROLES, Permission, Role, permissions
from tests.ops.projects import TestProject, make_project

READERS = {"crm": ["billing.invoices"], "mail": ["accounts.users", "billing.invoices"]}


def found(role: Role) -> dict[tuple[str, str], tuple[str, ...]]:
    topics = ["billing.invoices", "accounts.users"]
    return {(one.resource, one.name): one.operations for one in permissions(role, topics, READERS)}


def test_a_publisher_may_write_its_topics_and_nothing_else() -> None:
    assert found("publisher") == {("topic", "accounts.users"): ("Write",), ("topic", "billing.invoices"): ("Write",)}


def test_a_worker_reads_its_sources_and_writes_none_of_the_companys_topics() -> None:
    may = found("worker")
    assert may["topic", "billing.invoices"] == ("Read",)
    assert may["group", "crm"] == may["group", "mail"] == ("Read",)
    written = {name for (kind, name), operations in may.items() if kind == "topic" and "Write" in operations}
    assert written == {"backbone.control", "backbone.heartbeat", "backbone.deliveries", "crm.dead", "mail.dead"}


@pytest.mark.parametrize("role", ["monitor", "analyst"])
def test_who_only_looks_may_change_nothing(role: Role) -> None:
    assert {one for operations in found(role).values() for one in operations} <= {
        "Read", "Describe", "DescribeConfigs",
    }  # fmt: skip
    assert not [name for (kind, name), operations in found(role).items() if kind == "group" and "Read" in operations]


def test_nobody_but_the_operator_may_create_or_delete() -> None:
    for role in ROLES:
        operations = {one for of in found(role).values() for one in of} & {"Create", "Delete", "Alter"}
        assert operations == {"operator": {"Create", "Delete", "Alter"}, "ledger": {"Delete"}}.get(role, set())
    assert found("ledger")["group", "ledger"] == ("Read", "Delete")


def test_a_line_for_kafkas_tool_is_quoted_for_the_shell() -> None:
    one = Permission("worker", "topic", "*", ("Read", "Write"), "")
    words = shlex.split(one.command("User:CN=a b", "k:9093"))
    assert words == [
        "kafka-acls.sh", "--bootstrap-server", "k:9093", "--add", "--allow-principal", "User:CN=a b",
        "--operation", "Read", "--operation", "Write", "--topic", "*",
    ]  # fmt: skip
    assert (
        Permission("monitor", "cluster", "kafka-cluster", ("Describe",), "").command("U:a", "k").endswith("--cluster")
    )


# ---- the command


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    return make_project(tmp_path, "t")


def test_the_command_says_what_the_roles_of_this_project_need_and_asks_nobody(project: TestProject) -> None:
    rows = project.document("topic", "acls")["data"]
    assert {row["role"] for row in rows} == set(ROLES)
    worker = project.document("topic", "acls", "worker")["data"]
    assert {row["role"] for row in worker} == {"worker"}
    assert "t.users" in {row["name"] for row in worker}
    assert f"{project.subscription}.inbox" in {row["name"] for row in worker}


def test_lines_for_kafkas_tool_are_data_for_people_and_programs(project: TestProject) -> None:
    result = project.run("-c", "prod", "topic", "acls", "publisher", "--principal", "User:shop")
    lines = result.stdout.splitlines()
    assert lines
    assert all(line.startswith("kafka-acls.sh --bootstrap-server 127.0.0.1:1 --add") for line in lines)
    rows = project.document("-c", "prod", "topic", "acls", "publisher", "--principal", "User:shop")["data"]
    assert [row["line"] for row in rows] == lines


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["wrker"], 5, "Did you mean 'worker'?"),
        (["--principal", "User:a"], 2, "wants one ROLE"),
        (["worker", "ledger", "--principal", "User:a"], 2, "wants one ROLE"),
        (["worker", "--principal", "a"], 2, "is written User:NAME"),
    ],
)
def test_a_wrong_word_is_one_sentence(project: TestProject, words: list[str], code: int, said: str) -> None:
    result = project.run("topic", "acls", *words)
    assert (result.exit_code, said in result.stderr) == (code, True)
    assert len(result.stderr.strip().splitlines()) == 1
    assert json.loads(project.run("topic", "acls", *words, "--output", "json").stdout)["error"]["code"] == code
