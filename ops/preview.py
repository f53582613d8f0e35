"""What real events would become: read without a group, projected, masked; nothing is sent, nothing is committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumers.expressions.values import plain
from consumers.pipeline import NotOurs, OfErased, Pipeline, Refused, ToDeliver, Wanted
from consumers.subscription import Route, Subscription
from ops.control import erased_people
from ops.reading import as_record, read_to_end
from schemas.codec import Decoder
from schemas.errors import BackboneError
from schemas.event import Event, Record

if TYPE_CHECKING:
    from ops.app import App
    from ops.positions import Position


@dataclass(slots=True)
class Seen:
    """How many records were looked at, and how many of them are not for this subscription."""

    records: int = 0
    not_ours: int = 0


def preview(
    app: App, subscription: Subscription, *, position: Position | None, limit: int, seen: Seen
) -> Iterator[dict[str, Any]]:
    """One row an event that is ours, at most ``limit``: the oldest from ``position`` on, or without one the newest.

    Blocks on Kafka and the registry; raises UnreachableError, NotFoundError (a topic).
    """
    decoder = app.decoder
    pipeline = Pipeline(subscription, decoder, erased_people(app))
    rows = _rows(app, subscription, pipeline, decoder, position, limit, seen)
    if position is not None:
        for count, row in enumerate(rows, 1):
            yield row
            if count >= limit:
                return
        return
    newest = sorted(rows, key=lambda row: row["arrived"])[-limit:]
    yield from newest


def _rows(
    app: App,
    subscription: Subscription,
    pipeline: Pipeline,
    decoder: Decoder,
    position: Position | None,
    limit: int,
    seen: Seen,
) -> Iterator[dict[str, Any]]:
    from ops.lag.cluster import Cluster
    from ops.positions import resolve
    from ops.reading import partition_count

    cluster = Cluster(app.admin(), app.consumer)
    for topic in subscription.topics:
        places = [(topic, partition) for partition in range(partition_count(app, topic))]
        if position is not None:
            starts = {place[1]: found.offset for place, found in resolve(cluster, position, places).items()}
        else:
            ends, firsts = cluster.ends(places, "committed"), cluster.starts(places)
            starts = {place[1]: max(firsts[place], ends[place] - limit) for place in places}
        for message in read_to_end(app, topic, from_offsets=starts):
            record = as_record(message)
            seen.records += 1
            row = _row(subscription, pipeline, decoder, record)
            if row is None:
                seen.not_ours += 1
            else:
                yield row


def _row(subscription: Subscription, pipeline: Pipeline, decoder: Decoder, record: Record) -> dict[str, Any] | None:
    routed = pipeline.route(record)
    if routed is False:
        return None
    projection = pipeline.project(record)
    if isinstance(projection, Wanted):
        try:
            decoder.load(projection.schema)
        except BackboneError as error:
            return _shown(record, "", "waits", str(error))
        projection = pipeline.project(record)
    match projection:
        case ToDeliver():
            event, delivery = projection.event, projection.delivery
            route = fitting(subscription, event)
            row = _shown(record, event.type, "would be sent", "")
            row |= {
                "id": event.id,
                "action": delivery.action,
                "entity": masked("entity", delivery.entity, route.carried),
                "body": masked("body", plain(dict(delivery.body)), route.carried),
            }
            return row
        case NotOurs():
            return None
        case OfErased():
            return _shown(record, projection.event_type, "skipped", "its person was erased")
        case Refused():
            reason = f"{projection.kind}: {projection.rejected.reason} {projection.rejected.detail}".rstrip()
            return _shown(record, projection.event_type, "dead letter", reason)
        case _:
            return _shown(record, "", "waits", "its schema is not in the registry")


def _shown(record: Record, event: str, outcome: str, reason: str) -> dict[str, Any]:
    return {
        "arrived": datetime.fromtimestamp(record.timestamp / 1000, UTC),
        "origin": str(record.origin),
        "event": event,
        "id": None,
        "outcome": outcome,
        "action": None,
        "entity": None,
        "body": None,
        "reason": reason,
    }


def fitting(subscription: Subscription, event: Event) -> Route:
    """The route that takes the event; it is known that one does."""
    return next(route for route in subscription.routes[event.type] if route.fits is None or route.fits(event))


def masked(place: str, value: Any, carried: Mapping[str, frozenset[str]]) -> Any:
    """A value of a delivery as a person may see it: what carries a personal-data class is replaced by it, also where
    the class came through filters. Of a Python projection the classes cannot be followed: all of it is replaced."""
    classes = carried.get(place)
    if classes and value is not None:
        return f"‹{', '.join(sorted(classes))}›"
    if isinstance(value, Mapping):
        return {name: masked(f"{place}.{name}", inner, carried) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(f"{place}.{index}", inner, carried) for index, inner in enumerate(value)]
    return value
