"""Open dead letters as people see them: read from the compacted topics, grouped by cause, payloads masked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumers.deadletter import DeadLetter, parse_letter
from ops.app import CLUSTER_TIMEOUT_S
from ops.reading import as_record

if TYPE_CHECKING:
    from confluent_kafka import Message

    from ops.app import App
    from schemas.contract import Contract
    from schemas.event import Event

ENVELOPE = ("id", "type", "source", "time", "correlationid", "causationid")
"""Envelope headers that hold no data of the event; the subject is shown as the entity's field would be."""

NOT_SHOWN = "‹not shown›"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLetter:
    """An open letter and the subscription it belongs to."""

    subscription: str
    letter: DeadLetter

    @property
    def id(self) -> str:
        """The origin, ``topic/partition/offset``."""
        return str(self.letter.origin)

    @property
    def event(self) -> str | None:
        """The event's type as its envelope states it, without decoding anything."""
        return _header(self.letter, "ce_type")

    @property
    def since(self) -> datetime | None:
        """When delivering it was first tried."""
        return _time(self.letter.first_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Open letters of one subscription that share a fingerprint. ``letters`` are oldest first."""

    subscription: str
    fingerprint: str
    letters: tuple[OpenLetter, ...]

    @property
    def newest(self) -> DeadLetter:
        return self.letters[-1].letter


@dataclass(frozen=True, slots=True)
class Found:
    """The open letters of one subscription, oldest first; ``foreign`` are live records that are no letters of ours."""

    letters: tuple[OpenLetter, ...]
    foreign: int


def dead_topics(app: App, names: Iterable[str]) -> list[str]:
    """Those of the subscriptions that have a dead topic. Blocks on one request."""
    listed = app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).topics
    return [name for name in names if f"{name}.dead" in listed]


def open_letters(app: App, subscriptions: Iterable[str], *, keep_values: bool = False) -> dict[str, Found]:
    """Every open letter of subscriptions that have a dead topic: for each key the newest record, unless that is a
    tombstone.

    Reads the topics to their present ends with one consumer without a group, and nothing at all where they are empty;
    blocks. Without ``keep_values`` the letters come without their bytes, so that many of them fit into memory.
    Raises UnreachableError if the cluster stays silent.
    """
    owners = {f"{name}.dead": name for name in subscriptions}
    live: dict[str, dict[bytes, OpenLetter | None]] = {name: {} for name in owners.values()}
    for message in _records(app, owners):
        record = as_record(message)
        if record.key is None:
            continue
        name = owners[record.topic]
        if record.value is None:
            live[name].pop(record.key, None)
            continue
        letter = parse_letter(record)
        if letter is not None and not keep_values:
            letter = replace(letter, value=None, headers=tuple(h for h in letter.headers if h[0] == "ce_type"))
        live[name][record.key] = None if letter is None else OpenLetter(subscription=name, letter=letter)
    return {name: _found(records.values()) for name, records in live.items()}


def _found(records: Iterable[OpenLetter | None]) -> Found:
    all_of_them = list(records)
    letters = [found for found in all_of_them if found is not None]
    letters.sort(key=lambda found: (found.letter.first_at, found.letter.origin))
    return Found(tuple(letters), len(all_of_them) - len(letters))


def _records(app: App, topics: Iterable[str]) -> Iterator[Message]:
    from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

    from ops.lag.cluster import Cluster

    cluster = Cluster(app.admin(), app.consumer)
    counts = cluster.partition_counts(topics)
    places = [(topic, partition) for topic, count in counts.items() for partition in range(count)]
    starts, ends = cluster.starts(places), cluster.ends(places, "committed")
    # a healthy system has empty ones: they need no consumer
    waiting = {place for place in places if starts.get(place, 0) < ends.get(place, 0)}
    if not waiting:
        return
    consumer = app.consumer(fetch_wait_max_ms=10, fetch_queue_backoff_ms=10)
    consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in sorted(waiting)])
    heard = time.monotonic()
    try:
        while waiting:
            for message in consumer.consume(500, 0.05):
                heard = time.monotonic()
                error = message.error()
                place = (message.topic() or "", message.partition() or 0)
                if error is None:
                    yield message
                    if (message.offset() or 0) + 1 >= ends[place]:
                        waiting.discard(place)
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(place)
                else:
                    raise app.reading_error(error, message.topic() or "")
            if time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise app.unreachable()
    finally:
        consumer.close()


def by_cause(letters: Iterable[OpenLetter]) -> list[Cause]:
    """Letters grouped by subscription and fingerprint, the most first."""
    groups: dict[tuple[str, str], list[OpenLetter]] = {}
    for found in letters:
        groups.setdefault((found.subscription, found.letter.fingerprint), []).append(found)
    causes = [
        Cause(subscription=name, fingerprint=fingerprint, letters=tuple(found))
        for (name, fingerprint), found in groups.items()
    ]
    return sorted(causes, key=lambda cause: (-len(cause.letters), cause.subscription, cause.fingerprint))


def parked_behind(letters: Iterable[OpenLetter]) -> dict[tuple[str, str], int]:
    """How many letters are parked behind the first open one of their key, by that one's subscription and id."""
    lanes: dict[tuple[str, str, int, bytes], list[OpenLetter]] = {}
    for found in letters:
        topic, partition, _ = found.letter.origin
        if found.letter.key is not None:
            lanes.setdefault((found.subscription, topic, partition, found.letter.key), []).append(found)
    behind: dict[tuple[str, str], int] = {}
    for lane in lanes.values():
        lane.sort(key=lambda found: found.letter.origin.offset)
        waiting = sum(found.letter.outcome == "parked" for found in lane[1:])
        if waiting:
            behind[lane[0].subscription, lane[0].id] = waiting
    return behind


def matching(letters: Sequence[OpenLetter], cause: str | None) -> list[OpenLetter]:
    """The letters with this fingerprint, reason or outcome; all of them for None."""
    return [
        found
        for found in letters
        if cause is None or cause in (found.letter.fingerprint, found.letter.reason, found.letter.outcome)
    ]


def in_full(app: App, found: OpenLetter) -> dict[str, Any]:
    """One letter with everything a person may see of it. The payload is decoded (fetching its schema if need be) and
    masked by its personal-data classes; bytes that cannot be decoded are told by their length and what is wrong."""
    letter = found.letter
    event, payload = _payload(app, letter)
    type_ = event.type if event is not None else found.event
    contract = app.contracts.get(type_) if type_ is not None else None
    return {
        "id": found.id,
        "subscription": found.subscription,
        "event": type_,
        "outcome": letter.outcome,
        "reason": letter.reason,
        "detail": letter.detail,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "first_at": letter.first_at,
        "last_at": letter.last_at,
        "redrives": letter.redrives,
        "version": letter.version,
        "recorded_at": datetime.fromtimestamp(letter.timestamp / 1000, UTC),
        "recorded_by": letter.timestamp_type,
        "key": _classed(contract, contract.key if contract else "", _text(letter.key)),
        "envelope": _envelope(letter, contract),
        "payload": payload,
    }


def _payload(app: App, letter: DeadLetter) -> tuple[Event | None, Any]:
    from schemas.codec import SchemaWanted, Undecodable
    from schemas.errors import BackboneError
    from schemas.masking import mask

    if letter.omitted is not None:
        return None, {
            "omitted": "it was too large for the dead topic; it stands at its origin",
            "bytes": letter.omitted,
        }
    if letter.value is None:
        return None, None
    size = len(letter.value)
    decoded = app.decoder.decode(letter.record)
    if isinstance(decoded, SchemaWanted):
        try:
            app.decoder.load(decoded)
        except BackboneError as error:
            return None, {"undecodable": str(error), "bytes": size}
        decoded = app.decoder.decode(letter.record)
    if isinstance(decoded, SchemaWanted):
        return None, {"undecodable": "its schema cannot be loaded", "bytes": size}
    if isinstance(decoded, Undecodable):
        return None, {"undecodable": decoded.code, "detail": decoded.detail, "bytes": size}
    return decoded, mask(app.contracts.get(decoded.type), decoded.data)


def _envelope(letter: DeadLetter, contract: Contract | None) -> dict[str, str | None]:
    shown = {name: _header(letter, f"ce_{name}") for name in ENVELOPE}
    shown["subject"] = _classed(contract, contract.entity if contract else "", _header(letter, "ce_subject"))
    known = {f"ce_{name}" for name in (*ENVELOPE, "subject", "specversion")} | {"content-type"}
    # headers that are not ours may hold anything
    for name, value in letter.headers:
        if name not in known:
            shown[name] = None if value is None else NOT_SHOWN
    return {name: value for name, value in shown.items() if value is not None}


def _classed(contract: Contract | None, field: str, value: str | None) -> str | None:
    """A value that repeats a field of the payload, as that field would be shown; unknown fields are not shown."""
    if value is None:
        return None
    known = contract.fields.get(field) if contract is not None else None
    if known is None:
        return NOT_SHOWN
    return value if known.personal_data in (None, "none") else f"‹{known.personal_data}›"


def _header(letter: DeadLetter, name: str) -> str | None:
    return _text(dict(letter.headers).get(name))


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"{len(value)} bytes that are no text"


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def summary(cause: Cause, now: datetime, parked: Mapping[tuple[str, str], int]) -> Mapping[str, Any]:
    """One cause as a row: how many, since when, what the newest letter says, and how many are parked behind them
    (``parked_behind``)."""
    newest = cause.newest
    since = cause.letters[0].since
    return {
        "subscription": cause.subscription,
        "fingerprint": cause.fingerprint,
        "count": len(cause.letters),
        "parked": sum(parked.get((cause.subscription, found.id), 0) for found in cause.letters),
        "outcome": newest.outcome,
        "reason": newest.reason,
        "detail": newest.detail,
        "events": sorted({found.event or "?" for found in cause.letters}),
        "versions": sorted({found.letter.version for found in cause.letters}),
        "first_at": cause.letters[0].letter.first_at,
        "last_at": max(found.letter.last_at for found in cause.letters),
        "oldest_seconds": None if since is None else max(0, round((now - since).total_seconds())),
        "newest_id": cause.letters[-1].id,
    }
