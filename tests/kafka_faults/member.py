"""A member of a group: the project's own Kafka thread on a cluster that fails as it is told, and a reader that keeps
what it hears. What it receives counts as settled at once, and may be committed when the test says so."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from confluent_kafka import Consumer, TopicPartition

from consumers.assignment import Assigned, Commit, Handover, Place
from consumers.control import Begin, NoPosition
from consumers.kafka import Owner
from schemas.event import Record
from tests.kafka_faults.mock_cluster import Api, MockCluster
from tests.waiting import eventually

GROUP = "readers"
QUICK = {
    "consumer": {},
    "classic": {"session.timeout.ms": 1000, "heartbeat.interval.ms": 100},
}


class Reader:
    """``consumers.kafka.Reader`` that records; used on the loop's thread."""

    def __init__(self) -> None:
        self.settled_records = self.settled_bytes = 0
        self.assignments: list[Assigned] = []
        self.held: dict[Place, Assigned] = {}
        self.records: list[Record] = []
        self.positions: dict[Place, int] = {}
        self.losses: list[Place] = []
        self.revocations: list[Place] = []
        self.stops: list[str] = []
        self.failed_commits: list[str] = []

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self.assignments += partitions
        self.held |= {one.place: one for one in partitions}

    def receive(self, handover: Handover) -> None:
        self.records += handover.records
        self.positions.update(handover.positions)
        self.settled_records += len(handover.records)
        self.settled_bytes += sum(len(r.value or b"") + len(r.key or b"") for r in handover.records)

    def revoke(self, places: Sequence[Place], reply: Future[Sequence[Commit]]) -> None:
        self.revocations += places
        reply.set_result([self.commit_of(place) for place in places if place in self.held])
        for place in places:
            self.held.pop(place, None)

    def lost(self, places: Sequence[Place]) -> None:
        self.losses += places
        for place in places:
            self.held.pop(place, None)

    def stop(self, reason: str) -> None:
        self.stops.append(reason)

    def commit_failed(self, reason: str) -> None:
        self.failed_commits.append(reason)

    def commit_of(self, place: Place) -> Commit:
        one = self.held[place]
        return Commit(place, one.epoch, self.positions.get(place, one.offset), "")


class Member:
    """One running member; close it before its cluster."""

    def __init__(
        self,
        cluster: MockCluster,
        *topics: str,
        protocol: str = "consumer",
        resolve: Callable[[Mapping[Place, int | None]], Mapping[Place, Begin | NoPosition]] | None = None,
        log: logging.Logger | None = None,
        reader: Reader | None = None,
        **settings: object,
    ) -> None:
        self.cluster, self.reader = cluster, reader or Reader()
        self.started: dict[Place, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.owner = Owner(
            settings={
                "bootstrap.servers": cluster.bootstrap,
                "group.protocol": protocol,
                "reconnect.backoff.max.ms": 100,
                **QUICK[protocol],
                **settings,
            },
            group=GROUP,
            topics=topics,
            reader=self.reader,
            loop=self._loop,
            resolve=resolve or from_the_beginning,
            started=self.started.update,
            drain_s=2,
            records_max=5_000,
            bytes_max=1 << 24,
            log=log or logging.getLogger("kafka"),
        )
        self.owner.start()

    def has_read(self, count: int) -> None:
        eventually(lambda: len(self.reader.records) >= count, about=f"{count} records")

    def commit(self) -> None:
        """Commit everything it has read of what it holds."""
        self.owner.commit([self.reader.commit_of(place) for place in list(self.reader.held)])

    def commits_sent(self) -> int:
        """How many commits have reached the broker, once all that were asked for before have been sent."""
        self.owner.prove().result(15)
        return self.cluster.requests(Api.OFFSET_COMMIT)

    def close(self) -> bool:
        closed = self.owner.close(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        return closed


def from_the_beginning(committed: Mapping[Place, int | None]) -> Mapping[Place, Begin | NoPosition]:
    return {place: Begin(0 if offset is None else offset, first=offset is None) for place, offset in committed.items()}


def committed(cluster: MockCluster, *places: Place, group: str = GROUP) -> dict[Place, int]:
    """What a group has committed, by the cluster's own word."""
    asker = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group})
    try:
        answers = asker.committed([TopicPartition(*place) for place in places], timeout=10)
        return {(tp.topic, tp.partition): tp.offset for tp in answers if tp.offset >= 0}
    finally:
        asker.close()
