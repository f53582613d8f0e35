"""What is on its way: one record's work, the partition it came from, and the bounds on all of it."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.connector import Delivery
from consumers.kafka import Assigned
from consumers.lanes import Lane
from consumers.offsets import Entry, Tracker
from consumers.settlement import Attempts
from schemas.event import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one subscription in one process; every wait and every queue has one."""

    records_max: int = 5_000
    bytes_max: int = 16 << 20
    lane_records_max: int = 1_000
    drain_s: float = 25.0
    batch_wait_s: float = 0.02
    commit_every_s: float = 1.0
    zombie_after_s: float = 10.0
    schema_wait_s: float = 300.0
    schema_retry_s: float = 30.0
    slow_projection_s: float = 0.05


class Partition:
    """One partition during one assignment. ``admitting``: new calls may be made for it; ``live``: outcomes still
    count (both end with the assignment, draining lies in between)."""

    __slots__ = ("admitting", "committed", "dirty", "epoch", "in_flight", "live", "paused", "place", "tracker")

    def __init__(self, assigned: Assigned) -> None:
        self.place, self.epoch = assigned.place, assigned.epoch
        self.tracker = Tracker(assigned.offset, assigned.done)
        self.committed: tuple[int, str] | None = (assigned.offset, "")
        self.admitting = self.live = True
        self.dirty = False
        self.paused = False
        self.in_flight = 0

    def take_due(self) -> tuple[int, str] | None:
        """The offset and metadata to commit now, which then count as committed; None when nothing has changed."""
        if not self.dirty or not self.live:
            return None
        self.dirty = False
        due = (self.tracker.committable(), self.tracker.metadata())
        if due == self.committed:
            return None
        self.committed = due
        return due

    def not_committed(self) -> None:
        """The broker did not take the last commit, or it is not known: what is due then is due whatever it is."""
        self.committed = None
        self.dirty = True


class Work:
    """One record on its way; ``delivery`` once it was projected. ``in_flight``: a call or its dead letter is out."""

    __slots__ = (
        "attempts", "delivery", "entry", "event_time", "event_type", "in_flight", "lane", "partition", "record",
        "succeeded",
    )  # fmt: skip

    lane: Lane[Work]

    def __init__(self, partition: Partition, entry: Entry, record: Record) -> None:
        self.partition, self.entry, self.record = partition, entry, record
        self.delivery: Delivery | None = None
        self.event_type = ""
        self.event_time = 0.0
        self.attempts = Attempts()
        self.in_flight = False
        self.succeeded = 0
