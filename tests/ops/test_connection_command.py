"""``backbone connection``: what is shown over all workers, what a check answers, what a pause writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.connection import ConnectionView
from connectors.connector import connector_types
from consumers.control import State, connection_record
from consumers.heartbeat import Heartbeat
from ops.app import App
from tests.conftest import Stack
from tests.integration.world import Vendor
from tests.ops.broker import Broker
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return Broker(stack)


@pytest.fixture
def project(tmp_path: Path, stack: Stack, broker: Broker, prefix: str) -> Iterator[TestProject]:
    """Its connection ``rows`` has a name of its own, because the control topic is everybody's."""
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    for file in (made.folder / "backbone.toml", *(made.folder / "consumers" / "subscriptions").glob("*.yaml")):
        file.write_text(
            file.read_text().replace("rows]", f"{prefix}]").replace("connection: rows", f"connection: {prefix}")
        )
    result = made.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    yield made
    broker.control(connection_record(prefix, None))


Beat = Callable[..., None]


@pytest.fixture
def beat(broker: Broker, prefix: str) -> Iterator[Beat]:
    """A worker of that name says in what state the connection of this test is."""
    said = set()

    def say(worker: str, state: str, *, at: float = 0.0, **more: object) -> None:
        usual = {"reason": "", "until": None, "in_flight": 3, "quota_used": None, "waiting": 0}
        view = ConnectionView(name=prefix, state=state, **(usual | more))  # type: ignore[arg-type]
        said.add(f"{prefix}/{worker}")
        broker.beat(Heartbeat(process=f"{prefix}/{worker}", at=at or time.time(), connections=(view,)))

    yield say
    broker.farewell(*said)


@pytest.fixture
def recorded(
    project: TestProject, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], State | None]]:
    """What the control topic says of the connection now."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    app = App()
    yield lambda: app.control().connections.get(prefix)
    app.close()


def test_a_connection_is_as_bad_as_its_worst_worker_says(project: TestProject, beat: Beat, prefix: str) -> None:
    assert project.document("connection", "list")["data"][0]["state"] == "unused"
    beat("1", "running", quota_used=0.25)
    beat("2", "open", reason="timeout", until=time.time() + 60, quota_used=0.5)
    (row,) = project.document("connection", "list")["data"]
    assert (row["name"], row["connector"], row["state"], row["reason"]) == (prefix, "sql", "open", "timeout")
    assert (row["workers"], row["workers_in_state"], row["in_flight"], row["quota_used"]) == (2, 1, 6, 0.5)
    human = project.run("connection", "show", prefix)
    assert human.exit_code == 0, human.output
    assert f"The circuit of {prefix} is open in 1 of 2 workers (timeout), until" in human.stdout
    assert f"-> backbone connection check {prefix}" in human.stdout
    shown = project.document("connection", "show", prefix)["data"]
    assert {one["process"]: one["state"] for one in shown["in_workers"]} == {
        f"{prefix}/1": "running",
        f"{prefix}/2": "open",
    }


def test_credentials_are_shown_as_references_only(
    project: TestProject, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project.folder / "backbone.toml"
    secret = "postgresql://sam:hunter2@db/sales"
    monkeypatch.setenv("DB_OF_TEST", secret)
    expires = f'connections.{prefix}.credential_expires = "2027-03-31"'
    tables = f'connections.{prefix}.url = "env:DB_OF_TEST"\n{expires}\nproduction = true'
    file.write_text(file.read_text().replace('production = true\nconnections = "fake"', tables))
    shown = project.document("-c", "prod", "connection", "show", prefix)["data"]
    assert shown["settings"]["url"] == "env:DB_OF_TEST"
    human = project.run("-c", "prod", "connection", "show", prefix)
    assert "hunter2" not in human.output + str(shown)
    assert (shown["credential_expires"], shown["api_version"], shown["api_sunset"]) == ("2027-03-31", None, None)
    assert "ends 2027-03-31, as backbone.toml says" in human.stdout


def test_a_pause_acts_at_once_is_audited_and_can_be_undone(
    project: TestProject, recorded: Callable[[], State | None], prefix: str
) -> None:
    done = project.document("connection", "pause", prefix, "--reason", "INC-412")["data"]
    state = recorded()
    assert state is not None
    assert (state.state, state.reason, state.by) == ("paused", "INC-412", "tester")
    again = project.run("connection", "pause", prefix)
    assert again.exit_code == 6
    assert "is paused already (INC-412)" in again.output
    (row,) = project.document("connection", "list")["data"]
    assert (row["state"], row["reason"]) == ("held", "INC-412")
    assert project.document("change", "show", done["id"])["data"]["state"] == "applied"
    assert project.run("undo", done["id"], "--yes").exit_code == 0
    state = recorded()
    assert state is not None
    assert state.state == "running"
    assert project.run("undo", done["id"], "--yes").exit_code == 6


def test_a_resume_ends_a_pause_and_is_refused_where_there_is_none(
    project: TestProject, recorded: Callable[[], State | None], prefix: str
) -> None:
    assert project.run("connection", "resume", prefix).exit_code == 6
    project.document("connection", "pause", prefix)
    project.document("connection", "resume", prefix)
    state = recorded()
    assert state is not None
    assert state.state == "running"


def test_a_connection_that_its_workers_stopped_can_be_resumed(
    project: TestProject, recorded: Callable[[], State | None], beat: Beat, prefix: str
) -> None:
    """The control topic says nothing of it: workers ask again when a person has spoken."""
    beat("1", "stopped", reason="invalid_auth", at=time.time() - 3)
    project.document("connection", "resume", prefix)
    state = recorded()
    assert state is not None
    assert (state.state, state.by) == ("running", "tester")
    (row,) = project.document("connection", "list")["data"]
    assert row["state"] == "running", "the heartbeat is from before"


@pytest.mark.parametrize("verb", ["show", "check", "pause", "resume"])
def test_a_name_that_is_not_there_is_not_found(project: TestProject, verb: str, prefix: str) -> None:
    asked = project.run("connection", verb, f"{prefix}x")
    assert asked.exit_code == 5
    assert f"Did you mean '{prefix}'?" in asked.output


def test_credentials_that_are_missing_are_a_no_without_a_call(project: TestProject, prefix: str) -> None:
    file = project.folder / "backbone.toml"
    tables = f'connections.{prefix}.url = "env:NOT_SET_IN_THIS_TEST"\nproduction = true'
    file.write_text(file.read_text().replace('production = true\nconnections = "fake"', tables))
    asked = project.run("-c", "prod", "connection", "check", prefix, "--output", "ndjson")
    assert asked.exit_code == 3
    assert '"answer":"no"' in asked.stdout.replace(" ", "")
    assert "the environment variable NOT_SET_IN_THIS_TEST is not set" in asked.stdout


@pytest.fixture
def chat(project: TestProject) -> Iterator[Vendor]:
    """Slack's fake, which the connection ``chat`` of the project speaks to."""
    fake = connector_types()["slack"].fake
    assert fake is not None
    vendor = Vendor(fake())
    settings, running = project.folder / "backbone.toml", project.folder / ".backbone" / "local.json"
    settings.write_text(settings.read_text() + '[connections.chat]\nconnector = "slack"\n')
    running.write_text(json.dumps(json.loads(running.read_text()) | {"fakes": {"slack": vendor.url}}))
    yield vendor
    vendor.close()


def test_a_check_asks_the_vendor_and_applies_nothing(project: TestProject, chat: Vendor, prefix: str) -> None:
    rows = {row["name"]: row for row in project.document("connection", "check")["data"]}
    assert {name: row["answer"] for name, row in rows.items()} == {prefix: "works", "chat": "works"}
    assert rows["chat"]["outcome"] == "Delivered"
    report = chat.report()
    assert (report["applied"], report["effects"]) == (0, 0)


def test_credentials_that_the_vendor_refuses_are_a_no_with_its_reason(project: TestProject, chat: Vendor) -> None:
    chat.misbehave({"kind": "status", "status": 401, "times": 5})
    asked = project.run("connection", "check", "chat")
    assert asked.exit_code == 3
    assert "Unavailable" in project.run("connection", "check", "chat", "--output", "json").stdout
    assert "mend the credentials" in asked.stdout.replace("\n", " ")
    assert "chat: the vendor cannot be used with these settings." in asked.output


def is_away(vendor: Vendor) -> bool:
    try:
        vendor.report()
    except OSError:
        return True
    return False


def test_a_vendor_that_does_not_answer_is_a_no(project: TestProject, chat: Vendor) -> None:
    chat.misbehave({"kind": "away", "seconds": 60})
    eventually(lambda: is_away(chat), about="the fake to be away, just after it has said so")
    (row,) = project.document("connection", "check", "chat", code=3)["data"]
    assert row["answer"] == "no"
    assert row["outcome"] in ("Unavailable", "Unknown"), "refused, or cut in the middle"
    assert row["advice"] == "the vendor cannot be reached now, or asks to wait"


def test_a_connector_without_a_harmless_call_says_so(
    project: TestProject, chat: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = connector_types()
    without = types | {"slack": replace(types["slack"], check=False)}
    monkeypatch.setattr("connectors.connector.connector_types", lambda _: without)
    (row,) = project.document("connection", "check", "chat")["data"]
    assert (row["answer"], row["advice"]) == ("cannot tell", "the connector slack has no harmless call to ask with")


def test_a_fake_that_does_not_run_is_unreachable(project: TestProject) -> None:
    settings = project.folder / "backbone.toml"
    settings.write_text(settings.read_text() + '[connections.chat]\nconnector = "slack"\n')
    asked = project.run("connection", "check", "chat")
    assert asked.exit_code == 8
    assert "Start it: backbone local up" in asked.output
