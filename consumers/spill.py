"""What a fold has folded so far: one row for each thing at the vendor, the latest in memory, the others in SQLite.

The database is one of SQLite's own temporary ones: a file that has no name from the moment it is opened, so nothing of
it is left behind however the process ends. It stands in the system's folder for temporary files (``SQLITE_TMPDIR``,
``TMPDIR``). Nothing in it has to outlast the process: what is folded is in Kafka, and is folded again.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeAlias

from connectors.connector import Action, Delivery
from consumers.assignment import Place
from consumers.settlement import DeadOutcome
from schemas.event import Origin, Record

HELD_MAX = 20_000
"""Rows in memory at most."""
HELD_BYTES_MAX = 32 << 20
ROW_BYTES = 1_000
"""What a row takes beside its body, about."""
SPILLED_AT_ONCE = 500
"""Rows written in one go: about 5 ms, in which the event loop stands still."""

Thing: TypeAlias = bytes
"""What deliveries that fold into one are about: the record's key, the action, the entity, and what else its body says
that it is about."""


class SpillError(Exception):
    """The temporary database cannot be written or read; ``args[0]`` is SQLite's word for why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What came of a folded delivery. ``alone``: the vendor rejected it, so its events are sent one by one. Times are
    seconds since the epoch."""

    outcome: Literal["delivered", "skipped", "alone"] | DeadOutcome
    reason: str | None = None
    detail: str = ""
    reference: str | None = None
    attempts: int = 0
    first_at: float = 0.0
    at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Folded:
    """One delivery for ``count`` events, which stands where the newest of them stands. ``first`` is the offset of the
    oldest; ``key`` is their records', ``timestamp`` the newest record's; ``event_*`` say which event that is. (Not
    frozen: each event that is folded changes it.)"""

    first: int
    delivery: Delivery
    key: bytes | None
    timestamp: int
    event_id: str
    event_type: str
    event_source: str
    event_time: float
    routes: tuple[str, ...] = ()
    """the places of the routes that made it, in the subscription's file"""
    count: int = 1
    size: int = 0
    end: End | None = field(default=None)

    @property
    def newest(self) -> int:
        """The offset of the newest event in it."""
        return self.delivery.sequence.offset


def thing_of(record: Record, delivery: Delivery, action: Action) -> Thing:
    """What a delivery is about. Only events of one key fold: order is per key. Those without a key fold among
    themselves, in the order of their partition."""
    parts = [delivery.action, delivery.entity]
    for name in action.about:
        value = delivery.body.get(name)
        parts.append(value if isinstance(value, str) else f"\0{value!r}")
    text = "".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass")
    return b"-" + text if record.key is None else b"%d:%b%b" % (len(record.key), record.key, text)


class Spill:
    """The rows of all partitions that are folded in one process for one subscription. Not thread-safe. Every call may
    write or read a few hundred rows of a file; raises SpillError when that fails."""

    def __init__(self, *, held_max: int = HELD_MAX, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held_max, self._held_bytes_max = held_max, held_bytes_max
        self._held: dict[tuple[int, Thing], Folded] = {}
        self._changed: set[tuple[int, Thing]] = set()
        self._held_bytes = 0
        self._numbers: dict[Place, int] = {}
        self._rows: dict[int, int] = {}
        self._next = 0
        self._database: sqlite3.Connection | None = None

    def get(self, place: Place, thing: Thing) -> Folded | None:
        number = self._numbers.get(place)
        if number is None:
            return None
        if (found := self._held.get((number, thing))) is not None:
            return found
        if self._database is None:
            return None
        with _translated():
            row = self._database.execute(
                "SELECT row FROM folded WHERE place = ? AND thing = ?", (number, thing)
            ).fetchone()
        if row is None:
            return None
        folded = _loaded(row[0])
        self._hold((number, thing), folded)
        return folded

    def add(self, place: Place, thing: Thing, folded: Folded) -> None:
        """Keep a row that was not there."""
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = self._next
            self._rows[number] = 0
            self._next += 1
        self._rows[number] += 1
        self._put((number, thing), folded)

    def change(self, place: Place, thing: Thing, folded: Folded, size: int = 0) -> None:
        """Keep a row as it is now, in place of what it was; ``size`` is that of the event that came to it."""
        number = self._numbers.get(place)
        if number is None:
            return  # it was forgotten meanwhile
        key = (number, thing)
        if size > folded.size:
            if self._held.get(key) is folded:
                self._held_bytes += 3 * (size - folded.size)
            folded.size = size
        self._put(key, folded)

    def count(self, place: Place) -> int:
        """How many rows the place has."""
        return self._rows.get(self._numbers.get(place, -1), 0)

    def write_some(self) -> bool:
        """Write some of what is in memory alone; False when there is nothing of that kind. Before ``in_order``."""
        some = list(islice(self._changed, SPILLED_AT_ONCE))
        self._write(some)
        return bool(some)

    def in_order(self, place: Place, after: int, limit: int) -> list[tuple[Thing, Folded]]:
        """The next rows of a place by where they were first seen, beyond the offset ``after``. All of them must have
        been written (``write_some``)."""
        if self._database is None or place not in self._numbers:
            return []
        number = self._numbers[place]
        with _translated():
            rows = self._database.execute(
                "SELECT thing, row FROM folded WHERE place = ? AND first > ? ORDER BY first LIMIT ?",
                (number, after, limit),
            ).fetchall()
        # one in memory may be newer: it has its end
        return [(thing, self._held.get((number, thing)) or _loaded(row)) for thing, row in rows]

    def forget(self, place: Place) -> None:
        """Nothing is asked of this place any more."""
        number = self._numbers.pop(place, None)
        if number is None:
            return
        self._rows.pop(number, None)
        for key in [key for key in self._held if key[0] == number]:
            self._held_bytes -= _size(self._held.pop(key))
        self._changed = {key for key in self._changed if key[0] != number}
        if not self._numbers:
            self.close()  # its file with it
        elif self._database is not None:
            with _translated():
                self._database.execute("DELETE FROM folded WHERE place = ?", (number,))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _put(self, key: tuple[int, Thing], folded: Folded) -> None:
        self._changed.add(key)
        self._hold(key, folded)

    def _hold(self, key: tuple[int, Thing], folded: Folded) -> None:
        before = self._held.get(key)
        if before is None:
            self._held[key] = folded
            self._held_bytes += _size(folded)
        elif before is not folded:
            self._held[key] = folded
            self._held_bytes += _size(folded) - _size(before)
        if len(self._held) > self._held_max or self._held_bytes > self._held_bytes_max:
            self._let_go(key)

    def _let_go(self, kept: tuple[int, Thing]) -> None:
        """The rows that came into memory first leave it."""
        going = [key for key in islice(self._held, SPILLED_AT_ONCE) if key != kept]
        self._write([key for key in going if key in self._changed])
        for key in going:
            self._held_bytes -= _size(self._held.pop(key))

    def _write(self, keys: list[tuple[int, Thing]]) -> None:
        if not keys:
            return
        with _translated():
            if self._database is None:
                self._database = _opened()
            rows = [(number, thing, (row := self._held[number, thing]).first, _dumped(row)) for number, thing in keys]
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO folded VALUES (?, ?, ?, ?) ON CONFLICT (place, thing) DO UPDATE SET row = excluded.row",
                rows,
            )
            self._database.execute("COMMIT")
        self._changed.difference_update(keys)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpillError(getattr(error, "sqlite_errorname", None) or type(error).__name__) from None


def _opened() -> sqlite3.Connection:
    database = sqlite3.connect("", isolation_level=None)  # a temporary one, on disk once its cache is full
    database.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;"
        "CREATE TABLE folded (place INTEGER, thing BLOB, first INTEGER, row BLOB, UNIQUE (place, thing));"
        "CREATE INDEX in_order ON folded (place, first);"
    )
    return database


def _size(folded: Folded) -> int:
    return ROW_BYTES + 3 * folded.size  # as Python's objects


def _dumped(row: Folded) -> bytes:
    """Pickle, for a body holds what JSON has no word for; only this process ever reads it."""
    delivery = row.delivery
    return pickle.dumps(
        (
            row.first, delivery.action, delivery.entity, delivery.idempotency_key, tuple(delivery.sequence),
            dict(delivery.body), row.key, row.timestamp, row.event_id, row.event_type, row.event_source,
            row.event_time, row.routes, row.count, row.size, row.end,
        ),
        pickle.HIGHEST_PROTOCOL,
    )  # fmt: skip


def _loaded(row: bytes) -> Folded:
    (first, action, entity, idempotency_key, sequence, body, key, timestamp, event_id, event_type, event_source,
     event_time, routes, count, size, end) = pickle.loads(row)  # fmt: skip
    delivery = Delivery(
        action=action, entity=entity, idempotency_key=idempotency_key, sequence=Origin(*sequence), body=body
    )
    return Folded(
        first=first, delivery=delivery, key=key, timestamp=timestamp, event_id=event_id, event_type=event_type,
        event_source=event_source, event_time=event_time, routes=routes, count=count, size=size, end=end,
    )  # fmt: skip
