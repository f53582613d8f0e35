"""Values as text: for people (``shown``), for programs (``plain_json``), and safe for a terminal (``printable``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


def shown(value: Any) -> str:
    """A value for people: ``-`` for None, separators in numbers, times in UTC, lists with commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, Mapping):
        return plain_json(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(shown(item) for item in value)
    return str(value)


def counted(count: int, noun: str) -> str:
    """``1 worker``, ``2,309 workers``: for nouns that take an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def are(count: int, noun: str) -> str:
    """``1 letter is``, ``3 letters are``: with its verb."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def duration(value: timedelta) -> str:
    """``3d4h``, ``2h10m``, ``5m``, ``41s``, ``0.4s``: at most two units."""
    seconds = value.total_seconds()
    if seconds < 0:
        return f"-{duration(-value)}"
    if seconds < 10:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])


_COMMAND = re.compile(
    r"\bbackbone (?=(?:status|lag|monitor|trace|receipt|deadletter|doctor|event|topic|subscription|connection|run"
    r"|rewind|replay|reconcile|apply|undo|change|erase)\b|schema (?:register|check --registry)\b"
    r"|catalog (?:list|show|dependencies|personal-data)\b)"
)


def in_context(text: str, context: str) -> str:
    """The commands that a sentence proposes, as they have to be typed for this context: outside ``local`` with -c."""
    return text if context == "local" else _COMMAND.sub(f"backbone -c {context} ", text)


def printable(text: str, *, lines: bool = False) -> str:
    """Text that cannot move the cursor or colour a terminal: control characters of foreign data are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char in "\n\t") else char.encode("unicode_escape").decode()
        for char in text
    )


def plain_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of plain values, dates, durations (seconds), bytes (text, else hexadecimal), dataclasses and sets."""
    return json.dumps(_jsonable(value), ensure_ascii=False, indent=indent, allow_nan=False)


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and value not in (float("inf"), float("-inf")) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_jsonable(item) for item in value), key=str)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    return str(value)
