"""Who was erased: keyed hashes of a field and its value, with when. Events of theirs that arrived before are not sent.

``backbone.control`` holds a mark a person (``erased|HASH``) for ever, so catch-ups of new subscriptions, rewinds,
redrives and replays all skip them. Events that arrive after the erasure are live: the person has come back.
"""

from __future__ import annotations

import hmac
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

KEY_ID_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedPerson:
    """The value of a mark. ``at`` (UTC, ISO 8601 with milliseconds): what arrived then or earlier is not sent.
    ``field`` is the name of the field that was hashed with its value, ``events`` are the event types that had it then;
    ``key_id`` says with which installation key."""

    field: str
    events: tuple[str, ...]
    at: str
    change: str
    key_id: str


class Erased:
    """The marks as far as this process has read them. May be used from any thread.

    ``key`` is the installation's; None: this process has none, and recognises nobody (see ``is_blind_to``)."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._key_id = None if key is None else key_id(key)
        self._lock = threading.Lock()
        self._until: dict[str, int] = {}
        self._blind: dict[str, ErasedPerson] = {}
        self._blind_to: frozenset[str] = frozenset()
        self._count: Counter[str] = Counter()
        self._people: dict[str, ErasedPerson] = {}
        self.fields: frozenset[str] = frozenset()
        """the names of fields that somebody was erased by; empty: there is nothing to look at"""
        self.changes = 0
        """grows with every mark that is taken in: who has kept something made of events looks again"""

    @property
    def people(self) -> dict[str, ErasedPerson]:
        """Every mark with who it is, as of now."""
        with self._lock:
            return dict(self._people)

    def is_blind_to(self, events: Iterable[str]) -> bool:
        """Whether somebody was erased from such events whom this process cannot recognise, for it has not the key of
        the mark."""
        return bool(self._blind_to) and not self._blind_to.isdisjoint(events)

    def put(self, mark: str, person: ErasedPerson | None) -> None:
        """Take a mark in; None forgets it. Of two times of one person the later counts, in whatever order they come.
        Raises ValueError for a time that is none."""
        with self._lock:
            self._put(mark, person)

    def _put(self, mark: str, person: ErasedPerson | None) -> None:
        if person is not None:
            at = datetime.fromisoformat(person.at)
            if at.tzinfo is None:
                raise ValueError("a time without its zone")
            until = round(at.timestamp() * 1000)
            if until < self._until.get(mark, until):
                return  # an order of an earlier erasure, read again
            self._until[mark] = until
            if person.key_id == self._key_id:
                self._blind.pop(mark, None)
            else:
                self._blind[mark] = person
        self.changes += 1
        known = self._people.pop(mark, None)
        if known is not None:
            self._count[known.field] -= 1
        if person is not None:
            self._people[mark] = person
            self._count[person.field] += 1
        else:
            self._until.pop(mark, None)
            self._blind.pop(mark, None)
        self._blind_to = frozenset(event for one in self._blind.values() for event in one.events)
        self.fields = frozenset(field for field, count in self._count.items() if count)

    def holds(self, data: Mapping[str, Any], arrived: int) -> bool:
        """Whether an event with this data, which arrived at ``arrived`` (ms since the epoch), is of an erased person.
        Some 2 µs for each erased field that it has, nothing where nobody was erased."""
        if self._key is None:
            return False
        for field in self.fields:
            value = data.get(field)
            if value is None or (text := text_of(value)) is None:
                continue
            until = self._until.get(mark_of(field, text, self._key))
            if until is not None and arrived <= until:
                return True
        return False


def mark_of(field: str, value: str, key: bytes) -> str:
    """The keyed hash of one field's value, 64 hex digits."""
    return hmac.digest(key, f"{len(field)}:{field}{value}".encode("utf-8", "surrogatepass"), "sha256").hex()


def key_id(key: bytes) -> str:
    """What tells one installation key from another, and nothing else of it."""
    return hmac.digest(key, b"backbone key id", "sha256").hex()[:KEY_ID_LENGTH]


def text_of(value: object) -> str | None:
    """A field's value as a person writes it in FIELD=VALUE; None for what nobody is erased by (a list, a time)."""
    if isinstance(value, str):
        return value
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    return None
