"""Past records of a subscription, read once: each is counted by what became of it, and what was asked of the vendor for
it is folded into what the vendor should have. Changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from consumers.inbox import parse_inbox
from consumers.pipeline import NotOurs, OfErased, Projection, ToDeliver
from consumers.receipts import about_text
from ops.changes.orders import on_their_way
from ops.changes.past import Selection, Sieve, ledger_knows, receipts_of
from ops.changes.replay_plan import behind_of
from ops.dead_topic import DeadTopic, Standing
from ops.lag.cluster import Cluster, Place
from ops.ledger.query import read_to_end
from ops.reading import as_record, read_spans
from ops.reading import read_to_end as read_topic
from ops.reconcile.chain import Link, Settled, follow
from ops.reconcile.counting import Account, Accounting, Seen, Stage, Wants
from ops.reconcile.expected import Expectations, Key, Stamp, about_of, fields_of, mask, masks_of
from schemas.errors import RefusedError
from schemas.event import Record

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.app import App
    from ops.ledger.query import Ledger, StoredReceipt
    from ops.progress import Progress

LEDGER_WAIT_S: Final = 20.0
AT_ONCE: Final = 500
LOOKED_AGAIN_MAX: Final = 10_000
"""So many records that do not add up are looked at a second time: something may have become of them meanwhile."""
MAYBE_SENT: Final = frozenset({"unknown", "exhausted"})
"""Outcomes of a dead letter after which the vendor may have it."""
FOLDED: Final[frozenset[Stage]] = frozenset(
    {"delivered", "merged", "superseded", "twice", "not_known", "receipt_missing"}
)
"""What became of an event that the vendor should have."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Offsets ``[low, high)`` of each partition that are reconciled."""

    places: Mapping[Place, tuple[int, int]]

    @property
    def total(self) -> int:
        return sum(high - low for low, high in self.places.values())


@dataclass(slots=True)
class Read:
    """What reading came to. ``first_at``: when the oldest record that was read had arrived."""

    accounts: dict[Place, Account] = field(default_factory=dict)
    expected: Expectations = field(default_factory=Expectations)
    first_at: datetime | None = None


class Reading:
    """One look at a subscription's past. Blocks; one thread. Raises RefusedError where there is no ledger,
    UnreachableError where it does not read on to the end.

    ``folds``: whether what the vendor should have is kept."""

    def __init__(
        self, app: App, attached: AttachedSubscription, subscription: Subscription, spans: Spans, *, folds: bool
    ) -> None:
        self._app, self._attached, self._subscription, self._spans = app, attached, subscription, spans
        self._ledger: Ledger = app.ledger()
        self._folds = folds
        self._sieve = Sieve(app, subscription, Selection(types=tuple(sorted(subscription.routes))))
        self._actions = subscription.connector.actions
        self._deletes = {one.erased_by: one for one in self._actions.values() if one.erased_by and one.upsert}
        self._dead = DeadTopic(app, subscription.name)
        # in this order: the receipts of what is behind a commit were written before it
        self._behind = behind_of(app, attached, list(spans.places))
        self._moving = on_their_way(app, subscription.name, "")
        self._inbox_from = _ends(app, f"{subscription.name}.inbox")
        self._dead.refresh()
        read_to_end(app, wait_s=LEDGER_WAIT_S)
        if not self._ledger.exists:
            raise RefusedError("The ledger is empty: no worker has written to it yet. Nothing was reconciled.")
        self._known_from = self._ledger.known_from(subscription.name)
        self.read = Read()
        self._accountings = {
            place: Accounting(low, high, self._links(place, low, high)) for place, (low, high) in spans.places.items()
        }
        self._doubtful: list[tuple[Record, Seen, Stage]] = []

    def _links(self, place: Place, low: int, high: int) -> Iterator[Link]:
        committed = self._behind[place][0][1] if self._behind[place] else 0
        ranges = self._ledger.ranges(self._subscription.name, place, low, high)
        return follow((Settled(*one) for one in ranges), low, min(high, committed))

    def run(self, progress: Progress) -> Read:
        """Read it all."""
        spans = {place: [(low, high)] for place, (low, high) in self._spans.places.items() if low < high}
        for records in read_spans(self._app, spans):
            for at in range(0, len(records), AT_ONCE):
                self._take(records[at : at + AT_ONCE])
            progress.advance(len(records))
        self._look_again()
        self.read.accounts = {place: one.end() for place, one in self._accountings.items()}
        return self.read

    def touched(self, after: Spans) -> set[Key]:
        """The entities that something was on its way to since reading began: events that arrived since (``after``), and
        what was written to the inbox. What the vendor has of them may be newer than what was expected."""
        found: set[Key] = set()
        newer = {place: [span] for place, span in after.places.items() if span[0] < span[1]}
        for records in read_spans(self._app, newer):
            found |= {key for record in records for key in self._keys(self._sieve.made(record))}
        for message in read_topic(self._app, f"{self._subscription.name}.inbox", from_offsets=self._inbox_from):
            parsed = parse_inbox(as_record(message))
            if parsed is not None:
                found |= set(self._keys(self._sieve.made(parsed[1])))
        return found

    # ---- inside

    def _take(self, records: Sequence[Record]) -> None:
        made = [(record, self._sieve.made(record)) for record in records]
        for (record, projection), one in zip(made, self._seen(made), strict=True):
            stage = self._accountings[record.topic, record.partition].add(one)
            if stage in ("receipt_missing", "letter_missing") and len(self._doubtful) < LOOKED_AGAIN_MAX:
                self._doubtful.append((record, one, stage))
            arrived = datetime.fromtimestamp(record.timestamp / 1000, UTC)
            if self.read.first_at is None or arrived < self.read.first_at:
                self.read.first_at = arrived
            if self._folds and isinstance(projection, ToDeliver):
                self._fold(record, projection, stage)

    def _seen(self, made: Sequence[tuple[Record, Projection | None]]) -> list[Seen]:
        told = receipts_of(
            self._ledger,
            self._subscription.name,
            {record.origin: one.event if isinstance(one, ToDeliver | OfErased) else None for record, one in made},
        )
        return [
            Seen(
                record.origin,
                behind=any(at <= record.offset < to for at, to in self._behind[record.topic, record.partition]),
                wants=_wants(one),
                told=_about_events(told.get(record.origin, ())),
                letter=record.origin in self._dead.open,
                knows=ledger_knows(self._attached, self._known_from, record),
            )
            for record, one in made
        ]

    def _look_again(self) -> None:
        """What does not add up may be what something became of while all was read: a letter that was redriven."""
        if not self._doubtful:
            return
        self._dead.refresh()
        read_to_end(self._app, wait_s=LEDGER_WAIT_S)
        made = [(record, self._sieve.made(record)) for record, _, _ in self._doubtful]
        for (record, before, stage), one in zip(self._doubtful, self._seen(made), strict=True):
            self._accountings[record.topic, record.partition].amend(before, stage, one)

    def _keys(self, made: Projection | None) -> list[Key]:
        if not isinstance(made, ToDeliver):
            return []
        delivery = made.delivery
        action = self._actions[delivery.action]
        written = self._deletes.get(delivery.action, action)
        return [(written.name, about_text(delivery, action), delivery.entity)] if written.upsert else []

    def _fold(self, record: Record, made: ToDeliver, stage: Stage) -> None:
        for key in self._keys(made):
            delivery, action = made.delivery, self._actions[made.delivery.action]
            one = self.read.expected.of(key, about_of(delivery, action))
            carried = made.route.carried
            one.mask = one.mask or mask(carried.get("entity", frozenset()) | carried.get("body", frozenset()))
            stamp = Stamp(record.timestamp, record.origin)
            letter = self._dead.open.get(record.origin)
            if stage == "waiting" or record.origin in self._moving:
                one.doubt = one.doubt or "in_motion"
            elif stage == "dead" and _may_have_it(letter):
                one.doubt = one.doubt or "open_letter"
            if stage not in FOLDED:
                continue
            if delivery.action in self._deletes:
                one.delete(stamp)
            else:
                fields = fields_of(delivery, action)
                one.write(fields, stamp, masks_of(fields, action, carried))


def subject_of(key: Key, salt: str) -> str:
    """What tells an entity from others in a result, and names nobody. Pure."""
    return hashlib.sha256("\0".join((salt, *key)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _wants(made: Projection | None) -> Wants:
    if isinstance(made, NotOurs):
        return "no"
    return "erased" if isinstance(made, OfErased) else "yes"


def _about_events(told: Sequence[StoredReceipt]) -> list[StoredReceipt]:
    """Without those of erasures, which stand at the place of an event and say nothing of it."""
    return [one for one in told if one.change_kind != "erase"]


def _may_have_it(letter: Standing | None) -> bool:
    return letter is not None and letter.letter.outcome in MAYBE_SENT


def _ends(app: App, topic: str) -> dict[int, int]:
    cluster = Cluster(app.admin(), app.consumer)
    places = [(topic, partition) for partition in range(cluster.partition_counts([topic]).get(topic, 0))]
    return {partition: end for (_, partition), end in cluster.ends(places, "committed").items()}
