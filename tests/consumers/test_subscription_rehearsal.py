"""Tests in YAML: the vendor's script, simulated time, and differences that say what to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.connector import Delivered, Rejected, RetryLater, Unavailable, Unknown
from consumers.rehearsal import Verdict, answer, outcome_of, rehearse
from schemas.errors import InputError
from tests.consumers.shop import CONTRACTS, NOTES, loaded, route

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
