from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.connector import (
    Delivered,
    Delivery,
    Listed,
    Outcome,
    Page,
    Rejected,
    RetryLater,
    Unavailable,
    Unknown,
)
from connectors.hubspot import CONNECTOR
from connectors.hubspot.actions import ContactUpsert
from connectors.hubspot.connector import (
    classify,
    classify_kept,
    classify_listed,
    classify_read,
    kept_value,
    quota_wait,
    wire_properties,
    wire_value,
)
from connectors.hubspot.settings import HubSpotSettings
from connectors.transport import Answer, Lost, NotSent
from schemas.errors import InputError
from tests.connectors.conftest import OpenFaked
from tests.connectors.samples import ask, delivery


def contact(entity: str, offset: int = 0, **body: Any) -> Delivery:
    return delivery("contact.upsert", entity, body, offset=offset)


ONE = contact("u1", email="ana@x.org")
TWO = contact("u2", email="bob@x.org")


def answer(status: int, document: Any = None, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def done(one: Delivery, number: str = "101", **properties: str) -> dict[str, Any]:
    return {"id": number, "new": True, "properties": properties, "objectWriteTraceId": one.idempotency_key}


def failed(category: str | None, **context: Any) -> dict[str, Any]:
    error: dict[str, Any] = {"status": "error", "message": "ana@x.org is wrong", "context": context}
    return error if category is None else error | {"category": category}


# -- the table of the whole call, row by row ------------------------------------------------------------------------

WHOLE_CALL: list[tuple[Any, Outcome]] = [
    (NotSent("refused"), Unavailable("refused")),
    (NotSent("dns"), Unavailable("dns")),
    (NotSent("connect_timeout"), Unavailable("connect_timeout")),
    (NotSent("tls"), Unavailable("tls")),
    (Lost("timeout"), Unknown("timeout")),
    (Lost("cut"), Unknown("cut")),
    (Lost("too_large"), Unknown("too_large")),
    (Lost("unreadable"), Unknown("unreadable")),
    (answer(200, b"<html>hello</html>"), Unknown("not_understood")),
    (answer(200, []), Unknown("not_understood")),
    (answer(200, {"results": "none"}), Unknown("not_understood")),
    (answer(202, {"status": "PENDING"}), Unknown("not_understood")),
    (answer(204, b""), Unknown("not_understood")),
    (answer(302, b""), Unavailable("redirected", needs_operator=True)),
    (answer(303, b""), Unknown("redirected")),
    (answer(400, {"category": "VALIDATION_ERROR"}), Rejected("refused", "400 VALIDATION_ERROR", scope="call")),
    (answer(401, {}), Unavailable("unauthorized", needs_operator=True)),
    (answer(403, {}), Unavailable("forbidden", needs_operator=True)),
    (answer(404, {}), Rejected("refused", "404", scope="call")),
    (answer(408, {}), Unknown("timeout")),
    (answer(409, {"category": "CONFLICT"}), Rejected("conflict", "CONFLICT", scope="call")),
    (answer(410, {}), Unavailable("gone", needs_operator=True)),
    (answer(413, b""), Rejected("refused", "413", scope="call")),
    (answer(423, {}), Unavailable("locked", timedelta(seconds=2), scope="entity")),
    (answer(423, {}, Retry_After="1"), Unavailable("locked", timedelta(seconds=2), scope="entity")),
    (answer(423, {}, Retry_After="9"), Unavailable("locked", timedelta(seconds=9), scope="entity")),
    (answer(429, b""), Unavailable("rate_limited", timedelta(seconds=10), limited=True)),
    (
        answer(429, {"policyName": "TEN_SECONDLY_ROLLING"}),
        Unavailable("rate_limited", timedelta(seconds=10), limited=True),
    ),
    (answer(429, {"policyName": "SECONDLY"}), Unavailable("rate_limited", timedelta(seconds=1), limited=True)),
    (answer(429, {"policyName": "DAILY"}), Unavailable("rate_limited", timedelta(minutes=15), limited=True)),
    (answer(429, {"policyName": ["?"]}), Unavailable("rate_limited", timedelta(seconds=10), limited=True)),
    (
        answer(429, {"policyName": "DAILY"}, Retry_After="3"),
        Unavailable("rate_limited", timedelta(seconds=3), limited=True),
    ),
    (answer(477, {}), Unavailable("migrating", timedelta(minutes=1), limited=True)),
    (answer(477, {}, Retry_After="600"), Unavailable("migrating", timedelta(minutes=10), limited=True)),
    (answer(500, {}), Unknown("server_error")),
    (answer(501, {}), Unknown("server_error")),
    *[(answer(status, b""), Unavailable("unavailable")) for status in (502, 503, 504, 521, 522, 523, 524)],
    (answer(503, b"", Retry_After="4"), Unavailable("unavailable", timedelta(seconds=4))),
]


@pytest.mark.parametrize(("result", "outcome"), WHOLE_CALL, ids=lambda value: repr(value)[:60])
def test_each_answer_to_a_whole_call_means_what_the_table_says(result: Any, outcome: Outcome) -> None:
    assert classify(result, [ONE, TWO], "backbone_id") == [outcome, outcome]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, Rejected("refused", "400")), (404, Rejected("refused", "404")), (409, RetryLater("conflict"))],
)
def test_a_refused_call_of_one_delivery_is_about_that_delivery(status: int, outcome: Outcome) -> None:
    assert classify(answer(status, {}), [ONE], "backbone_id") == [outcome]


# -- the table of the items, row by row -----------------------------------------------------------------------------

ITEMS: list[tuple[dict[str, Any], Outcome, Outcome]] = [
    ({"results": [done(TWO, "102"), done(ONE)]}, Delivered("101"), Delivered("102")),
    (
        {"results": [{"id": "7", "properties": {"backbone_id": "u1"}}, {"id": 8, "properties": {"backbone_id": "u2"}}]},
        Delivered("7"),
        Delivered("8"),
    ),
    (
        {"results": [done(TWO)], "errors": [failed("VALIDATION_ERROR", objectWriteTraceId=[ONE.idempotency_key])]},
        Rejected("refused", "VALIDATION_ERROR"),
        Delivered("101"),
    ),
    (
        {"results": [done(TWO)], "errors": [failed("OBJECT_NOT_FOUND", ids=["u1"])]},
        Rejected("refused", "OBJECT_NOT_FOUND"),
        Delivered("101"),
    ),
    (
        {"results": [], "errors": [failed("VALIDATION_ERROR", ids=["u1", "u2"])]},
        Rejected("refused", "VALIDATION_ERROR"),
        Rejected("refused", "VALIDATION_ERROR"),
    ),
    (
        {"results": [done(TWO)], "errors": [{"category": "CONFLICT", "objectWriteTraceId": ONE.idempotency_key}]},
        RetryLater("conflict"),
        Delivered("101"),
    ),
    (
        {"results": [done(TWO)], "errors": [failed("RATE_LIMITS", ids=["u1"])]},
        Unavailable("rate_limited", timedelta(seconds=1), scope="entity"),
        Delivered("101"),
    ),
    (
        {"results": [done(TWO)], "errors": [failed("NEW_THING", ids=["u1"])]},
        RetryLater("vendor_error"),
        Delivered("101"),
    ),
    ({"results": [done(TWO)], "errors": [failed(None, ids=["u1"])]}, RetryLater("vendor_error"), Delivered("101")),
    (
        {"results": [done(TWO)], "errors": [failed("VALIDATION_ERROR")]},
        Rejected("refused", "VALIDATION_ERROR", scope="call"),
        Delivered("101"),
    ),
    ({"results": [done(TWO)]}, Unknown("no_result"), Delivered("101")),
    ({"results": [], "numErrors": 0}, Unknown("no_result"), Unknown("no_result")),
    ({}, Unknown("no_result"), Unknown("no_result")),
    ({"results": [None, 3], "errors": [None, "x"]}, Unknown("no_result"), Unknown("no_result")),
    ({"results": [done(TWO)], "errors": "many"}, Unknown("no_result"), Delivered("101")),
]


@pytest.mark.parametrize("status", [200, 201, 207])
@pytest.mark.parametrize(("document", "first", "second"), ITEMS)
def test_each_item_of_an_answer_means_what_the_table_says(
    status: int, document: Mapping[str, Any], first: Outcome, second: Outcome
) -> None:
    assert classify(answer(status, document), [ONE, TWO], "backbone_id") == [first, second]


def test_an_error_that_names_nobody_is_about_the_only_delivery() -> None:
    document = {"results": [], "errors": [failed("VALIDATION_ERROR")]}
    assert classify(answer(207, document), [ONE], "backbone_id") == [Rejected("refused", "VALIDATION_ERROR")]


def test_a_kept_lifecycle_stage_is_noted_and_not_lost() -> None:
    sent = contact("u1", lifecyclestage="lead")
    kept = {"results": [done(sent, lifecyclestage="customer")]}
    same = {"results": [done(sent, lifecyclestage="lead")]}
    assert classify(answer(200, kept), [sent], "backbone_id") == [Delivered("101", "lifecyclestage_kept")]
    assert classify(answer(200, same), [sent], "backbone_id") == [Delivered("101")]


def test_details_hold_codes_and_property_names_but_nothing_that_was_sent() -> None:
    document = {
        "category": "VALIDATION_ERROR",
        "message": "Property values were not valid: secret@x.org",
        "correlationId": "aeb5f871-7f07-4993-9211-075dc63e7cbf",
        "errors": [
            {
                "message": "secret@x.org",
                "code": "INVALID_EMAIL",
                "context": {"propertyName": ["email", "secret@x.org"]},
            },
            {"in": "firstname", "code": "secret@x.org", "subCategory": "PROPERTY_DOESNT_EXIST"},
            "secret@x.org",
        ],
    }
    (outcome,) = classify(answer(400, document), [ONE], "backbone_id")
    assert outcome == Rejected(
        "refused",
        "400 VALIDATION_ERROR INVALID_EMAIL property=email PROPERTY_DOESNT_EXIST property=firstname "
        "correlation=aeb5f871-7f07-4993-9211-075dc63e7cbf",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.sampled_from([ONE.idempotency_key, "u1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "errors", "context", "ids", "id", "category", "properties", "status", "in"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values, st.integers(100, 599))
def test_whatever_the_answer_each_delivery_gets_one_outcome(document: Any, status: int) -> None:
    outcomes = classify(answer(status, document), [ONE, TWO], "backbone_id")
    assert len(outcomes) == 2


@pytest.mark.parametrize(
    ("given_answer", "seconds"),
    [
        (answer(200, {}), None),
        (answer(200, {}, X_HubSpot_RateLimit_Remaining="3"), None),
        (answer(200, {}, **{"X-HubSpot-RateLimit-Remaining": "0"}), 1),
        (
            answer(
                200,
                {},
                **{"X-HubSpot-RateLimit-Remaining": "0", "X-HubSpot-RateLimit-Interval-Milliseconds": "5000"},
            ),
            0.5,
        ),
        (
            answer(
                200,
                {},
                **{"X-HubSpot-RateLimit-Remaining": "0", "X-HubSpot-RateLimit-Interval-Milliseconds": "9" * 30},
            ),
            1,
        ),
        (answer(200, {}, **{"X-HubSpot-RateLimit-Daily-Remaining": "0"}), 900),
        (answer(429, {"policyName": "SECONDLY"}), 1),
        (answer(503, b"", Retry_After="4"), 4),
        (answer(503, b""), None),
        (answer(400, {}, **{"X-HubSpot-RateLimit-Remaining": "0"}), 1),
    ],
)
def test_quota_headers_and_retry_after_make_a_pause(given_answer: Answer, seconds: float | None) -> None:
    assert quota_wait(given_answer) == (None if seconds is None else timedelta(seconds=seconds))


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Ana", "Ana"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        (Decimal("12.50"), "12.50"),
        (date(2026, 11, 20), "2026-11-20"),
        (datetime(2026, 11, 20, 12, 0, tzinfo=timezone(timedelta(hours=2))), "2026-11-20T10:00:00.000Z"),
        (datetime(2026, 11, 20, 12, 0), "2026-11-20T12:00:00.000Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (["a", 1, True], "a;1;true"),
        ([], ""),
        (float("nan"), None),
        (Decimal("Infinity"), None),
        (Decimal("1E+99999"), None),
        (1 << 70, None),
        (10**5000, None),
        ({"a": 1}, None),
        ([["a"]], None),
        (b"x", None),
        pytest.param(object(), None, id="an object"),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "",
)
def test_every_value_goes_as_text_or_not_at_all(value: object, text: str | None) -> None:
    assert wire_value(value) == text


def test_a_null_clears_and_what_is_left_out_is_not_sent() -> None:
    assert wire_properties(contact("u1", email="a@x.org", firstname=None)) == {"email": "a@x.org", "firstname": ""}


@pytest.mark.parametrize(
    "wrong",
    [
        contact("", email="a@x.org"),
        contact("u1", email={"secret@x.org": 1}),
        contact("u1", **{"not a property": "x"}),
        delivery("deal.upsert", "u1", {}),
    ],
)
async def test_a_body_that_hubspot_cannot_take_is_rejected_alone_and_without_its_values(
    wrong: Delivery, open_faked: OpenFaked
) -> None:
    connector, control = await open_faked(CONNECTOR)
    first, second = await ask(connector, wrong, TWO)
    assert isinstance(first, Rejected)
    assert first.scope == "delivery"
    assert "secret" not in first.detail
    assert isinstance(second, Delivered)
    assert await ask(connector, wrong) == [first]
    assert (await control.report())["calls"] == 1


# -- custom properties ----------------------------------------------------------------------------------------------


def test_custom_properties_of_a_connection_become_fields_of_the_body() -> None:
    connection = CONNECTOR.configured({"connector": "hubspot", "custom_properties": ["plan", "upgraded_on", "email"]})
    body = connection.actions["contact.upsert"].body
    assert {"plan", "upgraded_on", "email"} <= set(body.model_fields)
    assert body.__doc__ == ContactUpsert.__doc__
    body.model_validate({"plan": "pro", "upgraded_on": date(2026, 11, 20), "email": None})
    with pytest.raises(ValidationError):
        body.model_validate({"plann": "pro"})
    with pytest.raises(ValidationError):
        CONNECTOR.actions["contact.upsert"].body.model_validate({"plan": "pro"})


@pytest.mark.parametrize("names", ["plan", [1], ["Plan"], ["a b"], ["x" * 101], {"plan": 1}, None, ["a"] * 1001])
def test_custom_properties_that_cannot_be_are_named_in_one_sentence(names: Any) -> None:
    with pytest.raises(InputError, match="custom_properties"):
        CONNECTOR.configured({"custom_properties": names})


def test_every_field_of_the_body_says_what_it_is() -> None:
    schema = ContactUpsert.model_json_schema()
    assert schema["description"]
    assert all(field.get("description") for field in schema["properties"].values())
    for example in schema["examples"]:
        ContactUpsert.model_validate(example)


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"token": ""}, "token"),
        ({"token": "canary\nX-Evil: 1"}, "token"),
        ({"token": "canary", "base_url": "http://api.hubapi.com"}, "base_url"),
        ({"token": "canary", "base_url": "https://u:canary@api.hubapi.com"}, "base_url"),
        ({"token": "canary", "base_url": "ftp://x"}, "base_url"),
        ({"token": "canary", "api_version": "v9"}, "api_version"),
        ({"token": "canary", "timeout_s": 31}, "timeout_s"),
        ({"token": "canary", "timeout_s": 0}, "timeout_s"),
        ({"token": "canary", "tokn": "canary"}, "tokn"),
        ({}, "token"),
    ],
)
def test_wrong_settings_name_the_field_and_never_the_value(wrong: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HubSpotSettings(**wrong)
    assert place in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_token_shows_in_no_repr() -> None:
    settings = HubSpotSettings(token="canary")  # type: ignore[arg-type]
    assert "canary" not in repr(settings) + str(settings)


# -- with the fake --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v3", "2026-03", "2026-09"])
async def test_contacts_are_made_and_updated_by_the_unique_property(open_faked: OpenFaked, version: str) -> None:
    connector, control = await open_faked(CONNECTOR, api_version=version)
    outcomes = await ask(connector, contact("u1", email="Ana@X.org", firstname="Ana"), TWO)
    assert outcomes == [Delivered("101"), Delivered("102")]
    assert await ask(connector, contact("u1", offset=1, firstname=None, plan="pro")) == [Delivered("101")]
    report = await control.report()
    assert report["contacts"]["u1"] == {
        "backbone_id": "u1",
        "hs_object_id": "101",
        "email": "ana@x.org",
        "firstname": "",
        "plan": "pro",
    }
    assert [entity for entity, _ in report["applications"]] == ["u1", "u2", "u1"]
    assert (report["applied"], report["duplicates"]) == (3, 0)


async def test_the_same_delivery_twice_is_one_contact_and_counted_as_duplicate(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    assert await ask(connector, ONE) == await ask(connector, ONE)
    report = await control.report()
    assert (len(report["contacts"]), report["applied"], report["duplicates"]) == (1, 2, 1)


@pytest.mark.parametrize("version", ["v3", "2026-03"])
async def test_one_wrong_contact_does_not_hold_up_the_others(open_faked: OpenFaked, version: str) -> None:
    connector, _ = await open_faked(CONNECTOR, api_version=version)
    wrong = contact("u3", email="not-an-address")
    taken = contact("u4", email="ana@x.org")
    outcomes = await ask(connector, ONE, wrong, taken, TWO)
    assert outcomes == [
        Delivered("101"),
        Rejected("refused", "VALIDATION_ERROR"),
        RetryLater("conflict"),
        Delivered("102"),
    ]


async def test_a_stage_never_goes_backwards_and_the_rest_is_applied(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, contact("u1", lifecyclestage="customer"))
    later = contact("u1", offset=1, lifecyclestage="lead", firstname="Ana")
    assert await ask(connector, later) == [Delivered("101", "lifecyclestage_kept")]
    held = (await control.report())["contacts"]["u1"]
    assert (held["lifecyclestage"], held["firstname"]) == ("customer", "Ana")


@pytest.mark.parametrize(
    ("named", "outcome"),
    [
        ("trace", Rejected("refused", "VALIDATION_ERROR")),
        ("ids", Rejected("refused", "VALIDATION_ERROR")),
        ("none", Rejected("refused", "VALIDATION_ERROR", scope="call")),
    ],
)
async def test_partial_failures_are_matched_however_they_are_named(
    open_faked: OpenFaked, named: str, outcome: Outcome
) -> None:
    connector, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "partial", "fail": 1, "named": named})
    assert await ask(connector, ONE, TWO) == [outcome, Delivered("101")]


async def test_more_than_a_hundred_are_refused_by_hubspot_as_one_call(open_faked: OpenFaked) -> None:
    connector, _ = await open_faked(CONNECTOR)
    outcomes = await ask(connector, *[contact(f"u{number}") for number in range(101)])
    assert {(type(outcome), getattr(outcome, "scope", "")) for outcome in outcomes} == {(Rejected, "call")}


async def test_a_spent_quota_pauses_the_connection_before_hubspot_has_to_say_so(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "quota", "max": 2, "per_ms": 60_000})
    await ask(connector, ONE)
    assert connector.pause_until == 0.0
    await ask(connector, ONE)
    assert 0 < connector.pause_until - time.monotonic() <= 6
    assert await ask(connector, ONE) == [Unavailable("rate_limited", timedelta(seconds=10), limited=True)]
    assert connector.pause_until - time.monotonic() > 1


# -- erasing --------------------------------------------------------------------------------------------------------


def erase(entity: str, **body: Any) -> Delivery:
    return delivery("contact.erase", entity, body)


@pytest.mark.parametrize("version", ["v3", "2026-03"])
async def test_an_erased_contact_is_gone_for_good_and_erasing_it_again_is_fine(
    open_faked: OpenFaked, version: str
) -> None:
    connector, control = await open_faked(CONNECTOR, api_version=version)
    await ask(connector, contact("u1", email="ana@x.org"), contact("u2", email="bob@x.org"))
    assert await ask(connector, erase("u1"), erase("u9")) == [Delivered("101"), Delivered(note="was_not_there")]
    assert set((await control.report())["contacts"]) == {"u2"}
    assert await ask(connector, erase("u1")) == [Delivered(note="was_not_there")]
    (again,) = await ask(connector, contact("u1", email="ana@x.org"))  # who comes back is another contact
    assert again == Delivered("103")
    assert (await control.report())["erased"] == 1


async def test_a_batch_of_erasures_ends_at_the_first_that_is_refused_and_the_rest_uses_no_attempt(
    open_faked: OpenFaked,
) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, contact("u1"), contact("u2"), contact("u3"))
    await control.misbehave({"kind": "quota", "max": 2, "per_ms": 60_000})
    first, second, third = await ask(connector, erase("u1"), erase("u2"), erase("u3"))
    assert first == Delivered("101")
    assert isinstance(second, Unavailable)
    assert second.limited
    assert third == Unavailable("not_asked", scope="entity", limited=True)


async def test_an_erasure_with_a_body_or_without_an_entity_is_refused(open_faked: OpenFaked) -> None:
    connector, _ = await open_faked(CONNECTOR)
    for wrong in (erase("u1", email="ana@x.org"), erase("")):
        (outcome,) = await ask(connector, wrong)
        assert isinstance(outcome, Rejected)


READ: list[tuple[Any, list[Any]]] = [
    (answer(200, {"results": [{"id": "7", "properties": {"backbone_id": "u1"}}]}), ["7", Unknown("no_result")]),
    (
        answer(207, {"results": [], "errors": [{"category": "OBJECT_NOT_FOUND", "context": {"ids": ["u1", "u2"]}}]}),
        [Delivered(note="was_not_there")] * 2,
    ),
    (answer(207, {"results": [], "errors": [{"category": "RATE_LIMITS", "context": {"ids": ["u1"]}}, 3]}),
     [Unknown("no_result")] * 2),
    (answer(200, {"results": [7, {"id": 7, "properties": {"backbone_id": "u1"}}]}), [Unknown("no_result")] * 2),
    (answer(200, {}), [Unknown("not_understood")] * 2),
    (answer(200, b"hello"), [Unknown("not_understood")] * 2),
    (answer(404, {}), [Rejected("refused", "404", scope="call")] * 2),
    (answer(401, {}), [Unavailable("unauthorized", needs_operator=True)] * 2),
    (Lost("cut"), [Unknown("cut")] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("result", "found"), READ, ids=lambda value: repr(value)[:50])
def test_who_is_to_be_erased_is_known_or_the_question_is_asked_again(result: Any, found: list[Any]) -> None:
    assert classify_read(result, [ONE, TWO], "backbone_id") == found


async def test_a_deletion_that_hubspot_refuses_is_never_taken_for_done(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, contact("u1"))
    read_is_fine = {
        "kind": "status",
        "status": 200,
        "body": {"results": [{"id": "9", "properties": {"backbone_id": "u1"}}]},
    }
    for status in (200, 202, 400, 404, 409, 500):
        await control.misbehave(read_is_fine, {"kind": "status", "status": status, "body": {}})
        (outcome,) = await ask(connector, erase("u1"))
        assert not isinstance(outcome, Delivered), status


# -- reading back ---------------------------------------------------------------------------------------------------


async def test_contacts_read_back_as_they_were_asked_and_what_somebody_changed_is_found(open_faked: OpenFaked) -> None:
    made, control = await open_faked(CONNECTOR)
    connector: Any = made
    moment = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    ana = contact(
        "u1", email="Ana@X.org", firstname="Ana", jobtitle=None, plan="pro", seats=5, paid=True, since=moment,
        day=date(2026, 5, 1), tags=["a", "b"], ratio=Decimal("1.50"), lifecyclestage="lead",
    )  # fmt: skip
    await ask(connector, ana, TWO)
    first, second, third = await connector.read_back([ana, TWO, contact("u3", city="Graz")])
    assert first.asked == first.found
    assert set(first.asked) == set(ana.body)
    assert (second.asked, second.found, second.reference) == ({"email": "bob@x.org"}, {"email": "bob@x.org"}, "102")
    assert third is None
    await ask(connector, contact("u1", offset=1, plan="free", lifecyclestage="customer"))
    (changed,) = await connector.read_back([ana])
    assert (changed.asked["plan"], changed.found["plan"]) == ("pro", "free")
    # HubSpot keeps a later stage, as it documents
    assert {name for name in changed.asked if changed.asked[name] != changed.found[name]} == {"plan"}
    wrong, fine = await connector.read_back([contact("u9", plan=object()), TWO])
    assert isinstance(wrong, Rejected)
    assert fine.asked == fine.found
    assert await connector.read_back([contact("u9", plan=object())]) == [wrong]
    assert (await control.report())["applied"] == 3


async def test_a_page_of_a_hundred_contacts_is_one_call(open_faked: OpenFaked) -> None:
    made, control = await open_faked(CONNECTOR)
    connector: Any = made
    batch = [contact(f"u{number}", city="Graz") for number in range(100)]
    await ask(connector, *batch)
    before = (await control.report())["calls"]
    found = await connector.read_back(batch)
    assert all(one.asked == one.found for one in found)
    assert (await control.report())["calls"] == before + 1


async def test_our_contacts_are_listed_page_by_page_and_those_of_others_are_not(
    open_faked: OpenFaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.hubspot.connector.LIST_PAGE", 2)
    made, _ = await open_faked(CONNECTOR)
    connector: Any = made
    for number in range(5):
        await ask(connector, contact(f"u{number}", city="Graz"))
    theirs, _ = await open_faked(CONNECTOR, base_url=connector._transport._base, unique_property="crm_id")
    await ask(theirs, contact("x1", city="Wien"))
    found: list[Listed] = []
    after: str | None = ""
    while after is not None:
        page = await connector.list_ours({}, after)
        assert isinstance(page, Page)
        found += page.found
        after = page.after
    assert [(one.entity, one.reference) for one in found] == [(f"u{number}", str(101 + number)) for number in range(5)]
    assert all(one.made_at is not None and one.made_at.tzinfo is not None for one in found)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Lost("timeout"), "timeout"), (NotSent("dns"), "dns"), (answer(200, []), "not_understood"),
        (answer(200, {"results": 1}), "not_understood"), (answer(401, {}), "unauthorized"),
        (answer(503, b""), "unavailable"), (answer(400, {}), "refused"), (answer(500, {}), "server_error"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_so_and_is_never_taken_for_missing(result: Any, reason: str) -> None:
    wired = [{"email": "ana@x.org"}, {"email": "bob@x.org"}]
    for found in (classify_kept(result, [ONE, TWO], wired, "backbone_id"), classify_listed(result, "backbone_id")):
        assert isinstance(found, Unavailable)
        assert found.reason == reason
    nothing = classify_kept(answer(200, {"results": []}), [ONE], wired[:1], "backbone_id")
    assert nothing == [Rejected("no_result")]  # neither there nor said to be missing


@given(st.text(max_size=30), st.one_of(st.none(), st.text(max_size=30)))
def test_a_text_is_the_same_only_where_it_is(sent: str, held: str | None) -> None:
    asked, found = kept_value("city", sent, sent, held)
    assert (asked == found) == (sent == (held or ""))


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda one: one.replace(microsecond=0)))
def test_a_time_is_the_same_however_hubspot_writes_it(moment: datetime) -> None:
    sent = wire_value(moment) or ""
    stamp = int((moment - datetime(1970, 1, 1)).total_seconds() * 1000)
    for held in (sent, str(stamp), moment.isoformat() + "+00:00"):
        asked, found = kept_value("since", moment, sent, held)
        assert asked == found
    asked, found = kept_value("since", moment, sent, str(stamp + 1000))
    assert asked != found
