"""A cluster of any size behind the part of confluent_kafka's AdminClient and Consumer that measuring uses.

It behaves: groups commit as time goes on, logs grow and are stamped, a question about a time is answered from them,
and every answer comes in a Future of the client's own result classes. Time is an argument.
"""

from __future__ import annotations

import bisect
import random
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec  # type: ignore[attr-defined]

Place = tuple[str, int]


class Time:
    """The cluster's clock, and ours."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Log:
    """One partition: a record every ``every_s`` seconds from ``since`` on, or those of ``records`` (offset and time).
    What is in the log's first ``start`` offsets was deleted."""

    since: float
    every_s: float = 1.0
    start: int = 0
    records: list[tuple[int, float]] | None = None
    hidden: int = 0
    """offsets at the end that belong to an open transaction"""

    def high(self, now: float) -> int:
        if self.records is not None:
            return self.records[-1][0] + 1 if self.records else self.start
        return max(self.start, int((now - self.since) / self.every_s) + 1)

    def stable(self, now: float) -> int:
        return max(self.start, self.high(now) - self.hidden)

    def at(self, time_ms: int, now: float) -> tuple[int, int]:
        if self.records is not None:
            stamps = [round(stamp * 1000) for _, stamp in self.records]
            found = bisect.bisect_left(stamps, time_ms)
            return (self.records[found][0], stamps[found]) if found < len(stamps) else (-1, -1)
        offset = max(self.start, -int(-(time_ms / 1000 - self.since) // self.every_s))
        return (offset, self.stamp(offset)) if offset < self.high(now) else (-1, -1)

    def stamp(self, offset: int) -> int:
        if self.records is not None:
            return next(round(stamp * 1000) for at, stamp in self.records if at >= offset)
        return round((self.since + offset * self.every_s) * 1000)


@dataclass
class Reader:
    """A group: where it stands on each place (at the moment ``since``) and how many offsets a second it goes on, at
    most to the end. ``members`` processes share its places."""

    commits: dict[Place, int]
    per_s: float = 0.0
    since: float = 0.0
    members: int = 1
    client: str = "client"


@dataclass
class SimulatedCluster:
    """The admin client and, by ``consumer``, the reading one. ``requests`` counts what was asked."""

    clock: Time
    logs: dict[Place, Log] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    consumers: list[SimulatedConsumer] = field(default_factory=list)

    def committed(self, name: str) -> dict[Place, int]:
        reader = self.readers[name]
        moved = int(reader.per_s * (self.clock.now - reader.since))
        return {
            place: max(offset, min(offset + moved, self.logs[place].high(self.clock.now)))
            for place, offset in reader.commits.items()
        }

    # ---- AdminClient

    def list_consumer_groups(self, **_: Any) -> Future[Any]:
        return self._answer("list", SimpleNamespace(valid=[SimpleNamespace(group_id=name) for name in self.readers]))

    def describe_consumer_groups(self, names: list[str], **_: Any) -> dict[str, Future[Any]]:
        return {name: self._described(name) for name in names}

    def list_consumer_group_offsets(
        self, wanted: list[ConsumerGroupTopicPartitions], **_: Any
    ) -> dict[str, Future[Any]]:
        (one,) = wanted
        name = one.group_id
        places = [TopicPartition(*place, offset) for place, offset in self.committed(name).items()]
        return {name: self._answer("commits", ConsumerGroupTopicPartitions(name, places))}

    def list_topics(self, topic: str | None = None, **_: Any) -> Any:
        self._count("metadata")
        counts: dict[str, dict[int, object]] = {}
        for name, number in self.logs:
            counts.setdefault(name, {})[number] = object()
        chosen = counts if topic is None else {topic: counts.get(topic, {})}
        return SimpleNamespace(
            topics={name: SimpleNamespace(partitions=parts, error=None) for name, parts in chosen.items()}
        )

    def list_offsets(
        self, asked: Mapping[TopicPartition, OffsetSpec], isolation_level: Any = None, **_: Any
    ) -> dict[TopicPartition, Future[Any]]:
        self._count("offsets")
        now = self.clock.now
        stable = getattr(isolation_level, "name", "") == "READ_COMMITTED"
        answers = {}
        for tp, spec in asked.items():
            log, value = self.logs[tp.topic, tp.partition], spec._value
            if value == OffsetSpec.earliest()._value:
                found = (log.start, -1)
            elif value == OffsetSpec.latest()._value:
                found = (log.stable(now) if stable else log.high(now), -1)
            else:
                found = log.at(value, now)
            answers[tp] = _done(ListOffsetsResultInfo(found[0], found[1], -1))
        return answers

    def describe_configs(self, resources: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        self._count("configs")
        usual = {
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": "604800000",
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
        }
        return {
            resource: _done(
                {
                    name: SimpleNamespace(value=value)
                    for name, value in (usual | self.configs.get(resource.name, {})).items()
                }
            )
            for resource in resources
        }

    # ---- Consumer

    def consumer(self, **_: Any) -> SimulatedConsumer:
        self.consumers.append(SimulatedConsumer(self))
        return self.consumers[-1]

    # ---- inside

    def _described(self, name: str) -> Future[Any]:
        if name in self.failing:
            failed: Future[Any] = Future()
            failed.set_exception(self.failing[name])
            return failed
        reader = self.readers.get(name)
        if reader is None:
            return self._answer("describe", SimpleNamespace(state=ConsumerGroupState.DEAD, members=[]))
        places = list(reader.commits)
        members = [
            SimpleNamespace(
                client_id=f"{reader.client}-{number}",
                member_id=f"{reader.client}-{number}-id",
                host="/10.0.0.7",
                assignment=SimpleNamespace(
                    topic_partitions=[TopicPartition(*place) for place in places[number :: reader.members]]
                ),
            )
            for number in range(reader.members)
        ]
        state = ConsumerGroupState.STABLE if members else ConsumerGroupState.EMPTY
        return self._answer("describe", SimpleNamespace(state=state, members=members))

    def _answer(self, what: str, answer: Any) -> Future[Any]:
        self._count(what)
        return _done(answer)

    def _count(self, what: str) -> None:
        self.requests[what] = self.requests.get(what, 0) + 1


class SimulatedConsumer:
    """Reads one record of each assigned partition, then says that it has no more."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._assigned: list[TopicPartition] = []
        self.logins: list[tuple[str, str]] = []
        self.told_by = ""

    def set_sasl_credentials(self, username: str, password: str) -> None:
        self.told_by = threading.current_thread().name
        self.logins.append((username, password))

    def assign(self, places: list[TopicPartition]) -> None:
        self._assigned = list(places)

    def unassign(self) -> None:
        self._assigned = []

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        raise AssertionError("the simulated cluster has no topics of the backbone")

    def poll(self, _timeout: float) -> Any:
        if not self._assigned:
            return None
        tp = self._assigned.pop()
        self._cluster._count("reads")
        stamp = self._cluster.logs[tp.topic, tp.partition].stamp(tp.offset)
        return SimpleNamespace(
            error=lambda: None, topic=lambda: tp.topic, partition=lambda: tp.partition, timestamp=lambda: (2, stamp)
        )

    def close(self) -> None:
        self._assigned = []


def _done(answer: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future


def large(clock: Time, *, groups: int, partitions: int, topics: int, seed: int = 7) -> SimulatedCluster:
    """So many groups, each on one of so many topics: six in ten keep up, two work off a backlog, one is stuck, one has
    nobody."""
    random_ = random.Random(seed)
    cluster = SimulatedCluster(clock)
    for number in range(topics):
        for partition in range(partitions):
            since = clock.now - random_.uniform(3_600, 86_400)
            cluster.logs[f"topic-{number}", partition] = Log(since, every_s=random_.uniform(0.1, 2.0))
    for number in range(groups):
        places = [(f"topic-{number % topics}", partition) for partition in range(partitions)]
        kind = random_.choices(("keeps up", "behind", "stuck", "nobody"), (6, 2, 1, 1))[0]
        lag = {"keeps up": 3, "behind": 3_000, "stuck": 500, "nobody": 200}[kind]
        cluster.readers[f"group-{number}"] = Reader(
            commits={
                place: max(0, cluster.logs[place].high(clock.now) - random_.randint(0, lag)) for place in places
            },
            per_s={"keeps up": 10.0, "behind": 3.0}.get(kind, 0.0),
            since=clock.now,
            members=0 if kind == "nobody" else random_.choice((1, 2, 4)),
            client=f"service-{number}",
        )  # fmt: skip
    return cluster
