"""What the cluster itself says: ends, commits, whole topics, receipts. Nothing here ever joins a group."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers.receipts import SETTLED
from consumers.receipts import TOPIC as DELIVERIES
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import engine_contracts
from schemas.event import Event, Record
from schemas.registry import open_registry
from tests.faults.broker import Broker
from tests.faults.history import Place, Stored
from tests.waiting import eventually

__all__ = ["DELIVERIES", "ends", "lag_of", "read_receipts", "read_topic", "stored_of"]


def ends(bootstrap: str, topic: str) -> dict[tuple[str, int], int]:
    """The ends of a topic's partitions; a broker that has just come back is asked again for 60 s."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "faults-ends", "log_level": 0})

    def ask() -> dict[tuple[str, int], int] | None:
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            places = [TopicPartition(topic, partition) for partition in partitions]
            return {(topic, tp.partition): consumer.get_watermark_offsets(tp, timeout=10)[1] for tp in places}
        except KafkaException:
            return None  # not there yet: asked again until the deadline

    try:
        return eventually(ask, 60, poll_s=0.2, about=f"the ends of {topic}") or {}
    finally:
        consumer.close()


def lag_of(bootstrap: str, group: str, topic: str) -> int:
    """How many offsets a group is behind in a topic; asked by a consumer that never joins."""
    last = ends(bootstrap, topic)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    try:
        committed = consumer.committed([TopicPartition(*place) for place in last], 20)
        return sum(last[tp.topic, tp.partition] - max(0, tp.offset) for tp in committed)
    finally:
        consumer.close()


def read_receipts(broker: Broker, begin: Mapping[tuple[str, int], int]) -> dict[str, dict[Place, int]]:
    """By subscription, when the broker took the first receipt of each record: of the receipts from ``begin`` on."""
    decoder = Decoder(open_registry(broker.registry.url), contracts=engine_contracts())
    found: dict[str, dict[Place, int]] = defaultdict(dict)
    for record in read_topic(broker.bootstrap, DELIVERIES, begin):
        event = decoder.decode(record)
        if isinstance(event, SchemaWanted):
            decoder.load(event)
            event = decoder.decode(record)
        assert isinstance(event, Event), f"a receipt cannot be read: {event}"
        if event.type == SETTLED:
            data = event.data
            place = (data["origin_topic"], data["origin_partition"], data["origin_offset"])
            found[data["subscription"]].setdefault(place, record.timestamp)
    return found


def read_topic(bootstrap: str, topic: str, begin: Mapping[tuple[str, int], int] | None = None) -> list[Record]:
    """Every record that stands in a topic now (from ``begin`` on), in the order of each partition. Empty if it does not
    exist."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "faults-reader",
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    found: list[Record] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        if not partitions:
            return []
        consumer.assign([TopicPartition(topic, p, (begin or {}).get((topic, p), 0)) for p in partitions])
        left = set(partitions)
        until = time.monotonic() + 60
        while left:
            if time.monotonic() > until:
                raise AssertionError(f"{topic} could not be read to its end")
            for message in consumer.consume(1000, 1.0):
                error = message.error()
                if error is None:
                    headers = tuple(message.headers() or ())
                    found.append(Record(topic, message.partition(), message.offset(), message.key(), message.value(),
                                        headers, message.timestamp()[1]))  # fmt: skip
                elif error.name() == "_PARTITION_EOF":
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return found


def stored_of(record: Record, poison: set[Place]) -> Stored:
    headers = dict(record.headers)
    event = (headers.get("ce_id") or b"").decode(errors="replace")
    place = (record.topic, record.partition, record.offset)
    if place in poison or not event:
        event = f"poison at {record.partition}/{record.offset}"
    key = (record.key or b"").decode(errors="replace")
    return Stored(place, event, key, place not in poison, (record.key, record.value, record.headers))
