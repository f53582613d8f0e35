"""A flow without Kafka, vendor or clock: the test hands records and answers in, and acks what the flow writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.connector import Delivered, Delivery, Outcome, Rejected
from consumers import facts
from consumers.assignment import Assigned, Commit, Handover, Place
from consumers.batches import Batch
from consumers.deadletter import DeadLetter
from consumers.erased import Erased
from consumers.erasure import Unseal
from consumers.flow import Flow, Settled
from consumers.inbox import InboxOrder, inbox_record
from consumers.pipeline import NotOurs, Projection, Refused, ToDeliver
from consumers.receipts import RangeSettled, Receipt
from consumers.subscription import Policies, Retry, Route, Subscription
from consumers.work import Limits, Work
from schemas.codec import SchemaWanted
from schemas.event import Event, Origin, Record
from tests.consumers.shop import NOTES

NOW = 1_800_000_000.0
ROUTE = Route(events=("shop.Ordered",), fits=None, project=lambda _: None, action=None, reads=None, source={})
POLICIES = Policies(slo=timedelta(seconds=60), retry=Retry(), on_unknown="resend")


def subscription(*, batch_max: int = 1, **policies: Any) -> Subscription:
    return Subscription(
        name="orders", description="", owner="", connection="crm",
        connector=replace(NOTES, batch_max=batch_max), policies=replace(POLICIES, **policies),
        routes={}, contracts={}, version="abc123", text="", projection_hashes={}, personal_data_allowed=frozenset(),
    )  # fmt: skip


class JsonPipeline:
    """Stands for route, decode and project: a record's value is the delivery, in JSON; ``no`` is not ours, ``bad`` is
    refused. ``routed`` says by what route it goes."""

    def __init__(self) -> None:
        self.routed: Callable[[Any], Route] = lambda _: ROUTE

    def route(self, record: Record) -> bool:
        return record.value != b"no"

    def project(self, record: Record, revision: str = "") -> Projection:
        if record.value == b"where":
            return NotOurs()
        if record.value == b"bad":
            return Refused(Rejected("projection"), "rejected", "shop.Ordered")
        content = json.loads(record.value or b"{}")
        event = Event(
            id=str(record.origin), type="shop.Ordered", source="shop", time=datetime.fromtimestamp(NOW, UTC),
            subject=None, key=None, data=dict(content),
        )  # fmt: skip
        delivery = Delivery(
            action="note.put", entity=content.pop("entity"), idempotency_key=f"{record.origin}{revision}",
            sequence=record.origin, body=content,
        )  # fmt: skip
        return ToDeliver(event, delivery, self.routed(content))


@dataclass
class Rig:
    """What the flow writes waits in ``unacked`` until the test acks it."""

    flow: Flow = field(init=False)
    sub: Subscription = field(default_factory=subscription)
    receipts_on: bool = True
    limits: Limits = field(default_factory=Limits)
    now: float = 100.0
    wall: float = NOW
    letters: list[DeadLetter] = field(default_factory=list)
    closed: list[Origin] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    ranges: list[RangeSettled] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    paused: dict[Place, bool] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    handed_over: list[Place] = field(default_factory=list)
    told: list[object] = field(default_factory=list)
    unacked: list[tuple[str, Settled]] = field(default_factory=list)
    epoch: int = 0
    ends: dict[Place, int] = field(default_factory=dict)
    erased: Erased = field(default_factory=Erased)
    unseal: Unseal | None = None
    pipeline: JsonPipeline = field(default_factory=JsonPipeline)

    def __post_init__(self) -> None:
        self.flow = Flow(
            subscription=self.sub, pipeline=self.pipeline, effects=self, observer=self.told.append,
            limits=self.limits, chance=lambda: 0.5, wall=lambda: self.wall, receipts=self.receipts_on,
            erased=self.erased, unseal=self.unseal,
        )  # fmt: skip

    # ---- Effects

    def write_letter(self, letter: DeadLetter, settled: Settled) -> None:
        self.letters.append(letter)
        self._written("letter", settled)

    def close_letter(self, origin: Origin, settled: Settled) -> None:
        self.closed.append(origin)
        self._written("tombstone", settled)

    def write_receipt(self, receipt: Receipt, settled: Settled) -> None:
        self.receipts.append(receipt)
        self._written("receipt", settled)

    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None:
        self.ranges.append(settled_range)
        self._written("range", settled)

    def _written(self, what: str, settled: Settled) -> None:
        self.unacked.append((what, settled))

    def commit(self, commits: Sequence[Commit]) -> None:
        self.commits += commits

    def pause_partition(self, place: Place, paused: bool) -> None:
        self.paused[place] = paused

    def is_missing(self, wanted: SchemaWanted) -> bool:
        return False

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        raise AssertionError("no schema is wanted here")

    def caught_up(self, places: Sequence[Place]) -> None:
        self.handed_over += places

    def stopped(self, reason: str) -> None:
        self.stops.append(reason)

    # ---- what a test does

    def assign(
        self,
        *places: Place,
        at: int = 0,
        letters: Sequence[tuple[bytes | None, int]] = (),
        until: int | None = None,
    ) -> None:
        fresh = []
        for place in places:
            self.epoch += 1
            self.ends[place] = at
            source = place[0] == "t"
            fresh.append(Assigned(place, self.epoch, at, (), letters if source else (), until if source else None))
        self.flow.assigned(fresh)

    def give(self, *values: Any, key: bytes | None = b"k", place: Place = ("t", 0), age_s: float = 0.0) -> None:
        """Records of these values (a dict is written as JSON) behind those given before."""
        records = []
        for value in values:
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            offset = self.ends[place]
            self.ends[place] += 1
            records.append(Record(*place, offset, key, text, (), int((self.wall - age_s) * 1000)))
        self.hand_over(records)

    def give_again(self, order: InboxOrder, value: Any, *, key: bytes | None = b"k") -> None:
        """An inbox record."""
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        stood = Record(*order.origin, key, text, (), order.timestamp)
        written = inbox_record(order, stood, partitions=1)
        place = ("orders.inbox", written.partition)
        offset = self.ends[place]
        self.ends[place] += 1
        self.hand_over([Record(*place, offset, written.key, written.value, tuple(written.headers), int(NOW * 1000))])

    def hand_over(self, records: Sequence[Record]) -> None:
        epochs = dict(self.flow.places)
        self.flow.receive(Handover(records, dict(self.ends), epochs), self.now)

    def batch(self, *, background: bool = False) -> Batch | None:
        return self.flow.next_batch(self.now, background=background)

    def ack(self, what: str = "", error: str | None = None) -> None:
        """Ack everything of a kind that is not acked yet, and what is written because of it."""
        while found := [one for one in self.unacked if not what or one[0] == what]:
            for one in found:
                self.unacked.remove(one)
                one[1](error)
            if what:
                return

    def answer(self, batch: Batch | None, *outcomes: Outcome, others_succeed: bool = True) -> list[Any]:
        assert batch is not None
        return self.flow.settle(batch, outcomes, self.now, others_succeed=others_succeed)

    def deliver(self, *, background: bool = False, outcome: Callable[[Delivery], Outcome] | None = None) -> list[Any]:
        """Deliver everything that can be delivered now, in order, acking all; the bodies, with their entities."""
        sent = []
        while True:
            batch = self.batch(background=background)
            if batch is None:
                if not self.unacked:
                    return sent
                self.ack()
                continue
            sent += [{"entity": one.entity, **one.body} for one in batch.deliveries]
            self.answer(batch, *((outcome or (lambda _: Delivered()))(one) for one in batch.deliveries))

    def committed(self, place: Place = ("t", 0)) -> int | None:
        """After a second: what is committed of a partition."""
        self.flow.commit_due()
        self.ack()
        return next((one.offset for one in reversed(self.commits) if one.place == place), None)

    def told_of(self, kind: type[facts.Fact]) -> list[Any]:
        return [fact for fact in self.told if isinstance(fact, kind)]


def redrive(offset: int, **more: Any) -> InboxOrder:
    return InboxOrder(
        kind=more.pop("kind", "redrive"), change="ch-1", origin=Origin("t", 0, offset), timestamp=int(NOW * 1000),
        timestamp_type="append", **more,
    )  # fmt: skip
