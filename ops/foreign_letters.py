"""Dead letters of others: what Kafka Connect and Spring write into their dead-letter topics, told by their headers.

Shown are places, classes and names. Messages and stack traces of exceptions are not: they repeat what was in the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ops.deadletters import NOT_SHOWN
from schemas.event import Record

if TYPE_CHECKING:
    from ops.app import App

CONNECT: Final = "__connect.errors."
SPRING: Final = "kafka_dlt-"
Writer: TypeAlias = Literal["connect", "spring"]
_NAME = re.compile(r"[\w.$-]{1,300}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLetter:
    """A record that another framework has set aside. ``origin`` is ``topic/partition/offset`` as far as it says so,
    ``by`` the connector or the consumer group, ``stage`` where in the connector it failed; "" where nothing is said."""

    writer: Writer
    origin: str
    exception: str
    cause: str = ""
    by: str = ""
    stage: str = ""


def parse_foreign(record: Record) -> ForeignLetter | None:
    """The letter in a record by its headers; None where it has none of theirs. Never raises."""
    headers = {name: value or b"" for name, value in record.headers}
    if any(name.startswith(CONNECT) for name in headers):
        ours = _after(headers, CONNECT)
        return ForeignLetter(
            writer="connect",
            origin=_origin(ours.get("topic"), _number(ours.get("partition")), _number(ours.get("offset"))),
            exception=_named(ours.get("exception.class.name")),
            by=_named(ours.get("connector.name")),
            stage=_named(ours.get("stage")),
        )
    if any(name.startswith(SPRING) for name in headers):
        ours = _after(headers, SPRING)
        partition, offset = _number(ours.get("original-partition")), _number(ours.get("original-offset"))
        exception = ours.get("exception-fqcn") or ours.get("key-exception-fqcn")
        return ForeignLetter(
            writer="spring",
            origin=_origin(ours.get("original-topic"), partition, offset),
            exception=_named(exception),
            cause=_named(ours.get("exception-cause-fqcn")),
            by=_named(ours.get("original-consumer-group")),
        )
    return None


def foreign_letters(app: App, topic: str) -> Iterator[tuple[Record, ForeignLetter | None]]:
    """The records of a topic that is there, oldest first within a partition, with what their headers tell. Blocks;
    raises UnreachableError."""
    from ops.reading import as_record, read_to_end

    for message in read_to_end(app, topic):
        record = as_record(message)
        yield record, parse_foreign(record)


def _after(headers: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


def _named(value: bytes | None) -> str:
    """A class, a group, a stage; what is no name may be anything and is not shown."""
    if not value:
        return ""
    text = value.decode("utf-8", "replace")
    return text if _NAME.fullmatch(text) else NOT_SHOWN


def _number(value: bytes | None) -> int | None:
    """Connect writes numbers as text, Spring as 4 or 8 bytes."""
    if not value:
        return None
    text = value.decode("ascii", "replace")
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return int(text)
    if len(value) in (4, 8):
        number = int.from_bytes(value, "big", signed=True)
        return number if number >= 0 else None
    return None


def _origin(topic: bytes | None, partition: int | None, offset: int | None) -> str:
    parts = [_named(topic) or "?", *("?" if part is None else str(part) for part in (partition, offset))]
    return "/".join(parts) if parts != ["?"] * 3 else ""
