"""An Avro schema as JSON, read with bounds: text that is broken or hostile gives a problem with its place, never a
traceback, a stall or a dead process.

``problems`` is the one walk over a schema that everything else relies on: what it accepts is not recursive, at most
``DEPTH_MAX`` deep, names every type, and has no shape that makes a decoder spin (facts.md: fastavro dies of recursion
and takes unbounded memory for arrays whose items take no bytes).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

from schemas.errors import InputError

SchemaJson: TypeAlias = Any
"""A schema as parsed JSON: a name, a list (union) or a mapping."""

PRIMITIVES: Mapping[str, int] = {
    "null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1,
}  # fmt: skip
"""Every primitive type with the fewest bytes a value of it takes."""

DEPTH_MAX = 16
FIELDS_MAX = 500
EXPANDED_MAX = 20_000
"""Fields of a schema with every named type written out where it is used."""
PRECISION_MAX = 38
TEXT_MAX = 1 << 20
NAME_MAX = 200
"""Characters of a name: paths of fields repeat them, once a level."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Problem(NamedTuple):
    """What is wrong with a schema, and where: ``path`` is a JSON pointer (``/fields/1/type``)."""

    path: str
    rule: str
    message: str


class SchemaTextError(InputError):
    """A text is no Avro schema; ``problem`` says where and why."""

    def __init__(self, problem: Problem, file: str = "") -> None:
        self.problem = problem
        rule = f" [{problem.rule}]" if file else ""
        place = " ".join(part for part in (file, problem.path) if part)
        super().__init__(f"{place}: {problem.message}{rule}" if place else problem.message)


def parse(text: str | bytes, file: str = "") -> SchemaJson:
    """The JSON of a schema's text, not looked at any further. Raises SchemaTextError; time and memory are bounded by
    ``TEXT_MAX`` bytes of text."""
    if len(text) > TEXT_MAX:
        raise SchemaTextError(Problem("", "too-large", f"a schema of more than {TEXT_MAX >> 10} kB is not read."), file)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SchemaTextError(Problem("", "not-json", f"not JSON: {error.msg} at {place}."), file) from None
    except RecursionError:
        raise SchemaTextError(Problem("", "too-deep", "the JSON is nested too deeply to be a schema."), file) from None
    except UnicodeDecodeError:
        raise SchemaTextError(Problem("", "not-json", "not UTF-8 text."), file) from None
    except ValueError as error:  # a doubled key or a constant of ours, or a number of thousands of digits
        message = str(error) if isinstance(error, _TwiceError) else "a number in it is out of range."
        raise SchemaTextError(Problem("", "not-json", message), file) from None


class _TwiceError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, count = Counter(key for key, _ in pairs).most_common(1)[0]
        assert count > 1
        raise _TwiceError(f"the key {shown(twice)} stands twice in one object; one of them would silently win.")
    return found


def _constant(name: str) -> Any:
    raise _TwiceError(f"{name} is not JSON.")


def _float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("out of range")
    return number


def shown(name: object) -> str:
    """A name from a file, quoted and short enough for a sentence."""
    text = name if isinstance(name, str) else type(name).__name__
    return repr(text if len(text) <= 60 else text[:57] + "...")


def full_name(schema: Mapping[str, Any], namespace: str = "") -> str:
    """The full name of a named type that stands in ``namespace``, by the rules of the Avro specification."""
    name = schema["name"]
    if "." in name:
        return str(name)
    space = schema.get("namespace", namespace)
    return f"{space}.{name}" if space else str(name)


def pointer(part: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return "/" + str(part).replace("~", "~0").replace("/", "~1")


class _Size(NamedTuple):
    """The fewest bytes of a value, the levels below, and the fields with all names written out."""

    least: int
    height: int
    fields: int


_UNKNOWN = _Size(1, 1, 0)


class _Walk:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.named: dict[str, _Size] = {}
        self.open: set[str] = set()
        self.fields = 0

    def say(self, path: str, rule: str, message: str) -> None:
        if len(self.problems) < 200:  # enough for a person; a hostile file has no end
            self.problems.append(Problem(path, rule, message))

    def type(self, schema: SchemaJson, path: str, namespace: str, depth: int) -> _Size:
        if depth > DEPTH_MAX:
            self.say(path, "too-deep", f"types are nested more than {DEPTH_MAX} deep; flatten the record.")
            return _UNKNOWN
        if isinstance(schema, str):
            return self.reference(schema, path, namespace, depth)
        if isinstance(schema, list):
            return self.union(schema, path, namespace, depth)
        if not isinstance(schema, dict):
            self.say(path, "not-a-type", "a type is a name, a list of types or an object.")
            return _UNKNOWN
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            return self.name(schema, kind, path, namespace, depth)
        if kind == "array" or kind == "map":
            part = "items" if kind == "array" else "values"
            if part not in schema:
                self.say(path, "not-a-type", f"an {kind} needs {shown(part)}.")
                return _UNKNOWN
            inner = self.type(schema[part], path + pointer(part), namespace, depth + 1)
            if kind == "array" and inner.least == 0:
                self.say(
                    path + "/items",
                    "zero-byte-items",
                    "items that take no bytes let a few bytes claim billions of items; give the item a field.",
                )
            return _Size(1, inner.height + 1, inner.fields)
        if kind is None:
            self.say(path, "not-a-type", "an object that is a type needs 'type'.")
            return _UNKNOWN
        size = self.type(kind, path + "/type", namespace, depth + (not isinstance(kind, str)))
        self.logical(schema, kind, path)
        return size

    def reference(self, name: str, path: str, namespace: str, depth: int) -> _Size:
        if name in PRIMITIVES:
            return _Size(PRIMITIVES[name], 1, 0)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full in self.open:
            self.say(path, "recursive", f"{shown(name)} contains itself; name the parent by its id instead.")
            return _UNKNOWN
        size = self.named.get(full)
        if size is None:
            self.say(path, "unknown-type", f"{shown(name)} is no Avro type and is not defined before here.")
            return _UNKNOWN
        if depth + size.height - 1 > DEPTH_MAX:
            self.say(path, "too-deep", f"types are nested more than {DEPTH_MAX} deep; flatten the record.")
        return size

    def union(self, branches: list[Any], path: str, namespace: str, depth: int) -> _Size:
        if not branches:
            self.say(path, "bad-union", "a union needs at least one type.")
            return _UNKNOWN
        if len(branches) > 64:
            self.say(path, "bad-union", "a union of more than 64 types is not read.")
            return _UNKNOWN
        sizes, seen = [], set()
        for index, branch in enumerate(branches):
            here = path + pointer(index)
            if isinstance(branch, list):
                self.say(here, "bad-union", "a union cannot stand directly in a union.")
                continue
            label = branch_label(branch, namespace)
            if label in seen:
                self.say(here, "bad-union", f"{shown(label)} stands twice in the union.")
            seen.add(label)
            sizes.append(self.type(branch, here, namespace, depth + 1))
        if not sizes:
            return _UNKNOWN
        least = 1 + min(size.least for size in sizes)
        return _Size(least, 1 + max(size.height for size in sizes), sum(size.fields for size in sizes))

    def name(self, schema: dict[str, Any], kind: str, path: str, namespace: str, depth: int) -> _Size:
        name, space = schema.get("name"), schema.get("namespace", namespace)
        if not isinstance(name, str) or not all(_NAME.match(part) for part in name.split(".")):
            self.say(path, "bad-name", f"a {kind} needs a 'name' of letters, digits and _.")
            return _UNKNOWN
        if not isinstance(space, str) or (space and not all(_NAME.match(part) for part in space.split("."))):
            self.say(path, "bad-name", "a 'namespace' is names joined by dots.")
            return _UNKNOWN
        full = full_name(schema, namespace)
        if len(full) > NAME_MAX:
            self.say(path, "bad-name", f"a name of more than {NAME_MAX} characters is not read.")
            return _UNKNOWN
        if name in PRIMITIVES:
            self.say(path, "bad-name", f"{shown(name)} is the name of a primitive type.")
            return _UNKNOWN
        if full in self.named or full in self.open:
            self.say(path, "duplicate-name", f"{shown(full)} is defined twice; refer to it by its name.")
            return _UNKNOWN
        if kind == "enum":
            size = self.enum(schema, path)
        elif kind == "fixed":
            size = self.fixed(schema, path)
        else:
            self.open.add(full)
            size = self.record(schema, path, full.rpartition(".")[0], depth)
            self.open.discard(full)
        self.named[full] = size
        return size

    def enum(self, schema: dict[str, Any], path: str) -> _Size:
        symbols = schema.get("symbols")
        if not isinstance(symbols, list) or not 1 <= len(symbols) <= 1000:
            self.say(path, "bad-symbols", "an enum needs 'symbols', a list of 1 to 1,000 names.")
            return _UNKNOWN
        for index, symbol in enumerate(symbols):
            if not isinstance(symbol, str) or not _NAME.match(symbol):
                self.say(f"{path}/symbols/{index}", "bad-symbols", "a symbol is a name of letters, digits and _.")
                return _UNKNOWN
        if len(set(symbols)) != len(symbols):
            self.say(f"{path}/symbols", "bad-symbols", "a symbol stands twice.")
        if "default" in schema and schema["default"] not in symbols:
            self.say(f"{path}/default", "bad-default", "the enum's default is none of its symbols.")
        return _Size(1, 1, 0)

    def fixed(self, schema: dict[str, Any], path: str) -> _Size:
        size = schema.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= TEXT_MAX:
            self.say(path, "bad-size", "a fixed needs 'size', a number of bytes.")
            return _UNKNOWN
        self.logical(schema, "fixed", path)
        return _Size(size, 1, 0)

    def record(self, schema: dict[str, Any], path: str, namespace: str, depth: int) -> _Size:
        fields = schema.get("fields")
        if not isinstance(fields, list):
            self.say(path, "not-a-type", "a record needs 'fields', a list.")
            return _UNKNOWN
        least, height, expanded, names = 0, 0, 0, set()
        for index, field in enumerate(fields):
            here = f"{path}/fields/{index}"
            self.fields += 1
            if self.fields > FIELDS_MAX * 10:
                self.say(path, "too-many-fields", f"more than {FIELDS_MAX * 10:,} fields are not read.")
                break
            if not isinstance(field, dict) or not isinstance(field.get("name"), str) or not _NAME.match(field["name"]):
                self.say(here, "bad-name", "a field is an object with a 'name' of letters, digits and _.")
                continue
            if len(field["name"]) > NAME_MAX:
                self.say(here, "bad-name", f"a name of more than {NAME_MAX} characters is not read.")
                continue
            if field["name"] in names:
                self.say(here, "duplicate-field", f"the field {shown(field['name'])} stands twice.")
            names.add(field["name"])
            if "type" not in field:
                self.say(here, "not-a-type", f"the field {shown(field['name'])} needs a 'type'.")
                continue
            size = self.type(field["type"], f"{here}/type", namespace, depth + 1)
            least, height, expanded = least + size.least, max(height, size.height), expanded + 1 + size.fields
        if expanded > EXPANDED_MAX:
            self.say(path, "too-many-fields", f"with every type written out it has more than {EXPANDED_MAX:,} fields.")
            expanded = 0
        return _Size(least, height + 1, expanded)

    def logical(self, schema: dict[str, Any], kind: SchemaJson, path: str) -> None:
        if schema.get("logicalType") != "decimal":
            return
        precision, scale = schema.get("precision"), schema.get("scale", 0)
        if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision:
            self.say(path, "bad-decimal", "a decimal needs a whole 'precision' and a 'scale' of at most that.")
        elif precision > PRECISION_MAX:
            self.say(path, "bad-decimal", f"a decimal of more than {PRECISION_MAX} digits is not read.")
        if kind == "bytes":
            self.say(
                path,
                "bytes-decimal",
                "a decimal on bytes has no bound and decodes in quadratic time; use long minor units or a fixed.",
            )


def branch_label(branch: SchemaJson, namespace: str) -> str:
    """What tells one branch of a union from another: the full name, or the primitive's name."""
    if isinstance(branch, dict):
        name = branch.get("name")
        if isinstance(name, str) and branch.get("type") in ("record", "error", "enum", "fixed"):
            return full_name(branch, namespace)
        return branch_label(branch.get("type"), namespace) if "type" in branch else ""
    if isinstance(branch, str):
        return branch if branch in PRIMITIVES or "." in branch or not namespace else f"{namespace}.{branch}"
    return ""


def problems(schema: SchemaJson) -> list[Problem]:
    """Everything that is structurally wrong with a schema, at most 200 problems, in the order of the text. Empty: every
    other function here may be called with it. ``bytes-decimal`` is legal Avro; who decodes bounds it instead."""
    walk = _Walk()
    walk.type(schema, "", "", 1)
    return walk.problems


def undecodable(schema: SchemaJson) -> list[Problem]:
    """Why data of this schema is not decoded: shapes that kill or stall a decoder, and what is no Avro at all. Empty:
    bounded to decode, whoever wrote it."""
    return [problem for problem in problems(schema) if problem.rule != "bytes-decimal"]


def resolved(schema: SchemaJson) -> SchemaJson:
    """The schema with every named type written out where it is used (shared, not copied) and names made full.
    The schema must have no structural problem."""
    return _resolve(schema, "", {})


def _resolve(schema: SchemaJson, namespace: str, named: dict[str, Any]) -> SchemaJson:
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return schema
        return named[schema if "." in schema or not namespace else f"{namespace}.{schema}"]
    if isinstance(schema, list):
        return [_resolve(branch, namespace, named) for branch in schema]
    kind = schema["type"]
    if kind in ("record", "error", "enum", "fixed"):
        full = full_name(schema, namespace)
        out = {**schema, "name": full}
        out.pop("namespace", None)
        if "fields" in schema and kind != "enum":
            inner = full.rpartition(".")[0]
            fields = schema["fields"]
            out["fields"] = [{**field, "type": _resolve(field["type"], inner, named)} for field in fields]
        named[full] = out
        return out
    if kind == "array":
        return {**schema, "items": _resolve(schema["items"], namespace, named)}
    if kind == "map":
        return {**schema, "values": _resolve(schema["values"], namespace, named)}
    inner_type = _resolve(kind, namespace, named)
    if isinstance(inner_type, dict) and not isinstance(kind, str):
        # {"type": {"type": "enum", ...}, "doc": ...}: the attributes of the wrapper win over nothing of the type
        return {**schema, **inner_type}
    return inner_type if isinstance(inner_type, dict | list) else {**schema, "type": inner_type}


def without_null(schema: SchemaJson) -> tuple[SchemaJson, bool]:
    """A resolved type and whether it may be null: ``["null", T]`` gives T; a wider union stays one."""
    if isinstance(schema, list):
        rest = [branch for branch in schema if branch != "null" and branch != {"type": "null"}]
        if len(rest) < len(schema):
            return (rest[0] if len(rest) == 1 else rest), True
    return schema, False


def label(type_: SchemaJson) -> str:
    """A resolved type in a few words: ``string or null``, ``array of billing.Line``, ``decimal(12, 2)``."""
    if isinstance(type_, list):
        rest, nullable = without_null(type_)
        if nullable and not isinstance(rest, list):
            return f"{label(rest)} or null"
        return "[" + ", ".join(label(branch) for branch in type_[:8]) + (", ...]" if len(type_) > 8 else "]")
    if not isinstance(type_, dict):
        return str(type_)
    kind = type_["type"]
    if kind in ("array", "map"):
        return f"{kind} of {label(type_['items' if kind == 'array' else 'values'])}"
    logical = type_.get("logicalType")
    if logical == "decimal":
        return f"decimal({type_.get('precision')}, {type_.get('scale', 0)})"
    if isinstance(logical, str):
        return logical
    if kind == "fixed":
        return f"{type_['name']} of {type_['size']} bytes"
    return str(type_.get("name") or kind)


_SHAPE = ("type", "name", "symbols", "size", "logicalType", "precision", "scale", "default")


def shape(schema: SchemaJson) -> SchemaJson:
    """A resolved schema without docs and attributes: equal shapes write the same bytes and read them the same way."""
    if isinstance(schema, list):
        return [shape(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if set(schema) == {"type"}:
        return shape(schema["type"])
    out = {name: schema[name] for name in _SHAPE if name in schema and schema["type"] != "record"}
    if schema["type"] in ("record", "error"):
        fields = [[one["name"], shape(one["type"]), one.get("default"), "default" in one] for one in schema["fields"]]
        out = {"type": "record", "name": schema["name"], "fields": fields}
    for part in ("items", "values"):
        if part in schema:
            out[part] = shape(schema[part])
    return out


def standalone(type_: SchemaJson) -> SchemaJson:
    """A resolved type as a schema of its own: a name that was written out twice is a reference the second time."""
    return _refer(type_, set())


def _refer(type_: SchemaJson, seen: set[str]) -> SchemaJson:
    if isinstance(type_, list):
        return [_refer(branch, seen) for branch in type_]
    if not isinstance(type_, dict):
        return type_
    if "name" in type_ and type_["type"] in ("record", "error", "enum", "fixed"):
        if type_["name"] in seen:
            return type_["name"]
        seen.add(type_["name"])
    out = dict(type_)
    if "fields" in out:
        out["fields"] = [{**one, "type": _refer(one["type"], seen)} for one in out["fields"]]
    for part in ("items", "values"):
        if part in out:
            out[part] = _refer(out[part], seen)
    return out
