"""What an attach is about to catch up with, counted in the real events: by type, by what would come of them, with what
would be sent of some; the calls of the vendor, how long they take, and whether everything is still kept by then.

Reads without a group; nothing is sent, nothing is committed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from connectors.pacing import Quota
from consumers.expressions.values import plain
from consumers.pipeline import NotOurs, OfErased, Refused, ToDeliver
from ops.changes.past import Selection, Sieve
from ops.changes.plan import JsonValue
from ops.lag.cluster import Place
from ops.preview import fitting, masked
from ops.reading import Spans, read_spans
from ops.wording import plain_json

if TYPE_CHECKING:
    from consumers.subscription import Subscription
    from ops.app import App
    from schemas.event import Record

LOOKED_AT_MAX: Final = 20_000
"""So many offsets are looked at; of more the oldest half of it and the newest, and the counts are estimates."""
LOOKING_S: Final = 5.0
EXAMPLES: Final = 5
SENT, EXPIRED, REFUSED, ERASED, WAITS = "sent", "expired", "dead_letter", "erased", "waits_for_schema"
OUTCOMES: Final = (SENT, EXPIRED, REFUSED, ERASED, WAITS)


@dataclass(slots=True)
class OfType:
    """The events of one type that were looked at: how many, what would come of them, and the first few."""

    events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, JsonValue]] = field(default_factory=list)


@dataclass(slots=True)
class Survey:
    """``total`` offsets lie between start and hand-over, ``looked_at`` of them were looked at; ``types`` are the events
    that are ours among those, ``not_ours`` the records that are not."""

    total: int
    looked_at: int = 0
    types: dict[str, OfType] = field(default_factory=dict)
    not_ours: int = 0

    @property
    def is_exact(self) -> bool:
        return self.looked_at >= self.total

    def estimate(self, seen: int) -> int:
        """How many there are in all of what was seen so often."""
        if self.is_exact or not self.looked_at:
            return seen
        return round(seen / self.looked_at * self.total)

    def outcome(self, name: str) -> int:
        """How many events would end so, estimated."""
        return self.estimate(sum(one.outcomes[name] for one in self.types.values()))

    @property
    def events(self) -> int:
        """How many are ours, estimated."""
        return self.estimate(sum(one.events for one in self.types.values()))

    def add(self, subscription: Subscription, record: Record, made: Any, now: float) -> None:
        """Take one record in, with what the pipeline made of it (None: its schema is nowhere)."""
        if isinstance(made, NotOurs):
            self.not_ours += 1
            return
        example: dict[str, JsonValue] = {"origin": str(record.origin), "outcome": SENT}
        match made:
            case ToDeliver():
                type_ = made.event.type
                expire_after = subscription.policies.expire_after
                if expire_after is not None and now - record.timestamp / 1000 > expire_after.total_seconds():
                    example["outcome"] = EXPIRED
                carried = fitting(subscription, made.event).carried
                example |= {
                    "action": made.delivery.action,
                    "entity": masked("entity", made.delivery.entity, carried),
                    "body": json.loads(plain_json(masked("body", plain(dict(made.delivery.body)), carried))),
                }
            case Refused():
                type_ = made.event_type
                example |= {"outcome": REFUSED, "reason": f"{made.rejected.reason} {made.rejected.detail}".rstrip()}
            case OfErased():
                type_ = made.event_type
                example["outcome"] = ERASED
            case _:
                type_ = ""
                example["outcome"] = WAITS
        of_type = self.types.setdefault(type_, OfType())
        of_type.events += 1
        of_type.outcomes[example["outcome"]] += 1
        if len(of_type.examples) < EXAMPLES:
            of_type.examples.append(example)

    def plain(self) -> list[dict[str, JsonValue]]:
        """By event type, the most frequent first."""
        ordered = sorted(self.types.items(), key=lambda item: (-item[1].events, item[0]))
        return [
            {
                "event": name or None,
                "events": self.estimate(one.events),
                **{outcome: self.estimate(one.outcomes[outcome]) for outcome in OUTCOMES},
                "examples": one.examples,
            }
            for name, one in ordered
        ]


def look(app: App, subscription: Subscription, begin: Mapping[Place, int], until: Mapping[Place, int]) -> Survey:
    """Look at what stands between the two, at most ``LOOKED_AT_MAX`` offsets and for ``LOOKING_S``. Blocks; raises
    UnreachableError (the cluster, the registry)."""
    total = sum(max(0, until[place] - begin[place]) for place in begin)
    survey = Survey(total=total)
    sieve = Sieve(app, subscription, Selection(types=tuple(subscription.routes)))
    deadline = time.monotonic() + LOOKING_S
    for spans in sampled(begin, until, LOOKED_AT_MAX):
        if time.monotonic() > deadline:
            break
        survey.looked_at += _look_at(app, subscription, sieve, spans, survey, deadline)
    return survey


def sampled(begin: Mapping[Place, int], until: Mapping[Place, int], most: int) -> list[Spans]:
    """The spans to look at, one list after the other: all, or of each partition its oldest and its newest part, by how
    much stands in it. Pure."""
    places = {place: (at, until[place]) for place, at in begin.items() if until[place] > at}
    total = sum(to - at for at, to in places.values())
    if not total:
        return []
    if total <= most:
        return [{place: [span] for place, span in places.items()}]
    half = {place: max(1, most * (to - at) // total // 2) for place, (at, to) in places.items()}
    oldest = {place: [(at, min(to, at + half[place]))] for place, (at, to) in places.items()}
    newest = {place: [(max(at + half[place], to - half[place]), to)] for place, (at, to) in places.items()}
    return [oldest, {place: spans for place, spans in newest.items() if spans[0][0] < spans[0][1]}]


def _look_at(app: App, subscription: Subscription, sieve: Sieve, spans: Spans, survey: Survey, deadline: float) -> int:
    """Look at spans of one range each; how many offsets that were."""
    at = {place: ranges[0][0] for place, ranges in spans.items()}
    now = datetime.now(UTC).timestamp()
    for records in read_spans(app, spans):
        for record in records:
            at[record.topic, record.partition] = record.offset + 1
            survey.add(subscription, record, sieve.made(record), now)
        if time.monotonic() > deadline:
            return sum(at[place] - ranges[0][0] for place, ranges in spans.items())
    return sum(ranges[0][1] - ranges[0][0] for ranges in spans.values())


# ---- what it takes, and whether it is kept as long. Pure. -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effort:
    """``calls`` of the vendor at least, and how long they take at the background's part of the connection's quota; None
    where no rate is set, so that only the vendor's answers say."""

    calls: int
    seconds: float | None


def effort(sent: int, batch_max: int, quota: Quota | None) -> Effort:
    """What it takes to send so many events that are caught up with."""
    calls = -(-sent // batch_max)
    if quota is None or quota.rate is None:
        return Effort(calls, None)
    return Effort(calls, calls * quota.rate.seconds / quota.rate.count / quota.background)


def expires_before(ages: Sequence[tuple[float, int]], total: int, keeps_s: float, takes_s: float) -> int:
    """How many of ``total`` events are deleted before they are read, when reading all of them takes ``takes_s`` and the
    topic keeps them for ``keeps_s``. ``ages``: an age, and how many are older than that.

    What is older than an age is all read when its part of the time has passed, and gone when the topic's has."""
    lost = 0.0
    for age_s, older in ages:
        read_by_then = total * max(0.0, keeps_s - age_s) / takes_s if takes_s > 0 else float(total)
        lost = max(lost, older - read_by_then)
    return max(0, round(lost))
