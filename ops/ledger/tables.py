"""The ledger's tables. What a column means stands in ``DeliverySettled.avsc`` and ``RangeSettled.avsc``.

``receipts`` holds how each delivery ended *last*: unique by the event's identity, subscription, action and revision,
``DELIVERY``. ``earlier_receipts`` holds how it had ended before, where that was
something else: the dead letter before its redrive. ``ranges`` proves that nothing is missing. How far the receipts
were read is not here: it is the committed position of the group ``ledger``, which is behind everything written.

These tables are what the migrations come to; a test compares both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment to the millisecond: ``timestamptz`` in PostgreSQL, milliseconds since the epoch in SQLite."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.BigInteger() if dialect.name == "sqlite" else sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        return (value - _EPOCH) // _MS if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = _EPOCH + value * _MS if dialect.name == "sqlite" else value.astimezone(UTC)
        return moment


metadata = sa.MetaData()
_Names = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
# SQLite numbers rows by itself only in a column of exactly this type
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _receipt_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("event_source", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("event_time", Instant, nullable=False),
        sa.Column("event_subject", sa.Text),
        sa.Column("event_subject_hashed", sa.Boolean, nullable=False),
        sa.Column("record_key", sa.Text),
        sa.Column("record_key_hashed", sa.Boolean, nullable=False),
        sa.Column("origin_topic", sa.Text, nullable=False),
        sa.Column("origin_partition", sa.Integer, nullable=False),
        sa.Column("origin_offset", sa.BigInteger, nullable=False),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("subscription_version", sa.Text, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("entity_hashed", sa.Boolean, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("merged_into", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("reference_hashed", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_at", Instant, nullable=False),
        sa.Column("last_at", Instant, nullable=False),
        sa.Column("change_id", sa.Text),
        sa.Column("change_kind", sa.Text),
        sa.Column("redrives", sa.Integer, nullable=False),
        sa.Column("trace_id", sa.Text),
        sa.Column("fields_sent", _Names, nullable=False),
        sa.Column("personal_data_sent", _Names, nullable=False),
        sa.Column("body_fields", _Names, nullable=False),
        sa.Column("body_sha256", sa.Text),
        # where the receipt itself stands in backbone.deliveries
        sa.Column("receipt_partition", sa.Integer, nullable=False),
        sa.Column("receipt_offset", sa.BigInteger, nullable=False),
    ]


DELIVERY = ("event_id", "subscription", "action", "revision", "event_type", "event_source")
"""What is unique to a delivery. The event's id stands first: ids that grow (UUIDv7) are written side by side."""

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    *_receipt_columns(),
    sa.Index("receipts_delivery", *DELIVERY, unique=True),
    sa.Index("receipts_entity", "entity", "subscription"),
    sa.Index("receipts_origin", "subscription", "origin_topic", "origin_partition", "origin_offset"),
    sa.Index("receipts_last_at", "last_at"),
    sa.Index("receipts_subscription", "subscription", "last_at"),
)
_other_key = receipts.c.record_key != receipts.c.entity
_other_subject = receipts.c.event_subject != receipts.c.entity
# key and subject are mostly what the entity is too, and are found by it then
sa.Index("receipts_record_key", receipts.c.record_key, sqlite_where=_other_key, postgresql_where=_other_key)
NOT_PLAIN = "outcome NOT IN ('delivered', 'skipped')"
"""Few receipts are so, and they are what is looked for; a question must say it in these words to use the index."""
sa.Index(
    "receipts_outcome",
    receipts.c.outcome,
    receipts.c.last_at,
    sqlite_where=sa.text(NOT_PLAIN),
    postgresql_where=sa.text(NOT_PLAIN),
)
sa.Index("receipts_subject", receipts.c.event_subject, sqlite_where=_other_subject, postgresql_where=_other_subject)

earlier_receipts = sa.Table(
    "earlier_receipts",
    metadata,
    sa.Column("id", _Number, primary_key=True),
    *_receipt_columns(),
    sa.Index("earlier_receipts_place", "receipt_partition", "receipt_offset", unique=True),
    sa.Index("earlier_receipts_event", "event_id"),
    sa.Index("earlier_receipts_origin", "subscription", "origin_topic", "origin_partition", "origin_offset"),
)

COUNTS = (
    "delivered", "merged", "expired", "erased", "superseded", "discarded", "dead", "parked", "not_ours", "earlier",
)  # fmt: skip
"""What a range counts: every record in it is in one of these."""

ranges = sa.Table(
    "ranges",
    metadata,
    sa.Column("subscription", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("from_offset", sa.BigInteger, primary_key=True),
    sa.Column("to_offset", sa.BigInteger, nullable=False),
    sa.Column("subscription_version", sa.Text, nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    sa.Column("at", Instant, nullable=False),
)

about_ledger = sa.Table(
    "about_ledger",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""``cluster``: the id of the Kafka cluster whose receipts these are."""

RECEIPT_FIELDS = tuple(column.name for column in receipts.columns if column.name != "id")
RANGE_FIELDS = tuple(column.name for column in ranges.columns)
