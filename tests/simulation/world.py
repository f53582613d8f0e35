"""What is outside of our code, simulated: topics, the group's coordinator, and a vendor that records what it applied.

Nothing here is random or timed by itself: the schedule (``schedule.py``) decides what happens and when, from one
``random.Random(seed)``. What happened is told to the checker at the moment it happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from connectors.connector import Delivery
from consumers.assignment import Place
from consumers.control import AttachedSubscription, Definition, Start, State
from consumers.deadletter import DeadLetter
from consumers.inbox import InboxRecord
from schemas.event import Origin, Record
from tests.simulation.checker import SOURCE, Checker

NAME = "sim"
INBOX = f"{NAME}.inbox"
EPOCH_S = 1_700_000_000.0
"""The wall clock when the virtual clock is 0."""

Nature: TypeAlias = Literal[
    "fine", "poison", "undecodable", "refused", "foreign", "filtered", "tombstone", "new_schema", "lost_schema"
]
"""``poison``: the vendor does not take it until it is mended; ``refused``: its projection fails; ``foreign``: no route
reads its type; ``filtered``: read, but no route fits; ``new_schema``, ``lost_schema``: its schema is not in memory, or
nowhere."""

VendorKind: TypeAlias = Literal["upsert", "guarded", "replay", "none"]
"""What the vendor does with a delivery it had: writes it again; writes it unless it has a newer one; answers as
before without doing anything; does it again."""


class Event:
    """One published event, and what the vendor would be asked for it: ``fields`` are set to its number."""

    __slots__ = ("action", "entity", "fields", "nature", "number", "origin", "record")

    def __init__(
        self, number: int, record: Record, nature: Nature, action: str, entity: str, fields: tuple[str, ...]
    ) -> None:
        self.number, self.record, self.nature = number, record, nature
        self.action, self.entity, self.fields = action, entity, fields
        self.origin = record.origin


class Log:
    """One partition: records at offsets, None where a transaction marker or a hole is."""

    __slots__ = ("place", "slots")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.slots: list[Record | None] = []

    @property
    def end(self) -> int:
        return len(self.slots)

    def hole(self) -> None:
        self.slots.append(None)

    def read(self, position: int, records_max: int, over_markers: bool) -> tuple[list[Record], int]:
        """Records from ``position`` on, and the position behind them. The markers that follow the last record are
        stepped over only with ``over_markers``: a client learns of them with a later, empty fetch."""
        records: list[Record] = []
        slots = self.slots
        for offset in range(position, len(slots)):
            record = slots[offset]
            if record is not None:
                if len(records) == records_max:
                    return records, position
                records.append(record)
                position = offset + 1
        return records, len(slots) if over_markers else position


class Member:
    """One member of the group as the coordinator knows it. ``epoch`` is new with every joining."""

    __slots__ = ("epoch", "name", "owned")

    def __init__(self, name: str, epoch: int) -> None:
        self.name, self.epoch = name, epoch
        self.owned: set[int] = set()


class Group:
    """The coordinator. It fences as a broker does: a commit of somebody who is no member is refused; one of a member
    is taken for *any* partition, backwards too (facts, "Clients on a real broker")."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._epoch = 0
        self.members: dict[str, Member] = {}
        self.owners: dict[int, str] = {}
        self.committed: dict[Place, tuple[int, str]] = {}
        self.rotation = 0

    def join(self, name: str) -> int:
        self._epoch += 1
        self.members[name] = Member(name, self._epoch)
        return self._epoch

    def leave(self, name: str) -> None:
        member = self.members.pop(name, None)
        if member is not None:
            for partition in member.owned:
                self.owners.pop(partition, None)

    def is_member(self, name: str, epoch: int) -> bool:
        member = self.members.get(name)
        return member is not None and member.epoch == epoch

    def target(self, partition: int) -> str | None:
        """Who is to have a partition number (of every topic: the sources and the inbox are co-partitioned)."""
        names = sorted(self.members)
        return names[(partition + self.rotation) % len(names)] if names else None

    def give(self, partition: int, name: str) -> None:
        self.owners[partition] = name
        self.members[name].owned.add(partition)

    def take(self, partition: int, name: str) -> None:
        if self.owners.get(partition) == name:
            del self.owners[partition]
        if name in self.members:
            self.members[name].owned.discard(partition)

    def commit(self, name: str, epoch: int, place: Place, offset: int, metadata: str) -> str | None:
        """None when it is taken, else Kafka's name of why it is not."""
        if not self.is_member(name, epoch):
            return "UNKNOWN_MEMBER_ID"
        before = self.committed.get(place)
        self.committed[place] = (offset, metadata)
        owner = self.owners.get(place[1]) == name
        self._checker.committed(name, owner, place, None if before is None else before[0], offset, metadata)
        return None


class DeadTopic:
    """``<name>.dead``: compacted, so its live keys are the open letters."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self.open: dict[Origin, DeadLetter] = {}
        self.away = False

    def write(self, letter: DeadLetter, *, owner: bool) -> None:
        self.open[letter.origin] = letter
        self._checker.lettered(letter, owner=owner)

    def close(self, origin: Origin, by_person: bool = False) -> None:
        if self.open.pop(origin, None) is not None:
            self._checker.closed(origin, by_person)


class Vendor:
    """Records what it *applied*, whatever it answers. ``rows`` are its state: entity to fields to the number of the
    event that set them."""

    def __init__(self, kind: VendorKind, checker: Checker) -> None:
        self.kind = kind
        self._checker = checker
        self._keys: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.effects: dict[str, int] = {}
        self.away = False
        self.stopped = False

    def apply(self, delivery: Delivery, carried: list[Event], *, late: bool, owner: bool) -> None:
        """Do what is asked, as this kind of vendor does it. ``carried``: the events it is for, the newest last."""
        key, body, row = delivery.idempotency_key, delivery.body, (delivery.action, delivery.entity)
        self._checker.applied(delivery, carried, late=late, owner=owner)
        if self.kind == "replay":
            before = self._keys.setdefault(key, (delivery.entity, body))
            if before != (delivery.entity, body):
                self._checker.fail("I6", f"the key {key} came with {dict(before[1])} and with {dict(body)}")
            if key in self.effects:
                return
        self.effects[key] = self.effects.get(key, 0) + 1
        self._checker.effect(delivery)
        if self.kind == "guarded":
            version = delivery.sequence.offset
            if version < self._versions.get(row, -1):
                return
            self._versions[row] = version
        self.rows.setdefault(row, {}).update(body["row"] if delivery.action == "row" else body)

    def has(self, delivery: Delivery) -> bool:
        """Whether this delivery was done (what a look-up finds)."""
        return delivery.idempotency_key in self.effects


class World:
    """Everything that outlives a process."""

    def __init__(self, *, partitions: int, kind: VendorKind, receipts: bool, checker: Checker) -> None:
        self.now = 0.0
        self.partitions = partitions
        self.checker = checker
        checker.world = self
        self.logs: dict[Place, Log] = {
            (topic, partition): Log((topic, partition)) for topic in (SOURCE, INBOX) for partition in range(partitions)
        }
        self.events: list[Event] = []
        self.by_value: dict[bytes, Event] = {}
        self.group = Group(checker)
        self.dead = DeadTopic(checker)
        self.vendor = Vendor(kind, checker)
        self.receipts = receipts
        self.receipts_away = self.registry_away = self.healed = self.mended = False
        self.attached = AttachedSubscription(name=NAME)
        """as ``backbone.control`` has it"""

    def wall(self) -> float:
        return EPOCH_S + self.now

    def publish(
        self, partition: int, key: bytes | None, nature: Nature, action: str, entity: str, fields: tuple[str, ...]
    ) -> Event:
        log = self.logs[SOURCE, partition]
        number = len(self.events)
        value = None if nature == "tombstone" else b"e%d" % number
        timestamp = int(self.wall() * 1000)
        record = Record(SOURCE, partition, log.end, key, value, (("n", b"%d" % number),), timestamp)
        log.slots.append(record)
        event = Event(number, record, nature, action, entity, fields)
        self.events.append(event)
        if value is not None:
            self.by_value[value] = event
        self.checker.published(event)
        return event

    def event_of(self, record: Record) -> Event:
        """The event of a record as it stands at its origin."""
        return self.checker.fate(record.origin).event

    def event_at(self, origin: Origin) -> Event:
        return self.checker.fate(origin).event

    def attach(self, definition: Definition, starts: Mapping[Place, Start]) -> None:
        self.attached = replace(self.attached, definition=definition, starts=starts)

    def started(self, place: Place, start: Start) -> None:
        """A worker has committed a recorded start."""
        self.attached = replace(self.attached, starts={**self.attached.starts, place: start})

    def stopped(self, reason: str) -> None:
        """A worker writes that the subscription cannot go on."""
        self.state("stopped", reason)

    def state(self, state: Literal["running", "paused", "stopped"], reason: str = "", accept: int = 0) -> None:
        self.checker.note("control", state, reason)
        self.attached = replace(self.attached, state=State(state=state, reason=reason, accept=accept))

    def order(self, record: InboxRecord) -> int:
        """Write a record of a change to the inbox; its offset."""
        log = self.logs[INBOX, record.partition]
        offset = log.end
        log.slots.append(
            Record(
                INBOX, record.partition, offset, record.key, record.value, tuple(record.headers),
                int(self.wall() * 1000),
            )
        )  # fmt: skip
        return offset
