"""What the contracts of an event and of its successor must say of each other."""

from __future__ import annotations

import copy
import json
from datetime import date
from typing import Any

import pytest

from schemas.contract import Contract, contract_from_schema, contract_problems, load_contracts
from schemas.lint import side_by_side
from schemas.replacement import replacement_problems, successor_name
from tests.conftest import ROOT

TODAY = date(2026, 5, 1)
SCHEMA: dict[str, Any] = json.loads(load_contracts(ROOT / "schemas" / "events")["billing.InvoicePaid"].text)


def event(name: str, **promises: Any) -> Contract:
    schema = copy.deepcopy(SCHEMA)
    schema["name"] = name
    schema["backbone"] |= promises
    return contract_from_schema(schema, f"{name}.avsc")


OLD = event("Paid", status="deprecated", sunset="2026-06-30", replaced_by="billing.PaidV2")
NEW = event("PaidV2", replaces="billing.Paid")


def found(*contracts: Contract) -> list[tuple[str, str]]:
    known = {one.name: one for one in contracts}
    problems = [problem for one in contracts for problem in replacement_problems(one, known, TODAY)]
    return [(problem.rule, problem.message) for problem in problems]


def test_two_that_agree_have_nothing_to_find_and_say_it_as_properties() -> None:
    assert found(OLD, NEW) == []
    assert (OLD.replaced_by, OLD.sunset, OLD.replaces) == ("billing.PaidV2", date(2026, 6, 30), None)
    assert (NEW.replaces, NEW.sunset, NEW.replaced_by) == ("billing.Paid", None, None)


@pytest.mark.parametrize(
    ("contracts", "rule", "says"),
    [
        ((event("Paid", replaces="billing.Paid"),), "replaces", "does not replace itself"),
        ((event("PaidV2", replaces="billing.Payd"), event("Paid")), "replaces", "Did you mean 'billing.Paid'?"),
        (
            (OLD, event("PaidV2", replaces="billing.Paid", topic="other")),
            "replaces",
            "is in the topic billing.invoices",
        ),
        ((event("Paid"), NEW), "not-announced", "backbone schema deprecate billing.Paid"),
        (
            (event("A", replaces="billing.B"), event("B", replaces="billing.A")),
            "replaces",
            "replace each other in a circle",
        ),
        ((OLD,), "replaced-by", "there is no event 'billing.PaidV2'"),
        ((OLD, event("PaidV2")), "replaced-by", '"replaces": "billing.Paid" is missing there'),
        ((event("Paid", status="deprecated"),), "no-sunset", "until when it is published"),
        ((event("Paid", sunset="2026-06-30"),), "not-deprecated", "it has 'sunset' and is live"),
        ((event("Paid", status="deprecated", sunset="2026-04-30"),), "sunset-passed", "its sunset was 2026-04-30"),
    ],
)
def test_what_they_do_not_agree_on_is_said(contracts: tuple[Contract, ...], rule: str, says: str) -> None:
    problems = found(*contracts)
    assert rule in [one for one, _ in problems]
    assert says in " ".join(message for one, message in problems if one == rule)


def test_a_chain_of_replacements_is_no_circle() -> None:
    second = event(
        "PaidV2", replaces="billing.Paid", status="deprecated", sunset="2026-08-30", replaced_by="billing.PaidV3"
    )
    assert found(OLD, second, event("PaidV3", replaces="billing.PaidV2")) == []


def test_side_by_side_a_sunset_that_has_passed_is_a_warning_and_the_rest_are_errors() -> None:
    over = event("Paid", status="deprecated", sunset="2026-04-30")
    assert [one.severity for one in side_by_side([over], TODAY)["Paid.avsc"]] == ["warning"]
    assert side_by_side([over], date(2026, 4, 30))["Paid.avsc"] == []  # its last day
    assert [one.severity for one in side_by_side([OLD], TODAY)["Paid.avsc"]] == ["error"]


@pytest.mark.parametrize("sunset", ["soon", "2026-02-30", "20260630", "2026-6-30", "2026-06-30T00:00", "2026-W10-1"])
def test_a_sunset_is_a_day(sunset: str) -> None:
    schema = {**SCHEMA, "backbone": {**SCHEMA["backbone"], "status": "deprecated", "sunset": sunset}}
    assert [(one.rule, one.path) for one in contract_problems(schema)] == [("bad-sunset", "/backbone/sunset")]


@pytest.mark.parametrize(
    ("name", "next_one"), [("Paid", "PaidV2"), ("PaidV2", "PaidV3"), ("PaidV9", "PaidV10"), ("V2", "V2V2")]
)
def test_the_next_version_of_an_event_has_the_next_number(name: str, next_one: str) -> None:
    assert successor_name(name) == next_one
