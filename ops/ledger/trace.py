"""One event on its way: where it stands, and for each subscription how its deliveries ended, what of it is an open
dead letter, and what has not come to it yet. From the ledger, the cluster and the heartbeats; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from consumers.deadletter import DeadLetter
from consumers.offsets import decode_runs
from ops.ledger.query import Ledger, StoredReceipt, Wanted, end_of_receipts
from schemas.errors import BackboneError, NotFoundError, UnreachableError
from schemas.event import Origin

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription, ControlSnapshot
    from consumers.heartbeat import Held
    from ops.app import App
    from ops.lag.cluster import Commit
    from ops.ledger.question import AboutEvent, AboutValue
    from schemas.event import Record

Standing: TypeAlias = Literal["waiting", "held", "passed", "not_ours", "before_start", "no_position"]
"""What an attached subscription without a receipt has to do with an event. ``waiting``: it has not come to it;
``held``: it has, and waits for something; ``passed``: it is done with it, and the ledger has not read the receipt
yet; ``not_ours``: it is done with it, and no route was for it; ``before_start``: it was attached behind it;
``no_position``: nobody knows where it reads."""

DEAD = frozenset({"rejected", "undecodable", "exhausted", "unknown", "parked"})
"""Outcomes that leave a dead letter."""
_RECEIPTS_EACH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One subscription and the event. ``receipts`` in the order they happened (none: ``standing`` says why);
    ``letter`` is its open dead letter; ``before``: so many offsets at most lie before it; ``held``: why a worker waits
    with it."""

    subscription: str
    receipts: tuple[StoredReceipt, ...] = ()
    letter: DeadLetter | None = None
    standing: Standing | None = None
    before: int = 0
    held: Held | None = None

    @property
    def state(self) -> str:
        """In one word: the last outcome, or ``standing``, or ``dead_letter`` where only that is known."""
        if self.receipts:
            return self.receipts[-1].outcome
        return "dead_letter" if self.letter is not None else self.standing or "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedEvent:
    """One record that holds an event. ``arrived``: when it came into its topic, None if it is not there any more (or
    was not looked at). ``type`` None: it cannot be decoded."""

    origin: Origin
    id: str
    type: str | None
    source: str | None
    time: datetime | None
    arrived: datetime | None = None
    deliveries: tuple[Delivered, ...] = ()


@dataclass(slots=True)
class _Known:
    """What is known of one record before the subscriptions are asked."""

    id: str
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    arrived: datetime | None = None
    receipts: list[StoredReceipt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trace:
    """``unread``: so many receipts the ledger has not written yet, None if that is not known."""

    events: tuple[TracedEvent, ...]
    unread: int | None


def trace_event(app: App, ledger: Ledger, asked: AboutEvent, *, scan_max: int) -> Trace:
    """The way of one event (of each record that holds it, where it was published twice). What the ledger does not
    know is looked for in the topics. Blocks. Raises NotFoundError where nothing is known of it, UnreachableError where
    that cannot be told."""
    receipts = ledger.of_origin(asked.origin) if asked.origin is not None else ledger.of_events([asked.id])
    known = _by_origin(receipts)
    around = _Around(app)
    if known:
        for origin, one in known.items():
            around.try_to("when it was published", partial(_arrive, app, origin, one))
    elif not around.try_to("events that have no receipt", lambda: known.update(_looked_for(app, asked, scan_max))):
        raise UnreachableError(f"The ledger knows nothing of '{asked.id}', and the topics cannot be read now.")
    return around.trace(known)


def trace_value(app: App, ledger: Ledger, asked: AboutValue, *, limit: int) -> Trace:
    """The ways of the events whose entity, key or subject a value is, the newest first, at most so many. Blocks.
    Raises NotFoundError where there is none; the message does not repeat the value."""
    # an event has a receipt for each of its subscriptions
    found = ledger.find(Wanted(value=asked.value, types=asked.types), limit=limit * _RECEIPTS_EACH)
    chosen = list(dict.fromkeys(one.event_id for one in found))[:limit]
    around = _Around(app)
    if not chosen:
        around.look()
        unread = f" It has not read {around.unread:,} receipts yet." if around.unread else ""
        raise NotFoundError(
            f"The ledger knows no event with this {asked.field} as its entity, key or subject.{unread} "
            "An event that no subscription was done with yet is found by its id."
        )
    known = {origin: one for origin, one in _by_origin(ledger.of_events(chosen)).items() if one.type in asked.types}
    return around.trace(dict(sorted(known.items(), key=lambda item: _newest(item[1]), reverse=True)))


def _newest(known: _Known) -> datetime:
    return max(one.last_at for one in known.receipts)


def _by_origin(receipts: Iterable[StoredReceipt]) -> dict[Origin, _Known]:
    found: dict[Origin, _Known] = {}
    for one in receipts:
        known = found.setdefault(one.origin, _Known(one.event_id))
        known.id, known.type, known.source = one.event_id, one.event_type or None, one.event_source
        known.time = one.event_time
        known.receipts.append(one)
    return found


def _arrive(app: App, origin: Origin, known: _Known) -> None:
    from ops.event_log import read_one

    try:
        known.arrived = read_one(app, *origin).time
    except NotFoundError:
        return  # retention took it: its receipts say what became of it


def _looked_for(app: App, asked: AboutEvent, scan_max: int) -> dict[Origin, _Known]:
    from ops.event_log import decoded, find, read_one

    if asked.origin is not None:
        record = read_one(app, *asked.origin)
        return {record.origin: _of_record(record, decoded(app, record))}
    try:
        record, found = find(app, asked.id, where=None, start=None, scan_max=scan_max)
    except NotFoundError as error:
        raise NotFoundError(f"The ledger knows nothing of it. {error}") from None
    return {record.origin: _of_record(record, found)}


def _of_record(record: Record, found: object) -> _Known:
    from schemas.event import Event

    if isinstance(found, Event):
        return _Known(found.id, found.type, found.source, found.time, record.time)
    return _Known(str(record.origin), arrived=record.time)


class _Around:
    """What the cluster says around the receipts: asked once for all events, and left out with a warning where it does
    not answer: the receipts are worth showing all the same."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._control: ControlSnapshot | None = None
        self._commits: Mapping[str, Mapping[tuple[str, int], Commit]] = {}
        self._letters: dict[tuple[str, Origin], DeadLetter] = {}
        self._held: dict[tuple[str, str], Held] = {}
        self._is_away = False
        self.unread: int | None = None

    def try_to(self, what: str, ask: Callable[[], object]) -> bool:
        """Whether it could be asked; NotFoundError passes through. Who does not answer is not asked again."""
        from confluent_kafka import KafkaException

        if self._is_away:
            return False
        try:
            ask()
        except NotFoundError:
            raise
        except (KafkaException, BackboneError) as error:
            said = self._app.kafka_error(error.args[0]) if isinstance(error, KafkaException) else error
            self._is_away = isinstance(said, UnreachableError)
            rest = "what the ledger does not know" if self._is_away else what
            self._app.screen.warn(f"Not looked at: {rest}. {said}")
            return False
        return True

    def look(self) -> None:
        """What is attached, and how much the ledger has not read."""

        def ask() -> None:
            self._control = self._app.control()
            self.unread = end_of_receipts(self._app).missing(self._app)

        self.try_to("what is attached", ask)

    def trace(self, known: Mapping[Origin, _Known]) -> Trace:
        """Put together what is known of these records."""
        self.look()
        if self._control is not None:
            self.try_to("dead letters and positions", lambda: self._look_at(known))
        return Trace(tuple(self._traced(origin, one) for origin, one in known.items()), self.unread)

    def _look_at(self, known: Mapping[Origin, _Known]) -> None:
        from ops.deadletters import dead_topics, open_letters
        from ops.lag.cluster import Cluster
        from ops.watch.heartbeats import read_heartbeats

        dead = {r.subscription for one in known.values() for r in one.receipts if r.outcome in DEAD}
        silent = {name for origin, one in known.items() for name in self._readers(origin, one)}
        for name, found in open_letters(self._app, dead_topics(self._app, sorted(dead | silent))).items():
            self._letters |= {(name, open_.letter.origin): open_.letter for open_ in found.letters}
        if silent:
            answers = Cluster(self._app.admin(), self._app.consumer).commits(sorted(silent))
            self._commits = answers.found
            for beat in read_heartbeats(self._app).fresh:
                for view in beat.heartbeat.subscriptions:
                    self._held |= {(view.name, held.origin): held for held in (*view.held, *view.parked)}

    def _readers(self, origin: Origin, known: _Known) -> list[str]:
        """Attached subscriptions that read this record, and have left no receipt of it."""
        if self._control is None:
            return []
        done = {one.subscription for one in known.receipts}
        return [
            name
            for name, attached in self._control.subscriptions.items()
            if name not in done
            and attached.definition is not None
            and origin.topic in attached.definition.topics
            and (known.type is None or known.type in attached.definition.events)
        ]

    def _traced(self, origin: Origin, known: _Known) -> TracedEvent:
        by_subscription: dict[str, list[StoredReceipt]] = {}
        for one in known.receipts:
            by_subscription.setdefault(one.subscription, []).append(one)
        deliveries = [
            Delivered(subscription=name, receipts=tuple(receipts), letter=self._letters.get((name, origin)))
            for name, receipts in sorted(by_subscription.items())
        ]
        deliveries += [self._without_receipt(name, origin) for name in self._readers(origin, known)]
        return TracedEvent(
            origin=origin, id=known.id, type=known.type, source=known.source, time=known.time, arrived=known.arrived,
            deliveries=tuple(deliveries),
        )  # fmt: skip

    def _without_receipt(self, name: str, origin: Origin) -> Delivered:
        assert self._control is not None
        attached = self._control.subscriptions[name]
        held = self._held.get((name, str(origin)))
        standing, before = standing_of(
            origin, attached, self._commits.get(name, {}), is_held=held is not None, unread=self.unread
        )
        return Delivered(
            subscription=name, letter=self._letters.get((name, origin)), standing=standing, before=before, held=held
        )


def standing_of(
    origin: Origin,
    attached: AttachedSubscription,
    commits: Mapping[tuple[str, int], Commit],
    *,
    is_held: bool,
    unread: int | None,
) -> tuple[Standing, int]:
    """What a subscription without a receipt has to do with a record it reads, and how many offsets lie before it. Pure.
    ``unread``: receipts that the ledger has not written yet; None: not known."""
    place = (origin.topic, origin.partition)
    start, commit = attached.starts.get(place), commits.get(place)
    if start is not None and origin.offset < start.offset and (commit is None or commit.offset > origin.offset):
        return "before_start", 0
    at = commit.offset if commit is not None else start.offset if start is not None else None
    if at is None:
        return "no_position", 0
    runs: Sequence[tuple[int, int]] = () if commit is None else decode_runs(commit.offset, commit.metadata)
    if origin.offset < at or any(begin <= origin.offset < end for begin, end in runs):
        return ("not_ours" if unread == 0 else "passed"), 0
    if is_held:
        return "held", 0
    return "waiting", origin.offset - at
