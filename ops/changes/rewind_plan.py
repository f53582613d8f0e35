"""The plan of a rewind: which committed positions move where, and what is read again or skipped by that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumers.control import AttachedSubscription, NoPosition, begin_at
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.lag.cluster import Cluster, Commit, Group, Isolation, Member, Place
from ops.positions import Position, Resolved, parse_topic, resolve, utc
from ops.reading import read_spans
from ops.wording import counted
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App
    from schemas.event import Record

SEVERE_EVENTS = 10_000
COUNTED_MAX = 20_000
"""So many events are looked at to say what they are; more are only counted by offsets."""
COUNTING_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One partition. ``before`` None: nothing is committed. ``at`` is where it would be read now: the commit, or for
    one of ours the start that waits for it; None if nobody knows. ``target`` None: it is left as it is."""

    place: Place
    before: Commit | None
    at: int | None
    target: int | None
    end: int
    first: datetime | None
    note: str

    @property
    def changes(self) -> bool:
        return self.target is not None and self.target != self.at

    @property
    def again(self) -> int:
        """Offsets that are read because of this and would not be without it."""
        if self.target is None:
            return 0
        return max(0, (self.end if self.at is None else self.at) - self.target)

    @property
    def skipped(self) -> int:
        """Offsets that would never be read."""
        return 0 if self.target is None or self.at is None else max(0, self.target - self.at)

    def row(self) -> dict[str, JsonValue]:
        return {
            "topic": self.place[0],
            "partition": self.place[1],
            "committed": None if self.before is None else self.before.offset,
            "target": self.at if self.target is None else self.target,
            "again": self.again,
            "skipped": self.skipped,
            "first_record": None if self.first is None else utc(self.first),
            "note": self.note,
        }


def rewind_plan(app: App, name: str, position: Position, topics: Sequence[str]) -> Plan:
    """The plan that moves the committed positions of a group: one of ours, or a foreign one that is empty.

    ``topics`` are ``TOPIC`` or ``TOPIC:PARTS``; none means all that the group reads. Blocks. Raises NotFoundError for
    names that are not there, InputError for partitions that are not, RefusedError for a foreign group with members
    and where nothing would change.
    """
    cluster = Cluster(app.admin(), app.consumer)
    attached = app.control().subscriptions.get(name)
    group = _group(app, cluster, name, attached)
    commits = _commits(app, cluster, name)
    places = _places(cluster, name, attached, commits, topics)
    moves = _moves(cluster, position, places, commits, attached)
    changing = [move for move in moves if move.changes]
    if not changing:
        notes = "; ".join(dict.fromkeys(move.note for move in moves if move.note))
        raise RefusedError(f"Nothing would change: {name} stands there already{f' ({notes})' if notes else ''}.")
    again, skipped = sum(move.again for move in moves), sum(move.skipped for move in moves)
    ours = attached is not None
    title = f"rewind {name} to {position}"
    return new_plan(
        app,
        kind="rewind",
        subject=name,
        title=title,
        rows=[move.row() for move in moves],
        summary=_summary(app, attached, group, changing, again, skipped),
        steps=STEPS_OURS if ours else STEPS_FOREIGN,
        preconditions={
            "ours": ours,
            "version": attached.definition.version
            if attached is not None and attached.definition is not None
            else None,
        },
        before={_key(m.place): None if m.before is None else m.before.offset for m in changing},
        after={_key(m.place): m.target for m in changing},
        details={
            "set": [[*m.place, m.target, ""] for m in changing],
            "remove": [],
            # what the partition stood at, and whether it moves forward: to notice that the plan has become stale
            "stood": [[*m.place, m.at, m.target] for m in changing],
            "limits": [],
            "starts": _started(attached, changing),
            "undo": False,
        },
        severe=_severe(ours, again, skipped),
    )


ASK, SET, RETURN = "ask the workers to leave", "set the positions", "let the workers come back"
STEPS_OURS = (ASK, SET, RETURN)
STEPS_FOREIGN = (SET,)


def members_in_words(members: Sequence[Member]) -> str:
    """Who is in a group, for a sentence."""
    return ", ".join(sorted({f"{member.client_id} on {member.host}" for member in members}))


def _key(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _group(app: App, cluster: Cluster, name: str, attached: AttachedSubscription | None) -> Group:
    answers = cluster.groups([name])
    if name in answers.failed:
        raise app.kafka_error(answers.failed[name], f"describing the group {name}")
    group = answers.found[name]
    if attached is not None:
        return group
    if not group.exists:
        known = sorted({*cluster.group_names(), *app.control().subscriptions})
        raise NotFoundError(
            f"There is no group '{name}' in the cluster, and nothing of that name is attached."
            f"{did_you_mean(name, known)}"
        )
    if group.members:
        raise RefusedError(
            f"{name} is not one of ours and has members, so its positions cannot be set: "
            f"{members_in_words(group.members)}. Stop them first. Nothing was changed."
        )
    return group


def _commits(app: App, cluster: Cluster, name: str) -> dict[Place, Commit]:
    answers = cluster.commits([name])
    if name in answers.failed:
        raise app.kafka_error(answers.failed[name], f"describing the group {name}")
    return answers.found[name]


def _places(
    cluster: Cluster,
    name: str,
    attached: AttachedSubscription | None,
    commits: Mapping[Place, Commit],
    written: Sequence[str],
) -> list[Place]:
    if attached is not None and attached.definition is not None:
        reads = set(attached.definition.topics)
    else:
        reads = {topic for topic, _ in commits}
    return chosen_places(cluster, name, reads, written, ours=attached is not None)


def chosen_places(
    cluster: Cluster, name: str, reads: Collection[str], written: Sequence[str], *, ours: bool
) -> list[Place]:
    """The partitions that ``TOPIC`` and ``TOPIC:0,3-5`` mean, of the topics that ``name`` reads; all of those without.
    Raises NotFoundError, InputError."""
    chosen = [parse_topic(text) for text in written] or [(topic, None) for topic in sorted(reads)]
    counts = cluster.partition_counts({topic for topic, _ in chosen})
    places: set[Place] = set()
    for topic, partitions in chosen:
        if ours and topic not in reads:
            raise NotFoundError(f"{name} does not read {topic}.{did_you_mean(topic, reads)}")
        if topic not in counts:
            if not written:
                continue  # a topic that was deleted since: its commits are of no use to anybody
            raise NotFoundError(f"The cluster has no topic '{topic}'.{did_you_mean(topic, reads)}")
        for partition in range(counts[topic]) if partitions is None else partitions:
            if partition >= counts[topic]:
                raise InputError(f"{topic} has {counts[topic]} partitions, the last is {counts[topic] - 1}.")
            places.add((topic, partition))
    if not places:
        raise NotFoundError(f"{name} has no position in any topic that exists. Name the topics: TOPIC or TOPIC:0,3-5.")
    return sorted(places)


def _moves(
    cluster: Cluster,
    position: Position,
    places: Sequence[Place],
    commits: Mapping[Place, Commit],
    attached: AttachedSubscription | None,
) -> list[Move]:
    isolation: Isolation = "committed" if attached is not None else "uncommitted"
    ends = cluster.ends(places, isolation)
    stands: dict[Place, int] = {}
    for place in places:
        if place in commits:
            stands[place] = commits[place].offset
        elif attached is not None and (start := start_of(attached, place)) is not None:
            stands[place] = start
    resolved = resolve(cluster, position, places, committed=stands, isolation=isolation)
    firsts = _firsts(cluster, position, resolved, ends, isolation)
    moves = []
    for place in places:
        found = resolved[place]
        # "from 14:00" where nothing has come since 14:00 leaves the partition alone; it never means its end
        leave = position.kind == "time" and found.first is None
        note = f"{found.note}, unchanged" if leave else found.note
        if place not in commits and not note:
            note = "no commit before"
        moves.append(
            Move(
                place=place, before=commits.get(place), at=stands.get(place), target=None if leave else found.offset,
                end=ends[place], first=firsts.get(place), note=note,
            )
        )  # fmt: skip
    return moves


def start_of(attached: AttachedSubscription, place: Place) -> int | None:
    """Where one of ours begins by itself in a partition that it has not committed."""
    begin = begin_at(attached, *place, None)
    return None if isinstance(begin, NoPosition) else begin.offset


def _firsts(
    cluster: Cluster,
    position: Position,
    resolved: Mapping[Place, Resolved],
    ends: Mapping[Place, int],
    isolation: Isolation,
) -> dict[Place, datetime]:
    """When the first record that would be read arrived; nothing for what may not be read or is not there."""
    if position.kind == "time":
        return {place: found.first for place, found in resolved.items() if found.first is not None}
    wanted = {place: found.offset for place, found in resolved.items() if found.offset < ends[place]}
    stamps = cluster.first_records(wanted, isolation)
    return {place: datetime.fromtimestamp(ms / 1000, UTC) for place, ms in stamps.items() if ms is not None}


def _started(attached: AttachedSubscription | None, changing: Sequence[Move]) -> list[JsonValue]:
    """Starts that still wait for their first commit: a committed position takes their place."""
    if attached is None:
        return []
    return [
        [*move.place, start.offset, start.at]
        for move in changing
        if (start := attached.starts.get(move.place)) is not None and start.state == "pending"
    ]


def _severe(ours: bool, again: int, skipped: int) -> str:
    if skipped:
        return f"{skipped:,} offsets would never be read"
    if not ours:
        return "the group is not one of ours"
    if again > SEVERE_EVENTS:
        return f"more than {SEVERE_EVENTS:,} events are read again"
    return ""


def _summary(
    app: App, attached: AttachedSubscription | None, group: Group, changing: Sequence[Move], again: int, skipped: int
) -> list[str]:
    sentences = []
    if again:
        sentences.append(f"about {again:,} offsets are read again" + _counted(app, attached, changing, again))
    if skipped:
        sentences.append(f"{skipped:,} offsets would never be read")
    if attached is None:
        return sentences
    if group.members:
        sentences.append(f"stops and restarts {counted(len(group.members), 'worker')}, about 4 s")
    if attached.state.state != "running":
        sentences.append(
            f"it is {attached.state.state} and stays so until: backbone subscription resume {attached.name}"
        )
    return sentences


def _counted(app: App, attached: AttachedSubscription | None, changing: Sequence[Move], again: int) -> str:
    """What those events are and how many calls they are about, where that can be said in a few seconds."""
    if attached is None or attached.definition is None or again > COUNTED_MAX:
        return ""
    types = count_types(app, {m.place: (m.target or 0, m.end if m.at is None else m.at) for m in changing if m.again})
    if types is None:
        return ""
    read_here = Counter({name: count for name, count in types.items() if name in attached.definition.events})
    if not read_here:
        return ", none of them are events it reads"
    names = ", ".join(f"{count:,} {name.rpartition('.')[2]}" for name, count in read_here.most_common())
    connector = app.connection_types.get(attached.definition.connection)
    calls = ""
    if connector is not None:
        least = -(-read_here.total() // connector.batch_max)
        calls = f" -> at least {counted(least, 'call')} to {attached.definition.connection}"
    return f", {read_here.total():,} of them read here: {names}{calls}"


def count_types(app: App, ranges: Mapping[Place, tuple[int, int]]) -> Counter[str] | None:
    """How many events of each type stand in ranges of offsets, by their envelopes; those without one are counted as
    ``?``. None if it takes longer than ``COUNTING_S``."""
    types: Counter[str] = Counter()
    deadline = time.monotonic() + COUNTING_S
    for records in read_spans(app, {place: [span] for place, span in ranges.items() if span[0] < span[1]}):
        types.update(stated_type(record) for record in records)
        if time.monotonic() > deadline:
            return None
    return types


def stated_type(record: Record) -> str:
    """The event's type as its envelope states it; ``?`` without one."""
    value = dict(record.headers).get("ce_type")
    try:
        return value.decode() if isinstance(value, bytes) else "?"
    except UnicodeDecodeError:
        return "?"
