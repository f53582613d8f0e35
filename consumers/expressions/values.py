"""Values of expressions: what each becomes in a text and in JSON, what is too large, and the code of what fails.

Nothing is built before it is known to be within the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

TEXT_MAX: Final = 65_536
ITEMS_MAX: Final = 1_000
NODES_MAX: Final = 20_000
"""Values in one nested result, counted over all its levels."""


class ExpressionFailed(Exception):
    """An expression has no value for this event. ``code`` is from a closed set: missing, null, wrong_type, too_large,
    division_by_zero, out_of_range, failed. Holds nothing of the event."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __bool__(self) -> bool:
        raise ExpressionFailed("missing")


UNDEFINED: Final = _Mark("UNDEFINED")
"""There is nothing at that path (a field of a null record, the first of no items)."""
OMIT: Final = _Mark("OMIT")
"""What ``optional`` makes of null: the field is left out."""


def text(value: Any) -> str:
    """The text of one value inside a longer text."""
    kind = type(value)
    if kind is str:
        if len(value) > TEXT_MAX:
            raise ExpressionFailed("too_large")
        return value  # type: ignore[no-any-return]
    if kind is int or kind is bool:
        return str(value)
    if kind is float or kind is Decimal:
        return str(value)
    if value is None:
        raise ExpressionFailed("null")
    if isinstance(value, (datetime, date, time, UUID)):
        return str(plain(value))
    raise ExpressionFailed("wrong_type")


def plain(value: Any) -> Any:
    """The same value as JSON has it: times as ISO 8601 in UTC, decimals and UUIDs as text, bytes as hex. Bounded."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None or kind is float:
        return value
    return _plain(value, [NODES_MAX])


def _plain(value: Any, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise ExpressionFailed("too_large")
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return datetime_text(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item, budget) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, budget) for item in value]
    if isinstance(value, (bytes, bytearray)):
        if len(value) > TEXT_MAX // 2:
            raise ExpressionFailed("too_large")
        return value.hex()
    raise ExpressionFailed("wrong_type")


def datetime_text(moment: datetime) -> str:
    """ISO 8601 in UTC with ``Z``, to the second where there is no fraction; a local timestamp stays without a zone."""
    if moment.tzinfo is None:
        return moment.isoformat()
    written = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{written}Z"


def bounded(value: str) -> str:
    if len(value) > TEXT_MAX:
        raise ExpressionFailed("too_large")
    return value


def failed(error: BaseException) -> ExpressionFailed:
    """The code of whatever an expression raised; never its text, which may hold values."""
    if isinstance(error, ExpressionFailed):
        return error
    if isinstance(error, (KeyError, IndexError)):
        return ExpressionFailed("missing")
    if isinstance(error, TypeError):
        return ExpressionFailed("null_or_wrong_type")
    if isinstance(error, ZeroDivisionError):
        return ExpressionFailed("division_by_zero")
    if isinstance(error, (ArithmeticError, ValueError)):
        return ExpressionFailed("out_of_range")
    return ExpressionFailed("failed")


_LEAVES = (str, int, datetime, date, time, Decimal, UUID, bytes)


def check_result(value: Any) -> None:
    """Raise ExpressionFailed where a value is over the limits, or no connector takes it. For the fields of a body."""
    kind = type(value)
    if kind is str:
        if len(value) > TEXT_MAX:
            raise ExpressionFailed("too_large")
    elif kind is int or kind is bool or value is None:
        pass
    elif kind is float:
        if not math.isfinite(value):
            raise ExpressionFailed("out_of_range")
    elif kind is dict or kind is list:
        _check_nested(value, [NODES_MAX])
    elif not isinstance(value, _LEAVES):
        raise ExpressionFailed("wrong_type")
    elif isinstance(value, (str, bytes)) and len(value) > TEXT_MAX:
        raise ExpressionFailed("too_large")


def _check_nested(value: dict[str, Any] | list[Any], budget: list[int], depth: int = 0) -> None:
    budget[0] -= len(value)
    if len(value) > ITEMS_MAX or budget[0] < 0 or depth > 32:
        raise ExpressionFailed("too_large")
    parts: Sequence[Any]
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise ExpressionFailed("wrong_type")
        parts = list(value.values())
    else:
        parts = value
    for part in parts:
        if isinstance(part, (dict, list)):
            _check_nested(part, budget, depth + 1)
        else:
            check_result(part)
