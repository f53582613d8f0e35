"""Payloads made from the JSON a person typed, and shown as JSON again."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings

from schemas import avsc
from schemas.checker import faults
from schemas.contract import Contract, contract_from_schema, load_contracts
from schemas.datum import example, from_json, from_json_value, to_json
from schemas.errors import InputError
from tests.conftest import ROOT
from tests.schemas.arbitrary import EVERYTHING, everything, json_values

EVENTS = load_contracts(ROOT / "schemas" / "events")
INVOICE = EVENTS["billing.InvoiceCreated"]
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MONEY = {"type": "fixed", "name": "M", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2}
RESOLVED = avsc.resolved(EVERYTHING)


def contract_with(type_: Any) -> Contract:
    schema = json.loads(INVOICE.text)
    schema["fields"].append({"name": "thing", "type": type_})
    return contract_from_schema(schema)


@given(everything)
@settings(max_examples=50)
def test_a_payload_shown_as_json_is_read_back(datum: Any) -> None:
    text = json.dumps(to_json(datum))
    assert from_json_value(RESOLVED, json.loads(text), "") == datum


@pytest.mark.parametrize("contract", list(EVENTS.values()), ids=lambda one: one.name)
def test_an_example_event_survives_json(contract: Contract) -> None:
    assert from_json(contract, json.loads(json.dumps(to_json(example(contract))))) == example(contract)


@pytest.mark.parametrize(
    ("type_", "written", "meant"),
    [
        (MILLIS, "2026-05-01T08:00:00+02:00", datetime(2026, 5, 1, 6, tzinfo=UTC)),
        (MILLIS, "2026-05-01T06:00:00Z", datetime(2026, 5, 1, 6, tzinfo=UTC)),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, "2026-05-01T06:00:00", datetime(2026, 5, 1, 6)),
        ({"type": "int", "logicalType": "date"}, "2026-05-01", date(2026, 5, 1)),
        (["null", {"type": "int", "logicalType": "date"}], "2026-05-01", date(2026, 5, 1)),
        ({"type": "string", "logicalType": "uuid"}, "00000000-0000-0000-0000-000000000005", UUID(int=5)),
        (MONEY, "1.50", Decimal("1.50")),
        (MONEY, 3, Decimal(3)),
        ("bytes", "AP8=", b"\0\xff"),
        ("string", "AP8=", "AP8="),
        ({"type": "array", "items": "bytes"}, ["AP8="], [b"\0\xff"]),
        ({"type": "map", "values": "bytes"}, {"k": "AP8="}, {"k": b"\0\xff"}),
    ],
)  # fmt: skip
def test_text_becomes_what_the_schema_says(type_: Any, written: Any, meant: Any) -> None:
    assert from_json(contract_with(type_), {"thing": written}) == {"thing": meant}


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, "field thing must be a time like 2026-05-01T09:30:00Z."),
        ({"type": "int", "logicalType": "date"}, "field thing must be a date like 2026-05-31."),
        ({"type": "string", "logicalType": "uuid"}, "field thing must be a UUID."),
        ("bytes", "field thing must be base64."),
        ({"type": "array", "items": "bytes"}, "field thing[0] must be base64."),
    ],
)
def test_text_that_cannot_be_understood_is_named_and_not_repeated(type_: Any, said: str) -> None:
    secret = "s3cret!"
    with pytest.raises(InputError) as caught:
        from_json(contract_with(type_), {"thing": [secret] if "items" in type_ else secret})
    assert str(caught.value) == said


def test_a_payload_that_is_no_object_is_refused() -> None:
    with pytest.raises(InputError, match="must be an object with fields, not a list"):
        from_json(INVOICE, [])  # type: ignore[arg-type]


@given(json_values())
def test_no_json_whatever_gives_a_traceback(value: Any) -> None:
    for data in (value, dict.fromkeys(INVOICE.fields, value)):
        try:
            converted = from_json(INVOICE, data)
        except InputError:
            continue
        assert isinstance(faults(avsc.resolved(INVOICE.schema), converted), list)
