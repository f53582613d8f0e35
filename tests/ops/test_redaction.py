"""What is kept of a call: nothing of anybody, and enough to see what was wrong."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.watch.redaction import DEPTH_MAX, ITEMS_MAX, TEXT_MAX, Known, answered, asked, cleared, headers
from schemas.contract_form import PERSONAL_DATA_CLASSES

EMAIL = {"body.email": frozenset({"email"})}


def shown(answer: Any, known: Known | None = None) -> Any:
    return answered(json.dumps(answer).encode(), known or Known())


def test_what_was_asked_is_shown_with_the_class_in_place_of_what_has_one() -> None:
    known = Known()
    body = {"email": "Ada@X.org", "plan": "team", "tags": ["a", None], "seats": 12_345, "note": "x" * 1_000}
    kept = cleared(asked("body", body, EMAIL, known), known)
    assert kept == {
        "email": "‹email›", "plan": "team", "tags": ["a", None], "seats": 12_345,
        "note": "x" * TEXT_MAX + "… ‹1,000 characters›",
    }  # fmt: skip
    assert asked("body", {"email": None}, EMAIL, known) == {"email": None}
    assert asked("body", {"email": "a@b.c"}, {"body": frozenset({"other", "email"})}, known) == "‹email, other›"
    assert asked("entity", "u-1", {"entity": frozenset({"none"})}, known) == "u-1"


def test_a_value_without_a_class_that_says_what_one_with_a_class_says_is_left_out() -> None:
    known = Known()
    kept = asked("body", {"email": "Ada@X.org", "owner": "ada@x.org", "text": "for ADA@x.org!", "c": "x"}, EMAIL, known)
    assert cleared(kept, known) == {"email": "‹email›", "owner": "‹personal›", "text": "‹personal›", "c": "x"}


def test_a_refusal_keeps_its_codes_and_its_shape_and_none_of_its_words() -> None:
    known = Known()
    asked("body", {"email": "ada@x.org", "plan": "team"}, EMAIL, known)
    refusal = {
        "status": "error", "category": "VALIDATION_ERROR", "correlationId": "6f1d1c2e-7c56-5b0a-9d0e-2f6a4f0d7b11",
        "message": 'Property values were not valid: [{"isValid":false,"message":"Email address ada@x.org is invalid"}]',
        "errors": [{"code": "INVALID_EMAIL", "in": "email", "context": {"propertyName": ["email"], "value": ["team"]}}],
        "numErrors": 1, "retry": False, "more": None, "portal": 62_515,
    }  # fmt: skip
    assert shown(refusal, known) == {
        "status": "error", "category": "VALIDATION_ERROR", "correlationId": "6f1d1c2e-7c56-5b0a-9d0e-2f6a4f0d7b11",
        "message": f"‹text, {len(refusal['message'])} characters›",  # type: ignore[arg-type]
        "errors": [{"code": "INVALID_EMAIL", "in": "email",
                    "context": {"propertyName": ["email"], "value": ["team"]}}],
        "numErrors": 1, "retry": False, "more": None, "portal": "‹number›",
    }  # fmt: skip


def test_what_is_no_json_is_its_length() -> None:
    assert answered(b"", Known()) is None
    assert answered(b"<html>ada@x.org</html>", Known()) == "‹no JSON, 22 bytes›"
    assert answered(b"[" * 100_000, Known()) == "‹no JSON, 100,000 bytes›"


def test_large_and_deep_answers_are_bounded() -> None:
    deep: Any = "x"
    for _ in range(DEPTH_MAX + 3):
        deep = [deep]
    assert "‹deeper›" in json.dumps(shown(deep), ensure_ascii=False)
    assert len(shown(list(range(1_000)))) == ITEMS_MAX + 1
    assert len(shown({f"f{chr(97 + n % 26)}{chr(97 + n // 26)}": 1 for n in range(200)})) == ITEMS_MAX + 1


def test_of_headers_only_waits_and_ids_are_kept() -> None:
    given_ = {
        "Retry-After": "7", "X-HubSpot-RateLimit-Remaining": "12", "X-Request-Id": "r-1", "Set-Cookie": "canary",
        "Authorization": "Bearer canary", "X-Slack-Req-Id": "ada", "Location": "/ada",
    }  # fmt: skip
    known = Known()
    asked("body", {"email": "Ada Lovelace"}, EMAIL, known)
    assert headers(given_, known) == {"retry-after": "7", "x-hubspot-ratelimit-remaining": "12", "x-request-id": "r-1"}


VALUES = st.text("abcdefgh0123456789@. -ÄÉ", min_size=5, max_size=20).filter(lambda text: len(text.strip()) >= 5)
FIELDS = st.sampled_from(["message", "code", "category", "errors", "correlationId", "id", "email", "x", "Retry-After"])
FORMS = st.sampled_from([str, str.lower, str.upper, str.strip, lambda t: f"no {t}!", lambda t: f"<{t}|{t}>"])


@given(st.data(), VALUES, st.sampled_from([one for one in PERSONAL_DATA_CLASSES if one != "none"]))
def test_a_personal_value_is_nowhere_whatever_the_vendor_makes_of_it(data: st.DataObject, value: str, one: str) -> None:
    known = Known()
    carried = {"body.person": frozenset({one})}
    body = {"person": value, "plan": "team", "copy": data.draw(st.sampled_from(["x", value, value.upper()]))}
    kept = cleared(asked("body", body, carried, known), known)
    quoted = st.builds(lambda form: form(value), FORMS)
    answer = data.draw(
        st.recursive(
            quoted,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.one_of(FIELDS, quoted), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    everything = json.dumps([kept, shown(answer, known), headers({"Retry-After": value}, known)], ensure_ascii=False)
    assert value.strip().casefold() not in everything.casefold()
