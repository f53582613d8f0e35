"""Publishing typed events, and consuming with decoding; beside Confluent's own serialisers on the same broker."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from ops.benchmarks.measure import Line, Round, interleaved, timed
from ops.benchmarks.stage import Stage, invoice
from producers import KafkaPublisher, PublisherSettings
from schemas.event import Event, Record

COUNT = 50_000


def lines(stage: Stage, rounds: int) -> list[Line]:
    full = stage.topic("bench.decode")
    stage.fill(full, COUNT)
    subjects: list[tuple[str, Callable[[], Round], float | None]] = [
        ("publish typed events (model, encode, ack)", lambda: _publish(stage), 25_000),
        ("consume and decode", lambda: _decode(stage, full), 30_000),
    ]
    try:
        with warnings.catch_warnings(record=True):  # a package of the peer's insists on warning of another
            from confluent_kafka.schema_registry import avro  # noqa: F401
    except ImportError:
        print("(confluent-kafka's schema registry client is not installed: no peer beside these)")
    else:
        subjects += [
            ("  peer: confluent AvroSerializer (dict)", lambda: _publish_peer(stage), None),
            ("  peer: confluent AvroDeserializer", lambda: _decode_peer(stage, full), None),
        ]
    return interleaved(rounds, subjects)


def _publish(stage: Stage) -> Round:
    settings = PublisherSettings.model_validate(
        {"kafka": {"bootstrap.servers": stage.bootstrap}, "registry": {"url": stage.registry_url}}
    )
    stage.topic("billing.invoices")
    models = [invoice(number) for number in range(COUNT)]
    with KafkaPublisher(settings) as publisher:
        publisher.publish(models[0], source="billing").result(30)

        def work() -> None:
            futures = [publisher.publish(model, source="billing") for model in models]
            for future in futures:
                future.result(60)

        return timed(COUNT, work)


def _decode(stage: Stage, topic: str) -> Round:
    decoder = stage.decoder()
    decoded = 0

    def take(messages: list[Any]) -> None:
        nonlocal decoded
        for m in messages:
            _, at = m.timestamp()
            record = Record(m.topic(), m.partition(), m.offset(), m.key(), m.value(), tuple(m.headers() or ()), at)
            event = decoder.decode(record)
            while not isinstance(event, Event):
                decoder.load(event)  # type: ignore[arg-type]
                event = decoder.decode(record)
            decoded += 1

    return _consume(stage, topic, take)


def _consume(stage: Stage, topic: str, take: Callable[[list[Any]], None]) -> Round:
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": "bench", "fetch.queue.backoff.ms": 20})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        first = consumer.consume(500, 10)
        take(first)
        left = COUNT - len(first)

        def work() -> None:
            nonlocal left
            while left > 0:
                messages = consumer.consume(500, 1)
                take(messages)
                left -= len(messages)

        return timed(left, work)
    finally:
        consumer.close()


def _publish_peer(stage: Stage) -> Round:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    topic = stage.topic("billing.invoices")
    client = SchemaRegistryClient({"url": stage.registry_url})
    serialise = AvroSerializer(
        client, json.dumps(stage.contract.schema),
        conf={"auto.register.schemas": False, "subject.name.strategy.type": "TOPIC_RECORD"},
    )  # fmt: skip
    producer = Producer(
        {"bootstrap.servers": stage.bootstrap, "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4"}
    )
    context = SerializationContext(topic, MessageField.VALUE)
    dicts = [invoice(number).model_dump() for number in range(COUNT)]
    serialise(dicts[0], context)
    failed: list[object] = []

    def report(error: object, _message: object) -> None:
        if error is not None:
            failed.append(error)

    def work() -> None:
        for data in dicts:
            value = serialise(data, context)
            while True:
                try:
                    producer.produce(topic, value, key=data["account_id"].encode(), on_delivery=report)
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
        producer.flush(60)

    counted = timed(COUNT, work)
    if failed:
        raise RuntimeError("the peer's events were not acknowledged")
    return counted


def _decode_peer(stage: Stage, topic: str) -> Round:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    deserialise = AvroDeserializer(
        SchemaRegistryClient({"url": stage.registry_url}), conf={"subject.name.strategy.type": "TOPIC_RECORD"}
    )
    context = SerializationContext(topic, MessageField.VALUE)

    def take(messages: list[Any]) -> None:
        for m in messages:
            deserialise(m.value(), context)

    return _consume(stage, topic, take)
