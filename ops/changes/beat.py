"""What a long change says of itself in ``backbone.heartbeat`` while it is applied, so that it is seen from any machine.

Key ``change|ID``, JSON, every few seconds; a tombstone when its process leaves it. A record of its own shape: whoever
reads the heartbeats of workers passes it over. It names nobody's data: how far, how fast, whose and where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from consumers.heartbeat import TOPIC
from ops.watch.heartbeats import SILENT_S, recent_from, since

if TYPE_CHECKING:
    from ops.app import App

_PREFIX = "change|"
_TEXT_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBeat:
    """A change as the process that applies it sees it. ``process`` is ``host/pid``; ``by`` who applies it; ``total``
    None: not known yet; ``rate`` a number a second, None: no limit."""

    change: str
    process: str
    by: str
    state: Literal["running", "paused"]
    done: int = 0
    total: int | None = None
    unit: str = ""
    rate: float | None = None

    @property
    def progress(self) -> str:
        """``1,200/40,000 offsets``."""
        total = "" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{total} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest beat of a change, and how old it is."""

    beat: ChangeBeat
    age_s: float

    @property
    def is_fresh(self) -> bool:
        """Whether its process lives, as far as anybody can know."""
        return self.age_s <= SILENT_S


def beat_record(beat: ChangeBeat) -> tuple[bytes, bytes]:
    """Key and value as they are produced to ``TOPIC``, partition 0."""
    return f"{_PREFIX}{beat.change}".encode(), json.dumps(asdict(beat), ensure_ascii=False).encode()


def farewell_record(change_id: str) -> tuple[bytes, None]:
    """Nobody applies it any more."""
    return f"{_PREFIX}{change_id}".encode(), None


def change_of(key: bytes | None) -> str | None:
    """The change that a record of the topic is about; None: it is about none. Never raises."""
    text = (key or b"").decode(errors="replace")
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else None


def decode_beat(key: bytes | None, value: bytes | None) -> ChangeBeat | None:
    """The beat in a record; None for a tombstone and for what is none. Never raises; what a newer version has added
    is left out."""
    change_id = change_of(key)
    if change_id is None or value is None:
        return None
    try:
        found = json.loads(value)
        state = found["state"]
        if state not in ("running", "paused"):
            return None
        return ChangeBeat(
            change=change_id,
            process=_text(found["process"]),
            by=_text(found["by"]),
            state=cast("Literal['running', 'paused']", state),
            done=_count(found.get("done")) or 0,
            total=_count(found.get("total")),
            unit=_text(found.get("unit", "")),
            rate=_rate(found.get("rate")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError("no text")
    return found[:_TEXT_MAX]


def _count(found: Any) -> int | None:
    return max(0, found) if type(found) is int else None


def _rate(found: Any) -> float | None:
    is_rate = type(found) in (int, float) and 0 <= found <= 1e9 and math.isfinite(found)
    return float(found) if is_rate else None


def read_beats(app: App) -> dict[str, Heard]:
    """The changes that run now or did until a moment ago, by id; those that ended have said so and are left out.
    Blocks. Raises NotAllowedError, UnreachableError."""
    from ops.lag.cluster import Cluster

    begin = recent_from(Cluster(app.admin(), app.consumer))
    found: dict[str, Heard] = {}
    for change_id, heard in () if begin is None else _heard(app, begin):
        if heard is None:
            found.pop(change_id, None)
        else:
            found[change_id] = heard
    return found


def _heard(app: App, begin: int) -> Iterator[tuple[str, Heard | None]]:
    for record, age_s in since(app, begin):
        change_id = change_of(record.key)
        if change_id is None:
            continue
        beat = decode_beat(record.key, record.value)
        if beat is not None:
            yield change_id, Heard(beat, age_s)
        elif record.value is None:
            yield change_id, None


__all__ = [
    "TOPIC", "ChangeBeat", "Heard", "beat_record", "change_of", "decode_beat", "farewell_record", "read_beats",
]  # fmt: skip
