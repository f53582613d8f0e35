"""Arbitrary schemas, and arbitrary data that fits one: what the property tests of the codec draw from."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from schemas import avsc
from schemas.checker import kind, logical

PRIMITIVES = ["boolean", "int", "long", "float", "double", "bytes", "string"]
LOGICAL = [
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "int", "logicalType": "date"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "fixed", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 3},
]

leaves = st.sampled_from([*PRIMITIVES, *LOGICAL]) | st.sampled_from(
    [{"type": "enum", "symbols": ["A", "B", "C"]}, {"type": "fixed", "size": 3}]
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    record = st.lists(inner, min_size=1, max_size=4).map(
        lambda types: {"type": "record", "fields": [{"type": type_} for type_ in types]}
    )
    nullable = inner.filter(lambda type_: not isinstance(type_, list))
    return st.one_of(
        record,
        inner.map(lambda type_: {"type": "array", "items": type_}),
        inner.map(lambda type_: {"type": "map", "values": type_}),
        nullable.map(lambda type_: ["null", type_]),
        nullable.map(lambda type_: [type_, "null"]),
    )


def _named(type_: Any, numbers: Any) -> Any:
    if isinstance(type_, list):
        return [_named(branch, numbers) for branch in type_]
    if not isinstance(type_, dict):
        return type_
    out = dict(type_)
    if out["type"] in ("record", "enum", "fixed"):
        out["name"] = f"T{next(numbers)}"
    if "fields" in out:
        out["fields"] = [
            {"name": f"f{place}", "type": _named(one["type"], numbers)} for place, one in enumerate(out["fields"])
        ]
    for part in ("items", "values"):
        if part in out:
            out[part] = _named(out[part], numbers)
    return out


def schemas() -> st.SearchStrategy[Any]:
    """A record of anything, at most a handful of levels deep."""
    types = st.lists(st.recursive(leaves, _wider, max_leaves=4), min_size=1, max_size=3)
    whole = types.map(lambda found: {"type": "record", "fields": [{"type": type_} for type_ in found]})
    return whole.map(lambda schema: {**_named(schema, itertools.count()), "namespace": "some"})


def _decimal(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda number: Decimal(number).scaleb(-scale))


def _times(part: timedelta, zone: Any) -> st.SearchStrategy[datetime]:
    most = timedelta(days=36_000) // part
    return st.integers(-most, most).map(lambda number: datetime(1970, 1, 1, tzinfo=zone) + part * number)


_LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-70, 5000),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bytes": st.binary(max_size=24),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=24),
    "timestamp-millis": _times(timedelta(milliseconds=1), UTC),
    "timestamp-micros": _times(timedelta(microseconds=1), UTC),
    "local-timestamp-millis": _times(timedelta(milliseconds=1), None),
    "local-timestamp-micros": _times(timedelta(microseconds=1), None),
    "date": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "uuid": st.uuids(),
}


def fitting(type_: Any) -> st.SearchStrategy[Any]:
    """Data that fits a *resolved* type; of a pattern it knows nothing."""
    what = kind(type_)
    if what == "union":
        return st.one_of([fitting(branch) for branch in type_])
    if what == "record":
        return st.fixed_dictionaries({one["name"]: fitting(one["type"]) for one in type_["fields"]})
    if what == "array":
        return st.lists(fitting(type_["items"]), max_size=4)
    if what == "map":
        return st.dictionaries(_LEAVES["string"], fitting(type_["values"]), max_size=3)
    if what == "enum":
        return st.sampled_from(type_["symbols"])
    name = logical(type_)
    if name == "decimal":
        return _decimal(type_["precision"], type_.get("scale", 0))
    if what == "fixed":
        return st.binary(min_size=type_["size"], max_size=type_["size"])
    return _LEAVES[name or what]


@st.composite
def schemas_and_data(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """A schema, the same resolved, and a datum that fits."""
    schema = draw(schemas())
    resolved = avsc.resolved(schema)
    return schema, resolved, draw(fitting(resolved))


_ITEM = {
    "type": "record",
    "name": "Item",
    "fields": [{"name": "sku", "type": "string"}, {"name": "size", "type": "int"}],
}
_TYPES: list[Any] = [
    *PRIMITIVES,
    *({**one, "name": "Money"} if one["type"] == "fixed" else one for one in LOGICAL),
    {"type": "enum", "name": "Letter", "symbols": ["A", "B", "C"]},
    {"type": "fixed", "name": "Three", "size": 3},
    ["null", "string"],
    ["long", "null"],
    ["null", {"type": "int", "logicalType": "date"}],
    {"type": "array", "items": _ITEM},
    {"type": "map", "values": ["null", "Item"]},
    ["null", "Item"],
    {"type": "array", "items": {"type": "array", "items": "Letter"}},
]

EVERYTHING: dict[str, Any] = {
    "type": "record",
    "name": "Everything",
    "namespace": "some",
    "fields": [{"name": f"f{place}", "type": type_} for place, type_ in enumerate(_TYPES)],
}
"""One record with every shape, types used twice among them. Drawing data for it is quick: the strategy is made once."""

PLAIN: dict[str, Any] = {
    **EVERYTHING,
    "name": "Plain",
    "fields": [one for one in EVERYTHING["fields"] if "local-" not in str(one) and "decimal" not in str(one)],
}
"""The same without the logical types that the compiled writer leaves to fastavro."""

WIDE: dict[str, Any] = {
    **EVERYTHING,
    "name": "Wide",
    "fields": [*EVERYTHING["fields"], {"name": "wide", "type": ["null", "string", "long", "Letter", "Item"]}],
}

everything = fitting(avsc.resolved(EVERYTHING))
plain = fitting(avsc.resolved(PLAIN))


def json_values() -> st.SearchStrategy[Any]:
    """Anything JSON can say, with the words of schemas in it more often than by chance."""
    words = st.sampled_from(
        ["record", "array", "map", "enum", "fixed", "string", "null", "long", "bytes", "decimal", "billing", "A", ""]
    )
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words | st.text(max_size=8)
    keys = st.sampled_from(
        ["type", "name", "namespace", "fields", "items", "values", "symbols", "size", "default", "doc", "backbone",
         "topic", "key", "owner", "retention", "freshness_slo", "examples", "pattern", "minimum", "personal_data",
         "logicalType", "precision", "scale", "status"]
    ) | st.text(max_size=4)  # fmt: skip
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=7),
        max_leaves=25,
    )
