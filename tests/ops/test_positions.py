from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.positions import parse_position, parse_time, parse_topic, utc
from schemas.errors import InputError

NOW = datetime(2026, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))  # 12:30 UTC
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "kind", "offset"),
    [
        ("earliest", "earliest", 0),
        ("latest", "latest", 0),
        ("1234", "offset", 1234),
        ("+10", "relative", 10),
        ("-1000", "relative", -1000),
    ],
)
def test_a_plain_number_is_an_offset_and_a_signed_one_counts_from_the_commit(text: str, kind: str, offset: int) -> None:
    position = parse_position(text, NOW)
    assert (position.kind, position.offset) == (kind, offset)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("@2026-05-01T14:00Z", "2026-05-01T14:00:00Z"),
        ("@2026-05-01T14:00", "2026-05-01T12:00:00Z"),
        ("@2026-05-01", "2026-04-30T22:00:00Z"),
        ("@14:00", "2026-05-01T12:00:00Z"),
        ("@23:00", "2026-04-30T21:00:00Z"),  # the last one: today's is still to come
        ("@14:00:30", "2026-05-01T12:00:30Z"),
        ("@-2h", "2026-05-01T10:30:00Z"),
        ("@-1w", "2026-04-24T12:30:00Z"),
    ],
)
def test_times_are_local_and_printed_back_as_utc(text: str, time: str) -> None:
    assert utc(parse_time(text, NOW, zone=BERLIN)) == time


@pytest.mark.parametrize("text", ["14:00", "-2h", "2026-05-01"])
def test_a_time_without_its_sign_is_refused_with_the_advice(text: str) -> None:
    with pytest.raises(InputError, match=f"A time begins with @: @{text}"):
        parse_position(text, NOW)


@given(st.text() | st.from_regex(r"@?[-+]?[0-9:TZ.-]{0,30}[smhdwZ]?"))
def test_any_other_text_is_one_sentence(text: str) -> None:
    sentence = ""
    try:
        position = parse_position(text, NOW)
        assert position.time is None or position.time.tzinfo is UTC
    except InputError as error:
        sentence = str(error)
    assert not sentence or "position" in sentence or "time" in sentence


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2), max_value=datetime(9998, 1, 1)))
def test_a_time_that_was_printed_is_read_back(time: datetime) -> None:
    exact = time.replace(microsecond=time.microsecond // 1000 * 1000)
    assert parse_time(f"@{utc(exact)}", NOW) == exact


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("billing.invoices", ("billing.invoices", None)),
        ("billing.invoices:0,3-5", ("billing.invoices", (0, 3, 4, 5))),
        ("t:7", ("t", (7,))),
    ],
)
def test_topics_name_some_of_their_partitions_or_all(text: str, found: tuple[str, tuple[int, ...] | None]) -> None:
    assert parse_topic(text) == found


@given(st.text() | st.from_regex(r"[a-z.]{1,5}:[0-9,-]{0,20}"))
def test_any_other_topic_is_one_sentence(text: str) -> None:
    sentence = ""
    try:
        topic, partitions = parse_topic(text)
        assert topic
        assert partitions is None or partitions == tuple(sorted(set(partitions)))
    except InputError as error:
        sentence = str(error)
    assert not sentence or "topic" in sentence or "partition" in sentence


@pytest.mark.parametrize("text", ["t:5-3", "t:", "t:0-99999999", "t:0-999999", "", "a b", "x" * 300])
def test_broken_topics_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_topic(text)
