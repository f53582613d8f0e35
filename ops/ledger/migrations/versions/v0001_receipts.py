"""Receipts, what they had been before, and settled ranges."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.TIMESTAMP(timezone=True).with_variant(sa.BigInteger(), "sqlite")
NAMES = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def receipt_columns() -> list[sa.Column[Any]]:
    def required(name: str, type_: Any) -> sa.Column[Any]:
        return sa.Column(name, type_, nullable=False)

    return [
        sa.Column("id", NUMBER, primary_key=True),
        required("idempotency_key", sa.Text()),
        required("event_source", sa.Text()),
        required("event_type", sa.Text()),
        required("event_id", sa.Text()),
        required("event_time", INSTANT),
        sa.Column("event_subject", sa.Text()),
        required("event_subject_hashed", sa.Boolean()),
        sa.Column("record_key", sa.Text()),
        required("record_key_hashed", sa.Boolean()),
        required("origin_topic", sa.Text()),
        required("origin_partition", sa.Integer()),
        required("origin_offset", sa.BigInteger()),
        required("subscription", sa.Text()),
        required("subscription_version", sa.Text()),
        required("connection", sa.Text()),
        required("action", sa.Text()),
        required("entity", sa.Text()),
        required("entity_hashed", sa.Boolean()),
        required("about", sa.Text()),
        required("revision", sa.Text()),
        required("outcome", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("merged_into", sa.Text()),
        sa.Column("reference", sa.Text()),
        required("reference_hashed", sa.Boolean()),
        required("attempts", sa.Integer()),
        required("first_at", INSTANT),
        required("last_at", INSTANT),
        sa.Column("change_id", sa.Text()),
        sa.Column("change_kind", sa.Text()),
        required("redrives", sa.Integer()),
        sa.Column("trace_id", sa.Text()),
        required("fields_sent", NAMES),
        required("personal_data_sent", NAMES),
        required("body_fields", NAMES),
        sa.Column("body_sha256", sa.Text()),
        required("receipt_partition", sa.Integer()),
        required("receipt_offset", sa.BigInteger()),
    ]


def upgrade() -> None:
    op.create_table("receipts", *receipt_columns())
    op.create_index(
        "receipts_delivery",
        "receipts",
        ["event_id", "subscription", "action", "revision", "event_type", "event_source"],
        unique=True,
    )
    op.create_index(
        "receipts_origin", "receipts", ["subscription", "origin_topic", "origin_partition", "origin_offset"]
    )
    op.create_table("earlier_receipts", *receipt_columns())
    op.create_index("earlier_receipts_place", "earlier_receipts", ["receipt_partition", "receipt_offset"], unique=True)
    op.create_index("earlier_receipts_event", "earlier_receipts", ["event_id"])
    op.create_index(
        "earlier_receipts_origin",
        "earlier_receipts",
        ["subscription", "origin_topic", "origin_partition", "origin_offset"],
    )
    op.create_table(
        "ranges",
        sa.Column("subscription", sa.Text(), primary_key=True),
        sa.Column("topic", sa.Text(), primary_key=True),
        sa.Column("partition", sa.Integer(), primary_key=True),
        sa.Column("from_offset", sa.BigInteger(), primary_key=True),
        sa.Column("to_offset", sa.BigInteger(), nullable=False),
        sa.Column("subscription_version", sa.Text(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("merged", sa.BigInteger(), nullable=False),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.Column("erased", sa.BigInteger(), nullable=False),
        sa.Column("superseded", sa.BigInteger(), nullable=False),
        sa.Column("discarded", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("parked", sa.BigInteger(), nullable=False),
        sa.Column("not_ours", sa.BigInteger(), nullable=False),
        sa.Column("earlier", sa.BigInteger(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
    )
    op.create_table(
        "about_ledger",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
