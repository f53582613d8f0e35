"""What people see of payloads: never a value of a field that holds personal data, or that nobody has described."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import Contract, contract_from_schema
from schemas.masking import UNKNOWN, mask, masked_fields

LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "sku", "type": "string"}, {"name": "who", "type": "string", "personal_data": "name"}],
}
CARD = {"type": "record", "name": "Card", "fields": [{"name": "number", "type": "string", "personal_data": "bank"}]}
SCHEMA = {
    "type": "record",
    "name": "Thing",
    "namespace": "demo",
    "doc": "A thing.",
    "backbone": {"topic": "demo.things", "key": "id", "owner": "team", "freshness_slo": "60s", "retention": "1d"},
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "email", "type": ["null", "string"], "personal_data": "email"},
        {"name": "public", "type": "string", "personal_data": "none"},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "by_name", "type": {"type": "map", "values": {"type": "map", "values": "Line"}}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "address", "type": ["null", {"type": "map", "values": "string"}], "personal_data": "address"},
        {"name": "payment", "type": ["null", "string", CARD]},
        {"name": "payments", "type": {"type": "map", "values": ["null", "string", "Card"]}},
        {"name": "nested", "type": {"type": "record", "name": "Nested", "fields": [{"name": "line", "type": "Line"}]}},
    ],
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return contract_from_schema(SCHEMA)


SECRET = "s3cret"


def test_values_of_classed_fields_become_their_class_and_others_stay(contract: Contract) -> None:
    line = {"sku": "A", "who": SECRET}
    seen = mask(
        contract,
        {
            "id": "1", "email": SECRET, "public": "p", "lines": [line, line], "by_name": {"k": {"l": line}},
            "tags": {"a": "b"}, "address": {SECRET: SECRET}, "nested": {"line": line},
        },
    )  # fmt: skip
    hidden = {"sku": "A", "who": "‹name›"}
    assert seen == {
        "id": "1", "email": "‹email›", "public": "p", "lines": [hidden, hidden], "by_name": {"k": {"l": hidden}},
        "tags": {"a": "b"}, "address": "‹address›", "nested": {"line": hidden},
    }  # fmt: skip


def test_null_stays_null(contract: Contract) -> None:
    assert mask(contract, {"email": None, "payment": None}) == {"email": None, "payment": None}


def test_a_record_in_a_wide_union_is_not_shown_but_a_plain_value_is(contract: Contract) -> None:
    assert mask(contract, {"payment": {"number": SECRET}})["payment"] == UNKNOWN
    assert mask(contract, {"payments": {"a": {"number": SECRET}, "b": "cash"}})["payments"] == {
        "a": UNKNOWN,
        "b": "cash",
    }


def test_fields_that_nobody_described_are_not_shown(contract: Contract) -> None:
    assert mask(contract, {"new": SECRET, "lines": [{"sku": "A", "new": SECRET}]}) == {
        "new": UNKNOWN,
        "lines": [{"sku": "A", "new": UNKNOWN}],
    }
    assert mask(None, {"a": SECRET, "b": [SECRET], "c": None}) == {"a": UNKNOWN, "b": UNKNOWN, "c": None}


def test_a_value_of_another_shape_than_its_type_is_not_shown(contract: Contract) -> None:
    assert mask(contract, {"id": {"x": SECRET}, "public": [SECRET]}) == {"id": UNKNOWN, "public": UNKNOWN}


def test_masked_fields_lists_every_path_with_a_class(contract: Contract) -> None:
    assert masked_fields(contract) == {
        "email": "email",
        "lines.who": "name",
        "by_name.*.*.who": "name",
        "address": "address",
        "nested.line.who": "name",
    }


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["who", "number", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["email", "address", "new"]), VALUES), VALUES)
def test_whatever_stands_in_a_classed_or_unknown_field_is_never_shown(data: dict[str, Any], value: Any) -> None:
    contract = contract_from_schema(SCHEMA)
    assert SECRET not in str(mask(contract, data))
    assert SECRET not in str(mask(contract, {"lines": [{"who": value}], "nested": {"line": {"who": value}}}))
    assert SECRET not in str(mask(None, data))
