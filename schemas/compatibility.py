"""Whether data written with one schema can be read with another, and if not, which field stands in the way.

Whether two schemas resolve is the Apache avro library's judgement (Avro specification, "Schema Resolution"); which
versions are compared (the mode) and the reasons by field are ours. On top of it, what the specification leaves to
chance is refused: a changed meaning of the same bytes (``timestamp-millis`` read as ``timestamp-micros``, another
scale of a decimal).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from schemas import avsc
from schemas.avsc import label, shown
from schemas.errors import InputError

MODES = (
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE",
)  # fmt: skip
DEFAULT_MODE = "FULL_TRANSITIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incompatibility:
    """One reason. ``field`` is the dotted path (empty: the record itself); ``kind`` is from a closed set;
    ``direction``: ``backward`` when the new schema cannot read old data, ``forward`` when the old one cannot read new
    data; ``against`` is the index of the older schema it was compared with."""

    field: str
    kind: Literal["name", "missing-default", "type", "symbols", "size", "union", "meaning"]
    message: str
    direction: Literal["backward", "forward"] = "backward"
    against: int = 0

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def compatible(new: Any, olds: Sequence[Any], mode: str) -> list[Incompatibility]:
    """Why ``new`` may not follow ``olds`` (oldest first) under ``mode``; empty: it may. Schemas are parsed JSON.

    Without ``_TRANSITIVE`` only the newest of ``olds`` is compared. Raises InputError for an unknown mode or a schema
    that is none.
    """
    if mode not in MODES:
        raise InputError(f"the compatibility mode is one of {', '.join(MODES)}, not {shown(mode)}.")
    if mode == "NONE" or not olds:
        return []
    first = 0 if mode.endswith("_TRANSITIVE") else len(olds) - 1
    now = _Side(new)
    found: list[Incompatibility] = []
    for index in range(first, len(olds)):
        then = _Side(olds[index])
        if mode.startswith(("BACKWARD", "FULL")):
            found += [replace(one, against=index) for one in _check(now, then)]
        if mode.startswith(("FORWARD", "FULL")):
            found += [replace(one, direction="forward", against=index) for one in _check(then, now)]
    return found


def check(reader: Any, writer: Any) -> list[Incompatibility]:
    """Why data written with ``writer`` cannot be read with ``reader``; empty: it can. Schemas are parsed JSON.

    Raises InputError for a schema that is none.
    """
    return _check(_Side(reader), _Side(writer))


class _Side:
    """One schema of a comparison, looked at once however often it is compared. Raises InputError for what is none."""

    def __init__(self, schema: Any) -> None:
        found = [problem for problem in avsc.problems(schema) if problem.rule != "bytes-decimal"]
        if found:
            raise InputError(f"not a schema that can be compared: {found[0].path} {found[0].message}")
        self.schema = _with_full_aliases(schema, "")
        self.resolved = avsc.resolved(self.schema)

    @cached_property
    def shape(self) -> Any:
        return avsc.shape(self.resolved)

    @cached_property
    def parsed(self) -> Any:
        """As the Apache library has it."""
        return _parsed(self.schema)


def _with_full_aliases(schema: Any, namespace: str) -> Any:
    """An alias of a type is relative to the namespace of its name (Avro specification, "Aliases"); the library takes it
    by its word."""
    if isinstance(schema, list):
        return [_with_full_aliases(branch, namespace) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    kind = schema["type"]
    if kind in ("record", "error", "enum", "fixed"):
        space = avsc.full_name(schema, namespace).rpartition(".")[0]
        aliases = schema.get("aliases")
        if isinstance(aliases, list) and space:
            out["aliases"] = [f"{space}.{one}" if isinstance(one, str) and "." not in one else one for one in aliases]
        if "fields" in schema and kind != "enum":
            out["fields"] = [{**one, "type": _with_full_aliases(one["type"], space)} for one in schema["fields"]]
        return out
    for part in ("items", "values"):
        if part in schema:
            out[part] = _with_full_aliases(schema[part], namespace)
    if not isinstance(kind, str):
        out["type"] = _with_full_aliases(kind, namespace)
    return out


def _check(reader: _Side, writer: _Side) -> list[Incompatibility]:
    if reader.shape == writer.shape:
        return []  # docs and attributes are all that differs
    reasons = list(_meanings(reader.resolved, writer.resolved, ""))
    whole = _judge(reader.parsed, writer.parsed)
    if whole:
        reasons += list(_reasons(reader.resolved, writer.resolved, "")) or [
            Incompatibility(field="", kind="type", message=whole)
        ]
    return reasons


def _parsed(schema: Any) -> Any:
    from avro.errors import AvroException
    from avro.schema import parse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a logical type on a wrong carrier is ignored, as the specification asks
            # validate_enum_symbols and names stay on: what it accepts, other readers accept
            return parse(json.dumps(schema))
    except AvroException:
        raise InputError("not a schema that the Avro library reads.") from None


def _judge(reader: Any, writer: Any) -> str:
    """The Apache library's judgement: empty if it resolves, else its words in one line."""
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

    result = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)  # type: ignore[no-untyped-call]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    return "; ".join(sorted(result.messages)) or "the schemas do not resolve"


def _reasons(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    """The places where two resolved types do not resolve: goes down as long as both sides have the same shape, then
    asks the library about the pair."""
    (reader_rest, reader_null), (writer_rest, writer_null) = avsc.without_null(reader), avsc.without_null(writer)
    if writer_null and not reader_null and reader != "null":
        yield Incompatibility(field=path, kind="union", message="null was allowed and cannot be read any more")
        yield from _reasons(reader, writer_rest, path)
        return
    if isinstance(reader_rest, Mapping) and isinstance(writer_rest, Mapping):
        kinds = (reader_rest["type"], writer_rest["type"])
        if kinds == ("record", "record"):
            yield from _record_reasons(reader_rest, writer_rest, path)
            return
        if kinds in (("array", "array"), ("map", "map")):
            part = "items" if kinds[0] == "array" else "values"
            yield from _reasons(reader_rest[part], writer_rest[part], path if part == "items" else f"{path}.*")
            return
        if kinds == ("enum", "enum"):
            yield from _enum_reasons(reader_rest, writer_rest, path)
            return
        if kinds == ("fixed", "fixed") and reader_rest["size"] != writer_rest["size"]:
            sizes = f"{writer_rest['size']} bytes were written, {reader_rest['size']} are read"
            yield Incompatibility(field=path, kind="size", message=sizes)
            return
    if _judge(_parsed(avsc.standalone(reader)), _parsed(avsc.standalone(writer))):
        kind: Literal["union", "type"] = "union" if isinstance(reader, list) or isinstance(writer, list) else "type"
        yield Incompatibility(
            field=path, kind=kind, message=f"{label(writer)} was written and cannot be read as {label(reader)}"
        )


def _record_reasons(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> Iterator[Incompatibility]:
    if _last(reader["name"]) != _last(writer["name"]) and writer["name"] not in reader.get("aliases", ()):
        message = f"the record is {reader['name']} here and {writer['name']} in what was written"
        yield Incompatibility(field=path, kind="name", message=message)
    written = {one["name"]: one for one in writer["fields"]}
    for one in reader["fields"]:
        here = f"{path}.{one['name']}" if path else one["name"]
        names = [one["name"], *one.get("aliases", ())]
        match = next((written[name] for name in names if name in written), None)
        if match is not None:
            yield from _reasons(one["type"], match["type"], here)
        elif "default" not in one:
            message = "it is not in what was written and has no default; give it a default"
            yield Incompatibility(field=here, kind="missing-default", message=message)


def _enum_reasons(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> Iterator[Incompatibility]:
    if _last(reader["name"]) != _last(writer["name"]) and writer["name"] not in reader.get("aliases", ()):
        message = f"the enum is {reader['name']} here and {writer['name']} in what was written"
        yield Incompatibility(field=path, kind="name", message=message)
    extra = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if extra and reader.get("default") not in reader["symbols"]:
        some = ", ".join(extra[:5]) + (" ..." if len(extra) > 5 else "")
        message = f"the symbols {some} may have been written and are unknown here; give the enum a default"
        yield Incompatibility(field=path, kind="symbols", message=message)


def _meanings(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    """Same bytes, another meaning: what resolves by the letter and would be read wrong in silence."""
    reader, _ = avsc.without_null(reader)
    writer, _ = avsc.without_null(writer)
    if not isinstance(reader, Mapping) and not isinstance(writer, Mapping):
        return
    before, now = _meaning(writer), _meaning(reader)
    if before != now and before is not None and now is not None:
        yield Incompatibility(field=path, kind="meaning", message=f"it was written as {before} and is read as {now}")
    if not isinstance(reader, Mapping) or not isinstance(writer, Mapping) or reader["type"] != writer["type"]:
        return
    if reader["type"] == "array":
        yield from _meanings(reader["items"], writer["items"], path)
    elif reader["type"] == "map":
        yield from _meanings(reader["values"], writer["values"], f"{path}.*")
    elif reader["type"] == "record":
        written = {one["name"]: one for one in writer["fields"]}
        for one in reader["fields"]:
            if one["name"] in written:
                here = f"{path}.{one['name']}" if path else one["name"]
                yield from _meanings(one["type"], written[one["name"]]["type"], here)


_PLAIN = {"int": "a plain number", "long": "a plain number", "bytes": "plain bytes"}


def _meaning(type_: Any) -> str | None:
    """What a number or bytes stand for; a plain number is a meaning of its own beside times and decimals."""
    if isinstance(type_, str):
        return _PLAIN.get(type_)
    if not isinstance(type_, Mapping):
        return None
    name = type_.get("logicalType")
    if name == "decimal":
        return f"decimal({type_.get('precision')}, {type_.get('scale', 0)})"
    if isinstance(name, str) and name != "uuid":
        return name
    return _PLAIN.get(type_["type"])


def _last(name: str) -> str:
    return name.rpartition(".")[2]
