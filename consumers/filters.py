"""The filters of expressions: what each does to a value, and what is known about its result. Pure and bounded.

Each behaves as its namesake in Jinja2, but for null: a filter that needs a text or a number refuses null (Jinja2 would
write ``None`` into it), and ``default`` replaces null too, since fields of events are null, never missing.
No result is longer than ``TEXT_MAX`` characters or ``ITEMS_MAX`` items, and nothing is built before that is known.
"""

from __future__ import annotations

import hashlib
import json as _json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from consumers.shapes import INTEGER, NUMBERS, TEXT, UNKNOWN, Kind, Shape, union

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


# -- text ------------------------------------------------------------------------------------------------------------


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


def bounded(value: str) -> str:
    if len(value) > TEXT_MAX:
        raise ExpressionFailed("too_large")
    return value


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
    code = text(currency)
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise ExpressionFailed("out_of_range")
    digits = _MINOR_DIGITS.get(code.upper(), 2)
    sign = "-" if value < 0 else ""
    whole, rest = divmod(abs(value), 10**digits)
    amount = f"{whole:,}.{rest:0{digits}d}" if digits else f"{whole:,}"
    return f"{sign}{amount} {code.upper()}"


DIRECTIVES: Final = frozenset("YmdHMSyjbBaApZzfIuV%")


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


# -- what the compiler needs to know ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """``literal``: it must be written out, because it is checked at load (``choices``, or a strftime format)."""

    name: str
    kinds: frozenset[Kind]
    required: bool = False
    literal: bool = False
    choices: tuple[Any, ...] = ()
    format: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """``takes`` are the kinds it works on (empty: any); ``result`` says what comes out of a shape. ``lenient``: it is
    meant for a value that is missing or null. ``call`` gets the value and the arguments in order."""

    doc: str
    call: Callable[..., Any]
    result: Callable[[Shape], Shape]
    takes: frozenset[str] = frozenset()
    parameters: tuple[Parameter, ...] = ()
    lenient: bool = False


_TEXTUAL = frozenset({"text", "integer", "number", "decimal", "boolean", "time", "date", "clock", "uuid"})
_SEQUENCE = frozenset({"text", "list"})
_WHEN = frozenset({"time", "date", "text"})
_T: frozenset[Kind] = frozenset({"text"})
_I: frozenset[Kind] = frozenset({"integer"})
_B: frozenset[Kind] = frozenset({"boolean"})
_TI: frozenset[Kind] = frozenset({"text", "integer"})


def _to_text(_: Shape) -> Shape:
    return TEXT


def _item(shape: Shape) -> Shape:
    return TEXT if shape.kind == "text" else shape.item or UNKNOWN


def _rounded(shape: Shape) -> Shape:
    return shape.present() if shape.kind in NUMBERS else UNKNOWN.present()


def with_default(shape: Shape, replacement: Shape) -> Shape:
    """What ``default`` makes of the two."""
    if shape.kind == "null":
        return replacement
    joined = union([shape.present(), replacement])
    return joined if replacement.nullable else joined.present()


FILTERS: Mapping[str, Filter] = {
    "lower": Filter("lower case", lower, _to_text, _TEXTUAL),
    "upper": Filter("UPPER CASE", upper, _to_text, _TEXTUAL),
    "title": Filter("Every Word Capitalised", title, _to_text, _TEXTUAL),
    "trim": Filter("without blanks at both ends", trim, _to_text, _TEXTUAL, (Parameter("chars", _T),)),
    "truncate": Filter(
        "cut to a length", truncate, _to_text, _TEXTUAL,
        (Parameter("length", _I), Parameter("killwords", _B), Parameter("end", _T), Parameter("leeway", _I)),
    ),
    "replace": Filter(
        "one text for another", replace, _to_text, _TEXTUAL,
        (Parameter("old", _TI, required=True), Parameter("new", _TI, required=True), Parameter("count", _I)),
    ),
    "default": Filter(
        "another value for null", default, lambda shape: shape.present(), frozenset(),
        (Parameter("default_value", frozenset()), Parameter("boolean", _B)), lenient=True,
    ),
    "optional": Filter("the field is left out when it is null", optional, lambda s: s.present(), lenient=True),
    "join": Filter("the items of a list as one text", join, _to_text, frozenset({"list"}), (Parameter("d", _TI),)),
    "first": Filter("the first item", first, _item, _SEQUENCE),
    "last": Filter("the last item", last, _item, _SEQUENCE),
    "length": Filter(
        "how many items or characters", length, lambda _: INTEGER, frozenset({"text", "list", "map", "record"})
    ),
    "round": Filter(
        "rounded", round_, _rounded, NUMBERS,
        (Parameter("precision", _I), Parameter("method", _T, literal=True, choices=("common", "ceil", "floor"))),
    ),
    "money": Filter(
        "minor units as an amount: 1,234.50 EUR", money, _to_text, _I, (Parameter("currency", _T, required=True),)
    ),
    "date": Filter(
        "the day in UTC: 2026-05-01", date_, _to_text, _WHEN, (Parameter("format", _T, literal=True, format=True),)
    ),
    "datetime": Filter(
        "the moment in UTC: 2026-05-01T12:00:00Z", datetime_, _to_text, _WHEN,
        (Parameter("format", _T, literal=True, format=True),),
    ),
    "slug": Filter("for addresses: cafe-society", slug, _to_text, _TEXTUAL),
    "snake": Filter("for names: invoice_created", snake, _to_text, _TEXTUAL),
    "hash": Filter("SHA-256, still personal data", hash_, _to_text, _TEXTUAL),
    "json": Filter("as JSON text", json, _to_text),
    # compiled from the contract, not called: see consumers/translation.py
    "allowed": Filter(
        "without the fields whose personal-data class is not allowed", plain, lambda s: s, frozenset({"record", "list"})
    ),
}  # fmt: skip


def bad_format(format: str) -> str | None:
    """Why a strftime format is refused: it is short, and knows only directives of fixed width."""
    if len(format) > 100:
        return "is longer than 100 characters"
    places = re.findall(r"%(.?)", format, re.DOTALL)
    for directive in places:
        if directive not in DIRECTIVES or not directive:
            return f"has '%{directive}', which is not one of {' '.join('%' + d for d in sorted(DIRECTIVES))}"
    return None


# -- operators and access --------------------------------------------------------------------------------------------


def add(a: Any, b: Any) -> Any:
    """``+``: numbers, texts, lists; bounded before it is done."""
    if isinstance(a, (int, float, Decimal)):
        _number(b)
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
