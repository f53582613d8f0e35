"""What travels: a record (bytes at a topic, partition, offset) and an event (a typed fact with its envelope)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where a record stands in the log; printed as ``topic/partition/offset``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(slots=True)
class Record:
    """Bytes as they stand in Kafka. ``timestamp`` is milliseconds since the epoch; ``timestamp_type`` is
    ``create`` or ``append`` (the broker's), or ``none``. Treat it as read-only (not frozen: it is made per record)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    timestamp_type: str = "append"

    @property
    def origin(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset)

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)


@dataclass(slots=True, kw_only=True)
class Event:
    """A fact with its CloudEvents envelope. Its identity is (source, type, id). ``data`` is the decoded payload as
    plain Python values (dict, list, str, int, float, bool, None, bytes, datetime, date, Decimal, UUID).
    Treat it as read-only (not frozen: it is made per record)."""

    id: str
    type: str
    source: str
    time: datetime
    subject: str | None
    key: str | None
    data: Mapping[str, Any]
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None

    @property
    def name(self) -> str:
        """The type without its domain: ``InvoiceCreated`` of ``billing.InvoiceCreated``."""
        return self.type.rpartition(".")[2]
