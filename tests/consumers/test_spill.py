"""Rows of a fold: what is put is what is found, whatever is in memory and whatever is not."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.connector import Action, Delivery
from consumers.spill import End, Folded, Spill, SpillError, thing_of
from ops.benchmarks.memory import peak_mib
from schemas.event import Origin, Record
from tests.conftest import ROOT
from tests.simulation.plan import ACTIONS

PLACES = (("shop.orders", 0), ("shop.orders", 1))


def row(first: int, count: int = 1, **body: object) -> Folded:
    delivery = Delivery(
        action="put", entity=f"e{first}", idempotency_key="k", sequence=Origin("shop.orders", 0, first), body=body
    )
    return Folded(
        first=first, delivery=delivery, key=b"k", timestamp=1, event_id="1", event_type="shop.Changed",
        event_source="shop", event_time=1.0, count=count, size=100,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), max_size=120),
    st.sampled_from([(3, 1 << 30), (1_000, 4_000), (1_000, 1 << 30)]),
)
def test_what_leaves_memory_is_found_as_it_was(puts: list[tuple[int, int]], bounds: tuple[int, int]) -> None:
    spill = Spill(held_max=bounds[0], held_bytes_max=bounds[1])
    expected: dict[tuple[int, bytes], tuple[int, int]] = {}
    for offset, (number, name) in enumerate(puts):
        place, thing = PLACES[number], b"t%d" % name
        found = spill.get(place, thing)
        if found is None:
            assert (number, thing) not in expected
            spill.add(place, thing, row(offset))
            expected[number, thing] = (offset, 1)
        else:
            first, count = expected[number, thing]
            assert (found.first, found.count) == (first, count)
            found.count += 1
            spill.change(place, thing, found, 50 * name)
            expected[number, thing] = (first, count + 1)
    while spill.write_some():
        pass
    for number, place in enumerate(PLACES):
        wanted = sorted((first, thing, count) for (n, thing), (first, count) in expected.items() if n == number)
        assert spill.count(place) == len(wanted)
        found_rows, after = [], -1
        while rows := spill.in_order(place, after, 4):
            found_rows += [(one.first, thing, one.count) for thing, one in rows]
            after = rows[-1][1].first
        assert found_rows == wanted
    spill.forget(PLACES[0])
    assert spill.get(PLACES[0], b"t1") is None
    assert spill.count(PLACES[0]) == 0
    spill.close()


def test_a_row_keeps_what_json_has_no_word_for_and_its_end() -> None:
    spill = Spill(held_max=0)
    kept = row(7, day=date(2026, 5, 1), sum=Decimal("1.10"), nested={"a": [None, True]})
    spill.add(PLACES[0], b"a", kept)
    kept.end = End(outcome="delivered", reference="r", attempts=2, first_at=1.0, at=2.0)
    spill.change(PLACES[0], b"a", kept)
    for number in range(600):
        spill.add(PLACES[0], b"b%d" % number, row(10 + number))
    found = spill.get(PLACES[0], b"a")
    assert found == kept
    assert found is not kept


def test_what_things_are_is_told_apart_by_key_action_entity_and_what_they_are_about() -> None:
    def thing(key: bytes | None, entity: str, action: Action = ACTIONS["row"], table: object = "t") -> bytes:
        delivery = Delivery(
            action=action.name, entity=entity, idempotency_key="", sequence=Origin("t", 0, 1), body={"table": table}
        )
        return thing_of(Record("t", 0, 1, key, b"", (), 0), delivery, action)

    different = [
        thing(b"k", "e"), thing(b"l", "e"), thing(None, "e"), thing(b"k", "f"), thing(b"k", "e", table="u"),
        thing(b"k", "e", table=1), thing(b"k", "e", table="1"), thing(b"k", "e", ACTIONS["put"]), thing(b"k", "\ud800"),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert thing(b"k", "e", ACTIONS["put"], "t") == thing(b"k", "e", ACTIONS["put"], "u")


def test_a_database_that_fails_is_told_with_sqlites_word(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(held_max=1)
    spill.add(PLACES[0], b"a", row(1))
    spill.write_some()
    spill._database.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]

    def fill() -> None:
        for number in range(2_000):
            spill.add(PLACES[0], b"%d" % number, row(number, text="x" * 4_000))

    with pytest.raises(SpillError, match="SQLITE_FULL"):
        fill()


def test_memory_is_bounded_whatever_there_is_to_fold() -> None:
    """In a process of its own, for the peak is the process's: 120 MB of bodies, of which it may hold a little."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.consumers.test_spill"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())
    assert after - before < 120, f"{before:.0f} MiB before, {after:.0f} MiB after"


def _much() -> None:
    before = peak_mib()
    spill = Spill()
    for number in range(120_000):
        things = number % 60_000
        found = spill.get(PLACES[0], b"%d" % things)
        if found is None:
            one = row(number, text=f"{number:06}" * 330)
            one.size = 2_000
            spill.add(PLACES[0], b"%d" % things, one)
        else:
            found.count += 1
            spill.change(PLACES[0], b"%d" % things, found, 2_000)
    assert spill.count(PLACES[0]) == 60_000
    while spill.write_some():
        pass
    sys.stdout.write(f"{before} {peak_mib()}\n")


if __name__ == "__main__":
    _much()
