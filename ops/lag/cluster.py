"""Reading groups, commits and offsets of a cluster: never joins a group, never commits, changes nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not named in its __all__
    AdminClient,
    ConfigResource,
    ListOffsetsResultInfo,
    OffsetSpec,
)

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

Isolation: TypeAlias = Literal["committed", "uncommitted"]
Stamping: TypeAlias = Literal["append", "create", "unknown"]
"""Who stamps a topic's records: the broker when they arrive, or their producers."""

IN_FLIGHT = 50
"""Requests about single groups under way at once (the client takes one group a call)."""

_LEVELS = {"committed": IsolationLevel.READ_COMMITTED, "uncommitted": IsolationLevel.READ_UNCOMMITTED}
_NO_SUCH_GROUP = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID}
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One process in a group. ``places`` are the partitions it reads."""

    client_id: str
    host: str
    places: tuple[Place, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A group as its coordinator describes it. ``state``: stable, empty, dead (there is none) and so on."""

    name: str
    state: str
    members: tuple[Member, ...] = ()

    @property
    def exists(self) -> bool:
        return self.state != "dead"


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed position: the offset to read next, and the metadata that travels with it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What a topic's configuration says of its records; as it stands here where we may not see it.

    ``retention_s``: so long a record is kept at least, None: no time is set. ``by_size``: the oldest are also deleted
    when a partition gets too large. ``deletes`` False: nothing is deleted by age or size (compacted only)."""

    stamping: Stamping = "unknown"
    retention_s: float | None = None
    by_size: bool = True
    deletes: bool = True


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What was asked of several groups: answers by name, and for the others why not."""

    found: dict[str, T] = field(default_factory=dict)
    failed: dict[str, KafkaError] = field(default_factory=dict)


class Cluster:
    """A cluster, read only. Every method blocks, at most about ``timeout_s`` for each request; one thread.

    ``open_consumer(**settings)`` makes a consumer without a group (``ops.app.App.consumer``, which also closes it);
    it is used for the few records that must be read to know their age. Raises KafkaException where the cluster does not
    answer or permit."""

    def __init__(self, admin: AdminClient, open_consumer: Callable[..., Consumer], *, timeout_s: float = 8.0) -> None:
        self._admin = admin
        self._open_consumer = open_consumer
        self._timeout_s = timeout_s
        self._readers: dict[Isolation, Consumer] = {}

    def group_names(self) -> list[str]:
        """Every consumer group the cluster knows, members or not."""
        listing = self._admin.list_consumer_groups(request_timeout=self._timeout_s).result()
        return sorted(group.group_id for group in listing.valid or [])

    def groups(self, names: Iterable[str]) -> Answers[Group]:
        """Groups by name; one that does not exist is answered with state ``dead``."""
        asked = self._each(
            names, lambda name: self._admin.describe_consumer_groups([name], request_timeout=self._timeout_s)[name]
        )
        answers: Answers[Group] = Answers()
        for name, description in asked.found.items():
            members = tuple(
                Member(
                    member.client_id,
                    member.host.lstrip("/"),
                    tuple((tp.topic, tp.partition) for tp in member.assignment.topic_partitions),
                    member.member_id,
                )
                for member in description.members
            )
            answers.found[name] = Group(name, description.state.name.lower(), members)
        for name, error in asked.failed.items():
            if error.code() in _NO_SUCH_GROUP:
                answers.found[name] = Group(name, "dead")
            else:
                answers.failed[name] = error
        return answers

    def commits(self, names: Iterable[str], *, described: Answers[Group] | None = None) -> Answers[dict[Place, Commit]]:
        """Committed positions by group; empty for one that does not exist. Only commits that no open transaction may
        still take back, unless one blocks them for longer than the timeout: then the last stable ones.

        ``described``: the answer of ``groups`` from just now, which is asked for otherwise. librdkafka 2.16 ends the
        *process* (SIGSEGV in rd_kafka_cgrp_op) when a coordinator that is moving or loading is asked for the offsets
        of a group by an AdminClient. Describing a group is refused in the same way and survives it, so a group is
        asked about only after its coordinator has described it."""
        names = list(names)
        described = self.groups(names) if described is None else described
        answers: Answers[dict[Place, Commit]] = Answers(
            failed={name: described.failed[name] for name in names if name in described.failed}
        )
        deadline = time.monotonic() + self._timeout_s
        wanted, require_stable = [name for name in names if name in described.found], True
        while wanted:
            wanted = self._commits(wanted, answers, require_stable=require_stable)
            if wanted:
                # the broker cannot be asked to tell when; the deadline bounds it
                time.sleep(0.05)
                require_stable = time.monotonic() < deadline
        return answers

    def _commits(
        self, names: Sequence[str], answers: Answers[dict[Place, Commit]], *, require_stable: bool
    ) -> list[str]:
        asked = self._each(
            names,
            lambda name: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(name)], require_stable=require_stable, request_timeout=self._timeout_s
            )[name],
        )
        unstable = []
        for name, group in asked.found.items():
            errors = [tp.error for tp in group.topic_partitions or [] if tp.error is not None]
            if any(error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT for error in errors):
                unstable.append(name)
            elif errors:
                answers.failed[name] = errors[0]
            else:
                answers.found[name] = {
                    (tp.topic, tp.partition): Commit(tp.offset, tp.metadata or "")
                    for tp in group.topic_partitions or []
                    if tp.offset >= 0
                }
        for name, error in asked.failed.items():
            if error.code() in _NO_SUCH_GROUP:
                answers.found[name] = {}
            elif error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
                unstable.append(name)
            else:
                answers.failed[name] = error
        return unstable

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each topic has; topics that do not exist are not in the answer."""
        wanted = set(topics)
        if not wanted:
            return {}
        if len(wanted) == 1:
            listed = self._admin.list_topics(next(iter(wanted)), timeout=self._timeout_s).topics
        else:
            listed = self._admin.list_topics(timeout=self._timeout_s).topics
        return {
            name: len(listed[name].partitions)
            for name in wanted
            if name in listed and listed[name].error is None and listed[name].partitions
        }

    def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset of each log; places that do not exist are not in the answer."""
        found = self._offsets(dict.fromkeys(places, _EARLIEST), "committed")
        return {place: answer.offset for place, answer in found.items()}

    def ends(self, places: Iterable[Place], isolation: Isolation) -> dict[Place, int]:
        """The end of each log for such a reader: the last stable offset, or the high watermark."""
        found = self._offsets(dict.fromkeys(places, _LATEST), isolation)
        return {place: answer.offset for place, answer in found.items()}

    def at_times(self, times: Mapping[Place, int], isolation: Isolation) -> dict[Place, tuple[int, int]]:
        """The first offset stamped at the time (milliseconds) or later, and its stamp; (-1, -1): there is none."""
        asked = {place: OffsetSpec.for_timestamp(time_ms) for place, time_ms in times.items()}
        found = self._offsets(asked, isolation)
        return {place: (answer.offset, answer.timestamp) for place, answer in found.items()}

    def topic_settings(self, topics: Iterable[str]) -> dict[str, TopicSettings]:
        """Who stamps each topic's records, and how long they are kept."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in sorted(set(topics))]
        answers: dict[str, TopicSettings] = {}
        if not resources:
            return answers
        for resource, future in self._admin.describe_configs(resources, request_timeout=self._timeout_s).items():
            try:
                found = {name: str(entry.value) for name, entry in future.result().items()}
                answers[resource.name] = _settings(found)
            except (KafkaException, KeyError, ValueError):
                answers[resource.name] = TopicSettings()
        return answers

    def first_records(self, offsets: Mapping[Place, int], isolation: Isolation) -> dict[Place, int | None]:
        """The timestamp of the first record at or after each offset, None where there is none to read. Reads one
        record of each partition. Places we may not read, or that do not answer in time, are not in the answer."""
        if not offsets:
            return {}
        consumer = self._reader(isolation)
        answers: dict[Place, int | None] = {}
        refused: set[Place] = set()
        consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in offsets.items()])
        deadline = time.monotonic() + self._timeout_s
        while len(answers.keys() | refused) < len(offsets) and time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None:
                continue
            error = message.error()
            place = (message.topic() or "", message.partition() or 0)
            if error is None:
                answers.setdefault(place, message.timestamp()[1])
            elif error.code() == KafkaError._PARTITION_EOF:
                answers.setdefault(place, None)
            elif place in offsets:
                refused.add(place)
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                refused.update(wanted for wanted in offsets if wanted[0] == message.topic())
        consumer.unassign()
        return answers

    def renew(self, admin: AdminClient, username: str, password: str) -> None:
        """Ask by this client from now on, and read with these credentials from the next connection on (SASL PLAIN and
        SCRAM)."""
        self._admin = admin
        for reader in self._readers.values():
            reader.set_sasl_credentials(username, password)

    def _reader(self, isolation: Isolation) -> Consumer:
        if isolation not in self._readers:
            self._readers[isolation] = self._open_consumer(
                isolation_level=f"read_{isolation}",
                # one record of each partition is wanted: do not fetch the backlog behind it
                fetch_message_max_bytes=65_536,
                queued_max_messages_kbytes=1_024,
                # the next assignment waits for a fetch under way, so none may wait long for records to come
                fetch_wait_max_ms=10,
                fetch_queue_backoff_ms=10,
            )
        return self._readers[isolation]

    def _offsets(self, asked: Mapping[Place, OffsetSpec], isolation: Isolation) -> dict[Place, ListOffsetsResultInfo]:
        if not asked:
            return {}
        found: dict[Place, ListOffsetsResultInfo] = {}
        waiting = {TopicPartition(topic, partition): spec for (topic, partition), spec in asked.items()}
        deadline = time.monotonic() + self._timeout_s
        while True:
            request, waiting = waiting, {}
            answers = self._admin.list_offsets(
                request, isolation_level=_LEVELS[isolation], request_timeout=self._timeout_s
            )
            for tp, future in answers.items():
                try:
                    found[tp.topic, tp.partition] = future.result()
                except KafkaException as error:
                    code = error.args[0].code()
                    if code in _LEADERLESS and time.monotonic() < deadline:
                        waiting[tp] = request[tp]  # just made, or its leader moves
                    elif code not in _GONE:
                        raise
            if not waiting:
                return found
            time.sleep(_LEADER_POLL_S)

    def _each(self, names: Iterable[str], ask: Callable[[str], Future[Any]]) -> Answers[Any]:
        """Ask about every name, ``IN_FLIGHT`` at once; coordinators that are just moving or loading are asked again."""
        answers: Answers[Any] = Answers()
        deadline = time.monotonic() + self._timeout_s
        waiting = list(dict.fromkeys(names))
        while waiting:
            again = []
            under_way: deque[tuple[str, Future[Any]]] = deque()
            for name in [*waiting, None]:
                while under_way and (name is None or len(under_way) >= IN_FLIGHT):
                    asked, future = under_way.popleft()
                    try:
                        answers.found[asked] = future.result()
                    except KafkaException as error:
                        code = error.args[0].code()
                        if code in _NOBODY_ANSWERS:
                            raise
                        if code in _MOVING and time.monotonic() < deadline:
                            again.append(asked)
                        else:
                            answers.failed[asked] = error.args[0]
                if name is not None:
                    under_way.append((name, ask(name)))
            if again:
                time.sleep(0.1)  # nobody says when a coordinator is ready; the deadline bounds it
            waiting = again
        return answers


def _settings(config: Mapping[str, str]) -> TopicSettings:
    retention_ms = int(config["retention.ms"])
    return TopicSettings(
        stamping="append" if config["message.timestamp.type"] == "LogAppendTime" else "create",
        retention_s=None if retention_ms < 0 else retention_ms / 1000,
        by_size=int(config["retention.bytes"]) >= 0,
        deletes="delete" in config["cleanup.policy"],
    )


_LEADERLESS = frozenset({
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
})  # fmt: skip
_LEADER_POLL_S = 0.1
_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_MOVING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
_NOBODY_ANSWERS = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}
