"""Lineage: which field of which event goes to which field of which vendor, through which subscription. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from consumers.subscription import Route, Subscription
from ops.catalog.readers import Reader, overlaps
from schemas.contract import Contract, Field

UNCLASSED = (None, "none")
"""Personal-data classes that say: none."""

PLACES = {"where": "(whether it is sent)", "entity": "(what it is about)", "": "(anything)"}
"""Places of a delivery that are no field of its body."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Flow:
    """One data path of an event that a subscription reads for one place of its deliveries.

    ``field`` is dotted (``lines.sku``); ``""`` is the payload as a whole. ``place`` is ``where`` (decides whether
    anything is sent), ``entity``, ``body.email``, or ``""`` where it is not known. ``action`` None and ``projection``:
    a Python function decides. ``classes`` are the personal-data classes that may travel to the place: what is read as a
    whole carries only fields of these, or of none."""

    event: str
    field: str
    subscription: str
    connection: str
    action: str | None
    place: str
    how: Literal["parsed", "recorded", "unseen"]
    projection: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def vendor_field(self) -> str:
        """``email`` of ``body.email``; words in brackets for what is no field of the body."""
        return PLACES.get(self.place) or self.place.removeprefix("body.")

    @property
    def asked(self) -> str:
        """What asks it: the action, or the projection that chooses one."""
        return self.action or self.projection or "?"

    @property
    def leaves(self) -> bool:
        """Whether something of the field may reach the vendor; a condition only looks at it."""
        return self.place != "where"

    def carries(self, field: Field) -> bool:
        """Whether this field of the event is read here: itself, something in it, or a whole that holds it and lets its
        class through."""
        if not overlaps(self.field, field.path):
            return False
        is_part = self.field != field.path and (not self.field or field.path.startswith(f"{self.field}."))
        if is_part and self.leaves and field.personal_data not in UNCLASSED:
            return field.personal_data in self.classes
        return True


def flows(subscriptions: Iterable[Subscription], readers: Iterable[Reader]) -> tuple[Flow, ...]:
    """Every flow of these subscriptions, in order. ``readers`` say what is known of their projections."""
    known = {(reader.subscription, reader.event): reader for reader in readers}
    found: set[Flow] = set()
    for subscription in subscriptions:
        for event, routes in subscription.routes.items():
            for route in routes:
                reader = known[subscription.name, event]
                reads = route.reads if route.reads is not None else _recorded(reader)
                found.update(_flow(subscription, event, route, reader, *one) for one in _pairs(reads))
    return tuple(sorted(found, key=lambda one: (one.event, one.field, one.subscription, one.asked, one.place)))


def flows_of(every: Iterable[Flow], field: Field, event: str) -> list[Flow]:
    """Those that read one field of one event."""
    return [one for one in every if one.event == event and one.carries(field)]


def classes_sent(every: Iterable[Flow], contracts: Mapping[str, Contract]) -> list[str]:
    """The personal-data classes of the fields that may leave by these flows, sorted."""
    return sorted({
        str(field.personal_data)
        for one in every
        if one.leaves and one.event in contracts
        for field in contracts[one.event].fields.values()
        if field.personal_data not in UNCLASSED and one.carries(field)
    })  # fmt: skip


def _recorded(reader: Reader) -> Mapping[str, frozenset[str]]:
    """A projection that nobody ran may take anything anywhere."""
    return reader.reads if reader.how == "recorded" else {"": frozenset({""})}


def _pairs(reads: Mapping[str, frozenset[str]]) -> Iterable[tuple[str, str]]:
    return ((place, path) for place, paths in reads.items() for path in paths)


def _flow(subscription: Subscription, event: str, route: Route, reader: Reader, place: str, path: str) -> Flow:
    carried = route.carried.get(place, route.carried.get("body", frozenset()) if route.reads is None else frozenset())
    return Flow(
        event=event,
        field=path,
        subscription=subscription.name,
        connection=subscription.connection,
        action=route.action,
        place=place,
        how="parsed" if route.reads is not None else reader.how,
        projection=None if route.reads is not None else str(route.source.get("projection", "")),
        classes=tuple(sorted(carried)),
    )
