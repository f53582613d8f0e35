"""Whether data written with one schema can be read with another, and if not, which field stands in the way.

Schemas resolve as the Avro specification has it ("Schema Resolution"); the Apache library and a real registry are the
oracles of the tests. On top of it, what the specification leaves to chance is refused: a changed meaning of the same
bytes (``timestamp-millis`` read as ``timestamp-micros``, another scale of a decimal). Bounded in time whatever the
schemas are, which the Apache library is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from schemas import avsc
from schemas.avsc import label, shown
from schemas.checker import kind
from schemas.errors import InputError

MODES = (
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE",
)  # fmt: skip
DEFAULT_MODE = "FULL_TRANSITIVE"
REASONS_MAX = 200
"""So many are told of one pair: enough for a person."""


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
        found = avsc.undecodable(schema)
        if found:
            raise InputError(f"not a schema that can be compared: {found[0].path} {found[0].message}")
        self.resolved = avsc.resolved(schema)

    @cached_property
    def shape(self) -> Any:
        return avsc.shape(self.resolved)


def _check(reader: _Side, writer: _Side) -> list[Incompatibility]:
    if reader.shape == writer.shape:
        return []  # docs and attributes are all that differs
    reasons = list(islice(_meanings(reader.resolved, writer.resolved, ""), REASONS_MAX))
    if not _resolves(reader.resolved, writer.resolved, {}):
        reasons += list(islice(_reasons(reader.resolved, writer.resolved, ""), REASONS_MAX)) or [
            Incompatibility(field="", kind="type", message="what was written cannot be read")
        ]
    return reasons


_PROMOTIONS = frozenset({
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
})  # fmt: skip
"""Which other type may be read: (written, read)."""


def _resolves(reader: Any, writer: Any, known: dict[tuple[int, int], bool]) -> bool:
    """Whether everything written with one resolved type can be read with another (Avro specification, "Schema
    Resolution"; logical types are left out of it). ``known`` keeps the answers for records, which repeat."""
    if isinstance(writer, list):
        return all(_resolves(reader, branch, known) for branch in writer)
    if isinstance(reader, list):
        return any(_resolves(branch, writer, known) for branch in reader)
    what, written = kind(reader), kind(writer)
    if what != written:
        return (written, what) in _PROMOTIONS
    match what:
        case "array":
            return _resolves(reader["items"], writer["items"], known)
        case "map":
            return _resolves(reader["values"], writer["values"], known)
        case "fixed":
            return _is_named(reader, writer) and reader["size"] == writer["size"]
        case "enum":
            return _is_named(reader, writer) and (
                "default" in reader or set(writer["symbols"]) <= set(reader["symbols"])
            )
        case "record":
            pair = (id(reader), id(writer))
            if pair not in known:
                known[pair] = _is_named(reader, writer) and _record_resolves(reader, writer, known)
            return known[pair]
    return True


def _record_resolves(reader: Mapping[str, Any], writer: Mapping[str, Any], known: dict[tuple[int, int], bool]) -> bool:
    written = {one["name"]: one for one in writer["fields"]}
    for one in reader["fields"]:
        match = next((written[name] for name in _names(one) if name in written), None)
        if "default" not in one if match is None else not _resolves(one["type"], match["type"], known):
            return False
    return True


def _names(field: Mapping[str, Any]) -> list[str]:
    """What a field may have been called, by its name first."""
    aliases = field.get("aliases")
    return [field["name"], *(one for one in (aliases if isinstance(aliases, list) else ()) if isinstance(one, str))]


def _is_named(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> bool:
    """Whether a named type is the one that was written: by its last name, as every library has it, or by an alias,
    which is relative to the namespace of the name it stands beside."""
    if _last(reader["name"]) == _last(writer["name"]):
        return True
    aliases, space = reader.get("aliases"), reader["name"].rpartition(".")[0]
    full = (f"{space}.{one}" if space and "." not in one else one for one in aliases or () if isinstance(one, str))
    return isinstance(aliases, list) and writer["name"] in full


def _reasons(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    """The places where two resolved types do not resolve: goes down as long as both sides have the same shape."""
    if reader is writer or reader == writer:
        return
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
        if (
            kinds == ("fixed", "fixed")
            and _is_named(reader_rest, writer_rest)
            and reader_rest["size"] != writer_rest["size"]
        ):
            sizes = f"{writer_rest['size']} bytes were written, {reader_rest['size']} are read"
            yield Incompatibility(field=path, kind="size", message=sizes)
            return
    if not _resolves(reader, writer, {}):
        yield Incompatibility(
            field=path,
            kind="union" if isinstance(reader, list) or isinstance(writer, list) else "type",
            message=f"{label(writer)} was written and cannot be read as {label(reader)}",
        )


def _record_reasons(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> Iterator[Incompatibility]:
    if not _is_named(reader, writer):
        message = f"the record is {reader['name']} here and {writer['name']} in what was written"
        yield Incompatibility(field=path, kind="name", message=message)
    written = {one["name"]: one for one in writer["fields"]}
    for one in reader["fields"]:
        here = f"{path}.{one['name']}" if path else one["name"]
        match = next((written[name] for name in _names(one) if name in written), None)
        if match is not None:
            yield from _reasons(one["type"], match["type"], here)
        elif "default" not in one:
            message = "it is not in what was written and has no default; give it a default"
            yield Incompatibility(field=here, kind="missing-default", message=message)


def _enum_reasons(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> Iterator[Incompatibility]:
    if not _is_named(reader, writer):
        message = f"the enum is {reader['name']} here and {writer['name']} in what was written"
        yield Incompatibility(field=path, kind="name", message=message)
    known = set(reader["symbols"])
    extra = [symbol for symbol in writer["symbols"] if symbol not in known]
    if extra and "default" not in reader:
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
