"""A publisher for the tests of services: the same checks, encoding and outcomes as Kafka's, and nothing leaves the
process."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from producers.errors import Backpressure
from producers.facts import Observer
from producers.publisher import Acknowledgement, Publisher
from producers.settled import RECORD_BYTES_MAX, Acknowledged, Headers, OnSettled, SendFailed
from schemas.event import Event, Record

if TYPE_CHECKING:
    from schemas.contract import Contract
    from schemas.registry import Registry

Answer: TypeAlias = Literal["rejected", "unknown", "unknown but written", "backpressure", "late"]


class MemoryPublisher(Publisher):
    """Keeps what is published: ``events`` decoded again from the bytes, ``records`` as they would stand in Kafka.

    Every schema is registered in a registry of its own at its first use; give ``registry`` to see what happens with
    yours, where nothing is registered by publishing. Outcomes are known at once, in the publishing thread;
    ``answer_next`` makes the next publishes fail as Kafka can.
    """

    def __init__(
        self, registry: Registry | None = None, *, partitions: int = 12, observe: Observer | None = None
    ) -> None:
        from schemas.codec import Decoder, Encoder
        from schemas.registry import open_registry

        self._own = None if registry is not None else open_registry(f"memory://publisher-{uuid.uuid4().hex}")
        used = registry if registry is not None else self._own
        assert used is not None
        self._registered: set[str] = set()
        self._decoder = Decoder(used)
        self._memory = MemoryLog(partitions)
        super().__init__(self._memory, Encoder(used), observe=observe)

    @property
    def records(self) -> list[Record]:
        """What stands in the log, in the order of publishing."""
        return self._memory.records()

    @property
    def events(self) -> list[Event]:
        """The same, as a subscription would read it."""
        return [self._decoded(record) for record in self.records]

    def answer_next(self, answer: Answer, times: int = 1) -> None:
        """Let the next ``times`` records be answered so, one after the other, before it is well again.

        ``rejected`` and ``unknown`` are not written, ``unknown but written`` is; ``backpressure`` is not taken;
        ``late`` waits for ``answer_late`` and is unknown if the publisher is closed before.
        """
        self._memory.answer_next(answer, times)

    def answer_late(self) -> int:
        """Acknowledge what waits; how many that were."""
        return self._memory.answer_late()

    def clear(self) -> None:
        """Forget what was published and what ``answer_next`` has left."""
        self._memory.clear()

    def publish_data(
        self,
        contract: Contract,
        data: Mapping[str, Any],
        *,
        source: str,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
        block_s: float | None = None,
    ) -> Future[Acknowledgement]:
        if self._own is not None and contract.name not in self._registered:
            self._own.register(contract.subject, contract.text)
            self._registered.add(contract.name)
        return super().publish_data(
            contract,
            data,
            source=source,
            id=id,
            time=time,
            subject=subject,
            correlation_id=correlation_id,
            causation_id=causation_id,
            traceparent=traceparent,
            block_s=block_s,
        )

    def _decoded(self, record: Record) -> Event:
        from schemas.codec import SchemaWanted

        found = self._decoder.decode(record)
        if isinstance(found, SchemaWanted):
            self._decoder.load(found)
            found = self._decoder.decode(record)
        assert isinstance(found, Event), found
        return found


class MemoryLog:
    """Topics in memory, each with ``partitions`` partitions chosen by key as Kafka's clients do. Thread-safe."""

    def __init__(self, partitions: int = 12) -> None:
        self._partitions = partitions
        self._lock = threading.Lock()
        self._kept: list[Record] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._answers: deque[Answer] = deque()
        self._late: list[tuple[Record, OnSettled]] = []

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        *,
        partition: int = -1,
        on_settled: OnSettled,
        block_s: float | None = None,
    ) -> None:
        chosen = partition if partition >= 0 else murmur2(key or b"") % self._partitions
        record = Record(topic, chosen, -1, key, value, tuple(headers or ()), time.time_ns() // 1_000_000)
        with self._lock:
            answer = self._answers.popleft() if self._answers else None
            if answer == "backpressure":
                raise Backpressure("The queue is full, as this test wants it; nothing was sent, try again later.")
            if answer == "late":
                self._late.append((record, on_settled))
                return
            settled: Acknowledged | SendFailed
            if chosen >= self._partitions:
                settled = SendFailed("rejected", f"The topic '{topic}' has no partition {chosen}", "_UNKNOWN_PARTITION")
            elif len(key or b"") + len(value or b"") > RECORD_BYTES_MAX:
                reason = (
                    f"The record, or the batch it travelled in, is larger than the topic '{topic}' or the client takes"
                )
                settled = SendFailed("rejected", reason, "MSG_SIZE_TOO_LARGE")
            elif answer == "rejected":
                reason = f"Writing to the topic '{topic}' is not permitted"
                settled = SendFailed("rejected", reason, "TOPIC_AUTHORIZATION_FAILED")
            else:
                if answer != "unknown":
                    self._keep(record)
                settled = Acknowledged(topic, chosen, record.offset)
                if answer is not None:
                    reason = f"Kafka did not confirm a record for the topic '{topic}' in time"
                    settled = SendFailed("unknown", reason, "_MSG_TIMED_OUT")
        on_settled(settled)  # outside of the lock: whoever is told may publish again

    def flush(self, timeout_s: float) -> int:
        return len(self._late)

    def close(self, timeout_s: float = 30.0) -> int:
        with self._lock:
            late, self._late = self._late, []
        for record, on_settled in late:
            reason = f"The producer was closed before a record for the topic '{record.topic}' was confirmed"
            on_settled(SendFailed("unknown", reason, "_PURGE_QUEUE"))
        return len(late)

    def answer_next(self, answer: Answer, times: int) -> None:
        with self._lock:
            self._answers.extend([answer] * times)

    def answer_late(self) -> int:
        with self._lock:
            late, self._late = self._late, []
            for record, _ in late:
                self._keep(record)
        for record, on_settled in late:
            on_settled(Acknowledged(*record.origin))
        return len(late)

    def records(self) -> list[Record]:
        with self._lock:
            return list(self._kept)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._answers.clear()

    def _keep(self, record: Record) -> None:
        place = (record.topic, record.partition)
        record.offset = self._ends.get(place, 0)
        self._ends[place] = record.offset + 1
        self._kept.append(record)


def murmur2(key: bytes) -> int:
    """The hash by which Java's producer and librdkafka's ``murmur2_random`` place a key, as a positive number
    (org.apache.kafka.common.utils.Utils.murmur2 and toPositive)."""
    m, mask = 0x5BD1E995, 0xFFFF_FFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFF_FFFF
