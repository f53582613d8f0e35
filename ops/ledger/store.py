"""Writing receipts and ranges into the ledger: a batch is one transaction, and writing it twice is writing it once.

A later receipt of the same delivery (same event, subscription, action, revision) replaces the one before; where that
had ended otherwise, or for another change, it is kept in ``earlier_receipts``: so a dead letter, its redrive that
failed and the one that was delivered can all be told. Later is what stands later in ``backbone.deliveries``, so
reading the topic again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ops.ledger.tables import COUNTS, DELIVERY, RANGE_FIELDS, RECEIPT_FIELDS, earlier_receipts, ranges, receipts
from schemas.event import Origin

Row: TypeAlias = dict[str, Any]
Delivery: TypeAlias = tuple[str, ...]
"""The values of ``DELIVERY``."""
Place: TypeAlias = tuple[int, int]
"""Partition and offset in ``backbone.deliveries``."""

_SAME = ("change_id", "outcome", "reason")
"""A receipt that is replaced by one with the same of these was only said twice."""
_PLACE = ("subscription", "origin_topic", "origin_partition", "origin_offset", "revision")
_LOOKED_UP_MAX = 500
TEXT_MAX = 512


def receipt_row(fields: Mapping[str, Any], place: Origin) -> Row:
    """The row of a receipt (the fields of ``backbone.DeliverySettled``) that stands at ``place``. Pure."""
    row = {name: _storable(fields.get(name)) for name in RECEIPT_FIELDS}
    row["receipt_partition"], row["receipt_offset"] = place.partition, place.offset
    return row


def range_row(fields: Mapping[str, Any]) -> Row:
    """The row of a range (the fields of ``backbone.RangeSettled``). Pure."""
    row = {name: fields.get(name) for name in RANGE_FIELDS}
    return row | {name: row[name] or 0 for name in COUNTS}


def delivery_key(fields: Mapping[str, Any]) -> str:
    """What tells a receipt's delivery from others in one short text: its idempotency key. An event that did not come
    as far as a delivery has none; then it is made of what ``DELIVERY`` says. Pure."""
    key: str = fields["idempotency_key"]
    if key:
        return key
    return hashlib.sha256("\0".join(fields[name] for name in DELIVERY).encode("utf-8", "surrogatepass")).hexdigest()


def storable(text: str) -> str:
    """A text as it stands in the ledger, and so as it is looked up: PostgreSQL takes no NUL, and its indexes no long
    texts; a long one is cut and told from others by its hash."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if len(text) > TEXT_MAX:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        text = f"{text[: TEXT_MAX - 65]}…{digest}"
    return text


def _storable(value: Any) -> Any:
    return storable(value) if type(value) is str else value


@dataclass(slots=True)
class Writes:
    """What has to be written for a batch: receipts to put, to take out, and to keep as earlier ones."""

    put: dict[Delivery, Row] = field(default_factory=dict)
    out: set[Delivery] = field(default_factory=set)
    kept: list[Row] = field(default_factory=list)


def writes_for(rows: Iterable[Row], there: Mapping[Delivery, Row], kept: Iterable[Place]) -> Writes:
    """What rows, in their order, make of the receipts that are ``there``. ``kept``: where receipts stood that were
    replaced before. Pure; the same rows in any number of batches, and again, come to the same."""
    writes = Writes()
    current, replaced = dict(there), set(kept)
    # an event that could not be decoded or projected: neither its action nor perhaps itself is known
    blank: dict[tuple[Any, ...], set[Delivery]] = {}
    for key, one in current.items():
        if not one["action"]:
            blank.setdefault(_place(one), set()).add(key)
    for row in rows:
        key = delivery_of(row)
        if row["action"] and row["change_id"] is not None:
            # it is redriven now: the place is what they share
            for other in sorted(blank.get(_place(row), ())):
                if _is_later(row, current[other]):
                    writes.kept.append(current[other])
                    replaced.add(_stands_at(current.pop(other)))
                    writes.out.add(other)
                    blank[_place(row)].remove(other)
        held = current.get(key)
        if held is None:
            if not row["action"] and _stands_at(row) in replaced:
                continue  # read a second time
        elif not _is_later(row, held):
            continue
        elif any(held[name] != row[name] for name in _SAME):
            writes.kept.append(held)
        current[key] = writes.put[key] = row
        writes.out.discard(key)
        if not row["action"]:
            blank.setdefault(_place(row), set()).add(key)
    for key in writes.out:
        writes.put.pop(key, None)
    return writes


class Store:
    """Blocking; one thread at a time. Every method is one transaction, raises what SQLAlchemy raises, and then nothing
    of it was written."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        insert: Any = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        self._put_receipt = _upsert(insert(receipts), RECEIPT_FIELDS, *(receipts.c[name] for name in DELIVERY))
        self._put_range = _upsert(insert(ranges), RANGE_FIELDS, *ranges.primary_key.columns)
        self._keep = insert(earlier_receipts).on_conflict_do_nothing(
            index_elements=[earlier_receipts.c.receipt_partition, earlier_receipts.c.receipt_offset]
        )

    def put_receipts(self, rows: Sequence[Row]) -> None:
        """Write the rows of ``receipt_row``."""
        with self._engine.begin() as connection:
            writes = writes_for(rows, _there(connection, rows), _kept(connection, rows))
            if writes.kept:
                connection.execute(self._keep, writes.kept)
            for key in writes.out:
                is_it = (receipts.c[name] == part for name, part in zip(DELIVERY, key, strict=True))
                connection.execute(receipts.delete().where(*is_it))
            if writes.put:
                connection.execute(self._put_receipt, list(writes.put.values()))

    def put_ranges(self, rows: Sequence[Row]) -> None:
        """Write the rows of ``range_row``; one that begins at the same offset replaces the one before, which was not
        committed."""
        latest = {tuple(row[column.name] for column in ranges.primary_key.columns): row for row in rows}
        with self._engine.begin() as connection:
            connection.execute(self._put_range, list(latest.values()))

    def close(self) -> None:
        self._engine.dispose()


def _there(connection: sa.Connection, rows: Sequence[Row]) -> dict[Delivery, Row]:
    """The receipts that these may replace: of the same events, and for redrives those of the same places."""
    found: dict[Delivery, Row] = {}
    columns = [receipts.c[name] for name in RECEIPT_FIELDS]

    def look(*where: sa.ColumnElement[bool]) -> None:
        for one in connection.execute(sa.select(*columns).where(*where)).mappings():
            held = dict(one)
            found[delivery_of(held)] = held

    events = sorted({row["event_id"] for row in rows})
    for begin in range(0, len(events), _LOOKED_UP_MAX):
        look(receipts.c.event_id.in_(events[begin : begin + _LOOKED_UP_MAX]))
    for row in rows:
        if row["change_id"] is not None and row["action"]:
            look(receipts.c.action == "", *(receipts.c[name] == row[name] for name in _PLACE))
    return found


def _kept(connection: sa.Connection, rows: Iterable[Row]) -> set[Place]:
    """Which of these were replaced before, so that they are read a second time; only those without an action are asked
    for: the others have a later one in their place."""
    found = set()
    for row in rows:
        if not row["action"]:
            stands = (earlier_receipts.c[name] == row[name] for name in ("receipt_partition", "receipt_offset"))
            if connection.scalar(sa.select(sa.literal(1)).where(*stands)) is not None:
                found.add(_stands_at(row))
    return found


def delivery_of(row: Row) -> Delivery:
    return tuple([row[name] for name in DELIVERY])


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _PLACE)


def _stands_at(row: Row) -> Place:
    return row["receipt_partition"], row["receipt_offset"]


def _is_later(row: Row, held: Row) -> bool:
    """Whether a receipt stands behind the one that is there. They share a key and so a partition, unless the topic was
    given more of them since, or an event's id was not known at first: then the time decides."""
    if row["receipt_partition"] == held["receipt_partition"]:
        return bool(row["receipt_offset"] > held["receipt_offset"])
    return bool(row["last_at"] >= held["last_at"])


def _upsert(insert: Any, names: Iterable[str], *unique: sa.Column[Any]) -> Any:
    keys = {column.name for column in unique}
    return insert.on_conflict_do_update(
        index_elements=list(unique), set_={name: insert.excluded[name] for name in names if name not in keys}
    )
