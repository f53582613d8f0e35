"""Spans of time as people write them in files: ``60s``, ``5m``, ``1h``, ``30d``, ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta

from schemas.errors import InputError

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9]{1,12})(ms|w|d|h|m|s)")
_WHOLE = re.compile(r"(?:[0-9]{1,12}(?:ms|w|d|h|m|s))+\Z")
_MAX_MS = 36_500 * 86_400_000


def parse_duration(text: object) -> timedelta:
    """The span that ``text`` says: a whole number with a unit (ms s m h d w), larger units first where there are more.

    Raises InputError for anything else, negative spans and spans over 100 years.
    """
    if not isinstance(text, str) or len(text) > 60 or not _WHOLE.match(text):
        raise InputError("a duration is a whole number with a unit, like 60s, 5m, 1h or 30d.")
    total, last = 0, _MAX_MS
    for number, unit in _PART.findall(text):
        if _UNITS[unit] >= last:
            raise InputError("in a duration of several parts the larger unit comes first, each once, like 1h30m.")
        last = _UNITS[unit]
        total += int(number) * _UNITS[unit]
    if total > _MAX_MS:
        raise InputError("a duration of more than 100 years (36500d) is not accepted.")
    return timedelta(milliseconds=total)


def format_duration(span: timedelta) -> str:
    """The shortest text that ``parse_duration`` reads as the same span, to the millisecond: ``1h30m``, ``0s``."""
    rest = round(span / timedelta(milliseconds=1))
    parts = []
    for unit, size in _UNITS.items():
        if unit == "w":  # 30d is read more easily than 4w2d
            continue
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
