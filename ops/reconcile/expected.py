"""What a vendor should have of each entity: the deliveries folded in the order of the log, field by field the newest.

The fold is pure; where it is kept is bounded: beyond so many entities they go into a SQLite database of this process
alone, whose file has no name and ends with it.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from connectors.connector import Delivery

if TYPE_CHECKING:
    from connectors.connector import Action
    from schemas.event import Origin

HELD_MAX: Final = 20_000
"""Entities held in memory at once."""
Doubt: TypeAlias = Literal["", "in_motion", "open_letter", "erased"]
"""Why nobody can say what the vendor should have: events of it are on their way; one may have arrived and is a dead
letter; it was erased."""
Key: TypeAlias = tuple[str, str, str]
"""Action, what it is about beside the entity (as receipts say it), entity."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where an event stands, and when its record arrived (ms)."""

    at: int
    origin: Origin

    def is_after(self, other: Stamp | None) -> bool:
        """By the log within a partition, by arrival between partitions."""
        if other is None:
            return True
        if self.origin[:2] == other.origin[:2]:
            return self.origin.offset >= other.origin.offset
        return (self.at, self.origin) >= (other.at, other.origin)


@dataclass(frozen=True, slots=True)
class Value:
    """A field's newest value, the event that said it, and what a person sees in its place (empty: the value)."""

    value: Any
    stamp: Stamp
    mask: str = ""


@dataclass(slots=True)
class Expected:
    """One entity. ``written``: the newest event that wrote it; ``gone``: the newest that deleted it, if that is after
    everything in ``values``. ``about`` are the fields of ``Action.about``. ``mask``: what a person sees in place of the
    entity."""

    action: str
    about: Mapping[str, Any]
    entity: str
    mask: str = ""
    values: dict[str, Value] = field(default_factory=dict)
    written: Stamp | None = None
    gone: Stamp | None = None
    doubt: Doubt = ""

    @property
    def should_be(self) -> bool:
        return self.written is not None

    @property
    def newest(self) -> Stamp | None:
        """The newest event about it; None: nothing that was read has changed it."""
        if self.written is None or self.gone is None:
            return self.written or self.gone
        return self.written if self.written.is_after(self.gone) else self.gone

    def write(self, fields: Mapping[str, Any], stamp: Stamp, masks: Mapping[str, str]) -> None:
        """Fold a delivery in: it may come in any order."""
        if self.gone is not None and not stamp.is_after(self.gone):
            return
        if stamp.is_after(self.written):
            self.written = stamp
        for name, value in fields.items():
            held = self.values.get(name)
            if held is None or stamp.is_after(held.stamp):
                self.values[name] = Value(value, stamp, masks.get(name, ""))

    def delete(self, stamp: Stamp) -> None:
        """Fold a delivery in that deletes the entity at the vendor."""
        if not stamp.is_after(self.gone):
            return
        self.gone = stamp
        self.values = {name: one for name, one in self.values.items() if not stamp.is_after(one.stamp)}
        if self.written is not None and stamp.is_after(self.written):
            self.written = None

    def delivery(self, action: Action) -> Delivery:
        """All of it as one delivery, to ask what the vendor has of it; never to be sent."""
        fields = {name: one.value for name, one in self.values.items()}
        body = {**self.about, **fields} if action.fields_in is None else {**self.about, action.fields_in: fields}
        newest = self.newest
        assert newest is not None
        return Delivery(
            action=self.action, entity=self.entity, idempotency_key="", sequence=newest.origin, body=body
        )  # fmt: skip


def fields_of(delivery: Delivery, action: Action) -> dict[str, Any]:
    """The fields of a delivery that are compared one by one."""
    inner = delivery.body if action.fields_in is None else delivery.body.get(action.fields_in)
    if not isinstance(inner, Mapping):
        return {}
    about = frozenset(action.about) if action.fields_in is None else frozenset()
    return {name: value for name, value in inner.items() if name not in about}


def about_of(delivery: Delivery, action: Action) -> dict[str, Any]:
    """What a delivery is about beside its entity."""
    return {name: delivery.body.get(name) for name in action.about}


def masks_of(names: Mapping[str, Any], action: Action, carried: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """What a person sees in place of fields that carry personal-data classes, or hold something that does. Pure."""
    inner = "body" if action.fields_in is None else f"body.{action.fields_in}"
    found = {}
    for name in names:
        place = f"{inner}.{name}"
        classes = {
            one
            for at, of in carried.items()
            if at == place or place.startswith(f"{at}.") or at.startswith(f"{place}.")
            for one in of
        }
        if shown := mask(classes):
            found[name] = shown
    return found


def mask(classes: set[str] | frozenset[str]) -> str:
    """``‹email›``: what is shown in place of a value."""
    named = sorted(classes - {"none"})
    return f"‹{', '.join(named)}›" if named else ""


class Expectations:
    """The entities of one subscription by their keys. Not thread-safe; ``close`` drops all of it."""

    def __init__(self, held_max: int = HELD_MAX) -> None:
        self._held: dict[Key, Expected] = {}
        self._held_max = held_max
        # without a name: a temporary file that only this process sees, made when it outgrows SQLite's cache
        self._kept = sqlite3.connect("")
        self._kept.execute(
            "CREATE TABLE entities (action TEXT, about TEXT, entity TEXT, content BLOB, "
            "PRIMARY KEY (action, about, entity)) WITHOUT ROWID"
        )
        self.abouts: dict[tuple[str, str], Mapping[str, Any]] = {}
        """the (action, about) pairs there are, with the fields of the latter"""

    def of(self, key: Key, about: Mapping[str, Any]) -> Expected:
        """The entity, to be folded into; a new one where nothing is known of it."""
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= self._held_max:
                self._spill()
            held = self.known(key) or Expected(key[0], about, key[2])
            self._held[key] = held
            self.abouts.setdefault(key[:2], about)
        return held

    def known(self, key: Key) -> Expected | None:
        """The entity as it is known; None: nothing is. Do not change it."""
        held = self._held.get(key)
        if held is not None:
            return held
        found = self._kept.execute(
            "SELECT content FROM entities WHERE action = ? AND about = ? AND entity = ?", _stored(key)
        ).fetchone()
        return None if found is None else self._read(found[0])

    def pages(self, size: int) -> Iterator[list[Expected]]:
        """All of them, each page of one action; nothing may be folded in meanwhile."""
        self._spill()
        page: list[Expected] = []
        rows = self._kept.execute("SELECT content FROM entities ORDER BY action, about, entity")
        for (content,) in rows:
            one = self._read(content)
            if page and (len(page) >= size or page[0].action != one.action):
                yield page
                page = []
            page.append(one)
        if page:
            yield page

    def close(self) -> None:
        self._held.clear()
        self._kept.close()

    def _spill(self) -> None:
        # values are what projections make (times, decimals, bytes): JSON has no words for them
        rows = [(*_stored(key), pickle.dumps(one, pickle.HIGHEST_PROTOCOL)) for key, one in self._held.items()]
        with self._kept:
            self._kept.executemany("INSERT OR REPLACE INTO entities VALUES (?, ?, ?, ?)", rows)
        self._held.clear()

    def _read(self, content: bytes) -> Expected:
        found: Expected = pickle.loads(content)
        return found


def _stored(key: Key) -> tuple[str, str, str]:
    """A key as SQLite takes it: lone surrogates, which it does not, are spelled out."""
    action, about, entity = (one if one.isascii() else json.dumps(one) if not _is_utf8(one) else one for one in key)
    return action, about, entity


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
