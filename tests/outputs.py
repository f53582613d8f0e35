"""The JSON documents of commands against their schemas in ``ops/outputs``: each that a test prints is checked.

The schemas are the contract that programs rely on, so nothing that stands in none is printed. Whoever adds a command or
a field has a test's real output write it down, and looks at what was written:
``BACKBONE_LEARN_OUTPUTS=1 make test ARGS=FILE``; a new file wants its ``title``. Learning only widens.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

FOLDER = ROOT / "ops" / "outputs"
SCHEMA = "https://json-schema.org/draft/2020-12/schema"
FREE = frozenset({
    "after", "before", "body", "calls", "data", "dependency", "effects", "example", "examples", "headers", "now",
    "payload", "rows", "settings", "value",
})  # fmt: skip
"""Fields whose content is not ours to promise: payloads, what a kind of change notes, settings of connectors."""
MAPS = frozenset({
    "by_outcome", "config", "constraints", "envelope", "hand_over", "kafka", "last_by_partition", "left_out",
    "not_compared", "outcomes", "producers", "versions",
})  # fmt: skip
"""Objects whose keys are names of the project or of the cluster."""
FOREIGN = frozenset({"backbone.catalog.asyncapi/v1"})
"""Documents of a form that others have written."""
UNSEEN = "null in every test"
OF_TESTS = frozenset({"backbone.test/v1"})
_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def file_of(name: str) -> Path:
    """``backbone.lag/v1`` stands in ``lag.json``."""
    return FOLDER / f"{name.removeprefix('backbone.').partition('/')[0]}.json"


def learned(schema: Mapping[str, Any] | None, value: Any, name: str = "") -> dict[str, Any]:
    """The schema, made wide enough for the value. None: nothing is known yet. Pure."""
    known = dict(schema or {})
    if name in FREE or known.get("description") == "free":
        return {"description": "free"}
    types = {"null"} if known.pop("description", "") == UNSEEN else set(_types(known))
    if isinstance(value, Mapping):
        types.add("object")
        before = known.get("properties", {})
        if name in MAPS:
            inner: dict[str, Any] | None = known.get("additionalProperties")
            for one in value.values():
                inner = learned(inner, one)
            known["additionalProperties"] = inner or {}
        else:
            known["properties"] = before | {key: learned(before.get(key), one, key) for key, one in value.items()}
            required = set(value) if "required" not in known else set(known["required"]) & set(value)
            known["required"] = sorted(required)
    elif isinstance(value, list):
        types.add("array")
        inner = known.get("items")
        for one in value:
            inner = learned(inner, one)
        known["items"] = inner or {}
    else:
        # what is not known is null, and a count may be a share: neither is a promise of one test's output
        types |= {_NAMES[type(value)], "null"}
    if "number" in types:
        types.discard("integer")
    if types == {"null"}:  # nothing is known of it yet
        return {"description": UNSEEN}
    known["type"] = _written(types)
    return known


def _types(schema: Mapping[str, Any]) -> list[str]:
    found = schema.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def _written(types: set[str]) -> str | list[str]:
    return next(iter(types)) if len(types) == 1 else sorted(types)


def schema_of(name: str) -> dict[str, Any] | None:
    """None where there is no file."""
    try:
        found: dict[str, Any] = json.loads(file_of(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def learn(name: str, data: Any) -> None:
    """Widen the file of a schema, or begin it; one test process after the other."""
    FOLDER.mkdir(exist_ok=True)
    lock = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _widen(name, data)
    finally:
        os.close(lock)


def _widen(name: str, data: Any) -> None:
    before = schema_of(name) or {"$schema": SCHEMA, "$id": name, "title": ""}
    known = {key: one for key, one in before.items() if key not in ("$schema", "$id", "title")}
    after = {key: before[key] for key in ("$schema", "$id", "title")}
    after |= {"description": "free"} if name in FOREIGN else learned(known or None, data)
    if after != before:
        file_of(name).write_text(json.dumps(after, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@cache
def _validator(name: str) -> Any:
    import jsonschema

    schema = schema_of(name)
    assert schema is not None, f"{name} has no schema: {file_of(name).relative_to(ROOT)}. {__doc__}"
    return jsonschema.Draft202012Validator(closed(schema))


def closed(schema: Any) -> Any:
    """The schema as a test takes it: fields that it does not name are errors. For programs they are news: within
    ``v1`` fields are added."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(one) for key, one in schema.items()}
    if "properties" in schema and "additionalProperties" not in schema and isinstance(schema.get("required"), list):
        found["additionalProperties"] = False
    return found


def seen(name: str, data: Any, *, is_row: bool) -> None:
    """A document that a command has printed (``is_row``: a line of JSON lines): checked, or learned from. Those of
    tests of the screen itself are named ``backbone.test/v1`` and promise nothing."""
    if name in OF_TESTS:
        return
    schema = schema_of(name)
    document = [data] if is_row and schema is not None and schema.get("type") == "array" else data
    if os.environ.get("BACKBONE_LEARN_OUTPUTS"):
        learn(name, document)
    else:
        check(name, document)


def check(name: str, data: Any) -> None:
    """Raises AssertionError where a document is not what its schema says, with the place."""
    problem = next(iter(_validator(name).iter_errors(data)), None)
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path)
        raise AssertionError(f"{name} at '{place}': {problem.message[:300]}. {__doc__}")
