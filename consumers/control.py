"""The topic ``backbone.control``: what is attached, where it starts, and whether it runs. Pure: records in, view out.

One partition, compacted, JSON values. It is the state that a restart needs and that Kafka's own offsets do not hold.
Keys, and who writes them:

===================================  ==========================================================  ================
key                                  value                                                       written by
===================================  ==========================================================  ================
``subscription|NAME``                Definition; a tombstone: detached                           attach, detach
``subscription|NAME|state``          State: running, paused, stopped(reason)                     people, workers
``subscription|NAME|start|T/P``      Start of partition P of topic T: pending or started         attach, workers
``subscription|NAME|leave``          Leave: our workers stay out of the group until then         rewind
``connection|NAME``                  State of a vendor connection                                people, workers
``erased|HASH``                      ErasedPerson: events that arrived before are not sent       erase
``change|ID``                        Steering: what is wanted of a change that runs              people
===================================  ==========================================================  ================

State, start and leave have keys of their own so that nobody has to read, modify and write what another one writes.
A key or value that cannot be read is ignored and counted in ``Control.unreadable``: a newer version may have
written it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, TypeVar

from consumers.erased import Erased, ErasedPerson

TOPIC = "backbone.control"
T = TypeVar("T")

ControlRecord: TypeAlias = tuple[bytes, bytes | None]
"""Key and value as they are produced to ``TOPIC``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What was attached: the file's text, its version, and what was frozen at that moment.

    ``events`` are the event types read (wildcards resolved); ``topics`` maps each source topic to the partition count
    it had; ``projections`` maps projection files to the SHA-256 of their bytes; ``weight`` is its part of the
    connection's quota, against the other subscriptions on it."""

    text: str
    version: str
    author: str
    at: str
    connection: str
    events: tuple[str, ...]
    topics: Mapping[str, int]
    projections: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Whether it runs. ``reason`` is a sentence; ``accept`` is how many rejections may pass after a resume."""

    state: Literal["running", "paused", "stopped"]
    reason: str = ""
    by: str = ""
    at: str = ""
    accept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a partition is read from when its group has no commit yet; ``started`` once a worker has committed it:
    from then on a missing commit is a loss to report, not a reason to start again.

    ``until`` is the hand-over position: the partition's end when the attach was applied. What lies below it is
    catch-up, whatever brings a reader there (a rewind, too). None: nothing was to be caught up with, or an older
    version wrote the record. ``caught_up_at``: when the partition was first committed at ``until`` or beyond, so that
    from there on it was live; empty until then. ``fold``: until then, all that is about one thing at the vendor goes as
    one delivery (``consumers/folding.py``)."""

    offset: int
    state: Literal["pending", "started"]
    at: str = ""
    until: int | None = None
    fold: bool = False
    caught_up_at: str = ""

    @property
    def catches_up(self) -> bool:
        """Whether the hand-over to live is still to come."""
        return self.until is not None and not self.caught_up_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A request to our workers to leave the group until ``until`` (UTC, ISO 8601, at most 10 minutes ahead)."""

    change: str
    until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What people want of a change that runs, on whatever machine; the process that applies it follows. ``rate`` is a
    number a second; None: as planned, 0: no limit. ``by`` and ``at``: who said so last, and when."""

    state: Literal["running", "paused", "cancelled"] = "running"
    rate: float | None = None
    by: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSubscription:
    """One subscription as the control topic has it. ``definition`` None: detached, or never attached."""

    name: str
    definition: Definition | None = None
    state: State = State(state="running")
    starts: Mapping[tuple[str, int], Start] = field(default_factory=dict)
    leave: Leave | None = None

    @property
    def catching_up(self) -> tuple[tuple[str, int], ...]:
        """The partitions whose hand-over to live is not recorded yet."""
        return tuple(sorted(place for place, start in self.starts.items() if start.catches_up))

    @property
    def handed_over_at(self) -> str:
        """When the last partition was handed over; empty while one catches up, and where none had to."""
        return "" if self.catching_up else max((start.caught_up_at for start in self.starts.values()), default="")

    def away_at(self, now: datetime) -> bool:
        """Whether our workers are asked to stay out of the group at ``now``."""
        if self.leave is None:
            return False
        try:
            return now < datetime.fromisoformat(self.leave.until)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSnapshot:
    """Everything the topic says at one moment. ``subscriptions`` holds the attached ones only."""

    subscriptions: Mapping[str, AttachedSubscription]
    connections: Mapping[str, State]
    detached: Mapping[str, AttachedSubscription]
    erased: Mapping[str, ErasedPerson] = field(default_factory=dict)
    changes: Mapping[str, Steering] = field(default_factory=dict)


class Control:
    """The fold of the topic: feed it every record in order, ask for a snapshot. Not thread-safe, but for ``erased``,
    which others may look into meanwhile."""

    def __init__(self, erased: Erased | None = None) -> None:
        self._subscriptions: dict[str, AttachedSubscription] = {}
        self._connections: dict[str, State] = {}
        self._changes: dict[str, Steering] = {}
        self._erased = erased or Erased()
        self.unreadable = 0

    def apply(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take one record in; the name of the subscription or connection it was about, None if it was about neither
        or cannot be read."""
        try:
            kind, name, *rest = (key or b"").decode().split("|")
            content = None if value is None else json.loads(value)
            if kind == "connection" and not rest:
                if content is None:
                    self._connections.pop(name, None)
                else:
                    self._connections[name] = _of(State, content)
                return name
            if kind == "erased" and not rest:
                events = () if content is None else tuple(content["events"])
                self._erased.put(name, None if content is None else _of(ErasedPerson, content | {"events": events}))
                return None
            if kind == "change" and not rest:
                if content is None:
                    self._changes.pop(name, None)
                else:
                    self._changes[name] = _steering(content)
                return None
            if kind == "subscription":
                self._subscriptions[name] = _changed(
                    self._subscriptions.get(name, AttachedSubscription(name=name)), rest, content
                )
                return name
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.unreadable += 1
            return None
        self.unreadable += 1
        return None

    def snapshot(self) -> ControlSnapshot:
        return ControlSnapshot(
            subscriptions={n: s for n, s in sorted(self._subscriptions.items()) if s.definition is not None},
            connections=dict(self._connections),
            detached={n: s for n, s in sorted(self._subscriptions.items()) if s.definition is None},
            erased=self._erased.people,
            changes=dict(self._changes),
        )


def _of(kind: type[T], content: dict[str, Any]) -> T:
    """The dataclass; fields that a newer version has added are left out."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in content.items() if name in known})


def _steering(content: dict[str, Any]) -> Steering:
    """Raises ValueError for what nobody could follow: a word that is none, a rate that is no number."""
    found = _of(Steering, content)
    is_rate = found.rate is None or (type(found.rate) in (int, float) and 0 <= found.rate < float("inf"))
    if found.state not in ("running", "paused", "cancelled") or not is_rate:
        raise ValueError("no steering")
    return found


def _changed(subscription: AttachedSubscription, rest: list[str], content: Any) -> AttachedSubscription:
    if not rest:
        if content is None:
            return replace(subscription, definition=None)
        return replace(subscription, definition=_of(Definition, content | {"events": tuple(content["events"])}))
    match rest:
        case ["state"]:
            return replace(subscription, state=State(state="running") if content is None else _of(State, content))
        case ["leave"]:
            return replace(subscription, leave=None if content is None else _of(Leave, content))
        case ["start", place]:
            topic, _, partition = place.rpartition("/")
            starts = dict(subscription.starts)
            if content is None:
                starts.pop((topic, int(partition)), None)
            else:
                starts[topic, int(partition)] = _of(Start, content)
            return replace(subscription, starts=starts)
    raise ValueError(f"unknown key part {rest[0]}")


@dataclass(frozen=True, slots=True)
class Begin:
    """Where to read a partition from. ``offset`` None: its beginning, or with ``at_end`` its end. ``first``: nobody has
    committed it yet, so it is committed at once and its start marked started. ``until`` as in ``Start``; ``fold``: what
    lies below it is folded first."""

    offset: int | None
    first: bool
    at_end: bool = False
    until: int | None = None
    fold: bool = False


@dataclass(frozen=True, slots=True)
class NoPosition:
    """Nobody knows where to go on: the subscription stops and says so; nothing restarts by itself."""

    reason: str


def inbox_topic(name: str) -> str:
    """The inbox of a subscription; one partition count with its sources."""
    return f"{name}.inbox"


def begin_at(
    subscription: AttachedSubscription, topic: str, partition: int, committed: int | None
) -> Begin | NoPosition:
    """Where one newly assigned partition is read from; ``committed`` is the group's offset, None without one."""
    start = subscription.starts.get((topic, partition))
    until = None if start is None else start.until
    fold = start is not None and start.fold and not start.caught_up_at
    if committed is not None:
        return Begin(committed, first=False, until=until, fold=fold)
    name = subscription.name
    if topic == inbox_topic(name):
        # What was in it and is not committed any more is not lost: its dead letter is open, its change knows of it.
        return Begin(None, first=True, at_end=start is not None)
    if start is not None and start.state == "pending":
        return Begin(start.offset, first=True, until=until, fold=fold)
    if start is not None:
        return NoPosition(
            f"the committed position of {topic}/{partition} is gone (a group that is empty for 7 days loses its "
            f"offsets); it began at {start.offset}. Choose where to go on: backbone rewind {name} --to POSITION, then: "
            f"backbone subscription resume {name}"
        )
    attached_with = 0 if subscription.definition is None else subscription.definition.topics.get(topic, 0)
    if attached_with and partition >= attached_with:
        return Begin(None, first=True)  # a partition that was added later: all of it is new
    return NoPosition(
        f"no start is recorded for {topic}/{partition}. Attach it with one: "
        f"backbone subscription attach {name} --from earliest|latest|@TIME"
    )


def definition_record(name: str, definition: Definition | None) -> ControlRecord:
    """The record that attaches (or with None detaches) a subscription."""
    return _record(f"subscription|{name}", definition)


def state_record(name: str, state: State) -> ControlRecord:
    """The record that lets a subscription run, pauses it or says that it stopped."""
    return _record(f"subscription|{name}|state", state)


def start_record(name: str, topic: str, partition: int, start: Start | None) -> ControlRecord:
    """The record of where one partition starts; None forgets it."""
    return _record(f"subscription|{name}|start|{topic}/{partition}", start)


def leave_record(name: str, leave: Leave | None) -> ControlRecord:
    """The record that asks our workers to leave the group, or with None to come back."""
    return _record(f"subscription|{name}|leave", leave)


def connection_record(name: str, state: State | None) -> ControlRecord:
    """The record of a connection's state; None forgets it (it runs)."""
    return _record(f"connection|{name}", state)


def erased_record(mark: str, person: ErasedPerson) -> ControlRecord:
    """The record that says who was erased, and when."""
    return _record(f"erased|{mark}", person)


def steering_record(change_id: str, steering: Steering | None) -> ControlRecord:
    """The record of what is wanted of a change; None once it has ended."""
    return _record(f"change|{change_id}", steering)


def _record(key: str, content: Definition | State | Start | Leave | ErasedPerson | Steering | None) -> ControlRecord:
    value = None if content is None else json.dumps(asdict(content), ensure_ascii=False, sort_keys=True).encode()
    return key.encode(), value


def timestamp(now: datetime | None = None) -> str:
    """The form of ``at`` and ``until``: UTC, ISO 8601, seconds."""
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
