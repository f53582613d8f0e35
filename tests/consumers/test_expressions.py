"""Expressions: what they mean, what is refused and where, and what is known of them before any event."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from consumers.expressions import (
    OMIT,
    ExpressionError,
    ExpressionFailed,
    compile_expression,
    compile_template,
    function,
    parse_template,
)
from consumers.expressions.refusal import capital
from tests.consumers.shop import ORDERED, event


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.order_id", "o-1"),
        ("data['order_id']", "o-1"),
        ("data.lines[0].sku", "S1"),
        ("data.lines[-1]['sku']", "S2"),
        ("(data.lines | first).sku", "S1"),
        ("data.tags[1:]", ["b"]),
        ("data.labels.k", "v"),
        ("data.labels[data.tags[0] ~ ''] | default('none')", "none"),
        ("data.total_minor + 1", 1251),
        ("data.total_minor / 100", 12.5),
        ("data.total_minor // 100 * 2 - -1", 25),
        ("data.total_minor % 100", 50),
        ("data.total_minor >= 1_000 and data.currency in ['EUR', 'USD']", True),
        ("not data.paid or data.weight < 1", True),
        ("1 < data.total_minor <= 1250", True),
        ("'A' ~ data.total_minor ~ data.order_id", "A1250o-1"),
        ("'#emea' if data.currency == 'EUR' else '#us'", "#emea"),
        ("data.coupon is none", True),
        ("data.coupon is defined", True),
        ("data.address is not none and data.address.country == 'DE'", False),
        ("data.address.country is none", True),
        ("data.address.country is defined", False),
        ("data.address.country | default('?')", "?"),
        ("data.coupon | default('no coupon') | upper", "NO COUPON"),
        ("'x' not in data.tags", True),
        ("event.name", "Ordered"),
        ("event.type ~ '/' ~ event.id", "shop.Ordered/e-1"),
        ("event.time | date", "2026-05-01"),
        ("event.time | date('%d.%m.%Y')", "01.05.2026"),
        ("data.at | datetime", "2026-05-01T12:00:00Z"),
        ("data.total_minor | money(data.currency)", "12.50 EUR"),
        ("data.tags | join(', ')", "a, b"),
        ("data.tags | length", 2),
        ("data.weight | round", 0.0),
        ("event.name | snake", "ordered"),
        ("'Größe & Co' | slug", "grosse-co"),
        ("data.labels | json", '{"k":"v"}'),
        ("{'sku': data.lines[0].sku}", {"sku": "S1"}),
    ],
)
def test_an_expression_has_its_value_and_is_the_same_with_and_without_a_contract(text: str, value: Any) -> None:
    assert compile_expression(text, ORDERED).evaluate(event()) == value
    assert compile_expression(text).evaluate(event()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain text", "plain text"),
        ("{{ data.total_minor }}", 1250),
        ("  {{ data.total_minor }}\n", 1250),
        ("{{ data.paid }}", True),
        ("Order {{ data.order_id }}: {{ data.total_minor + 1 }}!", "Order o-1: 1251!"),
        ("{{ '}}' }} and {{ '{{' }}", "}} and {{"),
        ("at {{ data.at }}", "at 2026-05-01T12:00:00Z"),
        ("{{ data.coupon | optional }}", OMIT),
        ("{{ data.address.country | optional }}", OMIT),
        ("{{ data.currency | lower | optional }}", "eur"),
        ("{{ (data.coupon | optional) if data.paid else 'x' }}", OMIT),
        ("{{ data.coupon }}", None),
    ],
)
def test_a_whole_expression_keeps_its_type_and_mixed_text_becomes_text(text: str, value: Any) -> None:
    assert compile_template(text, ORDERED).evaluate(event()) == value


def test_the_name_of_an_event_keeps_its_small_letter_at_the_beginning_of_a_sentence() -> None:
    assert capital("accounts.UserSignedUp has no field 'x'.") == "accounts.UserSignedUp has no field 'x'."
    assert capital("there is no filter 'x'. Did you mean 'y'?") == "There is no filter 'x'. Did you mean 'y'?"


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("data.order_id | uper", 16, "Did you mean 'upper'"),
        ("data.order_idd", 4, "Did you mean 'data.order_id'"),
        ("order_id", 0, "Did you mean 'data.order_id'"),
        ("time", 0, "Did you mean 'event.time'"),
        ("event.date", 5, "The envelope has"),
        ("event", 0, "name one of its parts"),
        ("data.order_id.upper()", 19, "Nothing can be called"),
        ("data.order_id.upper", 13, "filters"),
        ("data.lines.sku", 10, "one of its items"),
        ("2 ** 3", 0, "'**' is not available"),
        ("'a' * 3", 0, "works on numbers"),
        ("'%d' % 5", 0, "works on numbers"),
        ("data.order_id + 1", 0, "'~' puts texts together"),
        ("data.total_minor == '5'", 20, "never equal"),
        ("data.total_minor in ['5']", 20, "never in"),
        ("data.tags < 3", 12, "no order"),
        ("data.coupon | upper", 14, "can be null"),
        ("data.coupon < 'a'", 14, "can be null"),
        ("data.paid | money('EUR')", 12, "needs a whole number"),
        ("data.at | date('%99999d')", 15, "format"),
        ("data.at | date(data.currency)", 19, "written out"),
        ("data.weight | round(1, 'up')", 23, "There is: common, ceil, floor"),
        ("data.order_id | replace('a')", 16, "needs its argument 'new'"),
        ("data.order_id | lower(1)", 16, "takes no arguments"),
        ("data.order_id | truncate(lenght=3)", 32, "Did you mean 'length'"),
        ("data.order_id is null", 14, "is none"),
        ("data.order_id if data.paid", 0, "otherwise"),
        ("data.order_id = 3", 14, "=="),
        ("data[data.order_id]", 4, "named in full"),
        ("data.tags['x']", 9, "one of its items"),
        ("data.coupon | optional", 14, "comes last"),
        ("data.tags | map('upper')", 12, "no filter 'map'"),
        ("data.order_id | allowed", 16, "works on data"),
        ("range(10**9)", 5, "Nothing can be called"),
        ("data.order_id |", 14, "expected"),
        ("", 0, "no expression"),
        ("9223372036854775808", 0, "64 bits"),
        ("'\\ud800'", 0, "half a character"),
        ("[data.total_minor, data.nope]", 23, "no field 'nope'"),
    ],
)
def test_what_is_refused_is_refused_when_it_is_read_with_its_place(text: str, offset: int, words: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_expression(text, ORDERED)
    assert words in str(refused.value)
    assert refused.value.offset == offset
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("{% if x %}", 0, "'{% … %}' is not available"),
        ("a {# b #}", 2, "comment"),
        ("{{- data.order_id }}", 0, "without a sign"),
        ("{{ data.order_id -}}", 17, "without a sign"),
        ("Hello {{ data.order_id", 6, "never closed"),
        ("Hello {{ }}", 8, "no expression"),
        ("Hello {{ data.nope }}", 13, "no field 'nope'"),
        ("Hello {{ data.coupon }}", 6, "can be null"),
        ("Hello {{ data.lines }}", 6, "cannot be put into a text"),
        ("Hello {{ data.coupon | optional }}", 23, "comes last"),
        ("{% raw %}{{ x }}{% endraw %}", 0, "not available"),
    ],
)
def test_templates_are_refused_with_their_place_too(text: str, offset: int, words: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_template(text, ORDERED)
    assert words in str(refused.value)
    assert refused.value.offset == offset


def test_where_braces_are_not_written_they_are_refused_with_the_reason() -> None:
    with pytest.raises(ExpressionError, match="leave the braces out"):
        compile_expression("{{ data.paid }}", ORDERED)


@pytest.mark.parametrize(
    ("text", "data", "code"),
    [
        ("data.address.country", {}, "null_or_wrong_type"),
        ("data.lines[9].sku", {}, "missing"),
        ("(data.tags | first) ~ 'x'", {"tags": []}, "missing"),
        ("data.total_minor // (data.total_minor - 1250)", {}, "division_by_zero"),
        ("data.order_id | replace('o', 'x' ~ data.email)", {"email": "y" * 70_000}, "too_large"),
        ("data.order_id | upper", {"order_id": "x" * 70_000}, "too_large"),
        ("data.order_id ~ data.order_id", {"order_id": "x" * 40_000}, "too_large"),
        ("data.tags | join", {"tags": ["x"] * 1_001}, "too_large"),
        ("data.tags + data.tags", {"tags": ["x"] * 600}, "too_large"),
        ("data.currency | upper", {"currency": None}, "null"),
        ("data.total_minor | money(data.currency)", {"currency": "EURO"}, "out_of_range"),
        ("data.order_id | date", {"order_id": "yesterday"}, "wrong_type"),
    ],
)
def test_an_expression_without_a_value_fails_with_a_code_and_nothing_of_the_event(
    text: str, data: dict[str, Any], code: str
) -> None:
    with pytest.raises(ExpressionFailed) as failed:
        compile_expression(text, ORDERED).evaluate(event(**data))
    assert failed.value.code == code
    assert str(failed.value) == code


def test_the_fields_read_are_known_before_any_event() -> None:
    expression = compile_expression("data.lines[0].sku ~ (data.nick | default(data.email))", ORDERED)
    assert expression.fields == {"lines.sku", "nick", "email"}
    assert compile_expression("data | json", ORDERED).fields == {""}
    assert compile_expression("event.id", ORDERED).fields == frozenset()


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("data.email", {"email"}),
        ("data.email | lower | hash", {"email"}),
        ("data.email[:3] ~ data.nick | default('')", {"email", "name"}),
        ("data.email == 'x'", {"email"}),
        ("'yes' if data.nick else 'no'", {"name"}),
        ("data.nick is none", {"name"}),
        ("data.lines", {"free_text"}),
        ("data.lines[0]", {"free_text"}),
        ("data.lines[0].sku", set()),
        ("(data.lines | last).note", {"free_text"}),
        ("data.lines[:1] | json", {"free_text"}),
        ("data.address.country | default('')", set()),
        ("data.address | json", {"address"}),
        ("data | json", {"email", "name", "free_text", "address"}),
        ("'x' | default(data.email)", {"email"}),
        ("'a' | replace('a', data.email)", {"email"}),
        ("{'a': [data.email]}", {"email"}),
        ("data.labels[data.email]", {"email"}),
        ("data.order_id", set()),
    ],
)
def test_a_personal_data_class_travels_through_everything_that_is_made_of_a_field(text: str, classes: set[str]) -> None:
    assert {one.personal_data for one in compile_expression(text, ORDERED).carried} == classes


def test_allowed_leaves_out_what_may_not_leave_and_what_the_contract_does_not_know() -> None:
    compiled = parse_template("{{ data | allowed }}", ORDERED, allowed=frozenset({"email"}))
    assert {one.personal_data for one in compiled.carried} == {"email"}
    kept = function(compiled)(event(address={"city": "Ulm", "country": "DE"}, new_field="secret"))
    assert kept["email"] == "Ana@X.org"
    assert kept["lines"] == [{"sku": "S1"}, {"sku": "S2"}]
    assert kept["address"] == {"country": "DE"}
    assert not {"nick", "new_field"} & kept.keys()


def test_an_event_of_an_older_schema_reads_as_the_contracts_default() -> None:
    old = event()
    old.data = {name: value for name, value in old.data.items() if name not in ("weight", "coupon")}
    assert compile_expression("data.weight", ORDERED).evaluate(old) == 0.5
    assert compile_expression("data.coupon is none", ORDERED).evaluate(old) is True
    assert compile_template("{{ data.coupon | optional }}", ORDERED).evaluate(old) is OMIT


def test_a_condition_that_has_asked_for_null_frees_what_comes_behind_it() -> None:
    for text in (
        "data.coupon is not none and data.coupon | upper == 'X'",
        "data.coupon | upper if data.coupon else 'none'",
        "'none' if data.coupon is none else data.coupon | upper",
        "data.coupon == 'spring' and data.coupon < 'z'",
        "not (data.coupon is none) and data.coupon < 'z'",
    ):
        compile_expression(text, ORDERED)
    for text in (
        "data.coupon is not none or data.coupon | upper == 'X'",
        "'x' if data.coupon else data.coupon | upper",
        "data.coupon != 'spring' and data.coupon < 'z'",
    ):
        with pytest.raises(ExpressionError, match="can be null"):
            compile_expression(text, ORDERED)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000,
        "not " * 900 + "1",
        "-" * 3_000 + "1",
        "1" + "+1" * 1_500,
        "data" + ".a" * 1_500,
        "data" + "[0]" * 1_000,
        "[" * 2_000,
        "'a'" + "~'a'" * 900,
        "x" * 100_000,
        "9" * 3_900,
        "1 if 1 else " * 300 + "1",
        "data.a" + "|upper" * 600,
        "{" * 3_000,
        "'" * 3_999,
        "\\" * 3_999,
        "data.a[" + "1:" * 1_000,
    ],
)
def test_no_expression_however_built_takes_long_or_shows_a_traceback(text: str) -> None:
    began = time.process_time()
    for compiler in (compile_expression, compile_template):
        with suppress(ExpressionError, ExpressionFailed):
            compiler(text).evaluate(event())
    assert time.process_time() - began < 2


def test_nothing_a_person_writes_becomes_code() -> None:
    for text in (
        "data.__class__",
        "data['__class__']",
        "event.__class__",
        "event.data",
        "__import__('os')",
        "_0",
        "error",
        "data.order_id.__class__.__mro__",
        "''.__class__",
        "self",
        "lipsum.__globals__",
        "cycler.__init__",
        "data.get('x')",
    ):
        try:
            value = compile_expression(text).evaluate(event())
        except (ExpressionError, ExpressionFailed):
            continue
        raise AssertionError(f"{text} gave {value!r}")
