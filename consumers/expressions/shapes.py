"""A shape: what is known about a value before any event is seen. From Avro types, and from the models of actions."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from schemas.contract import Contract

Kind = Literal[
    "text", "integer", "number", "decimal", "boolean", "time", "date", "clock", "uuid", "bytes",
    "list", "record", "map", "null", "unknown",
]  # fmt: skip

_WORDS: Mapping[str, str] = {
    "integer": "a whole number", "number": "a number", "decimal": "a decimal number", "boolean": "true or false",
    "time": "a time", "date": "a date", "clock": "a time of day", "uuid": "a UUID", "list": "a list",
    "record": "a record", "map": "a map", "null": "null", "unknown": "anything",
}  # fmt: skip
NUMBERS = frozenset({"integer", "number", "decimal"})
NESTED = frozenset({"list", "record", "map"})
PLAIN = frozenset({"text", "integer", "boolean", "null"})
"""Kinds whose values are JSON as they are."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``kind`` unknown fits everything. ``item`` is the shape of a list's or map's values; ``fields`` of a record's."""

    kind: Kind
    nullable: bool = False
    item: Shape | None = None
    fields: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """For sentences: ``text``, ``a whole number``."""
        return _WORDS.get(self.kind, self.kind)

    def present(self) -> Shape:
        """The same, known not to be null."""
        return replace(self, nullable=False) if self.nullable else self

    def or_null(self) -> Shape:
        return self if self.nullable else replace(self, nullable=True)


UNKNOWN = Shape("unknown", nullable=True)
TEXT = Shape("text")
INTEGER = Shape("integer")
NUMBER = Shape("number")
BOOLEAN = Shape("boolean")
TIME = Shape("time")
NULL = Shape("null", nullable=True)

_PRIMITIVES: Mapping[str, Shape] = {
    "string": TEXT, "enum": TEXT, "int": INTEGER, "long": INTEGER, "float": NUMBER, "double": NUMBER,
    "boolean": BOOLEAN, "bytes": Shape("bytes"), "fixed": Shape("bytes"), "null": NULL,
}  # fmt: skip
_LOGICAL: Mapping[str, Shape] = {
    "timestamp-millis": TIME, "timestamp-micros": TIME, "local-timestamp-millis": TIME, "local-timestamp-micros": TIME,
    "date": Shape("date"), "time-millis": Shape("clock"), "time-micros": Shape("clock"),
    "decimal": Shape("decimal"), "uuid": Shape("uuid"),
}  # fmt: skip


def of_avro(avro: Any) -> Shape:
    """The shape of a value of an Avro type whose named types are resolved in place; unknown where it cannot be said."""
    if isinstance(avro, list):
        return union([of_avro(branch) for branch in avro])
    if isinstance(avro, str):
        return _PRIMITIVES.get(avro, UNKNOWN)
    if not isinstance(avro, Mapping):
        return UNKNOWN
    logical = _LOGICAL.get(str(avro.get("logicalType", "")))
    if logical is not None:
        return logical
    kind = avro.get("type")
    if kind == "array":
        return Shape("list", item=of_avro(avro.get("items")))
    if kind == "map":
        return Shape("map", item=of_avro(avro.get("values")))
    if kind == "record":
        fields = [f for f in avro.get("fields", []) if isinstance(f, Mapping)]
        return Shape("record", fields={str(f.get("name")): of_avro(f.get("type")) for f in fields})
    if isinstance(kind, (Mapping, list)):
        return of_avro(kind)
    return _PRIMITIVES.get(str(kind), UNKNOWN)


_KEPT_MAX: Final = 2_000
_kept: dict[int, tuple[Contract, Shape]] = {}
"""Shapes by the contract's identity, with the contract itself so that its identity stays its own."""


def of_contract(contract: Contract) -> Shape:
    """The shape of the contract's payload as a whole. Kept: every expression of a file asks for it."""
    known = _kept.get(id(contract))
    if known is None:
        if len(_kept) >= _KEPT_MAX:
            _kept.clear()
        known = _kept[id(contract)] = (contract, _of_contract(contract))
    return known[1]


def _of_contract(contract: Contract) -> Shape:
    tops = {path: of_avro(f.type) for path, f in contract.fields.items() if "." not in path}
    for path, shape in tops.items():
        if contract.fields[path].optional:
            tops[path] = shape.or_null()
    return Shape("record", fields=tops)


def of_constant(value: Any) -> Shape:
    """The shape of a value written in the file."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER
    if isinstance(value, float):
        return NUMBER
    if isinstance(value, str):
        return TEXT
    if isinstance(value, Mapping):
        return Shape("map", item=union([of_constant(item) for item in value.values()]))
    if isinstance(value, Sequence):
        return Shape("list", item=union([of_constant(item) for item in value]))
    return UNKNOWN


def union(shapes: Sequence[Shape]) -> Shape:
    """What holds for a value that has one of these shapes."""
    nullable = any(shape.nullable for shape in shapes)
    known = [shape for shape in shapes if shape.kind != "null"]
    if not known:
        return NULL if shapes else UNKNOWN
    first = known[0].present()
    if all(shape.present() == first for shape in known):
        return replace(first, nullable=nullable)
    if all(shape.kind in ("integer", "number") for shape in known):
        return Shape("number", nullable=nullable)
    if all(shape.kind == first.kind == "list" for shape in known):
        return Shape("list", nullable, item=union([shape.item or UNKNOWN for shape in known]))
    return Shape("unknown", nullable=nullable)


# -- what the models of actions accept ---------------------------------------------------------------------------

_PYTHON: Mapping[Any, frozenset[str]] = {
    str: frozenset({"text", "time", "date", "clock", "uuid", "decimal"}),  # those leave as text (JSON has no times)
    int: frozenset({"integer"}),
    float: frozenset({"integer", "number"}),
    bool: frozenset({"boolean"}),
    type(None): frozenset({"null"}),
    bytes: frozenset({"bytes"}),
    datetime: frozenset({"time"}),
    date: frozenset({"date"}),
    time: frozenset({"clock"}),
    Decimal: frozenset({"decimal", "integer"}),
    UUID: frozenset({"uuid"}),
}
_ANY = frozenset({"unknown"})


def words(kinds: Iterable[str]) -> str:
    """``a list or text``, for sentences."""
    return " or ".join(sorted({_WORDS.get(kind, kind) for kind in kinds}))


def accepted(annotation: Any) -> frozenset[str]:
    """The kinds a pydantic annotation takes; contains ``unknown`` where anything may be right."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return accepted(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return frozenset().union(*(accepted(branch) for branch in get_args(annotation)))
    if origin is Literal:
        return frozenset().union(*(accepted(type(choice)) for choice in get_args(annotation)))
    if annotation in _PYTHON:
        return _PYTHON[annotation]
    if isinstance(origin or annotation, type):
        kind = origin or annotation
        if issubclass(kind, enum.Enum):
            return frozenset({"text"})
        if kind in (list, tuple, set, frozenset) or kind in (Sequence, types.GenericAlias):
            return frozenset({"list"})
        if kind is dict or issubclass(kind, Mapping) or hasattr(kind, "model_fields"):
            return frozenset({"record", "map"})
        if issubclass(kind, Sequence):
            return frozenset({"list"})
    return _ANY


def natively(shape: Shape, annotation: Any) -> bool:
    """Whether a value is handed to a vendor as it is (a time as a time), and not as JSON has it (a time as text)."""
    if shape.kind in PLAIN | {"number"}:
        return True
    kinds = _branches(annotation)
    return bool(kinds & {Any, object, dict, list}) or shape.kind in frozenset().union(
        *(_PYTHON.get(kind, frozenset()) for kind in kinds - {str})
    )


def _branches(annotation: Any) -> set[Any]:
    """The classes that an annotation is made of, without their parameters."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return set().union(*(_branches(branch) for branch in get_args(annotation)))
    return {origin or annotation}


def mismatch(shape: Shape, annotation: Any) -> str | None:
    """Why a value of ``shape`` cannot be right where ``annotation`` is wanted, as ``gives …, but … is wanted``."""
    kinds = accepted(annotation)
    if "unknown" in kinds:
        return None
    wanted = " or ".join(dict.fromkeys(_WORDS.get(kind, kind) for kind in shown(kinds)))
    if shape.kind != "unknown" and shape.kind not in kinds:
        return f"gives {shape.word}, but {wanted} is wanted"
    if shape.nullable and "null" not in kinds and shape.kind not in ("unknown", "null"):
        return f"can be null, but {wanted} is wanted"
    return None


def shown(kinds: frozenset[str]) -> list[Kind]:
    """Without those that only ride along with text."""
    if "text" in kinds:
        kinds = kinds - {"time", "date", "clock", "uuid", "decimal"}
    if "number" in kinds:
        kinds = kinds - {"integer"}
    if {"record", "map"} <= kinds:
        kinds = kinds - {"record"}
    return [kind for kind in get_args(Kind) if kind in kinds - {"null"}]
