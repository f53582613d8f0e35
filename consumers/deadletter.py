"""Dead letters: records set aside with their reason, in the compacted topic ``<subscription>.dead``.

A letter's key is its origin ``topic/partition/offset``, so the live keys of the topic are exactly the open letters: one
that fails again replaces itself, and closing one writes its tombstone. The bytes of the event stay as they were.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from consumers.settlement import DeadOutcome
from schemas.event import Origin, Record

DETAIL_BYTES_MAX = 1_000
_PREFIX = "dead-"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One open dead letter. ``key``, ``value`` and ``headers`` are the original record's; ``value`` is None for a
    null value and for one that was too large for the topic (``omitted`` is then its size in bytes)."""

    origin: Origin
    outcome: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    timestamp_type: str
    attempts: int
    first_at: str
    last_at: str
    redrives: int
    version: str
    omitted: int | None = None

    @property
    def fingerprint(self) -> str:
        """8 hex digits that letters of one cause share: outcome, reason and the detail without its numbers."""
        normal = re.sub(r"\d+", "#", self.detail)
        return hashlib.sha256(f"{self.outcome}\n{self.reason}\n{normal}".encode()).hexdigest()[:8]

    @property
    def record(self) -> Record:
        """The record as it stood at its origin."""
        return Record(
            *self.origin, self.key, self.value, self.headers, self.timestamp, self.timestamp_type
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LetterRecord:
    """A letter as it is produced: to the origin's partition number of the dead topic."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int


def letter_of(
    record: Record,
    *,
    outcome: DeadOutcome,
    reason: str,
    detail: str,
    attempts: int,
    seconds_tried: float,
    version: str,
    now: datetime,
    redrives: int = 0,
) -> DeadLetter:
    """The letter for a record that is set aside at ``now`` after ``seconds_tried`` of trying, having been redriven so
    many times before."""
    return DeadLetter(
        origin=record.origin,
        outcome=outcome,
        reason=reason,
        detail=detail.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore"),
        key=record.key,
        value=record.value,
        headers=record.headers,
        timestamp=record.timestamp,
        timestamp_type=record.timestamp_type,
        attempts=attempts,
        first_at=_time(datetime.fromtimestamp(now.timestamp() - seconds_tried, UTC)),
        last_at=_time(now),
        redrives=redrives,
        version=version,
    )


def letter_record(letter: DeadLetter, *, omit_value: bool = False) -> LetterRecord:
    """What is written. ``omit_value``: the topic refused it as too large; a pointer is left in its place."""
    headers: list[tuple[str, bytes | None]] = list(letter.headers)

    def add(name: str, text: str) -> None:
        headers.append((_PREFIX + name, text.encode()))

    if letter.key is not None:
        headers.append((_PREFIX + "key", letter.key))
    add("outcome", letter.outcome)
    add("reason", letter.reason)
    add("detail", letter.detail)
    add("timestamp", f"{letter.timestamp} {letter.timestamp_type}")
    add("attempts", str(letter.attempts))
    add("first-at", letter.first_at)
    add("last-at", letter.last_at)
    add("redrives", str(letter.redrives))
    add("fingerprint", letter.fingerprint)
    add("version", letter.version)
    value: bytes | None = letter.value
    if value is None:
        add("value", "null")
        value = b""  # a null value would be the tombstone that closes the letter
    elif omit_value:
        add("value", f"omitted {len(value)}")
        value = b""
    return LetterRecord(str(letter.origin).encode(), value, headers, letter.origin.partition)


def parse_letter(record: Record) -> DeadLetter | None:
    """The letter in a record of a dead topic; None for a tombstone (a closed one) and for what is no letter."""
    if record.value is None or record.key is None:
        return None
    ours: dict[str, bytes | None] = {}
    theirs: list[tuple[str, bytes | None]] = []
    for name, content in record.headers:
        if name.startswith(_PREFIX):
            ours[name.removeprefix(_PREFIX)] = content
        else:
            theirs.append((name, content))

    def text(name: str) -> str:
        return (ours.get(name) or b"").decode(errors="replace")

    try:
        topic, partition, offset = record.key.decode().rsplit("/", 2)
        origin = Origin(topic, int(partition), int(offset))
        timestamp, _, timestamp_type = text("timestamp").partition(" ")
        special = text("value")
        return DeadLetter(
            origin=origin,
            outcome=text("outcome"),
            reason=text("reason"),
            detail=text("detail"),
            key=ours.get("key"),
            value=None if special else record.value,
            headers=tuple(theirs),
            timestamp=int(timestamp),
            timestamp_type=timestamp_type,
            attempts=int(text("attempts")),
            first_at=text("first-at"),
            last_at=text("last-at"),
            redrives=int(text("redrives")),
            version=text("version"),
            omitted=int(special.removeprefix("omitted ")) if special.startswith("omitted ") else None,
        )
    except (ValueError, UnicodeDecodeError):
        return None


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
