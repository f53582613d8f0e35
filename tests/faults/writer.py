"""What rows write into topics by themselves: records nobody can read, records of newer schemas, transactions, backlogs.
Everything acknowledged is noted beside the publisher's ledger, so that the checker asks for it as well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.codec import Encoded, Encoder
from schemas.contract import Contract, load_contracts
from schemas.registry import open_registry
from tests.faults.history import Journal
from tests.faults.publisher import CANARY_EMAIL, SOURCE
from tests.faults.scene import Group

POISON_KEY = b"poison"


class Writer:
    """Writes into one group's topic, straight to the cluster. Blocks until what it wrote is acknowledged."""

    def __init__(self, group: Group, **settings: Any) -> None:
        broker = group.company.broker
        self._group = group
        self._topic = group.plan.topic.name
        self.contract: Contract = load_contracts(group.company.events)[group.plan.topic.event]
        self.registry = open_registry(broker.registry.url)
        self._encoder = Encoder(self.registry)
        self._producer = Producer(
            {"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random", "message.max.bytes": 2_000_000,
             "linger.ms": 5, "log_level": 0, **settings}
        )  # fmt: skip
        self._notes = Journal(group.publishing.ledger.with_suffix(".extra"))
        self._numbers: dict[str, int] = {}

    @property
    def producer(self) -> Producer:
        return self._producer

    def encoded(self, key: str, **changed: Any) -> tuple[str, Encoded]:
        """The next event of a key: its id and its record."""
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        data = {"thing_id": key, "number": number, "email": CANARY_EMAIL, **changed}
        event = f"{key}/{number}"
        return event, self._encoder.encode(self.contract, data, id=event, source=SOURCE, time=datetime.now(UTC))

    def event(self, key: str, *, schema_id: int | None = None, more: bytes = b"") -> str:
        """Write the next event of a key; with ``schema_id`` as if written by that schema, ``more`` behind its body."""
        event, encoded = self.encoded(key)
        value = encoded.value
        if schema_id is not None:
            value = b"\x00" + schema_id.to_bytes(4, "big") + value[5:] + more
        self.send(event, encoded.key, value, encoded.headers)
        self.flush()
        return event

    def poison(self, value: bytes) -> None:
        """Write a record that nobody can read; it must end as a dead letter."""
        headers = [("ce_type", self.contract.name.encode())]

        def settled(error: KafkaError | None, message: Any) -> None:
            if error is None:
                self._group.publishing.poison.add((message.topic(), message.partition(), message.offset()))

        self._producer.produce(self._topic, value, key=POISON_KEY, headers=headers, on_delivery=settled)
        before = len(self._group.publishing.poison)
        self.flush()
        assert len(self._group.publishing.poison) == before + 1, "the poison was not written"

    def send(self, event: str, key: bytes, value: bytes, headers: Any) -> None:
        """Hand one record over; its acknowledgement is noted when it comes."""

        def settled(error: KafkaError | None, message: Any) -> None:
            if error is None:
                place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
                self._notes.write("acked", event=event, **place)

        while True:
            try:
                self._producer.produce(self._topic, value, key=key, headers=headers, on_delivery=settled)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def backlog(self, count: int, keys: int) -> None:
        """Write so many events over so many keys, as quickly as they go."""
        for number in range(count):
            event, encoded = self.encoded(f"backlog-{number % keys}")
            self.send(event, encoded.key, encoded.value, encoded.headers)
        self.flush()

    def flush(self, deadline_s: float = 60.0) -> None:
        until = time.monotonic() + deadline_s
        while self._producer.flush(1):
            if time.monotonic() > until:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def evolved(contract: Contract) -> Mapping[str, Any]:
    """The contract's schema with one more field that may be missing."""
    colour = {"name": "colour", "type": ["null", "string"], "default": None, "doc": "Its colour.", "examples": ["red"]}
    return {**contract.schema, "fields": [*contract.schema["fields"], colour]}


def incompatible(contract: Contract) -> Mapping[str, Any]:
    """The contract's schema with one more field that older events lack: nobody may register it."""
    weight = {"name": "weight", "type": "long", "doc": "Its weight.", "examples": [1]}
    return {**contract.schema, "fields": [*contract.schema["fields"], weight]}
