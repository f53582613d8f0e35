"""The format of dead letters."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consumers.deadletter import DETAIL_BYTES_MAX, letter_of, letter_record, parse_letter
from schemas.event import Record

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HEADER = st.tuples(
    st.text(min_size=1, max_size=12).filter(lambda n: not n.startswith("dead-")), st.none() | st.binary(max_size=20)
)
RECORDS = st.builds(
    Record,
    st.from_regex(r"[a-z][a-z./-]{0,20}", fullmatch=True),
    st.integers(0, 99),
    st.integers(0, 1 << 40),
    st.none() | st.binary(max_size=30),
    st.none() | st.binary(max_size=200),
    st.lists(HEADER, max_size=5).map(tuple),
    st.integers(0, 1 << 42),
    st.sampled_from(["append", "create", "none"]),
)


def write(record: Record, *, omit_value: bool = False, detail: str = "data.plan") -> Record:
    letter = letter_of(
        record, outcome="rejected", reason="bad", detail=detail, attempts=2, seconds_tried=3.5, version="x@1", now=NOW
    )
    out = letter_record(letter, omit_value=omit_value)
    return Record("x.dead", out.partition, 5, out.key, out.value, tuple(out.headers), 0)


@given(RECORDS)
def test_a_letter_reads_back_with_the_original_bytes_and_never_looks_like_a_tombstone(record: Record) -> None:
    written = write(record)
    assert written.value is not None
    assert written.partition == record.partition
    letter = parse_letter(written)
    assert letter is not None
    assert letter.record == record
    assert (letter.outcome, letter.reason, letter.attempts) == ("rejected", "bad", 2)
    assert letter.first_at == "2026-05-01T11:59:56.500+00:00"


@given(RECORDS)
def test_a_letter_too_large_for_the_topic_leaves_a_pointer_with_its_size(record: Record) -> None:
    letter = parse_letter(write(record, omit_value=True))
    assert letter is not None
    assert letter.value is None
    assert letter.omitted == (None if record.value is None else len(record.value))


def test_a_long_detail_is_cut_at_a_character() -> None:
    record = Record("t", 0, 0, None, b"v", (), 0)
    letter = parse_letter(write(record, detail="é" * 5000))
    assert letter is not None
    assert len(letter.detail.encode()) <= DETAIL_BYTES_MAX
    assert set(letter.detail) == {"é"}


def test_letters_of_one_cause_share_a_fingerprint_whatever_numbers_they_carry() -> None:
    record = Record("t", 0, 0, None, b"v", (), 0)
    one, other, third = (parse_letter(write(record, detail=d)) for d in ("line 17", "line 4", "field x"))
    assert one is not None
    assert other is not None
    assert third is not None
    assert one.fingerprint == other.fingerprint != third.fingerprint


@given(st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=40), st.lists(HEADER, max_size=4))
def test_what_is_no_letter_is_none_and_no_error(key: bytes | None, value: bytes | None, headers: list) -> None:
    headers.append(("dead-timestamp", b"x"))
    assert parse_letter(Record("x.dead", 0, 0, key, value, tuple(headers), 0)) is None
