"""How an event is published, as code to copy: with its model, and by hand. Made of the contract's examples. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from schemas import avsc
from schemas.checker import kind
from schemas.contract import Contract, example
from schemas.datum import to_json

WIDTH = 100


def python_snippet(contract: Contract) -> str:
    """A program that publishes one example. Only fields that have to be given are given; the model is the one that
    ``backbone schema generate`` writes."""
    whole = avsc.resolved(contract.schema)
    used: set[str] = set()
    classes: set[str] = set()
    event = _record(whole, _needed(contract), used, classes, 4)
    module = contract.domain.replace(".", "_").lower()
    names = {"UTC", "date", "datetime", "time"} & used
    imports = [f"from datetime import {', '.join(sorted(names, key=lambda name: (name.islower(), name)))}"] * bool(
        names
    )
    imports += ["from decimal import Decimal"] * ("Decimal" in used) + ["from uuid import UUID"] * ("UUID" in used)
    lines = [
        *imports,
        *([""] if imports else []),
        "from producers import Publisher",
        f"from schemas.models.{module} import {', '.join(sorted(classes))}",
        "",
        "with Publisher.from_env() as publisher:",
        f"    event = {event}",
        f'    publisher.publish(event, source="{_source(contract)}").result(timeout=10)',
    ]
    return "\n".join(lines)


def command_snippet(contract: Contract) -> str:
    """The same on the command line."""
    data = json.dumps(to_json(_needed(contract)), ensure_ascii=False)
    return f"backbone event publish {contract.name} --data {shlex.quote(data)}"


def _source(contract: Contract) -> str:
    return contract.domain.partition(".")[0]


def _needed(contract: Contract) -> dict[str, Any]:
    """The example without the fields that have a default."""
    optional = {one["name"] for one in contract.schema["fields"] if "default" in one}
    return {name: value for name, value in example(contract).items() if name not in optional}


def _record(type_: Mapping[str, Any], value: Mapping[str, Any], used: set[str], classes: set[str], depth: int) -> str:
    name = str(type_["name"]).rpartition(".")[2]
    classes.add(name)
    types = {one["name"]: one["type"] for one in type_["fields"]}
    parts = [f"{field}={_literal(types[field], inner, used, classes, depth + 4)}" for field, inner in value.items()]
    return _call(name, parts, depth)


def _call(name: str, parts: list[str], depth: int, brackets: str = "()") -> str:
    opening, closing = brackets[0], brackets[1]
    line = f"{name}{opening}{', '.join(parts)}{closing}"
    if len(line) + depth <= WIDTH - 10 and "\n" not in line:
        return line
    inner = "".join(f"{' ' * (depth + 4)}{part},\n" for part in parts)
    return f"{name}{opening}\n{inner}{' ' * depth}{closing}"


def _literal(type_: Any, value: Any, used: set[str], classes: set[str], depth: int) -> str:
    rest, _ = avsc.without_null(type_)
    if value is None or isinstance(rest, list):
        return repr(value)
    match kind(rest):
        case "record":
            return _record(rest, value, used, classes, depth)
        case "array":
            items = [_literal(rest["items"], item, used, classes, depth + 4) for item in value]
            return _call("", items, depth, "[]")
        case "map":
            pairs = [
                f"{key!r}: {_literal(rest['values'], one, used, classes, depth + 4)}" for key, one in value.items()
            ]
            return _call("", pairs, depth, "{}")
    return _scalar(value, used)


def _scalar(value: Any, used: set[str]) -> str:
    match value:
        case datetime():
            used.add("datetime")
            parts = [str(part) for part in (value.year, value.month, value.day, value.hour, value.minute)]
            parts += [str(value.second)] * bool(value.second or value.microsecond)
            parts += [str(value.microsecond)] * bool(value.microsecond)
            if value.tzinfo is not None:
                used.add("UTC")
                parts.append("tzinfo=UTC")
            return f"datetime({', '.join(parts)})"
        case date():
            used.add("date")
            return f"date({value.year}, {value.month}, {value.day})"
        case time():
            used.add("time")
            return f"time({value.hour}, {value.minute}, {value.second}, {value.microsecond})"
        case Decimal():
            used.add("Decimal")
            return f'Decimal("{value}")'
        case UUID():
            used.add("UUID")
            return f'UUID("{value}")'
        case str():
            return json.dumps(value, ensure_ascii=False)
    return repr(value)
