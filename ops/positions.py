"""Positions as people write them, and the absolute offsets they stand for.

A plain number is an offset; a time has ``@``: ``@2026-05-01T14:00Z``, ``@2026-05-01`` (midnight), ``@14:00`` (the last
one, local zone, printed back as UTC), ``@-2h``. Positions: ``earliest latest 1234 +10 -1000 @time``.
Topics: ``TOPIC``, ``TOPIC:0,3-5``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Literal, TypeAlias

from schemas.contract import is_topic
from schemas.errors import InputError

if TYPE_CHECKING:
    from ops.lag.cluster import Cluster, Isolation

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"^-(\d{1,9})([smhdw])$", re.ASCII)
_CLOCK = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?$", re.ASCII)
_OFFSET_MAX = 2**63 - 1
_PARTITION_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Position:
    """Where to read from. ``offset`` for ``offset`` and ``relative`` (to the committed one), ``time`` (UTC) for
    ``time``; ``written`` is what the person wrote."""

    kind: Literal["earliest", "latest", "offset", "relative", "time"]
    written: str
    offset: int = 0
    time: datetime | None = None

    def __str__(self) -> str:
        if self.time is None:
            return self.written
        return f"{self.written} ({utc(self.time)})"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A position in one partition: ``offset`` to read next; ``first`` when the record there arrived, where it was
    asked by time; ``note`` what a person should know (``no record since …``)."""

    offset: int
    first: datetime | None = None
    note: str = ""


def parse_position(text: str, now: datetime, *, zone: tzinfo | None = None) -> Position:
    """Raises InputError with one sentence for anything else. ``now`` must be aware; ``zone`` None: the local one."""
    if text in ("earliest", "latest"):
        return Position("earliest" if text == "earliest" else "latest", text)
    if text.startswith("@"):
        return Position("time", text, time=parse_time(text, now, zone=zone))
    if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
        number = int(text)
        if abs(number) <= _OFFSET_MAX:
            return Position("relative" if text[0] in "+-" else "offset", text, offset=number)
    hint = ""
    if _CLOCK.match(text) or _AGO.match(text) or re.match(r"^\d{4}-", text):
        hint = f" A time begins with @: @{text}."
    raise InputError(f"'{_short(text)}' is not a position.{hint} Positions: earliest latest 1234 +10 -1000 @time.")


def parse_time(text: str, now: datetime, *, zone: tzinfo | None = None) -> datetime:
    """A time with its ``@``, as UTC. Raises InputError for anything else and for a time outside years 1970-9999."""
    written = text.removeprefix("@")
    try:
        if ago := _AGO.match(written):
            return now.astimezone(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        if clock := _CLOCK.match(written):
            local = now.astimezone(zone)
            today = local.replace(
                hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0), microsecond=0, fold=0
            )
            # the last time it was so: "@23:00" after midnight means yesterday
            return _placed(today if today <= local else today - timedelta(days=1), zone)
        if re.match(r"^\d{4}-\d{2}-\d{2}", written, re.ASCII):
            found = datetime.fromisoformat(written)
            return found.astimezone(UTC) if found.tzinfo is not None else _placed(found, zone)
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f"'{_short(text)}' is not a time. Times: @2026-05-01T14:00Z @2026-05-01 @14:00 (the last one) @-2h (s m h d w)."
    )


def parse_topic(text: str) -> tuple[str, tuple[int, ...] | None]:
    """``TOPIC`` (all partitions: None) or ``TOPIC:0,3-5``. Raises InputError."""
    topic, colon, chosen = text.partition(":")
    if not is_topic(topic):
        raise InputError(f"'{_short(text)}' is not a topic. Topics: TOPIC or TOPIC:0,3-5.")
    if not colon:
        return topic, None
    partitions: set[int] = set()
    for part in chosen.split(","):
        found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII)
        if found is None:
            raise InputError(f"'{_short(text)}': '{_short(part)}' is not a partition. Topics: TOPIC or TOPIC:0,3-5.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last > _PARTITION_MAX:
            raise InputError(f"'{_short(text)}': {part} is no range of partitions.")
        partitions.update(range(first, last + 1))
    return topic, tuple(sorted(partitions))


def resolve(
    cluster: Cluster,
    position: Position,
    places: Iterable[Place],
    *,
    committed: Mapping[Place, int] | None = None,
    isolation: Isolation = "uncommitted",
) -> dict[Place, Resolved]:
    """The absolute offset in every place, now. Blocks; Kafka's errors pass through.

    Never outside the log: what would be is moved to its nearest end, and ``note`` says so. ``latest`` is the high
    watermark. ``relative`` counts from ``committed``; a place without a commit raises InputError.
    """
    wanted = list(places)
    starts, ends = cluster.starts(wanted), cluster.ends(wanted, isolation)
    times: dict[Place, tuple[int, int]] = {}
    if position.time is not None:
        stamp = max(0, round(position.time.timestamp() * 1000))
        times = cluster.at_times(dict.fromkeys(wanted, stamp), isolation)
    found: dict[Place, Resolved] = {}
    for place in wanted:
        start, end = starts[place], ends[place]
        match position.kind:
            case "earliest":
                found[place] = Resolved(start)
            case "latest":
                found[place] = Resolved(end)
            case "time":
                offset, stamp = times[place]
                if offset < 0:
                    assert position.time is not None
                    found[place] = Resolved(end, note=f"no record since {utc(position.time)}")
                else:
                    found[place] = Resolved(offset, first=datetime.fromtimestamp(stamp / 1000, UTC))
            case "offset" | "relative":
                aim = position.offset
                if position.kind == "relative":
                    base = (committed or {}).get(place)
                    if base is None:
                        raise InputError(
                            f"{place[0]}/{place[1]} has no committed position that {position.written} could count from."
                        )
                    aim += base
                within = min(max(aim, start), end)
                note = "" if within == aim else f"{aim:,} is outside the log ({start:,} to {end:,})"
                found[place] = Resolved(within, note=note)
    return found


def utc(time: datetime) -> str:
    """``2026-05-01T12:00:00Z``, with milliseconds where there are any."""
    precise = time.astimezone(UTC)
    text = precise.isoformat(timespec="milliseconds" if precise.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _placed(local: datetime, zone: tzinfo | None) -> datetime:
    bare = local.replace(tzinfo=None)
    return (bare.astimezone() if zone is None else bare.replace(tzinfo=zone)).astimezone(UTC)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
