"""Reading topics without a group: nothing is committed, nobody is disturbed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ops.app import CLUSTER_TIMEOUT_S
from schemas.avsc import shown
from schemas.contract import is_topic
from schemas.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    from confluent_kafka import Message

    from ops.app import App
    from schemas.event import Record

TIMESTAMP_TYPES = {0: "none", 1: "create", 2: "append"}

Spans: TypeAlias = Mapping[tuple[str, int], Sequence[tuple[int, int]]]
"""Ranges of offsets ``[from, to)`` by topic and partition, in order and apart."""


def read_to_end(
    app: App, topic: str, *, isolation_level: str = "read_committed", from_offsets: dict[int, int] | None = None
) -> Iterator[Message]:
    """Every record of a topic from its beginning (or ``from_offsets``) to the end that was current at the call.

    In order within a partition; records of different partitions come mixed. Blocks; raises NotFoundError if there is
    no such topic,
    UnreachableError if the cluster stays silent for ``CLUSTER_TIMEOUT_S``.
    """
    from confluent_kafka import KafkaError, TopicPartition

    from ops.lag.cluster import Cluster

    places = [(topic, partition) for partition in range(partition_count(app, topic))]
    cluster = Cluster(app.admin(), app.consumer)
    starts, ends = cluster.starts(places), cluster.ends(places, "uncommitted")
    begin = {place: max(starts[place], (from_offsets or {}).get(place[1], 0)) for place in places}
    wanted = [place for place in places if begin[place] < ends[place]]
    if not wanted:
        return
    # a fetch at the end of a partition answers when records come, or after this wait
    consumer = app.consumer(isolation_level=isolation_level, fetch_wait_max_ms=10)
    consumer.assign([TopicPartition(*place, begin[place]) for place in wanted])
    left = {place[1] for place in wanted}
    heard = time.monotonic()
    try:
        while left:
            # consume waits for 500 records or the time, whichever is first
            for message in consumer.consume(500, 0.02):
                heard = time.monotonic()
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition() or 0)
                else:
                    raise app.reading_error(error, topic)
            if time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise app.unreachable()
    finally:
        consumer.close()


def read_spans(app: App, spans: Spans) -> Iterator[list[Record]]:
    """The committed records that stand in ranges of offsets, in lists of at most 500, in order within a partition; an
    empty list where nothing came for a moment. Ends when every range was read, over holes as well.

    Blocks; raises RefusedError where the beginning of a range is deleted, UnreachableError if the cluster stays silent
    for ``CLUSTER_TIMEOUT_S``.
    """
    from confluent_kafka import KafkaError, TopicPartition

    left = {place: [*ranges] for place, ranges in spans.items() if ranges}
    if not left:
        return
    consumer = app.consumer(fetch_wait_max_ms=10, fetch_queue_backoff_ms=10, queued_max_messages_kbytes=16_384)
    consumer.assign([TopicPartition(*place, ranges[0][0]) for place, ranges in sorted(left.items())])
    heard = time.monotonic()
    try:
        while left:
            found: list[Record] = []
            for message in consumer.consume(500, 0.05):
                heard = time.monotonic()
                error, place, offset = (
                    message.error(),
                    (message.topic() or "", message.partition() or 0),
                    message.offset() or 0,
                )
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise RefusedError(f"The records of {place[0]}/{place[1]} were deleted before they could be read.")
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise app.reading_error(error, place[0])
                if place not in left:
                    continue
                ranges = left[place]
                if error is None:
                    while ranges and offset >= ranges[0][1]:
                        ranges.pop(0)
                    if ranges and offset >= ranges[0][0]:
                        found.append(as_record(message))
                if error is not None or not ranges or offset + 1 >= ranges[-1][1]:
                    del left[place]
                    consumer.pause([TopicPartition(*place)])
            yield found
            if found:
                heard = time.monotonic()  # whoever took them may have needed long
            elif time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise app.unreachable()
    finally:
        consumer.close()


def partition_count(app: App, topic: str) -> int:
    """How many partitions a topic has. Raises NotFoundError, UnreachableError."""
    from confluent_kafka import KafkaException

    if not is_topic(topic):  # what can be none: the client refuses it in ways of its own
        raise NotFoundError(f"The cluster has no topic {shown(topic)}.")
    try:
        found = app.admin().list_topics(topic, timeout=CLUSTER_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise app.kafka_error(error.args[0]) from None
    if found.error is not None:
        raise app.kafka_error(found.error, f"describing the topic {topic}")
    if not found.partitions:
        raise NotFoundError(f"The cluster has no topic '{topic}'.")
    return len(found.partitions)


def as_record(message: Message) -> Record:
    """Kafka's message as a record that the decoder takes."""
    from schemas.event import Record

    kind, timestamp = message.timestamp()
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, _bytes(value)) for name, value in _headers(message)),
        timestamp=timestamp,
        timestamp_type=TIMESTAMP_TYPES.get(kind, "none"),
    )


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    # librdkafka gives a list of pairs; the type stub also knows the mapping that may be written
    headers = message.headers()
    return headers if isinstance(headers, list) else list((headers or {}).items())


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
