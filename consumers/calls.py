"""The deliveries of one call to a vendor, as observers see them: what was asked for which event, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from connectors.connector import Delivery, Outcome
from consumers.assignment import Place
from consumers.batches import Batch
from consumers.subscription import carried_by
from consumers.work import Work
from schemas.event import Event, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One delivery in a call. ``outcome`` None: it was looked up, and is not there. ``carried`` are the personal-data
    classes that travel to each place of it, as routes have them. ``merged``: the older events that it carries.
    ``change``: the change that sends it again. The delivery and the event hold payload, which is why neither is in the
    repr."""

    origin: Origin
    place: Place
    """the partition that it was read from: the origin's, or the inbox's"""
    is_ours: bool
    """False: its partition is somebody else's by now, and nothing more comes of it here"""
    attempt: int
    outcome: Outcome | None
    change: str | None
    carried: Mapping[str, frozenset[str]]
    event: Event = field(repr=False)
    delivery: Delivery = field(repr=False)
    merged: tuple[Event, ...] = field(default=(), repr=False)


def asked(batch: Batch, outcomes: Sequence[Outcome | None]) -> list[Asked]:
    """What a call asked, in its order. Before the outcomes are settled: then attempts are counted and works move on."""
    return [
        _asked(work, delivery, outcome)
        for work, delivery, outcome in zip(batch.works, batch.deliveries, outcomes, strict=True)
    ]


def _asked(work: Work, delivery: Delivery, outcome: Outcome | None) -> Asked:
    ready = work.ready
    assert ready is not None  # what is in a batch was projected
    return Asked(
        origin=work.record.origin,
        place=work.partition.place,
        is_ours=work.partition.live,
        attempt=work.attempts.count + 1,
        outcome=outcome,
        change=None if work.order is None else work.order.change,
        carried=_carried(work),
        event=ready.event,
        delivery=delivery,
        merged=tuple(one.ready.event for one in work.merged if one.ready is not None),
    )


def _carried(work: Work) -> Mapping[str, frozenset[str]]:
    """What travels with a delivery: with a merged one also what its older ones carry."""
    assert work.ready is not None
    if not work.merged:
        return work.ready.route.carried
    return carried_by(one.ready.route for one in (work, *work.merged) if one.ready is not None)
