"""What the vendor's structure has to become for a subscription (sql: its DDL), from the contracts' examples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from connectors.connector import Delivery
from consumers.pipeline import Pipeline, ToDeliver
from consumers.subscription import Subscription
from schemas.datum import example
from schemas.event import Event, Record


class _Examples:
    """Reads records that are only numbers: the offset is the event's place in the list."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def event_type(self, record: Record) -> str:
        return self._events[record.offset].type

    def decode(self, record: Record) -> Event:
        return self._events[record.offset]


def structure(subscription: Subscription, settings: Any) -> list[str]:
    """Line by line what the vendor's structure would have to become; empty where there is nothing to say. Changes
    nothing. Blocks on the vendor; raises BackboneError where it cannot be asked."""
    preview = subscription.connector.preview
    if preview is None:
        return []
    deliveries = example_deliveries(subscription)
    return preview(settings, deliveries) if deliveries else []


def example_deliveries(subscription: Subscription) -> list[Delivery]:
    """What the subscription would ask for the example of every event that it reads; those that no route takes, or
    that a projection refuses, are left out."""
    now = datetime.now(UTC)
    events = [
        Event(id="example", type=name, source="example", time=now, subject=None, key="example", data=example(contract))
        for name, contract in subscription.contracts.items()
        if name in subscription.routes
    ]
    pipeline = Pipeline(subscription, _Examples(events))
    found = []
    for number, event in enumerate(events):
        topic = subscription.contracts[event.type].topic
        record = Record(topic=topic, partition=0, offset=number, key=b"example", value=b"\0", headers=(), timestamp=0)
        made = pipeline.project(record)
        if isinstance(made, ToDeliver):
            found.append(made.delivery)
    return found
