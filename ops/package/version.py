"""The version of a package for services: when its contracts changed last, and a hash of what is in it.

``2026.11.29.143205+h3f9a2c``: day and time of day in UTC, so that newer contracts are a newer version, and ``h`` with
six hex digits of everything the package holds, so that one version is never two things (another engine that takes
other modules along makes another version). Valid and normal by PEP 440.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ops.git import git
from schemas.errors import InputError, RefusedError


def version(at: datetime, files: Mapping[str, str]) -> str:
    """The version for contracts that changed at that time."""
    moment = at.astimezone(UTC)
    of_day = moment.hour * 10_000 + moment.minute * 100 + moment.second  # a number: PEP 440 drops leading zeros
    return f"{moment.year}.{moment.month}.{moment.day}.{of_day}+h{content_hash(files)[:6]}"


def content_hash(files: Mapping[str, str]) -> str:
    """SHA-256 of names and texts, as hex."""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        for part in (name.encode(), text.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def given_date(text: str) -> datetime:
    """``2026-11-29`` or ``2026-11-29T14:32:05Z``; without a zone it is UTC. Raises InputError."""
    try:
        found = datetime.fromisoformat(text)
        moment = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError("--date is a day or a time: 2026-11-29 or 2026-11-29T14:32:05Z.") from None


def last_commit(folder: Path) -> tuple[datetime, bool]:
    """When git's last commit touched the folder, and whether it holds what is not committed. Blocks on git.

    Raises InputError where there is no git, or it knows nothing of the folder; RefusedError in a clone without its
    history.
    """
    committed = git(folder, "log", "-1", "--format=%ct", "--", ".")
    if not committed or not committed.strip():
        raise InputError(
            f"Git knows no commit of {folder}, which the version's date is taken from: commit it, or give --date DAY."
        )
    if (git(folder, "rev-parse", "--is-shallow-repository") or b"").strip() == b"true":
        raise RefusedError(
            "This clone holds only the newest commits, so git does not know when the contracts changed last: fetch "
            "the history (git fetch --unshallow; in a GitHub workflow fetch-depth: 0), or give --date DAY."
        )
    return datetime.fromtimestamp(int(committed), UTC), bool(git(folder, "status", "--porcelain", "--", "."))
