"""Contracts as they are read from .avsc files, and what a person is told when one cannot be."""

from __future__ import annotations

import contextlib
import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import avsc
from schemas.checker import faults
from schemas.contract import Contracts, contract_from_schema, engine_contracts, example, load_contract, load_contracts
from schemas.errors import InputError
from tests.conftest import ROOT
from tests.schemas.arbitrary import json_values

FOLDER = ROOT / "schemas" / "events"
EVENTS = load_contracts(FOLDER)
GOOD: dict[str, Any] = json.loads(EVENTS["billing.InvoiceCreated"].text)


def changed(**promise: Any) -> dict[str, Any]:
    schema = copy.deepcopy(GOOD)
    schema["backbone"] = {**schema["backbone"], **promise}
    return {**schema, "backbone": {name: value for name, value in schema["backbone"].items() if value is not None}}


def with_field(**attributes: Any) -> dict[str, Any]:
    schema = copy.deepcopy(GOOD)
    schema["fields"][0].update(attributes)
    return schema


def test_the_shipped_events_are_read() -> None:
    assert list(EVENTS) == [
        "accounts.UserEmailChanged", "accounts.UserErased", "accounts.UserSignedUp", "accounts.UserUpgraded",
        "billing.InvoiceCreated", "billing.InvoicePaid", "billing.InvoiceVoided",
    ]  # fmt: skip
    assert list(engine_contracts()) == ["backbone.ChangeApplied", "backbone.DeliverySettled", "backbone.RangeSettled"]


def test_a_contract_tells_what_the_file_promises() -> None:
    invoice = EVENTS["billing.InvoiceCreated"]
    assert (invoice.topic, invoice.key, invoice.entity) == ("billing.invoices", "account_id", "invoice_id")
    assert (invoice.owner, invoice.contact, invoice.status) == ("team-billing", "#billing", "live")
    assert (invoice.freshness_slo, invoice.retention) == (timedelta(seconds=60), timedelta(days=30))
    assert invoice.subject == "billing.invoices-billing.InvoiceCreated"
    assert invoice.domain == "billing"
    assert invoice.file == str(FOLDER / "billing" / "InvoiceCreated.avsc")
    assert invoice.doc.startswith("An invoice was issued")


def test_every_field_is_known_by_its_dotted_path() -> None:
    fields = EVENTS["billing.InvoiceCreated"].fields
    assert fields["billing_email"].personal_data == "email"
    assert fields["currency"].constraints == {"pattern": "^[A-Z]{3}$"}
    assert (fields["coupon"].optional, fields["invoice_id"].optional) == (True, False)
    assert fields["lines.sku"].doc == "Our article number."
    assert fields["lines"].type["items"]["name"] == "billing.InvoiceLine"


def test_named_types_used_again_and_maps_have_paths_too() -> None:
    person = {"type": "record", "name": "Person", "fields": [{"name": "mail", "type": "string", "doc": "Where."}]}
    schema = copy.deepcopy(GOOD)
    schema["fields"] += [
        {"name": "payer", "type": person},
        {"name": "buyer", "type": ["null", "Person"], "default": None},
        {"name": "by_role", "type": {"type": "map", "values": "billing.Person"}},
    ]
    fields = contract_from_schema(schema).fields
    assert {"payer.mail", "buyer.mail", "by_role.*.mail"} <= set(fields)
    assert fields["buyer.mail"].doc == "Where."


def test_contracts_that_share_a_topic_are_together() -> None:
    topics = EVENTS.topics()
    assert list(topics) == ["accounts.users", "billing.invoices"]
    assert [contract.name for contract in topics["billing.invoices"]] == [
        "billing.InvoiceCreated", "billing.InvoicePaid", "billing.InvoiceVoided",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*EVENTS, *engine_contracts()])
def test_the_examples_make_a_whole_valid_event(name: str) -> None:
    contract = {**EVENTS, **engine_contracts()}[name]
    assert faults(avsc.resolved(contract.schema), example(contract)) == []
    assert list(example(contract)) == [one["name"] for one in contract.schema["fields"]]
    assert example(contract) == example(contract)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (changed(topic=None), "/backbone/topic: a contract needs 'topic'."),
        (changed(owner=""), "/backbone/owner: a contract needs 'owner'."),
        (changed(topic="a topic"), "/backbone/topic: a topic is at most 249 letters"),
        (changed(key="acount_id"), "/backbone/key: there is no field 'acount_id'. Did you mean 'account_id'?"),
        (changed(key="coupon"), "/backbone/key: the key must be a required string field."),
        (changed(key="total_minor"), "/backbone/key: the key must be a required string field."),
        (changed(entity="nothing"), "/backbone/entity: there is no field 'nothing'."),
        (changed(freshness_slo="soon"), "/backbone/freshness_slo: a duration is a whole number with a unit"),
        (changed(retention=30), "/backbone/retention: a text is expected here."),
        (changed(status="alive"), "/backbone/status: the status is one of draft, live, deprecated."),
        (changed(ownr="me"), "/backbone/ownr: 'ownr' is not known here. Did you mean 'owner'?"),
        ({**GOOD, "backbone": 5}, "/backbone: a contract needs 'backbone'"),
        ({**GOOD, "namespace": ""}, "/namespace: an event needs a 'namespace'"),
        ({**GOOD, "type": "enum", "symbols": ["A"]}, "/type: a contract is an Avro record."),
        (with_field(type="strin"), "/fields/0/type: 'strin' is no Avro type"),
        (with_field(personal_data="mail"), "/fields/0/personal_data: the personal-data class is one of"),
        (with_field(pattern="("), "/fields/0/pattern: it is not a regular expression."),
        (with_field(pattern="(?=a)"), "/fields/0/pattern: looking ahead or back"),
        (with_field(minLength="1"), "/fields/0/minLength: a number is expected here."),
        (with_field(examples="INV"), "/fields/0/examples: a list is expected here."),
        ({}, "an object that is a type needs 'type'."),
    ],
)
def test_what_keeps_a_schema_from_being_a_contract_is_said_with_its_place(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        contract_from_schema(schema, "x.avsc")
    assert str(caught.value).startswith("x.avsc")
    assert said in str(caught.value)


def test_more_than_one_problem_is_counted() -> None:
    with pytest.raises(InputError, match=r"\(1 more: backbone schema check\)"):
        contract_from_schema(changed(topic=None, owner=None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "one Avro record"),
        ('"string"', "one Avro record"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "record", "type": "enum"}', "'type' stands twice"),
        ('{"type": NaN}', "NaN is not JSON"),
        ("9" * 5000, "out of range"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_schema_is_named_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "Broken.avsc"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        load_contract(file)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_contracts(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        load_contract(tmp_path / "nothing.avsc")
    with pytest.raises(InputError, match="cannot be read"):
        load_contract(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_contract(Path("/proc/self/mem"))
    (tmp_path / "large.avsc").write_bytes(b" " * 300_000)
    with pytest.raises(InputError, match="more than 256 kB"):
        load_contract(tmp_path / "large.avsc")


def test_an_event_defined_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.avsc").write_text(EVENTS["billing.InvoicePaid"].text)
    with pytest.raises(InputError, match=r"is defined in .* too"):
        load_contracts(tmp_path)


def test_contracts_cannot_be_changed_through_the_mapping_given() -> None:
    given_contracts = dict(EVENTS)
    contracts = Contracts(given_contracts)
    given_contracts.clear()
    assert len(contracts) == len(EVENTS)


def test_text_that_deep_reuse_would_blow_up_is_refused_at_once() -> None:
    fields = [{"name": "a", "type": "string"}]
    names = []
    for level in range(8):
        inner = names[-1] if names else "string"
        wide = [{"name": f"f{place}", "type": inner} for place in range(10)]
        names.append(f"L{level}")
        fields.append({"name": f"level{level}", "type": {"type": "record", "name": f"L{level}", "fields": wide}})  # type: ignore[dict-item]
    schema = {**GOOD, "fields": [*GOOD["fields"], *fields]}
    with pytest.raises(InputError, match="with every type written out"):
        contract_from_schema(schema)


@given(json_values())
def test_no_json_whatever_gives_a_traceback(value: Any) -> None:
    for schema in (value, {**GOOD, "backbone": value}, {**GOOD, "fields": [{"name": "a", "type": value}]}):
        with contextlib.suppress(InputError):
            contract_from_schema(schema)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_whatever_gives_a_traceback(text: str | bytes) -> None:
    with contextlib.suppress(InputError):
        avsc.parse(text)
