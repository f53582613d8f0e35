"""Texts that only who has the key can read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.sealing import seal, unseal

KEY = b"0123456789abcdef"


@given(st.text(max_size=300), st.binary(min_size=16, max_size=40))
def test_what_was_sealed_is_read_with_the_same_key_and_shows_nothing(text: str, key: bytes) -> None:
    sealed = seal(text, key)
    assert unseal(sealed, key) == text
    assert len(text) < 8 or text not in sealed


@given(st.text(max_size=100), st.binary(min_size=16, max_size=40))
def test_another_key_reads_nothing(text: str, key: bytes) -> None:
    assert unseal(seal(text, key), key + b"x") is None


def test_the_same_text_is_sealed_otherwise_every_time() -> None:
    assert seal("u1", KEY) != seal("u1", KEY)


@given(st.text(max_size=200) | st.text("abcdefg-_=", max_size=200).map(lambda text: "s1." + text))
def test_whatever_else_is_nothing_sealed_and_no_error(text: str) -> None:
    assert unseal(text, KEY) is None


@given(st.integers(min_value=3, max_value=10_000), st.text(min_size=1, max_size=50))
def test_a_sealed_text_that_was_altered_is_not_read(at: int, text: str) -> None:
    sealed = seal(text, KEY)
    at = 3 + at % (len(sealed) - 8)  # the last letters hold bits that are not used
    other = "A" if sealed[at] != "A" else "B"
    assert unseal(sealed[:at] + other + sealed[at + 1 :], KEY) is None
