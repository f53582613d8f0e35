"""The inbox: a record comes again exactly as it stood at its origin."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.inbox import InboxKind, InboxOrder, inbox_record, murmur2, parse_inbox
from schemas.event import Origin, Record

KINDS: list[InboxKind] = ["redrive", "replay", "repair", "discarded", "erased"]
headers = st.lists(
    st.tuples(st.text(max_size=10).filter(lambda name: not name.startswith("inbox-")), st.none() | st.binary()),
    max_size=4,
)
origins = st.builds(Origin, st.from_regex(r"[a-z][a-z./-]{0,20}", fullmatch=True), st.integers(0, 99), st.integers(0))
orders = st.builds(
    InboxOrder,
    kind=st.sampled_from(KINDS),
    change=st.text(max_size=10),
    origin=origins,
    timestamp=st.integers(-1, 1 << 50),
    timestamp_type=st.sampled_from(["create", "append", "none"]),
    revision=st.text(max_size=10),
    omit=st.lists(st.text("abc_.", min_size=1, max_size=8), max_size=3).map(tuple),
    redrives=st.integers(0, 100),
    allow_stale=st.booleans(),
    as_of=st.none() | origins,
)


@given(orders, st.none() | st.binary(), st.none() | st.binary(), headers)
def test_what_is_written_comes_back_as_it_stood_at_its_origin(
    order: InboxOrder, key: bytes | None, value: bytes | None, theirs: list[tuple[str, bytes | None]]
) -> None:
    stood = Record(*order.origin, key, value, tuple(theirs), order.timestamp, order.timestamp_type)
    written = inbox_record(order, stood, partitions=100)
    read = Record(
        "x.inbox", written.partition, 7, written.key, written.value, tuple(written.headers), 1_800_000_000_000
    )
    assert parse_inbox(read) == (order, stood)
    assert written.partition == order.origin.partition


@given(orders, st.integers(0, 1000), st.text("abc.-_", max_size=20), st.none() | origins)
def test_an_erasure_keeps_what_it_asks_and_the_letter_it_was(
    order: InboxOrder, number: int, sealed: str, letter: Origin | None
) -> None:
    order = replace(order, kind="erase", number=number, sealed=sealed, letter=letter)
    stood = Record(*order.origin, None, None, (), order.timestamp, order.timestamp_type)
    written = inbox_record(order, stood, partitions=100)
    assert parse_inbox(Record("x.inbox", written.partition, 7, None, None, tuple(written.headers), 0)) == (order, stood)


@given(st.lists(st.tuples(st.sampled_from(["inbox-kind", "inbox-origin", "inbox-timestamp", "x"]), st.binary())))
def test_headers_that_are_not_ours_are_no_order_and_no_error(found: list[tuple[str, bytes]]) -> None:
    assert parse_inbox(Record("x.inbox", 0, 0, None, b"", tuple(found), 0)) is None


def test_when_the_source_has_grown_the_key_decides_where_its_events_go_now() -> None:
    order = InboxOrder(kind="redrive", change="ch-x", origin=Origin("t", 2, 5), timestamp=1, timestamp_type="append")
    stood = Record(*order.origin, b"key", b"", (), 1)
    assert inbox_record(order, stood, partitions=12, grown=True).partition == murmur2(b"key") % 12


@pytest.mark.parametrize(
    ("key", "hashed"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_the_hash_is_javas(key: bytes, hashed: int) -> None:
    """The vectors of Apache Kafka's own UtilsTest."""
    assert murmur2(key) == hashed & 0x7FFFFFFF


def test_an_order_names_its_change() -> None:
    change = f"ch-{uuid.uuid4().hex[:5]}"
    order = InboxOrder(kind="replay", change=change, origin=Origin("t", 0, 1), timestamp=1, timestamp_type="append")
    written = inbox_record(order, Record("t", 0, 1, b"k", b"v", (), 1), partitions=1)
    assert ("inbox-change", change.encode()) in written.headers
