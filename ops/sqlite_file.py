"""An SQLite file that a process keeps for itself beside its work: what is in it may be lost, the work may not.

What is no such file, or was written by another version, is removed and made anew. Several processes may write one file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock


class SqliteFile:
    """The file, made when it is first used, with the tables that ``statements`` make. Thread-safe: one at a time.
    ``private``: only this user may read it. ``settings`` are pragmas of each connection."""

    def __init__(
        self,
        file: Path,
        *,
        version: int,
        statements: Sequence[str],
        settings: Sequence[str] = (),
        private: bool = False,
    ) -> None:
        self.file = file
        self._version, self._statements, self._settings, self._private = version, statements, settings, private
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Its connection (autocommit). Raises sqlite3.Error and OSError where it cannot be written or read; a
        connection that failed is not used again, and the next call tries anew. Blocks while somebody else writes, 5 s
        at most."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except (sqlite3.Error, OSError):
                self._drop()
                raise

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        with self._lock:
            self._drop()

    def _open(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._prepared()
        except sqlite3.OperationalError:
            raise  # the disk is full, or it may not be written: making it anew would not help
        except sqlite3.DatabaseError:
            self._remove()
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        if self._private:
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))  # what SQLite makes beside it follows
        connection = sqlite3.connect(self.file, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            for setting in self._settings:
                connection.execute(f"PRAGMA {setting}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, self._version):
                raise sqlite3.DatabaseError("of another version")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in self._statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {self._version}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it is what failed
                self._connection.close()
            self._connection = None
