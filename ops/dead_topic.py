"""The dead topic of one subscription, followed: which letters are open now, and their bytes when they are wanted."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consumers.deadletter import DeadLetter, parse_letter
from ops.app import CLUSTER_TIMEOUT_S
from ops.lag.cluster import Cluster
from ops.reading import as_record
from schemas.errors import NotFoundError
from schemas.event import Origin

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from ops.app import App


@dataclass(frozen=True, slots=True)
class Standing:
    """An open letter, where it stands in the dead topic and since when (ms, the topic's own time). The letter is
    without its bytes: its headers are those that say what event it is."""

    letter: DeadLetter
    partition: int
    offset: int
    written_at: int = 0

    @property
    def lane(self) -> tuple[str, int, bytes | None] | None:
        """Where order is kept: events of one key in one partition. None for an event without a key, which stands
        alone."""
        letter = self.letter
        return None if letter.key is None else (letter.origin.topic, letter.origin.partition, letter.key)


class DeadTopic:
    """``<name>.dead`` read by one consumer without a group; ``refresh`` reads on. Every method blocks; one thread.

    ``open`` are the open letters by origin as of the last ``refresh``; ``closed`` are those of ``remember`` that were
    closed, as they stood before (as long as the topic was not compacted). Raises NotFoundError if there is no such
    topic, UnreachableError if the cluster stays silent."""

    def __init__(self, app: App, name: str, *, remember: Collection[Origin] = ()) -> None:
        self._app, self.topic = app, f"{name}.dead"
        self._remember = frozenset(remember)
        self.closed: dict[Origin, Standing] = {}
        self._cluster = Cluster(app.admin(), app.consumer)
        self.partitions = self._cluster.partition_counts([self.topic]).get(self.topic, 0)
        if not self.partitions:
            raise NotFoundError(f"The topic {self.topic} does not exist.")
        self._places = [(self.topic, partition) for partition in range(self.partitions)]
        self.open: dict[Origin, Standing] = {}
        self._read_to = dict.fromkeys(range(self.partitions), 0)
        self._follower: Consumer | None = None
        self._reader: Consumer | None = None

    def refresh(self) -> None:
        """Read to the ends that are current now."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        ends = {partition: end for (_, partition), end in self._cluster.ends(self._places, "committed").items()}
        starts = {p: start for (_, p), start in self._cluster.starts(self._places).items()}
        behind = {p for p, end in ends.items() if max(self._read_to[p], starts[p]) < end}
        if not behind:
            return
        if self._follower is None:
            self._follower = self._app.consumer(fetch_wait_max_ms=10, fetch_queue_backoff_ms=10)
            self._follower.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in self._places])
        heard = time.monotonic()
        while behind:
            for message in self._follower.consume(500, 0.05):
                heard = time.monotonic()
                self._take(message)
            behind = {p for p in behind if self._read_to[p] < ends[p]}
            if time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise self._app.unreachable()

    def _take(self, message: Message) -> None:
        from confluent_kafka import KafkaError

        error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise self._app.reading_error(error, message.topic() or "")
            self._read_to[partition] = max(self._read_to[partition], offset)
            return
        self._read_to[partition] = offset + 1
        record = as_record(message)
        origin = _origin(record.key)
        if origin is None:
            return
        letter = parse_letter(record)
        if letter is None:
            gone = self.open.pop(origin, None)
            if gone is not None and origin in self._remember:
                self.closed[origin] = gone
        else:
            bare = replace(letter, value=None, headers=tuple(h for h in letter.headers if h[0].startswith("ce_")))
            self.open[origin] = Standing(bare, partition, offset, record.timestamp)

    def full(self, standings: Iterable[Standing]) -> dict[Origin, DeadLetter]:
        """These letters with their bytes; those that were closed or replaced since the last ``refresh`` may be
        missing. Reads from the first to the last of them in each partition."""
        wanted: dict[int, dict[int, Origin]] = {}
        for standing in standings:
            wanted.setdefault(standing.partition, {})[standing.offset] = standing.letter.origin
        found: dict[Origin, DeadLetter] = {}
        for message in self._ranges({p: (min(at), max(at)) for p, at in wanted.items()}):
            partition, offset = message.partition() or 0, message.offset() or 0
            if offset in wanted[partition] and (letter := parse_letter(as_record(message))) is not None:
                found[letter.origin] = letter
        return found

    def _ranges(self, ranges: Mapping[int, tuple[int, int]]) -> Iterable[Message]:
        from confluent_kafka import KafkaError, TopicPartition

        if not ranges:
            return
        if self._reader is None:
            self._reader = self._app.consumer(fetch_wait_max_ms=10, fetch_queue_backoff_ms=10)
        self._reader.assign([TopicPartition(self.topic, p, first) for p, (first, _) in ranges.items()])
        left, heard = set(ranges), time.monotonic()
        while left:
            for message in self._reader.consume(500, 0.05):
                heard = time.monotonic()
                error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
                if error is None:
                    if offset <= ranges[partition][1]:
                        yield message
                    if offset >= ranges[partition][1]:
                        left.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
                else:
                    raise self._app.reading_error(error, message.topic() or "")
            if time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise self._app.unreachable()
        self._reader.unassign()


def _origin(key: bytes | None) -> Origin | None:
    try:
        topic, partition, offset = (key or b"").decode().rsplit("/", 2)
        return Origin(topic, int(partition), int(offset))
    except ValueError:
        return None


def in_order(standings: Collection[Standing]) -> list[Standing]:
    """In the order in which they happened: within a partition as in its log, between partitions by time. So the events
    of a key keep their order, also those from before its topic got more partitions."""
    import heapq

    logs: dict[tuple[str, int], list[Standing]] = {}
    for standing in standings:
        logs.setdefault(standing.letter.origin[:2], []).append(standing)
    for log in logs.values():
        log.sort(key=lambda standing: standing.letter.origin.offset)
    return list(heapq.merge(*(logs[place] for place in sorted(logs)), key=lambda one: one.letter.timestamp))
