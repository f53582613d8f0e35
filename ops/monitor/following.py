"""The backbone's topics read on, round after round, by one consumer without a group: control, heartbeats, dead topics.

Each record is read once, however many rounds there are: what is open, attached or alive now is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.control import TOPIC as CONTROL
from consumers.control import Control, ControlSnapshot
from consumers.deadletter import parse_letter
from consumers.heartbeat import TOPIC as HEARTBEAT
from consumers.heartbeat import decode
from ops.deadletters import OpenLetter
from ops.lag.cluster import Cluster, Place
from ops.monitor.snapshot import Letters
from ops.reading import as_record
from ops.watch.heartbeats import BACK_S, Beat, Beats

READ_S = 8.0
"""So long one reading takes at most; what is left is read in the next round."""


class Following:
    """What the topics say. ``read`` first, then ask. Blocks; one thread; ``close`` ends it.

    Topics that are not there, or may not be read here, are left out: ``refused`` names the latter."""

    def __init__(self, cluster: Cluster, open_consumer: Callable[..., Consumer]) -> None:
        self._cluster, self._open_consumer = cluster, open_consumer
        self._consumer: Consumer | None = None
        self._read_to: dict[Place, int] = {}
        self._complete: set[str] = set()
        self._control = Control()
        self._beats: dict[bytes | None, tuple[float, Beat]] = {}
        self._open: dict[str, dict[int, dict[bytes, float | None]]] = {}
        self.refused: set[str] = set()

    def read(self, now: float) -> None:
        """Read on to the ends that are current now: what is attached, then the dead topics of that. Raises
        KafkaException where the cluster does not answer."""
        known = self._wanted()
        self._follow(known, now)
        if (wanted := self._wanted()) != known:
            self._follow(wanted, now)

    def control(self) -> ControlSnapshot:
        return self._control.snapshot()

    def beats(self, now: float) -> Beats:
        """The newest heartbeat of each process, those that are too old to say anything of now left out."""
        self._beats = {key: found for key, found in self._beats.items() if now - found[0] <= BACK_S}
        newest = [Beat(beat.heartbeat, max(0.0, now - at)) for at, beat in self._beats.values()]
        there = (HEARTBEAT, 0) in self._read_to
        return Beats(topic_exists=there, all=tuple(sorted(newest, key=lambda beat: beat.age_s)))

    def letters(self) -> dict[str, Letters]:
        """The open dead letters by subscription; of those whose dead topic has been read to an end."""
        found = {}
        for topic in self._complete:
            if topic.endswith(".dead"):
                standing = [since for part in self._open.get(topic, {}).values() for since in part.values()]
                known = [since for since in standing if since is not None]
                found[topic.removesuffix(".dead")] = Letters(len(standing), min(known, default=None))
        return found

    def renew(self, username: str, password: str) -> None:
        """Authenticate with these from the next connection on (SASL PLAIN and SCRAM)."""
        if self._consumer is not None:
            self._consumer.set_sasl_credentials(username, password)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    # ---- inside

    def _wanted(self) -> set[str]:
        return {CONTROL, HEARTBEAT, *(f"{name}.dead" for name in self.control().subscriptions)}

    def _follow(self, topics: Iterable[str], now: float) -> None:
        counts = self._cluster.partition_counts(topic for topic in topics if topic not in self.refused)
        places = {(topic, number) for topic, count in counts.items() for number in range(count)}
        if self._consumer is None:
            # what arrives between two rounds waits here, so it is bounded
            self._consumer = self._open_consumer(queued_max_messages_kbytes=4_096, fetch_message_max_bytes=262_144)
        starts, ends = self._cluster.starts(places), self._cluster.ends(places, "committed")
        for place in list(self._read_to):
            # a topic that was made anew ends before where we are: it is read from its beginning
            if place not in places or ends.get(place, 0) < self._read_to[place]:
                self._leave(place)
        fresh = [place for place in sorted(places) if place not in self._read_to and place in starts]
        begins = self._begins(fresh, starts, now)
        if begins:
            self._consumer.incremental_assign([TopicPartition(*place, at) for place, at in begins.items()])
            self._read_to |= begins
        self._read_on({place: end for place, end in ends.items() if place in self._read_to})
        behind = {place[0] for place, end in ends.items() if self._read_to.get(place, 0) < end}
        self._complete = self._complete & counts.keys() | counts.keys() - behind

    def _begins(self, fresh: Iterable[Place], starts: Mapping[Place, int], now: float) -> dict[Place, int]:
        """Where reading begins: at the beginning; with heartbeats, at those that still say something of now."""
        begins = {place: starts[place] for place in fresh}
        if (HEARTBEAT, 0) in begins:
            offset, _ = self._cluster.at_times({(HEARTBEAT, 0): int((now - BACK_S) * 1000)}, "uncommitted").get(
                (HEARTBEAT, 0), (-1, -1)
            )
            end = self._cluster.ends([(HEARTBEAT, 0)], "uncommitted").get((HEARTBEAT, 0), 0)
            begins[HEARTBEAT, 0] = offset if offset >= 0 else end
        return begins

    def _read_on(self, ends: Mapping[Place, int]) -> None:
        assert self._consumer is not None
        deadline = time.monotonic() + READ_S
        behind = {place for place, end in ends.items() if self._read_to[place] < end}
        while behind and time.monotonic() < deadline:
            for message in self._consumer.consume(500, 0.1):
                self._take(message)
            behind = {place for place in behind if place in self._read_to and self._read_to[place] < ends[place]}

    def _take(self, message: Message) -> None:
        place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        if place not in self._read_to:
            return  # left meanwhile
        error = message.error()
        if error is None:
            self._read_to[place] = offset + 1
            self._keep(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._read_to[place] = max(self._read_to[place], offset)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._leave(place)  # what we would read next is gone: read again from the beginning
        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.refused.add(place[0])
            self._leave(place)
        elif error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise KafkaException(error)

    def _leave(self, place: Place) -> None:
        assert self._consumer is not None
        self._consumer.incremental_unassign([TopicPartition(*place)])
        del self._read_to[place]
        self._complete.discard(place[0])
        parts = self._open.get(place[0], {})
        parts.pop(place[1], None)
        if not parts:
            self._open.pop(place[0], None)
        if place[0] == CONTROL:
            self._control = Control()

    def _keep(self, message: Message) -> None:
        record = as_record(message)
        if record.topic == CONTROL:
            self._control.apply(record.key, record.value)
        elif record.topic == HEARTBEAT:
            heartbeat = decode(record.value)
            if heartbeat is not None:
                self._beats[record.key] = (record.timestamp / 1000, Beat(heartbeat, 0.0))
            elif record.value is None:
                self._beats.pop(record.key, None)
        elif record.key is not None:
            part = self._open.setdefault(record.topic, {}).setdefault(record.partition, {})
            letter = parse_letter(record)
            if letter is not None:
                since = OpenLetter(subscription="", letter=letter).since
                part[record.key] = None if since is None else since.timestamp()
            elif record.value is None:
                part.pop(record.key, None)
