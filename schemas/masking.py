"""Payloads as a person may see them: every value whose field has a personal-data class is replaced by its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas import avsc
from schemas.contract import Contract

UNKNOWN = "‹unknown›"
"""Stands for the value of a field that no contract describes: it may be anything."""


def mask(contract: Contract | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` (decoded, or JSON of the same shape) with ``‹email›`` in place of an e-mail address, and so on.

    Null stays null. A field that the contract does not know (of a foreign or newer writer), and without a contract
    every field, becomes ``‹unknown›``: deny by default. Keys of maps are data too: a map whose own field has a class
    is replaced whole, and so is everything else below a classed field. Pure; ``data`` is not touched.
    """
    if contract is None:
        return {name: None if value is None else UNKNOWN for name, value in data.items()}
    fields = contract.fields
    return {
        name: _masked(fields[name].type, fields[name].personal_data, value) if name in fields else UNKNOWN
        for name, value in data.items()
    }


def masked_fields(contract: Contract) -> dict[str, str]:
    """The class of every field that ``mask`` replaces, by path."""
    return {
        path: field.personal_data
        for path, field in contract.fields.items()
        if field.personal_data is not None and field.personal_data != "none"
    }


def _masked(type_: Any, personal_data: Any, value: Any) -> Any:
    if value is None:
        return None
    if personal_data is not None and personal_data != "none":
        return f"‹{personal_data}›"
    return _below(type_, value)


def _below(type_: Any, value: Any) -> Any:
    """The value of a field that has no class itself: records by their fields, arrays and maps by their items. What
    does not have its type's shape, and a structure in a union of several types, is not shown."""
    if value is None:
        return None
    type_, _ = avsc.without_null(type_)
    kind = type_["type"] if isinstance(type_, Mapping) else type_
    if kind == "record" and isinstance(value, Mapping):
        known = {one["name"]: one for one in type_["fields"]}
        return {
            name: _masked(known[name]["type"], known[name].get("personal_data"), item) if name in known else UNKNOWN
            for name, item in value.items()
        }
    if kind == "array" and isinstance(value, list | tuple):
        return [_below(type_["items"], item) for item in value]
    if kind == "map" and isinstance(value, Mapping):
        return {name: _below(type_["values"], item) for name, item in value.items()}
    return UNKNOWN if isinstance(value, Mapping | list | tuple) else value
