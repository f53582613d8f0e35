"""The inbox ``<subscription>.inbox``: records that a change sends to one subscription alone, to be read again.

An inbox record is the record of its origin, byte for byte, with headers that say where it stood and why it comes
again; ids, times and idempotency keys are derived from the origin, so a redriven event is the same delivery.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

from schemas.event import Origin, Record

_PREFIX = "inbox-"

InboxKind: TypeAlias = Literal["redrive", "replay", "repair", "discarded", "erased", "erase"]
"""``redrive``: a dead letter again; ``replay``: what was read before, again; ``repair``: what reconciling found
missing or different; ``discarded``: nothing is sent, the dead letter of the origin was closed by a person; ``erased``:
the same, because the person it is about was erased; ``erase``: the vendor is asked to erase what it got
(``consumers.erasure``) in the lane of the event at the origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxOrder:
    """Why a record comes again. ``timestamp`` (ms) and its type are the origin's; ``revision`` is empty unless the
    change means to send something different; ``omit`` are body fields that newer deliveries have sent since;
    ``redrives`` counts how often the letter was redriven before; ``allow_stale``: it is sent however old it is.
    ``as_of``: what it says still held when the event there, the newest about its entity, was published; it is delivered
    as of that one, so that a vendor's guard against late older writes lets a repair pass.

    Of an erasure: ``number`` tells it from the others of its change, ``sealed`` is what is asked, and ``letter`` is the
    id of its dead letter, if it became one before."""

    kind: InboxKind
    change: str
    origin: Origin
    timestamp: int
    timestamp_type: str
    revision: str = ""
    omit: tuple[str, ...] = ()
    redrives: int = 0
    allow_stale: bool = False
    number: int = 0
    sealed: str = ""
    letter: Origin | None = None
    as_of: Origin | None = None


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """An inbox record as it is produced."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int


def inbox_record(order: InboxOrder, record: Record, *, partitions: int, grown: bool = False) -> InboxRecord:
    """What is written for ``record`` (as it stood at its origin) into an inbox of so many partitions: to the origin's
    partition number, or where its key's events go now if the number of the source's partitions has ``grown`` since."""
    headers: list[tuple[str, bytes | None]] = list(record.headers)

    def add(name: str, text: str) -> None:
        headers.append((_PREFIX + name, text.encode()))

    add("kind", order.kind)
    add("change", order.change)
    add("origin", str(order.origin))
    add("timestamp", f"{order.timestamp} {order.timestamp_type}")
    add("redrives", str(order.redrives))
    if order.revision:
        add("revision", order.revision)
    if order.omit:
        add("omit", ",".join(order.omit))
    if order.allow_stale:
        add("stale", "allowed")
    if order.kind == "erase":
        add("number", str(order.number))
        add("sealed", order.sealed)
    if order.letter is not None:
        add("letter", str(order.letter))
    if order.as_of is not None:
        add("as-of", str(order.as_of))
    partition = order.origin.partition
    if grown and record.key is not None:
        partition = murmur2(record.key) % partitions
    return InboxRecord(record.key, record.value, headers, partition)


def parse_inbox(record: Record) -> tuple[InboxOrder, Record] | None:
    """The order in a record of an inbox, and the record as it stood at its origin; None for what is none of ours."""
    ours: dict[str, str] = {}
    theirs: list[tuple[str, bytes | None]] = []
    try:
        for name, content in record.headers:
            if name.startswith(_PREFIX):
                ours[name.removeprefix(_PREFIX)] = (content or b"").decode()
            else:
                theirs.append((name, content))
        if ours["kind"] not in get_args(InboxKind):
            return None
        timestamp, _, timestamp_type = ours["timestamp"].partition(" ")
        order = InboxOrder(
            kind=cast("InboxKind", ours["kind"]),
            change=ours["change"],
            origin=_origin(ours["origin"]),
            timestamp=int(timestamp),
            timestamp_type=timestamp_type,
            revision=ours.get("revision", ""),
            omit=tuple(ours["omit"].split(",")) if ours.get("omit") else (),
            redrives=int(ours.get("redrives", "0")),
            allow_stale=ours.get("stale") == "allowed",
            number=int(ours.get("number", "0")),
            sealed=ours.get("sealed", ""),
            letter=_origin(ours["letter"]) if "letter" in ours else None,
            as_of=_origin(ours["as-of"]) if "as-of" in ours else None,
        )
    except (KeyError, ValueError):
        return None
    at_origin = replace(
        record,
        topic=order.origin.topic, partition=order.origin.partition, offset=order.origin.offset, headers=tuple(theirs),
        timestamp=order.timestamp, timestamp_type=order.timestamp_type,
    )  # fmt: skip
    return order, at_origin


def _origin(text: str) -> Origin:
    topic, partition, offset = text.rsplit("/", 2)
    return Origin(topic, int(partition), int(offset))


def murmur2(key: bytes) -> int:
    """The hash by which Java's producer (and librdkafka's ``murmur2_random``) chooses a key's partition: positive, to
    be taken modulo the number of partitions (Apache Kafka, ``Utils.murmur2`` and ``toPositive``)."""
    length = len(key)
    mask = 0xFFFFFFFF
    h = (0x9747B28C ^ length) & mask
    for at in range(0, length - length % 4, 4):
        k = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ k >> 24) * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ k
    rest = key[length - length % 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return (h ^ h >> 15) & 0x7FFFFFFF
