"""A layered drawing: columns of cards with rows, and lines from the rows of one column to those of the next. Pure.

Lengths are pixels of the drawing's own grid. Text is set in a monospaced font of ``FONT`` pixels, so that its width is
known without measuring. The first column stays as it is given; cards and rows of the others are moved to where their
lines come from, which keeps lines short and crossings few (one sweep of the barycentre method of Sugiyama et al.).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

FONT = 12
CHAR = 7.25
"""A monospaced character is 0.6 of its font's size wide."""
ROW, HEAD, GAP, BETWEEN, MARGIN, PAD = 22, 28, 18, 110, 8, 10
LABEL_MAX = 34
"""Longer labels are cut; their whole text is in the title."""

End: TypeAlias = tuple[str, str]
"""A card's key and one of its rows' keys; ``""`` is the card's head."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line in a card. ``note`` stands at its right edge."""

    key: str
    label: str
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A box with a head and rows. ``kind`` becomes its class in the style sheet."""

    key: str
    title: str
    kind: str
    rows: tuple[Row, ...] = ()
    href: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A line between rows of neighbouring columns. ``kind`` becomes its class."""

    start: End
    end: End
    kind: str = "sends"


@dataclass(frozen=True, slots=True)
class PlacedRow:
    row: Row
    label: str
    """as it fits"""
    y: float
    """of the middle"""


@dataclass(frozen=True, slots=True)
class PlacedCard:
    card: Card
    title: str
    x: float
    y: float
    width: float
    height: float
    rows: tuple[PlacedRow, ...]

    def middle(self, row: str) -> float:
        """Where lines to that row end."""
        return next((one.y for one in self.rows if one.row.key == row), self.y + HEAD / 2)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve as SVG's path data, between two cards."""

    path: str
    link: Link


@dataclass(frozen=True, slots=True)
class Drawing:
    width: float
    height: float
    cards: tuple[PlacedCard, ...] = ()
    lines: tuple[Line, ...] = field(default=())


def draw(columns: Sequence[Sequence[Card]], links: Sequence[Link]) -> Drawing:
    """The drawing. Links whose ends do not exist are left out. The same input gives the same drawing."""
    placed: dict[str, PlacedCard] = {}
    x = float(MARGIN)
    for number, column in enumerate(filter(None, columns)):
        width = max(_width(card) for card in column)
        cards = _ordered(column, links, placed) if number else [(card, None) for card in column]
        y = float(MARGIN)
        for card, wish in cards:
            height = HEAD + ROW * len(card.rows) + (6 if card.rows else 0)
            y = max(y, wish - height / 2) if wish is not None else y
            placed[card.key] = _placed(card, x, y, width, height)
            y += height + GAP
        x += width + BETWEEN
    lines = tuple(_line(link, placed) for link in links if link.start[0] in placed and link.end[0] in placed)
    return Drawing(
        width=x - BETWEEN + MARGIN if placed else 0,
        height=max((one.y + one.height for one in placed.values()), default=0) + MARGIN,
        cards=tuple(placed.values()),
        lines=lines,
    )


def _ordered(
    column: Sequence[Card], links: Sequence[Link], placed: Mapping[str, PlacedCard]
) -> list[tuple[Card, float | None]]:
    """Cards and their rows by the mean height of what leads to them, and that height; what nothing leads to comes
    last."""
    heights: dict[End, list[float]] = {}
    for link in links:
        if link.start[0] in placed:
            heights.setdefault(link.end, []).append(placed[link.start[0]].middle(link.start[1]))
    found = []
    for card in column:
        mean = {row.key: _mean(heights.get((card.key, row.key), [])) for row in card.rows}
        rows = sorted(card.rows, key=lambda row: (mean[row.key] is None, mean[row.key] or 0.0))
        every = [height for end, some in heights.items() if end[0] == card.key for height in some]
        found.append((replace(card, rows=tuple(rows)), _mean(every)))
    return sorted(found, key=lambda one: (one[1] is None, one[1] or 0.0))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _width(card: Card) -> float:
    rows = [min(len(row.label), LABEL_MAX) + (len(row.note) + 2 if row.note else 0) for row in card.rows]
    return max(min(len(card.title), LABEL_MAX), *rows, 12) * CHAR + 2 * PAD


def _placed(card: Card, x: float, y: float, width: float, height: float) -> PlacedCard:
    rows = tuple(PlacedRow(row, _fit(row.label), y + HEAD + ROW * (at + 0.5)) for at, row in enumerate(card.rows))
    return PlacedCard(card, _fit(card.title), x, y, width, height, rows)


def _fit(text: str) -> str:
    return text if len(text) <= LABEL_MAX else f"{text[: LABEL_MAX - 1]}…"


def _line(link: Link, placed: Mapping[str, PlacedCard]) -> Line:
    start, end = placed[link.start[0]], placed[link.end[0]]
    x1, y1 = start.x + start.width, start.middle(link.start[1])
    x2, y2 = end.x, end.middle(link.end[1])
    bend = (x2 - x1) / 2
    return Line(f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}", link)
