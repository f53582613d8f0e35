"""The invariants of a delivery, checked at the moment something becomes lasting: an application at the vendor, a
letter, a receipt, a range, a commit. Ground truth is the world's, never what our code believes.

========  ==========================================================================================================
I1        nothing is lost: an event was applied, is a dead letter, was carried by a newer one, expired, or is not ours
I2        what the vendor rejected or nobody could read was never applied
I3        per key, events are first applied in the order of the log, and none is passed over
I3b       the vendor ends with what the last event of each field said
I3p       while a key has an open letter nothing newer of it is delivered (``park_key``)
I4        nothing is committed over, or in the runs of a commit's metadata, that has no outcome that lasts
I5        a commit never steps back, and is never one of somebody who does not own the partition
I6        one key for one delivery in all its attempts; one key never with two bodies; at most one effect where the
          vendor remembers keys
I7        a letter is the event, byte for byte, however often it is written
I9        what is given up as exhausted was tried as often as the policy says; a vendor that is away uses no attempt
I0        our code does not raise
I10       after the last fault everything is finished: no lag, no letter that cannot be closed, no parked key left
I13       a receipt says what is true; ranges add up to what was published
I14       what is asked of the vendor is what the events say: field by field the newest of those that were merged
I15       what a process was told is finished when it got a partition, it does not send
I16       what is before the hand-over position of an attach is asked as background, but for a key with something live
          behind it; nothing that is live is; and the hand-over is told when all before it has an outcome that lasts
I17       nothing of a partition is committed while it is folded; what was delivered folded is not sent once more
========  ==========================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from consumers.offsets import decode_runs
from schemas.event import Origin

if TYPE_CHECKING:
    from connectors.connector import Delivery
    from consumers.assignment import Place
    from consumers.deadletter import DeadLetter
    from consumers.inbox import InboxOrder
    from consumers.receipts import RangeSettled, Receipt
    from schemas.event import Record
    from tests.simulation.world import Event, World

SOURCE = "shop.orders"
UNTAKEN = frozenset({"poison", "undecodable", "refused", "lost_schema"})
"""Natures that no vendor ever sees or takes."""
UNREADABLE = frozenset({"undecodable", "refused", "lost_schema"})
NOT_OURS = frozenset({"foreign", "filtered", "tombstone"})


class Violation(Exception):
    """An invariant does not hold. ``args``: its name, and what happened."""


class Fate:
    """What became of one event so far, as the world saw it."""

    __slots__ = (
        "applied", "discarded", "effects", "ended", "event", "failed", "lettered", "redriven", "replayed", "settled",
        "stale_letter", "superseded",
    )  # fmt: skip

    def __init__(self, event: Event) -> None:
        self.event = event
        self.applied = False
        """the vendor did it, or did a newer one that carried it"""
        self.settled = False
        """an outcome that may be committed over lasts"""
        self.lettered: set[str] = set()
        self.stale_letter = False
        """a process that did not own it any more wrote a letter"""
        self.effects: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.redriven = self.replayed = self.discarded = False
        self.failed = 0
        """answers that count as an attempt"""
        self.superseded = False
        """newer events have sent all of its fields, as a change found out"""


class Lane:
    """One key of the source: its events in order, and how far they are behind us."""

    __slots__ = ("fates", "passed")

    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self.passed = 0


class Checker:
    """``policies`` of the run are told once; everything else as it happens."""

    def __init__(self) -> None:
        self.world: World
        self.counts: Counter[str] = Counter()
        self.history: list[tuple[float, str, tuple[Any, ...]]] = []
        self.park = False
        self.attempts = 1
        self.expire_after: float | None = None
        self.starts: dict[Place, int] = {}
        self.untils: dict[Place, int] = {}
        """hand-over positions, where there is something to catch up with"""
        self._fates: dict[Origin, Fate] = {}
        self._lanes: dict[tuple[int, bytes], Lane] = {}
        self._checked: dict[Place, int] = {}
        self._told_done: dict[tuple[str, Place], tuple[int, Sequence[tuple[int, int]]]] = {}
        self._keys: dict[tuple[object, ...], str] = {}
        self._keyed: dict[str, tuple[object, ...]] = {}
        self._orders: dict[tuple[int, int], InboxOrder] = {}
        self._settled_orders: set[tuple[str, Origin]] = set()
        self._folded: dict[tuple[str, Place], set[int]] = {}
        self.excused: set[tuple[str, str]] = set()
        """rows at the vendor that an effect reached late, or that a change touched: their last state is not checked"""

    # ---- telling

    def note(self, kind: str, *what: Any) -> None:
        self.history.append((self.world.now, kind, what))

    def fail(self, invariant: str, what: str) -> None:
        raise Violation(invariant, what)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # ---- what happens

    def published(self, event: Event) -> None:
        fate = self._fates[event.origin] = Fate(event)
        key = event.record.key
        lane = self._lanes.setdefault((event.origin.partition, b"#%d" % event.number if key is None else key), Lane())
        lane.fates.append(fate)
        if event.origin.offset < self.starts.get(event.origin[:2], 0):
            fate.settled = fate.applied = True
            lane.passed = len(lane.fates)

    def fate(self, origin: Origin) -> Fate:
        return self._fates[origin]

    def ordered(self, offset: int, partition: int, order: InboxOrder) -> None:
        """A change wrote an inbox record."""
        fate = self._fates[order.origin]
        fate.redriven |= order.kind == "redrive"
        fate.discarded |= order.kind == "discarded"
        fate.superseded |= set(fate.event.fields) <= set(order.omit)
        fate.replayed |= order.kind in ("replay", "repair")
        if order.kind != "discarded":
            # What is delivered between the check of what is stale and the change is the limit (delivery.md, 5).
            self.excused.add((fate.event.action, fate.event.entity))
        self._orders[partition, offset] = order
        self.note("order", order.kind, order.change, order.origin)

    def applied(self, delivery: Delivery, carried: list[Event], *, late: bool, owner: bool) -> None:
        """The vendor did it. ``carried``: the events that this delivery is for, the newest last; ``owner``: it was
        asked by the process that owns the partition now."""
        newest = self._fates[delivery.sequence]
        row = (delivery.action, delivery.entity)
        self.note(
            "applied late" if late else "applied", delivery.sequence, dict(delivery.body), delivery.idempotency_key
        )
        mended = newest.event.nature == "poison" and self.world.mended
        if newest.event.nature in UNTAKEN | NOT_OURS and not mended:
            self.fail("I2", f"{delivery.sequence} is {newest.event.nature} and was applied")
        if late or not owner:
            # Without a version guard at the vendor it may undo what came after (delivery.md, G5).
            self.count("late effect" if late else "effect of a zombie")
            if self.world.vendor.kind != "guarded":
                self.excused.add(row)
        lane = self._lane(newest.event)
        folded = type(carried) is not list
        for event in carried:
            fate = self._fates[event.origin]
            if event.nature in UNREADABLE | NOT_OURS:
                self.fail("I2", f"{event.origin} is {event.nature} and was carried by {delivery.sequence}")
            if "rejected" in fate.lettered and not fate.redriven and event is newest.event and not mended:
                self.fail("I2", f"{event.origin} is a dead letter (rejected) and was applied")
            if self.park and owner and not late and not fate.lettered and not fate.replayed:
                self._not_parked(lane, fate)
            fate.applied = True
        if not folded:  # what is folded keeps the order of each thing, not that between the things of a key
            self._in_order(lane, newest)

    def _lane(self, event: Event) -> Lane:
        key = event.record.key
        return self._lanes[event.origin.partition, b"#%d" % event.number if key is None else key]

    def _in_order(self, lane: Lane, newest: Fate) -> None:
        fates = lane.fates
        while lane.passed < len(fates) and (fate := fates[lane.passed]).event.number <= newest.event.number:
            if not self._is_passed(fate):
                self.fail("I3", f"{newest.event.origin} was applied before {fate.event.origin}, which came earlier")
            lane.passed += 1

    def _is_passed(self, fate: Fate) -> bool:
        return (
            fate.applied or bool(fate.lettered) or fate.event.nature in NOT_OURS or "expired" in fate.ended
            or self.is_old(fate.event)
        )  # fmt: skip

    def is_old(self, event: Event) -> bool:
        return self.expire_after is not None and (self.world.wall() - event.record.timestamp / 1000 > self.expire_after)

    def _not_parked(self, lane: Lane, fate: Fate) -> None:
        if fate.event.record.key is None:
            return
        for other in lane.fates:
            if other is fate:
                return
            if other.event.origin in self.world.dead.open and not other.stale_letter and not other.discarded:
                self.fail("I3p", f"{fate.event.origin} was applied while {other.event.origin} was an open letter")

    def effect(self, delivery: Delivery) -> None:
        """The vendor's state changed by it."""
        fate = self._fates[delivery.sequence]
        fate.effects[delivery.idempotency_key] += 1
        if self.world.vendor.kind == "replay" and fate.effects[delivery.idempotency_key] > 1:
            self.fail("I6", f"{delivery.sequence} had two effects under one key")

    def took(self, process: str, place: Place, offset: int, metadata: str) -> None:
        """A process was given a partition; what it was told is finished (by a commit, which was checked)."""
        self._told_done[process, place] = (offset, decode_runs(offset, metadata))
        self._folded.pop((process, place), None)

    def answered(self, carried: list[Event]) -> None:
        """The vendor's answer counts as an attempt."""
        for event in carried:
            self._fates[event.origin].failed += 1

    def asked(self, process: str, delivery: Delivery, carried: list[Event], order: InboxOrder | None) -> None:
        """An attempt reaches the vendor: the right key, the right body."""
        if order is None:
            self._once(process, carried)
            for event in carried:
                offset, runs = self._told_done[process, event.origin[:2]]
                if event.origin.offset < offset or any(a <= event.origin.offset < b for a, b in runs):
                    self.fail("I15", f"{process} asks for {event.origin}, and was told that it is finished")
        if len(carried) > 1:
            self.count("folded call" if type(carried) is not list else "merged call")
        left_out = () if order is None else tuple(sorted(set(order.omit) & set(carried[-1].fields)))
        deliveries = (*(event.number for event in carried), "" if order is None else order.revision, left_out)
        key = self._keys.setdefault(deliveries, delivery.idempotency_key)
        if key != delivery.idempotency_key:
            self.fail("I6", f"{delivery.sequence} was asked with the key {key} and with {delivery.idempotency_key}")
        if self._keyed.setdefault(key, deliveries) != deliveries:
            self.fail("I6", f"the key {key} is for {deliveries} and for {self._keyed[key]}")
        newest = carried[-1]
        fields: dict[str, int] = {}
        for event in carried:
            if (event.action, event.entity) != (newest.action, newest.entity):
                self.fail("I14", f"{event.origin} was merged into {newest.origin}, which is about something else")
            fields |= dict.fromkeys(event.fields, event.number)
        if order is not None:
            fields = {name: value for name, value in fields.items() if name not in order.omit}
        sent = delivery.body["row"] if newest.action == "row" else delivery.body
        if sent != fields or (delivery.action, delivery.entity) != (newest.action, newest.entity):
            self.fail("I14", f"{newest.origin} was asked with {dict(delivery.body)}, not with {fields}")

    def classed(self, background: bool, asked: Sequence[tuple[Record, InboxOrder | None]]) -> None:
        """A call is made in the background's turn, or in that of what is live."""
        for record, order in asked:
            if order is not None:
                continue
            until = self.untils.get((record.topic, record.partition), 0)
            if background and record.offset >= until:
                self.fail("I16", f"{record.origin} is live and waited for the background's turn")
            if background:
                self.count("caught up with")
            elif record.offset < until:
                fates = self._lane(self.fate(record.origin).event).fates
                if all(fate.event.origin.offset < until for fate in fates):
                    self.fail("I16", f"{record.origin} is before the hand-over at {until} and took a live turn")
                self.count("caught up with as live")

    def caught_up(self, process: str, place: Place) -> None:
        """A process says that a partition is handed over to live."""
        self.note("caught up", process, place)
        self.count("handed over")
        if self.world.group.committed.get(place, (0, ""))[0] < self.untils[place]:
            self.count("handed over before the commit was taken")
        for record in self.world.logs[place].slots[self.starts[place] : self.untils[place]]:
            if record is not None and not self._lasts(place, record.offset):
                self.fail("I16", f"{process} says {place} has caught up, and {record.offset} has no outcome yet")

    def _once(self, process: str, carried: list[Event]) -> None:
        """What a process has delivered as one, folded, it does not send again in the same assignment."""
        gone = self._folded.get((process, carried[-1].origin[:2]))
        if gone is not None and type(carried) is list:
            for event in carried:
                if event.number in gone:
                    self.fail("I17", f"{process} sends {event.origin}, which was folded into what it has delivered")

    def lettered(self, letter: DeadLetter, *, owner: bool) -> None:
        """A dead letter lasts."""
        fate = self._fates[letter.origin]
        record = fate.event.record
        self.note("letter", letter.origin, letter.outcome, letter.reason, letter.redrives)
        self.count(f"letter {letter.outcome}")
        bytes_of = (letter.key, letter.value, letter.headers, letter.timestamp, letter.timestamp_type)
        if bytes_of != (record.key, record.value, record.headers, record.timestamp, record.timestamp_type):
            self.fail("I7", f"the letter of {letter.origin} is not its record: {bytes_of}")
        if letter.outcome in ("rejected", "undecodable"):
            if fate.event.nature not in UNTAKEN:
                self.fail("I2", f"{letter.origin} is {fate.event.nature} and was set aside as {letter.outcome}")
            if fate.applied and fate.event.nature in UNREADABLE:
                self.fail("I2", f"{letter.origin} was applied and is set aside as {letter.outcome}")
        if fate.event.nature in NOT_OURS:
            self.fail("I2", f"{letter.origin} is not ours and was set aside")
        if letter.outcome == "exhausted" and fate.failed < self.attempts:
            self.fail("I9", f"{letter.origin} was given up after {fate.failed} attempts of {self.attempts}")
        fate.lettered.add(letter.outcome)
        fate.stale_letter = not owner
        fate.ended.add("parked" if letter.outcome == "parked" else "dead")
        if not self.world.receipts:
            fate.settled = True

    def closed(self, origin: Origin, by_person: bool) -> None:
        """A letter's tombstone lasts."""
        fate = self._fates[origin]
        self.note("closed", origin, "by a person" if by_person else "")
        with_reason = by_person or fate.discarded or fate.superseded or self.is_old(fate.event)
        if not fate.applied and not with_reason:
            self.fail("I1", f"the letter of {origin} was closed, and it was never applied")

    def confirmed(self, process: str, delivery: Delivery, carried: list[Event]) -> None:
        """Our code was told Delivered. Without receipts this is what lasts."""
        if type(carried) is not list:
            numbers = self._folded.setdefault((process, delivery.sequence[:2]), set())
            numbers.update(event.number for event in carried)
        if not self.world.receipts:
            for event in carried:
                fate = self._fates[event.origin]
                fate.settled = True
                fate.ended.add("delivered" if event.origin == delivery.sequence else "merged")

    def receipt(self, receipt: Receipt) -> None:
        """A receipt lasts."""
        origin = receipt.record.origin
        fate = self._fates[origin]
        outcome, reason, order = receipt.outcome, receipt.reason, receipt.order
        carrier = None if receipt.merged_into is None else self.world.events[int(receipt.merged_into)].origin
        self.note("receipt", origin, outcome, reason, carrier, None if order is None else order.change)
        self.count(f"receipt {outcome}" + (f" {reason}" if outcome == "skipped" else ""))
        match outcome, reason:
            case "delivered", _:
                if not fate.applied:
                    self.fail("I13", f"the receipt says {origin} was delivered, and it was not applied")
                fate.ended.add("delivered")
            case "skipped", "merged":
                if carrier is None or not fate.applied or not self._fates[carrier].applied:
                    self.fail("I13", f"the receipt says {origin} was merged into {carrier}, which was not applied")
                fate.ended.add("merged")
            case "skipped", "expired":
                if not self.is_old(fate.event):
                    self.fail("I13", f"the receipt says {origin} expired, and it is not old")
                fate.ended.add("expired")
            case "skipped", ("superseded" | "discarded"):
                fate.ended.add(str(reason))
            case (("rejected" | "undecodable" | "exhausted" | "unknown" | "parked"), _):
                if outcome not in fate.lettered:
                    self.fail("I13", f"the receipt says {origin} is a dead letter ({outcome}), and there is none")
            case _:
                self.fail("I13", f"the receipt of {origin} says {outcome} {reason}")
        fate.settled = True
        if order is not None:
            self._settled_orders.add((order.change, origin))

    def ranged(self, process: str, settled: RangeSettled) -> None:
        """A range lasts: from, to, and what became of every record in between."""
        place, counts = settled.place, settled.counts
        slots = self.world.logs[place].slots[settled.start : settled.end]
        records = [record for record in slots if record is not None]
        self.note("range", process, place, settled.start, settled.end, dict(counts))
        self.count("range")
        if sum(counts.values()) != len(records):
            self.fail(
                "I13",
                f"{process} says of {place} {settled.start} to {settled.end}: {dict(counts)}, and there are "
                f"{len(records)} records",
            )
        if place[0] != SOURCE:
            return
        could_be: Counter[str] = Counter()
        for record in records:
            fate = self._fates[record.origin]
            could_be.update(fate.ended)
            if fate.event.nature in NOT_OURS:
                could_be["not_ours"] += 1
        for name, count in counts.items():
            if name != "earlier" and count > could_be[name]:
                self.fail("I13", f"{process} says {count} {name} of {place}, and at most {could_be[name]} can be")

    def sent_later(self, event: Event) -> tuple[str, ...]:
        """What the ledger answers: fields of the same thing that later events have sent."""
        return tuple(sorted({
            name
            for fate in self._lane(event).fates
            if fate.applied and fate.event.number > event.number
            and (fate.event.action, fate.event.entity) == (event.action, event.entity) and event.action != "post"
            for name in fate.event.fields
        }))  # fmt: skip

    # ---- commits

    def committed(
        self, process: str, owner: bool, place: Place, before: int | None, offset: int, metadata: str
    ) -> None:
        """The broker took a commit."""
        self.note("commit", process, place, offset, metadata)
        if not owner:
            self.fail("I5", f"{process} committed {place} at {offset}, which it does not own")
        if before is not None and offset < before:
            self.fail("I5", f"{process} moved {place} back from {before} to {offset}")
        log = self.world.logs[place]
        if offset > log.end:
            self.fail("I4", f"{process} committed {place} at {offset}, and the log ends at {log.end}")
        at = self._checked.get(place, self.starts.get(place, 0))
        for record in log.slots[at:offset]:
            if record is not None and not self._lasts(place, record.offset):
                self.fail("I4", f"{process} committed {place} at {offset}, and {record.offset} has no outcome yet")
        self._checked[place] = max(at, offset)
        if metadata:
            self._check_runs(process, place, offset, decode_runs(offset, metadata))

    def _check_runs(self, process: str, place: Place, offset: int, runs: Sequence[tuple[int, int]]) -> None:
        self.count("runs committed")
        unfinished: set[int] = set()
        slots = self.world.logs[place].slots
        for start, end in runs:
            for record in slots[offset:end]:
                if record is None:
                    continue
                done = record.offset >= start
                if done and not self._lasts(place, record.offset):
                    self.fail("I4", f"{process} says {place} {record.offset} is done, and it has no outcome yet")
                if place[0] != SOURCE or (event := self._fates[record.origin].event).nature in NOT_OURS:
                    continue
                if not done:
                    unfinished.add(id(self._lane(event)))
                elif id(self._lane(event)) in unfinished:
                    # Whoever is next sends what is before it again, and not this one: it would end with what is older.
                    self.fail("I3b", f"{process} says {place} {record.offset} is done, and not what its key had before")
            offset = end

    def _lasts(self, place: Place, offset: int) -> bool:
        if place[0] == SOURCE:
            fate = self._fates[Origin(*place, offset)]
            without = not self.world.receipts and self.is_old(fate.event)  # nobody is told that it expired
            return fate.settled or fate.event.nature in NOT_OURS or without
        order = self._orders[place[1], offset]
        return not self.world.receipts or (order.change, order.origin) in self._settled_orders

    # ---- the end

    def finished(self) -> None:
        """Every fault is healed, every letter was closed by a person or by its delivery, and nothing is on its way."""
        for place, log in self.world.logs.items():
            offset = self.world.group.committed.get(place, (0, ""))[0]
            if offset != log.end:
                self.fail("I10", f"{place} stands at {offset}, and the log ends at {log.end}")
        for fate in self._fates.values():
            if not self._lasts(fate.event.origin[:2], fate.event.origin.offset):
                self.fail("I1", f"{fate.event.origin} has no outcome")
            if not self._is_passed(fate):
                self.fail("I1", f"{fate.event.origin} is lost: {fate.ended}")
        self._last_state()

    def _last_state(self) -> None:
        last: dict[tuple[str, str], dict[str, Fate]] = {}
        blurred: set[tuple[str, str, str]] = set()
        for fate in self._fates.values():
            event = fate.event
            if event.nature in NOT_OURS | UNREADABLE or event.origin.offset < self.starts[event.origin[:2]]:
                continue
            row = (event.action, event.entity)
            for name in event.fields:
                if fate.lettered or "expired" in fate.ended or self.is_old(event):
                    # it may or may not have been applied: what it set is not known, until a newer one sets it
                    if event.nature != "poison" or self.world.mended:
                        blurred.add((*row, name))
                    continue
                last.setdefault(row, {})[name] = fate
                blurred.discard((*row, name))
        for row, fields in last.items():
            if row in self.excused:
                continue
            for name, fate in fields.items():
                found = self.world.vendor.rows.get(row, {}).get(name)
                if (*row, name) not in blurred and found != fate.event.number:
                    self.fail("I3b", f"{row} ends with {name} of {found}, and {fate.event.number} was the last")
