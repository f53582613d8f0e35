"""The operators of expressions that need care: arithmetic that cannot run away, and places that may not be there."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from consumers.expressions.values import ITEMS_MAX, TEXT_MAX, UNDEFINED, ExpressionFailed, text


def add(a: Any, b: Any) -> Any:
    """``+``: numbers, texts, lists; bounded before it is done."""
    if isinstance(a, (int, float, Decimal)):
        number(b)
    elif isinstance(a, str) and isinstance(b, str):
        if len(a) + len(b) > TEXT_MAX:
            raise ExpressionFailed("too_large")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) + len(b) > ITEMS_MAX:
            raise ExpressionFailed("too_large")
    else:
        raise ExpressionFailed("null" if a is None or b is None else "wrong_type")
    return a + b


def number(value: Any) -> Any:
    """An operand of ``- * / // %``: only numbers (``'a' * 10**9`` and ``'%9999d' % 1`` are not arithmetic)."""
    kind = type(value)
    if kind is int or kind is float or kind is bool or kind is Decimal:
        return value
    raise ExpressionFailed("null" if value is None else "wrong_type")


def concatenate(*parts: Any) -> str:
    """Mixed text and ``~``."""
    texts = [text(part) for part in parts]
    if sum(map(len, texts)) > TEXT_MAX:
        raise ExpressionFailed("too_large")
    return "".join(texts)


def look_up(value: Any, steps: tuple[Any, ...]) -> Any:
    """What stands at a path, or UNDEFINED where there is nothing; for ``default``, ``optional`` and ``is``."""
    for step in steps:
        if value is None or value is UNDEFINED:
            return UNDEFINED
        if isinstance(step, str) != isinstance(value, Mapping) or not isinstance(value, (Mapping, str, list, tuple)):
            raise ExpressionFailed("wrong_type")
        try:
            value = value[step]
        except (KeyError, IndexError):
            return UNDEFINED
    return value


def item(value: Any, step: Any) -> Any:
    """``value[step]`` where the step is computed."""
    found = look_up(value, (step,))
    if found is UNDEFINED:
        raise ExpressionFailed("missing")
    return found


def is_none(value: Any) -> bool:
    """``is none`` of a place: null, or nothing there."""
    return value is None or value is UNDEFINED
