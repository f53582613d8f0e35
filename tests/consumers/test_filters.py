"""The filters one by one: results, bounds, and what they refuse."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from consumers.expressions import filter_table, filters, operators, values
from consumers.expressions.filter_table import FILTERS
from consumers.expressions.values import OMIT, TEXT_MAX, UNDEFINED, ExpressionFailed


@pytest.mark.parametrize(
    ("minor", "currency", "written"),
    [
        (123450, "EUR", "1,234.50 EUR"),
        (-5, "usd", "-0.05 USD"),
        (0, "EUR", "0.00 EUR"),
        (1234, "JPY", "1,234 JPY"),
        (1234567, "KWD", "1,234.567 KWD"),
        (10**18, "EUR", "10,000,000,000,000,000.00 EUR"),
    ],
)
def test_money_is_written_with_its_currencys_digits(minor: int, currency: str, written: str) -> None:
    assert filters.money(minor, currency) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("InvoiceCreated", "invoice_created"),
        ("HTTPServerStarted", "http_server_started"),
        ("UserV2Erased", "user_v2_erased"),
        ("already_snake", "already_snake"),
        ("Two Words-and", "two_words_and"),
    ],
)
def test_snake_makes_names_of_tables(name: str, written: str) -> None:
    assert filters.snake(name) == written


@pytest.mark.parametrize(
    ("text", "written"), [("Größe & Café!", "grosse-cafe"), ("  a  b ", "a-b"), ("日本", ""), ("A/B", "a-b")]
)
def test_slug_makes_parts_of_addresses(text: str, written: str) -> None:
    assert filters.slug(text) == written


def test_times_are_written_in_utc() -> None:
    moment = datetime(2026, 5, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert filters.date_(moment) == "2026-04-30"
    assert filters.datetime_(moment) == "2026-04-30T23:30:00Z"
    assert filters.datetime_(moment, "%H:%M") == "23:30"
    assert filters.date_("2026-05-01T12:00:00Z") == "2026-05-01"
    assert filters.date_(date(2026, 5, 1), "%d.%m.") == "01.05."
    assert filters.datetime_(date(2026, 5, 1)) == "2026-05-01T00:00:00"


@pytest.mark.parametrize("format", ["%999999999d", "%", "%Ex", "%-d", "%c", "x" * 101])
def test_formats_that_could_run_away_or_differ_between_machines_are_refused(format: str) -> None:
    assert filter_table.bad_format(format)


def test_values_become_what_json_has() -> None:
    value = {
        "t": datetime(2026, 5, 1, 12, 0, 0, 5000, tzinfo=UTC),
        "d": date(2026, 5, 1),
        "n": Decimal("1.10"),
        "u": UUID(int=1),
        "b": b"\x00\xff",
        "l": (1, [None, True]),
    }
    assert values.plain(value) == {
        "t": "2026-05-01T12:00:00.005000Z",
        "d": "2026-05-01",
        "n": "1.10",
        "u": "00000000-0000-0000-0000-000000000001",
        "b": "00ff",
        "l": [1, [None, True]],
    }
    with pytest.raises(ExpressionFailed, match="wrong_type"):
        values.plain({"x": object()})


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: filters.replace("a" * 60_000, "a", "bb"), "too_large"),
        (lambda: filters.replace("a" * 60_000, "", "b" * 60_000), "too_large"),
        (lambda: filters.join(["x" * 60_000] * 900), "too_large"),
        (lambda: filters.join(["x"] * 1_000, "y" * 60_000), "too_large"),
        (lambda: filters.join([1, None]), "null"),
        (lambda: operators.add("x" * 60_000, "x" * 60_000), "too_large"),
        (lambda: operators.add([1] * 600, [1] * 600), "too_large"),
        (lambda: operators.add(1, "1"), "wrong_type"),
        (lambda: operators.number("a"), "wrong_type"),
        (lambda: filters.round_(1, -(10**9)), "out_of_range"),
        (lambda: filters.round_(True), "wrong_type"),
        (lambda: filters.truncate("abc", 2, False, "...", 0), "out_of_range"),
        (lambda: filters.money(1.5, "EUR"), "wrong_type"),
        (lambda: filters.money(1, "E R"), "out_of_range"),
        (lambda: filters.upper("ß" * 60_000), "too_large"),
        (lambda: filters.json(["x" * 60_000] * 2), "too_large"),
        (lambda: filters.json(float("nan")), "out_of_range"),
        (lambda: values.text([1]), "wrong_type"),
        (lambda: values.text(b"x"), "wrong_type"),
        (lambda: filters.first({}), "wrong_type"),
        (lambda: filters.first([]), "missing"),
        (lambda: values.check_result("x" * (TEXT_MAX + 1)), "too_large"),
        (lambda: values.check_result([[1] * 1_001]), "too_large"),
        (lambda: values.check_result([[1] * 900] * 900), "too_large"),
        (lambda: values.check_result(float("inf")), "out_of_range"),
        (lambda: values.check_result({1: 2}), "wrong_type"),
        (lambda: values.check_result(object()), "wrong_type"),
        (lambda: values.check_result(OMIT), "wrong_type"),
    ],
)
def test_bounds_hold_before_anything_large_is_made(call: Any, code: str) -> None:
    with pytest.raises(Exception) as raised:
        call()
    assert values.failed(raised.value).code == code


def test_default_replaces_null_and_missing_and_with_true_also_what_is_empty() -> None:
    assert filters.default(None, "x") == "x"
    assert filters.default(UNDEFINED, "x") == "x"
    assert filters.default("", "x") == ""
    assert filters.default("", "x", True) == "x"
    assert filters.default(0, 1) == 0


def test_a_marker_is_never_taken_for_a_truth() -> None:
    with pytest.raises(ExpressionFailed, match="missing"):
        bool(UNDEFINED)


def test_every_filter_has_a_sentence_for_people() -> None:
    assert all(found.doc for found in FILTERS.values())
