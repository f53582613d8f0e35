"""Asking the ledger: what became of an event, of an entity, of a subscription's deliveries. Reads; changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from consumers.receipts import TOPIC, hashed
from ops.ledger.database import Address, check, database_error, open_engine
from ops.ledger.store import storable
from ops.ledger.tables import COUNTS, NOT_PLAIN, RECEIPT_FIELDS, earlier_receipts, ranges, receipts
from ops.topics import LEDGER
from ops.wording import counted
from schemas.errors import RefusedError, UnreachableError
from schemas.event import Origin

if TYPE_CHECKING:
    from ops.app import App
    from ops.lag.cluster import Place

POLL_S = 0.1
ASKED_MAX = 500
"""Places or events in one question."""
RANGES_MAX = 1_000
"""Ranges of a partition held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """A receipt as the ledger has it. ``is_earlier``: the delivery ended otherwise later. The fields mean what
    ``DeliverySettled.avsc`` says; times are UTC."""

    idempotency_key: str
    event_source: str
    event_type: str
    event_id: str
    event_time: datetime
    event_subject: str | None
    event_subject_hashed: bool
    record_key: str | None
    record_key_hashed: bool
    origin_topic: str
    origin_partition: int
    origin_offset: int
    subscription: str
    subscription_version: str
    connection: str
    action: str
    entity: str
    entity_hashed: bool
    about: str
    revision: str
    outcome: str
    reason: str | None
    merged_into: str | None
    reference: str | None
    reference_hashed: bool
    attempts: int
    first_at: datetime
    last_at: datetime
    change_id: str | None
    change_kind: str | None
    redrives: int
    trace_id: str | None
    fields_sent: list[str]
    personal_data_sent: list[str]
    body_fields: list[str]
    body_sha256: str | None
    receipt_partition: int
    receipt_offset: int
    is_earlier: bool = False

    @property
    def origin(self) -> Origin:
        return Origin(self.origin_topic, self.origin_partition, self.origin_offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What receipts are asked for; None: any. ``value`` is an entity, a record key, a subject or an event's id, as a
    person knows it; what is hashed is found by hashing it. ``since`` and ``until`` bound when the delivery ended."""

    event_id: str | None = None
    entity: str | None = None
    value: str | None = None
    types: Collection[str] | None = None
    subscription: str | None = None
    outcomes: Sequence[str] = ()
    reason: str | None = None
    change: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """A delivery of an older event, about to be sent again. ``entity`` and ``about`` are plain, whether receipts hold
    them hashed or not; ``since``: when it was dealt with before."""

    action: str
    entity: str
    origin: Origin
    about: str = ""
    since: datetime | None = None


class Ledger:
    """The receipts, to read. Blocking; one thread at a time. ``key`` is the installation's key; None: there is none,
    and nothing hashed is found. Raises RefusedError where the ledger has another version's form, UnreachableError and
    the like as the database's error means."""

    def __init__(self, address: Address, key: Callable[[], bytes | None], *, wait_s: float = 15.0) -> None:
        self.address = address
        self._key = key
        self._engine = open_engine(address, writes=False, wait_s=wait_s)
        self._exists = False

    def close(self) -> None:
        self._engine.dispose()

    @property
    def exists(self) -> bool:
        """Whether it was made: no worker with this ledger has run yet otherwise."""
        file = self.address.file
        if not self._exists and (file is None or file.is_file()):
            with self._reading() as connection:
                self._exists = sa.inspect(connection).has_table(receipts.name)
                if self._exists:
                    check(connection, self.address)
        return self._exists

    def find(self, wanted: Wanted, *, limit: int) -> list[StoredReceipt]:
        """How deliveries ended, those that ended last first, at most so many."""
        return self._select(receipts, self._conditions(wanted), limit)

    def about(self, value: str, types: Collection[str]) -> list[StoredReceipt]:
        """Everything known of deliveries whose event is of one of ``types`` and has this value as its entity, key,
        subject or id, also how they had ended before; in the order it happened."""
        wanted = Wanted(value=value, types=types)
        found = [
            *self._select(receipts, self._conditions(wanted), None),
            *self._select(earlier_receipts, self._conditions(wanted, earlier_receipts), None),
        ]
        return sorted(found, key=_in_time)

    def of_events(self, event_ids: Iterable[str]) -> list[StoredReceipt]:
        """Everything known of events with these ids, also how deliveries had ended before; in the order it
        happened."""
        wanted = [storable(one) for one in event_ids]
        found = [
            *self._select(receipts, [receipts.c.event_id.in_(wanted)], None),
            *self._select(earlier_receipts, [earlier_receipts.c.event_id.in_(wanted)], None),
        ]
        # what a redrive replaced may not have known its event's id: then the place is what they share
        for subscription, origin in {(one.subscription, one.origin) for one in found if one.change_id is not None}:
            found += self._select(earlier_receipts, _at(earlier_receipts, subscription, origin), None)
        unique = {(one.receipt_partition, one.receipt_offset): one for one in found}
        return sorted(unique.values(), key=_in_time)

    def of_origin(self, origin: Origin) -> list[StoredReceipt]:
        """How deliveries of the record at one place ended, by whatever subscription; in the order it happened."""
        found: list[StoredReceipt] = []
        for subscription in self.subscriptions():
            for table in (receipts, earlier_receipts):
                found += self._select(table, _at(table, subscription, origin), None)
        return sorted(found, key=_in_time)

    def ended_last(self, subscription: str, origins: Iterable[Origin]) -> dict[Origin, list[StoredReceipt]]:
        """How deliveries of the records at these places ended, one receipt a revision, the last one last; nothing for
        places without a receipt."""
        wanted: dict[Place, list[int]] = {}
        for topic, partition, offset in origins:
            wanted.setdefault((topic, partition), []).append(offset)
        at, found = receipts.c, dict[Origin, list[StoredReceipt]]()
        for (topic, partition), offsets in wanted.items():
            for begin in range(0, len(offsets), ASKED_MAX):
                where = [at.subscription == subscription, at.origin_topic == topic, at.origin_partition == partition,
                         at.origin_offset.in_(offsets[begin : begin + ASKED_MAX])]  # fmt: skip
                for one in self._select(receipts, where, None):
                    found.setdefault(one.origin, []).append(one)
        return {origin: sorted(ones, key=_in_time) for origin, ones in found.items()}

    def of_identities(self, subscription: str, event_ids: Sequence[str]) -> list[StoredReceipt]:
        """How this subscription's deliveries of events with these ids ended, wherever they stand; the last one last."""
        found: list[StoredReceipt] = []
        for begin in range(0, len(event_ids), ASKED_MAX):
            ids = [storable(one) for one in event_ids[begin : begin + ASKED_MAX]]
            found += self._select(
                receipts, [receipts.c.event_id.in_(ids), receipts.c.subscription == subscription], None
            )
        return sorted(found, key=_in_time)

    def sent_together(self, subscription: str, some: Sequence[StoredReceipt]) -> list[list[StoredReceipt]]:
        """Deliveries that carried several events, by the receipts of some of those: for each the receipts of all that
        the ledger knows, in log order, the one that carried them last."""
        at, found = receipts.c, dict[tuple[Any, ...], list[StoredReceipt]]()
        carriers = sorted({one.merged_into or one.event_id for one in some})
        entities = sorted({one.entity for one in some})
        for begin in range(0, len(entities), ASKED_MAX):
            where = [at.entity.in_(entities[begin : begin + ASKED_MAX]), at.subscription == subscription,
                     sa.or_(at.merged_into.in_(carriers), at.event_id.in_(carriers))]  # fmt: skip
            for one in self._select(receipts, where, None):
                if one.merged_into is None and one.change_id is not None:
                    continue  # a change has sent the one that carried them again, by itself
                set_ = (one.merged_into or one.event_id, one.entity, one.action, *one.origin[:2])
                found.setdefault(set_, []).append(one)
        ordered = [sorted(ones, key=lambda one: one.origin) for ones in found.values()]
        return [ones for ones in ordered if ones[-1].merged_into is None and ones[-1].body_sha256 is not None]

    def known_from(self, subscription: str) -> dict[Place, int]:
        """From which offset on the ledger knows what became of a subscription's records; not in it: of none."""
        at = ranges.c
        query = sa.select(at.topic, at.partition, sa.func.min(at.from_offset)).where(at.subscription == subscription)
        rows: Sequence[Any] = self._read(query.group_by(at.topic, at.partition))
        return {(topic, partition): first for topic, partition, first in rows}

    def ranges(self, subscription: str, place: Place, low: int, high: int) -> Iterator[tuple[int, int, dict[str, int]]]:
        """The ranges of a partition that lie in ``[low, high)`` or reach into it, in the order of their beginnings:
        from, to, and how many records ended how. Read page by page."""
        at = ranges.c
        columns = [at.from_offset, at.to_offset, *(at[name] for name in COUNTS)]
        of = (at.subscription == subscription, at.topic == place[0], at.partition == place[1])
        after = -1
        while True:
            query = sa.select(*columns).where(*of, at.to_offset > low, at.from_offset < high, at.from_offset > after)
            rows: Sequence[Any] = self._read(query.order_by(at.from_offset).limit(RANGES_MAX))
            for start, end, *counts in rows:
                yield start, end, {name: count for name, count in zip(COUNTS, counts, strict=True) if count}
            if len(rows) < RANGES_MAX:
                return
            after = rows[-1][0]

    def erased(self, subscription: str) -> dict[tuple[str, str, str], datetime]:
        """What vendors have erased for this subscription (``backbone erase``), and when last: by the action that did,
        what it was about, and the entity, as receipts hold them (``forms``)."""
        at = receipts.c
        query = sa.select(at.action, at.about, at.entity, sa.func.max(at.last_at)).where(
            at.subscription == subscription, at.change_kind == "erase", at.outcome == "delivered"
        )
        rows: Sequence[Any] = self._read(query.group_by(at.action, at.about, at.entity))
        return {(action, about, entity): last_at for action, about, entity, last_at in rows}

    def forms(self, text: str) -> list[str]:
        """The ways in which receipts hold a text: as it is, or hashed."""
        key = self._key()
        return [storable(text)] if key is None or not text else [storable(text), hashed(text, key)]

    def outcomes(self, subscription: str, change: str, since: datetime) -> dict[str, int]:
        """How many deliveries that a change caused since then ended with which outcome."""
        at = receipts.c
        query = sa.select(at.outcome, sa.func.count()).where(
            at.subscription == subscription, at.last_at >= since, at.change_id == change
        )
        rows: Sequence[Any] = self._read(query.group_by(at.outcome))
        return dict(tuple(row) for row in rows)

    def subscriptions(self) -> list[str]:
        """The names of the subscriptions that have receipts."""
        # one look into the index for each name: SELECT DISTINCT would read all of it
        names: list[str] = []
        while True:
            next_ = sa.select(receipts.c.subscription).order_by(receipts.c.subscription).limit(1)
            found = self._read(next_.where(receipts.c.subscription > names[-1]) if names else next_)
            if not found:
                return names
            names.append(found[0][0])

    def sent_later(self, subscription: str, older: Sequence[Older]) -> list[frozenset[str]]:
        """For each, the body's fields that deliveries of the same action and entity (and what else it is about, a
        table) have sent *after* its event: what sending it again would overwrite with older values.

        After it are later offsets of its partition. Of other partitions nobody can tell by offsets; there it is what
        was sent since it was dealt with (``since``; None: they do not count). An outcome that is not known counts as
        sent.

        Ask only a ledger that has read to the end (``read_to_end``)."""
        at, found = receipts.c, dict[tuple[str, str, bool], list[Any]]()
        entities = sorted({form for one in older for form in self.forms(one.entity)})
        # what many receipts of an entity say alike is one row: so an entity may have as many as it likes
        alike = (at.action, at.entity, at.entity_hashed, at.about, at.origin_topic, at.origin_partition, at.body_fields)
        for begin in range(0, len(entities), ASKED_MAX):
            query = sa.select(*alike, sa.func.max(at.origin_offset), sa.func.max(at.last_at)).where(
                at.subscription == subscription,
                at.action.in_(sorted({one.action for one in older})),
                at.entity.in_(entities[begin : begin + ASKED_MAX]),
                at.outcome.in_(("delivered", "unknown")),
            )
            rows: Sequence[Any] = self._read(query.group_by(*alike))
            for action, entity, is_hashed, *rest in rows:
                found.setdefault((action, entity, is_hashed), []).append(rest)
        return [self._later(one, found) for one in older]

    def _later(self, older: Older, found: Mapping[tuple[str, str, bool], Sequence[Any]]) -> frozenset[str]:
        forms, about = self.forms(older.entity), self.forms(older.about)
        names: set[str] = set()
        for place, form in enumerate(forms):
            for of, topic, partition, fields, offset, last_at in found.get((older.action, form, place == 1), ()):
                if of not in about:
                    continue
                if (topic, partition) == older.origin[:2]:
                    is_later = offset > older.origin.offset
                else:
                    is_later = older.since is not None and last_at > older.since
                if is_later:
                    names.update(fields)
        return frozenset(names)

    def is_of(self, one: StoredReceipt, entity: str) -> bool:
        """Whether a receipt is about this entity, given as a person knows it. True where nobody can tell: it holds a
        hash, and there is no installation key to ask with."""
        if not one.entity_hashed:
            return one.entity == storable(entity)
        key = self._key()
        return key is None or one.entity == hashed(entity, key)

    def _conditions(self, wanted: Wanted, table: sa.Table = receipts) -> list[Any]:
        at = table.c
        found: list[Any] = []
        for column, exact in (
            (at.event_id, wanted.event_id), (at.subscription, wanted.subscription), (at.reason, wanted.reason),
            (at.change_id, wanted.change),
        ):  # fmt: skip
            if exact is not None:
                found.append(column == storable(exact))
        if wanted.entity is not None:
            found.append(sa.or_(*self._is(at.entity, at.entity_hashed, wanted.entity)))
        if wanted.value is not None:
            # flat, and with the very conditions of the partial indexes: otherwise all receipts are read
            found.append(
                sa.or_(
                    at.event_id == storable(wanted.value),
                    *self._is(at.entity, at.entity_hashed, wanted.value),
                    *self._is(at.record_key, at.record_key_hashed, wanted.value, at.record_key != at.entity),
                    *self._is(at.event_subject, at.event_subject_hashed, wanted.value, at.event_subject != at.entity),
                )
            )
        if wanted.types is not None:
            found.append(at.event_type.in_(sorted(wanted.types)))
        if wanted.outcomes:
            found.append(at.outcome.in_(wanted.outcomes))
            if not {"delivered", "skipped"} & set(wanted.outcomes):
                found.append(sa.text(NOT_PLAIN))
        if wanted.since is not None:
            found.append(at.last_at >= wanted.since)
        if wanted.until is not None:
            found.append(at.last_at < wanted.until)
        return found

    def _is(
        self, column: sa.Column[Any], is_hashed: sa.Column[Any], value: str, *beside: sa.ColumnElement[bool]
    ) -> list[sa.ColumnElement[bool]]:
        """The ways in which a column holds a value; any of them."""
        ways = [sa.and_(column == storable(value), sa.not_(is_hashed), *beside)]
        key = self._key()
        if key is not None:
            ways.append(sa.and_(column == hashed(value, key), is_hashed, *beside))
        return ways

    def _select(self, table: sa.Table, conditions: Sequence[Any], limit: int | None) -> list[StoredReceipt]:
        columns = [table.c[name] for name in RECEIPT_FIELDS]
        query = sa.select(*columns).where(*conditions).order_by(table.c.last_at.desc(), table.c.id.desc()).limit(limit)
        return [
            StoredReceipt(**dict(zip(RECEIPT_FIELDS, row, strict=True)), is_earlier=table is earlier_receipts)
            for row in self._read(query)
        ]

    def _read(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        if not self.exists:
            return []
        with self._reading() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database_error(error, self.address) from None


def _at(table: sa.Table, subscription: str, origin: Origin) -> list[Any]:
    return [
        table.c.subscription == subscription,
        table.c.origin_topic == origin.topic,
        table.c.origin_partition == origin.partition,
        table.c.origin_offset == origin.offset,
    ]


def _in_time(one: StoredReceipt) -> tuple[Any, ...]:
    return (one.last_at, one.receipt_partition, one.receipt_offset)


def open_ledger(app: App) -> Ledger:
    """The context's ledger. Does not connect yet. Raises RefusedError where none is kept, InputError for a wrong
    address."""
    from ops.ledger.subscription import ledger_address

    address = ledger_address(app)
    if address is None:
        name = app.context.name
        raise RefusedError(
            f"The context '{name}' keeps no ledger, so what became of deliveries cannot be asked. Set "
            f'contexts.{name}.ledger = "env:LEDGER_URL" (PostgreSQL or SQLite) in {app.project.file.name}, and start '
            "the workers again: it is filled from the receipts of the last 90 days."
        )
    return Ledger(address, lambda: app.context.installation_key)


@dataclass(frozen=True, slots=True)
class End:
    """What ``backbone.deliveries`` held at one moment: where each partition began and ended."""

    logs: Mapping[Place, tuple[int, int]]

    def missing(self, app: App) -> int:
        """How many of these records the ledger has not written yet. Blocks on the cluster."""
        from ops.changes.group_positions import committed

        done = committed(app, LEDGER)
        left = (
            end - max(start, done[place].offset if place in done else 0) for place, (start, end) in self.logs.items()
        )
        return sum(count for count in left if count > 0)


def end_of_receipts(app: App) -> End:
    """The receipts there are now; none where their topic is not there yet. Blocks on the cluster."""
    from ops.lag.cluster import Cluster

    cluster = Cluster(app.admin(), app.consumer)
    places = [(TOPIC, partition) for partition in range(cluster.partition_counts([TOPIC]).get(TOPIC, 0))]
    starts, ends = cluster.starts(places), cluster.ends(places, "committed")
    return End({place: (starts.get(place, 0), end) for place, end in ends.items()})


def read_to_end(app: App, *, wait_s: float = 10.0) -> None:
    """Wait until the ledger has written every receipt that was there at the moment of the question; what comes later
    does not count. Blocks, at most ``wait_s``. Raises UnreachableError saying how much is missing."""
    end = end_of_receipts(app)
    deadline = time.monotonic() + wait_s
    while count := end.missing(app):
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"The ledger has not written {counted(count, 'receipt')} yet. Does a worker run with it? "
                "See: backbone status"
            )
        time.sleep(POLL_S)  # a group tells nobody when it commits; the deadline bounds it
