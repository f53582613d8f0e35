"""Generated models say what the contracts say, and a service can use them."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from schemas.codec import Encoder
from schemas.contract import Contracts, contract_from_schema, example, load_contracts
from schemas.errors import InputError
from schemas.generate import MARK, check, generate, generated
from schemas.models.accounts import UserSignedUp
from schemas.models.billing import InvoiceCreated, InvoiceLine
from schemas.registry import open_registry
from tests.conftest import ROOT

EVENTS = load_contracts(ROOT / "schemas" / "events")
GOOD: dict[str, Any] = json.loads(EVENTS["billing.InvoicePaid"].text)


MONEY = {"type": "fixed", "name": "M", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2}


def contracts(*schemas: dict[str, Any]) -> Contracts:
    found = [contract_from_schema(schema) for schema in schemas]
    return Contracts({contract.name: contract for contract in found})


def with_fields(*fields: dict[str, Any], name: str = "ThingChanged") -> dict[str, Any]:
    schema = copy.deepcopy(GOOD)
    schema["name"] = name
    schema["fields"] = [one for one in schema["fields"] if one["name"] in ("invoice_id", "account_id")] + list(fields)
    return schema


def imported(schema: dict[str, Any], folder: Path) -> Any:
    """The module generated for one event, imported."""
    generate(contracts(schema), folder)
    name = f"generated_{folder.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, folder / "billing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def invoice(**changes: Any) -> InvoiceCreated:
    data = example(EVENTS["billing.InvoiceCreated"])
    return InvoiceCreated(**{**data, "lines": [InvoiceLine(**line) for line in data["lines"]], **changes})


def test_the_models_checked_in_are_what_the_contracts_say() -> None:
    assert check(EVENTS, ROOT / "schemas" / "models") == []


def test_the_text_is_the_same_every_time_and_formatted() -> None:
    once = generated(EVENTS)
    assert once == generated(load_contracts(ROOT / "schemas" / "events"))
    for text in once.values():
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"],
            input=text, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ran.stdout == text


def test_a_model_holds_an_event_and_gives_it_back_as_plain_values() -> None:
    assert invoice().model_dump() == example(EVENTS["billing.InvoiceCreated"])
    assert invoice().lines[0].sku == "SEAT-TEAM"


def test_a_model_carries_its_contract() -> None:
    assert InvoiceCreated.contract.name == "billing.InvoiceCreated"
    assert InvoiceCreated.contract.text == EVENTS["billing.InvoiceCreated"].text
    assert "contract" not in InvoiceCreated.model_fields


def test_a_model_is_encoded_like_its_data() -> None:
    registry = open_registry("memory://generated-models")
    registry.register(InvoiceCreated.contract.subject, InvoiceCreated.contract.text)
    envelope: dict[str, Any] = {"id": "e", "source": "s", "time": datetime(2026, 5, 1, tzinfo=UTC)}
    encoder = Encoder(registry)
    from_model = encoder.encode(InvoiceCreated.contract, invoice().model_dump(), **envelope)
    from_data = encoder.encode(EVENTS["billing.InvoiceCreated"], example(InvoiceCreated.contract), **envelope)
    assert from_model == from_data


def test_defaults_are_the_contracts() -> None:
    signed_up = UserSignedUp(user_id="u1", email="ana@example.org", plan="starter", signed_up_at=datetime.now(UTC))
    assert (signed_up.name, signed_up.channel, signed_up.marketing_consent) == (None, "web", False)


@pytest.mark.parametrize(
    "changes",
    [
        {"currency": "eur"}, {"currency": "EUR\n"}, {"total_minor": -1}, {"total_minor": "5"}, {"total_minor": 1 << 63},
        {"total_minor": True}, {"issued_at": datetime(2026, 5, 1)}, {"issued_at": "2026-05-01T00:00:00Z"},
        {"terms": "never"},
        {"invoice_id": ""}, {"lines": [{}]}, {"unknown": 1}, {"due_on": datetime(2026, 5, 1, tzinfo=UTC)},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_contract_forbids_the_model_refuses_without_repeating_it(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        invoice(**changes)
    assert "input_value" not in str(caught.value)


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        invoice().currency = "USD"


def test_every_type_becomes_its_python_type(tmp_path: Path) -> None:
    fields: list[tuple[str, Any, Any]] = [
        ("a", {"type": "string", "logicalType": "uuid"}, UUID(int=1)),
        ("b", MONEY, Decimal("1.50")),
        ("c", {"type": "fixed", "name": "F", "size": 2}, b"ab"),
        ("d", {"type": "map", "values": "long"}, {"k": 1}),
        ("e", {"type": "array", "items": {"type": "array", "items": "int"}}, [[1]]),
        ("f", {"type": "long", "logicalType": "timestamp-micros"}, datetime(2026, 5, 1, tzinfo=UTC)),
        ("g", {"type": "long", "logicalType": "local-timestamp-millis"}, datetime(2026, 5, 1)),
        ("h", {"type": "int", "logicalType": "time-millis"}, time(9)),
        ("i", "double", 1.5),
        ("j", "bytes", b"x"),
        ("k", ["null", "string", "long"], 5),
        ("l", {"type": "int", "logicalType": "date"}, date(2026, 5, 1)),
    ]  # fmt: skip
    module = imported(with_fields(*({"name": name, "type": type_} for name, type_, _ in fields)), tmp_path)
    values = {name: value for name, _, value in fields}
    made = module.ThingChanged(invoice_id="i", account_id="a", **values)
    assert made.model_dump() == {"invoice_id": "i", "account_id": "a", **values}


@pytest.mark.parametrize(
    ("type_", "default", "meant"),
    [
        ("string", 'a "quoted" \\ text\n', 'a "quoted" \\ text\n'),
        ("string", 'it\'s "both"\x00', 'it\'s "both"\x00'),
        ("bytes", "\u00ff", b"\xff"),
        ({"type": "int", "logicalType": "date"}, 20_000, date(2024, 10, 4)),
        ({"type": "long", "logicalType": "timestamp-millis"}, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        ({"type": "int", "logicalType": "time-millis"}, 3_600_000, time(1)),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "int"}, {"a": 1}, {"a": 1}),
        (["string", "null"], "x", "x"),
        ({"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}, {"n": 3}, {"n": 3}),
    ],
)
def test_every_default_becomes_its_python_value(tmp_path: Path, type_: Any, default: Any, meant: Any) -> None:
    module = imported(with_fields({"name": "thing", "type": type_, "default": default}), tmp_path)
    assert module.ThingChanged(invoice_id="i", account_id="a").model_dump()["thing"] == meant


def test_names_that_mean_something_in_python_get_an_underscore_and_keep_their_name_outside(tmp_path: Path) -> None:
    names = ["class", "from", "json", "copy", "contract", "model_config", "dt", "_hidden", "date"]
    types = {"date": {"type": "int", "logicalType": "date"}}
    module = imported(with_fields(*({"name": name, "type": types.get(name, "string")} for name in names)), tmp_path)
    values = {name: "x" for name in names} | {"date": date(2026, 5, 1)}  # noqa: C420
    made = module.ThingChanged(invoice_id="i", account_id="a", **values)
    assert (made.class_, made.json_, made.field_hidden) == ("x", "x", "x")
    assert made.model_dump() == {"invoice_id": "i", "account_id": "a", **values}


def test_docs_and_patterns_of_any_letters_make_valid_code(tmp_path: Path) -> None:
    doc = 'Ends with a "quote" and \\ and """three""" and "'
    fields = {"name": "thing", "type": "string", "doc": doc, "pattern": "^[\"'\\\\]\\d+$", "default": '"1'}
    module = imported(with_fields({**fields, "doc": doc * 9}, fields | {"name": "other"}), tmp_path)
    assert module.ThingChanged(invoice_id="i", account_id="a").thing == '"1'


def test_one_type_of_two_events_is_one_class_and_two_types_of_one_name_are_refused() -> None:
    line = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}
    one = with_fields({"name": "line", "type": line})
    two = with_fields({"name": "line", "type": line}, name="OtherChanged")
    assert generated(contracts(one, two))[Path("billing.py")].count("class Line(") == 1
    line["fields"][0]["type"] = "long"  # type: ignore[index]
    other = with_fields({"name": "line", "type": line}, name="OtherChanged")
    with pytest.raises(InputError, match=r"billing\.Line is defined in two different ways"):
        generated(contracts(with_fields({"name": "line", "type": {**line, "fields": []}}), other))


def test_a_name_that_cannot_be_a_class_is_refused() -> None:
    enum = {"type": "enum", "name": "Literal", "symbols": ["A"]}
    with pytest.raises(InputError, match="rename it"):
        generated(contracts(with_fields({"name": "thing", "type": enum})))


def test_check_finds_what_differs_and_what_is_left_over_and_generate_mends_it(tmp_path: Path) -> None:
    generate(EVENTS, tmp_path)
    assert check(EVENTS, tmp_path) == []
    (tmp_path / "billing.py").write_text("changed")
    (tmp_path / "gone.py").write_text(f'"""{MARK}"""')
    (tmp_path / "ours.py").write_text("by hand")
    assert {Path(one.file).name for one in check(EVENTS, tmp_path)} == {"billing.py", "gone.py"}
    assert {file.name for file in generate(EVENTS, tmp_path)} == {"billing.py", "gone.py"}
    assert check(EVENTS, tmp_path) == []
    assert (tmp_path / "ours.py").read_text() == "by hand"


def test_importing_the_models_needs_neither_kafka_nor_http_nor_avro() -> None:
    code = (
        "import sys, schemas.models.billing; "
        "print(sorted({'confluent_kafka', 'urllib3', 'fastavro', 'avro', 'aiohttp', 'click'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"
