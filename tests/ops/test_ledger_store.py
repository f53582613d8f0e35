"""Receipts into SQLite and PostgreSQL: twice is once, later replaces earlier, and what had been is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.ledger import tables
from ops.ledger.database import Address, open_engine
from ops.ledger.query import Ledger, Wanted
from ops.ledger.store import TEXT_MAX, Store, range_row, storable, writes_for
from schemas.event import Origin
from tests.ops.ledgers import KEY, NOW, NewAddress, databases, new_addresses, open_store, row


@pytest.fixture(scope="module", params=databases())
def new_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewAddress]:
    with new_addresses(request.param, tmp_path_factory.mktemp("ledgers")) as new:
        yield new


@pytest.fixture
def address(new_address: NewAddress) -> Address:
    return new_address()


@pytest.fixture
def store(address: Address) -> Iterator[Store]:
    store = open_store(address)
    yield store
    store.close()


@pytest.fixture
def ledger(address: Address) -> Iterator[Ledger]:
    ledger = Ledger(address, lambda: KEY)
    yield ledger
    ledger.close()


def contents(address: Address) -> dict[str, list[dict[str, Any]]]:
    """Everything in the ledger but row numbers."""
    engine = open_engine(address, writes=False)
    try:
        with engine.connect() as connection:
            found = {}
            for table in (tables.receipts, tables.earlier_receipts, tables.ranges):
                columns = [column for column in table.columns if column.name != "id"]
                rows = [dict(one) for one in connection.execute(sa.select(*columns)).mappings()]
                found[table.name] = sorted(rows, key=repr)
            return found
    finally:
        engine.dispose()


def test_a_receipt_comes_back_as_it_was_written(store: Store, ledger: Ledger) -> None:
    store.put_receipts([row(7, 3, outcome="skipped", reason="merged", merged_into="e-9", trace_id="4b")])
    (found,) = ledger.find(Wanted(event_id="e-3"), limit=10)
    assert (found.outcome, found.reason, found.merged_into, found.trace_id) == ("skipped", "merged", "e-9", "4b")
    assert found.first_at == NOW
    assert found.first_at.tzinfo is not None
    assert found.body_fields == ["email", "plan"]
    assert (found.origin, found.receipt_offset) == (Origin("accounts.users", 0, 3), 7)
    assert found.entity_hashed is False


def test_reading_the_receipts_again_changes_nothing(store: Store, address: Address) -> None:
    rows = [row(n, n) for n in range(1200)]
    rows += [row(1200, 5, outcome="rejected", reason="x"), row(1201, 5, change_id="ch-1", change_kind="redrive")]
    for one in (rows[:700], rows[700:]):
        store.put_receipts(one)
    before = contents(address)
    assert len(before["receipts"]) == 1200
    for begin in range(0, len(rows), 500):
        store.put_receipts(rows[begin : begin + 500])
    assert contents(address) == before


def test_a_dead_letter_its_failed_redrive_and_the_delivery_can_all_be_told(store: Store, ledger: Ledger) -> None:
    store.put_receipts([row(1, outcome="rejected", reason="invalid_email", last_at=NOW)])
    again = {"change_kind": "redrive", "outcome": "rejected", "reason": "invalid_email"}
    store.put_receipts([row(2, change_id="ch-1", redrives=1, **again)])
    store.put_receipts([row(3, change_id="ch-2", redrives=2, change_kind="redrive")])
    (now,) = ledger.find(Wanted(event_id="e-0"), limit=10)
    assert (now.outcome, now.change_id) == ("delivered", "ch-2")
    told = ledger.of_events(["e-0"])
    assert [(one.outcome, one.change_id, one.is_earlier) for one in told] == [
        ("rejected", None, True), ("rejected", "ch-1", True), ("delivered", "ch-2", False),
    ]  # fmt: skip
    assert ledger.find(Wanted(outcomes=["rejected"]), limit=10) == []


def test_the_same_receipt_written_a_second_time_by_a_crash_is_one(store: Store, ledger: Ledger) -> None:
    store.put_receipts([row(1)])
    store.put_receipts([row(2, attempts=2)])
    assert [one.attempts for one in ledger.of_events(["e-0"])] == [2]


def test_an_event_that_could_not_be_decoded_is_replaced_by_its_redrive(store: Store, ledger: Ledger) -> None:
    """Nothing was known of it but its place, so its receipt has another identity than that of the redrive."""
    unknown = row(1, 4, event_id="accounts.users/0/4", action="", entity="", idempotency_key="", outcome="undecodable")
    redriven = row(2, 4, change_id="ch-1", change_kind="redrive")
    store.put_receipts([unknown])
    store.put_receipts([redriven])
    assert [one.outcome for one in ledger.find(Wanted(), limit=10)] == ["delivered"]
    assert [one.outcome for one in ledger.of_events(["e-4"])] == ["undecodable", "delivered"]
    for rows in ([unknown], [redriven], [unknown, redriven]):  # read again
        store.put_receipts(rows)
    assert [one.outcome for one in ledger.find(Wanted(), limit=10)] == ["delivered"]
    assert [one.outcome for one in ledger.of_origin(Origin("accounts.users", 0, 4))] == ["undecodable", "delivered"]


def test_deliveries_differ_by_subscription_action_and_revision(store: Store, ledger: Ledger) -> None:
    changed: list[dict[str, Any]] = [
        {}, {"subscription": "mail"}, {"action": "note.add"}, {"revision": "ch-9", "change_id": "ch-9"},
        {"event_source": "elsewhere"}, {"event_type": "accounts.UserErased"},
    ]  # fmt: skip
    store.put_receipts([row(n, **one) for n, one in enumerate(changed)])
    assert len(ledger.of_events(["e-0"])) == 6


def test_a_range_that_begins_at_the_same_offset_replaces_the_one_before(store: Store, address: Address) -> None:
    range_of = {"subscription": "crm", "subscription_version": "1", "topic": "t", "partition": 0, "at": NOW}
    store.put_ranges([range_row({**range_of, "from_offset": 0, "to_offset": 9, "delivered": 9})])
    store.put_ranges([
        range_row({**range_of, "from_offset": 0, "to_offset": 5, "delivered": 4, "not_ours": 1}),
        range_row({**range_of, "from_offset": 5, "to_offset": 9, "delivered": 4}),
    ])  # fmt: skip
    found = {(one["from_offset"], one["to_offset"]): one for one in contents(address)["ranges"]}
    assert sorted(found) == [(0, 5), (5, 9)]
    assert (found[0, 5]["delivered"], found[0, 5]["not_ours"], found[0, 5]["parked"]) == (4, 1, 0)


def test_texts_that_a_database_does_not_take_are_kept_and_found(store: Store, ledger: Ledger) -> None:
    """A NUL ends the text in PostgreSQL, and its indexes refuse more than 2,700 bytes: either would have been a dead
    letter of the ledger."""
    long, other = "ü" * 5000, "ü" * 5001
    store.put_receipts([row(1, 1, entity="a\0b", record_key=long), row(2, 2, entity=other, event_subject=None)])
    assert [one.event_id for one in ledger.find(Wanted(entity="a\0b"), limit=9)] == ["e-1"]
    assert [one.event_id for one in ledger.find(Wanted(value=long), limit=9)] == ["e-1"]
    assert [one.event_id for one in ledger.find(Wanted(value=other), limit=9)] == ["e-2"]


@given(st.text(max_size=700), st.text(max_size=700))
def test_texts_stay_apart_when_they_are_made_storable(one: str, other: str) -> None:
    assert len(storable(one)) <= TEXT_MAX
    assert "\0" not in storable(one)
    if one.replace("\0", "\ufffd") != other.replace("\0", "\ufffd"):
        assert storable(one) != storable(other)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which event
        st.sampled_from(["delivered", "rejected", "skipped"]),
        st.sampled_from([None, "ch-1", "ch-2"]),
        st.sampled_from(["contact.upsert", ""]),
    ),
    max_size=12,
)


class Kept:
    """What ``Store`` does with ``writes_for``, in memory."""

    def __init__(self) -> None:
        self.receipts: dict[Any, dict[str, Any]] = {}
        self.earlier: dict[Any, dict[str, Any]] = {}

    def put(self, rows: list[dict[str, Any]]) -> None:
        writes = writes_for(rows, self.receipts, self.earlier)
        for one in writes.kept:
            self.earlier.setdefault((one["receipt_partition"], one["receipt_offset"]), one)
        for key in writes.out:
            self.receipts.pop(key, None)  # it may have come and gone within the batch
        self.receipts |= writes.put


@given(STEPS, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 12))
def test_however_receipts_are_batched_and_read_again_the_ledger_is_the_same(
    steps: list[tuple[int, str, str | None, str]], sizes: list[int], killed_at: int
) -> None:
    """``killed_at``: so many were written when the process died without its commit; then all are read again."""
    rows = [
        row(offset, number, outcome=outcome, change_id=change, action=action, idempotency_key="")
        for offset, (number, outcome, change, action) in enumerate(steps)
    ]
    once, again = Kept(), Kept()
    for one in rows:
        once.put([one])
    chosen = itertools.cycle(sizes)
    for run in (rows[:killed_at], rows, rows):
        left = list(run)
        while left:
            size = next(chosen)
            again.put(left[:size])
            left = left[size:]
    assert again.receipts == once.receipts
    assert again.earlier == once.earlier
    # nothing is lost but what was said twice
    told = [*once.receipts.values(), *once.earlier.values()]
    for one in rows:
        assert any(all(one[name] == other[name] for name in ("event_id", "action", "outcome", "change_id"))
                   for other in told)  # fmt: skip


@given(STEPS, st.integers(0, 12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_comes_to_what_the_rule_says(
    store: Store, address: Address, steps: list[tuple[int, str, str | None, str]], killed_at: int
) -> None:
    rows = [
        row(offset, number, outcome=outcome, change_id=change, action=action, idempotency_key="")
        for offset, (number, outcome, change, action) in enumerate(steps)
    ]
    by_rule = Kept()
    by_rule.put(rows)
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        for table in (tables.receipts, tables.earlier_receipts):
            connection.execute(table.delete())
    Store(engine).put_receipts(rows[:killed_at])
    Store(engine).put_receipts(rows)
    engine.dispose()
    found = contents(address)
    assert found["receipts"] == sorted(by_rule.receipts.values(), key=repr)
    assert found["earlier_receipts"] == sorted(by_rule.earlier.values(), key=repr)
