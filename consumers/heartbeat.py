"""The topic ``backbone.heartbeat``: what each process does now. Pure: views in, records out, and back.

One partition, retention of an hour, JSON values, key = the process; every process writes one record every
``EVERY_S`` seconds and a tombstone when it leaves in an orderly way. It is for people: nothing is delivered by it, and
nothing is lost without it.

A heartbeat names records by their origin only. Keys, payloads and entities never stand in it: who may read the record
reads it at its origin, and ``status`` masks it by its personal-data classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, cast

from connectors.connection import ConnectionState, ConnectionView

TOPIC = "backbone.heartbeat"
EVERY_S = 5.0
HELD_MAX = 20
"""Held and parked keys that a view names, the oldest first; all of them are counted."""
CREDENTIALS_MAX = 20
BYTES_MAX = 512_000
"""A heartbeat is never larger (a topic takes 1 MiB by default): fewer held keys are named then."""
_TEXT_MAX = 500

HeldWhy: TypeAlias = Literal["retry", "busy", "schema", "parked", "letter"]
"""``retry``: an attempt failed and it is tried again; ``busy``: that one object at the vendor is; ``schema``: its
schema is not known here yet; ``parked``: an earlier event of its key is an open dead letter; ``letter``: its dead
letter is being written."""
SubscriptionWord: TypeAlias = Literal["running", "paused", "stopped", "waiting"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key that does not go on. ``origin`` is ``topic/partition/offset`` of the record at its head, ``waiting`` how
    many records wait behind that; ``since`` and ``due`` (when it is tried again, if that is known) are seconds since
    the epoch (``since`` 0: not known, a parked key is as old as its dead letter); ``reason`` is a code of a closed set,
    never text of a vendor."""

    origin: str
    why: HeldWhy
    since: float
    waiting: int = 0
    reason: str = ""
    due: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionView:
    """One subscription in one process. ``state`` waiting: it runs here and owns no partition. ``held`` and ``parked``
    name the oldest ``HELD_MAX``, ``held_total`` and ``parked_keys`` count all. ``oldest_at``: the timestamp of the
    oldest unfinished record, seconds since the epoch. ``slow_projection_s``: the slowest projection over 50 ms since
    the heartbeat before, else 0. ``records_per_s``: finished records, over the time since the heartbeat before.
    ``catching_up``: so many of its partitions are before the hand-over position of an attach, ``catch_up_left`` offsets
    in all. While the past is folded: ``fold_read`` of ``fold_to_read`` offsets were read, and ``fold_sent`` of
    ``fold_to_send`` deliveries have their end (what is to be sent grows until all is read)."""

    name: str
    version: str = ""
    state: SubscriptionWord = "running"
    reason: str = ""
    partitions: int = 0
    unfinished: int = 0
    lanes: int = 0
    held: tuple[Held, ...] = ()
    held_total: int = 0
    parked_keys: int = 0
    parked: tuple[Held, ...] = ()
    oldest_at: float | None = None
    slow_projection_s: float = 0.0
    records_per_s: float = 0.0
    catching_up: int = 0
    catch_up_left: int = 0
    fold_read: int = 0
    fold_to_read: int = 0
    fold_sent: int = 0
    fold_to_send: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What one process does at ``at`` (seconds since the epoch). ``process`` is its name among all, ``host/pid`` as in
    the client id of its members; ``version`` that of the backbone it runs. ``credentials``: a sentence for each that
    was replaced and could not be taken."""

    process: str
    at: float
    version: str = ""
    pid: int = 0
    host: str = ""
    subscriptions: tuple[SubscriptionView, ...] = ()
    connections: tuple[ConnectionView, ...] = ()
    credentials: tuple[str, ...] = ()


def heartbeat_record(heartbeat: Heartbeat) -> tuple[bytes, bytes]:
    """Key and value of a heartbeat as they are produced to ``TOPIC``, partition 0."""
    return heartbeat.process.encode(), encode(heartbeat)


def farewell_record(process: str) -> tuple[bytes, None]:
    """The record of a process that has left: nobody misses its heartbeat."""
    return process.encode(), None


def encode(heartbeat: Heartbeat) -> bytes:
    """The value of a heartbeat: JSON of at most ``BYTES_MAX`` bytes. Where it would be larger, fewer held and parked
    keys are named, at last none."""
    for named in (HELD_MAX, 5, 1, 0):
        views = tuple(replace(one, held=one.held[:named], parked=one.parked[:named]) for one in heartbeat.subscriptions)
        value = json.dumps(_finite(asdict(replace(heartbeat, subscriptions=views))), ensure_ascii=False).encode()
        if len(value) <= BYTES_MAX:
            break
    return value


def decode(value: bytes | None) -> Heartbeat | None:
    """The heartbeat in a record's value; None for a tombstone and for what is none. Never raises.

    What a newer version has added is left out, and what it says in words that are not known here is kept as it is
    (``state``, ``why``): a reader shows such a word. A view that lacks what it must have is left out alone."""
    if value is None:
        return None
    try:
        return _heartbeat(json.loads(value))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _heartbeat(found: Any) -> Heartbeat:
    return Heartbeat(
        process=_name(found["process"]),
        at=_needed_time(found["at"]),
        version=_text(found.get("version")),
        pid=_count(found.get("pid")),
        host=_text(found.get("host")),
        subscriptions=_each(found.get("subscriptions"), _subscription),
        connections=_each(found.get("connections"), _connection),
        credentials=_each(found.get("credentials"), _name)[:CREDENTIALS_MAX],
    )


def _subscription(found: Mapping[str, Any]) -> SubscriptionView:
    return SubscriptionView(
        name=_name(found["name"]),
        version=_text(found.get("version")),
        state=cast("SubscriptionWord", _name(found["state"])),
        reason=_text(found.get("reason")),
        partitions=_count(found.get("partitions")),
        unfinished=_count(found.get("unfinished")),
        lanes=_count(found.get("lanes")),
        held=_each(found.get("held"), _held)[:HELD_MAX],
        held_total=_count(found.get("held_total")),
        parked_keys=_count(found.get("parked_keys")),
        parked=_each(found.get("parked"), _held)[:HELD_MAX],
        oldest_at=_number(found.get("oldest_at")),
        slow_projection_s=max(0.0, _number(found.get("slow_projection_s")) or 0.0),
        records_per_s=max(0.0, _number(found.get("records_per_s")) or 0.0),
        catching_up=_count(found.get("catching_up")),
        catch_up_left=_count(found.get("catch_up_left")),
        fold_read=_count(found.get("fold_read")),
        fold_to_read=_count(found.get("fold_to_read")),
        fold_sent=_count(found.get("fold_sent")),
        fold_to_send=_count(found.get("fold_to_send")),
    )


def _held(found: Mapping[str, Any]) -> Held:
    return Held(
        origin=_name(found["origin"]),
        why=cast("HeldWhy", _name(found["why"])),
        since=_needed_time(found["since"]),
        waiting=_count(found.get("waiting")),
        reason=_text(found.get("reason")),
        due=_number(found.get("due")),
    )


def _connection(found: Mapping[str, Any]) -> ConnectionView:
    return ConnectionView(
        name=_name(found["name"]),
        state=cast("ConnectionState", _name(found["state"])),
        reason=_text(found.get("reason")),
        until=_number(found.get("until")),
        in_flight=_count(found.get("in_flight")),
        quota_used=_number(found.get("quota_used")),
        waiting=_count(found.get("waiting")),
    )


def _each(found: Any, read: Callable[[Any], T]) -> tuple[T, ...]:
    """Those that can be read."""
    views = []
    for one in found if isinstance(found, list) else []:
        try:
            views.append(read(one))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # one that a newer version writes differently does not hide the others
    return tuple(views)


def _name(found: Any) -> str:
    if not isinstance(found, str) or not found or len(found) > _TEXT_MAX:
        raise ValueError("no name")
    return found


def _text(found: Any) -> str:
    return found[:_TEXT_MAX] if isinstance(found, str) else ""


def _count(found: Any) -> int:
    return max(0, found) if isinstance(found, int) and not isinstance(found, bool) else 0


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _needed_time(found: Any) -> float:
    number = _number(found)
    if number is None:
        raise ValueError("no time")
    return number


def _finite(content: Any) -> Any:
    """Without NaN and infinities, which are no JSON."""
    match content:
        case dict():
            return {name: _finite(value) for name, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case float() if not math.isfinite(content):
            return None
    return content
