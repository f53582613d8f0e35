"""Which schema may follow which, and the reason by field when it may not. (The registry as an oracle:
tests/conformance/test_registries.py.)"""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import avsc
from schemas.compatibility import check, compatible
from schemas.contract import engine_contracts, load_contracts
from schemas.errors import InputError
from schemas.modes import MODES
from tests.conftest import ROOT
from tests.schemas.arbitrary import fitting, json_values, schemas

EVENTS = load_contracts(ROOT / "schemas" / "events")


def record(*fields: dict[str, Any], name: str = "Thing", **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "test", **attributes, "fields": list(fields)}


def field(type_: Any, **attributes: Any) -> dict[str, Any]:
    return {"name": "f", "type": type_, **attributes}


A = {"name": "a", "type": "string"}
B = {"name": "b", "type": "string"}
B_DEFAULT = {**B, "default": ""}
E_AB = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
E_A = {"type": "enum", "name": "E", "symbols": ["A"]}


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        (record(A), record(A, B_DEFAULT), set()),
        (record(A), record(A, B), {"BACKWARD"}),
        (record(A, B), record(A), {"FORWARD"}),
        (record(A, B_DEFAULT), record(A), set()),
        (record(field("int")), record(field("long")), {"FORWARD"}),
        (record(field("string")), record(field(["null", "string"])), {"FORWARD"}),
        (record(field(E_AB)), record(field(E_A)), {"BACKWARD"}),
        (record(field({**E_A, "default": "A"})), record(field({**E_AB, "default": "A"})), set()),
        (record(A), record(A, name="Other"), {"BACKWARD", "FORWARD"}),
        (record(field("string")), record(field("long")), {"BACKWARD", "FORWARD"}),
    ],
)
def test_modes_mean_what_the_specification_says(old: Any, new: Any, broken: set[str]) -> None:
    assert bool(compatible(new, [old], "BACKWARD")) == ("BACKWARD" in broken)
    assert bool(compatible(new, [old], "FORWARD")) == ("FORWARD" in broken)
    assert bool(compatible(new, [old], "FULL")) == bool(broken)
    assert compatible(new, [old], "NONE") == []


def test_transitive_modes_compare_with_every_version_and_the_others_with_the_newest() -> None:
    oldest, newest = record(A, B), record(A)
    new = record(A, {"name": "b", "type": "long", "default": 0})
    assert compatible(new, [oldest, newest], "BACKWARD") == []
    found = compatible(new, [oldest, newest], "BACKWARD_TRANSITIVE")
    assert [(one.field, one.against, one.direction) for one in found] == [("b", 0, "backward")]


@pytest.mark.parametrize(
    ("old", "new", "path", "kind"),
    [
        (record(A), record(A, B), "b", "missing-default"),
        (record(field("string")), record(field("long")), "f", "type"),
        (record(field(["null", "string"])), record(field("string")), "f", "union"),
        (record(field(["null", "string"])), record(field(["null", "long"])), "f", "union"),
        (record(field(E_AB)), record(field(E_A)), "f", "symbols"),
        (
            record(field({"type": "fixed", "name": "F", "size": 4})),
            record(field({"type": "fixed", "name": "F", "size": 8})),
            "f",
            "size",
        ),
        (
            record(field({"type": "array", "items": record(A, name="Line")})),
            record(field({"type": "array", "items": record(A, B, name="Line")})),
            "f.b",
            "missing-default",
        ),
        (
            record(field({"type": "map", "values": "string"})),
            record(field({"type": "map", "values": "long"})),
            "f.*",
            "type",
        ),
        (record(A), record(A, name="Other"), "", "name"),
        (
            record(field({"type": "long", "logicalType": "timestamp-millis"})),
            record(field({"type": "long", "logicalType": "timestamp-micros"})),
            "f",
            "meaning",
        ),
        (record(field("long")), record(field({"type": "long", "logicalType": "timestamp-millis"})), "f", "meaning"),
    ],
)
def test_the_reason_names_the_field(old: Any, new: Any, path: str, kind: str) -> None:
    found = check(new, old)
    assert (path, kind) in [(one.field, one.kind) for one in found]
    assert all(one.message for one in found)
    assert str(found[0]).startswith(f"{path}: " if path else "")


def test_every_reason_is_told_and_not_only_the_first() -> None:
    old = record(A, field("string"))
    new = record(A, B, field("long"))
    assert {one.field for one in check(new, old)} == {"b", "f"}


def test_a_renamed_field_with_an_alias_is_read() -> None:
    assert check(record({"name": "z", "type": "string", "aliases": ["a"]}), record(A)) == []


@pytest.mark.parametrize("contract", [*EVENTS.values(), *engine_contracts().values()], ids=lambda one: one.name)
def test_a_schema_is_compatible_with_itself_in_every_mode(contract: Any) -> None:
    for mode in MODES:
        assert compatible(contract.schema, [contract.schema], mode) == []


def test_the_shipped_enums_may_grow() -> None:
    schema = json.loads(EVENTS["accounts.UserSignedUp"].text)
    grown = copy.deepcopy(schema)
    channel = next(one for one in grown["fields"] if one["name"] == "channel")
    channel["type"]["symbols"].append("referral")
    assert compatible(grown, [schema], "FULL_TRANSITIVE") == []


def test_an_unknown_mode_and_a_broken_schema_are_input_errors() -> None:
    with pytest.raises(InputError, match="FULL_TRANSITIVE"):
        compatible(record(A), [record(A)], "SOMETIMES")
    with pytest.raises(InputError, match="no Avro type"):
        check(record(field("nonsense")), record(A))


@given(schemas())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_any_schema_reads_itself(schema: Any) -> None:
    assert check(schema, schema) == []


@given(schemas(), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_called_compatible_can_be_read(schema: Any, more: st.DataObject) -> None:
    reader = {**schema, "fields": [*schema["fields"][1:], {"name": "new", "type": "long", "default": 3}]}
    if any(problem.rule != "bytes-decimal" for problem in avsc.problems(reader)):
        return  # the first field defined a name that another needs
    assert check(reader, schema) == []
    from io import BytesIO

    stream = BytesIO()
    datum = more.draw(fitting(avsc.resolved(schema)))
    schemaless_writer(stream, parse_schema(copy.deepcopy(schema)), datum)
    stream.seek(0)
    read = schemaless_reader(stream, parse_schema(copy.deepcopy(schema)), parse_schema(copy.deepcopy(reader)))
    assert read == {**{name: value for name, value in datum.items() if name != "f0"}, "new": 3}


@given(json_values(), json_values())
def test_no_json_whatever_gives_a_traceback(one: Any, other: Any) -> None:
    for reader, writer in ((one, other), (record(field(one)), record(field(other)))):
        with contextlib.suppress(InputError):
            assert isinstance(check(reader, writer), list)
