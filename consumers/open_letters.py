"""The open dead letters of partitions that were just assigned: what parks their keys before the first delivery."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from consumers.assignment import Place
from consumers.deadletter import parse_letter
from consumers.kafka import FETCH_MAX, as_record
from schemas.errors import UnreachableError

READ_MAX_S = 20.0


def read_open_letters(
    settings: Mapping[str, Any], dead_topic: str, places: Sequence[Place]
) -> dict[Place, list[tuple[bytes | None, int]]]:
    """Key and offset of every open letter whose origin is one of these places, by place. ``settings`` are librdkafka's
    of a connection. Blocks while it reads the places' partitions of the dead topic to the ends they had when it was
    called; raises UnreachableError when that takes longer than 20 s, and KafkaException."""
    deadline = time.monotonic() + READ_MAX_S
    consumer = Consumer({
        **settings,
        "group.id": "backbone.open-letters",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 20,
        "fetch.wait.max.ms": 20,
        "enable.partition.eof": True,
    })  # fmt: skip
    try:
        numbers = sorted({partition for _, partition in places})
        waiting = set()
        for number in numbers:
            low, high = consumer.get_watermark_offsets(TopicPartition(dead_topic, number), timeout=10)
            if low < high:
                waiting.add(number)
        consumer.assign([TopicPartition(dead_topic, number, OFFSET_BEGINNING) for number in waiting])
        letters: dict[bytes, tuple[Place, bytes | None, int]] = {}
        while waiting:
            if time.monotonic() > deadline:
                raise UnreachableError(f"The open letters in {dead_topic} could not be read in {READ_MAX_S:.0f} s.")
            for message in consumer.consume(FETCH_MAX, 0.2):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    waiting.discard(message.partition())
                    continue
                record = as_record(message)
                letter = parse_letter(record)
                if letter is None:
                    letters.pop(record.key or b"", None)
                else:
                    origin = letter.origin
                    letters[record.key or b""] = ((origin.topic, origin.partition), letter.key, origin.offset)
    finally:
        consumer.close()
    found: dict[Place, list[tuple[bytes | None, int]]] = {place: [] for place in places}
    for one in letters.values():
        if one[0] in found:
            found[one[0]].append((one[1], one[2]))
    return found
