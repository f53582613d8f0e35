"""Tests in YAML: the vendor's script, simulated time, and differences that say what to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.connector import Delivered, Rejected, RetryLater, Unavailable, Unknown
from consumers.rehearsal import Verdict, answer, outcome_of, rehearse
from consumers.subscription import load_text
from schemas.errors import InputError
from tests.consumers.shop import CONTRACTS, HEAD, NOTES, loaded, route

TEXT = route("{title: '{{ data.currency | upper }}', amount: '{{ data.total_minor }}', when: '{{ data.at }}'}").replace(
    "    action", "    where: data.total_minor > 10\n    action"
)


def verdict(folder: Path, test: dict[str, Any], text: str = TEXT) -> Verdict:
    test = {"name": "a test", "given": [{"event": "shop.Ordered"}], **test}
    (found,) = rehearse(loaded(folder, text + yaml.safe_dump({"tests": [test]})), CONTRACTS)
    return found


@pytest.mark.parametrize(
    ("vendor", "outcome", "attempts"),
    [
        ([], "delivered", 1),
        (["ok"], "delivered", 1),
        (["429 after 2s", "timeout", "ok"], "delivered", 2),
        (["429", "503", "refused", "busy", "ok"], "delivered", 1),
        ([500, "ok"], "delivered", 2),
        (["500 for 20m"], "exhausted", None),
        (["500 for 1m"], "delivered", None),
        (["503 for 2h"], "delivered", 1),
        (["400"], "rejected", 1),
        (["cut", "422"], "unknown", 2),
        (["401"], "waiting", 0),
        (["204"], "delivered", 1),
    ],
)
def test_the_vendors_script_is_settled_as_in_production(
    tmp_path: Path, vendor: list[Any], outcome: str, attempts: int | None
) -> None:
    expected = {"outcome": outcome} | ({} if attempts is None else {"attempts": attempts})
    assert verdict(tmp_path, {"vendor": vendor, "expect": [expected]}).differences == ()


def test_hold_sets_an_unknown_outcome_aside(tmp_path: Path) -> None:
    text = TEXT.replace("routes:", "policies: {on_unknown: hold}\nroutes:")
    assert verdict(tmp_path, {"vendor": ["timeout"], "expect": [{"outcome": "unknown", "attempts": 1}]}, text).passed


@pytest.mark.parametrize(
    ("vendor", "outcome", "attempts"),
    [
        (["timeout", "ok"], "delivered", 2),  # a look-up that is not answered otherwise did not find it
        (["timeout", "missing", "ok"], "delivered", 2),
        (["timeout", "found"], "delivered", 1),
        (["500", "cut", "found"], "delivered", 2),
    ],
)
def test_a_lost_answer_is_looked_up(tmp_path: Path, vendor: list[str], outcome: str, attempts: int) -> None:
    text = TEXT.replace("routes:", "policies: {on_unknown: look_up}\nroutes:")
    expected = {"outcome": outcome, "attempts": attempts}
    test = {"name": "a test", "given": [{"event": "shop.Ordered"}], "vendor": vendor, "expect": [expected]}
    asking = {"notes": replace(NOTES, look_up=True)}
    subscription = load_text(
        "notes-test", text + yaml.safe_dump({"tests": [test]}), contracts=CONTRACTS, connections=asking, folder=tmp_path
    )
    (found,) = rehearse(subscription, CONTRACTS)
    assert found.differences == ()


def test_a_word_for_a_look_up_is_refused_where_none_is_asked(tmp_path: Path) -> None:
    (difference,) = verdict(tmp_path, {"vendor": ["found"], "expect": [{}]}).differences
    assert "answers a look-up, and none is asked" in difference


@pytest.mark.parametrize(
    ("given", "vendor", "outcome"),
    [
        ({"time": "2026-05-01T10:59:00Z"}, [], "expired"),
        ({"time": "2026-05-01T11:01:00Z"}, [], "delivered"),
        ({"time": "2026-05-02T12:00:00Z"}, [], "delivered"),  # the newest event is of now
        ({}, ["503 for 2h"], "expired"),
        ({}, ["503 for 30m"], "delivered"),
    ],
)
def test_what_is_too_old_before_it_can_be_sent_expires(
    tmp_path: Path, given: dict[str, str], vendor: list[str], outcome: str
) -> None:
    text = TEXT.replace("routes:", "policies: {expire_after: 1h}\nroutes:")
    test = {"given": [{"event": "shop.Ordered", **given}], "vendor": vendor, "expect": [{"outcome": outcome}]}
    assert verdict(tmp_path, test, text).differences == ()


LATEST = (
    HEAD + "policies: {send: latest, retry: {attempts: 1, within: 1s}}\nroutes:\n"
    "  - {event: shop.Ordered, action: note.put, entity: '{{ data.order_id }}', "
    "body: {title: '{{ data.currency }}', amount: '{{ data.total_minor }}'}}\n"
    "  - {event: shop.Cancelled, action: note.put, body: {title: '{{ data.reason }}'}}\n"
)
TWO = [{"event": "shop.Ordered"}, {"event": "shop.Cancelled", "data": {"reason": "late"}}]
OTHER = {"event": "shop.Ordered", "data": {"order_id": "o-2"}}


@pytest.mark.parametrize(
    ("given", "vendor", "expect"),
    [
        (TWO, [], [{"outcome": "merged"}, {"outcome": "delivered", "body": {"title": "late", "amount": 1250}}]),
        (TWO, [500, "ok"], [{"outcome": "merged"}, {"outcome": "delivered", "attempts": 2}]),
        # refused together, each is asked alone
        (TWO, [422, 422, "ok"], [{"outcome": "rejected"}, {"outcome": "delivered", "without": ["amount"]}]),
        # another entity between them is another lane: it neither merges nor keeps them apart
        ([TWO[0], OTHER, TWO[1]], [], [{"outcome": "merged"}, {"entity": "o-2"}, {"outcome": "delivered"}]),
    ],
)
def test_with_send_latest_waiting_events_about_one_thing_are_one_delivery(
    tmp_path: Path, given: list[dict[str, Any]], vendor: list[Any], expect: list[dict[str, Any]]
) -> None:
    assert verdict(tmp_path, {"given": given, "vendor": vendor, "expect": expect}, LATEST).differences == ()


def test_given_events_are_completed_by_the_contracts_examples_and_times_by_their_text(tmp_path: Path) -> None:
    given = [{"event": "shop.Ordered", "id": "i", "data": {"total_minor": 99, "at": "2026-01-02T03:04:05Z"}}]
    body = {"title": "EUR", "amount": 99, "when": "2026-01-02T03:04:05Z"}
    assert verdict(tmp_path, {"given": given, "expect": [{"entity": "o-1", "body": body}]}).differences == ()


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"expect": []}, "0 events should be ours, 1 were: shop.Ordered delivered -> note.put of o-1"),
        (
            {"given": [{"event": "shop.Ordered", "data": {"total_minor": 1}}], "expect": [{}]},
            "1 events should be ours, 0",
        ),
        ({"expect": [{"body": {"title": "USD"}}]}, "expect[0].body.title: expected 'USD', got 'EUR'"),
        ({"expect": [{"body": {"titel": "USD"}}]}, "has no 'titel'; it has title, amount, when. Did you mean 'title'?"),
        ({"expect": [{"body": {"amount": True}}]}, "expected True, got 1250"),
        ({"expect": [{"entity": "o-2"}]}, "expect[0].entity: expected 'o-2', got 'o-1'"),
        ({"expect": [{"attempts": 2}]}, "expect[0].attempts: expected 2, got 1"),
        ({"expect": [{"without": ["title"]}]}, "has 'title', which it should not"),
        ({"vendor": ["400"], "expect": [{"outcome": "delivered"}]}, "expected delivered, got rejected (http_400)"),
        (
            {"given": [{"event": "shop.Ordered", "data": {"currency": "x" * 21}}], "expect": [{"action": "note.put"}]},
            "nothing was asked of the vendor: rejected (projection: routes[0] body.title: string_too_long)",
        ),
        ({"given": [{"event": "shop.Ordered", "data": {"total_minor": "many"}}], "expect": []}, "given[0]: "),
        ({"given": [{"event": "shop.Ordered", "data": {"at": "noon"}}], "expect": []}, "field at must be a time"),
        ({"given": [{"event": "shop.Ordered", "time": "noon"}], "expect": []}, "given[0].time is no time"),
    ],
)
def test_a_failing_test_says_what_differs(tmp_path: Path, test: dict[str, Any], words: str) -> None:
    found = verdict(tmp_path, test)
    assert not found.passed
    assert words in found.differences[0]


@pytest.mark.parametrize("word", ["okay", "99", "600", "429 after", "429 after soon", "ok ok", "", "429 for ever"])
def test_words_no_vendor_says_are_refused(word: str) -> None:
    with pytest.raises(InputError):
        answer(word)


def test_a_status_means_what_http_says_where_the_connector_says_nothing() -> None:
    kinds = {
        "ok": Delivered, "200": Delivered, "302": Unavailable, "400": Rejected, "401": Unavailable, "409": RetryLater,
        "429": Unavailable, "500": RetryLater, "503": Unavailable, "timeout": Unknown, "cut": Unknown,
        "refused": Unavailable, "busy": Unavailable,
    }  # fmt: skip
    for word, kind in kinds.items():
        assert isinstance(outcome_of(answer(word), NOTES), kind), word
