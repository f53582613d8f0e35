"""How schemas are changed in real life, and in ways that nobody should: seeded, so that a run can be run again.

Every mutation takes a schema and a source of chance and answers a changed copy, or None where it does not apply.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from schemas import avsc
from schemas.lint import lint

Mutation = Callable[[Any, Random], Any]

_PROMOTED = {"int": ["long", "float", "double"], "long": ["float", "double"], "float": ["double"]}
_PLAIN = ["boolean", "int", "long", "float", "double", "bytes", "string"]
_DEFAULTS: dict[str, Any] = {
    "boolean": False, "int": 0, "long": 0, "float": 0.5, "double": 0.5, "bytes": "", "string": "x",
}  # fmt: skip
_TIMES = [
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "int", "logicalType": "date"},
    {"type": "string", "logicalType": "uuid"},
]


def schema(space: str, chance: Random) -> dict[str, Any]:
    """A record of a handful of fields of every shape."""
    count = chance.randint(3, 7)
    fields = [_field(f"f{number}", chance, number) for number in range(count)]
    return {"type": "record", "name": "Thing", "namespace": space, "fields": fields}


def evolved(old: Any, chance: Random, steps: int) -> tuple[Any, list[str]]:
    """``old`` after so many mutations, and their names. What is no schema any more is not answered."""
    names: list[str] = []
    now = old
    while len(names) < steps:
        mutation = chance.choice(MUTATIONS)
        changed = mutation(copy.deepcopy(now), chance)
        if changed is not None and _is_schema(changed):
            now = changed
            names.append(mutation.__name__)
    return now, names


def _is_schema(changed: Any) -> bool:
    return not avsc.problems(changed) and all(one.rule != "bad-default" for one in lint(changed))


def _field(name: str, chance: Random, number: int) -> dict[str, Any]:
    type_ = _type(chance, number)
    field = {"name": name, "type": type_}
    if type_ in _PLAIN and chance.random() < 0.4:
        field["default"] = _DEFAULTS[str(type_)]
    if isinstance(type_, list) and type_[0] == "null" and chance.random() < 0.7:
        field["default"] = None
    return field


def _type(chance: Random, number: int, depth: int = 0) -> Any:
    kinds = ["plain", "plain", "time", "enum", "fixed", "decimal", "null", "union"]
    kinds += ["record", "array", "map", "deep"] if depth < 2 else []
    what = chance.choice(kinds)
    match what:
        case "plain":
            return chance.choice(_PLAIN)
        case "time":
            return dict(chance.choice(_TIMES))
        case "enum":
            type_: dict[str, Any] = {"type": "enum", "name": f"Enum{number}_{depth}", "symbols": ["A", "B", "C"]}
            return type_ | ({"default": "A"} if chance.random() < 0.5 else {})
        case "fixed":
            return {"type": "fixed", "name": f"Fixed{number}_{depth}", "size": 4}
        case "decimal":
            named = {"type": "fixed", "name": f"Money{number}_{depth}", "size": 8}
            return {**named, "logicalType": "decimal", "precision": 12, "scale": 2}
        case "null":
            rest = chance.choice([*_PLAIN, _type(chance, number, depth + 1)])
            return ["null", rest] if not isinstance(rest, list) else rest
        case "union":
            return ["null", "string", chance.choice(["int", "long"])][chance.randint(0, 1) :]
        case "array" | "deep":
            return {"type": "array", "items": _type(chance, number, depth + 1)}
        case "map":
            return {"type": "map", "values": _type(chance, number, depth + 1)}
        case _:
            inner = [_field(f"g{place}", chance, number * 10 + place) for place in range(2)]
            for one in inner:  # one level is enough; names stay different
                one["type"] = chance.choice(_PLAIN)
                one.pop("default", None)
            return {"type": "record", "name": f"Part{number}_{depth}", "fields": inner}


def _places(type_: Any) -> Iterator[tuple[Any, Any]]:
    """Every place where a type stands, as the container and its key."""
    if isinstance(type_, list):
        for index, branch in enumerate(type_):
            yield type_, index
            yield from _places(branch)
    elif isinstance(type_, dict):
        for part in ("items", "values"):
            if part in type_:
                yield type_, part
                yield from _places(type_[part])
        for one in type_.get("fields", ()):
            yield one, "type"
            yield from _places(one["type"])


def _records(type_: Any) -> list[dict[str, Any]]:
    inner = [place[key] for place, key in _places(type_)]
    return [one for one in (type_, *inner) if isinstance(one, dict) and one.get("type") == "record"]


def _pick(schema_: Any, chance: Random, fits: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    found = [(place, key) for place, key in _places(schema_) if fits(place[key])]
    return chance.choice(found) if found else None


def _name(chance: Random) -> str:
    return f"n{chance.randint(0, 10**9)}"


def adds_a_field_with_a_default(schema_: Any, chance: Random) -> Any:
    type_ = chance.choice(_PLAIN)
    record = chance.choice(_records(schema_))
    record["fields"].insert(
        chance.randint(0, len(record["fields"])), {"name": _name(chance), "type": type_, "default": _DEFAULTS[type_]}
    )
    return schema_


def adds_an_optional_field(schema_: Any, chance: Random) -> Any:
    chance.choice(_records(schema_))["fields"].append(
        {"name": _name(chance), "type": ["null", chance.choice(_PLAIN)], "default": None}
    )
    return schema_


def adds_a_required_field(schema_: Any, chance: Random) -> Any:
    chance.choice(_records(schema_))["fields"].append({"name": _name(chance), "type": chance.choice(_PLAIN)})
    return schema_


def removes_a_field(schema_: Any, chance: Random) -> Any:
    record = chance.choice(_records(schema_))
    if len(record["fields"]) < 2:
        return None
    record["fields"].pop(chance.randrange(len(record["fields"])))
    return schema_


def reorders_fields(schema_: Any, chance: Random) -> Any:
    chance.shuffle(chance.choice(_records(schema_))["fields"])
    return schema_


def rewrites_a_doc(schema_: Any, chance: Random) -> Any:
    chance.choice(_records(schema_))["doc"] = _name(chance)
    return schema_


def renames_a_field(schema_: Any, chance: Random) -> Any:
    chance.choice(chance.choice(_records(schema_))["fields"])["name"] = _name(chance)
    return schema_


def renames_a_field_with_an_alias(schema_: Any, chance: Random) -> Any:
    one = chance.choice(chance.choice(_records(schema_))["fields"])
    one["aliases"] = [*one.get("aliases", []), one["name"]]
    one["name"] = _name(chance)
    return schema_


def changes_a_default(schema_: Any, chance: Random) -> Any:
    fields = [one for record in _records(schema_) for one in record["fields"] if one["type"] in _PLAIN]
    if not fields:
        return None
    one = chance.choice(fields)
    if "default" in one:
        del one["default"]
    else:
        one["default"] = _DEFAULTS[one["type"]]
    return schema_


def promotes_a_number(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, str) and type_ in _PROMOTED)
    if place is None:
        return None
    container, key = place
    container[key] = chance.choice(_PROMOTED[container[key]])
    _without_default(container)
    return schema_


def demotes_a_number(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: type_ in ("long", "double", "float"))
    if place is None:
        return None
    container, key = place
    container[key] = "int"
    _without_default(container)
    return schema_


def swaps_text_and_bytes(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: type_ in ("string", "bytes"))
    if place is None:
        return None
    container, key = place
    container[key] = "bytes" if container[key] == "string" else "string"
    return schema_


def takes_another_type(schema_: Any, chance: Random) -> Any:
    container, key = chance.choice(list(_places(schema_)))
    container[key] = chance.choice(_PLAIN)
    _without_default(container)
    return schema_


def may_be_null(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: not isinstance(type_, list) and type_ != "null")
    if place is None or isinstance(place[0], list):
        return None
    container, key = place
    container[key] = ["null", container[key]] if chance.random() < 0.7 else [container[key], "null"]
    if "name" in container and "fields" not in container:
        container.pop("default", None)
        if chance.random() < 0.5 and container[key][0] == "null":
            container["default"] = None
    return schema_


def is_never_null(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, list) and len(type_) == 2 and "null" in type_)
    if place is None:
        return None
    container, key = place
    container[key] = next(branch for branch in container[key] if branch != "null")
    _without_default(container)
    return schema_


def widens_a_union(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, list))
    if place is None:
        return None
    container, key = place
    container[key].append(chance.choice(["boolean", "double", "bytes"]))
    return schema_


def narrows_a_union(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, list) and len(type_) > 2)
    if place is None:
        return None
    container, key = place
    container[key].pop()
    return schema_


def adds_a_symbol(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, _is("enum"))
    if place is None:
        return None
    place[0][place[1]]["symbols"].append(f"S{_name(chance)}")
    return schema_


def removes_a_symbol(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, _is("enum"))
    if place is None or len(place[0][place[1]]["symbols"]) < 2:
        return None
    place[0][place[1]]["symbols"].pop()
    return schema_


def gives_an_enum_a_default_or_takes_it(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, _is("enum"))
    if place is None:
        return None
    enum = place[0][place[1]]
    if enum.pop("default", None) is None:
        enum["default"] = enum["symbols"][0]
    return schema_


def resizes_a_fixed(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, _is("fixed"))
    if place is None:
        return None
    place[0][place[1]]["size"] += 4
    return schema_


def renames_a_type(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, dict) and "name" in type_)
    if place is None:
        return None
    named = place[0][place[1]]
    if chance.random() < 0.3:
        named["aliases"] = [named["name"]]
    named["name"] = f"N{chance.randint(0, 10**9)}"
    return schema_


def moves_a_type_to_another_namespace(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, dict) and "name" in type_)
    if place is None:
        return None
    place[0][place[1]]["namespace"] = "elsewhere"
    return schema_


def gives_another_meaning(schema_: Any, chance: Random) -> Any:
    place = _pick(schema_, chance, lambda type_: isinstance(type_, dict) and "logicalType" in type_)
    if place is None:
        return None
    type_ = place[0][place[1]]
    if type_["logicalType"] == "decimal":
        type_["scale"] = 3 if type_["scale"] == 2 else 2
    elif type_["logicalType"] in ("timestamp-millis", "timestamp-micros") and chance.random() < 0.7:
        type_["logicalType"] = {"timestamp-millis": "timestamp-micros"}.get(type_["logicalType"], "timestamp-millis")
    else:
        place[0][place[1]] = type_["type"]
    return schema_


def _is(kind: str) -> Callable[[Any], bool]:
    return lambda type_: isinstance(type_, dict) and type_.get("type") == kind


def _without_default(container: Any) -> None:
    if isinstance(container, dict):
        container.pop("default", None)


MUTATIONS: list[Mutation] = [
    adds_a_field_with_a_default, adds_an_optional_field, adds_a_required_field, removes_a_field, reorders_fields,
    rewrites_a_doc, renames_a_field, renames_a_field_with_an_alias, changes_a_default, promotes_a_number,
    demotes_a_number, swaps_text_and_bytes, takes_another_type, may_be_null, is_never_null, widens_a_union,
    narrows_a_union, adds_a_symbol, removes_a_symbol, gives_an_enum_a_default_or_takes_it, resizes_a_fixed,
    renames_a_type, moves_a_type_to_another_namespace, gives_another_meaning,
]  # fmt: skip
