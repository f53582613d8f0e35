"""What the catalogue sees on a real cluster: volume, last events, producers, versions, readers with lag."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from ops.app import App
from ops.catalog import rows
from ops.catalog.catalog import read_catalog
from ops.catalog.dependencies import graph, if_away
from ops.catalog.describe import fresh
from ops.catalog.seen import Seen, SeenEvent, SeenReader, SeenTopic
from ops.catalog.site import site
from schemas.contract import example, load_contract
from schemas.datum import to_json
from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.integration


def registered(folder: Path, stack: Stack, prefix: str) -> TestProject:
    made = make_project(folder, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    done = made.run("schema", "register", "--apply", "--yes", "-q")
    assert done.exit_code == 0, done.output
    return made


def publish(project: TestProject, event: str, count: int, source: str) -> None:
    (path,) = project.folder.rglob(f"{event.rpartition('.')[2]}.avsc")
    data = to_json(example(load_contract(path)))
    lines = "".join(json.dumps(data) + "\n" for _ in range(count))
    file = project.folder / ".backbone" / "events.jsonl"
    file.write_text(lines)
    done = project.run("event", "publish", event, "--source", source, "--file", str(file))
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> TestProject:
    """Upgrades of two sources, an erasure, and what is no event; nobody changes it but by attaching."""
    made = registered(tmp_path_factory.mktemp("seen"), stack, f"seen-{uuid.uuid4().hex[:8]}")
    publish(made, "accounts.UserUpgraded", 3, "accounts")
    publish(made, "accounts.UserUpgraded", 1, "migration")
    publish(made, "accounts.UserErased", 1, "accounts")
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    producer.produce(made.users, b"nonsense", b"k", partition=0)
    producer.produce(made.users, None, b"k", partition=0)
    assert producer.flush(10) == 0
    return made


def test_an_event_shows_volume_last_event_producers_and_versions(project: TestProject) -> None:
    data = project.document("catalog", "show", "accounts.UserUpgraded")["data"]
    seen = data["seen"]
    assert seen["producers"] == {"accounts": 3, "migration": 1}
    assert (seen["sampled"], seen["sample_is_whole"]) == (4, True)
    assert (seen["versions"], seen["file_version"]) == ({"1": 4}, 1)
    assert (seen["topic"]["kept"], seen["topic"]["last_hour"], seen["topic"]["partitions"]) == (7, 7, 3)
    assert seen["about_per_day"] == round(7 * 4 / 5)  # what is no event counts in the topic only
    age = datetime.now(UTC) - datetime.fromisoformat(seen["last"])
    assert -timedelta(seconds=5) < age < timedelta(minutes=5)
    text = project.run("catalog", "show", "accounts.UserUpgraded").stdout
    assert "accounts (3), migration (1)" in text
    assert "version 1 (4 of the last 4)" in text


def test_the_list_shows_it_for_every_event(project: TestProject) -> None:
    found = {row["event"]: row for row in project.document("catalog", "list")["data"]}
    assert found["accounts.UserUpgraded"]["last"] is not None
    assert found["accounts.UserErased"]["about_per_day"] == round(7 / 5)
    assert (found["billing.InvoicePaid"]["about_per_day"], found["billing.InvoicePaid"]["last"]) == (0, None)
    assert "PER DAY" in project.run("catalog", "list").stdout


def test_producers_that_were_seen_are_dependencies(project: TestProject) -> None:
    found = {(row["kind"], row["name"]): row for row in project.document("catalog", "dependencies")["data"]}
    assert found["producer", "migration"]["needed_by"] == ["event:accounts.UserUpgraded"]
    assert f"{project.subscription} gets nothing of it." in found["producer", "migration"]["if_away"]


def test_the_pages_say_what_was_seen_and_when(project: TestProject, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert project.run("catalog", "export", "html", "--out", str(out)).exit_code == 0
    page = (out / "events" / "accounts.UserUpgraded.html").read_text()
    assert "migration (1)" in page
    assert "about 6 a day" in page
    assert "as it was at <time" in page


def test_without_the_registry_the_rest_is_still_seen(project: TestProject, stack: Stack, tmp_path: Path) -> None:
    blind = make_project(tmp_path, project.prefix, kafka=stack.bootstrap, registry="http://127.0.0.1:1")
    document = blind.document("catalog", "show", "accounts.UserErased")
    assert document["data"]["seen"]["producers"] == {"accounts": 1}
    assert "Which versions are in use is not known." in document["warnings"][0]


def test_attached_readers_show_their_lag_and_nothing_is_joined_or_committed(project: TestProject, stack: Stack) -> None:
    attached = project.run("subscription", "attach", project.subscription, "--from", "earliest", "--apply", "--yes")
    assert attached.exit_code == 0, attached.output
    before = groups(stack)
    (row,) = project.document("catalog", "list", "subscriptions")["data"]
    assert (row["state"], row["lag"], row["is_late"]) == ("running", 7, False)
    assert project.document("catalog", "show", project.subscription)["data"]["seen"]["lag"] == 7
    assert project.document("catalog", "show", "accounts.UserErased")["data"]["fresh"] == "yes"
    assert groups(stack) == before


def groups(stack: Stack) -> set[str]:
    listing = AdminClient({"bootstrap.servers": stack.bootstrap}).list_consumer_groups().result()
    return {one.group_id for one in listing.valid or []}


def test_an_older_version_in_use_is_told_from_the_files(tmp_path: Path, stack: Stack, prefix: str) -> None:
    project = registered(tmp_path, stack, prefix)
    publish(project, "accounts.UserErased", 1, "accounts")
    path = project.folder / "schemas/events/accounts/UserErased.avsc"
    schema = json.loads(path.read_text())
    schema["fields"].append({"name": "note", "type": ["null", "string"], "default": None, "doc": "Ticket number."})
    path.write_text(json.dumps(schema))
    seen = project.document("catalog", "show", "accounts.UserErased")["data"]["seen"]
    assert (seen["versions"], seen["file_version"]) == ({"1": 1}, None)
    assert "not registered as this file has it" in project.run("catalog", "show", "accounts.UserErased").stdout
    assert project.run("schema", "register", "--apply", "--yes", "-q").exit_code == 0
    publish(project, "accounts.UserErased", 2, "accounts")
    seen = project.document("catalog", "show", "accounts.UserErased")["data"]["seen"]
    assert (seen["versions"], seen["file_version"]) == ({"1": 1, "2": 2}, 2)


def test_topics_that_are_not_there_yet_are_said(tmp_path: Path, stack: Stack, prefix: str) -> None:
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    answer = made.run("catalog", "show", "accounts.UserErased")
    assert answer.exit_code == 0
    assert "its topic is not there yet: backbone schema register" in answer.stdout
    assert made.document("catalog", "list")["data"][0]["about_per_day"] is None


# ---- without a cluster -------------------------------------------------------------------------------------------


def test_late_readers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    project = make_project(tmp_path, "l")
    catalog = read_catalog(App())
    reader = SeenReader(
        state="running", version="1", members=1, lag=3, oldest_s=400.0, slo_s=300.0, by_topic={project.users: 400.0}
    )
    at = datetime(2026, 5, 1, tzinfo=UTC)
    topic = SeenTopic(partitions=1, kept=9, last_hour=3, last_day=8, last={0: at})
    event = SeenEvent(sampled=3, of=4, last=at, producers={"accounts": 3})
    seen = Seen(
        at=at, topics={project.users: topic}, events={"accounts.UserErased": event},
        readers={project.subscription: reader},
    )  # fmt: skip
    late = replace(catalog, seen=seen)
    erased, paid = catalog.contracts["accounts.UserErased"], catalog.contracts["billing.InvoicePaid"]
    assert fresh(erased, late) == "late: l-rows"
    found = {row["event"]: row for row in rows.events(late)}
    assert (found["accounts.UserErased"]["about_per_day"], found["accounts.UserSignedUp"]["about_per_day"]) == (6, 0)
    in_time = replace(
        late, seen=replace(seen, readers={project.subscription: replace(reader, by_topic={project.users: 3.0})})
    )
    assert fresh(erased, in_time) == "yes"
    elsewhere = replace(
        late, seen=replace(seen, readers={project.subscription: replace(reader, by_topic={"other": 400.0})})
    )
    assert fresh(erased, elsewhere) is None
    page = site(late, "local")["index.html"]
    assert "(3 records behind, the oldest waits 6m40s)" in page
    unknown = replace(
        late, seen=replace(seen, readers={project.subscription: replace(reader, by_topic={project.users: None})})
    )
    assert fresh(erased, unknown) is None
    assert fresh(paid, late) is None
    assert ("producer", "accounts") in graph(late).needs
    assert if_away(late, ("producer", "accounts")).startswith("l-rows gets nothing of it.")
