"""The envelope of a record: CloudEvents 1.0 in Kafka headers (binary mode), and Confluent's framing of the value.

Writing is strict, reading is lenient: an envelope from elsewhere may be broken, and the event is read all the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from schemas.errors import InputError

CONTENT_TYPE = b"application/avro"
SCHEMA_ID_HEADER = "__value_schema_id"
HEADER_MAX = 1024
"""Bytes of an envelope header that are taken as said; a longer one counts as absent."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EncodeError(InputError):
    """The data or its envelope does not fit; ``str`` names every field at fault and never a value."""


def header(name: str, value: str) -> bytes:
    """A text as a header's bytes. Raises EncodeError naming ``name`` for what nobody could read back."""
    try:
        encoded = value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise EncodeError(f"the event's {name} must be text that can be written as UTF-8.") from None
    if not 0 < len(encoded) <= HEADER_MAX:
        raise EncodeError(f"the event's {name} must be 1 to {HEADER_MAX} bytes long.")
    return encoded


def time_header(time: datetime) -> bytes:
    """A time as RFC 3339 in UTC. Raises EncodeError for one without a zone."""
    if time.tzinfo is None:
        raise EncodeError("the event's time must carry its zone.")
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return (time.isoformat()[:-6] + "Z").encode()


def framing(value: bytes, header: bytes | None) -> tuple[int | str | None, int]:
    """The schema's id or GUID and where the body begins. The header form has no prefix before the body."""
    framed = value if header is None else header
    size = len(framed)
    if size >= 5 and framed[0] == 0 and (header is None or size == 5):
        return int.from_bytes(framed[1:5], "big"), 5 if header is None else 0
    if size >= 17 and framed[0] == 1 and (header is None or size == 17):
        return str(UUID(bytes=bytes(framed[1:17]))), 17 if header is None else 0
    return None, 0


def header_text(value: bytes | None) -> str | None:
    """A header's text; None for an absent, empty, overlong or broken one."""
    if not value or len(value) > HEADER_MAX:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def header_time(value: bytes | None) -> datetime | None:
    """A header's time in UTC; None for an absent or broken one, or one without a zone."""
    if not value or len(value) > 64:
        return None
    try:
        time = datetime.fromisoformat(value.decode().upper())  # RFC 3339 allows t and z
        if time.tzinfo is UTC:
            return time
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def arrival(milliseconds: int) -> datetime:
    """A record's timestamp as a time; the epoch for one that is impossible."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return _EPOCH
