"""Other people's clients and ours read each other's events: Confluent's own serializer and deserializer, at the real
registry and the real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ops.reading import as_record
from producers import Acknowledgement, KafkaPublisher, PublisherSettings
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import Contract, contract_from_schema, example, load_contracts
from schemas.event import Event, Record
from schemas.registry import Registry
from tests.conftest import ROOT, MakeTopic, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

# the default strategy asks the registry for associations, which not every registry has
THEIRS = {"subject.name.strategy.type": "TOPIC_RECORD"}


@pytest.fixture
def settings(stack: Stack) -> PublisherSettings:
    return PublisherSettings.model_validate(
        {"kafka": {"bootstrap.servers": stack.bootstrap}, "registry": {"url": stack.registry_url}}
    )


@pytest.fixture
def registry(settings: PublisherSettings) -> Registry:
    return settings.open_registry()


@pytest.fixture
def contract(make_topic: MakeTopic, registry: Registry) -> Contract:
    """The company's invoice, on a topic of this test."""
    schema = dict(load_contracts(ROOT / "schemas" / "events")["billing.InvoiceCreated"].schema)
    schema["backbone"] = schema["backbone"] | {"topic": make_topic("invoices")}
    found = contract_from_schema(schema)
    registry.register(found.subject, found.text)
    return found


@pytest.fixture
def client(stack: Stack) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": stack.registry_url}) as made:
        yield made


def read(stack: Stack, topic: str, offset: int = 0) -> Record:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "nobody", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, offset)])
        message = eventually(lambda: [m for m in (consumer.poll(1.0),) if m is not None], about="a record")[0]
        assert message.error() is None
        return as_record(message)
    finally:
        consumer.close()


def decode(registry: Registry, record: Record) -> Event:
    decoder = Decoder(registry)
    wanted = decoder.decode(record)
    assert isinstance(wanted, SchemaWanted), wanted
    decoder.load(wanted)
    event = decoder.decode(record)
    assert isinstance(event, Event), event
    return event


def test_confluents_deserializer_reads_what_we_publish(
    stack: Stack, settings: PublisherSettings, client: SchemaRegistryClient, contract: Contract
) -> None:
    data = example(contract)
    with KafkaPublisher(settings) as publisher:
        ack: Acknowledgement = publisher.publish_data(contract, data, source="billing").result(10)
    record = read(stack, contract.topic, ack.offset)
    deserialize = AvroDeserializer(client, conf=THEIRS)
    assert deserialize(record.value, SerializationContext(contract.topic, MessageField.VALUE)) == data


def test_we_read_what_confluents_serializer_writes_without_an_envelope(
    stack: Stack, registry: Registry, client: SchemaRegistryClient, contract: Contract
) -> None:
    data = example(contract)
    serialize = AvroSerializer(client, contract.text, conf=THEIRS | {"auto.register.schemas": False})
    value = serialize(data, SerializationContext(contract.topic, MessageField.VALUE))
    send(stack, contract.topic, value, data[contract.key])
    record = read(stack, contract.topic)
    event = decode(registry, record)
    assert event.data == data
    assert (event.type, event.source, event.key) == ("billing.InvoiceCreated", contract.topic, data[contract.key])
    assert event.time == record.time
    assert UUID(event.id).version == 5
    assert event.id == decode(registry, record).id, "the same record is the same event"


def test_both_find_the_same_subject_and_schema_id(
    client: SchemaRegistryClient, registry: Registry, contract: Contract
) -> None:
    theirs = client.get_latest_version(contract.subject)
    ours = registry.lookup(contract.subject, contract.text)
    assert ours is not None
    assert (theirs.schema_id, theirs.version) == (ours.id, ours.version)
    assert json.loads(theirs.schema.schema_str) == contract.schema


def test_a_schema_registered_by_their_producer_is_an_event_to_us(
    stack: Stack, registry: Registry, client: SchemaRegistryClient, make_topic: MakeTopic
) -> None:
    """Nothing of ours in it: no contract, no headers, unions and logical types as somebody else writes them."""
    topic = make_topic("foreign")
    schema: dict[str, Any] = {
        "type": "record",
        "name": "OrderShipped",
        "namespace": "shop",
        "fields": [
            {"name": "order", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "on", "type": {"type": "int", "logicalType": "date"}},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OUT", "IN"]}},
            {"name": "note", "type": ["string", "null", "long"]},
            {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
            {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 4}},
        ],
    }
    data = {
        "order": "o-1", "at": datetime(2026, 5, 1, 9, 30, 0, 123456, tzinfo=UTC), "on": date(2026, 5, 1),
        "state": "IN", "note": 7, "tags": {"a": [1, -2]}, "raw": b"\x00\x01\x02\xff",
    }  # fmt: skip
    serialize = AvroSerializer(client, json.dumps(schema), conf=THEIRS)
    send(stack, topic, serialize(data, SerializationContext(topic, MessageField.VALUE)), "o-1")
    assert f"{topic}-shop.OrderShipped" in registry.subjects()
    event = decode(registry, read(stack, topic))
    assert (event.type, event.data) == ("shop.OrderShipped", data)


def test_the_key_is_the_contracts_field_as_utf_8(stack: Stack, settings: PublisherSettings, contract: Contract) -> None:
    data = example(contract)
    with KafkaPublisher(settings) as publisher:
        ack = publisher.publish_data(contract, data, source="billing").result(10)
    assert read(stack, contract.topic, ack.offset).key == data[contract.key].encode()


def send(stack: Stack, topic: str, value: bytes | None, key: str) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    producer.produce(topic, value, key)
    assert producer.flush(10) == 0
