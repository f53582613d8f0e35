"""What differs between two versions of a schema, field by field."""

from __future__ import annotations

import contextlib
import copy
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from schemas.contract import engine_contracts, load_contracts
from schemas.difference import differences
from schemas.errors import InputError
from tests.conftest import ROOT
from tests.schemas.arbitrary import json_values, schemas
from tests.schemas.evolutions import evolved, schema

EVENTS = load_contracts(ROOT / "schemas" / "events")


def record(*fields: dict[str, Any], name: str = "Thing", **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "test", **attributes, "fields": list(fields)}


def field(type_: Any = "string", **attributes: Any) -> dict[str, Any]:
    return {"name": "f", "type": type_, **attributes}


A = {"name": "a", "type": "string"}
LINE = record(A, {"name": "size", "type": "int"}, name="Line")
SHORT = record(A, name="Line")
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}


@pytest.mark.parametrize(
    ("old", "new", "path", "kind", "says"),
    [
        (record(A), record(A, field()), "f", "added", "'f' is new (string, no default)"),
        (record(A), record(A, field(default="x")), "f", "added", "'f' is new (string, default x)"),
        (record(A, field()), record(A), "f", "removed", "'f' was removed"),
        (
            record(field()),
            record({"name": "g", "type": "string", "aliases": ["f"]}),
            "f",
            "renamed",
            "'f' is called 'g' now",
        ),
        (record(field("int")), record(field("long")), "f", "retyped", "'f' is long and was int"),
        (
            record(field()),
            record(field(["null", "string"])),
            "f",
            "retyped",
            "'f' is string or null and was string",
        ),
        (
            record(field({"type": "long", "logicalType": "timestamp-millis"})),
            record(field("long")),
            "f",
            "retyped",
            "'f' is long and was timestamp-millis",
        ),
        (
            record(field({"type": "fixed", "name": "F", "size": 4})),
            record(field({"type": "fixed", "name": "F", "size": 8})),
            "f",
            "retyped",
            "'f' is test.F of 8 bytes and was test.F of 4 bytes",
        ),
        (
            record(field(["null", "string", "int"])),
            record(field(["null", "string", "long"])),
            "f",
            "retyped",
            "'f' is [null, string, long] and was [null, string, int]",
        ),
        (
            record(field({"type": "array", "items": LINE})),
            record(field({"type": "array", "items": SHORT})),
            "f.size",
            "removed",
            "'f.size' was removed",
        ),
        (
            record(field({"type": "map", "values": ["null", LINE]})),
            record(field({"type": "map", "values": ["null", SHORT]})),
            "f.*.size",
            "removed",
            "'f.*.size' was removed",
        ),
        (
            record(field(["string", "int", LINE])),
            record(field(["string", "int", SHORT])),
            "f.size",
            "removed",
            "'f.size' was removed",
        ),
        (
            record(field(ENUM)),
            record(field({**ENUM, "symbols": ["B", "C"]})),
            "f",
            "symbols",
            "'f' can be C now and can not be A any more",
        ),
        (
            record(field(ENUM)),
            record(field({**ENUM, "symbols": ["B", "A"]})),
            "f",
            "symbols",
            "'f' has its symbols in another order",
        ),
        (record(field()), record(field(default="")), "f", "default", "'f' has the default \"\" and had none"),
        (
            record(field(maxLength=9)),
            record(field(maxLength=8)),
            "f",
            "tightened",
            "'f' has maxLength 8 and had 9",
        ),
        (record(field(maxLength=8)), record(field()), "f", "loosened", "'f' has maxLength none and had 8"),
        (
            record(field("int", minimum=0)),
            record(field("int", minimum=-1)),
            "f",
            "loosened",
            "'f' has minimum -1 and had 0",
        ),
        (record(field()), record(field(pattern="^a$")), "f", "tightened", "'f' has pattern ^a$ and had none"),
        (
            record(field(personal_data="none")),
            record(field(personal_data="email")),
            "f",
            "personal_data",
            "'f' has the personal-data class email and had none",
        ),
        (record(field(doc="x")), record(field(doc="y")), "f", "doc", "'f' is described in other words"),
        (
            record(field(examples=["a"])),
            record(field(examples=["b"])),
            "f",
            "attribute",
            '\'f\' has examples ["b"] and had ["a"]',
        ),
        (
            record(A, backbone={"topic": "a.b"}),
            record(A, backbone={"topic": "a.c"}),
            "",
            "promise",
            "the topic is a.c and was a.b",
        ),
        (record(A), record(A, doc="x"), "", "doc", "the event is described in other words"),
        (record(A), record(A, name="Other"), "", "renamed", "test.Thing is called test.Other now"),
    ],
)
def test_each_difference_has_its_path_its_kind_and_its_words(
    old: Any, new: Any, path: str, kind: str, says: str
) -> None:
    assert [(one.path, one.kind, str(one)) for one in differences(old, new)] == [(path, kind, says)]


def test_what_is_stated_as_no_personal_data_is_the_same_as_nothing_stated() -> None:
    assert differences(record(field()), record(field(personal_data="none"))) == []


def test_a_renamed_field_that_is_another_type_too_is_both() -> None:
    found = differences(record(field("int")), record({"name": "g", "type": "long", "aliases": ["f"]}))
    assert [(one.path, one.kind) for one in found] == [("f", "renamed"), ("f", "retyped")]


def test_an_alias_of_a_field_that_still_stands_there_renames_nothing() -> None:
    new = record(field(), {"name": "g", "type": "string", "aliases": ["f"]})
    assert [(one.path, one.kind) for one in differences(record(field()), new)] == [("g", "added")]


@pytest.mark.parametrize("contract", [*EVENTS.values(), *engine_contracts().values()], ids=lambda one: one.name)
def test_a_contract_does_not_differ_from_itself(contract: Any) -> None:
    assert differences(contract.schema, copy.deepcopy(contract.schema)) == []


@pytest.mark.parametrize("seed", range(60))
def test_a_change_is_never_overlooked_and_taking_it_back_is_a_change_too(seed: int) -> None:
    chance = Random(seed)
    old = schema("test", chance)
    new, mutations = evolved(old, chance, 1)
    silent = {"reorders_fields", "gives_an_enum_a_default_or_takes_it", "renames_a_type"}
    silent |= {"moves_a_type_to_another_namespace"}
    if mutations[0] not in silent and old != new:
        assert differences(old, new), mutations
        assert differences(new, old), mutations


@pytest.mark.parametrize("broken", [None, 5, "string", [], {"type": "array", "items": "int"}, {"type": "record"}])
def test_what_is_no_record_is_an_input_error(broken: Any) -> None:
    with pytest.raises(InputError, match="not a schema that can be compared"):
        differences(broken, record(A))
    with pytest.raises(InputError, match="not a schema that can be compared"):
        differences(record(A), broken)


@given(schemas(), schemas())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_schemas_can_be_compared_and_every_difference_has_words(one: Any, other: Any) -> None:
    for found in differences(one, other):
        assert str(found)
        assert found.path == found.path.strip(".")


@given(json_values(), json_values())
def test_no_json_whatever_gives_a_traceback(one: Any, other: Any) -> None:
    with contextlib.suppress(InputError):
        differences(one, other)
    with contextlib.suppress(InputError):
        differences(record(field(one, default=other)), record(field(other, pattern=one, backbone=other)))
