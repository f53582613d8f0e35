"""What the workers said last: the newest heartbeat of each process, read from its topic without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumers.heartbeat import TOPIC, Heartbeat, SubscriptionView, decode
from schemas.errors import NotAllowedError

if TYPE_CHECKING:
    from ops.app import App
    from ops.lag.cluster import Cluster
    from schemas.event import Record

SILENT_S = 40.0
"""A process that was not heard of for so long is taken for gone: eight heartbeats are missing."""
BACK_S = 90.0
"""So far is read back; what is older says nothing of now."""
_LAST = 100
"""Where nothing is so new, the last records tell when there was something."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest heartbeat of a process, and how old it is."""

    heartbeat: Heartbeat
    age_s: float

    @property
    def is_fresh(self) -> bool:
        return self.age_s <= SILENT_S


@dataclass(frozen=True, slots=True)
class Beats:
    """``topic_exists`` False: heartbeats cannot be there. ``all``: the newest of each process that has not said that it
    left, the youngest first."""

    topic_exists: bool = True
    all: tuple[Beat, ...] = ()

    @property
    def fresh(self) -> tuple[Beat, ...]:
        """Those of processes that live."""
        return tuple(beat for beat in self.all if beat.is_fresh)

    @property
    def silent_s(self) -> float | None:
        """How long nobody was heard of, None if nobody ever was (as far as the topic goes back)."""
        return self.all[0].age_s if self.all else None

    def of_subscription(self, name: str) -> tuple[tuple[Beat, SubscriptionView], ...]:
        """What living processes say of a subscription."""
        return tuple((beat, view) for beat in self.fresh for view in beat.heartbeat.subscriptions if view.name == name)


def read_heartbeats(app: App) -> Beats:
    """The heartbeats of now. Blocks on a few requests and a read of a minute and a half of heartbeats; joins no group.
    Where the cluster does not let us read them that is a warning, because the rest can still be seen. Raises
    UnreachableError if the cluster stays silent."""
    from confluent_kafka import KafkaException

    from ops.lag.cluster import Cluster

    try:
        return _read(app, Cluster(app.admin(), app.consumer))
    except (NotAllowedError, KafkaException) as error:
        refused = error if isinstance(error, NotAllowedError) else app.translated(error)
        if not isinstance(refused, NotAllowedError):
            raise
        app.screen.warn(f"What the workers do cannot be seen: {TOPIC} may not be read here. {refused}")
        return Beats(topic_exists=False)


def _read(app: App, cluster: Cluster) -> Beats:
    begin = recent_from(cluster)
    if begin is None:
        return Beats(topic_exists=False)
    newest: dict[bytes | None, Beat] = {}
    for record, age_s in since(app, begin):
        heartbeat = decode(record.value)
        if heartbeat is not None:
            newest[record.key] = Beat(heartbeat, age_s)
        elif record.value is None:
            newest.pop(record.key, None)
    return Beats(all=tuple(sorted(newest.values(), key=lambda beat: beat.age_s)))


def recent_from(cluster: Cluster) -> int | None:
    """The offset from which the topic says something of now; None where there is no such topic. Blocks."""
    place = (TOPIC, 0)
    # asked first: of a topic that does not exist librdkafka answers offsets with an error of its own
    if not cluster.partition_counts([TOPIC]):
        return None
    found = cluster.at_times({place: int((time.time() - BACK_S) * 1000)}, "uncommitted")
    if place not in found:  # deleted just now
        return None
    begin = found[place][0]
    return begin if begin >= 0 else max(0, cluster.ends([place], "uncommitted").get(place, 0) - _LAST)


def since(app: App, begin: int) -> Iterator[tuple[Record, float]]:
    """The topic's records from an offset to its end, each with its age in seconds. Blocks."""
    from ops.reading import as_record, read_to_end

    for message in read_to_end(app, TOPIC, isolation_level="read_uncommitted", from_offsets={0: begin}):
        record = as_record(message)
        yield record, max(0.0, time.time() - record.timestamp / 1000)
