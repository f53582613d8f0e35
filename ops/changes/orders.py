"""What redrive, replay and discard write to a subscription's inbox, and how one that was cut knows what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from consumers.inbox import InboxOrder, inbox_record, parse_inbox
from consumers.offsets import decode_runs
from ops.changes.group_positions import committed
from ops.changes.plan import JsonValue, Plan
from ops.dead_topic import Standing
from ops.lag.cluster import Cluster, Commit
from ops.reading import as_record, read_to_end
from ops.sending import Outgoing
from schemas.errors import RefusedError
from schemas.event import Origin, Record

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.deadletter import DeadLetter
    from ops.app import App

BEGAN = "inbox ends before"
"""The note of where the inbox ended before the change wrote to it; with it a change has begun."""


def inbox_partitions(app: App, name: str) -> int:
    """How many partitions the inbox has. Raises RefusedError if there is none."""
    topic = f"{name}.inbox"
    found = Cluster(app.admin(), app.consumer).partition_counts([topic]).get(topic, 0)
    if not found:
        raise RefusedError(f"The topic {topic} does not exist. Create it: backbone subscription attach {name}")
    return found


def grown_topics(app: App, attached: AttachedSubscription) -> list[str]:
    """Source topics that have another number of partitions than at attach: their keys live elsewhere now."""
    assert attached.definition is not None
    counts = Cluster(app.admin(), app.consumer).partition_counts(attached.definition.topics)
    return sorted(t for t, count in attached.definition.topics.items() if t in counts and counts[t] != count)


def standing_json(standing: Standing) -> JsonValue:
    """A letter as a plan keeps it: its id, where it stands in the dead topic, and how often it was redriven."""
    return [str(standing.letter.origin), standing.partition, standing.offset, standing.letter.redrives]


def origin_of(written: str) -> Origin:
    """The origin of a letter's id."""
    topic, partition, offset = written.rsplit("/", 2)
    return Origin(topic, int(partition), int(offset))


def check_unchanged(plan: Plan, open_letters: Mapping[Origin, Standing]) -> None:
    """Raises RefusedError if a letter was closed, or failed once more, since it was planned."""
    moved = [
        one
        for one, partition, offset, _ in plan.details["letters"]
        if (standing := open_letters.get(origin_of(one))) is None
        or (standing.partition, standing.offset) != (partition, offset)
    ]
    if moved:
        raise RefusedError(
            f"{len(moved):,} of {len(plan.details['letters']):,} letters were closed or failed once more since this "
            f"was planned, the first is {moved[0]}. Nothing was changed. Plan it again."
        )


def erasure_of(letter: DeadLetter) -> tuple[InboxOrder, Record] | None:
    """The order that a dead letter holds where an erasure was set aside, and the record it goes by; None: it is an
    event's letter."""
    parsed = parse_inbox(letter.record)
    return parsed if parsed is not None and parsed[0].kind == "erase" else None


def outgoing(plan: Plan, order: InboxOrder, record: Record) -> Outgoing:
    """An order as it is produced to the subscription's inbox. Pure."""
    partitions = plan.details["inbox_partitions"]
    grown = record.topic in plan.details["grown"]
    made = inbox_record(order, record, partitions=partitions, grown=grown)
    # an event without a key stands alone, so any partition that there is will do
    return Outgoing(f"{plan.subject}.inbox", made.partition % partitions, made.key, made.value, made.headers)


def inbox_ends(app: App, plan: Plan) -> dict[str, JsonValue]:
    """Where the inbox ends now, to be noted before the change writes to it."""
    topic = f"{plan.subject}.inbox"
    places = [(topic, partition) for partition in range(plan.details["inbox_partitions"])]
    ends = Cluster(app.admin(), app.consumer).ends(places, "uncommitted")
    return {str(partition): end for (_, partition), end in ends.items()}


def orders_of(app: App, plan: Plan, ends: Mapping[str, int]) -> Iterator[tuple[InboxOrder, Record]]:
    """What this change has written to the inbox, from the ends that were noted before its first record: the truth also
    after a cut. Blocks."""
    topic = f"{plan.subject}.inbox"
    for message in read_to_end(app, topic, from_offsets={int(p): end for p, end in ends.items()}):
        parsed = parse_inbox(as_record(message))
        if parsed is not None and parsed[0].change == plan.id:
            yield parsed


def sent_before(app: App, plan: Plan, ends: Mapping[str, int]) -> dict[Origin, int]:
    """The letters (by their ids) that an earlier try of this change has sent, with how often each had been redriven
    then."""
    return {order.letter or order.origin: order.redrives for order, _ in orders_of(app, plan, ends)}


def waiting_in_inbox(app: App, name: str, open_letters: Mapping[Origin, Standing]) -> dict[Origin, str]:
    """Open letters that a redrive has written to the inbox and nothing has come of yet, with the change that did: sent
    once more they would be delivered twice. Blocks.

    What came of an order may be known before its offset is committed: a letter that was written after it is its
    answer (both times are the broker's)."""
    waiting: dict[Origin, str] = {}
    for order, written_at in _unread(app, name):
        if order.kind == "redrive":
            standing = open_letters.get(order.origin)
            if standing is not None and standing.written_at < written_at:
                waiting[order.origin] = order.change
    return waiting


def on_their_way(app: App, name: str, change: str) -> dict[Origin, str]:
    """Records that other changes than this one have written to the inbox and that its workers have not come to the end
    of, with the change that did. Blocks."""
    return {order.origin: order.change for order, _ in _unread(app, name) if order.change != change}


def _unread(app: App, name: str) -> Iterator[tuple[InboxOrder, int]]:
    """The orders in the inbox that the group has not committed, and when the broker took each."""
    topic = f"{name}.inbox"
    commits = _inbox_commits(app, name)
    done = {partition: decode_runs(one.offset, one.metadata) for partition, one in commits.items()}
    for message in read_to_end(app, topic, from_offsets={p: one.offset for p, one in commits.items()}):
        record = as_record(message)
        if any(start <= record.offset < end for start, end in done.get(record.partition, ())):
            continue
        parsed = parse_inbox(record)
        if parsed is not None:
            yield parsed[0], record.timestamp


def waiting_before(app: App, name: str, begun: Mapping[str, int], ends: Mapping[str, int]) -> int:
    """How many offsets of the inbox its workers have not come to the end of, from where it ended when a change began
    (``begun``) to where it ended later. Blocks."""
    commits = _inbox_commits(app, name)
    waiting = 0
    for partition, end in ends.items():
        commit = commits.get(int(partition))
        if commit is None:
            waiting += max(0, end - begun.get(partition, 0))
            continue
        waiting += max(0, end - commit.offset)
        waiting -= sum(max(0, min(to, end) - at) for at, to in decode_runs(commit.offset, commit.metadata))
    return waiting


def _inbox_commits(app: App, name: str) -> dict[int, Commit]:
    topic = f"{name}.inbox"
    return {partition: one for (of, partition), one in committed(app, name).items() if of == topic}
