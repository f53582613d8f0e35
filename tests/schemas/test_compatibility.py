"""Which schema may follow which, and the reason by field when it may not. (The registry as an oracle:
tests/conformance/test_registries.py.)"""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from random import Random
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import avsc
from schemas.compatibility import MODES, check, compatible
from schemas.contract import engine_contracts, load_contracts
from schemas.errors import InputError
from tests.conftest import ROOT
from tests.schemas.arbitrary import fitting, json_values, schemas
from tests.schemas.evolutions import evolved, schema

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
def test_any_schema_reads_itself(one: Any) -> None:
    assert check(one, one) == []


@given(schemas(), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_called_compatible_can_be_read(written: Any, more: st.DataObject) -> None:
    reader = {**written, "fields": [*written["fields"][1:], {"name": "new", "type": "long", "default": 3}]}
    if any(problem.rule != "bytes-decimal" for problem in avsc.problems(reader)):
        return  # the first field defined a name that another needs
    assert check(reader, written) == []
    from io import BytesIO

    stream = BytesIO()
    datum = more.draw(fitting(avsc.resolved(written)))
    schemaless_writer(stream, parse_schema(copy.deepcopy(written)), datum)
    stream.seek(0)
    read = schemaless_reader(stream, parse_schema(copy.deepcopy(written)), parse_schema(copy.deepcopy(reader)))
    assert read == {**{name: value for name, value in datum.items() if name != "f0"}, "new": 3}


@given(json_values(), json_values())
def test_no_json_whatever_gives_a_traceback(one: Any, other: Any) -> None:
    for reader, writer in ((one, other), (record(field(one)), record(field(other)))):
        with contextlib.suppress(InputError):
            assert isinstance(check(reader, writer), list)


def _apache(reader: Any, writer: Any) -> bool:
    """The judgement of Apache's Python library."""
    import warnings

    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    from avro.schema import parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = parse(json.dumps(reader)), parse(json.dumps(writer))
    found = ReaderWriterCompatibilityChecker().get_compatibility(*pair)  # type: ignore[no-untyped-call]
    return bool(found.compatibility is SchemaCompatibilityType.compatible)


@pytest.mark.parametrize("seed", range(30))
def test_what_resolves_is_what_the_apache_library_says(seed: int) -> None:
    """Ten changes each, read both ways. Not compared: aliases of types, which that library takes for full names where
    the specification says that they are relative to the namespace."""
    chance = Random(seed)
    old = schema("test", chance)
    for _ in range(10):
        new, mutations = evolved(old, chance, chance.randint(1, 3))
        if "renames_a_type" in mutations:
            continue
        for reader, writer in ((new, old), (old, new)):
            ours = [one for one in check(reader, writer) if one.kind != "meaning"]
            assert (not ours) == _apache(reader, writer), (mutations, ours)


def test_an_alias_of_a_type_is_relative_to_its_namespace_or_a_full_name() -> None:
    """It used to be taken by its word, so a type that was renamed with an alias could not be read."""
    old = record(field({"type": "fixed", "name": "Old", "size": 4}))
    for alias in ("Old", "test.Old"):
        new = record(field({"type": "fixed", "name": "New", "size": 4, "aliases": [alias]}))
        assert check(new, old) == []
        assert [one.field for one in check(old, new)] == ["f"]
    strange = record(field({"type": "fixed", "name": "New", "size": 4, "aliases": ["other.Old", 5]}))
    assert [one.field for one in check(strange, old)] == ["f"]


LARGE = """
import json, sys, time
from schemas.compatibility import check
from ops.benchmarks.memory import peak_mib
from schemas.difference import differences


def rec(name, fields):
    return {"type": "record", "name": name, "fields": fields}


def each(count, type_, name="f"):
    return rec("A", [{"name": f"{name}{n}", "type": type_(n)} for n in range(count)])


def shared(levels, width, leaf):
    inner = rec("R0", [{"name": "x", "type": leaf}])
    for level in range(1, levels):
        more = [{"name": f"f{n}", "type": ["null", f"R{level - 1}"]} for n in range(1, width)]
        inner = rec(f"R{level}", [{"name": "f0", "type": [inner, "null"]}, *more])
    return inner


def union(prefix):
    return lambda n: [rec(f"{prefix}{n}_{k}", [{"name": "u", "type": ["null", "int"]}]) for k in range(64)]


def enum(symbol):
    return lambda n: {"type": "enum", "name": f"E{n}", "symbols": [f"{symbol}{k}" for k in range(1000)]}


CASES = {
    "thousands of fields, all others": (each(4900, lambda n: "long"), each(4900, lambda n: "string", "g")),
    "thousands of fields, all retyped": (each(4900, lambda n: "long"), each(4900, lambda n: "string")),
    "types used again and again": (shared(7, 4, "long"), shared(7, 4, "string")),
    "unions of 64 records": (each(70, union("B")), each(70, union("C"))),
    "enums of a thousand": (each(90, enum("s")), each(90, enum("t"))),
}
before = peak_mib()
for name, (old, new) in CASES.items():
    start = time.process_time()
    check(new, old), check(old, new)
    middle = time.process_time()
    differences(old, new)
    end = time.process_time()
    grown = peak_mib() - before
    print(json.dumps([name, middle - start, end - middle, grown]))
"""


def test_the_largest_schemas_are_compared_within_two_seconds_of_cpu_and_200_mib() -> None:
    """In a process of its own, so that its memory is known."""
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=ROOT, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 5
    for name, comparing, telling, grown_mib in found:
        assert comparing < 4, name  # two comparisons
        assert telling < 2, name
        assert grown_mib < 200, name
