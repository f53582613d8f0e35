"""The calls that were kept, in an SQLite file: what was asked of a vendor and what it answered, redacted.

It holds so many days and so many bytes, whichever is reached first; the oldest leave first.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.sqlite_file import SqliteFile

_TABLES = (
    """CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, subscription TEXT NOT NULL, connection TEXT NOT NULL,
        action TEXT NOT NULL, outcome TEXT NOT NULL, attempt INTEGER NOT NULL, seconds REAL NOT NULL, trace_id TEXT,
        is_look_up INTEGER NOT NULL, exchanges TEXT NOT NULL
    )""",
    "CREATE INDEX calls_at ON calls (at)",
    """CREATE TABLE asked (
        call INTEGER NOT NULL REFERENCES calls (id) ON DELETE CASCADE, number INTEGER NOT NULL, event TEXT NOT NULL,
        type TEXT NOT NULL, origin TEXT NOT NULL, entity TEXT NOT NULL, entity_hashed INTEGER NOT NULL,
        idempotency_key TEXT NOT NULL, attempt INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
        body TEXT, PRIMARY KEY (call, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX asked_event ON asked (event)",
    "CREATE INDEX asked_entity ON asked (entity)",
)
# so that what is let go of gives its pages back; it must be said before the first table is made
_SETTINGS = ("auto_vacuum=INCREMENTAL", "foreign_keys=ON", "journal_size_limit=4194304")
_VERSION = 1
_LET_GO_TIMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDelivery:
    """One delivery of a kept call. ``body`` is redacted; None for an older event that the delivery carried along
    (``outcome`` merged). ``entity`` is a keyed hash where it is personal, empty where there is no key to hash with."""

    event: str
    type: str
    origin: str
    entity: str
    entity_hashed: bool
    idempotency_key: str
    attempt: int
    outcome: str
    reason: str
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCall:
    """One call as it is kept. ``at``: when it ended, seconds since the epoch; ``exchanges``: its HTTP exchanges,
    redacted. ``id`` grows with time; 0: not kept yet."""

    at: float
    subscription: str
    connection: str
    action: str
    outcome: str
    attempt: int
    seconds: float
    trace_id: str | None
    is_look_up: bool
    exchanges: Sequence[Mapping[str, Any]]
    deliveries: Sequence[KeptDelivery]
    id: int = 0

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsWanted:
    """Which calls; what is None does not matter. ``entities``: the entity as it stands there, plain or hashed."""

    connection: str | None = None
    event: str | None = None
    entities: Sequence[str] = ()
    outcome: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class CallStore:
    """The file. Raises sqlite3.Error and OSError where it cannot be written or read; the next call tries again."""

    kept: SqliteFile = field(repr=False)
    keep_s: float
    bytes_max: int

    @classmethod
    def at(cls, file: Path, *, keep_s: float, bytes_max: int) -> CallStore:
        kept = SqliteFile(file, version=_VERSION, statements=_TABLES, settings=_SETTINGS, private=True)
        return cls(kept, keep_s, bytes_max)

    def add(self, calls: Sequence[KeptCall], now: float) -> None:
        """Keep these, and let go of what is too old or too much at ``now`` (seconds since the epoch)."""
        with self.kept.opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for call in calls:
                    _insert(connection, call)
                self._let_go(connection, now)
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            # stepped to its end: one execute alone frees one page
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def close(self) -> None:
        self.kept.close()

    def _let_go(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("DELETE FROM calls WHERE at < ?", (now - self.keep_s,))
        for _ in range(_LET_GO_TIMES):
            used, rows = _used(connection), connection.execute("SELECT count(*) FROM calls").fetchone()[0]
            if used <= self.bytes_max or not rows:
                return
            # a tenth more than is too much, so that it is not done for every call
            share = min(1.0, 1 - self.bytes_max / used + 0.1)
            connection.execute(
                "DELETE FROM calls WHERE id IN (SELECT id FROM calls ORDER BY id LIMIT ?)",
                (max(1, int(rows * share)),),
            )


def find_calls(file: Path, wanted: CallsWanted, *, limit: int) -> list[KeptCall]:
    """Calls that a worker on this machine has kept, the newest first; empty where there is no file. Changes nothing,
    and may be asked while it is written. Blocks on the disk. Raises sqlite3.Error for what is no such file."""
    if not file.exists():
        return []
    conditions, values = _conditions(wanted)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    with contextlib.closing(
        sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    ) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not version:
            return []  # it is being made
        if version != _VERSION:
            raise sqlite3.DatabaseError("it is of another version")
        rows = connection.execute(
            "SELECT id, at, subscription, connection, action, outcome, attempt, seconds, trace_id, is_look_up,"
            f" exchanges FROM calls{where} ORDER BY id DESC LIMIT ?",
            (*values, limit),
        ).fetchall()
        return [_call(row, _deliveries(connection, row[0])) for row in rows]


def _used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _insert(connection: sqlite3.Connection, call: KeptCall) -> None:
    made = connection.execute(
        "INSERT INTO calls (at, subscription, connection, action, outcome, attempt, seconds, trace_id, is_look_up,"
        " exchanges) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            call.at, call.subscription, call.connection, call.action, call.outcome, call.attempt, call.seconds,
            call.trace_id, call.is_look_up, _json(call.exchanges),
        ),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                made.lastrowid, number, one.event, one.type, one.origin, one.entity, one.entity_hashed,
                one.idempotency_key, one.attempt, one.outcome, one.reason,
                None if one.body is None else _json(one.body),
            )
            for number, one in enumerate(call.deliveries)
        ],
    )  # fmt: skip


def _conditions(wanted: CallsWanted) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("connection = ?", wanted.connection),
        ("id IN (SELECT call FROM asked WHERE event = ?)", wanted.event),
        ("outcome = ?", wanted.outcome),
        ("at >= ?", wanted.since),
        ("at < ?", wanted.until),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.entities:
        marks = ", ".join("?" * len(wanted.entities))
        conditions.append(f"id IN (SELECT call FROM asked WHERE entity IN ({marks}))")
        values += wanted.entities
    return conditions, values


def _deliveries(connection: sqlite3.Connection, call: int) -> list[KeptDelivery]:
    return [
        KeptDelivery(
            event=event, type=type_, origin=origin, entity=entity, entity_hashed=bool(hashed), idempotency_key=key,
            attempt=attempt, outcome=outcome, reason=reason, body=None if body is None else json.loads(body),
        )
        for event, type_, origin, entity, hashed, key, attempt, outcome, reason, body in connection.execute(
            "SELECT event, type, origin, entity, entity_hashed, idempotency_key, attempt, outcome, reason, body"
            " FROM asked WHERE call = ? ORDER BY number",
            (call,),
        )
    ]  # fmt: skip


def _call(row: Sequence[Any], deliveries: Sequence[KeptDelivery]) -> KeptCall:
    id_, at, subscription, connection, action, outcome, attempt, seconds, trace_id, is_look_up, exchanges = row
    return KeptCall(
        id=id_, at=at, subscription=subscription, connection=connection, action=action, outcome=outcome,
        attempt=attempt, seconds=seconds, trace_id=trace_id, is_look_up=bool(is_look_up),
        exchanges=json.loads(exchanges), deliveries=deliveries,
    )  # fmt: skip


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str)
