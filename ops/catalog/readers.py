"""Who reads which field of which event, and what becomes of it at the vendor.

Of YAML it is known from the file: expressions are parsed. Of Python projections it is known from runs (the tests in the
files, and previews of real events), which are noted in ``.backbone/fields_read.json`` with how many events there were
and when the last one was. A projection that no run has shown may read whatever may leave: its fields are not known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from consumers.recording import Recording
from consumers.subscription import Subscription
from schemas.errors import InputError

if TYPE_CHECKING:
    from ops.app import App
    from schemas.contract import Contracts

NOTES = "fields_read.json"
FORMAT = "backbone.fields_read/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One subscription and one event type it reads.

    ``how`` is ``parsed`` (from the file: exact), ``recorded`` (seen in ``events`` events, the last ``on`` that day) or
    ``unseen`` (a projection that nobody has run). ``reads`` maps each place of the delivery that is filled from the
    event (``where``, ``entity``, ``body.email``) to the dotted data paths read for it; ``""`` is the payload as a
    whole. Of a projection every place is mapped to every path it was seen to read."""

    subscription: str
    owner: str
    connection: str
    event: str
    how: Literal["parsed", "recorded", "unseen"]
    reads: Mapping[str, frozenset[str]]
    projections: tuple[str, ...] = ()
    events: int = 0
    on: date | None = None

    @property
    def fields(self) -> frozenset[str]:
        """Every path read, wherever it goes."""
        return frozenset().union(*self.reads.values())

    def touches(self, path: str) -> bool:
        """Whether what stands at ``path`` is read: itself, something in it, or a whole that holds it; with ``unseen``
        anything may be."""
        return self.how == "unseen" or any(overlaps(one, path) for one in self.fields)


def overlaps(one: str, other: str) -> bool:
    """Whether one dotted path is the other or lies in it; ``""`` holds all."""
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


@dataclass(slots=True)
class Noted:
    """What was seen of one event type's projections in a subscription, while their files had these hashes."""

    projections: dict[str, str]
    fields: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    events: int = 0
    on: date | None = None


def readers(app: App) -> list[Reader]:
    """Everybody in the project's files who reads an event. The tests of files with projections are run for it (some
    milliseconds each). A file with errors is left out and said on the screen."""
    return [reader for one in loaded_subscriptions(app) for reader in readers_of(app, one)]


def readers_of(app: App, subscription: Subscription, contracts: Contracts | None = None) -> list[Reader]:
    """The same of one subscription, an event type each. ``contracts``: those it was loaded with (default: the
    project's)."""
    noted = rehearsed(app, subscription, contracts) if subscription.projection_hashes else {}
    return [_reader(subscription, event, noted.get(event)) for event in subscription.routes]


def loaded_subscriptions(app: App) -> list[Subscription]:
    """Every subscription file that can be read; the others are named on the screen."""
    from consumers.subscription import check_subscription

    found = []
    for name, path in app.subscription_files().items():
        loaded, _ = check_subscription(path, contracts=app.contracts, connections=app.connection_types)
        if loaded is None:
            app.screen.warn(f"{path} has errors and is left out: backbone subscription check {name}")
        else:
            found.append(loaded)
    return found


def rehearsed(app: App, subscription: Subscription, contracts: Contracts | None = None) -> dict[str, Noted]:
    """What the projections were seen to read: noted before, and in their tests now. Nothing is written."""
    from consumers.rehearsal import rehearse
    from schemas.contract import Contracts

    recording = Recording(subscription)
    known_contracts = app.contracts if contracts is None else contracts
    rehearse(recording.subscription, Contracts({**known_contracts, **app.engine_contracts}))
    known = noted_before(app, subscription)
    return {event: _together(known.get(event), seen) for event, seen in _as_noted(recording).items()}


def note(app: App, recording: Recording) -> None:
    """Keep what a run has shown, for everybody who asks later on this machine. Nothing is written where there are no
    projections. A file that cannot be written is said, not raised: the run itself was something else's."""
    new = {event: seen for event, seen in _as_noted(recording).items() if seen.events}
    if not new:
        return
    path = app.project.root / ".backbone" / NOTES
    content = _content(path)
    mine = content["subscriptions"].setdefault(recording.subscription.name, {})
    known = noted_before(app, recording.subscription)
    for event, seen in new.items():
        mine[event] = _written(_together(known.get(event), seen))
    partial = path.with_name(f".{NOTES}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        app.screen.warn(f"What the projections read is not noted: {path} cannot be written ({error.strerror}).")


def noted_before(app: App, subscription: Subscription) -> dict[str, Noted]:
    """What is noted of the projections as they are now, by event type; what an older file read is forgotten."""
    content = _content(app.project.root / ".backbone" / NOTES)
    found = {}
    for event, written in content["subscriptions"].get(subscription.name, {}).items():
        one = _read(written)
        if one is not None and one.projections == dict(subscription.projection_hashes):
            found[event] = one
    return found


def _reader(subscription: Subscription, event: str, noted: Noted | None) -> Reader:
    reads: dict[str, frozenset[str]] = {}
    projections = []
    for route in subscription.routes[event]:
        if route.reads is None:
            projections.append(str(route.source.get("projection", "")))
            for place in () if noted is None else noted.places:
                reads[place] = reads.get(place, frozenset()) | (noted.fields if noted else frozenset())
        else:
            for place, fields in route.reads.items():
                reads[place] = reads.get(place, frozenset()) | fields
    how: Literal["parsed", "recorded", "unseen"] = "parsed"
    if projections:
        how = "recorded" if noted is not None and noted.events else "unseen"
    return Reader(
        subscription=subscription.name,
        owner=subscription.owner,
        connection=subscription.connection,
        event=event,
        how=how,
        reads=reads,
        projections=tuple(dict.fromkeys(projections)),
        events=noted.events if noted and projections else 0,
        on=noted.on if noted and projections else None,
    )


def _as_noted(recording: Recording) -> dict[str, Noted]:
    today = datetime.now(UTC).date()
    hashes = dict(recording.subscription.projection_hashes)
    return {
        event: Noted(hashes, set(seen.fields), set(seen.places), seen.events, today if seen.events else None)
        for event, seen in recording.seen.items()
    }


def _together(known: Noted | None, seen: Noted) -> Noted:
    if known is None:
        return seen
    days = [day for day in (known.on, seen.on) if day is not None]
    return Noted(
        seen.projections,
        known.fields | seen.fields,
        known.places | seen.places,
        known.events + seen.events,
        max(days, default=None),
    )


def _written(one: Noted) -> dict[str, Any]:
    return {
        "projections": one.projections,
        "fields": sorted(one.fields),
        "places": sorted(one.places),
        "events": one.events,
        "on": None if one.on is None else one.on.isoformat(),
    }


def _content(path: Path) -> dict[str, Any]:
    """The notes; empty where there are none, or none that this version can read (they are only seen again)."""
    empty: dict[str, Any] = {"format": FORMAT, "subscriptions": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return empty
    known = isinstance(content, dict) and content.get("format") == FORMAT
    mine = content.get("subscriptions") if known else None
    if not isinstance(mine, dict) or not all(isinstance(one, dict) for one in mine.values()):
        return empty
    return {"format": FORMAT, "subscriptions": mine}


def _read(written: Any) -> Noted | None:
    try:
        return Noted(
            dict(written["projections"]),
            set(_texts(written["fields"])),
            set(_texts(written["places"])),
            int(written["events"]),
            None if written["on"] is None else date.fromisoformat(written["on"]),
        )
    except (KeyError, TypeError, ValueError, InputError):
        return None


def _texts(value: Any) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError("a list of texts is expected")
    return value
