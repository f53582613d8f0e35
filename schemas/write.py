"""Writes a payload as Avro and checks it in the same pass: one Python function compiled per schema.

It costs half of what fastavro's writer costs alone, because each field's type is known when the function is made and a
union needs no search. fastavro stays the oracle in the property tests, and writes what is declined here
(``writer`` answers None): unions wider than ``[null, T]`` and the rarer logical types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any, TypeAlias

from fastavro import parse_schema, schemaless_writer

from schemas import avsc
from schemas.checker import Tests, kind, logical

Write: TypeAlias = Callable[[Any, bytearray], bool]

_SMALL = 4096
_LOGICAL = ("timestamp-millis", "timestamp-micros", "date", "uuid")


def _zigzag(number: int) -> bytes:
    """A whole number of 64 bits as Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append((number & 127) | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALLS = tuple(_zigzag(number) for number in range(_SMALL))


class _DeclinedError(Exception):
    pass


class _Compiler:
    def __init__(self) -> None:
        self.tests = Tests()
        self.scope = self.tests.scope
        self.scope |= {"S": _SMALLS, "Z": _zigzag, "EPOCH": datetime(1970, 1, 1, tzinfo=UTC), "DAY": date(1970, 1, 1)}
        self.functions: dict[int, str] = {}
        self.source: list[str] = []
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def record(self, type_: Mapping[str, Any]) -> str:
        known = self.functions.get(id(type_))
        if known:
            return known
        name = self.functions[id(type_)] = f"write{len(self.functions)}"
        lines = [
            f"def {name}(d, o):",
            " if type(d) is not dict and not isinstance(d, Mapping): return False",
            " absent = 0",
        ]
        for one in type_["fields"]:
            field, v = one["name"], self.fresh()
            if "default" in one:
                default = self.tests.name(_default(one))
                lines += [f" if {field!r} not in d: absent += 1; o += {default}", " else:", f"  {v} = d[{field!r}]"]
                self.value(one["type"], v, one, lines, "  ")
            else:
                lines.append(f" {v} = d[{field!r}]")
                self.value(one["type"], v, one, lines, " ")
        # every field was there or counted as absent, so more keys than that are unknown ones
        self.source += [*lines, f" return len(d) + absent == {len(type_['fields'])}"]
        return name

    def value(self, type_: Any, v: str, one: Mapping[str, Any], lines: list[str], ind: str) -> None:
        what = kind(type_)
        if what == "union":
            rest, nullable = avsc.without_null(type_)
            if not nullable or isinstance(rest, list) or len(type_) != 2:
                raise _DeclinedError
            null_first = kind(type_[0]) == "null"
            lines += [f"{ind}if {v} is None: o.append({0 if null_first else 2})", f"{ind}else:"]
            lines.append(f"{ind} o.append({2 if null_first else 0})")
            self.value(rest, v, one, lines, ind + " ")
        elif what == "record":
            lines.append(f"{ind}if not {self.record(type_)}({v}, o): return False")
        elif what == "array":
            inner = self.fresh()
            lines += [f"{ind}if not isinstance({v}, (list, tuple)): return False", f"{ind}if {v}:"]
            self.number(f"len({v})", lines, ind + " ")
            lines.append(f"{ind} for {inner} in {v}:")
            self.value(type_["items"], inner, {}, lines, ind + "  ")
            lines.append(f"{ind}o.append(0)")
        elif what == "map":
            key, inner = self.fresh(), self.fresh()
            lines += [f"{ind}if not isinstance({v}, Mapping): return False", f"{ind}if {v}:"]
            self.number(f"len({v})", lines, ind + " ")
            lines.append(f"{ind} for {key}, {inner} in {v}.items():")
            self.value("string", key, {}, lines, ind + "  ")
            self.value(type_["values"], inner, {}, lines, ind + "  ")
            lines.append(f"{ind}o.append(0)")
        else:
            self.leaf(type_, what, v, one, lines, ind)

    def leaf(self, type_: Any, what: str, v: str, one: Mapping[str, Any], lines: list[str], ind: str) -> None:
        name = logical(type_)
        if name is not None and name not in _LOGICAL:
            raise _DeclinedError
        if what == "enum":
            index = self.tests.name({symbol: _zigzag(place) for place, symbol in enumerate(type_["symbols"])})
            lines.append(f"{ind}o += {index}[{v}]")  # an unknown symbol raises KeyError: "no"
            return
        lines.append(f"{ind}if not ({self.tests.test(type_, v, one)}): return False")
        if name == "date":
            self.number(f"({v} - DAY).days", lines, ind)
        elif name in ("timestamp-millis", "timestamp-micros"):
            part = "1000 + t.microseconds // 1000" if name.endswith("millis") else "1000000 + t.microseconds"
            lines += [f"{ind}t = {v} - EPOCH", f"{ind}o += Z((t.days * 86400 + t.seconds) * {part})"]
        elif name == "uuid":
            lines += [f"{ind}o += b'H'", f"{ind}o += str({v}).encode()"]  # H: the length 36
        elif what in ("int", "long"):
            self.number(v, lines, ind)
        elif what == "string":
            lines.append(f"{ind}b = {v}.encode()")
            self.number("len(b)", lines, ind)
            lines.append(f"{ind}o += b")
        elif what == "bytes":
            self.number(f"len({v})", lines, ind)
            lines.append(f"{ind}o += {v}")
        elif what == "fixed":
            lines.append(f"{ind}o += {v}")
        elif what == "boolean":
            lines.append(f"{ind}o.append({v})")
        elif what in ("float", "double"):
            from struct import Struct

            lines.append(f"{ind}o += {self.tests.name(Struct('<f' if what == 'float' else '<d').pack)}({v})")

    def number(self, expression: str, lines: list[str], ind: str) -> None:
        n = expression
        if not expression.isidentifier():
            n = "n"
            lines.append(f"{ind}n = {expression}")
        lines.append(f"{ind}o += S[{n}] if 0 <= {n} < {_SMALL} else Z({n})")


def _default(one: Mapping[str, Any]) -> bytes:
    """The bytes of a field's default."""
    stream = BytesIO()
    schema = {"type": "record", "name": "Default", "fields": [{**one, "type": avsc.standalone(one["type"])}]}
    try:
        schemaless_writer(stream, parse_schema(schema), {})
    except Exception:  # noqa: BLE001 - a default fastavro does not write by itself: it gets to write all of it
        raise _DeclinedError from None
    return stream.getvalue()


def writer(schema: Any) -> Write | None:
    """A function ``write(datum, out) -> fits`` for a *resolved* record schema; it appends to ``out``. False, KeyError,
    TypeError, UnicodeEncodeError, OverflowError or struct.error: the datum does not fit, and ``out`` is of no use.
    None where the schema has a shape this does not write."""
    compiler = _Compiler()
    try:
        name = compiler.record(schema)
    except _DeclinedError:
        return None
    exec(compile("\n".join(compiler.source), "<writer>", "exec"), compiler.scope)
    write: Write = compiler.scope[name]
    return write
