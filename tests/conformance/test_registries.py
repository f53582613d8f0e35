"""Every registry behaves the same: in memory, in a folder, and a real one over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.compatibility import compatible
from schemas.contract import Contract, Contracts, engine_contracts, load_contracts
from schemas.errors import InputError
from schemas.registry import (
    IncompatibleSchemaError,
    NotAvroError,
    Registered,
    Registry,
    SchemaNotFoundError,
    open_registry,
)
from tests.conftest import ROOT, Stack

EVENTS = load_contracts(ROOT / "schemas" / "events")


@pytest.fixture(params=["memory", "file", pytest.param("http", marks=pytest.mark.integration)])
def open_one(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> Callable[[], Registry]:
    """Opens the same registry anew each time."""
    if request.param == "memory":
        return lambda: open_registry(f"memory://{prefix}")
    if request.param == "file":
        return lambda: open_registry(f"file://{tmp_path / 'registry'}")
    stack: Stack = request.getfixturevalue("stack")
    return lambda: open_registry(stack.registry_url)


@pytest.fixture
def registry(open_one: Callable[[], Registry]) -> Registry:
    return open_one()


@pytest.fixture
def subject(registry: Registry, prefix: str) -> str:
    """A subject of the record Thing with the strictest mode."""
    name = f"{prefix}.things-{prefix.replace('-', '_')}.Thing"
    registry.set_compatibility("FULL_TRANSITIVE", name)
    return name


def thing(subject: str, *fields: dict[str, Any], **attributes: Any) -> str:
    """A record that only this subject has, so that tests do not share ids on a registry they share."""
    namespace = subject.rpartition("-")[2].rpartition(".")[0]
    id_field = {"name": "id", "type": "string"}
    record = {"type": "record", "name": "Thing", "namespace": namespace, **attributes, "fields": [id_field, *fields]}
    return json.dumps(record)


OPTIONAL = {"name": "note", "type": ["null", "string"], "default": None}
REQUIRED = {"name": "size", "type": "long"}


def same(one: str, other: str) -> bool:
    return bool(json.loads(one) == json.loads(other))


def test_what_is_registered_can_be_read_by_id_by_subject_and_by_version(registry: Registry, subject: str) -> None:
    made = registry.register(subject, thing(subject))
    assert made.version == 1
    assert same(registry.schema(made.id), thing(subject))
    latest = registry.latest(subject)
    assert latest is not None
    assert (latest.id, latest.version, latest.subject) == (made.id, 1, subject)
    assert same(latest.schema, thing(subject))
    assert same(registry.version(subject, 1).schema, thing(subject))
    assert registry.versions(subject) == [1]
    assert subject in registry.subjects()
    assert any(same(text, thing(subject)) for text in registry.listed_schemas())


def test_registering_the_same_schema_again_changes_nothing(registry: Registry, subject: str) -> None:
    first = registry.register(subject, thing(subject))
    again = registry.register(subject, thing(subject))
    assert (again.id, again.version) == (first.id, first.version)
    assert registry.versions(subject) == [1]


def test_a_lookup_finds_a_version_by_its_schema_and_registers_nothing(registry: Registry, subject: str) -> None:
    assert registry.lookup(subject, thing(subject)) is None
    made = registry.register(subject, thing(subject))
    found = registry.lookup(subject, thing(subject))
    assert found is not None
    assert (found.id, found.version) == (made.id, 1)
    assert registry.lookup(subject, thing(subject, OPTIONAL)) is None
    assert registry.versions(subject) == [1]


def test_a_compatible_schema_becomes_the_next_version(registry: Registry, subject: str) -> None:
    first = registry.register(subject, thing(subject))
    assert registry.check_compatibility(subject, thing(subject, OPTIONAL)).compatible
    second = registry.register(subject, thing(subject, OPTIONAL))
    assert second.version == 2
    assert second.id != first.id
    assert registry.versions(subject) == [1, 2]
    assert same(registry.schema(first.id), thing(subject))


def test_an_incompatible_schema_is_refused_and_nothing_is_registered(registry: Registry, subject: str) -> None:
    registry.register(subject, thing(subject))
    assert not registry.check_compatibility(subject, thing(subject, REQUIRED)).compatible
    with pytest.raises(IncompatibleSchemaError):
        registry.register(subject, thing(subject, REQUIRED))
    assert registry.versions(subject) == [1]


def test_a_subject_of_its_own_mode_is_free_of_the_global_one(registry: Registry, subject: str) -> None:
    registry.register(subject, thing(subject))
    registry.set_compatibility("NONE", subject)
    assert registry.compatibility(subject) == "NONE"
    assert registry.register(subject, thing(subject, REQUIRED)).version == 2


def test_the_global_mode_holds_where_a_subject_has_none(registry: Registry, prefix: str) -> None:
    before = registry.compatibility()
    try:
        registry.set_compatibility("FORWARD")
        assert registry.compatibility() == "FORWARD"
        assert registry.compatibility(f"{prefix}-never.Seen") == "FORWARD"
    finally:
        registry.set_compatibility(before)
    assert registry.compatibility() == before


def test_a_mode_nobody_knows_is_refused_before_it_is_sent(registry: Registry) -> None:
    with pytest.raises(InputError, match="FULL_TRANSITIVE"):
        registry.set_compatibility("SOMETIMES")


def test_transitive_modes_look_at_every_version(registry: Registry, subject: str) -> None:
    registry.set_compatibility("BACKWARD_TRANSITIVE", subject)
    registry.register(subject, thing(subject, {"name": "size", "type": "int"}))
    registry.register(subject, thing(subject, {"name": "size", "type": "long", "default": 0}))
    assert registry.check_compatibility(subject, thing(subject, {"name": "size", "type": "double"})).compatible
    registry.set_compatibility("NONE", subject)
    registry.register(subject, thing(subject))
    registry.set_compatibility("BACKWARD", subject)
    text = thing(subject, {"name": "size", "type": "string", "default": ""})
    assert registry.check_compatibility(subject, text).compatible
    registry.set_compatibility("BACKWARD_TRANSITIVE", subject)
    assert not registry.check_compatibility(subject, text).compatible


def test_the_first_version_of_a_subject_may_be_anything(registry: Registry, subject: str) -> None:
    assert registry.check_compatibility(subject, thing(subject, REQUIRED)).compatible


def test_what_is_not_there_is_said_as_such(registry: Registry, subject: str) -> None:
    with pytest.raises(SchemaNotFoundError):
        registry.schema(2_000_000_000)
    with pytest.raises(SchemaNotFoundError):
        registry.schema_by_guid("00000000-0000-0000-0000-000000000000")
    with pytest.raises(SchemaNotFoundError):
        registry.version(subject, 7)
    assert registry.latest(subject) is None
    assert registry.versions(subject) == []


@pytest.mark.parametrize("text", ["{", '{"type": "record"}', '{"type": "nothing"}', "[]"])
def test_a_text_that_is_no_schema_is_an_input_error(registry: Registry, subject: str, text: str) -> None:
    with pytest.raises(InputError):
        registry.register(subject, text)
    assert registry.versions(subject) == []


def test_attributes_survive_word_for_word(registry: Registry, subject: str) -> None:
    text = thing(subject, {**OPTIONAL, "personal_data": "name", "examples": ["é – ñ"]}, backbone={"owner": "team-a"})
    made = registry.register(subject, text)
    read = json.loads(registry.schema(made.id))
    assert read["backbone"] == {"owner": "team-a"}
    assert read["fields"][1]["personal_data"] == "name"
    assert read["fields"][1]["examples"] == ["é – ñ"]


def test_a_changed_attribute_is_a_new_version(registry: Registry, subject: str) -> None:
    registry.register(subject, thing(subject, backbone={"owner": "team-a"}))
    second = registry.register(subject, thing(subject, backbone={"owner": "team-b"}))
    assert second.version == 2
    assert json.loads(registry.schema(second.id))["backbone"] == {"owner": "team-b"}


def test_a_subject_with_unusual_letters_is_one_subject(registry: Registry, prefix: str) -> None:
    name = f"{prefix}/a b%2F?c-{prefix.replace('-', '_')}.Thing"
    made = registry.register(name, thing(name))
    assert registry.versions(name) == [1]
    found = registry.lookup(name, thing(name))
    assert found is not None
    assert found.id == made.id


def test_another_client_sees_what_one_has_registered(open_one: Callable[[], Registry], prefix: str) -> None:
    subject = f"{prefix}-{prefix.replace('-', '_')}.Thing"
    made: Registered = open_one().register(subject, thing(subject))
    assert same(open_one().schema(made.id), thing(subject))


@pytest.mark.parametrize("contract", [*EVENTS.values(), *engine_contracts().values()], ids=lambda one: one.name)
def test_the_shipped_contracts_are_registered_and_found_again(
    registry: Registry, contract: Contract, prefix: str
) -> None:
    subject = f"{prefix}-{contract.name}"
    made = registry.register(subject, contract.text)
    found = registry.lookup(subject, contract.text)
    assert found is not None
    assert found.id == made.id
    assert json.loads(registry.schema(made.id))["backbone"] == contract.schema["backbone"]


EVOLUTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "int"}, {"type": "long"}),
    ({"type": "long"}, {"type": "int"}),
    ({"type": "string"}, {"type": "bytes"}),
    ({"type": "string"}, {"type": "long"}),
    ({"type": "string"}, {"type": ["null", "string"], "default": None}),
    ({"type": ["null", "string"], "default": None}, {"type": "string"}),
    ({"type": {"type": "array", "items": "int"}}, {"type": {"type": "array", "items": "long"}}),
    ({"type": {"type": "map", "values": "int"}}, {"type": {"type": "map", "values": "string"}}),
    (
        {"type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"type": {"type": "enum", "name": "E", "symbols": ["A"]}},
    ),
    (
        {"type": {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"}},
        {"type": {"type": "enum", "name": "E", "symbols": ["A", "B", "C"], "default": "A"}},
    ),
    ({"type": {"type": "fixed", "name": "F", "size": 4}}, {"type": {"type": "fixed", "name": "F", "size": 8}}),
    ({"type": ["null", "int", "string"], "default": None}, {"type": ["null", "int"], "default": None}),
]


@pytest.mark.parametrize("mode", ["BACKWARD", "FORWARD", "FULL"])
@pytest.mark.parametrize("number", range(len(EVOLUTIONS)))
def test_our_judgement_of_an_evolution_is_the_registrys(
    registry: Registry, subject: str, mode: str, number: int
) -> None:
    old, new = ({"name": "field", **one} for one in EVOLUTIONS[number])
    registry.set_compatibility(mode, subject)
    registry.register(subject, thing(subject, old))
    ours = compatible(json.loads(thing(subject, new)), [json.loads(thing(subject, old))], mode)
    assert registry.check_compatibility(subject, thing(subject, new)).compatible == (not ours), ours


@pytest.mark.integration
def test_what_is_not_avro_in_the_registry_is_said_so(stack: Stack, prefix: str) -> None:
    registry = open_registry(stack.registry_url)
    import urllib3

    answer = urllib3.request(
        "POST",
        f"{stack.registry_url}/subjects/{prefix}-json/versions",
        json={
            "schemaType": "JSON",
            "schema": json.dumps(
                {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "title": prefix}
            ),
        },
        headers={"content-type": "application/vnd.schemaregistry.v1+json"},
    )
    assert answer.status == 200, answer.data
    with pytest.raises(NotAvroError, match="JSON"):
        registry.schema(answer.json()["id"])


@pytest.mark.integration
def test_a_schema_that_refers_to_another_subject_is_read_as_one(stack: Stack, prefix: str) -> None:
    registry = open_registry(stack.registry_url)
    import urllib3

    space = prefix.replace("-", "_")
    line = {"type": "record", "name": "Line", "namespace": space, "fields": [{"name": "sku", "type": "string"}]}
    registry.register(f"{prefix}-line", json.dumps(line))
    lines = {"name": "lines", "type": {"type": "array", "items": f"{space}.Line"}}
    last = {"name": "last", "type": ["null", f"{space}.Line"], "default": None}
    order = {"type": "record", "name": "Order", "namespace": space, "fields": [lines, last]}
    answer = urllib3.request(
        "POST",
        f"{stack.registry_url}/subjects/{prefix}-order/versions",
        json={
            "schema": json.dumps(order),
            "references": [{"name": f"{space}.Line", "subject": f"{prefix}-line", "version": 1}],
        },
        headers={"content-type": "application/vnd.schemaregistry.v1+json"},
    )
    read = json.loads(registry.schema(answer.json()["id"]))
    assert read["fields"][0]["type"]["items"]["name"] == "Line"
    assert read["fields"][1]["type"] == ["null", f"{space}.Line"]


def test_all_contracts_are_known() -> None:
    assert isinstance(EVENTS, Contracts)
    assert len(EVENTS) == 7
