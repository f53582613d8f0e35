"""A day of every group and topic, a point a minute, in an SQLite file of the monitor's own.

A projection: it can be deleted at any time, and what is no such file, or was written by another version, is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.lag.measure import GroupLag
from ops.lag.rules import SEVERITY, Status, worst
from ops.sqlite_file import SqliteFile

KEPT_MIN = 24 * 60
"""Minutes that are kept."""
SERIES_MAX = 5_000
"""Group-topics that are kept, those of the worst groups first: at most about 300 MB."""
_VERSION = 1
_TABLES = (
    "CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, topic TEXT NOT NULL, UNIQUE (name, topic))",
    """CREATE TABLE points (
        series INTEGER NOT NULL, minute INTEGER NOT NULL, lag INTEGER NOT NULL, age_s REAL, status TEXT NOT NULL,
        position INTEGER NOT NULL, end INTEGER NOT NULL, PRIMARY KEY (series, minute)
    ) WITHOUT ROWID""",
)
# of a minute the oldest age and the greatest lag are kept, with the newest of the rest: a spike is not averaged away
_ADD = """
INSERT INTO points (series, minute, lag, age_s, status, position, end) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (series, minute) DO UPDATE SET
    lag = max(lag, excluded.lag), age_s = coalesce(max(age_s, excluded.age_s), age_s, excluded.age_s),
    status = excluded.status, position = excluded.position, end = excluded.end
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A group's part in one topic over one minute (``minute``: minutes since the epoch). ``lag`` and ``age_s`` are
    the greatest of the minute, age None where it was unknown; ``position`` and ``end`` are sums over partitions."""

    topic: str
    minute: int
    lag: int
    age_s: float | None
    status: str
    position: int
    end: int


class History:
    """The file. Thread-safe: one at a time. Raises sqlite3.Error and OSError where it cannot be written or read; the
    next call tries again. Two monitors may write one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._kept = SqliteFile(file, version=_VERSION, statements=_TABLES)

    def add(self, at: float, groups: Iterable[GroupLag]) -> None:
        """Keep what was measured at ``at`` (seconds since the epoch), and let go of what is older than a day."""
        minute = int(at // 60)
        points = [(group.name, point) for group in _worst_first(groups) for point in _points(group, minute)]
        with self._kept.opened() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            names = [(name, point.topic) for name, point in points[:SERIES_MAX]]
            connection.executemany("INSERT OR IGNORE INTO series (name, topic) VALUES (?, ?)", names)
            ids = {(name, topic): id for id, name, topic in connection.execute("SELECT id, name, topic FROM series")}
            connection.executemany(
                _ADD,
                [
                    (ids[name, p.topic], p.minute, p.lag, p.age_s, p.status, p.position, p.end)
                    for name, p in points[:SERIES_MAX]
                ],
            )
            oldest = minute - KEPT_MIN
            connection.executemany(
                "DELETE FROM points WHERE series = ? AND minute <= ?", [(id, oldest) for id in ids.values()]
            )
            connection.execute(
                "DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM points WHERE points.series = series.id)"
            )

    def of(self, name: str, *, now: float, hours: float = 24.0) -> list[Point]:
        """A group's points of the last hours, by topic and time; empty where nothing is kept."""
        since = int(now // 60 - hours * 60)
        with self._kept.opened() as connection:
            rows = connection.execute(
                "SELECT topic, minute, lag, age_s, status, position, end FROM points JOIN series ON series = id"
                " WHERE name = ? AND minute > ? ORDER BY topic, minute",
                (name, since),
            ).fetchall()
        return [Point(*row) for row in rows]

    def close(self) -> None:
        self._kept.close()


def _worst_first(groups: Iterable[GroupLag]) -> list[GroupLag]:
    measured = [group for group in groups if group.problem is None]
    return sorted(measured, key=lambda group: (-SEVERITY[group.status], -group.lag, group.name))


def _points(group: GroupLag, minute: int) -> list[Point]:
    found = []
    for topic in dict.fromkeys(partition.topic for partition in group.partitions):
        parts = [partition for partition in group.partitions if partition.topic == topic]
        ages = [partition.age_s for partition in parts if partition.age_s is not None]
        statuses: list[Status] = [partition.status for partition in parts]
        found.append(
            Point(
                topic=topic,
                minute=minute,
                lag=sum(partition.offsets.lag for partition in parts),
                age_s=max(ages) if len(ages) == len(parts) else None,
                status=worst(statuses),
                position=sum(partition.offsets.counted_from for partition in parts),
                end=sum(partition.end for partition in parts),
            )
        )
    return found


BARS = "▁▂▃▄▅▆▇█"


def sparkline(points: Sequence[Point], *, now: float, hours: int = 24) -> str:
    """The oldest age of each hour up to now as bars, the tallest for the oldest; a space where nothing is known."""
    worst_of: dict[int, float] = {}
    this = int(now // 60)
    for point in points:
        back = (this - point.minute) // 60
        if 0 <= back < hours and point.age_s is not None:
            worst_of[back] = max(worst_of.get(back, 0.0), point.age_s)
    top = max(worst_of.values(), default=0.0)
    bars = []
    for back in reversed(range(hours)):
        if back not in worst_of:
            bars.append(" ")
        else:
            height = 0 if top <= 0 else min(len(BARS) - 1, int(worst_of[back] / top * len(BARS)))
            bars.append(BARS[height])
    return "".join(bars)
