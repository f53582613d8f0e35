"""What lint says of a contract: the rule, the place, and what to do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import avsc
from schemas.contract import engine_contracts, load_contracts
from schemas.findings import Finding
from schemas.lint import lint, lint_folder
from tests.conftest import ROOT
from tests.schemas.arbitrary import json_values

EVENTS = load_contracts(ROOT / "schemas" / "events")
GOOD: dict[str, Any] = json.loads(EVENTS["billing.InvoicePaid"].text)


def with_field(type_: Any = "string", **attributes: Any) -> dict[str, Any]:
    schema = copy.deepcopy(GOOD)
    schema["fields"].append({"name": "extra", "type": type_, "doc": "Something.", **attributes})
    return schema


def without(path: str) -> dict[str, Any]:
    schema = copy.deepcopy(GOOD)
    *steps, last = path.split("/")
    inner: Any = schema
    for step in steps:
        inner = inner[int(step) if step.isdigit() else step]
    del inner[last]
    return schema


def nested(levels: int) -> Any:
    type_: Any = "string"
    for _ in range(levels):
        type_ = {"type": "array", "items": type_}
    return type_


def test_the_shipped_contracts_have_nothing_to_find() -> None:
    assert lint_folder(ROOT / "schemas" / "events") == []
    for contract in engine_contracts().values():
        assert lint(contract) == []


FIELDS = len(GOOD["fields"])
EMPTY = {"type": "record", "name": "Empty", "doc": "Nothing.", "fields": []}
DECIMAL = {"logicalType": "decimal", "precision": 9}
UNDOCUMENTED = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
MANY = [{"name": f"f{n}", "type": "int", "doc": "N."} for n in range(501)]
KEYED_BY_PERSON = [GOOD["fields"][0], {**GOOD["fields"][1], "personal_data": "other"}]
CASES: list[tuple[dict[str, Any], str, str]] = [
    (without("doc"), "no-doc", "/doc"),
    ({**GOOD, "doc": "  "}, "no-doc", "/doc"),
    (without("fields/0/doc"), "no-doc", "/fields/0/doc"),
    (without("backbone/owner"), "no-owner", "/backbone/owner"),
    (without("backbone/key"), "no-key", "/backbone/key"),
    (without("backbone/topic"), "no-topic", "/backbone/topic"),
    (without("backbone/retention"), "no-retention", "/backbone/retention"),
    (without("backbone/freshness_slo"), "no-freshness-slo", "/backbone/freshness_slo"),
    (without("backbone"), "no-promise", "/backbone"),
    (without("namespace"), "no-namespace", "/namespace"),
    ({**GOOD, "backbone": {**GOOD["backbone"], "key": "reference"}}, "bad-key", "/backbone/key"),
    (with_field("billing.InvoicePaid"), "recursive", f"/fields/{FIELDS}/type"),
    (with_field(nested(17)), "too-deep", f"/fields/{FIELDS}/type" + "/items" * 15),
    (with_field({"type": "array", "items": "null"}), "zero-byte-items", f"/fields/{FIELDS}/type/items"),
    (with_field({"type": "array", "items": EMPTY}), "zero-byte-items", f"/fields/{FIELDS}/type/items"),
    (with_field({**DECIMAL, "type": "bytes"}), "bytes-decimal", f"/fields/{FIELDS}/type"),
    (
        with_field({"type": "fixed", "name": "F", "size": 20, "logicalType": "decimal", "precision": 39}),
        "bad-decimal",
        f"/fields/{FIELDS}/type",
    ),
    (with_field(["null", "string", "long"]), "wide-union", f"/fields/{FIELDS}/type"),
    (with_field(["string", "long"]), "wide-union", f"/fields/{FIELDS}/type"),
    (with_field(name="Currency"), "case-clash", f"/fields/{FIELDS}/name"),
    (
        with_field({"type": "enum", "name": "paymentMethod", "symbols": ["A"]}),
        "case-clash",
        f"/fields/{FIELDS}/type/name",
    ),
    (with_field(name="payer_email"), "personal-data-unsaid", f"/fields/{FIELDS}/personal_data"),
    (with_field(name="clientIp"), "personal-data-unsaid", f"/fields/{FIELDS}/personal_data"),
    (with_field(name="birth_date"), "personal-data-unsaid", f"/fields/{FIELDS}/personal_data"),
    (with_field("long", default="x"), "bad-default", f"/fields/{FIELDS}/default"),
    (with_field(["string", "null"], default=None), "bad-default", f"/fields/{FIELDS}/default"),
    (with_field(default="{}"), "json-like-default", f"/fields/{FIELDS}/default"),
    (with_field("long", examples=["many"]), "bad-example", f"/fields/{FIELDS}/examples/0"),
    (with_field(examples=["ok", "x" * 9], maxLength=8), "bad-example", f"/fields/{FIELDS}/examples/1"),
    (
        with_field({"type": "int", "logicalType": "date"}, examples=["yesterday"]),
        "bad-example",
        f"/fields/{FIELDS}/examples/0",
    ),
    ({**GOOD, "name": "PayInvoice"}, "not-past-tense", "/name"),
    (without("backbone/contact"), "no-contact", "/backbone/contact"),
    ({**GOOD, "fields": KEYED_BY_PERSON}, "personal-key", "/fields/1/personal_data"),
    (with_field(UNDOCUMENTED), "no-doc", f"/fields/{FIELDS}/type/doc"),
    ({**GOOD, "fields": MANY + GOOD["fields"]}, "too-many-fields", "/fields"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "rule", "path"), CASES, ids=[f"{rule} {n}" for n, (_, rule, _) in enumerate(CASES)])
def test_each_rule_finds_its_place(schema: dict[str, Any], rule: str, path: str) -> None:
    found = lint(schema, "x")
    assert (rule, path) in [(one.rule, one.path) for one in found], found
    assert all(one.file == "x" and one.message.endswith((".", ")")) for one in found), found


@pytest.mark.parametrize(
    "schema",
    [
        with_field(["null", "string", "long"], union_reason="Two generations of one number."),
        with_field(name="plan_name", personal_data="none"),
        with_field(name="shipping"),  # "ip" is a word of its own or none
        with_field(["null", "string"], default=None),
        {**GOOD, "name": "InvoicePaidV2"},
        {**GOOD, "name": "OrderSent"},
        with_field(nested(14)),
    ],
    ids=[
        "union with its reason",
        "said to be none",
        "ip inside a word",
        "nullable",
        "version 2",
        "irregular",
        "14 deep",
    ],
)
def test_what_is_fine_is_not_found(schema: dict[str, Any]) -> None:
    assert lint(schema) == []


def test_warnings_stand_behind_errors() -> None:
    schema = {**with_field(doc=""), "name": "PayInvoice"}
    assert [one.severity for one in lint(schema)] == ["error", "warning"]


def test_a_file_says_where_it_belongs(tmp_path: Path) -> None:
    file = tmp_path / "sales" / "Paid.avsc"
    file.parent.mkdir()
    file.write_text(EVENTS["billing.InvoicePaid"].text)
    assert [(one.rule, one.severity, one.file) for one in lint(file)] == [("file-place", "warning", str(file))]


@pytest.mark.parametrize(
    ("text", "rule"),
    [("", "not-json"), ("{", "not-json"), ("[]", "not-a-record"), ("5", "not-a-record"), ("[" * 200_000, "too-deep"),
     ('{"type": "record"}', "bad-name"), (" " * 300_000, "unreadable"), ('{"a": 1, "a": 2}', "not-json")],
)  # fmt: skip
def test_a_broken_file_is_a_finding(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "Broken.avsc"
    file.write_text(text)
    assert [one.rule for one in lint(file)] == [rule]
    assert lint(file)[0].file == str(file)


def test_a_missing_file_is_a_finding(tmp_path: Path) -> None:
    assert [one.rule for one in lint(tmp_path / "nothing.avsc")] == ["unreadable"]
    assert [one.rule for one in lint_folder(tmp_path)] == ["no-contracts"]


def test_contracts_side_by_side_are_compared(tmp_path: Path) -> None:
    (tmp_path / "billing").mkdir()
    (tmp_path / "billing" / "InvoicePaid.avsc").write_text(json.dumps(GOOD))
    (tmp_path / "billing" / "Copy.avsc").write_text(json.dumps(GOOD))
    other = {**GOOD, "name": "InvoiceSent", "backbone": {**GOOD["backbone"], "key": "invoice_id"}}
    (tmp_path / "billing" / "InvoiceSent.avsc").write_text(json.dumps(other))
    found = {(Path(one.file).name, one.rule) for one in lint_folder(tmp_path)}
    assert ("InvoicePaid.avsc", "duplicate-name") in found
    assert ("InvoiceSent.avsc", "key-differs") in found


def test_a_foreign_schema_is_refused_only_for_what_endangers_the_decoder() -> None:
    harmless = {"type": "record", "name": "x", "fields": [{"name": "email", "type": ["int", "string", "null"]}]}
    assert avsc.undecodable(harmless) == []
    money = {"type": "bytes", "logicalType": "decimal", "precision": 9}
    assert avsc.undecodable({"type": "record", "name": "x", "fields": [{"name": "money", "type": money}]}) == []
    assert [one.rule for one in avsc.undecodable({"type": "array", "items": "null"})] == ["zero-byte-items"]


def test_a_hostile_schema_is_answered_with_a_bounded_list() -> None:
    huge = {"type": "record", "name": "R", "fields": [{"name": 5, "type": []} for _ in range(100_000)]}
    found = avsc.undecodable(huge)
    assert 0 < len(found) <= 200


@given(json_values())
def test_no_json_whatever_gives_a_traceback(value: Any) -> None:
    schemas = [value, {**GOOD, "fields": value}, {**GOOD, "backbone": value}, with_field(value)]
    schemas += [
        with_field("string", **{name: value}) for name in ("default", "examples", "pattern", "doc", "minLength")
    ]
    for schema in schemas:
        assert all(isinstance(one, Finding) for one in lint(schema))
        assert all(isinstance(one, avsc.Problem) for one in avsc.undecodable(schema))


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_file_whatever_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.avsc"
    file.write_bytes(text)
    assert lint(file)
