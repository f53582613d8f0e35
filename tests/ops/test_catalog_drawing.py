"""The layered drawing of lineage, and the code to copy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.catalog.drawing import HEAD, LABEL_MAX, Card, Drawing, Link, Row, draw
from ops.catalog.graphs import lineage_graph, overview_graph
from ops.catalog.snippet import command_snippet, python_snippet
from producers import MemoryPublisher
from schemas.contract import load_contracts
from tests.conftest import ROOT
from tests.ops.test_catalog import ours

__all__ = ["ours"]

CONTRACTS = load_contracts(ROOT / "schemas" / "events")
NAMES = st.text(min_size=1, max_size=60)


@st.composite
def cards(draw_: Any) -> tuple[list[list[Card]], list[Link]]:
    columns = []
    ends: list[list[tuple[str, str]]] = []
    for number in range(draw_(st.integers(0, 3))):
        column = [
            Card(f"{number} {at}", title, "event", tuple(Row(str(place), label) for place, label in enumerate(labels)))
            for at, (title, labels) in enumerate(
                draw_(st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=5)), max_size=5))
            )
        ]
        columns.append(column)
        ends.append([(card.key, row.key) for card in column for row in (Row("", ""), *card.rows)])
    links = []
    for before, after in pairwise(ends):
        if before and after:
            pair = st.tuples(st.sampled_from(before), st.sampled_from(after))
            links += [Link(*one) for one in draw_(st.lists(pair, max_size=10))]
    return columns, links


@given(cards())
def test_nothing_overlaps_and_everything_is_within_the_drawing(made: tuple[list[list[Card]], list[Link]]) -> None:
    columns, links = made
    drawing = draw(columns, links)
    assert {one.card.key for one in drawing.cards} == {card.key for column in columns for card in column}
    assert len(drawing.lines) == len(links)
    boxes = [(one.x, one.y, one.x + one.width, one.y + one.height) for one in drawing.cards]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= drawing.width
        assert 0 <= top < bottom <= drawing.height
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for card in drawing.cards:
        assert all(card.y + HEAD <= row.y <= card.y + card.height for row in card.rows)
        assert all(len(row.label) <= LABEL_MAX for row in card.rows)


def test_cards_stand_where_their_lines_come_from() -> None:
    left = [Card(name, name, "event") for name in "abc"]
    right = [Card(name, name, "vendor") for name in "xyz"]
    links = [Link(("a", ""), ("z", "")), Link(("b", ""), ("y", "")), Link(("c", ""), ("x", ""))]
    drawing = draw([left, right], links)
    order = [one.card.key for one in sorted(drawing.cards[3:], key=lambda one: one.y)]
    assert order == ["z", "y", "x"]


def test_nothing_to_draw_is_an_empty_drawing() -> None:
    assert draw([], []) == Drawing(0, 8)


def test_lineage_is_drawn_field_by_field_and_the_whole_by_event(ours: Any) -> None:
    def address(kind: str, name: str) -> str:
        return f"{kind}/{name}"

    drawing = lineage_graph(ours.flows_of("accounts.UserSignedUp"), ours, address)
    assert drawing is not None
    rows = {one.card.title: [row.row.label for row in one.rows] for one in drawing.cards}
    assert "email" in rows["accounts.UserSignedUp"]
    assert set(rows["hubspot contact.upsert"]) == {"email", "firstname", "(what it is about)"}
    assert "looks" in {line.link.kind for line in drawing.lines}
    whole = overview_graph(ours, address)
    assert whole is not None
    assert {one.card.title for one in whole.cards} >= {"accounts", "billing", "crm-contacts", "slack"}
    assert lineage_graph([], ours, address) is None


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryPublisher]:
    """What ``Publisher.from_env()`` answers in the code to copy."""
    import producers

    with MemoryPublisher() as publisher:

        class Publisher:
            @staticmethod
            def from_env() -> MemoryPublisher:
                return publisher

        monkeypatch.setattr(producers, "Publisher", Publisher)
        yield publisher


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_code_to_copy_publishes_the_event(name: str, published: MemoryPublisher) -> None:
    exec(compile(python_snippet(CONTRACTS[name]), name, "exec"), {})
    assert [event.type for event in published.events] == [name]


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_command_to_copy_is_one_word_of_data(name: str, tmp_path: Path) -> None:
    import json
    import shlex

    words = shlex.split(command_snippet(CONTRACTS[name]))
    assert words[:5] == ["backbone", "event", "publish", name, "--data"]
    assert set(json.loads(words[5])) <= set(CONTRACTS[name].fields)
