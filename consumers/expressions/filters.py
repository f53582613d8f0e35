"""The filters of expressions: what each does to a value. Pure and bounded; what is known of them: filter_table.py.

Each behaves as its namesake in Jinja2, but for null: a filter that needs a text or a number refuses null (Jinja2 would
write ``None`` into it), and ``default`` replaces null too, since fields of events are null, never missing.
"""

from __future__ import annotations

import hashlib
import json as _json
import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from consumers.expressions.values import ITEMS_MAX, OMIT, TEXT_MAX, UNDEFINED, bounded, datetime_text, plain, text
from consumers.expressions.values import ExpressionFailed as ExpressionFailed


def lower(value: Any) -> str:
    return bounded(text(value).lower())


def upper(value: Any) -> str:
    return bounded(text(value).upper())  # may grow: ß becomes SS


def trim(value: Any, chars: str | None = None) -> str:
    return text(value).strip(chars)


_WORD_START = re.compile(r"([-\s({\[<]+)")


def title(value: Any) -> str:
    words = _WORD_START.split(text(value))
    return bounded("".join([word[0].upper() + word[1:].lower() for word in words if word]))


def truncate(value: Any, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5) -> str:
    content = text(value)
    if length < len(end) or leeway < 0:
        raise ExpressionFailed("out_of_range")
    if len(content) <= length + leeway:
        return content
    if killwords:
        return content[: length - len(end)] + end
    return content[: length - len(end)].rsplit(" ", 1)[0] + end


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    content, before, after = text(value), text(old), text(new)
    found = content.count(before)
    if count is not None and 0 <= count < found:
        found = count
    if len(content) + found * (len(after) - len(before)) > TEXT_MAX:
        raise ExpressionFailed("too_large")
    return content.replace(before, after, -1 if count is None else count)


def slug(value: Any) -> str:
    """``Größe & Café`` becomes ``grosse-cafe``: ASCII letters, digits and single dashes."""
    plain_text = unicodedata.normalize("NFKD", text(value).replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain_text.lower()).strip("-")


_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake(value: Any) -> str:
    """``InvoiceCreated`` becomes ``invoice_created``."""
    humps = _HUMPS.sub("_", text(value))
    return bounded(re.sub(r"[^0-9a-z]+", "_", humps.lower()).strip("_"))


def hash_(value: Any) -> str:
    """SHA-256 of the text in UTF-8, 64 hex digits. It hides a value from eyes, not from somebody who guesses."""
    return hashlib.sha256(text(value).encode()).hexdigest()


def json(value: Any) -> str:
    return bounded(_json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False))


# -- numbers and times -----------------------------------------------------------------------------------------------


def round_(value: Any, precision: int = 0, method: str = "common") -> Any:
    _number(value)
    if not -20 <= precision <= 20:
        raise ExpressionFailed("out_of_range")
    if method == "common":
        return round(value, precision)
    exactly = math.ceil if method == "ceil" else math.floor
    return exactly(value * (10**precision)) / (10**precision)


_MINOR_DIGITS: Mapping[str, int] = {
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
    "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4,
}  # fmt: skip


def money(value: Any, currency: Any) -> str:
    """Minor units as people write them: ``123450 | money('EUR')`` is ``1,234.50 EUR``; digits after ISO 4217."""
    if type(value) is not int:
        raise ExpressionFailed("null" if value is None else "wrong_type")
    code, digits, unit = _currency(text(currency))
    if not digits:
        return f"{value:,} {code}"
    sign = "-" if value < 0 else ""
    whole, rest = divmod(abs(value), unit)
    return f"{sign}{whole:,}.{str(rest).zfill(digits)} {code}"


@lru_cache(maxsize=256)
def _currency(code: str) -> tuple[str, int, int]:
    """A currency's code in capitals, the digits of its minor unit, and how many of them make one."""
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise ExpressionFailed("out_of_range")
    digits = _MINOR_DIGITS.get(code.upper(), 2)
    return code.upper(), digits, 10**digits


def date_(value: Any, format: str | None = None) -> str:
    """The day, in UTC: ``2026-05-01``, or as ``format`` says (strftime)."""
    moment = _moment(value)
    if format is not None:
        return moment.strftime(format)
    return moment.date().isoformat() if isinstance(moment, datetime) else moment.isoformat()


def datetime_(value: Any, format: str | None = None) -> str:
    """The moment, in UTC: ``2026-05-01T12:00:00Z``, or as ``format`` says (strftime)."""
    moment = _moment(value)
    if format is not None:
        return moment.strftime(format)
    return datetime_text(moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day))


def _moment(value: Any) -> datetime | date:
    if isinstance(value, str):
        if len(value) > 64:
            raise ExpressionFailed("wrong_type")
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ExpressionFailed("wrong_type") from None
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return value
    raise ExpressionFailed("null" if value is None else "wrong_type")


def _number(value: Any) -> None:
    kind = type(value)
    if kind is not int and kind is not float and kind is not Decimal:
        raise ExpressionFailed("null" if value is None else "wrong_type")


# -- lists -----------------------------------------------------------------------------------------------------------


def join(value: Any, d: Any = "") -> str:
    if not isinstance(value, (list, tuple)):
        raise ExpressionFailed("null" if value is None else "wrong_type")
    if len(value) > ITEMS_MAX:
        raise ExpressionFailed("too_large")
    between = text(d)
    parts = [text(item) for item in value]
    if sum(map(len, parts)) + len(between) * max(0, len(parts) - 1) > TEXT_MAX:
        raise ExpressionFailed("too_large")
    return between.join(parts)


def first(value: Any) -> Any:
    found = first_or_undefined(value)
    if found is UNDEFINED:
        raise ExpressionFailed("missing")
    return found


def last(value: Any) -> Any:
    found = last_or_undefined(value)
    if found is UNDEFINED:
        raise ExpressionFailed("missing")
    return found


def first_or_undefined(value: Any) -> Any:
    _sequence(value)
    return value[0] if value else UNDEFINED


def last_or_undefined(value: Any) -> Any:
    _sequence(value)
    return value[-1] if value else UNDEFINED


def _sequence(value: Any) -> None:
    if not isinstance(value, (str, list, tuple)):
        raise ExpressionFailed("null" if value is None else "wrong_type")


def length(value: Any) -> int:
    if not isinstance(value, (str, list, tuple, Mapping)):
        raise ExpressionFailed("null" if value is None else "wrong_type")
    return len(value)


# -- null ------------------------------------------------------------------------------------------------------------


def default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    if value is UNDEFINED or value is None or (boolean and not value):
        return default_value
    return value


def optional(value: Any) -> Any:
    return OMIT if value is None or value is UNDEFINED else value
