"""The filter ``allowed``: a payload without what may not leave, as a function made once from the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.expressions.shapes import NESTED, Shape
from schemas.contract import Contract


def allowed_value(contract: Contract, path: str, shape: Shape, allowed: frozenset[str]) -> Callable[[Any], Any]:
    """A function that copies a value of this shape without the fields whose class is not allowed, and without fields
    that the contract does not know: their class is not known either."""
    if shape.kind == "list" and shape.item is not None:
        of_item = allowed_value(contract, path, shape.item, allowed)
        return lambda items: None if items is None else [of_item(part) for part in items]
    if shape.kind == "map" and shape.item is not None and shape.item.kind in NESTED:
        of_value = allowed_value(contract, path, shape.item, allowed)
        return lambda items: None if items is None else {str(name): of_value(part) for name, part in items.items()}
    if shape.kind != "record":
        return _itself
    chosen: list[tuple[str, Callable[[Any], Any] | None]] = []
    for name, inner in shape.fields.items():
        inner_path = f"{path}.{name}" if path else name
        declared = contract.fields.get(inner_path)
        classed = declared.personal_data if declared else None
        if classed is not None and classed != "none" and classed not in allowed:
            continue
        nested = inner.kind in NESTED
        chosen.append((name, allowed_value(contract, inner_path, inner, allowed) if nested else None))

    def only_allowed(record: Any) -> Any:
        if record is None:
            return None
        return {
            name: record[name] if function is None else function(record[name])
            for name, function in chosen
            if name in record
        }

    return only_allowed


def _itself(value: Any) -> Any:
    return value
