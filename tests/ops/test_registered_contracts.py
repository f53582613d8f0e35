"""A project without contract files: its contracts are those of the registry."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.contracts.registered import contracts_in, registered_contracts
from schemas.contract import Contract, engine_contracts, load_contracts
from schemas.errors import NotAllowedError, UnreachableError
from schemas.registry import Registry, RegistryNotAllowedError, RegistryUnavailableError, open_registry
from schemas.schema_cache import SchemaCache
from tests.conftest import ROOT, Stack
from tests.ops.projects import FILE, TestProject
from tests.waiting import eventually

EVENTS = load_contracts(ROOT / "schemas" / "events")
PAID = EVENTS["billing.InvoicePaid"]


@pytest.fixture
def registry(prefix: str) -> Registry:
    return open_registry(f"memory://{prefix}")


@pytest.fixture
def kept(tmp_path: Path) -> SchemaCache:
    return SchemaCache(tmp_path / "kept", "memory://x")


class Away:
    """A registry that answers nothing but one error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def listed_schemas(self) -> list[str]:
        raise self._error


def changed(contract: Contract, topic: str | None = None, **attributes: Any) -> str:
    promise = {**contract.schema["backbone"], **({} if topic is None else {"topic": topic})}
    return json.dumps({**contract.schema, "backbone": promise, **attributes})


def never(_: Any) -> Any:
    raise AssertionError("there is only one of each name")


def test_every_contract_is_there_as_its_file_has_it_but_not_the_backbones_own(
    registry: Registry, kept: SchemaCache
) -> None:
    for one in (*EVENTS.values(), *engine_contracts().values()):
        registry.register(one.subject, one.text)
    said: list[str] = []
    found = registered_contracts(registry, kept, said.append)
    assert {name: one.schema for name, one in found.items()} == {name: one.schema for name, one in EVENTS.items()}
    assert found["billing.InvoicePaid"].fields == PAID.fields
    assert said == []


def test_the_newest_version_counts_and_a_deprecated_event_is_one(registry: Registry, kept: SchemaCache) -> None:
    registry.register(PAID.subject, PAID.text)
    registered_contracts(registry, kept, pytest.fail)
    promise = {**PAID.schema["backbone"], "status": "deprecated"}
    registry.register(PAID.subject, json.dumps({**PAID.schema, "backbone": promise, "doc": "It was paid."}))
    (found,) = registered_contracts(registry, kept, pytest.fail).values()
    assert (found.status, found.doc) == ("deprecated", "It was paid.")


@pytest.mark.integration
def test_of_several_versions_that_a_registry_lists_the_newest_counts(
    stack: Stack, prefix: str, kept: SchemaCache
) -> None:
    """Apicurio lists all versions of a subject, whatever is asked: an old one was taken for the contract."""
    registry = open_registry(stack.registry_url)
    namespace = prefix.replace("-", "_")
    for contact in ("#second", "#third", "#zzz", "#a"):  # none is the newest by the alphabet for long
        schema = json.loads(changed(PAID, prefix, namespace=namespace))
        schema["backbone"]["contact"] = contact
        registry.register(f"{prefix}-{namespace}.InvoicePaid", json.dumps(schema))
        assert registered_contracts(registry, kept, lambda _: None)[f"{namespace}.InvoicePaid"].contact == contact


def test_other_peoples_schemas_are_passed_over_and_a_broken_contract_is_one_warning() -> None:
    said: list[str] = []
    found = contracts_in(
        [
            PAID.text,
            '{"type": "record", "name": "Foreign", "fields": []}',
            '{"type": "record", "name": "backbone", "fields": [{"name": "backbone", "type": "string"}]}',
            '"string"',
            'syntax = "proto3"; message Thing { string backbone = 1; }',
            '{"backbone": {}, "type": "record", "name": "x.Broken", "fields": []}',
            '{"backbone": {}, "type": "record", "name": 5, "fields": []}',
        ],
        said.append,
        never,
        never,
    )
    assert list(found) == ["billing.InvoicePaid"]
    assert [one.partition(" in the registry")[0] for one in said] == ["x.Broken", "a schema"]
    assert all("is no contract and is left out: " in one for one in said)


@given(st.lists(st.text(max_size=40) | st.text(max_size=60).map(lambda text: f'{{"backbone": {{}}, "name": {text}}}')))
def test_any_texts_are_contracts_or_warnings(texts: list[str]) -> None:
    said: list[str] = []
    assert len(contracts_in(texts, said.append, never, lambda _: None)) == 0
    assert len(said) <= len(texts)


def test_of_an_event_that_moved_to_another_topic_the_newest_is_taken_and_that_is_said(
    registry: Registry, kept: SchemaCache
) -> None:
    said: list[str] = []
    for topic in ("billing.invoices", "a.topic"):
        registry.register(f"{topic}-billing.InvoicePaid", changed(PAID, topic))
    (found,) = registered_contracts(registry, kept, said.append).values()
    assert found.topic == "a.topic"
    assert said == [
        "billing.InvoicePaid is registered for the topics billing.invoices as well; a.topic, the newest, is taken."
    ]


def test_with_the_registry_away_those_read_last_count_and_that_is_said(registry: Registry, kept: SchemaCache) -> None:
    away: Any = Away(RegistryUnavailableError("the registry cannot be reached (NewConnectionError)."))
    with pytest.raises(UnreachableError):
        registered_contracts(away, kept, pytest.fail)
    registry.register(PAID.subject, PAID.text)
    registered_contracts(registry, kept, pytest.fail)
    said: list[str] = []
    assert list(registered_contracts(away, kept, said.append)) == ["billing.InvoicePaid"]
    assert said == ["The registry does not answer; the contracts are those that it had when it was asked last."]


def test_credentials_that_are_refused_are_an_error_whatever_is_kept(registry: Registry, kept: SchemaCache) -> None:
    registry.register(PAID.subject, PAID.text)
    registered_contracts(registry, kept, pytest.fail)
    refusing: Any = Away(RegistryNotAllowedError("the registry does not allow it with these credentials (401)."))
    with pytest.raises(NotAllowedError):
        registered_contracts(refusing, kept, pytest.fail)


# ---- every command, with a real registry ---------------------------------------------------------------------------


def order_placed(prefix: str) -> dict[str, Any]:
    return {
        "type": "record",
        "name": "OrderPlaced",
        "namespace": prefix.replace("-", "_"),
        "doc": "A customer placed an order.",
        "backbone": {
            "topic": f"{prefix}.orders", "key": "order_id", "owner": "team-shop", "freshness_slo": "60s",
            "retention": "30d",
        },
        "fields": [
            {"name": "order_id", "type": "string", "doc": "Our order number.", "examples": ["o-1"]},
            {"name": "total_minor", "type": "long", "doc": "Total in cents.", "examples": [990], "minimum": 0},
        ],
    }  # fmt: skip


def project(folder: Path, prefix: str, stack: Stack, schemas: str) -> TestProject:
    (folder / "consumers" / "subscriptions").mkdir(parents=True)
    (folder / ".backbone").mkdir()
    text = FILE.replace("KAFKA", stack.bootstrap).replace("REGISTRY", stack.registry_url)
    (folder / "backbone.toml").write_text(text.replace('"schemas/events"', f'"{schemas}"'))
    local = {"kafka": stack.bootstrap, "registry": stack.registry_url, "fakes": {}}
    (folder / ".backbone" / "local.json").write_text(json.dumps(local))
    return TestProject(folder, prefix)


@pytest.mark.integration
def test_every_command_works_in_a_project_without_files(tmp_path: Path, stack: Stack, prefix: str) -> None:
    owner = project(tmp_path / "owner", prefix, stack, "schemas/events")
    schema = order_placed(prefix)
    event, name = f"{schema['namespace']}.OrderPlaced", f"{prefix}-orders"
    (owner.folder / "schemas" / "events").mkdir(parents=True)
    (owner.folder / "schemas" / "events" / "OrderPlaced.avsc").write_text(json.dumps(schema))
    assert owner.run("schema", "register", "--apply", "--yes").exit_code == 0

    analyst = project(tmp_path / "analyst", prefix, stack, "registry")
    shown = analyst.document("catalog", "show", event)["data"]
    assert (shown["owner"], shown["topic"], shown["file"]) == ("team-shop", f"{prefix}.orders", f"registry:{event}")
    assert [one["field"] for one in shown["fields"]] == ["order_id", "total_minor"]
    assert analyst.run("subscription", "new", name, "--connection", "rows", "--event", event).exit_code == 0
    assert analyst.document("subscription", "check", name)["data"] == []
    assert analyst.run("subscription", "test", name).exit_code == 0
    attach = ("subscription", "attach", name, "--from", "earliest", "--apply", "--yes")
    attached = analyst.run(*attach)
    assert attached.exit_code == 0, attached.output
    data = json.dumps({"order_id": "o-7", "total_minor": 5})
    published = analyst.run("event", "publish", event, "--data", data)
    assert published.exit_code == 0, published.output
    previewed = analyst.document("subscription", "preview", name, "--from", "earliest")["data"]
    assert [row["entity"] for row in previewed] == ["o-7"]
    refused = analyst.run("schema", "check")
    assert refused.exit_code == 2
    assert "has no files of them" in refused.stderr
    assert analyst.document("schema", "register", event)["data"] == {"state": "unchanged"}
    undated = analyst.run("schema", "package", "--out", str(tmp_path / "dist"))
    assert undated.exit_code == 2
    assert "give --date DAY" in undated.stderr
    packaged = analyst.document("schema", "package", "--out", str(tmp_path / "dist"), "--date", "2026-11-29")
    assert packaged["data"]["events"] >= 1
    assert run_until_delivered(analyst, name) == [("o-7",)]

    # what was read from one registry is not taken for another's
    local = {"kafka": stack.bootstrap, "registry": "http://127.0.0.1:9/apis/ccompat/v7", "fakes": {}}
    (analyst.folder / ".backbone" / "local.json").write_text(json.dumps(local))
    assert analyst.run("catalog", "show", event).exit_code == 8


def run_until_delivered(analyst: TestProject, name: str) -> list[Any]:
    """What stands in the fake's database after a worker ran."""
    log = (analyst.folder / "worker.log").open("w")
    worker = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "run", name], cwd=analyst.folder, stdout=log, stderr=log,
        env={**os.environ, "BACKBONE_PROJECT": str(analyst.folder)},
    )  # fmt: skip
    database = analyst.folder / ".backbone" / "fakes" / "sql.sqlite"

    def rows() -> list[Any]:
        if not database.exists():
            return []
        with sqlite3.connect(database) as opened:
            tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if "order_placed" not in tables:
                return []
            return opened.execute("SELECT order_id FROM order_placed").fetchall()

    try:
        found = eventually(rows, 60, about="a row in the database")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, (analyst.folder / "worker.log").read_text()
        return found
    finally:
        worker.kill()
        worker.wait()
        log.close()
