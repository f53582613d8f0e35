"""A payload between worlds: made from the JSON a person typed, shown as JSON, made of a contract's examples."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from schemas import avsc
from schemas.checker import join, kind, logical, seen
from schemas.contract import Contract
from schemas.errors import InputError


def from_json(contract: Contract, data: Mapping[str, Any]) -> dict[str, Any]:
    """The payload that a JSON (or YAML) object says: times, dates, UUIDs, decimals and bytes are text there
    (ISO 8601; base64 for bytes) and become Python values. Already converted values pass.

    Raises InputError naming the field where a text cannot be understood. Everything else that does not fit (missing and
    unknown fields, constraints) is left to ``Encoder.encode`` or ``faults``.
    """
    converted = from_json_value(avsc.resolved(contract.schema), data, "")
    if not isinstance(converted, dict):
        raise InputError(f"{contract.name}: the payload must be an object with fields, not {seen(data)}.")
    return converted


def from_json_value(type_: Any, value: Any, path: str) -> Any:
    """``from_json`` for one value of a *resolved* type; ``path`` is named in the error."""
    what = kind(type_)
    if what == "union":
        rest, nullable = avsc.without_null(type_)
        if (nullable and value is None) or isinstance(rest, list):
            return value
        return from_json_value(rest, value, path)
    if what == "record" and isinstance(value, Mapping):
        types = {one["name"]: one["type"] for one in type_["fields"]}
        return {
            name: from_json_value(types[name], inner, join(path, name)) if name in types else inner
            for name, inner in value.items()
        }
    if what == "array" and isinstance(value, list | tuple):
        return [from_json_value(type_["items"], item, f"{path}[{index}]") for index, item in enumerate(value)]
    if what == "map" and isinstance(value, Mapping):
        return {key: from_json_value(type_["values"], item, f"{path}.*") for key, item in value.items()}
    name = logical(type_)
    if name == "decimal" and type(value) is int:
        return Decimal(value)
    if what in ("float", "double") and type(value) is int:
        return value
    if not isinstance(value, str):
        return value
    try:
        return _from_text(name, what, value)
    except (ValueError, OverflowError, InvalidOperation):  # OverflowError: a time that is before the year 1 in UTC
        expected = {"date": "a date like 2026-05-31", "uuid": "a UUID", "decimal": "a decimal number"}.get(name or "")
        expected = expected or ("base64" if name is None else "a time like 2026-05-01T09:30:00Z")
        raise InputError(f"field {path} must be {expected}.") from None


def _from_text(name: str | None, what: str, text: str) -> Any:
    if name is None:
        if what in ("bytes", "fixed"):
            return base64.b64decode(text, validate=True)
        return text
    if name == "date":
        return date.fromisoformat(text)
    if name == "uuid":
        return UUID(text)
    if name == "decimal":
        return Decimal(text)
    if name.startswith("time-"):
        return time.fromisoformat(text)
    moment = datetime.fromisoformat(text)
    if name.startswith("local-"):
        return moment
    return moment.astimezone(UTC) if moment.tzinfo else moment


def to_json(value: Any) -> Any:
    """A payload as JSON values: times with ``Z``, decimals and UUIDs as text, bytes in base64. ``from_json`` reads it
    back."""
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return value


def example(contract: Contract) -> dict[str, Any]:
    """A whole payload made of the contract's examples: each field's first example, else its default, else the plainest
    value of its type. The same every time; valid if the contract passes lint."""
    made: dict[str, Any] = _example(avsc.resolved(contract.schema), {})
    return made


def _example(type_: Any, one: Mapping[str, Any]) -> Any:
    if one.get("examples"):
        return from_json_value(type_, one["examples"][0], one.get("name", ""))
    what = kind(type_)
    if what == "record":
        return {field["name"]: _example(field["type"], field) for field in type_["fields"]}
    if "default" in one and one["default"] not in ([], {}, None):
        return from_json_value(type_, one["default"], one.get("name", ""))
    if what == "union":
        rest, nullable = avsc.without_null(type_)
        return None if nullable and "default" in one else _example(rest[0] if isinstance(rest, list) else rest, {})
    if what == "array":
        return [_example(type_["items"], {})]
    if what == "map":
        return {"key": _example(type_["values"], {})}
    if what == "enum":
        return type_["symbols"][0]
    plain: dict[str, Any] = {
        "string": "text", "bytes": b"", "int": 1, "long": 1, "float": 1.0, "double": 1.0, "boolean": True, "null": None,
    }  # fmt: skip
    logical_plain: dict[str, Any] = {
        "date": date(2026, 5, 1), "uuid": UUID(int=0), "decimal": Decimal(0),
        "time-millis": time(9), "time-micros": time(9),
    }  # fmt: skip
    name = logical(type_)
    if name is None:
        return bytes(type_["size"]) if what == "fixed" else plain[what]
    moment = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
    return logical_plain.get(name, moment.replace(tzinfo=None) if name.startswith("local-") else moment)
