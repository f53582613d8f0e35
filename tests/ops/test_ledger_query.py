"""What the ledger answers, against a plain reading of the same receipts; and what people may ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.control import AttachedSubscription, Start
from consumers.offsets import encode_runs
from consumers.receipts import hashed
from ops.lag.cluster import Commit
from ops.ledger.database import Address, open_engine
from ops.ledger.query import Ledger, Older, Wanted
from ops.ledger.question import AboutEvent, AboutValue, parse_question
from ops.ledger.store import Store
from ops.ledger.tables import earlier_receipts, receipts
from ops.ledger.trace import Standing, standing_of
from schemas.contract import load_contracts
from schemas.errors import NotFoundError
from schemas.event import Origin
from tests.conftest import ROOT
from tests.ops.ledgers import KEY, NOW, NewAddress, databases, new_addresses, open_store, row

CONTRACTS = load_contracts(ROOT / "schemas" / "events")


@pytest.fixture(scope="module", params=databases())
def new_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewAddress]:
    with new_addresses(request.param, tmp_path_factory.mktemp("ledgers")) as new:
        yield new


@pytest.fixture(scope="module")
def address(new_address: NewAddress) -> Address:
    return new_address()


@pytest.fixture(scope="module")
def ledger(address: Address) -> Iterator[Ledger]:
    open_store(address).close()
    ledger = Ledger(address, lambda: KEY)
    yield ledger
    ledger.close()


def fill(address: Address, rows: list[dict[str, Any]]) -> None:
    """Have these receipts in the ledger and no others."""
    engine = open_engine(address, writes=True)
    with engine.begin() as connection:
        connection.execute(receipts.delete())
        connection.execute(earlier_receipts.delete())
    Store(engine).put_receipts(rows)
    engine.dispose()


VALUES = st.sampled_from(["u-1", "u-2", "ana@example.org", ""])
ROWS = st.lists(
    st.fixed_dictionaries({
        "entity": VALUES, "entity_hashed": st.booleans(), "record_key": VALUES, "record_key_hashed": st.booleans(),
        "event_subject": VALUES | st.none(), "event_subject_hashed": st.booleans(),
        "subscription": st.sampled_from(["crm", "mail"]),
        "outcome": st.sampled_from(["delivered", "unknown", "parked"]),
        "event_type": st.sampled_from(["a.A", "b.B"]), "reason": st.sampled_from([None, "x"]),
        "change_id": st.sampled_from([None, "ch-1"]),
    }),
    max_size=8,
)  # fmt: skip
WANTED = st.builds(
    Wanted,
    event_id=st.sampled_from([None, None, "e-0", "e-99"]), entity=st.none() | VALUES, value=st.none() | VALUES,
    types=st.sampled_from([None, None, {"a.A"}, {"a.A", "b.B"}]), subscription=st.sampled_from([None, "crm"]),
    outcomes=st.sampled_from([(), ("delivered",), ("unknown", "parked")]), reason=st.sampled_from([None, None, "x"]),
    change=st.sampled_from([None, None, "ch-1"]), since=st.sampled_from([None, NOW + timedelta(seconds=2)]),
    until=st.sampled_from([None, NOW + timedelta(seconds=4)]),
)  # fmt: skip


def stored(drawn: dict[str, Any]) -> dict[str, Any]:
    """As the runtime writes it: what is said to be hashed is."""
    made = dict(drawn)
    for name in ("entity", "record_key", "event_subject"):
        if made[f"{name}_hashed"] and made[name] is not None:
            made[name] = hashed(made[name], KEY)
    return made


@given(ROWS, WANTED, st.integers(1, 5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_is_what_a_plain_reading_finds(
    address: Address, ledger: Ledger, drawn: list[dict[str, Any]], wanted: Wanted, limit: int
) -> None:
    """``drawn`` has plain values: whether the receipt holds a hash makes no difference to who asks."""
    fill(address, [row(n, n, **stored(one)) for n, one in enumerate(drawn)])

    def fits(n: int, one: dict[str, Any]) -> bool:
        at = NOW + timedelta(seconds=n)
        names = (f"e-{n}", one["entity"], one["record_key"], one["event_subject"])
        return all((
            wanted.event_id in (None, f"e-{n}"), wanted.entity in (None, one["entity"]),
            wanted.value is None or wanted.value in names, wanted.types is None or one["event_type"] in wanted.types,
            wanted.subscription in (None, one["subscription"]),
            not wanted.outcomes or one["outcome"] in wanted.outcomes,
            wanted.reason in (None, one["reason"]), wanted.change in (None, one["change_id"]),
            wanted.since is None or at >= wanted.since, wanted.until is None or at < wanted.until,
        ))  # fmt: skip

    expected = [f"e-{n}" for n, one in enumerate(drawn) if fits(n, one)][::-1]
    assert [one.event_id for one in ledger.find(wanted, limit=limit)] == expected[:limit]
    assert ledger.subscriptions() == sorted({one["subscription"] for one in drawn})


def test_a_hash_is_not_found_with_another_key_and_its_text_is_not_a_value(address: Address, ledger: Ledger) -> None:
    secret = hashed("ana@example.org", KEY)
    fill(address, [row(1, 1, entity=secret, entity_hashed=True, record_key=secret, record_key_hashed=True)])
    assert len(ledger.find(Wanted(value="ana@example.org"), limit=9)) == 1
    assert ledger.find(Wanted(entity=secret), limit=9) == []
    other = Ledger(address, lambda: b"another key of this installation")
    assert other.find(Wanted(value="ana@example.org"), limit=9) == []
    other.close()


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        (Wanted(event_id="e"), {"receipts_delivery"}),
        (Wanted(entity="u"), {"receipts_entity"}),
        (Wanted(value="u"), {"receipts_delivery", "receipts_entity", "receipts_record_key", "receipts_subject"}),
        (Wanted(since=NOW), {"receipts_last_at"}),
        (Wanted(subscription="crm"), {"receipts_subscription"}),
        (Wanted(outcomes=["rejected", "unknown"]), {"receipts_outcome"}),
    ],
)
def test_each_question_is_answered_by_an_index(
    address: Address, ledger: Ledger, wanted: Wanted, indexes: set[str]
) -> None:
    """By its key a value was looked for in a million receipts, one by one: the conditions were nested."""
    engine = open_engine(address, writes=False)
    query = sa.select(receipts).where(*ledger._conditions(wanted)).order_by(receipts.c.last_at.desc()).limit(5)
    text = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        if address.file is None:
            connection.exec_driver_sql("SET enable_seqscan = off")  # a short table is read whole, and rightly so
        explain = "EXPLAIN QUERY PLAN " if address.file is not None else "EXPLAIN "
        plan = "\n".join(str(one[-1]) for one in connection.exec_driver_sql(explain + text))
    engine.dispose()
    assert all(index in plan for index in indexes), plan


AT = Origin("accounts.users", 0, 10)


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({"origin_offset": 11}, True),
        ({"origin_offset": 11, "outcome": "unknown"}, True),  # it may have been sent
        ({"origin_offset": 11, "outcome": "rejected"}, False),
        ({"origin_offset": 11, "outcome": "parked"}, False),
        ({"origin_offset": 10}, False),
        ({"origin_offset": 9}, False),
        ({"origin_offset": 11, "entity": "u-2"}, False),
        ({"origin_offset": 11, "action": "note.add"}, False),
        ({"origin_offset": 11, "about": "invoices"}, False),
        ({"origin_offset": 11, "subscription": "mail"}, False),
        ({"origin_offset": 11, "entity": hashed("u-1", KEY), "entity_hashed": True}, True),
        # another partition: offsets say nothing, the time does
        ({"origin_offset": 3, "origin_partition": 1, "last_at": NOW + timedelta(hours=1)}, True),
        ({"origin_offset": 99, "origin_partition": 1, "last_at": NOW - timedelta(hours=1)}, False),
    ],
)
def test_what_was_sent_later_is_what_a_redrive_would_overwrite(
    address: Address, ledger: Ledger, changed: dict[str, Any], counts: bool
) -> None:
    fill(address, [row(1, 1, body_fields=["email", "plan"], **changed)])
    (found,) = ledger.sent_later("crm", [Older(action="contact.upsert", entity="u-1", origin=AT, since=NOW)])
    assert found == (frozenset({"email", "plan"}) if counts else frozenset())


def test_fields_sent_by_several_later_deliveries_are_one_set(address: Address, ledger: Ledger) -> None:
    secret = hashed("invoices", KEY)
    fill(address, [
        row(1, 1, origin_offset=11, body_fields=["email"], about=secret),
        row(2, 2, origin_offset=12, body_fields=["plan"], about="invoices"),
        row(3, 3, origin_offset=13, body_fields=["name"]),
    ])  # fmt: skip
    older = Older(action="contact.upsert", entity="u-1", origin=AT, about="invoices")
    others = [replace(older, origin=AT._replace(offset=11)), replace(older, entity="u-2"), replace(older, action="x")]
    assert ledger.sent_later("crm", [older, *others]) == [{"email", "plan"}, {"plan"}, set(), set()]


@given(st.text())
def test_any_text_is_a_question_or_names_a_field_that_is_not_there(text: str) -> None:
    try:
        asked = parse_question(text, CONTRACTS)
    except NotFoundError:
        return
    if isinstance(asked, AboutEvent):
        assert asked.id == text
    else:
        assert text == f"{asked.field}={asked.value}"


@given(
    st.sampled_from(sorted({path for contract in CONTRACTS.values() for path in contract.fields})), st.text(min_size=1)
)
def test_a_field_with_a_value_is_asked_of_the_events_that_have_the_field(field: str, value: str) -> None:
    types = frozenset(name for name, contract in CONTRACTS.items() if field in contract.fields)
    if all(part.replace("_", "").isalnum() for part in field.split(".")):
        assert parse_question(f"{field}={value}", CONTRACTS) == AboutValue(field, value, types)


def test_a_field_that_no_event_has_is_not_found_and_the_value_is_not_said() -> None:
    with pytest.raises(NotFoundError) as caught:
        parse_question("emial=ana.secret@example.org", CONTRACTS)
    assert "Did you mean 'email'?" in str(caught.value)
    assert "ana.secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["abc=", "=abc", "a b=c", "0196f7a2-1111-7000-8000-000000000001"])
def test_what_only_looks_like_a_field_is_an_id(text: str) -> None:
    assert parse_question(text, CONTRACTS) == AboutEvent(text, None)


@pytest.mark.parametrize(
    ("commit", "start", "held", "unread", "expected"),
    [
        (Commit(5), 0, False, 0, ("waiting", 5)),
        (None, 0, False, 0, ("waiting", 10)),
        (None, None, False, 0, ("no_position", 0)),
        (None, 20, False, 0, ("before_start", 0)),
        (Commit(25), 20, False, 0, ("before_start", 0)),
        (Commit(5), 20, False, 0, ("waiting", 5)),  # rewound to before its start
        (Commit(5), 0, True, 0, ("held", 0)),
        (Commit(11), 0, False, 0, ("not_ours", 0)),
        (Commit(11), 0, False, 7, ("passed", 0)),
        (Commit(11), 0, False, None, ("passed", 0)),
        (Commit(5, encode_runs(5, [(9, 12)])), 0, False, 0, ("not_ours", 0)),  # finished ahead of the committed offset
    ],
)
def test_an_event_without_a_receipt_is_told_by_where_the_subscription_reads(
    commit: Commit | None, start: int | None, held: bool, unread: int | None, expected: tuple[Standing, int]
) -> None:
    place = (AT.topic, AT.partition)
    attached = AttachedSubscription(
        name="crm", starts={} if start is None else {place: Start(offset=start, state="started")}
    )
    commits = {} if commit is None else {place: commit}
    assert standing_of(AT, attached, commits, is_held=held, unread=unread) == expected
