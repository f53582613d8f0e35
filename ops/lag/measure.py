"""Measuring groups: what they have committed, what is in their topics, how old the first waiting record is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from confluent_kafka import KafkaError

from ops.lag.age import CLOSE_MS, Found, Search
from ops.lag.cluster import Answers, Cluster, Commit, Group, Isolation, Member, Place
from ops.lag.rules import OffsetLag, Sample, Status, Trend, evaluate, offset_lag, trend, worst

WINDOW_S = 600.0
"""How far back samples are kept for status and trend."""


SHORT = 100
"""A lag of so few offsets may be markers and aborted records only: the first record is looked for to be sure."""

Key: TypeAlias = tuple[Place, int, Isolation]
"""A position whose first record's time is wanted."""


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
    old, nearer could not be looked (no right to read). ``uncommitted``: offsets of open transactions beyond ``end``."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """A group measured at ``at`` (seconds since the epoch). ``problem``: why it could not be measured.
    ``missing`` are topics it has to do with that are not there."""

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


class LagReader:
    """Measures groups again and again; remembers what makes the next round cheaper (an unchanged position needs no
    new search, its record just grows older) and the samples that status and trend need. Blocks; one thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stamps: dict[Key, tuple[int, bool]] = {}
        self._last: dict[tuple[str, Place], int] = {}
        self._samples: dict[tuple[str, Place], deque[Sample]] = {}
        self._totals: dict[str, deque[tuple[float, int, int]]] = {}

    def measure(self, subjects: Sequence[Subject]) -> list[GroupLag]:
        """Every subject, in their order: commits first, then the ends, then the ages.

        ``commits`` before ``ends``: what arrives in between can only over-state the lag, never hide it."""
        round_ = self._read(subjects)
        standing: dict[tuple[str, Place], OffsetLag] = {}
        for subject in subjects:
            committed = round_.commits.found.get(subject.name, {})
            for place in round_.places[subject.name]:
                standing[subject.name, place] = offset_lag(
                    committed=committed[place].offset if place in committed else None,
                    start=subject.start(place, round_.starts[place]),
                    log_start=round_.starts[place],
                    end=round_.end(subject, place),
                )
        ages = self._ages(subjects, standing, round_.now)
        return [self._group(subject, round_, standing, ages) for subject in subjects]

    def _read(self, subjects: Sequence[Subject]) -> _Round:
        names = [subject.name for subject in subjects]
        groups = self._cluster.groups(names)
        commits = self._cluster.commits(names, described=groups)
        topics = {s.name: _topics(s, commits.found.get(s.name, {}), groups.found.get(s.name)) for s in subjects}
        counts = self._cluster.partition_counts(topic for wanted in topics.values() for topic in wanted)
        every = {(t, p) for wanted in topics.values() for t in wanted for p in range(counts.get(t, 0))}
        stable_for = {s.name for s in subjects if s.isolation == "committed"}
        high = self._cluster.ends(every, "uncommitted")
        stable = self._cluster.ends(
            {(t, p) for name in stable_for for t in topics[name] for p in range(counts.get(t, 0))}, "committed"
        )
        starts = self._cluster.starts(every)
        there = high.keys() & starts.keys()
        return _Round(
            commits=commits,
            groups=groups,
            places={name: sorted(place for place in there if place[0] in wanted) for name, wanted in topics.items()},
            missing={name: tuple(sorted(wanted - counts.keys())) for name, wanted in topics.items()},
            high=high,
            stable=stable,
            starts=starts,
            now=time.time(),
            moment=time.monotonic(),
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
        partitions = []
        for place in round_.places[subject.name]:
            commit = round_.commits.found.get(subject.name, {}).get(place)
            end = round_.end(subject, place)
            age_s, is_bound = ages[subject.name, place]
            window = self._remember(
                subject.name,
                place,
                Sample(
                    at=round_.moment,
                    # a recorded start is a position like a commit, only not the broker's yet
                    committed=commit.offset if commit else subject.start(place, round_.starts[place]),
                    end=end,
                    log_start=round_.starts[place],
                    high_watermark=round_.high[place],
                    members=len(group.members),
                    age_s=age_s,
                ),
            )
            partitions.append(
                PartitionLag(
                    topic=place[0],
                    partition=place[1],
                    committed=commit.offset if commit else None,
                    metadata=commit.metadata if commit else "",
                    log_start=round_.starts[place],
                    end=end,
                    uncommitted=max(0, round_.high[place] - end),
                    offsets=standing[subject.name, place],
                    age_s=age_s,
                    age_is_bound=is_bound,
                    status=evaluate(window, slo_s=subject.slo_s),
                    member=owners.get(place),
                )
            )
        totals = self._totals.setdefault(subject.name, deque())
        totals.append((round_.moment, sum(p.offsets.counted_from for p in partitions), sum(p.end for p in partitions)))
        while round_.moment - totals[0][0] > WINDOW_S:
            totals.popleft()
        return GroupLag(
            name=subject.name,
            ours=subject.ours,
            state=group.state,
            members=group.members,
            partitions=tuple(partitions),
            at=round_.now,
            slo_s=subject.slo_s,
            missing=round_.missing[subject.name],
            trend=trend(totals),
            problem=round_.commits.failed.get(subject.name) or round_.groups.failed.get(subject.name),
        )

    def _remember(self, name: str, place: Place, sample: Sample) -> deque[Sample]:
        window = self._samples.setdefault((name, place), deque())
        window.append(sample)
        # one sample older than the window stays, so that the window is full
        while len(window) > 1 and sample.at - window[1].at >= WINDOW_S:
            window.popleft()
        return window

    def _ages(
        self, subjects: Sequence[Subject], standing: Mapping[tuple[str, Place], OffsetLag], now: float
    ) -> dict[tuple[str, Place], tuple[float | None, bool]]:
        isolations = {subject.name: subject.isolation for subject in subjects}
        wanted: dict[tuple[str, Place], Key] = {
            (name, place): (place, offsets.counted_from, isolations[name])
            for (name, place), offsets in standing.items()
            if offsets.lag
        }
        known = {key: self._stamps[key] for key in wanted.values() if key in self._stamps}
        hints = {key: self._last[subject] for subject, key in wanted.items() if subject in self._last}
        short = {key for subject, key in wanted.items() if standing[subject].lag <= SHORT}
        nothing = self._find({key for key in wanted.values() if key not in known}, short, known, hints, int(now * 1000))
        self._stamps = known
        ages: dict[tuple[str, Place], tuple[float | None, bool]] = {}
        for subject in standing:
            key = wanted.get(subject)
            if key is None or key in nothing:
                ages[subject] = (0.0, False)
            elif key in known:
                stamp, is_bound = known[key]
                self._last[subject] = stamp
                ages[subject] = (max(0.0, now - stamp / 1000), is_bound)
            else:
                ages[subject] = (None, False)
        return ages

    def _find(
        self,
        keys: set[Key],
        short: set[Key],
        known: dict[Key, tuple[int, bool]],
        hints: Mapping[Key, int],
        now_ms: int,
    ) -> set[Key]:
        """Add the timestamps of ``keys`` to ``known``; answer those that have no record to wait for (only transaction
        markers, aborted or compacted records)."""
        stamping = self._cluster.stamping({key[0][0] for key in keys})
        searches = {
            key: Search(key[1], now_ms, append_time=stamping.get(key[0][0]) == "append", hint=hints.get(key))
            for key in sorted(keys)
        }
        while open_ones := [key for key, search in searches.items() if search.found is None]:
            for isolation, part in _requests(open_ones):
                answers = self._cluster.at_times({key[0]: searches[key].ask for key in part}, isolation)
                for key in part:
                    if key[0] in answers:
                        searches[key].take(*answers[key[0]])
                    else:
                        searches[key].found = Found(None)  # the topic went away meanwhile
        to_read = []
        for key, search in searches.items():
            stamp = search.found.timestamp if search.found is not None else None
            if stamp is not None:
                known[key] = (stamp, False)
            elif search.found is not None and search.found.older and stamping.get(key[0][0]) == "append":
                known[key] = (search.found.older, True)  # holds if it may not be read
            # The broker also answers with transaction markers and aborted records. In the middle of a log that is
            # near enough; at its end it would be a record that nobody can read and that grows older for ever.
            if stamp is None or (key in short and now_ms - stamp > CLOSE_MS):
                to_read.append(key)
        nothing: set[Key] = set()
        for isolation, part in _requests(to_read):
            stamps = self._cluster.first_records({key[0]: key[1] for key in part}, isolation)
            for key in part:
                if key[0] in stamps:
                    stamp = stamps[key[0]]
                    if stamp is None:
                        known.pop(key, None)
                        nothing.add(key)
                    else:
                        known[key] = (stamp, False)
        return nothing


def _requests(keys: Iterable[Key]) -> Iterator[tuple[Isolation, list[Key]]]:
    """Split so that no part names a partition twice: a request holds one question for each."""
    waiting = list(keys)
    while waiting:
        isolation = waiting[0][2]
        part: dict[Place, Key] = {}
        rest: list[Key] = []
        for key in waiting:
            if key[2] == isolation and key[0] not in part:
                part[key[0]] = key
            else:
                rest.append(key)
        yield isolation, list(part.values())
        waiting = rest


def _topics(subject: Subject, commits: Iterable[Place], group: Group | None) -> set[str]:
    topics = {topic for topic, _ in commits} | set(subject.topics or ())
    for member in group.members if group else ():
        topics.update(topic for topic, _ in member.places)
    return topics
