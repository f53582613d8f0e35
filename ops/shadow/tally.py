"""What a shadow run has found so far: counts by event type, differences by field and cause, a few examples of each.
Bounded, however many events there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ops.shadow.difference import Difference
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.event import Origin

Result: TypeAlias = Literal["same", "different", "would_send", "would_not_send", "not_compared"]
DIFFERS: Final[tuple[Result, ...]] = ("different", "would_send", "would_not_send")
NotCompared: TypeAlias = Literal[
    "carried", "merged", "omitted", "erased", "no_receipt", "not_sent", "refused", "unreadable"
]  # fmt: skip
NOT_COMPARED: Final[Mapping[NotCompared, str]] = {
    "carried": "sent merged into newer ones, which differ and say all of it anew",
    "merged": "sent merged with others that are not all known any more, so not to be compared",
    "omitted": "sent without fields that newer deliveries had sent, and nobody can tell which",
    "erased": "about a person who was erased",
    "no_receipt": "without a receipt: nobody can tell what was sent",
    "not_sent": "skipped or set aside before the vendor was asked",
    "refused": "refused by the map, then and now",
    "unreadable": "not to be decoded",
}
Kind: TypeAlias = tuple[str, Result, str, str]
"""Event type, what came of it, place and cause."""
EXAMPLES: Final = 3
PLACES_MAX: Final = 500
"""So many kinds of differences are told apart; a map with ever new names makes no more."""
ELSEWHERE: Final = "(more places)"


@dataclass(frozen=True, slots=True)
class Compared:
    """One event: what came of the comparison, where it differs, or why it cannot be compared."""

    origin: Origin
    event: str
    result: Result
    differences: Sequence[Difference] = ()
    why: NotCompared | None = None


@dataclass(slots=True)
class Tally:
    """Counts. ``records`` were read; ``events`` are those that one of the versions takes, or that were sent."""

    records: int = 0
    results: dict[str, Counter[Result]] = field(default_factory=dict)
    why: Counter[NotCompared] = field(default_factory=Counter)
    places: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, one: Compared) -> None:
        self.results.setdefault(one.event, Counter())[one.result] += 1
        if one.why is not None:
            self.why[one.why] += 1
        # an event counts once for a place, also where more than PLACES_MAX places became one
        for key, found in {self._kind(one, found): found for found in one.differences}.items():
            self.places[key] += 1
            shown = self.examples.setdefault(key, [])
            if len(shown) < EXAMPLES:
                shown.append({"origin": str(one.origin), "was": found.was, "now": found.now})

    def _kind(self, one: Compared, found: Difference) -> Kind:
        kind: Kind = (one.event, one.result, found.place, found.cause)
        is_new = kind not in self.places
        return (one.event, one.result, ELSEWHERE, found.cause) if is_new and len(self.places) >= PLACES_MAX else kind

    def count(self, *results: Result) -> int:
        return sum(found[result] for found in self.results.values() for result in results)

    @property
    def events(self) -> int:
        return sum(found.total() for found in self.results.values())

    @property
    def compared(self) -> int:
        return self.count("same", *DIFFERS)

    @property
    def share(self) -> Decimal | None:
        """The part of the compared events that differs, 0 to 1; None where none was compared."""
        return Decimal(self.count(*DIFFERS)) / self.compared if self.compared else None

    def by_event(self) -> list[dict[str, Any]]:
        names: tuple[Result, ...] = ("same", *DIFFERS, "not_compared")
        return [
            {"event": event or None, "events": found.total(), **{name: found[name] for name in names}}
            for event, found in sorted(self.results.items())
        ]

    def by_place(self) -> list[dict[str, Any]]:
        """Differences, the most frequent first; ``share`` of all compared events, in percent."""
        return [
            {
                "event": event or None,
                "result": result,
                "place": place,
                "cause": cause,
                "events": count,
                "share": percent(Decimal(count) / self.compared),
                "examples": self.examples[event, result, place, cause],
            }
            for (event, result, place, cause), count in sorted(self.places.items(), key=lambda one: (-one[1], one[0]))
        ]


def parse_share(text: str) -> Decimal:
    """``0.1%`` as 0.001. Raises InputError."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s?%", text, re.ASCII)
    share = None if found is None else Decimal(found[1]) / 100
    if share is None or share > 1:
        raise InputError(f"'{text[:40]}' is no share of events. It is a percentage: 0.1%, 0%, 2.5%.")
    return share


def percent(share: Decimal) -> float:
    """A share in percent, never rounded to 0 or 100 where it is not: 0.0 is none, 100.0 all."""
    value = float(round(share * 100, 4))
    if share > 0:
        value = max(value, 0.0001)
    return min(value, 99.9999) if share < 1 else value
