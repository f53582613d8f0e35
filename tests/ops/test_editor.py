"""``backbone editor``: the schemas are current, valid, whole, and say what the loaders say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connectors.connector import connector_types
from ops.catalog.editor_schemas import EVENT_FILE, PROJECT_FILE, SUBSCRIPTION_FILE
from ops.project_file import read_file
from ops.settings import load_project
from schemas.errors import InputError
from schemas.lint import lint
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project

FILES = {
    PROJECT_FILE: ROOT / PROJECT_FILE,
    SUBSCRIPTION_FILE: ROOT / "consumers" / "subscriptions" / SUBSCRIPTION_FILE,
    EVENT_FILE: ROOT / "schemas" / "events" / EVENT_FILE,
}
EVENTS = sorted([*(ROOT / "schemas" / "events").rglob("*.avsc"), *(ROOT / "schemas" / "backbone").glob("*.avsc")])


@pytest.fixture
def project(tmp_path: Path, prefix: str) -> TestProject:
    return make_project(tmp_path, prefix)


@cache
def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILES[name].read_text(encoding="utf-8"))
    return found


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(name))


def test_the_schemas_of_this_project_are_current() -> None:
    own = TestProject(ROOT, "")
    assert own.document("editor", "--check")["data"] == []


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_one_by_the_meta_schema(name: str) -> None:
    assert schema(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema(name))


def properties(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every property that a person may write, but for those that only test a condition."""
    if isinstance(node, list):
        for index, one in enumerate(node):
            yield from properties(one, f"{path}/{index}")
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "properties" and isinstance(value, dict):
                for name, one in value.items():
                    yield f"{path}/{name}", one
                    yield from properties(one, f"{path}/{name}")
            elif key not in ("if", "not"):
                yield from properties(value, f"{path}/{key}")


def described(one: Any, whole: dict[str, Any]) -> bool:
    if "$ref" in one and "description" not in one:
        return described(whole["$defs"][one["$ref"].removeprefix("#/$defs/")], whole)
    return bool(one.get("description"))


@pytest.mark.parametrize("name", FILES)
def test_every_property_says_what_it_is_for(name: str) -> None:
    whole = schema(name)
    narrowed = ("/allOf/", "/routes/items", "/then/routes")  # says again what stands elsewhere with its sentence
    missing = [path for path, one in properties(whole) if not described(one, whole)]
    assert [path for path in missing if not any(part in path for part in narrowed)] == []


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.stem)
def test_the_events_of_this_project_are_what_their_schema_says(file: Path) -> None:
    assert [error.message for error in validator(EVENT_FILE).iter_errors(json.loads(file.read_text()))] == []


def test_the_project_file_is_what_its_schema_says_and_names_it() -> None:
    text = (ROOT / "backbone.toml").read_text()
    assert text.startswith(f"#:schema ./{PROJECT_FILE}\n")
    assert [error.message for error in validator(PROJECT_FILE).iter_errors(tomllib.loads(text))] == []


START = """[project]
name = "acme"
schemas = "schemas/events"
subscriptions = "consumers/subscriptions"
[connections.hubspot]
connector = "hubspot"
[connections.slack]
connector = "slack"
[connections.warehouse]
connector = "sql"
"""


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("", True),
        ('rate = "80/10s"\ncircuit_open = "30s"\nbackground = 0.5\nregion = "EU"', True),
        ("timeout_s = 5", True),
        ("timeout_s = 31", False),
        ('timeout_s = "env:TIMEOUT"', True),
        ("timout_s = 5", False),
        ('unique_property = "id"', False),  # HubSpot's, and this is a database
        ("concurrency = 0", False),
        ('concurrency = "8"', False),
        ('[contexts.prod]\nproduction = "yes"', False),
        ('[contexts.prod]\nconnections = "fakes"', False),
        ('[contexts.prod]\ntopics.partitions = "12"', False),
        ('[contexts.prod]\nregistry.url = "https://registry.example"\nregistry.token = "env:TOKEN"', True),
        ('[contexts.prod]\nregistry.url = "https://a:b@registry.example"', False),
        ('[contexts.prod]\nregistry.password = "hunter2"', False),
        ('[contexts.prod]\nledger = "postgresql://a:hunter2@db/x"', False),
        ('[contexts.prod]\nledger = "postgresql://db/x"', True),
        ('[contexts.prod]\ninstallation_key = "hunter2"', False),
        ('[contexts.prod.kafka]\nbootstrap.servers = "k1:9092"\n"client.id" = "x"\nsocket.timeout.ms = 9000', True),
        ('[contexts.prod.kafka]\n"enable.auto.commit" = true', False),
        ("[contexts.prod.kafka]\nenable.auto.commit = true", False),
        ('[contexts.prod.kafka]\n"sasl.password" = "hunter2"', False),
        ('[contexts.prod.kafka]\nsasl.password = "file:/run/secrets/kafka"', True),
        ('[contexts.prod.kafka]\nsasl.password = "vault:secret/data/kafka#password"', True),
        ('[contexts.prod.kafka]\nsasl.password = "vault:8200"', False),
        ('[contexts.prod.connections.hubspot]\ntoken = "vault:secret/data/hubspot#token"', True),
        ('[contexts.prod.vault]\naddress = "https://v"\ntoken = "file:/run/secrets/vault"', True),
        ('[contexts.prod.vault]\naddress = "https://v"\ntoken = "vault:a/b#c"', False),
        ('[contexts.prod.vault]\naddress = "https://v"\napprole = {role_id = "r", secret_id = "hunter2"}', False),
        ('[contexts.prod.vault]\naddress = "https://v"\nkubernetes = {role = "backbone"}', True),
        ("[contexts.prod.kafka]\nclient.id = [1]", False),
        ('[contexts.prod.connections.hubspot]\ntoken = "env:HUBSPOT"\nrate = "9/s"', True),
        ('[contexts.prod.connections.hubspot]\ntoken = "hunter2"', False),
        ('[contexts.prod.connections.hubspot]\ntokn = "env:HUBSPOT"', False),
        ('[contexts.prod.connections.warehouse]\nurl = "env:WAREHOUSE"', True),
        ('[contexts.prod.fakes]\nslack = "http://127.0.0.1:1"', True),
        ("[contexts.prod.fakes]\nslack = 1", False),
    ],
)
def test_the_loader_and_the_schema_agree_on_a_project_file(tmp_path: Path, text: str, is_right: bool) -> None:
    whole = START + text
    assert validator(PROJECT_FILE).is_valid(tomllib.loads(whole)) == is_right
    file = tmp_path / "backbone.toml"
    file.write_text(whole)

    def loads() -> bool:
        try:
            read_file(file)
            project = load_project(tmp_path)
            project.connection_types(connector_types())
            for name, one in project.context("local").connections.items():
                # what a connector's own settings may be is looked at when they are used
                settings = connector_types()[one.connector].settings
                for key, value in project.connections[name].model_dump(exclude_none=True).items():
                    if key in settings.model_fields and not str(value).startswith("env:"):
                        settings.__pydantic_validator__.validate_assignment(settings.model_construct(), key, value)
        except (InputError, ValueError):
            return False
        return True

    assert loads() == is_right


GOOD_EVENT = json.loads((ROOT / "schemas" / "events" / "billing" / "InvoicePaid.avsc").read_text())


@pytest.mark.parametrize(
    ("field", "is_right"),
    [
        ({"name": "a", "type": "string", "doc": "A."}, True),
        ({"name": "a", "type": "string", "doc": "A.", "default": "x", "order": "ignore", "aliases": ["b"]}, True),
        ({"name": "a", "type": "string", "doc": "A.", "connect.name": "x", "java-class": "y"}, True),
        ({"name": "a", "type": "string", "doc": "A.", "personal_dta": "email"}, False),
        ({"name": "a", "type": "string", "doc": "A.", "personal_data": None}, False),
        ({"name": "a", "type": "string", "doc": "A.", "pattern": 5}, False),
        ({"name": "a", "type": {"type": "string", "avro.java.string": "String"}, "doc": "A."}, True),
        ({"name": "a", "type": {"type": "long", "logicalTyp": "date"}, "doc": "A."}, False),
        ({"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}, "doc": "A."}, True),
        ({"name": "a", "type": {"type": {"type": "array", "items": "long"}}, "doc": "A."}, True),
        ({"name": "a", "type": {"type": "map", "values": ["null", "string"]}, "doc": "A."}, True),
        ({"name": "a", "type": {"type": "map"}, "doc": "A."}, False),
        ({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["A", "A"]}, "doc": "A."}, False),
        ({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["A"], "defalt": "A"}, "doc": "A."}, False),
        (
            {"name": "a", "type": {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal"}, "doc": "A."},
            False,
        ),
        ({"name": "a", "type": {"type": "fixed", "name": "F", "size": 8}, "doc": "A."}, True),
        ({"name": "a", "type": ["null", {"type": "array", "items": "null"}], "default": None, "doc": "A."}, False),
        ({"name": "a", "type": ["string", "null"], "default": "", "doc": "A."}, True),
        ({"name": "a", "type": ["null", "string", "long"], "default": None, "doc": "A."}, False),
        ({"name": "a", "type": [], "doc": "A."}, False),
        ({"name": "a", "type": 5, "doc": "A."}, False),
        ({"name": "a", "type": {"type": "record", "name": "R", "fields": []}, "doc": "A."}, False),
        ({"name": "a", "type": {"type": "record", "name": "R", "doc": "R.", "fields": []}, "doc": "A."}, True),
        ({"name": "a", "type": "string", "doc": " "}, False),
        ({"name": "a", "type": "string", "doc": "A.", "examples": "x"}, False),
        ({"name": "a", "type": "string", "doc": "A.", "minLength": -1}, False),
        ({"name": "a", "doc": "A."}, False),
        ({"type": "string", "doc": "A."}, False),
    ],
)
def test_lint_and_the_schema_agree_on_a_field(field: dict[str, Any], is_right: bool) -> None:
    event = {**GOOD_EVENT, "fields": [*GOOD_EVENT["fields"], field]}
    assert validator(EVENT_FILE).is_valid(event) == is_right
    assert (lint(event, "x") == []) == is_right


def test_all_are_written_and_checked(project: TestProject) -> None:
    assert len(project.document("editor", "--check", code=3)["data"]) == 3
    written = project.document("editor")["data"]["written"]
    assert written == [
        "backbone.schema.json",
        f"consumers/subscriptions/{SUBSCRIPTION_FILE}",
        f"schemas/events/{EVENT_FILE}",
    ]
    assert project.document("editor", "--check")["data"] == []
    path = project.folder / "backbone.schema.json"
    path.write_text("{}")
    (row,) = project.document("editor", "--check", code=3)["data"]
    assert (row["file"], row["rule"]) == (str(path), "stale")
    assert "backbone editor" in row["message"]


def test_how_editors_find_them_is_said_on_demand(project: TestProject) -> None:
    said = project.run("editor", "-v").stderr
    assert '"url": "./schemas/events/event.schema.json"' in said
    assert "#:schema ./backbone.schema.json" in said


def test_a_schema_that_cannot_be_written_is_one_sentence(project: TestProject) -> None:
    (project.folder / "backbone.schema.json").mkdir()
    result = project.run("editor")
    assert result.exit_code != 0
    assert "backbone.schema.json" in result.stderr
    assert "Traceback" not in result.stderr
