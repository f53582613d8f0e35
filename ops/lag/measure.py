"""Measuring groups: what they have committed, what is in their topics, how old the first waiting record is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

from ops.lag.cluster import Answers, Cluster, Commit, Group, Isolation, Member, Place, TopicSettings
from ops.lag.oldest import Oldest
from ops.lag.reasons import reason
from ops.lag.rules import (
    SEVERITY,
    LogStart,
    OffsetLag,
    Sample,
    Status,
    Trend,
    evaluate,
    margin_s,
    offset_lag,
    trend,
    worst,
)

WINDOW_S = 600.0
"""How far back samples are kept for status and trend."""

SETTINGS_S = 300.0
"""So long a topic's configuration is taken as it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A group to measure. ``topics`` are what it should read (None: what it has committed or is assigned);
    ``starts`` the positions recorded at attach, ``counts`` the partitions its topics had then: what was added later is
    read from its beginning; ``slo_s`` the age at which it is late."""

    name: str
    ours: bool = False
    topics: frozenset[str] | None = None
    starts: Mapping[Place, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    slo_s: float | None = None
    isolation: Isolation = "uncommitted"

    def start(self, place: Place, log_start: int) -> int | None:
        """Where it begins with a partition that it has not committed; None if that is not known."""
        if place in self.starts:
            return self.starts[place]
        count = self.counts.get(place[0], 0)
        return log_start if count and place[1] >= count else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """One partition of one group. ``committed`` None: nothing committed. ``age_s`` is the age of the first record
    not yet processed: 0 if there is none, None if it could not be found out; ``age_is_bound``: it is at most this
    old, nearer could not be looked (no right to read). ``uncommitted``: offsets of open transactions beyond ``end``,
    which is ``high_watermark`` or ``last_stable``, as the group reads. ``reason``: why it has its status, empty for
    OK. ``margin_s``: until retention deletes its next record, where that is known. ``lost_total``: records deleted
    before it read them since it was first measured; unlike ``offsets.lost`` it never falls."""

    topic: str
    partition: int
    committed: int | None
    metadata: str
    log_start: int
    end: int
    uncommitted: int
    offsets: OffsetLag
    age_s: float | None
    age_is_bound: bool
    status: Status
    member: Member | None
    reason: str = ""
    margin_s: float | None = None
    lost_total: int = 0
    high_watermark: int = 0
    last_stable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """A group measured at ``at`` (seconds since the epoch). ``problem``: why it could not be measured; then it has no
    partitions. ``missing`` are topics it has to do with that are not there."""

    name: str
    ours: bool
    state: str
    members: tuple[Member, ...]
    partitions: tuple[PartitionLag, ...]
    at: float
    slo_s: float | None
    missing: tuple[str, ...] = ()
    trend: Trend | None = None
    problem: KafkaError | None = None

    @property
    def lag(self) -> int:
        return sum(partition.offsets.lag for partition in self.partitions)

    @property
    def lag_max(self) -> int:
        return max((partition.offsets.lag for partition in self.partitions), default=0)

    @property
    def lost(self) -> int:
        return sum(partition.offsets.lost for partition in self.partitions)

    @property
    def uncommitted(self) -> int:
        return sum(partition.uncommitted for partition in self.partitions)

    @property
    def no_commit(self) -> int:
        """Partitions that have records and no commit."""
        return sum(p.committed is None and p.end > p.log_start for p in self.partitions)

    @property
    def is_guess(self) -> bool:
        """Whether the lag of a partition is counted from the beginning of its log for want of anything better."""
        return any(p.offsets.basis == "log" and p.offsets.lag for p in self.partitions)

    @property
    def age_s(self) -> float | None:
        """The age of its oldest waiting record; None if that of a lagging partition could not be found out."""
        ages = [p.age_s for p in self.partitions]
        known = [age for age in ages if age is not None]
        return max(known, default=0.0) if len(known) == len(ages) else None

    @property
    def age_is_bound(self) -> bool:
        return any(p.age_is_bound for p in self.partitions)

    @property
    def eta_s(self) -> float | None:
        return self.trend.eta_s(self.lag) if self.trend is not None else None

    @property
    def status(self) -> Status:
        return worst([p.status for p in self.partitions])

    @property
    def worst(self) -> PartitionLag | None:
        """The partition that it has its status from, the oldest of several; None if it has none."""
        return max(self.partitions, key=lambda p: (SEVERITY[p.status], p.age_s or 0.0), default=None)

    @property
    def margin_s(self) -> float | None:
        """The least of its partitions' retention margins that are known."""
        return min((p.margin_s for p in self.partitions if p.margin_s is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What was read of the cluster in one round, before ages."""

    commits: Answers[dict[Place, Commit]]
    groups: Answers[Group]
    places: Mapping[str, Sequence[Place]]
    missing: Mapping[str, tuple[str, ...]]
    high: Mapping[Place, int]
    stable: Mapping[Place, int]
    starts: Mapping[Place, int]
    now: float
    moment: float

    def end(self, subject: Subject, place: Place) -> int:
        high = self.high[place]
        return self.stable.get(place, high) if subject.isolation == "committed" else high

    def problem(self, name: str) -> KafkaError | None:
        return self.commits.failed.get(name) or self.groups.failed.get(name)


@dataclass(slots=True)
class _Watched:
    """What is remembered of one partition of one group: samples, since when its commit stands, how much it lost."""

    window: deque[Sample] = field(default_factory=deque)
    moved_at: float = 0.0
    lost: int = 0
    lost_total: int = 0

    def add(self, sample: Sample, lost: int) -> None:
        window = self.window
        if not window or window[-1].committed != sample.committed:
            self.moved_at = sample.at
        window.append(sample)
        # one sample older than the window stays, so that the window is full
        while len(window) > 1 and sample.at - window[1].at >= WINDOW_S:
            window.popleft()
        self.lost_total += max(0, lost - self.lost)
        self.lost = lost


class LagReader:
    """Measures groups again and again; remembers what makes the next round cheaper (an unchanged position needs no
    new search, its record just grows older) and the samples that status and trend need: of the groups and partitions
    of the last round. Blocks; one thread.

    ``reads_max`` and ``search_s`` bound a round's look for ages: see ``Oldest``. ``clock`` and ``monotonic`` are
    time's."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        reads_max: int | None = None,
        search_s: float | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._clock, self._monotonic = cluster, clock, monotonic
        self._oldest = Oldest(cluster, self._settings_of, reads_max=reads_max, search_s=search_s)
        self._watched: dict[tuple[str, Place], _Watched] = {}
        self._log_starts: dict[Place, LogStart] = {}
        self._totals: dict[str, deque[tuple[float, int, int, int]]] = {}
        self._settings: dict[str, tuple[float, TopicSettings]] = {}

    def measure(self, subjects: Sequence[Subject]) -> list[GroupLag]:
        """Every subject, in their order: commits first, then the ends, then the ages.

        ``commits`` before ``ends``: what arrives in between can only over-state the lag, never hide it."""
        round_ = self._read(subjects)
        standing: dict[tuple[str, Place], OffsetLag] = {}
        for subject in subjects:
            if round_.problem(subject.name) is not None:
                continue  # what was not answered must not look like a position
            committed = round_.commits.found.get(subject.name, {})
            for place in round_.places[subject.name]:
                standing[subject.name, place] = offset_lag(
                    committed=committed[place].offset if place in committed else None,
                    start=subject.start(place, round_.starts[place]),
                    log_start=round_.starts[place],
                    end=round_.end(subject, place),
                )
        ages = self._oldest.ages({s.name: s.isolation for s in subjects}, standing, round_.now)
        for place, offset in round_.starts.items():
            self._log_starts.setdefault(place, LogStart()).saw(round_.moment, offset)
        self._settings_of({place[0] for (_, place), offsets in standing.items() if offsets.lag})
        groups = [self._group(subject, round_, standing, ages) for subject in subjects]
        self._forget(round_, subjects)
        return groups

    def _read(self, subjects: Sequence[Subject]) -> _Round:
        names = [subject.name for subject in subjects]
        groups = self._cluster.groups(names)
        commits = self._cluster.commits(names, described=groups)
        topics = {s.name: _topics(s, commits.found.get(s.name, {}), groups.found.get(s.name)) for s in subjects}
        counts = self._cluster.partition_counts(topic for wanted in topics.values() for topic in wanted)
        every = {(t, p) for wanted in topics.values() for t in wanted for p in range(counts.get(t, 0))}
        high = self._cluster.ends(every, "uncommitted")
        stable = self._cluster.ends(every, "committed")
        starts = self._cluster.starts(every)
        there: dict[str, list[Place]] = {}
        for place in sorted(high.keys() & starts.keys()):
            there.setdefault(place[0], []).append(place)
        return _Round(
            commits=commits,
            groups=groups,
            places={n: [place for t in sorted(wanted) for place in there.get(t, ())] for n, wanted in topics.items()},
            missing={name: tuple(sorted(wanted - counts.keys())) for name, wanted in topics.items()},
            high=high,
            stable=stable,
            starts=starts,
            now=self._clock(),
            moment=self._monotonic(),
        )

    def _group(
        self,
        subject: Subject,
        round_: _Round,
        standing: Mapping[tuple[str, Place], OffsetLag],
        ages: Mapping[tuple[str, Place], tuple[float | None, bool]],
    ) -> GroupLag:
        group = round_.groups.found.get(subject.name, Group(subject.name, "unknown"))
        owners = {place: member for member in group.members for place in member.places}
        problem = round_.problem(subject.name)
        partitions = []
        for place in round_.places[subject.name] if problem is None else ():
            commit = round_.commits.found.get(subject.name, {}).get(place)
            offsets, (age_s, is_bound) = standing[subject.name, place], ages[subject.name, place]
            log_start, high, end = round_.starts[place], round_.high[place], round_.end(subject, place)
            sample = Sample(
                at=round_.moment,
                # a recorded start is a position like a commit, only not the broker's yet
                committed=commit.offset if commit else subject.start(place, log_start),
                end=end,
                log_start=log_start,
                high_watermark=high,
                members=len(group.members),
                age_s=age_s,
            )
            watched = self._watched.setdefault((subject.name, place), _Watched())
            watched.add(sample, offsets.lost)
            margin = self._margin(place, offsets, log_start, age_s, round_.moment) if offsets.lag else None
            status = evaluate(watched.window, slo_s=subject.slo_s, retention_margin_s=margin)
            partitions.append(
                PartitionLag(
                    topic=place[0],
                    partition=place[1],
                    committed=commit.offset if commit else None,
                    metadata=commit.metadata if commit else "",
                    log_start=log_start,
                    end=end,
                    uncommitted=max(0, high - end),
                    offsets=offsets,
                    age_s=age_s,
                    age_is_bound=is_bound,
                    status=status,
                    member=owners.get(place),
                    reason=reason(
                        status,
                        sample,
                        unchanged_s=round_.moment - watched.moved_at,
                        slo_s=subject.slo_s,
                        margin_s=margin,
                        watched_s=round_.moment - watched.window[0].at,
                    ),
                    margin_s=margin,
                    lost_total=watched.lost_total,
                    high_watermark=high,
                    last_stable=round_.stable.get(place, high),
                )
            )
        return GroupLag(
            name=subject.name,
            ours=subject.ours,
            state=group.state,
            members=group.members,
            partitions=tuple(partitions),
            at=round_.now,
            slo_s=subject.slo_s,
            missing=round_.missing[subject.name],
            trend=self._trend(subject.name, partitions, round_.moment) if problem is None else None,
            problem=problem,
        )

    def _trend(self, name: str, partitions: Sequence[PartitionLag], moment: float) -> Trend | None:
        totals = self._totals.setdefault(name, deque())
        if totals and totals[-1][3] != len(partitions):
            totals.clear()  # sums over other partitions are no pace
        position, end = sum(p.offsets.counted_from for p in partitions), sum(p.end for p in partitions)
        totals.append((moment, position, end, len(partitions)))
        while moment - totals[0][0] > WINDOW_S:
            totals.popleft()
        return trend([total[:3] for total in totals])

    def _margin(
        self, place: Place, offsets: OffsetLag, log_start: int, age_s: float | None, moment: float
    ) -> float | None:
        known = self._settings.get(place[0])
        return margin_s(
            position=offsets.counted_from,
            log_start=log_start,
            age_s=age_s,
            settings=TopicSettings() if known is None else known[1],
            start_per_s=self._log_starts[place].per_s(moment),
        )

    def _settings_of(self, topics: set[str]) -> Mapping[str, TopicSettings]:
        """The settings of these topics, asked for where they are not known or were read long ago."""
        now = self._monotonic()
        old = {t for t in topics if t not in self._settings or now - self._settings[t][0] >= SETTINGS_S}
        for topic, settings in self._cluster.topic_settings(old).items():
            self._settings[topic] = (now, settings)
        return {topic: self._settings[topic][1] for topic in topics if topic in self._settings}

    def _forget(self, round_: _Round, subjects: Sequence[Subject]) -> None:
        """Keep what this round was about; a group that could not be measured keeps what is known of it."""
        failed = {subject.name for subject in subjects if round_.problem(subject.name) is not None}
        there = {(subject.name, place) for subject in subjects for place in round_.places[subject.name]}
        gone = [key for key in self._watched if key not in there and key[0] not in failed]
        for key in gone:
            del self._watched[key]
        for name in self._totals.keys() - {subject.name for subject in subjects}:
            del self._totals[name]
        for place in self._log_starts.keys() - round_.starts.keys():
            del self._log_starts[place]
        topics = {place[0] for place in round_.starts}
        for topic in self._settings.keys() - topics:
            del self._settings[topic]


def _topics(subject: Subject, commits: Iterable[Place], group: Group | None) -> set[str]:
    topics = {topic for topic, _ in commits} | set(subject.topics or ())
    for member in group.members if group else ():
        topics.update(topic for topic, _ in member.places)
    return topics
