"""Who was erased, as a process knows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.control import Control, erased_record
from consumers.erased import Erased, ErasedPerson, key_id, mark_of, text_of

KEY = b"an installation key"
AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


def person(field: str = "user_id", key: bytes = KEY, at: datetime = AT) -> ErasedPerson:
    moment = at.isoformat(timespec="milliseconds")
    return ErasedPerson(field=field, events=("shop.Ordered",), at=moment, change="ch-1", key_id=key_id(key))


def erased(value: str = "u1", field: str = "user_id") -> Erased:
    found = Erased(KEY)
    found.put(mark_of(field, value, KEY), person(field))
    return found


def test_what_arrived_before_the_erasure_is_held_back_and_what_arrives_later_is_live() -> None:
    found = erased()
    assert found.holds({"user_id": "u1"}, AT_MS - 1)
    assert found.holds({"user_id": "u1"}, AT_MS)
    assert not found.holds({"user_id": "u1"}, AT_MS + 1)


@pytest.mark.parametrize("data", [{}, {"user_id": "u2"}, {"user_id": None}, {"account_id": "u1"}, {"user_id": ["u1"]}])
def test_events_of_others_pass(data: dict[str, Any]) -> None:
    assert not erased().holds(data, AT_MS)


def test_the_field_is_part_of_the_mark() -> None:
    assert mark_of("a", "bc", KEY) != mark_of("ab", "c", KEY)


def test_numbers_and_ids_are_found_by_their_text_and_nothing_else_is() -> None:
    assert erased("7").holds({"user_id": 7}, AT_MS)
    id_ = "0196f7a2-1111-7000-8000-000000000001"
    assert erased(id_).holds({"user_id": UUID(id_)}, AT_MS)
    assert not erased("True").holds({"user_id": True}, AT_MS)
    assert text_of(1.5) is None


def test_an_erasure_later_on_counts_from_then() -> None:
    found = erased()
    found.put(mark_of("user_id", "u1", KEY), person(at=AT + timedelta(hours=1)))
    assert found.holds({"user_id": "u1"}, AT_MS + 1)
    found.put(mark_of("user_id", "u1", KEY), person())  # an order of the first one, read again
    assert found.holds({"user_id": "u1"}, AT_MS + 1)


def test_a_process_without_the_key_of_a_mark_is_blind_to_the_events_that_the_person_may_be_in() -> None:
    for key in (None, b"another installation"):
        found = Erased(key)
        assert not found.is_blind_to({"shop.Ordered"})
        found.put(mark_of("user_id", "u1", KEY), person())
        assert found.is_blind_to({"shop.Ordered", "shop.Cancelled"})
        assert not found.is_blind_to({"shop.Cancelled"})
        assert not found.holds({"user_id": "u1"}, AT_MS)
        found.put(mark_of("user_id", "u1", KEY), None)
        assert not found.is_blind_to({"shop.Ordered"})
    assert not erased().is_blind_to({"shop.Ordered"})


def test_the_control_topic_keeps_the_marks_and_no_value() -> None:
    found = Erased(KEY)
    control = Control(found)
    mark = mark_of("user_id", "u-secret", KEY)
    key, value = erased_record(mark, person())
    assert b"u-secret" not in key + (value or b"")
    assert control.apply(key, value) is None
    assert control.unreadable == 0
    assert control.snapshot().erased == {mark: person()}
    assert found.holds({"user_id": "u-secret"}, AT_MS)
    control.apply(key, None)
    assert not found.holds({"user_id": "u-secret"}, AT_MS)
    assert found.fields == frozenset()


@given(st.binary(max_size=60))
def test_whatever_stands_under_a_mark_is_counted_and_no_error(value: bytes) -> None:
    control = Control()
    control.apply(b"erased|00", value)
    control.apply(b"erased|00|more", value)
    assert control.snapshot().erased == {}
    assert control.unreadable == 2


@given(st.dictionaries(st.text(max_size=3), st.none() | st.booleans() | st.integers() | st.text() | st.binary()))
def test_any_data_is_looked_at_without_an_error(data: dict[str, Any]) -> None:
    assert not erased("some value that nobody has").holds({**data, "user_id": data.get("a")}, AT_MS)
