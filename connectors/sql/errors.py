"""What a database's error means for a batch. ``classify`` as a table; the first fitting line decides.

A failed batch was rolled back as a whole, so nothing of it happened, but for one case: the connection broke while the
commit was on its way.

=====================================================  =============================================================
error (PostgreSQL's SQLSTATE; SQLite's result code)    outcome of every delivery of the batch
=====================================================  =============================================================
the connection broke during the commit                 Unknown(cut)
40001 40P01 55P03: serialization, deadlock, row lock   Unavailable(locked, entity), 1 s
BUSY, LOCKED                                           Unavailable(locked), 1 s: SQLite locks the whole file
57014: statement timeout                               RetryLater(timeout)
28…, 3D000, 3F000, 42501, "password authentication     Unavailable(forbidden, needs_operator)
failed"; READONLY CANTOPEN NOTADB CORRUPT AUTH PERM
53…; FULL, IOERR, NOMEM                                Unavailable(out_of_resources), 30 s
08…, 57P…, no SQLSTATE; the connection broke           Unavailable(unreachable)
22…, 23…, 54…; CONSTRAINT, MISMATCH, TOOBIG            Rejected(refused); in a batch scope=call: the runtime halves
42…; ERROR (no such table or column)                   Rejected(schema), the same; the tables were read again before
any other                                              RetryLater(database_error)
=====================================================  =============================================================

``detail`` holds the code and names of columns and constraints, never the database's message: it quotes values.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError

from connectors.connector import Outcome, Rejected, RetryLater, Unavailable, Unknown

SOON = timedelta(seconds=1)
LATER = timedelta(seconds=30)

SQLITE_LOCKED = frozenset({5, 6})
SQLITE_OPERATOR = frozenset({3, 8, 11, 14, 23, 26})
SQLITE_RESOURCES = frozenset({7, 10, 13})
SQLITE_DATA = frozenset({18, 19, 20, 25})


def classify(error: DBAPIError, *, committing: bool, alone: bool) -> Outcome:
    """What an error means for each delivery of the batch it broke; the table is on top of this module."""
    scope: Any = "delivery" if alone else "call"
    original: Any = error.orig
    sqlite_code = getattr(original, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return _sqlite(sqlite_code & 0xFF, getattr(original, "sqlite_errorname", ""), scope)
    state = getattr(original, "sqlstate", None)
    if state is None:
        # libpq tells why a connection was not made in words only
        if any(words in str(original) for words in ("authentication failed", "no password supplied", "does not exist")):
            return Unavailable("forbidden", needs_operator=True)
        if not error.connection_invalidated and type(original).__name__ != "OperationalError":
            # refused by the driver before anything was sent: text with NUL, a number out of range
            return Rejected("refused", type(original).__name__, scope=scope)
        return Unknown("cut") if committing else Unavailable("unreachable")
    if committing and (error.connection_invalidated or state.startswith(("08", "57P"))):
        return Unknown("cut")
    return _postgresql(state, original, scope)


def _sqlite(code: int, name: str, scope: Any) -> Outcome:
    if code in SQLITE_LOCKED:
        return Unavailable("locked", SOON, limited=True)
    if code in SQLITE_OPERATOR:
        return Unavailable("forbidden", needs_operator=True)
    if code in SQLITE_RESOURCES:
        return Unavailable("out_of_resources", LATER)
    if code in SQLITE_DATA:
        return Rejected("refused", name, scope=scope)
    return Rejected("schema", name, scope=scope) if code == 1 else RetryLater("database_error")


def _postgresql(state: str, original: Any, scope: Any) -> Outcome:
    if state in ("40001", "40P01", "55P03"):
        return Unavailable("locked", SOON, scope="entity")
    if state == "57014":
        return RetryLater("timeout")
    if state.startswith("28") or state in ("3D000", "3F000", "42501"):
        return Unavailable("forbidden", needs_operator=True)
    if state.startswith("53"):
        return Unavailable("out_of_resources", LATER)
    if state.startswith(("08", "57P")):
        return Unavailable("unreachable")
    if state.startswith(("22", "23", "54")):
        return Rejected("refused", _names(state, original), scope=scope)
    if state.startswith("42"):
        return Rejected("schema", _names(state, original), scope=scope)
    return RetryLater("database_error")


def _names(state: str, original: Any) -> str:
    diagnosis = getattr(original, "diag", None)
    parts = [f"sqlstate={state}"]
    for name in ("column_name", "constraint_name"):
        value = getattr(diagnosis, name, None)
        if isinstance(value, str):
            parts.append(f"{name.removesuffix('_name')}={value}")
    return " ".join(parts)[:1000]


def schema_changed(error: DBAPIError) -> bool:
    """Whether somebody else made, changed or dropped a table meanwhile, so that reading the tables again may help."""
    original: Any = error.orig
    if getattr(original, "sqlite_errorcode", None) == 1:
        return True
    state = getattr(original, "sqlstate", None) or ""
    # undefined or duplicate table, column or object; a unique violation in the catalogue itself is the race of two
    # CREATE TABLE IF NOT EXISTS
    return state in ("42P01", "42703", "42P07", "42701", "42710") or (
        state == "23505" and "pg_" in str(getattr(getattr(original, "diag", None), "constraint_name", ""))
    )
