"""What is on its way: one record's work, the partition it came from, and the bounds on all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumers.assignment import Assigned, Handover, Place
from consumers.lanes import Lane
from consumers.offsets import Ended, Entry, Tracker
from consumers.settlement import Attempts
from schemas.event import Record

if TYPE_CHECKING:
    from connectors.connector import Delivery
    from consumers.erasure import Erasure
    from consumers.heartbeat import HeldWhy
    from consumers.inbox import InboxOrder
    from consumers.pipeline import ToDeliver


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one subscription in one process; every wait and every queue has one."""

    records_max: int = 5_000
    bytes_max: int = 16 << 20
    lane_records_max: int = 1_000
    background_share: float = 0.25
    """of ``records_max``, for what comes from the inbox; and for what is caught up with, once something is live"""
    drain_s: float = 25.0
    batch_wait_s: float = 0.02
    commit_every_s: float = 1.0
    zombie_after_s: float = 10.0
    schema_wait_s: float = 300.0
    schema_retry_s: float = 31.0
    """longer than the registry's client remembers that there is no such schema (30 s), or the question is not asked"""
    slow_projection_s: float = 0.05


class Partition:
    """One partition during one assignment. ``admitting``: new calls may be made for it; ``live``: outcomes still
    count (both end with the assignment, draining lies in between). ``open``: works whose call, letter or receipt is
    out; leaving the partition waits for them. Records below ``until`` are catch-up, of the background class;
    ``catches_up``: what is read next is one of them; ``handed_over``: all of them are finished and committed.
    ``folding``: its past is folded elsewhere, nothing of it is looked at here; ``early`` is what came all the same."""

    __slots__ = (
        "admitting", "catches_up", "committed", "dirty", "early", "epoch", "folding", "handed_over", "live", "open",
        "paused", "place", "ranged", "ranging", "tracker", "unrecorded", "until",
    )  # fmt: skip

    def __init__(self, assigned: Assigned) -> None:
        self.place, self.epoch = assigned.place, assigned.epoch
        self.tracker = Tracker(assigned.offset, assigned.done)
        self.committed: tuple[int, str] | None = (assigned.offset, "")
        self.ranged = assigned.offset
        """up to here a RangeSettled was acked"""
        self.ranging = self.unrecorded = False
        self.admitting = self.live = True
        self.dirty = False
        self.paused = False
        self.folding = False
        self.early: list[Handover] = []
        self.open = 0
        self.until = 0 if assigned.until is None else assigned.until
        self.catches_up = assigned.offset < self.until
        self.handed_over = False

    @property
    def catch_up_left(self) -> int:
        """Offsets before the hand-over position that are not finished."""
        return max(0, self.until - self.tracker.committable()) if self.until and not self.handed_over else 0

    def is_committed(self, offset: int) -> bool:
        """Whether everything before ``offset`` is, as far as a commit that was sent and not refused says."""
        return self.committed is not None and self.committed[0] >= offset and not self.ranging

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
    """One record on its way; ``ready`` once it was projected. ``record`` is the record as it stood at its origin,
    ``order`` why it comes again (an inbox record). ``background`` is its class: what comes again, and what an attach
    catches up with, is asked of the vendor after what is live. ``merged`` are the older works that this one's delivery
    carries. ``open`` while its call, its dead letter or its receipt is out; ``acks`` how many of the last two."""

    __slots__ = (
        "acked", "acks", "alone", "attempts", "background", "blocked", "delivery", "doubtful", "ended", "entry",
        "erasure", "held_since", "held_why", "lane", "merged", "open", "order", "over", "partition", "ready", "reason",
        "record", "size",
    )  # fmt: skip

    lane: Lane[Work]

    def __init__(self, partition: Partition, entry: Entry, record: Record, order: InboxOrder | None = None) -> None:
        self.partition, self.entry, self.record, self.order = partition, entry, record, order
        self.background = order is not None or entry.offset < partition.until
        self.size = (len(record.value) if record.value else 0) + (len(record.key) if record.key else 0)
        self.ready: ToDeliver | None = None
        self.erasure: Erasure | None = None
        """what the vendor is asked to erase, in place of delivering an event"""
        self.delivery: Delivery | None = None
        """what is asked of the vendor: the projected one, without omitted fields, or the merged one"""
        self.merged: list[Work] = []
        self.alone = False
        """it was unmerged: it is sent by itself"""
        self.doubtful = False
        """it may have happened: the vendor is asked before it is sent again"""
        self.attempts = Attempts()
        self.open = self.over = False
        self.acks = 0
        self.acked = self.blocked = False
        """all about it is acked; one before it in its lane ended unfinished, so it must not be finished here"""
        self.ended: Ended = "delivered"
        self.held_since: float | None = None
        self.held_why: HeldWhy = "retry"
        self.reason = ""

    @property
    def source(self) -> Place:
        """The place its dead letter is about: topic and partition of its origin."""
        return self.record.topic, self.record.partition
