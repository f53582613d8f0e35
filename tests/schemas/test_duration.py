"""Spans of time as people write them."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.duration import format_duration, parse_duration
from schemas.errors import InputError


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("60s", timedelta(seconds=60)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("0s", timedelta()),
    ],
)
def test_it_is_read_as_meant(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "m",
        "5 m",
        "-5m",
        "5M",
        "1.5h",
        "5min",
        "30m1h",
        "1h1h",
        "5m\n",
        "٥m",
        "9" * 12 + "d",
        "99999999999999s",
        5,
        None,
        [],
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: Any) -> None:
    with pytest.raises(InputError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 36_500 * 86_400_000))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    span = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(span)) == span


@given(st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_duration(text) >= timedelta()
