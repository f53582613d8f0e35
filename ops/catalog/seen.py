"""What is seen of the catalogue on the cluster: volume, last events, producers, versions in use, readers with lag.

Nothing is scanned and nothing is changed: offsets and times are asked for, and of each partition only its last records
are read, by assignment, their envelopes alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ops.lag import attached
from ops.lag.cluster import Cluster, Place
from ops.lag.measure import GroupLag, LagReader
from ops.reading import as_record
from schemas.envelope import SCHEMA_ID_HEADER, arrival, framing, header_text
from schemas.errors import BackboneError, UnreachableError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from ops.app import App
    from schemas.contract import Contract
    from schemas.event import Record

SAMPLE = 200
"""The last records of a partition that are looked at."""
SAMPLE_MAX = 20_000
"""Of all partitions together: many partitions get fewer each."""
SAMPLE_S = 10.0
"""After so long the sample is what it is by then."""
VERSIONS_MAX = 50
"""So many versions of a subject are asked for, the newest first, to find those in use."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTopic:
    """A topic of the cluster. Counts are of offsets (a transaction's marker takes one too): ``kept`` now, and written
    within the last hour and day. ``last``: when the newest sampled record of each partition arrived, None: it has
    none."""

    partitions: int
    kept: int
    last_hour: int
    last_day: int
    last: Mapping[int, datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event type in the sample. ``sampled`` of ``of`` records of its topic were of this type; ``last``: when the
    newest arrived; ``producers``: records by ``ce_source``; ``versions``: records by the version of the registry
    (``3``), or by id where that is not known. ``file_version``: the version that the contract's file is registered as;
    None: it is not, or was not asked for."""

    sampled: int
    of: int
    last: datetime | None
    producers: Mapping[str, int]
    versions: Mapping[str, int] = field(default_factory=dict)
    file_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenReader:
    """An attached subscription. ``oldest_s``: how long its oldest undelivered event waits, None: not known;
    ``by_topic`` the same of each of its topics."""

    state: str
    version: str
    members: int
    lag: int
    oldest_s: float | None
    slo_s: float | None
    by_topic: Mapping[str, float | None] = field(default_factory=dict)
    problem: str | None = None

    @property
    def is_late(self) -> bool:
        return self._exceeds(self.oldest_s)

    def is_late_with(self, topic: str) -> bool:
        return self._exceeds(self.by_topic.get(topic))

    def _exceeds(self, age_s: float | None) -> bool:
        return self.slo_s is not None and age_s is not None and age_s > self.slo_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was there at ``at``. ``whole``: the sample was read to its end in time. ``asked_versions``: the registry was
    asked too."""

    at: datetime
    topics: Mapping[str, SeenTopic]
    events: Mapping[str, SeenEvent]
    readers: Mapping[str, SeenReader]
    whole: bool = True
    asked_versions: bool = False

    def per_day(self, contract: Contract) -> int | None:
        """About how many events of this type the last day brought: the topic's count, by the type's part of the
        sample."""
        topic, event = self.topics.get(contract.topic), self.events.get(contract.name)
        if topic is None:
            return None
        return 0 if event is None or not event.of else round(topic.last_day * event.sampled / event.of)


@dataclass(slots=True)
class _Tally:
    """One event type while the sample is read."""

    topic: str
    last: int = -1
    producers: Counter[str] = field(default_factory=Counter)
    keys: Counter[int | str | None] = field(default_factory=Counter)


def look(app: App, events: Mapping[str, Contract], *, versions: bool) -> Seen:
    """Look at the topics of these events and at every attached subscription. ``versions``: also ask the registry which
    versions the sampled records were written with.

    Blocks on some requests and at most ``SAMPLE_S`` on the sample. Raises UnreachableError and what Kafka's errors
    mean."""
    cluster = Cluster(app.admin(), app.consumer)
    at = datetime.now(UTC)
    counts = cluster.partition_counts({contract.topic for contract in events.values()})
    places = [(topic, partition) for topic, count in sorted(counts.items()) for partition in range(count)]
    starts, ends = cluster.starts(places), cluster.ends(places, "committed")
    places = [place for place in places if place in starts and place in ends]
    now_ms = int(at.timestamp() * 1000)
    since_hour, since_day = (_since(cluster, places, ends, now_ms - span) for span in (HOUR_MS, DAY_MS))
    held = {place: (starts[place], ends[place]) for place in places if starts[place] < ends[place]}
    tallies, last, whole = _sample(app, held)
    topics = {
        topic: SeenTopic(
            partitions=count,
            kept=sum(ends[p] - starts[p] for p in places if p[0] == topic),
            last_hour=sum(since_hour[p] for p in places if p[0] == topic),
            last_day=sum(since_day[p] for p in places if p[0] == topic),
            last={p[1]: None if p not in last else arrival(last[p]) for p in places if p[0] == topic},
        )
        for topic, count in sorted(counts.items())
    }
    return Seen(
        at=at,
        topics=topics,
        events=_events(app, tallies, events, versions=versions),
        readers=_readers(app, cluster),
        whole=whole,
        asked_versions=versions,
    )


def _since(cluster: Cluster, places: list[Place], ends: Mapping[Place, int], then_ms: int) -> dict[Place, int]:
    """Offsets written since then."""
    found = cluster.at_times(dict.fromkeys(places, then_ms), "committed")
    first = {place: offset for place, (offset, _) in found.items() if offset >= 0}
    return {place: max(0, ends[place] - first[place]) if place in first else 0 for place in places}


def _sample(app: App, held: Mapping[Place, tuple[int, int]]) -> tuple[dict[str, _Tally], dict[Place, int], bool]:
    """Tallies by event type, the newest timestamp of each partition, and whether the end was reached in time."""
    from confluent_kafka import KafkaError, TopicPartition

    tallies: dict[str, _Tally] = {}
    last: dict[Place, int] = {}
    if not held:
        return tallies, last, True
    each = max(1, min(SAMPLE, SAMPLE_MAX // len(held)))
    # a fetch at the end of a partition answers when records come, or after this wait; what is fetched stays small
    consumer = app.consumer(fetch_wait_max_ms=10, fetch_message_max_bytes=262_144, queued_max_messages_kbytes=16_384)
    consumer.assign([TopicPartition(*place, max(start, end - each)) for place, (start, end) in held.items()])
    left = set(held)
    deadline = time.monotonic() + SAMPLE_S
    while left and time.monotonic() < deadline:
        for message in consumer.consume(500, 0.02):
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                record = as_record(message)
                _take(app, tallies, record)
                last[place] = max(last.get(place, -1), record.timestamp)
                if record.offset + 1 >= held[place][1]:
                    left.discard(place)
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(place)
            else:
                raise app.reading_error(error, place[0])
    consumer.close()
    if left and not last:
        raise app.unreachable()
    return tallies, last, not left


def _take(app: App, tallies: dict[str, _Tally], record: Record) -> None:
    name = _type(app, record)
    if name is None:
        return
    tally = tallies.setdefault(name, _Tally(record.topic))
    headers = dict(record.headers)
    tally.last = max(tally.last, record.timestamp)
    tally.producers[header_text(headers.get("ce_source")) or record.topic] += 1
    tally.keys[framing(record.value or b"", headers.get(SCHEMA_ID_HEADER))[0]] += 1


def _type(app: App, record: Record) -> str | None:
    """The event's type; None for a record that is no event, or whose schema cannot be had."""
    from schemas.codec import SchemaWanted

    found = app.decoder.event_type(record)
    if isinstance(found, SchemaWanted):
        try:
            app.decoder.load(found)
        except BackboneError:
            return None  # without its schema the envelope alone could say what a record is
        found = app.decoder.event_type(record)
    return found if isinstance(found, str) else None


def _events(
    app: App, tallies: Mapping[str, _Tally], events: Mapping[str, Contract], *, versions: bool
) -> dict[str, SeenEvent]:
    of = Counter[str]()
    for tally in tallies.values():
        of[tally.topic] += tally.producers.total()
    found = {}
    registry_answers = versions
    for name, contract in events.items():
        tally = tallies.get(name, _Tally(contract.topic))
        labels: dict[str, int] = {}
        file_version = None
        if registry_answers:
            try:
                labels, file_version = _versions(app, contract, tally.keys)
            except UnreachableError as error:
                app.screen.warn(f"Which versions are in use is not known. {app.sentence(error)}")
                registry_answers = False
        if tally.producers or file_version is not None:
            found[name] = SeenEvent(
                sampled=tally.producers.total(),
                of=of[contract.topic],
                last=None if tally.last < 0 else arrival(tally.last),
                producers=dict(sorted(tally.producers.items(), key=lambda one: (-one[1], one[0]))),
                versions=labels,
                file_version=file_version,
            )
    return found


def _versions(app: App, contract: Contract, keys: Mapping[int | str | None, int]) -> tuple[dict[str, int], int | None]:
    """Records by version, and the version of the file."""
    from schemas.registry import SchemaNotFoundError

    registered = app.registry.lookup(contract.subject, contract.text)
    known = {} if registered is None else {registered.id: registered.version}
    wanted = {key for key in keys if isinstance(key, int)}
    if wanted - known.keys():
        try:
            numbers = app.registry.versions(contract.subject)
        except SchemaNotFoundError:
            numbers = []
        for number in sorted(numbers, reverse=True)[:VERSIONS_MAX]:
            if not wanted - known.keys():
                break
            one = app.registry.version(contract.subject, number)
            known[one.id] = one.version
    labels = {
        str(known[key]) if isinstance(key, int) and key in known else f"id {key}": count
        for key, count in keys.items()
        if key is not None
    }
    return dict(sorted(labels.items())), None if registered is None else registered.version


def _readers(app: App, cluster: Cluster) -> dict[str, SeenReader]:
    control = app.control()
    contracts = app.contracts
    subjects = [attached.subject_of(one, contracts) for one in control.subscriptions.values()]
    groups = LagReader(cluster).measure(subjects) if subjects else []
    return {group.name: _reader(app, group, control.subscriptions[group.name]) for group in groups}


def _reader(app: App, group: GroupLag, subscription: AttachedSubscription) -> SeenReader:
    definition = subscription.definition
    ages: dict[str, list[float | None]] = {}
    for partition in group.partitions:
        ages.setdefault(partition.topic, []).append(partition.age_s)
    return SeenReader(
        state=subscription.state.state,
        version="" if definition is None else definition.version,
        members=len(group.members),
        lag=group.lag,
        oldest_s=None if group.problem is not None else group.age_s,
        slo_s=group.slo_s,
        by_topic={
            topic: None if None in some else max(filter(None, some), default=0.0) for topic, some in ages.items()
        },
        problem=None if group.problem is None else str(app.kafka_error(group.problem)),
    )
