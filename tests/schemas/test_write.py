"""The compiled writer writes what fastavro writes, and takes what the checker takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import avsc
from schemas.checker import checker, faults
from schemas.write import Write, writer
from tests.schemas.arbitrary import EVERYTHING, PLAIN, WIDE, json_values, plain, schemas_and_data

RESOLVED = avsc.resolved(PLAIN)
PARSED = parse_schema(json.loads(json.dumps(PLAIN)))
CHECK = checker(RESOLVED)


def compiled(schema: Any) -> Write:
    found = writer(avsc.resolved(schema))
    assert found is not None
    return found


WRITE = compiled(PLAIN)


def by_fastavro(schema: Any, datum: Any) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(json.loads(json.dumps(schema))), datum)
    return stream.getvalue()


def fits(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def one_field(type_: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": "One", "fields": [{"name": "f", "type": type_, **attributes}]}


@given(plain)
@settings(max_examples=60)
def test_it_writes_the_same_bytes_as_fastavro(datum: Any) -> None:
    out = bytearray()
    assert WRITE(datum, out)
    stream = BytesIO()
    schemaless_writer(stream, PARSED, datum)
    assert bytes(out) == stream.getvalue()
    assert CHECK(datum)


@given(schemas_and_data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_for_any_schema_it_writes_the_same_bytes_or_declines(drawn: tuple[Any, Any, Any]) -> None:
    schema, resolved, datum = drawn
    write = writer(resolved)
    assert checker(resolved)(datum)
    if write is None:
        return
    out = bytearray()
    assert write(datum, out)
    assert bytes(out) == by_fastavro(schema, datum)


@pytest.mark.parametrize("schema", [EVERYTHING, WIDE], ids=["rare logical types", "a wide union"])
def test_it_declines_what_it_does_not_write(schema: Any) -> None:
    assert writer(avsc.resolved(schema)) is None


TYPES: list[Any] = [
    "boolean", "int", "long", "float", "double", "bytes", "string", ["null", "string"], ["int", "null"],
    {"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "fixed", "name": "F", "size": 2},
    {"type": "array", "items": "int"}, {"type": "map", "values": "string"},
    {"type": "long", "logicalType": "timestamp-millis"}, {"type": "int", "logicalType": "date"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]},
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1 << 31, -(1 << 31), 1 << 63, -(1 << 63), 1.5, float("inf"), float("nan"), 1e300, b"", b"ab", "",
    "A", "C", "\ud800", [], [1], [None], ["a"], {}, {"a": 1}, {"a": "b"}, {"a": 1, "b": 2}, {1: "b"}, (1, 2),
    datetime(2026, 5, 1), datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=timezone(timedelta(hours=5))),
    date(2026, 5, 1), UUID(int=5), object(),
]  # fmt: skip


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_writer_checker_and_the_list_of_faults_agree_on_every_kind_of_value(type_: Any) -> None:
    schema = one_field(type_)
    resolved = avsc.resolved(schema)
    write, check = compiled(schema), checker(resolved)
    for value in VALUES:
        datum = {"f": value}
        out = bytearray()
        writes = fits(lambda datum=datum, out=out: write(datum, out))  # type: ignore[misc]
        assert writes == (not faults(resolved, datum)), value
        if value != "\ud800" and not (isinstance(value, dict) and 1 in value):
            assert writes == fits(lambda datum=datum: check(datum)), value  # type: ignore[misc]
        if writes:
            assert bytes(out) == by_fastavro(schema, datum)


@given(json_values())
def test_no_value_whatever_makes_the_checks_fail_in_another_way(value: Any) -> None:
    for datum in (value, {"f0": value}):
        assert not fits(lambda datum=datum: WRITE(datum, bytearray()))  # type: ignore[misc]
        assert faults(RESOLVED, datum)


@pytest.mark.parametrize(
    ("type_", "default"),
    [
        ("string", "x"),
        ("long", 5000),
        (["null", "string"], None),
        (["string", "null"], "x"),
        ({"type": "array", "items": "int"}, []),
        ({"type": "array", "items": "int"}, [1, 2]),
        ({"type": "map", "values": "int"}, {"a": 1}),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B"),
        ({"type": "int", "logicalType": "date"}, 20),
        ("boolean", True),
        ("double", 1.5),
    ],
)
def test_an_absent_field_is_written_as_its_default(type_: Any, default: Any) -> None:
    schema = one_field(type_, default=default)
    out = bytearray()
    assert compiled(schema)({}, out)
    assert bytes(out) == by_fastavro(schema, {})


@pytest.mark.parametrize("datum", [{}, {"f": "a", "g": 1}, {"g": 1}, {"f": None}])
def test_missing_unknown_and_null_fields_do_not_fit(datum: Any) -> None:
    assert not fits(lambda: compiled(one_field("string"))(datum, bytearray()))


def test_an_unknown_field_does_not_hide_behind_an_absent_one() -> None:
    assert not compiled(one_field("string", default=""))({"g": 1}, bytearray())


@pytest.mark.parametrize(
    ("constraints", "good", "bad"),
    [
        ({"type_": "string", "pattern": "^[A-Z]{3}$"}, ["EUR"], ["EU", "EURO", "EUR\n", "eur"]),
        ({"type_": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type_": "string", "minLength": 1}, ["a"], [""]),
        ({"type_": "string", "maxLength": 1}, ["", "é"], ["ab"]),
        ({"type_": "int", "minimum": 0, "maximum": 10}, [0, 10], [-1, 11]),
        ({"type_": "double", "minimum": 0.5}, [0.5, 1], [0.4]),
        ({"type_": ["null", "string"], "pattern": "^a"}, [None, "ab"], ["b"]),
    ],
)
def test_constraints_are_kept(constraints: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    schema = one_field(constraints.pop("type_"), **constraints)
    write, resolved = compiled(schema), avsc.resolved(schema)
    for value in good:
        assert write({"f": value}, bytearray())
        assert not faults(resolved, {"f": value})
    for value in bad:
        assert not write({"f": value}, bytearray())
        assert faults(resolved, {"f": value})


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_are_written_as_avro_has_them(number: int) -> None:
    out = bytearray()
    assert compiled_long({"f": number}, out)
    assert bytes(out) == by_fastavro(LONG, {"f": number})


LONG = one_field("long")
compiled_long = compiled(LONG)
