"""Events to bytes and back, and what happens to bytes that are none."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import avsc
from schemas.codec import (
    Decoder,
    EncodeError,
    Encoder,
    Limits,
    SchemaNotRegisteredError,
    SchemaWanted,
    Undecodable,
)
from schemas.contract import Contract, Contracts, contract_from_schema, example, load_contracts
from schemas.event import Event, Record
from schemas.registry import NotAvroError, Registry, SchemaNotFoundError, open_registry
from schemas.registry_local import guid_of
from tests.conftest import ROOT
from tests.schemas.arbitrary import EVERYTHING, everything, fitting, schemas_and_data

EVENTS = load_contracts(ROOT / "schemas" / "events")
INVOICE = EVENTS["billing.InvoiceCreated"]
NOW = datetime(2026, 5, 1, 6, 0, 0, 123456, tzinfo=UTC)
SECRET = "s3cret-value"


def fresh_registry() -> Registry:
    return open_registry(f"memory://{uuid.uuid4()}")


def registry_with(*contracts: Contract) -> Registry:
    registry = fresh_registry()
    for contract in contracts:
        registry.register(contract.subject, contract.text)
    return registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_with(*EVENTS.values())


def record(
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    *,
    key: bytes | None = b"acc-300",
    timestamp: int = 1_777_000_000_000,
    offset: int = 7,
) -> Record:
    return Record("billing.invoices", 3, offset, key, value, headers, timestamp)


def loaded(registry: Registry, *ids: int | str, **options: Any) -> Decoder:
    decoder = Decoder(registry, **options)
    for one in ids:
        decoder.load(SchemaWanted(one))
    return decoder


def decoded(decoder: Decoder, found: Record) -> Event:
    answer = decoder.decode(found)
    if isinstance(answer, SchemaWanted):
        decoder.load(answer)
        answer = decoder.decode(found)
    assert isinstance(answer, Event), answer
    return answer


def refused(decoder: Decoder, found: Record) -> Undecodable:
    answer = decoder.decode(found)
    if isinstance(answer, SchemaWanted):
        decoder.load(answer)
        answer = decoder.decode(found)
    assert isinstance(answer, Undecodable), answer
    return answer


def schema_of(*fields: Any, name: str = "Thing") -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "namespace": "test",
        "fields": [{"name": f"f{place}", "type": type_} for place, type_ in enumerate(fields)],
    }


def foreign(schema: Any) -> tuple[Registry, bytes, Decoder]:
    """A registry with a schema of nobody we know, the prefix of its records, and a decoder that has loaded it."""
    registry = fresh_registry()
    made = registry.register("any", json.dumps(schema))
    return registry, b"\0" + struct.pack(">I", made.id), loaded(registry, made.id)


# --- the way there and back


@pytest.mark.parametrize("contract", list(EVENTS.values()), ids=lambda one: one.name)
def test_an_event_comes_back_as_it_was(registry: Registry, contract: Contract) -> None:
    encoded = Encoder(registry).encode(
        contract,
        example(contract),
        id="e-1",
        source="shop",
        time=NOW,
        subject="thing/1",
        correlation_id="c-1",
        causation_id="c-0",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    event = decoded(Decoder(registry), record(encoded.value, tuple(encoded.headers), key=encoded.key))
    assert event == Event(
        id="e-1",
        type=contract.name,
        source="shop",
        time=NOW,
        subject="thing/1",
        key=str(example(contract)[contract.key]),
        data=example(contract),
        correlation_id="c-1",
        causation_id="c-0",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def test_the_envelope_is_cloudevents_in_binary_mode(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e-1", source="billing", time=NOW)
    assert dict(encoded.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_type": b"billing.InvoiceCreated",
        "ce_source": b"billing",
        "ce_time": b"2026-05-01T06:00:00.123456Z",
        "content-type": b"application/avro",
    }
    assert encoded.key == b"acc-300"


def test_the_value_has_confluents_framing_and_a_body_any_avro_reader_reads(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e-1", source="billing", time=NOW)
    found = registry.latest(INVOICE.subject)
    assert found is not None
    assert encoded.value[:5] == b"\0" + struct.pack(">I", found.id)
    body = BytesIO(encoded.value[5:])
    assert schemaless_reader(body, parse_schema(json.loads(INVOICE.text)), None) == example(INVOICE)
    assert body.read() == b""


@given(schemas_and_data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_fits_a_schema_comes_back(drawn: tuple[Any, Any, Any]) -> None:
    schema, _, datum = drawn
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(json.loads(json.dumps(schema))), datum)
    _, prefix, decoder = foreign(schema)
    assert decoded(decoder, record(prefix + stream.getvalue())).data == datum


@given(st.sampled_from(["accounts.UserUpgraded", "billing.InvoicePaid"]), st.data())
@settings(max_examples=50)
def test_what_the_encoder_accepts_the_decoder_gives_back(name: str, drawn: st.DataObject) -> None:
    contract = EVENTS[name]
    registry = registry_with(contract)
    data = drawn.draw(fitting(avsc.resolved(contract.schema)))
    try:
        encoded = Encoder(registry).encode(contract, data, id="e", source="s", time=NOW)
    except EncodeError:  # a constraint, of which the data drawn knows nothing
        return
    assert decoded(Decoder(registry), record(encoded.value)).data == data


def test_a_time_in_another_zone_is_written_in_utc(registry: Registry) -> None:
    time = datetime(2026, 5, 1, 8, 0, tzinfo=timezone(timedelta(hours=2)))
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=time)
    assert dict(encoded.headers)["ce_time"] == b"2026-05-01T06:00:00Z"


def test_fields_with_a_default_may_be_left_out(registry: Registry) -> None:
    data = example(INVOICE)
    for name in ("coupon", "tax_minor", "terms", "due_on"):
        del data[name]
    encoded = Encoder(registry).encode(INVOICE, data, id="e", source="s", time=NOW)
    event = decoded(Decoder(registry), record(encoded.value))
    assert [event.data[name] for name in ("coupon", "tax_minor", "terms", "due_on")] == [None, 0, "net_30", None]


# --- what the encoder refuses


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"invoice_id": None}, "field invoice_id must be text, not null"),
        ({"total_minor": SECRET}, "field total_minor must be a whole number of 64 bits, not text"),
        ({"total_minor": -1}, "field total_minor must be at least 0"),
        ({"total_minor": 1 << 63}, "field total_minor must be a whole number of 64 bits, not out of range"),
        ({"total_minor": True}, "field total_minor must be a whole number of 64 bits, not true or false"),
        ({"total_minor": 1.5}, "field total_minor must be a whole number of 64 bits, not a number"),
        ({"currency": f"{SECRET}"}, "field currency must look like ^[A-Z]{3}$"),
        ({"currency": "EUR\n"}, "field currency must look like ^[A-Z]{3}$"),
        ({"coupon": "\ud800"}, "field coupon holds half a character"),
        ({"coupon": SECRET * 10}, "field coupon must have at most 64 characters"),
        ({"terms": SECRET}, "field terms must be one of on_receipt, net_14, net_30, net_60, other"),
        (
            {"issued_at": datetime(2026, 5, 1)},
            "field issued_at must be a time with its zone, not a time without a zone",
        ),
        ({"issued_at": SECRET}, "field issued_at must be a time with its zone, not text"),
        ({"due_on": NOW}, "field due_on must be a date, not a time"),
        ({"lines": SECRET}, "field lines must be a list, not text"),
        ({"lines": [SECRET]}, "field lines[0] must be an object with fields, not text"),
        ({"lines": [{}]}, "field lines[0].sku is missing"),
        ({"copuon": SECRET}, "copuon is no field of billing.InvoiceCreated. Did you mean 'coupon'?"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_field_and_never_the_value(
    registry: Registry, changes: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        Encoder(registry).encode(INVOICE, {**example(INVOICE), **changes}, id="e", source="s", time=NOW)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_field_is_named(registry: Registry) -> None:
    data = example(INVOICE)
    del data["account_id"]
    with pytest.raises(EncodeError, match="field account_id is missing"):
        Encoder(registry).encode(INVOICE, data, id="e", source="s", time=NOW)


@pytest.mark.parametrize("data", [None, 4, "text", [], [("invoice_id", "x")]])
def test_a_payload_that_is_no_object_is_refused(registry: Registry, data: Any) -> None:
    with pytest.raises(EncodeError, match="the payload must be an object"):
        Encoder(registry).encode(INVOICE, data, id="e", source="s", time=NOW)


@pytest.mark.parametrize(
    "envelope",
    [{"id": ""}, {"id": "x" * 2000}, {"source": ""}, {"subject": ""}, {"id": "\ud800"}, {"time": datetime(2026, 5, 1)}],
)
def test_an_envelope_that_nobody_could_read_is_refused(registry: Registry, envelope: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        Encoder(registry).encode(INVOICE, example(INVOICE), **{"id": "e", "source": "s", "time": NOW, **envelope})


def test_an_event_that_is_too_large_is_refused(registry: Registry) -> None:
    encoder = Encoder(registry, Limits(message_max=200))
    with pytest.raises(EncodeError, match="at most 200"):
        encoder.encode(
            INVOICE, {**example(INVOICE), "lines": example(INVOICE)["lines"] * 9}, id="e", source="s", time=NOW
        )


def test_an_unregistered_schema_is_refused_with_the_command_and_registers_nothing() -> None:
    registry = fresh_registry()
    with pytest.raises(SchemaNotRegisteredError, match=r"backbone schema register billing\.InvoiceCreated"):
        Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert registry.subjects() == []


def test_the_registry_is_asked_once_for_a_contract() -> None:
    asked = []
    inner = registry_with(INVOICE)

    class Counting:
        def lookup(self, subject: str, schema: str) -> Any:
            asked.append(subject)
            return inner.lookup(subject, schema)

    encoder = Encoder(Counting())  # type: ignore[arg-type]
    for _ in range(3):
        encoder.encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert asked == [INVOICE.subject]


# --- framing


def test_a_schema_not_in_memory_is_wanted_and_nothing_blocks(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    decoder = Decoder(registry)
    wanted = decoder.decode(record(encoded.value))
    assert isinstance(wanted, SchemaWanted)
    assert decoder.event_type(record(encoded.value)) == wanted
    decoder.load(wanted)
    assert decoder.event_type(record(encoded.value)) == "billing.InvoiceCreated"


def test_the_type_is_known_from_the_envelope_before_the_schema_is(registry: Registry) -> None:
    decoder = Decoder(registry)
    assert decoder.event_type(record(b"\0\0\0\0\1x", (("ce_type", b"billing.InvoiceCreated"),))) == INVOICE.name
    assert decoder.event_type(record(b"garbage", (("ce_type", b"billing.InvoiceCreated"),))) == INVOICE.name


def test_a_schema_the_registry_does_not_know_stays_wanted() -> None:
    decoder = Decoder(fresh_registry())
    with pytest.raises(SchemaNotFoundError):
        decoder.load(SchemaWanted(77))
    assert decoder.decode(record(b"\0" + struct.pack(">I", 77))) == SchemaWanted(77)


def test_a_guid_in_the_header_names_the_schema_and_the_value_is_the_bare_body(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    guid = guid_of(INVOICE.text)
    header = ("__value_schema_id", b"\1" + uuid.UUID(guid).bytes)
    decoder = Decoder(registry)
    assert decoder.decode(record(encoded.value[5:], (header,))) == SchemaWanted(guid)
    assert decoded(decoder, record(encoded.value[5:], (header,))).data == example(INVOICE)


def test_an_id_in_the_header_and_a_guid_before_the_body_are_read_too(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    body, prefix = encoded.value[5:], encoded.value[:5]
    assert decoded(Decoder(registry), record(body, (("__value_schema_id", prefix),))).data == example(INVOICE)
    guid = b"\1" + uuid.UUID(guid_of(INVOICE.text)).bytes
    assert decoded(Decoder(registry), record(guid + body)).data == example(INVOICE)


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\0\0", b"\2\0\0\0\1x", b'{"a": 1}'])
def test_a_value_without_framing_is_undecodable(registry: Registry, value: bytes) -> None:
    assert refused(Decoder(registry), record(value)).code == "framing"
    assert Decoder(registry).event_type(record(value)) == Undecodable(
        "framing", "the value does not begin with a schema id"
    )


def test_a_broken_schema_header_is_undecodable_and_not_guessed_around(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert refused(Decoder(registry), record(encoded.value, (("__value_schema_id", b"\1short"),))).code == "framing"


def test_a_tombstone_is_no_event(registry: Registry) -> None:
    assert refused(Decoder(registry), record(None)).code == "no-value"
    assert isinstance(Decoder(registry).event_type(record(None)), Undecodable)


# --- foreign records and broken envelopes


def test_a_record_without_an_envelope_is_an_event_with_an_identity_of_its_place(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    decoder = Decoder(registry, cluster="cluster-1")
    event = decoded(decoder, record(encoded.value))
    assert (event.type, event.source, event.subject, event.key) == (INVOICE.name, "billing.invoices", None, "acc-300")
    assert event.time == datetime.fromtimestamp(1_777_000_000, UTC)
    assert uuid.UUID(event.id).version == 5
    assert decoded(decoder, record(encoded.value)).id == event.id
    assert decoded(decoder, record(encoded.value, offset=8)).id != event.id
    assert decoded(Decoder(registry, cluster="cluster-2"), record(encoded.value)).id != event.id


@pytest.mark.parametrize(
    "time",
    [b"", b"yesterday", b"2026-05-01", b"2026-05-01T06:00:00", b"2026-13-01T00:00:00Z", b"\xff", b"9" * 99, None,
     b"0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_a_time_that_is_none_is_taken_from_the_record(registry: Registry, time: bytes | None) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    event = decoded(Decoder(registry), record(encoded.value, (("ce_time", time),)))
    assert event.time == datetime.fromtimestamp(1_777_000_000, UTC)


@pytest.mark.parametrize(
    ("time", "meant"),
    [
        (b"2026-05-01T06:00:00Z", datetime(2026, 5, 1, 6, tzinfo=UTC)),
        (b"2026-05-01T08:00:00+02:00", datetime(2026, 5, 1, 6, tzinfo=UTC)),
        (b"2026-05-01T06:00:00.123456789Z", NOW),
        (b"2026-05-01t06:00:00z", datetime(2026, 5, 1, 6, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_rfc_3339_has_it(registry: Registry, time: bytes, meant: datetime) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert decoded(Decoder(registry), record(encoded.value, (("ce_time", time),))).time == meant


@pytest.mark.parametrize("timestamp", [-1, 0, 1 << 62, -(1 << 62)])
def test_a_record_with_an_impossible_timestamp_is_an_event_all_the_same(registry: Registry, timestamp: int) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert decoded(Decoder(registry), record(encoded.value, timestamp=timestamp)).time.tzinfo is UTC


@pytest.mark.parametrize("broken", [b"", b"\xff\xfe", b"x" * 2000, None])
def test_a_broken_envelope_header_counts_as_absent(registry: Registry, broken: bytes | None) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    names = ("ce_id", "ce_type", "ce_source", "ce_subject", "ce_correlationid", "ce_causationid", "traceparent")
    event = decoded(Decoder(registry), record(encoded.value, tuple((name, broken) for name in names)))
    bare = decoded(Decoder(registry), record(encoded.value))
    assert event == bare


def test_a_key_that_is_no_text_is_shown_and_a_missing_one_is_none(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert decoded(Decoder(registry), record(encoded.value, key=b"\xffk")).key == "\\xffk"
    assert decoded(Decoder(registry), record(encoded.value, key=None)).key is None


def test_a_type_of_ours_over_another_schema_is_undecodable(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    found = record(encoded.value, (("ce_type", b"billing.InvoicePaid"),))
    assert refused(Decoder(registry, contracts=EVENTS), found).code == "type-mismatch"
    assert decoded(Decoder(registry, contracts=EVENTS), record(encoded.value, (("ce_type", b"x.Y"),))).type == "x.Y"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_source", "traceparent", "x"]),
            st.binary(max_size=40) | st.none(),
        )
    )
)
def test_no_header_whatever_raises(headers: list[tuple[str, bytes | None]]) -> None:
    registry = registry_with(INVOICE)
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    decoder = loaded(registry, 1)
    assert isinstance(decoder.decode(record(encoded.value, tuple(headers))), Event)
    decoder.event_type(record(encoded.value, tuple(headers)))


# --- versions of a contract


def evolved(contract: Contract, *fields: dict[str, Any], without: tuple[str, ...] = ()) -> Contract:
    schema = json.loads(contract.text)
    schema["fields"] = [one for one in schema["fields"] if one["name"] not in without] + list(fields)
    return contract_from_schema(schema)


def test_data_of_an_older_version_is_read_with_the_contracts_defaults() -> None:
    older = evolved(INVOICE, without=("coupon", "terms"))
    registry = registry_with(older)
    data = {name: value for name, value in example(INVOICE).items() if name not in ("coupon", "terms")}
    encoded = Encoder(registry).encode(older, data, id="e", source="s", time=NOW)
    event = decoded(Decoder(registry, contracts=EVENTS), record(encoded.value))
    assert event.data == {**data, "coupon": None, "terms": "net_30"}
    assert decoded(Decoder(registry), record(encoded.value)).data == data


def test_data_of_a_newer_version_is_read_as_the_contract_states_it() -> None:
    newer = evolved(INVOICE, {"name": "region", "type": "string", "default": ""})
    registry = registry_with(newer)
    encoded = Encoder(registry).encode(newer, {**example(INVOICE), "region": "EU"}, id="e", source="s", time=NOW)
    assert decoded(Decoder(registry, contracts=EVENTS), record(encoded.value)).data == example(INVOICE)


def test_data_that_cannot_be_read_as_the_contract_is_undecodable() -> None:
    schema = json.loads(INVOICE.text)
    next(one for one in schema["fields"] if one["name"] == "total_minor")["type"] = "string"
    del next(one for one in schema["fields"] if one["name"] == "total_minor")["minimum"]
    other = contract_from_schema(schema)
    registry = registry_with(other)
    encoded = Encoder(registry).encode(other, {**example(INVOICE), "total_minor": "1"}, id="e", source="s", time=NOW)
    assert refused(Decoder(registry, contracts=EVENTS), record(encoded.value)).code == "incompatible"


# --- bytes that are no event


def test_trailing_bytes_are_undecodable(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    assert refused(Decoder(registry), record(encoded.value + b"\0")).code == "trailing-bytes"


def test_a_body_cut_anywhere_is_undecodable(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    decoder = loaded(registry, int.from_bytes(encoded.value[1:5], "big"))
    for size in range(5, len(encoded.value)):
        assert refused(decoder, record(encoded.value[:size])).code in ("truncated", "bad-length")


@pytest.mark.parametrize(
    ("type_", "body", "code"),
    [
        (["null", "string"], b"\x01\x02a", "bad-index"),  # index -1: fastavro reads the last branch
        (["null", "string"], b"\x04\x02a", "bad-index"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, b"\x01", "bad-index"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, b"\x04", "bad-index"),
        ("string", b"\x01", "bad-length"),
        ("string", b"\x04\xff\xfe", "bad-value"),
        ("bytes", b"\x7f", "bad-length"),
        ("bytes", b"\x7e", "truncated"),
        ("long", b"\x80" * 12 + b"\x00", "bad-number"),
        ("int", b"\x80" * 6 + b"\x00", "bad-number"),
        ("boolean", b"\x02", "bad-value"),
        ("double", b"\x00", "truncated"),
        ({"type": "array", "items": "long"}, b"\xfe\xff\xff\xff\x0f\x00", "truncated"),
        ({"type": "array", "items": "long"}, b"\x01\x03\x00\x00", "bad-length"),
        ({"type": "map", "values": "long"}, b"\x02\x01", "bad-length"),
        ({"type": "int", "logicalType": "date"}, b"\xfe\xff\xff\xff\x0f", "bad-value"),
        ({"type": "string", "logicalType": "uuid"}, b"\x02x", "bad-value"),
    ],
)
def test_a_body_that_lies_is_undecodable_with_its_field(type_: Any, body: bytes, code: str) -> None:
    _, prefix, decoder = foreign(schema_of("string", type_))
    answer = refused(decoder, record(prefix + b"\x02a" + body))
    assert (answer.code, answer.detail.split("[")[0].removesuffix(".*")) == (code, "field f1")


def test_the_detail_of_a_refusal_names_nested_fields_and_holds_no_data() -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "mail", "type": "string"}]}
    _, prefix, decoder = foreign(schema_of({"type": "array", "items": inner}))
    answer = refused(
        decoder, record(prefix + b"\x04" + b"\x02a" + b"\x0c" + SECRET[:4].encode() + b"\xff\xff" + b"\x00")
    )
    assert answer == Undecodable("bad-value", "field f0[1].mail")


@pytest.mark.parametrize(
    "schema",
    [
        schema_of(["null", "test.Thing"]),
        schema_of({"type": "array", "items": "null"}),
        schema_of({"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}}),
        {"type": "record", "name": "Deep", "fields": []},
    ],
    ids=["recursive", "array of nulls", "array of empty records", "nested 40 deep"],
)
def test_a_schema_that_can_kill_the_decoder_is_refused_before_decoding(schema: Any) -> None:
    if schema["name"] == "Deep":
        inner: Any = "string"
        for _ in range(40):
            inner = {"type": "array", "items": inner}
        schema = {**schema, "fields": [{"name": "f", "type": inner}]}

    class Anything:
        def schema(self, id: int) -> str:
            return json.dumps(schema)

    decoder = Decoder(Anything())  # type: ignore[arg-type]
    decoder.load(SchemaWanted(1))
    assert refused(decoder, record(b"\0\0\0\0\1" + b"\xff" * 4600)).code == "schema-refused"
    assert isinstance(decoder.event_type(record(b"\0\0\0\0\1x")), Undecodable)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"type": "record"}', '"string"', "9" * 5000, "\ud800"])
def test_a_registry_that_answers_nonsense_makes_records_undecodable(text: str) -> None:
    class Nonsense:
        def schema(self, id: int) -> str:
            return text

    decoder = Decoder(Nonsense())  # type: ignore[arg-type]
    decoder.load(SchemaWanted(1))
    assert refused(decoder, record(b"\0\0\0\0\1x")).code == "schema-refused"


def test_a_schema_of_another_kind_makes_records_undecodable() -> None:
    class Json:
        def schema(self, id: int) -> str:
            raise NotAvroError("schema 1 in the registry is 'JSON', not Avro.")

    decoder = Decoder(Json())  # type: ignore[arg-type]
    decoder.load(SchemaWanted(1))
    assert refused(decoder, record(b"\0\0\0\0\1x")).code == "schema-refused"


def test_the_last_of_two_headers_counts_for_the_type_too(registry: Registry) -> None:
    encoded = Encoder(registry).encode(INVOICE, example(INVOICE), id="e", source="s", time=NOW)
    found = record(encoded.value, (("ce_type", b"a.First"), ("ce_type", b"a.Last")))
    assert decoded(Decoder(registry), found).type == Decoder(registry).event_type(found) == "a.Last"


def test_a_large_message_with_a_decimal_on_bytes_is_refused() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}
    _, prefix, decoder = foreign(schema_of(decimal))
    large = 70_000
    length = bytearray()
    number = large << 1
    while number > 127:
        length.append(number & 127 | 128)
        number >>= 7
    length.append(number)
    assert refused(decoder, record(prefix + bytes(length) + b"\1" * large)).code == "too-large"
    assert decoded(decoder, record(prefix + b"\x04\x01\x00")).data["f0"] == Decimal("2.56")


def test_a_message_over_the_limit_is_refused_unread(registry: Registry) -> None:
    assert refused(Decoder(registry), record(b"\0" * ((1 << 20) + 1))) == Undecodable("too-large", "1,048,577 bytes")


@given(st.binary(max_size=300), st.sampled_from(sorted(EVENTS)))
def test_random_bytes_never_raise(body: bytes, name: str) -> None:
    registry = registry_with(EVENTS[name])
    decoder = loaded(registry, 1)
    assert isinstance(decoder.decode(record(b"\0\0\0\0\1" + body)), Event | Undecodable)
    assert isinstance(decoder.decode(record(body)), Event | Undecodable | SchemaWanted)


_EVERYTHING = foreign(EVERYTHING)[2]
_PARSED = parse_schema(json.loads(json.dumps(EVERYTHING)))


@given(everything)
@settings(max_examples=60)
def test_a_body_of_every_shape_comes_back(datum: Any) -> None:
    stream = BytesIO()
    schemaless_writer(stream, _PARSED, datum)
    assert decoded(_EVERYTHING, record(b"\0\0\0\0\1" + stream.getvalue())).data == datum


@given(everything, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=100)
def test_a_body_with_changed_bytes_is_an_event_or_undecodable(datum: Any, changes: list[tuple[int, int]]) -> None:
    stream = BytesIO()
    schemaless_writer(stream, _PARSED, datum)
    body = bytearray(stream.getvalue())
    for place, byte in changes:
        body[place % len(body)] = byte
    answer = _EVERYTHING.decode(record(b"\0\0\0\0\1" + bytes(body)))
    assert isinstance(answer, Event | Undecodable)
    if isinstance(answer, Undecodable):
        assert not answer.detail or answer.detail.startswith("field f") or answer.code == "trailing-bytes"


def test_dates_and_all_kinds_of_values_survive() -> None:
    schema = schema_of(
        {"type": "int", "logicalType": "date"}, {"type": "long", "logicalType": "timestamp-micros"}, "double", "bytes"
    )
    datum = {"f0": date(1, 1, 1), "f1": datetime(1, 1, 1, tzinfo=UTC), "f2": -0.0, "f3": b"\0\xff"}
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), datum)
    _, prefix, decoder = foreign(schema_of(*[one["type"] for one in schema["fields"]]))
    assert decoded(decoder, record(prefix + stream.getvalue())).data == datum


def test_contracts_are_all_of_one_kind() -> None:
    assert isinstance(EVENTS, Contracts)
