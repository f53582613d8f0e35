"""What is known of every filter before any event: what it works on, its arguments, and what comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consumers.expressions import filters, values
from consumers.expressions.shapes import INTEGER, NUMBERS, TEXT, UNKNOWN, Kind, Shape, union

DIRECTIVES: Final = frozenset("YmdHMSyjbBaApZzfIuV%")
"""Of strftime: those of fixed width that mean the same on every machine."""


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
    "lower": Filter("lower case", filters.lower, _to_text, _TEXTUAL),
    "upper": Filter("UPPER CASE", filters.upper, _to_text, _TEXTUAL),
    "title": Filter("Every Word Capitalised", filters.title, _to_text, _TEXTUAL),
    "trim": Filter("without blanks at both ends", filters.trim, _to_text, _TEXTUAL, (Parameter("chars", _T),)),
    "truncate": Filter(
        "cut to a length",
        filters.truncate,
        _to_text,
        _TEXTUAL,
        (Parameter("length", _I), Parameter("killwords", _B), Parameter("end", _T), Parameter("leeway", _I)),
    ),
    "replace": Filter(
        "one text for another",
        filters.replace,
        _to_text,
        _TEXTUAL,
        (Parameter("old", _TI, required=True), Parameter("new", _TI, required=True), Parameter("count", _I)),
    ),
    "default": Filter(
        "another value for null",
        filters.default,
        lambda shape: shape.present(),
        frozenset(),
        (Parameter("default_value", frozenset()), Parameter("boolean", _B)),
        lenient=True,
    ),
    "optional": Filter("the field is left out when it is null", filters.optional, lambda s: s.present(), lenient=True),
    "join": Filter(
        "the items of a list as one text", filters.join, _to_text, frozenset({"list"}), (Parameter("d", _TI),)
    ),
    "first": Filter("the first item", filters.first, _item, _SEQUENCE),
    "last": Filter("the last item", filters.last, _item, _SEQUENCE),
    "length": Filter(
        "how many items or characters", filters.length, lambda _: INTEGER, frozenset({"text", "list", "map", "record"})
    ),
    "round": Filter(
        "rounded",
        filters.round_,
        _rounded,
        NUMBERS,
        (Parameter("precision", _I), Parameter("method", _T, literal=True, choices=("common", "ceil", "floor"))),
    ),
    "money": Filter(
        "minor units as an amount: 1,234.50 EUR",
        filters.money,
        _to_text,
        _I,
        (Parameter("currency", _T, required=True),),
    ),
    "date": Filter(
        "the day in UTC: 2026-05-01",
        filters.date_,
        _to_text,
        _WHEN,
        (Parameter("format", _T, literal=True, format=True),),
    ),
    "datetime": Filter(
        "the moment in UTC: 2026-05-01T12:00:00Z",
        filters.datetime_,
        _to_text,
        _WHEN,
        (Parameter("format", _T, literal=True, format=True),),
    ),
    "slug": Filter("for addresses: cafe-society", filters.slug, _to_text, _TEXTUAL),
    "snake": Filter("for names: invoice_created", filters.snake, _to_text, _TEXTUAL),
    "hash": Filter("SHA-256, still personal data", filters.hash_, _to_text, _TEXTUAL),
    "json": Filter("as JSON text", filters.json, _to_text),
    # compiled from the contract, not called: see consumers/expressions/translation.py
    "allowed": Filter(
        "without the fields whose personal-data class is not allowed",
        values.plain,
        lambda s: s,
        frozenset({"record", "list"}),
    ),
}


def bad_format(format: str) -> str | None:
    """Why a strftime format is refused: it is short, and knows only directives of fixed width."""
    if len(format) > 100:
        return "is longer than 100 characters"
    places = re.findall(r"%(.?)", format, re.DOTALL)
    for directive in places:
        if directive not in DIRECTIVES or not directive:
            return f"has '%{directive}', which is not one of {' '.join('%' + d for d in sorted(DIRECTIVES))}"
    return None
