"""What may be kept of a call to a vendor: pure, and closed by default. Nothing that a person is known by is left.

*What we asked* is shown place by place: where a personal-data class travels (``Route.carried``) its name stands in
place of the value, ``‹email›``; other values stand as they are, cut at ``TEXT_MAX``.

*What the vendor answered* is nobody's promise: it may quote what was sent in another form, or tell what it had before.
So its shape is kept, and of its values only

- true, false, null and small numbers;
- texts that were sent as they are in a place without a class, and our idempotency keys;
- words for machines in fields that are known to hold them (``category``, ``error``, ``code``): one word each;
- the vendor's own id of the exchange, for its support (``correlationId``).

Every other text is its length: ``‹text, 143 characters›``. A value that one of these would let pass is left out all the
same when a personal value of the call is in it, or it in one. Of headers the waits and the ids are kept, never
credentials. What was sent and answered in an exchange about credentials does not come here at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = Any

TEXT_MAX = 300
ITEMS_MAX = 50
DEPTH_MAX = 8
NUMBER_MAX = 9_999
WORDS = frozenset({
    "category", "code", "error", "error_code", "errorcode", "errors", "in", "needed", "policyname",
    "propertyname", "provided", "reason", "status", "subcategory", "type", "warning", "warnings",
})  # fmt: skip
"""Fields of answers that hold words for machines, in small letters."""
IDS = frozenset({"correlationid", "correlation_id", "requestid", "request_id", "traceid", "trace_id"})
HEADERS = frozenset({
    "retry-after", "x-request-id", "x-correlation-id", "x-hubspot-correlation-id", "x-slack-req-id", "ratelimit",
})  # fmt: skip
HEADER_BEGINS = ("x-ratelimit-", "ratelimit-", "x-hubspot-ratelimit-")

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,47}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{7,63}\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_LONG_NUMBER = re.compile(r"\d{4}")
_HEADER = re.compile(r"[A-Za-z0-9 :;,=._+/-]{1,100}\Z")
_PARTS = re.compile(r"[^\W_]+")
_PART_MIN = 3


@dataclass(slots=True)
class Known:
    """What is known of the values of a call: the personal ones and the words they are made of, in small letters, and
    those that are nobody's."""

    personal: set[str] = field(default_factory=set)
    parts: set[str] = field(default_factory=set)
    plain: set[str] = field(default_factory=set)

    def add(self, other: Known) -> None:
        """Know what the other knows, too."""
        self.personal |= other.personal
        self.parts |= other.parts
        self.plain |= other.plain

    def says_personal(self, text: str) -> bool:
        """Whether the text is a personal value of the call, or has one in it."""
        small = text.casefold()
        return small in self.personal or any(len(one) > _PART_MIN and one in small for one in self.personal)

    def touches_personal(self, text: str) -> bool:
        """The same, also of a part of one, or the text in one."""
        small = text.casefold()
        return (
            self.says_personal(text)
            or any(one in small for one in self.parts)
            or any(small in one for one in self.personal)
        )


def asked(place: str, value: Json, carried: Mapping[str, frozenset[str]], known: Known) -> Json:
    """A value of a delivery (as JSON has it) as it may be kept; what it says goes into ``known``."""
    classes = [one for one in carried.get(place, ()) if one != "none"]
    if classes:
        _note(value, known)
        return value if value is None else f"‹{', '.join(sorted(classes))}›"
    if isinstance(value, Mapping):
        return {str(name): asked(f"{place}.{name}", inner, carried, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [asked(f"{place}.{index}", inner, carried, known) for index, inner in enumerate(value)]
    if isinstance(value, str):
        known.plain.add(value)
        return value if len(value) <= TEXT_MAX else f"{value[:TEXT_MAX]}… ‹{len(value):,} characters›"
    return value


def _note(value: Json, known: Known) -> None:
    """A personal value, and its parts: a vendor may answer the first name alone."""
    if isinstance(value, Mapping):
        for inner in value.values():
            _note(inner, known)
    elif isinstance(value, list):
        for inner in value:
            _note(inner, known)
    elif value is not None and not isinstance(value, bool):
        text = str(value).casefold()
        known.personal.add(text)
        known.parts.update(part for part in _PARTS.findall(text) if len(part) >= _PART_MIN)


def cleared(value: Json, known: Known) -> Json:
    """What was asked, once all of the delivery is known: a value without a class that says what one with a class says
    is left out too."""
    if isinstance(value, Mapping):
        return {name: cleared(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [cleared(inner, known) for inner in value]
    if isinstance(value, str) and not value.startswith("‹"):
        return "‹personal›" if known.says_personal(value) else value
    return value


def answered(body: bytes, known: Known) -> Json:
    """An answer's body as it may be kept; None for an empty one."""
    if not body:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return f"‹no JSON, {len(body):,} bytes›"
    return _kept(document, "", known, 0)


def _kept(value: Json, name: str, known: Known, depth: int) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        is_small = isinstance(value, int) and abs(value) <= NUMBER_MAX
        return value if is_small and str(value) not in known.personal else "‹number›"
    if isinstance(value, str):
        return value if _may_stay(value, name, known) else f"‹text, {_counted(len(value), 'character')}›"
    if depth >= DEPTH_MAX:
        return "‹deeper›"
    if isinstance(value, list):
        kept = [_kept(inner, name, known, depth + 1) for inner in value[:ITEMS_MAX]]
        return kept + ([f"‹{len(value) - ITEMS_MAX:,} more›"] if len(value) > ITEMS_MAX else [])
    fields: dict[str, Json] = {}
    for field_name, inner in list(value.items())[:ITEMS_MAX]:
        fields[_field(field_name, fields, known)] = _kept(inner, field_name, known, depth + 1)
    if len(value) > ITEMS_MAX:
        fields["‹more›"] = len(value) - ITEMS_MAX
    return fields


def _field(name: str, taken: Iterable[str], known: Known) -> str:
    """A field's name, where it is one: a map by names of people or addresses has data in its names."""
    small = name.casefold()
    if _NAME.match(name) and not _LONG_NUMBER.search(name) and small not in known.personal and small not in known.parts:
        return name
    return f"‹name {sum(one.startswith('‹name') for one in taken) + 1}›"


def _may_stay(text: str, name: str, known: Known) -> bool:
    if len(text) > TEXT_MAX:
        return False
    if text in known.plain:
        return not known.says_personal(text)
    field_name = name.casefold()
    if field_name in WORDS:
        fits = _WORD.match(text) is not None and _LONG_NUMBER.search(text) is None
    elif field_name in IDS:
        fits = _ID.match(text) is not None
    else:
        return False
    return fits and not known.touches_personal(text)


def is_word(text: str) -> bool:
    """Whether it is a word for machines, as reasons are."""
    return not text or _WORD.match(text) is not None


def headers(given: Mapping[str, str], known: Known) -> dict[str, str]:
    """The headers of an answer that may be kept."""
    return {
        name: text
        for name, text in ((name.lower(), text) for name, text in given.items())
        if (name in HEADERS or name.startswith(HEADER_BEGINS))
        and _HEADER.match(text)
        and not known.touches_personal(text)
    }


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
