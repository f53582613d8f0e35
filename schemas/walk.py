"""One pass over an Avro body that finds what the decoder would let pass: wrong union and enum indexes, negative
lengths, endless numbers, a truncated end.

fastavro takes a negative index as "from the end" and overlong numbers for others, in silence (facts.md). ``walker``
compiles a schema once to a Python function that only steps over the bytes (a tenth of the cost of decoding them again);
when it refuses, ``explain`` walks slowly and names the field, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Literal, TypeAlias

from fastavro import parse_schema, schemaless_reader

from schemas.checker import kind

Walker: TypeAlias = Callable[[bytes, int], int]

BodyCode: TypeAlias = Literal["truncated", "bad-index", "bad-length", "bad-number", "bad-value"]

_VARINT_MAX = 10
_BLOCKS_MAX = 6  # CPython refuses more than 20 nested loops in one function


class BodyError(Exception):
    """The bytes cannot be a body of the schema. ``path`` is the dotted field (empty: not known)."""

    def __init__(self, code: BodyCode, path: str = "") -> None:
        super().__init__(code)
        self.code: BodyCode = code
        self.path = path


def _varint(body: bytes, place: int, first: int) -> tuple[int, int]:
    """The rest of a number whose first byte has been read: the zigzag value and the place behind it."""
    value, shift = first & 0x7F, 7
    while True:
        byte = body[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            if value >> 64:
                raise BodyError("bad-number")
            return value, place
        shift += 7
        if shift >= 7 * _VARINT_MAX:
            raise BodyError("bad-number")


def _refuse(code: BodyCode) -> None:
    raise BodyError(code)


class _Compiler:
    def __init__(self, schema: Any) -> None:
        self.scope: dict[str, Any] = {"varint": _varint, "refuse": _refuse}
        self.uses: dict[int, int] = {}
        self.functions: dict[int, str] = {}
        self.source: list[str] = []
        self.count = 0
        self.count_uses(schema)

    def count_uses(self, type_: Any) -> None:
        if isinstance(type_, list):
            for branch in type_:
                self.count_uses(branch)
        elif isinstance(type_, Mapping):
            self.uses[id(type_)] = self.uses.get(id(type_), 0) + 1
            if self.uses[id(type_)] > 1:
                return
            for one in type_.get("fields", ()):
                self.count_uses(one["type"])
            for part in ("items", "values"):
                if part in type_:
                    self.count_uses(type_[part])

    def fresh(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def function(self, type_: Any) -> str:
        known = self.functions.get(id(type_))
        if known is None:
            known = self.functions[id(type_)] = f"walk{len(self.functions)}"
            lines = [f"def {known}(b, p):"]
            self.type(type_, lines, " ", 0)
            self.source += [*lines, " return p"]
        return known

    def number(self, lines: list[str], ind: str) -> str:
        n = self.fresh()
        lines += [f"{ind}{n} = b[p]; p += 1", f"{ind}if {n} > 127: {n}, p = varint(b, p, {n})"]
        return n

    def type(self, type_: Any, lines: list[str], ind: str, blocks: int) -> None:
        what = kind(type_)
        if what == "record":
            if self.uses[id(type_)] > 1 and lines[0] != f"def {self.functions.get(id(type_))}(b, p):":
                lines.append(f"{ind}p = {self.function(type_)}(b, p)")
            else:
                for one in type_["fields"]:
                    self.type(one["type"], lines, ind, blocks)
        elif what == "union":
            n = self.number(lines, ind)
            for index, branch in enumerate(type_):
                lines.append(f"{ind}{'el' if index else ''}if {n} == {2 * index}:")
                before = len(lines)
                self.type(branch, lines, ind + " ", blocks)
                if len(lines) == before:
                    lines.append(f"{ind} pass")
            lines.append(f"{ind}else: refuse('bad-index')")
        elif what in ("array", "map"):
            self.blocks(type_, what, lines, ind, blocks)
        elif what == "enum":
            n = self.number(lines, ind)
            lines.append(f"{ind}if {n} & 1 or {n} >= {2 * len(type_['symbols'])}: refuse('bad-index')")
        elif what in ("string", "bytes"):
            n = self.number(lines, ind)
            lines += [f"{ind}if {n} & 1: refuse('bad-length')", f"{ind}p += {n} >> 1"]
        elif what in ("int", "long"):
            q = self.fresh()
            lines += [f"{ind}{q} = p", f"{ind}while b[p] > 127: p += 1", f"{ind}p += 1"]
            lines.append(f"{ind}if p - {q} > {5 if what == 'int' else _VARINT_MAX}: refuse('bad-number')")
        elif what == "boolean":
            lines += [f"{ind}if b[p] > 1: refuse('bad-value')", f"{ind}p += 1"]
        elif what != "null":
            width = {"float": 4, "double": 8}.get(what)
            lines.append(f"{ind}p += {type_['size'] if width is None else width}")

    def blocks(self, type_: Mapping[str, Any], what: str, lines: list[str], ind: str, blocks: int) -> None:
        if blocks >= _BLOCKS_MAX:
            lines.append(f"{ind}p = {self.function(type_)}(b, p)")
            return
        n = self.number(lines, ind)
        lines += [f"{ind}while {n}:", f"{ind} if {n} & 1:", f"{ind}  {n} += 1"]
        size = self.number(lines, ind + "  ")
        lines.append(f"{ind}  if {size} & 1: refuse('bad-length')")
        # every item takes a byte at least, so more items than bytes are a lie: refused before a list is made of them
        lines.append(f"{ind} if {n} >> 1 > len(b) - p: refuse('truncated')")
        lines.append(f"{ind} for _ in range({n} >> 1):")
        if what == "map":
            self.type("string", lines, ind + "  ", blocks + 1)
        self.type(type_["items" if what == "array" else "values"], lines, ind + "  ", blocks + 1)
        lines += [f"{ind} {n} = b[p]; p += 1", f"{ind} if {n} > 127: {n}, p = varint(b, p, {n})"]


def walker(schema: Any) -> Walker:
    """A function ``walk(body, start) -> end`` for a *resolved* schema without structural problem. It raises BodyError
    or IndexError (truncated); an end that is not the body's length means truncated or trailing bytes."""
    compiler = _Compiler(schema)
    lines = ["def walk(b, p):"]
    compiler.type(schema, lines, " ", 0)
    exec(compile("\n".join([*compiler.source, *lines, " return p"]), "<walker>", "exec"), compiler.scope)
    walk: Walker = compiler.scope["walk"]
    return walk


# --- the slow way, to name the field -------------------------------------------------------------------------------


def explain(schema: Any, body: bytes, start: int) -> BodyError:
    """What is wrong with a body that was refused, with the dotted path of the field where it shows."""
    try:
        end = _explain(schema, body, start, "")
    except BodyError as error:
        return error
    return BodyError("truncated" if end > len(body) else "bad-value")


def _explain(type_: Any, body: bytes, place: int, path: str) -> int:
    what = kind(type_)
    try:
        if what == "record":
            for one in type_["fields"]:
                place = _explain(one["type"], body, place, f"{path}.{one['name']}" if path else one["name"])
            return place
        if what == "union":
            number, place = _number(body, place)
            if number & 1 or number >> 1 >= len(type_):
                raise BodyError("bad-index", path)
            return _explain(type_[number >> 1], body, place, path)
        if what in ("array", "map"):
            return _explain_blocks(type_, what, body, place, path)
        return _explain_leaf(type_, what, body, place, path)
    except IndexError:
        raise BodyError("truncated", path) from None
    except BodyError as error:
        error.path = error.path or path
        raise


def _explain_blocks(type_: Any, what: str, body: bytes, place: int, path: str) -> int:
    index = 0
    while True:
        number, place = _number(body, place)
        if not number:
            return place
        if number & 1:
            number += 1
            size, place = _number(body, place)
            if size & 1:
                raise BodyError("bad-length", path)
        if number >> 1 > len(body) - place:
            raise BodyError("truncated", path)
        for _ in range(number >> 1):
            if what == "map":
                place = _explain("string", body, place, f"{path}.*")
                place = _explain(type_["values"], body, place, f"{path}.*")
            else:
                place = _explain(type_["items"], body, place, f"{path}[{index}]")
            index += 1


def _explain_leaf(type_: Any, what: str, body: bytes, place: int, path: str) -> int:
    start = place
    if what in ("int", "long", "enum", "string", "bytes"):
        number, place = _number(body, place)
        if what == "int" and place - start > 5:
            raise BodyError("bad-number", path)
        if what == "enum" and (number & 1 or number >> 1 >= len(type_["symbols"])):
            raise BodyError("bad-index", path)
        if what in ("string", "bytes"):
            if number & 1:
                raise BodyError("bad-length", path)
            place += number >> 1
    elif what == "boolean":
        if body[place] > 1:
            raise BodyError("bad-value", path)
        place += 1
    elif what != "null":
        width = {"float": 4, "double": 8}.get(what)
        place += type_["size"] if width is None else width
    if place > len(body):
        raise BodyError("truncated", path)
    if isinstance(type_, Mapping) or what == "string":
        try:
            schemaless_reader(BytesIO(body[start:place]), parse_schema(type_), None)
        except Exception:  # noqa: BLE001 - a date out of range, half a character, no UUID: each library its own error
            raise BodyError("bad-value", path) from None
    return place


def _number(body: bytes, place: int) -> tuple[int, int]:
    first = body[place]
    return _varint(body, place + 1, first) if first > 127 else (first, place + 1)


__all__ = ["BodyCode", "BodyError", "Walker", "explain", "walker"]
