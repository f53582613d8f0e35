"""Indexes for what people look up: an entity, a key, a subject, an outcome, a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("receipts_entity", "receipts", ["entity", "subscription"])
    for name, column in (("receipts_record_key", "record_key"), ("receipts_subject", "event_subject")):
        other = sa.text(f"{column} != entity")
        op.create_index(name, "receipts", [column], sqlite_where=other, postgresql_where=other)
    op.create_index("receipts_last_at", "receipts", ["last_at"])
    op.create_index("receipts_subscription", "receipts", ["subscription", "last_at"])
    not_plain = sa.text("outcome NOT IN ('delivered', 'skipped')")
    op.create_index(
        "receipts_outcome", "receipts", ["outcome", "last_at"], sqlite_where=not_plain, postgresql_where=not_plain
    )
