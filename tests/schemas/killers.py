"""What kills a decoder, as facts.md has it: a schema and a body that end a process, take its memory or its time, or are
read as something else in silence. Each with the rule or code by which it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Killer:
    """``type_`` of the last field of a record and the bytes of it. ``rule``: lint refuses the schema,
    for our events and, where ``is_foreign_refused``, for anybody's. ``code``: what decoding a foreign one answers."""

    name: str
    type_: Any
    body: bytes
    code: str
    rule: str | None = None
    is_foreign_refused: bool = True


def long(number: int) -> bytes:
    """A number as Avro writes it (zigzag, 7 bits a byte)."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def nested(levels: int) -> Any:
    type_: Any = "long"
    for _ in range(levels):
        type_ = {"type": "array", "items": type_}
    return type_


_ENUM = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}
_EMPTY = {"type": "record", "name": "Nothing", "doc": "Nothing.", "fields": []}

KILLERS = (
    Killer("a recursive schema and 4.6 kB", ["null", "FOREIGN"], b"\x02" * 4_600, "schema-refused", "recursive"),
    Killer("array<null> of 7 bytes", {"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\xff\x3f\x00",
           "schema-refused", "zero-byte-items"),
    Killer("an array of empty records", {"type": "array", "items": _EMPTY}, b"\xfe\xff\xff\xff\xff\x3f\x00",
           "schema-refused", "zero-byte-items"),
    Killer("a decimal of a mebibyte on bytes", _DECIMAL, long(1_000_000) + b"\x01" * 1_000_000, "too-large",
           "bytes-decimal", is_foreign_refused=False),
    Killer("types nested more than 16 deep", nested(17), b"\x00", "schema-refused", "too-deep"),
    Killer("a union's index of -1", ["null", "string"], b"\x01\x02a", "bad-index"),
    Killer("a union's index of 7", ["null", "string"], b"\x0e\x02a", "bad-index"),
    Killer("an enum's index of -1", _ENUM, b"\x01", "bad-index"),
    Killer("an enum's index of 2", _ENUM, b"\x04", "bad-index"),
    Killer("trailing bytes", "long", b"\x02\x00", "trailing-bytes"),
    Killer("an array of a billion items", {"type": "array", "items": "long"}, long(1 << 30) + b"\x00", "truncated"),
    Killer("a text of a gigabyte", "string", long(1 << 30), "truncated"),
    Killer("a number without end", "long", b"\xff" * 40, "bad-number"),
    Killer("a message of more than a mebibyte", "bytes", long(1 << 20) + b"\x00" * (1 << 20), "too-large"),
)  # fmt: skip


def last_field(killer: Killer, record: str) -> dict[str, Any]:
    """The field of that type in the record of that full name."""
    type_ = killer.type_
    if isinstance(type_, list):
        type_ = [record if branch == "FOREIGN" else branch for branch in type_]
    return {"name": "last", "type": type_, "doc": "The last one."}


def foreign_schema(killer: Killer, full_name: str) -> dict[str, Any]:
    """The schema that a foreign producer registers."""
    namespace, _, name = full_name.rpartition(".")
    return {"type": "record", "name": name, "namespace": namespace, "fields": [last_field(killer, full_name)]}


def own_event(killer: Killer, good: dict[str, Any]) -> dict[str, Any]:
    """The same as one more field of an event of ours."""
    return {**good, "fields": [*good["fields"], last_field(killer, f"{good['namespace']}.{good['name']}")]}
