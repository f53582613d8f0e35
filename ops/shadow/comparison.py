"""Past events, read once more: what a new version would ask of the vendor, against what was sent. Writes nothing to
Kafka and asks no vendor.

What was sent is known from the receipts in the ledger: action, entity, and the hash of the body; it is compared as
``replay --only changed`` compares it (``ops/changes/asked.py``). Which fields differ is known where the attached
version, made again, gives that very hash; otherwise by the names in the receipt. Without a ledger the attached version,
made again, stands for what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from consumers.pipeline import NotOurs, OfErased, Projection, Refused, ToDeliver
from ops.changes.asked import Actions, IsOf, Together, asked_last, compare, is_same, is_together
from ops.changes.past import Selection, Sieve, ledger_knows, receipts_of
from ops.changes.together import groups
from ops.ledger.query import read_to_end
from ops.reading import Spans, read_spans
from ops.shadow.difference import between, from_receipt, without_delivery
from ops.shadow.tally import NOT_COMPARED, Compared, NotCompared, Result, Tally

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.app import App
    from ops.lag.cluster import Place
    from ops.ledger.query import Ledger, StoredReceipt
    from ops.progress import Progress
    from schemas.event import Event, Origin, Record

LEDGER_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Versions:
    """The attached version (``was``; None: it cannot be made again here) and the new one."""

    attached: AttachedSubscription
    was: Subscription | None
    now: Subscription


@dataclass(frozen=True, slots=True)
class Set:
    """Events that were sent as one, as the attached version makes them and as the new one does; None: it was not so."""

    was: Together | None = None
    now: Together | None = None


ALONE = Set()


class Shadow:
    """Compares. ``ledger`` None: with the attached version alone. Blocks on the registry and the ledger; one thread.

    Raises UnreachableError where the ledger does not read on to the end, or the registry is away."""

    def __init__(self, app: App, versions: Versions, ledger: Ledger | None) -> None:
        self._app, self._versions, self._ledger = app, versions, ledger
        self._now = _sieve(app, versions.now)
        self._was = None if versions.was is None else _sieve(app, versions.was)
        self._known_from: Mapping[Place, int] = {}
        if ledger is not None:
            read_to_end(app, wait_s=LEDGER_WAIT_S)
            self._known_from = ledger.known_from(versions.now.name)

    def compare(self, records: Sequence[Record]) -> list[Compared]:
        """What came of those that are for one of the versions, or were sent; in their order."""
        made = [(record, None if self._was is None else self._was.made(record), self._now.made(record))
                for record in records]  # fmt: skip
        told: Mapping[Origin, Sequence[StoredReceipt]] = {}
        if self._ledger is not None:
            events = {record.origin: _event(now) or _event(was) for record, was, now in made}
            told = receipts_of(self._ledger, self._versions.now.name, events)
        sets = self._sets(told, made)
        found = (
            self._compared(record, was, now, told.get(record.origin, ()), sets.get(record.origin, ALONE))
            for record, was, now in made
        )
        return [one for one in found if one is not None]

    def _sets(
        self,
        told: Mapping[Origin, Sequence[StoredReceipt]],
        made: Sequence[tuple[Record, Projection | None, Projection | None]],
    ) -> dict[Origin, Set]:
        """What was sent as one, as both versions make it, by each of its events."""
        if self._ledger is None:
            return {}
        known = {record.origin: (was, now) for record, was, now in made}
        found = groups(self._app, self._ledger, self._versions.now.name, told, [record for record, _, _ in made])

        def by_was(record: Record) -> Projection | None:
            if record.origin in known:
                return known[record.origin][0]
            return None if self._was is None else self._was.made(record)

        def by_now(record: Record) -> Projection | None:
            return known[record.origin][1] if record.origin in known else self._now.made(record)

        both = {id(group): Set(group.made(by_was), group.made(by_now)) for group in found.values()}
        return {origin: both[id(group)] for origin, group in found.items()}

    def _compared(
        self,
        record: Record,
        was: Projection | None,
        now: Projection | None,
        told: Sequence[StoredReceipt],
        together: Set,
    ) -> Compared | None:
        type_ = _type(now) or _type(was) or (told[-1].event_type if told else "")

        def not_compared(why: NotCompared) -> Compared:
            return Compared(record.origin, type_, "not_compared", why=why)

        if isinstance(now, OfErased) or isinstance(was, OfErased):
            return not_compared("erased")
        if now is None or (isinstance(now, Refused) and now.kind == "undecodable"):
            return not_compared("unreadable")
        if self._ledger is None:
            return self._with_made(record, was, now)
        sent = asked_last(told)
        if sent is not None:
            result = against(sent, now, self._ledger.is_of, self._versions.now.connector.actions, together.now)
            if result in NOT_COMPARED:
                return not_compared(cast("NotCompared", result))
            return self._with_sent(record, type_, was, now, sent, together, cast("Result", result))
        if told:
            if isinstance(was, Refused) or (was is None and told[-1].outcome == "rejected"):
                return self._newly_taken(record, was, now) if isinstance(now, ToDeliver) else not_compared("refused")
            return not_compared("not_sent")
        is_of_none = isinstance(was, NotOurs) or self._was is None
        if is_of_none and isinstance(now, NotOurs):
            return None
        if is_of_none and ledger_knows(self._versions.attached, self._known_from, record):
            return self._newly_taken(record, was, now)
        return not_compared("no_receipt")

    def _with_made(self, record: Record, was: Projection | None, now: Projection) -> Compared | None:
        """Against the attached version, made again."""
        if isinstance(was, ToDeliver) and isinstance(now, ToDeliver):
            found = between(was, now)
            return Compared(record.origin, now.event.type, "different" if found else "same", found)
        if isinstance(was, ToDeliver):
            why = replace(without_delivery(now, self._versions.now, was.event.type), was=was.route.place)
            return Compared(record.origin, was.event.type, "would_not_send", [why])
        if isinstance(now, ToDeliver) or (isinstance(now, Refused) and isinstance(was, NotOurs)):
            return self._newly_taken(record, was, now)
        if isinstance(now, Refused) or isinstance(was, Refused):
            return Compared(record.origin, _type(now) or _type(was), "not_compared", why="refused")
        return None

    def _with_sent(
        self,
        record: Record,
        type_: str,
        was: Projection | None,
        now: Projection,
        sent: StoredReceipt,
        together: Set,
        result: Result,
    ) -> Compared:
        """Against what the vendor was asked, where it differs and why."""
        assert self._ledger is not None
        if result == "same":
            return Compared(record.origin, type_, "same")
        if not isinstance(now, ToDeliver):
            why = without_delivery(now, self._versions.now, type_)
            if isinstance(was, ToDeliver):
                why = replace(why, was=was.route.place)
            return Compared(record.origin, type_, result, [why])
        if is_together(sent) and together.now is not None:
            # one delivery stood for all of them, so it is compared as one wherever they would go as one now
            sent, actions = together.now.receipt, self._versions.now.connector.actions
            now = together.now.as_one(actions) or now
            was = None if together.was is None else together.was.as_one(actions)
        found = between(was, now) if isinstance(was, ToDeliver) and self._is_sent(was, sent) else []
        if not found:
            action = self._versions.now.connector.actions[now.delivery.action]
            found = from_receipt(sent, self._ledger.is_of(sent, now.delivery.entity), now, action)
        return Compared(record.origin, type_, result, found)

    def _is_sent(self, was: ToDeliver, sent: StoredReceipt) -> bool:
        """Whether the attached version, made again, makes what was sent."""
        assert self._ledger is not None
        return is_same(sent, was.delivery, self._ledger.is_of)

    def _newly_taken(self, record: Record, was: Projection | None, now: Projection) -> Compared:
        """Nothing was asked for it before. Where the new map fails it would become a dead letter, which differs too."""
        if isinstance(now, ToDeliver):
            why = replace(without_delivery(was, self._versions.was, now.event.type), now=now.route.place)
            return Compared(record.origin, now.event.type, "would_send", [why])
        return Compared(record.origin, _type(now), "different", [without_delivery(now, self._versions.now, _type(now))])


def compare_past(
    app: App, shadow: Shadow, spans: Spans, progress: Progress, *, tally: Tally, events_max: int | None
) -> None:
    """Count what stands in the spans, at most so many events. Ctrl-C passes through; the tally holds what came before
    it. Blocks; raises what ``ops.reading.read_spans`` does."""
    for records in read_spans(app, spans):
        found = shadow.compare(records)
        if events_max is not None and tally.events + len(found) >= events_max:
            found = found[: events_max - tally.events]
            last = found[-1].origin
            records = records[: 1 + next(place for place, one in enumerate(records) if one.origin == last)]
        for one in found:
            tally.add(one)
        tally.records += len(records)
        progress.advance(len(records))
        if events_max is not None and tally.events >= events_max:
            return


def _sieve(app: App, subscription: Subscription) -> Sieve:
    return Sieve(app, subscription, Selection(types=tuple(sorted(subscription.routes))))


def against(
    sent: StoredReceipt, now: Projection, is_of: IsOf, actions: Actions, together: Together | None
) -> Result | NotCompared:
    """What the vendor was asked last against what a version would ask now: same, different, would_not_send, or why
    nobody can tell. Pure."""
    if not isinstance(now, ToDeliver):
        return "would_not_send"
    return compare(sent, now, is_of, actions, together)


def _event(made: Projection | None) -> Event | None:
    return made.event if isinstance(made, ToDeliver | OfErased) else None


def _type(made: Any) -> str:
    if isinstance(made, ToDeliver):
        return made.event.type
    return made.event_type if isinstance(made, Refused | OfErased) else ""
