"""The plan of a repair: which events are delivered again so that the vendor has what it should. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ops.changes.attach_plan import attached_named
from ops.changes.feeding import OUTCOME, SEND
from ops.changes.orders import grown_topics, inbox_partitions, origin_of
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.redrive_plan import running
from ops.changes.staleness import attached_subscription
from ops.lag.cluster import Cluster
from ops.reconcile.comparison import REPAIRED, Difference
from ops.reconcile.result import Result, ResultStore
from ops.wording import are, counted, duration
from schemas.errors import RefusedError
from schemas.event import Origin

if TYPE_CHECKING:
    from ops.app import App
    from ops.lag.cluster import Place

SEVERE_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Mend:
    """One event to be delivered again: the fields whose newest value it said, as of the newest event about its entity.
    ``subject`` tells the entity."""

    origin: Origin
    names: frozenset[str]
    as_of: Origin
    subject: str


def mends_of(row: Difference) -> Iterator[Mend]:
    """The events that mend one difference. Pure."""
    assert row.as_of is not None
    for origin in row.send:
        names = frozenset(row.holds.get(origin, ()))
        yield Mend(origin_of(origin), names, origin_of(row.as_of), row.subject or "")


def repairable(store: ResultStore, result: Result) -> Iterator[Difference]:
    """The differences that deliveries can mend."""
    return store.rows(result, REPAIRED)  # type: ignore[arg-type]


def repair_plan(app: App, result: Result, *, rate: float, wait_s: float) -> Plan:
    """Raises RefusedError where nothing can be repaired, or the attached version is another one than was reconciled;
    NotFoundError if it is not attached any more."""
    name = result.subscription
    attached = attached_named(app.control(), name)
    assert attached.definition is not None
    again = f"Nothing was changed. Look again: backbone reconcile run {name}"
    if attached.definition.version != result.version:
        now = attached.definition.version
        raise RefusedError(f"{result.id} is about {name}@{result.version}, and @{now} is attached by now. {again}")
    subscription = attached_subscription(app, attached)
    things: Counter[tuple[str, str, str]] = Counter()
    events: Counter[tuple[str, str, str]] = Counter()
    gone = 0
    first: dict[Place, int] = {}
    last: dict[Place, int] = {}
    places = [(topic, partition) for topic, partition, _ in result.read_to]
    starts = Cluster(app.admin(), app.consumer).starts(places)
    for row in repairable(ResultStore.of(app), result):
        mends = list(mends_of(row))
        if any(mend.origin.offset < starts.get(mend.origin[:2], 1 << 63) for mend in mends):
            gone += 1
            continue
        what = (row.action or "", row.about or "", row.kind)
        things[what] += 1
        events[what] += len(mends)
        for mend in mends:
            place = mend.origin[:2]
            first[place] = min(first.get(place, mend.origin.offset), mend.origin.offset)
            last[place] = max(last.get(place, 0), mend.origin.offset + 1)
    total = events.total()
    if not total:
        why = (
            f"the events of {counted(gone, 'thing')} are deleted by retention"
            if gone
            else "nothing is missing or different"
        )
        raise RefusedError(f"There is nothing to repair by {result.id}: {why}. {again}")
    calls = -(-total // subscription.connector.batch_max)
    quota = app.context.connections[subscription.connection].quota
    took = ""
    if quota.rate is not None:
        seconds = calls * quota.rate.seconds / quota.rate.count / quota.background
        took = f", {duration(timedelta(seconds=seconds))} at its part of the quota ({quota.background:.0%})"
    pace = f", {rate:g} a second" if rate else ""
    classes = ", ".join(sorted(subscription.personal_data_allowed)) or "none"
    summary = [
        f"{counted(total, 'event')} delivered again to {name} alone{pace} -> at least {counted(calls, 'call')} to "
        f"{subscription.connection}{took}",
        f"each with the fields whose newest value it said, under an idempotency key of its own: to "
        f"{subscription.connection} it is a new delivery",
        f"live events go first, and its place is not moved; personal data that may leave, as always: {classes}",
        "what newer events are about by then is left out; found by "
        + result.id
        + f" at {result.at:%Y-%m-%dT%H:%M:%SZ}",
    ]
    if gone:
        summary.append(f"{are(gone, 'thing')} left out: their events are deleted by retention")
    if extra := result.differences.get("extra", 0):
        summary.append(f"{are(extra, 'thing')} too much at the vendor and left there: a person decides")
    return new_plan(
        app,
        kind="repair",
        subject=name,
        title=f"repair {name} by {result.id}",
        rows=[
            {"action": action, "about": about or None, "difference": kind, "things": things[action, about, kind],
             "events": count}
            for (action, about, kind), count in sorted(events.items())
        ],
        summary=[*summary, *running(app, attached)],
        steps=[SEND, OUTCOME],
        preconditions={"version": result.version},
        before=_places(first),
        after=_places(last),
        details={
            "result": result.id,
            "rows_sha256": result.rows_sha256,
            "events": total,
            "rate": rate,
            "wait_s": wait_s,
            "inbox_partitions": inbox_partitions(app, name),
            "grown": grown_topics(app, attached),
        },
        severe=f"more than {SEVERE_EVENTS:,} events are delivered again" if total > SEVERE_EVENTS else "",
    )  # fmt: skip


def _places(found: Mapping[Place, int]) -> dict[str, JsonValue]:
    return {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(found.items())}
