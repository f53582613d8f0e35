"""The plan of a replay: which ranges of offsets are read again, which events in them are meant, and what would be asked
of the vendor. Changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from consumers.expressions.values import plain
from consumers.offsets import decode_runs
from ops.changes.attach_plan import attached_named
from ops.changes.feeding import OUTCOME, SEND
from ops.changes.group_positions import committed
from ops.changes.orders import grown_topics, inbox_partitions
from ops.changes.past import Judge, Judged, Only, Past, Selection, Sieve
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.redrive_plan import running
from ops.changes.rewind_plan import chosen_places, start_of
from ops.changes.staleness import attached_subscription
from ops.lag.cluster import Cluster, Place
from ops.positions import Position, Resolved, resolve, utc
from ops.preview import fitting, masked
from ops.reading import Spans, read_spans
from ops.wording import counted, duration, plain_json
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.app import App

SEVERE_EVENTS: Final = 10_000
LOOKED_AT_MAX: Final = 20_000
"""So many records are looked at for the plan; of more it says about how many."""
LOOKING_S: Final = 5.0
JUDGED_MAX: Final = 2_000
EXAMPLES: Final = 3
NOT_SENT: Final[Mapping[str, str]] = {
    "same": "left out: the vendor would be asked what it was asked before",
    "carried": "left out: sent merged into newer ones, which say all of it anew",
    "merged": "left out: sent merged with others that are not all known any more, so not to be compared "
    "(--only all --allow-stale sends them)",
    "omitted": "left out: sent without some of their fields, and nobody can tell which, so not to be compared "
    "(--only all --allow-stale sends them)",
    "not_known": "left out: older than what the ledger knows, so nobody can tell whether it is missing",
    "refused": "left out: the version attached now would refuse it",
    "superseded": "not sent to the vendor: newer deliveries have sent all of it",
    "expired": "not sent to the vendor: older than expire_after (--allow-stale sends it)",
    "on_its_way": "left out: in the inbox already, by another change",
    "erased": "left out: about a person who was erased",
}
"""What is said of events that are meant and not sent."""
NONE: Final[Mapping[Only, str]] = {
    "all": "no event is due",
    "missing": "every one was delivered or skipped",
    "failed": "none ended as a dead letter",
    "changed": "none that was delivered would be sent otherwise",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaying:
    """How events are sent again. ``rate`` a second, 0: no limit but what the workers take. ``wait_s``: how long nothing
    may come of any before the report is made."""

    rate: float = 0.0
    allow_stale: bool = False
    wait_s: float = 30.0


def replay_plan(
    app: App,
    name: str,
    begin: Position,
    end: Position | None,
    topics: Sequence[str],
    selection: Selection,
    how: Replaying,
) -> Plan:
    """Resolve positions and filters to absolute offsets, and look at what stands there. Blocks for some seconds.

    Raises NotFoundError and InputError for names and partitions that are not there, RefusedError where nothing would be
    sent or the ledger cannot tell what is asked of it.
    """
    attached = attached_named(app.control(), name)
    assert attached.definition is not None
    subscription = attached_subscription(app, attached)
    sieve = Sieve(app, subscription, selection)
    judge = Judge(app, attached, subscription, selection, allow_stale=how.allow_stale)
    inbox = inbox_partitions(app, name)
    cluster = Cluster(app.admin(), app.consumer)
    places = chosen_places(cluster, name, set(attached.definition.topics), topics, ours=True)
    ranges = ranges_behind(app, cluster, attached, places, begin, end)
    spans = {one.place: one.spans for one in ranges if one.spans}
    total = sum(one.count for one in ranges)
    until = "" if end is None else f" to {end}"
    which = "" if selection.only == "all" else f", only {selection.only}"
    title = f"replay {name} from {begin}{until}{which}"
    if not total:
        noted = [(one.place, str(one.row()["note"])) for one in ranges]
        notes = "; ".join(f"{place[0]}/{place[1]}: {note}" for place, note in noted if note)
        raise RefusedError(f"There is nothing to {title}{f' ({notes})' if notes else ''}. Nothing was changed.")
    judge.check()
    survey = look(app, sieve, judge, spans)
    due = survey.estimate(survey.due["due"])
    if not survey.sent and survey.is_exact:
        why = survey.left_out() or [NONE[selection.only] if survey.judged else "no event is meant"]
        raise RefusedError(f"There is nothing to {title}: {'; '.join(why)}. Nothing was changed.")
    return new_plan(
        app,
        kind="replay",
        subject=name,
        title=title,
        rows=[one.row() for one in ranges],
        summary=[
            *_what(app, subscription, survey, total, how),
            *_identity(subscription, selection),
            *survey.left_out(),
            *(f"where cannot be said of {type_}, so it is left out: {why}" for type_, why in sieve.unfit.items()),
            *(
                ["sent however old they are (--allow-stale): newer values may be overwritten"]
                if how.allow_stale
                else []
            ),
            *survey.examples(subscription),
            *running(app, attached),
        ],
        steps=[SEND, OUTCOME],
        preconditions={"version": attached.definition.version},
        before={f"{topic}/{partition}": spans[topic, partition][0][0] for topic, partition in sorted(spans)},
        after={f"{topic}/{partition}": spans[topic, partition][-1][1] for topic, partition in sorted(spans)},
        details={
            "spans": [[*place, [list(span) for span in found]] for place, found in sorted(spans.items())],
            "offsets": total,
            "selection": selection.plain(),
            "rate": how.rate,
            "allow_stale": how.allow_stale,
            "wait_s": how.wait_s,
            "inbox_partitions": inbox,
            "grown": grown_topics(app, attached),
        },
        severe=_severe(subscription, selection, due),
    )


# ---- ranges of offsets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is read again of one partition: ``spans`` of offsets ``[from, to)``, none where nothing is."""

    place: Place
    start: int
    end: int
    spans: tuple[tuple[int, int], ...]
    first: datetime | None
    note: str
    waiting: int = 0
    """how many offsets of it the subscription still has to read live, so that they are not in the spans"""

    @property
    def count(self) -> int:
        return sum(to - at for at, to in self.spans)

    def row(self) -> dict[str, JsonValue]:
        waits = f"{self.waiting:,} of them wait to be read live, and are not sent twice" if self.waiting else ""
        return {
            "topic": self.place[0],
            "partition": self.place[1],
            "from": self.start,
            "to": self.end,
            "offsets": self.count,
            "first_record": None if self.first is None else utc(self.first),
            "note": "; ".join(note for note in (self.note, waits) if note),
        }


def ranges_behind(
    app: App,
    cluster: Cluster,
    attached: AttachedSubscription,
    places: Sequence[Place],
    begin: Position,
    end: Position | None,
) -> list[Range]:
    """What lies between two positions and behind the subscription, in each place; without an end up to where it stands
    live. Blocks."""
    behind = behind_of(app, attached, places)
    stands = {place: spans[0][1] if spans else 0 for place, spans in behind.items()}
    starts, ends = cluster.starts(places), cluster.ends(places, "committed")
    froms = resolve(cluster, begin, places, committed=stands, isolation="committed")
    tos = None if end is None else resolve(cluster, end, places, committed=stands, isolation="committed")
    found = []
    for place in places:
        begins, to = froms[place], ends[place] if tos is None else tos[place].offset
        spans = cut(behind[place], begins.offset, to)
        notes = [_from_note(begin, begins, starts[place])]
        if tos is not None and tos[place].note:
            notes.append(f"{tos[place].note}: to its end")
        later = max(0, to - max(begins.offset, stands[place]))
        later -= sum(b - a for a, b in cut(behind[place][1:], begins.offset, to))
        last = spans[-1][1] if spans else begins.offset
        found.append(
            Range(
                place=place, start=begins.offset, end=last, spans=spans, first=begins.first,
                note="; ".join(note for note in notes if note), waiting=later,
            )
        )  # fmt: skip
    wanted = {one.place: one.start for one in found if one.spans and one.first is None}
    stamps = cluster.first_records(wanted, "committed")
    times = {place: datetime.fromtimestamp(ms / 1000, UTC) for place, ms in stamps.items() if ms is not None}
    return [
        replace(one, first=one.first or times.get(one.place))
        for one in found
    ]  # fmt: skip


def _from_note(begin: Position, found: Resolved, start: int) -> str:
    """What a person should know of where a range begins; above all what is gone."""
    if begin.kind == "offset" and begin.offset < start:
        return f"{counted(start - begin.offset, 'event')} from {begin.offset:,} to {start:,} are deleted by retention"
    if begin.kind in ("earliest", "time") and start and found.offset == start:
        return f"the log begins here: {counted(start, 'older event')} deleted by retention"
    return found.note


def behind_of(
    app: App, attached: AttachedSubscription, places: Sequence[Place]
) -> dict[Place, tuple[tuple[int, int], ...]]:
    """The offsets that a subscription has behind it in each partition, as it has committed them: those before its
    place, and what is finished beyond that. All others are still to be read live. Blocks."""
    commits = committed(app, attached.name)
    found: dict[Place, tuple[tuple[int, int], ...]] = {}
    for place in places:
        commit = commits.get(place)
        at = commit.offset if commit is not None else start_of(attached, place) or 0
        runs = [] if commit is None else decode_runs(commit.offset, commit.metadata)
        found[place] = ((0, at), *runs)
    return found


def cut(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The parts of spans that lie between two offsets. Pure."""
    parts = ((max(at, start), min(to, end)) for at, to in spans)
    return tuple((at, to) for at, to in parts if at < to)


# ---- what stands there ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Survey:
    """What was looked at of ``total`` offsets. ``due`` counts judged events by what is due, ``types`` those meant."""

    total: int
    looked_at: int = 0
    types: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    due: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    stale: int = 0
    letters: int = 0
    shown: list[Past] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        return self.looked_at >= self.total and self.judged == self.types.total()

    def estimate(self, judged: int) -> int:
        """How many there are of what was counted among the judged."""
        if self.is_exact or not judged:
            return judged
        return round(judged / self.judged * self.types.total() / self.looked_at * self.total)

    def said(self, judged: int, noun: str = "event") -> str:
        """The count with its noun; marked where it is an estimate."""
        return f"{'' if self.is_exact else 'about '}{counted(self.estimate(judged), noun)}"

    def meant(self, count: int) -> str:
        """How many are meant of a type that was counted so often."""
        whole = self.looked_at >= self.total
        return f"{count:,}" if whole else f"about {round(count / self.looked_at * self.total):,}"

    def left_out(self) -> list[str]:
        found = [f"{self.said(self.due[due])} {words}" for due, words in NOT_SENT.items() if self.due[due]]
        if self.stale:
            found.append(f"{self.said(self.stale)} without fields that newer deliveries have sent since")
        if self.letters:
            found.append(f"{self.said(self.letters)} with an open dead letter: redriven, which closes it")
        return found

    def examples(self, subscription: Subscription) -> Iterator[str]:
        for past in self.shown:
            assert past.made is not None
            event, delivery = past.made.event, past.made.delivery
            carried = fitting(subscription, event).carried
            body = masked("body", plain(dict(delivery.body)), carried)
            entity = masked("entity", delivery.entity, carried)
            yield f"for example {past.record.origin}: {delivery.action} {entity} {plain_json(body)}"


def look(app: App, sieve: Sieve, judge: Judge, spans: Spans) -> Survey:
    """Look at the first records of the spans, at most ``LOOKED_AT_MAX`` of them and for ``LOOKING_S``. Call the
    judge's ``check`` first."""
    survey = Survey(total=sum(to - at for found in spans.values() for at, to in found))
    at = {place: found[0][0] for place, found in spans.items()}
    meant: list[Past] = []
    deadline = time.monotonic() + LOOKING_S
    looked, whole = 0, True
    for records in read_spans(app, spans):
        for record in records:
            looked += 1
            at[record.topic, record.partition] = record.offset + 1
            past = sieve.look(record)
            if past is not None:
                survey.types[past.type.rpartition(".")[2] or "?"] += 1
                if len(meant) < JUDGED_MAX:
                    meant.append(past)
        if looked >= LOOKED_AT_MAX or time.monotonic() > deadline:
            whole = False
            break
    passed = sum(b - a for place, found in spans.items() for a, b in cut(found, 0, at[place]))
    survey.looked_at = survey.total if whole else max(1, passed)
    for judged in judge.judge(meant):
        _count(survey, judged)
    return survey


def _count(survey: Survey, judged: Judged) -> None:
    survey.judged += 1
    survey.due[judged.due] += 1
    survey.sent += judged.send
    survey.letters += judged.send and judged.letter is not None
    if judged.due == "due":
        survey.stale += bool(judged.omit)
        if len(survey.shown) < EXAMPLES:
            survey.shown.append(judged.past)


# ---- in words -------------------------------------------------------------------------------------------------------


def _what(app: App, subscription: Subscription, survey: Survey, total: int, how: Replaying) -> list[str]:
    name, connection = subscription.name, subscription.connection
    sent = survey.due["due"]
    types = ", ".join(f"{survey.meant(count)} {type_}" for type_, count in survey.types.most_common())
    pace = f", {how.rate:g} a second" if how.rate else ""
    calls = -(-survey.estimate(sent) // subscription.connector.batch_max)
    known = app.context.connections.get(connection)
    quota = None if known is None else known.quota
    took = ""
    if quota is not None and quota.rate is not None:
        seconds = calls * quota.rate.seconds / quota.rate.count / quota.background
        took = f", {duration(timedelta(seconds=seconds))} at its part of the quota ({quota.background:.0%})"
    classes = ", ".join(sorted(subscription.personal_data_allowed)) or "none"
    return [
        f"{total:,} offsets are read again; meant are {types or 'none'}",
        f"{survey.said(sent)} delivered again to {name} alone{pace} -> at least "
        f"{counted(calls, 'call')} to {connection}{took}",
        f"live events go first, and its place is not moved; personal data that may leave, as always: {classes}",
    ]


def _identity(subscription: Subscription, selection: Selection) -> list[str]:
    """What the vendor makes of a delivery that it has had before."""
    connection, idempotency = subscription.connection, subscription.connector.idempotency
    if selection.only == "changed":
        return [f"each under an idempotency key of its own: to {connection} it is a new delivery"]
    match idempotency.kind:
        case "upsert":
            return [f"under their first idempotency keys: {connection} writes the same once more"]
        case "none":
            return [f"under their first idempotency keys, which {connection} does not know: what it has is done again"]
        case _:
            ttl = "for a while" if idempotency.ttl is None else f"for {duration(idempotency.ttl)}"
            return [
                f"under their first idempotency keys, which {connection} remembers {ttl}: what it has had since is "
                "not done again"
            ]


def _severe(subscription: Subscription, selection: Selection, due: int) -> str:
    if due > SEVERE_EVENTS:
        return f"more than {SEVERE_EVENTS:,} events are delivered again"
    if due and subscription.connector.idempotency.kind == "none" and selection.only in ("all", "changed"):
        return f"{subscription.connection} does again what it has had already"
    return ""
