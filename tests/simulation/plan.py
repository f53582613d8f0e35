"""What one seed is about: its subscription, its vendor, how many of everything, and which faults it has.

Not every fault in every seed: a run in which everything breaks gets nowhere, and hides what two faults do together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from connectors.connector import Action, Connector, ConnectorType, Delivery, Idempotency, Rejected
from consumers.pipeline import NotOurs, Projection, Refused, ToDeliver, Wanted
from consumers.subscription import Policies, Retry, Route, Subscription
from schemas.codec import SchemaWanted
from schemas.event import Event as BusinessEvent
from schemas.event import Record
from tests.simulation.world import NAME, Event, VendorKind, World

FAULTS = (
    "crash", "rebalance", "expel", "freeze", "vendor away", "throttle", "lost answer", "late effect", "partial",
    "refused call", "operator", "busy", "dead topic away", "receipts away", "registry away", "holes", "changes",
    "pause", "join", "odd events", "slow receipts", "slow letters", "mend", "attach",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One seed's. ``faults`` are the names of those it has; ``steps`` is how long it is troubled. ``backlog`` events
    are there when it is attached, before the hand-over position, and are caught up with."""

    partitions: int
    keys: int
    processes: int
    steps: int
    batch_max: int
    calls_max: int
    kind: VendorKind
    receipts: bool
    policies: Policies
    faults: frozenset[str]
    start: int
    backlog: int
    folds: bool = False

    def __str__(self) -> str:
        policies = self.policies
        return (
            f"{self.partitions} partitions, {self.keys} keys each, {self.processes} processes, batches of "
            f"{self.batch_max}, {self.calls_max} calls, vendor {self.kind}, receipts {self.receipts}, "
            f"send {policies.send}, on_unknown {policies.on_unknown}, on_dead_letter {policies.on_dead_letter}, "
            f"expire_after {policies.expire_after}, retry {policies.retry.attempts} in {policies.retry.within}, "
            f"start {self.start}, backlog {self.backlog}, folded {self.folds}\nfaults: {', '.join(sorted(self.faults))}"
        )


def plan_of(rng: random.Random) -> Plan:
    """Chosen by the seed alone."""
    pick = rng.random
    kind: VendorKind = rng.choice(("upsert", "upsert", "guarded", "guarded", "replay", "none"))
    can_merge = kind in ("upsert", "guarded")
    unknown: Literal["resend", "hold", "look_up"] = "resend"
    if kind in ("none", "replay") and pick() < 0.6:
        unknown = "hold" if pick() < 0.5 else "look_up"
    policies = Policies(
        slo=timedelta(minutes=1),
        retry=Retry(attempts=rng.randrange(1, 4), within=timedelta(seconds=rng.choice((0, 0, 4, 15)))),
        on_unknown=unknown,
        send="latest" if can_merge and pick() < 0.5 else "every",
        expire_after=timedelta(seconds=rng.choice((8, 30))) if pick() < 0.2 else None,
        on_dead_letter="park_key" if pick() < 0.5 else "continue",
    )
    share = rng.choice((0.25, 0.5, 0.75))
    faults = frozenset(fault for fault in FAULTS if pick() < share)
    return Plan(
        partitions=rng.choice((1, 1, 2, 2, 3)),
        keys=rng.randrange(1, 4),
        processes=rng.randrange(1, 4),
        steps=rng.randrange(25, 75),
        batch_max=rng.choice((1, 2, 4)),
        calls_max=rng.randrange(1, 4),
        kind=kind,
        receipts=pick() < 0.8,
        policies=policies,
        faults=faults,
        start=0 if pick() < 0.8 else rng.randrange(1, 4),
        backlog=rng.randrange(1, 25) if "attach" in faults else 0,
        folds="attach" in faults and policies.send == "latest" and pick() < 0.6,
    )


class _Form(BaseModel):
    """Settings and bodies are not looked at here."""


def _open(settings: Any) -> Connector:
    raise AssertionError("the simulation has no connector: the schedule answers for the vendor")


ACTIONS = {
    "put": Action(name="put", body=_Form, upsert=True),
    "row": Action(name="row", body=_Form, upsert=True, about=("table",), fields_in="row"),
    "post": Action(name="post", body=_Form, upsert=False),
}


@cache
def _connector(kind: VendorKind, batch_max: int, look_up: bool) -> ConnectorType:
    idempotency = {"upsert": "upsert", "guarded": "upsert", "replay": "replay_key", "none": "none"}[kind]
    return ConnectorType(
        name="vendor",
        doc="A vendor of the simulation.",
        idempotency=Idempotency(kind=idempotency),  # type: ignore[arg-type]
        on_unknown="resend",
        batch_max=batch_max,
        actions=ACTIONS,
        settings=_Form,
        open=_open,
        fake=None,
        fake_settings=lambda url, folder: {},
        look_up=look_up,
    )


def _never(event: BusinessEvent) -> None:
    return None


ROUTE = Route(
    events=("shop.Changed",), fits=None, project=_never, action=None, reads=None, source={}, place="routes[0]"
)


def subscription_of(plan: Plan) -> Subscription:
    return Subscription(
        name=NAME,
        description="",
        owner="",
        connection="vendor",
        connector=_connector(plan.kind, plan.batch_max, plan.policies.on_unknown == "look_up"),
        policies=plan.policies,
        routes={"shop.Changed": (ROUTE,)},
        contracts={},
        version="000000",
        text="",
        projection_hashes={},
        personal_data_allowed=frozenset(),
    )


def body_of(event: Event) -> dict[str, Any]:
    fields = dict.fromkeys(event.fields, event.number)
    return {"table": event.entity[-1], "row": fields} if event.action == "row" else fields


def key_of(event: Event, revision: str) -> str:
    return f"e{event.number}{revision}"


class Pipeline:
    """What ``consumers.pipeline.Pipeline`` answers, without Avro: the record's bytes say which event it is.

    The only code of ours that is simulated: decoding 10,000 runs' events would take all of their time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.schemas: set[int | str] = set()

    def route(self, record: Record) -> bool | SchemaWanted:
        if record.value is None:
            return False
        event = self._world.by_value[record.value]
        if event.nature in ("new_schema", "lost_schema") and event.number not in self.schemas:
            return SchemaWanted(event.number)
        return event.nature != "foreign"

    def project(self, record: Record, revision: str = "") -> Projection:
        if record.value is None:
            return NotOurs()
        event = self._world.by_value[record.value]
        match event.nature:
            case "fine" | "poison":
                pass
            case "new_schema" | "lost_schema":
                if event.number not in self.schemas:
                    return Wanted(SchemaWanted(event.number))
            case "undecodable":
                return Refused(Rejected("truncated"), "undecodable", "")
            case "refused":
                return Refused(Rejected("projection", "body.a: missing"), "rejected", "shop.Changed")
            case _:
                return NotOurs()
        fact = BusinessEvent(
            id=str(event.number),
            type="shop.Changed",
            source="shop",
            time=datetime.fromtimestamp(record.timestamp / 1000, UTC),
            subject=None,
            key=None,
            data={},
        )
        delivery = Delivery(
            action=event.action,
            entity=event.entity,
            idempotency_key=key_of(event, revision),
            sequence=record.origin,
            body=body_of(event),
        )
        return ToDeliver(fact, delivery, ROUTE)
