"""The data map: which personal field of which event goes to which vendor, where to there, and what for. Pure.

Of YAML it is known from the file, place by place. A Python projection may send whatever it is allowed to see: of it the
map says so, and which of these fields it was seen to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from consumers.subscription import Route, Subscription
from ops.catalog.readers import Reader, overlaps
from ops.ledger.given import Given
from schemas.contract import Contract
from schemas.masking import masked_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalFlow:
    """One personal field on its way to one place of one action. ``how``: ``sent`` (the file says so), ``seen`` (a
    projection was seen to read it) or ``may`` (a projection may send it). ``place`` None: it goes nowhere."""

    personal_data: str
    event: str
    field: str
    subscription: str | None = None
    owner: str | None = None
    purpose: str | None = None
    connection: str | None = None
    connector: str | None = None
    region: str | None = None
    sub_processor: str | None = None
    action: str | None = None
    place: str | None = None
    how: Literal["sent", "seen", "may"] | None = None


def data_map(
    contracts: Iterable[Contract],
    subscriptions: Sequence[Subscription],
    readers: Sequence[Reader],
    connections: Mapping[str, Mapping[str, Any]],
) -> list[PersonalFlow]:
    """Every way of every classed field, by class, event and field; a field that goes nowhere has one row that says so.
    ``connections`` are the tables of backbone.toml."""
    recorded = {(one.subscription, one.event): one for one in readers}
    found: dict[PersonalFlow, None] = {}
    for contract in contracts:
        for path, personal_data in masked_fields(contract).items():
            nowhere = PersonalFlow(personal_data=personal_data, event=contract.name, field=path)
            ways = [
                _flow(nowhere, one, route, place, how, connections)
                for one in subscriptions
                for route in one.routes.get(contract.name, ())
                for place, how in _places(one, route, contract, path, recorded.get((one.name, contract.name)))
            ]
            found |= dict.fromkeys(ways or [nowhere])
    return sorted(found, key=lambda one: (one.personal_data, one.event, one.field, one.subscription or "", _text(one)))


def _text(flow: PersonalFlow) -> str:
    return f"{flow.connection} {flow.action} {flow.place}"


def _flow(
    field: PersonalFlow,
    subscription: Subscription,
    route: Route,
    place: str,
    how: Literal["sent", "seen", "may"],
    connections: Mapping[str, Mapping[str, Any]],
) -> PersonalFlow:
    table = connections.get(subscription.connection, {})
    return PersonalFlow(
        personal_data=field.personal_data,
        event=field.event,
        field=field.field,
        subscription=subscription.name,
        owner=subscription.owner,
        purpose=subscription.purpose or None,
        connection=subscription.connection,
        connector=subscription.connector.name,
        region=table.get("region"),
        sub_processor=table.get("sub_processor"),
        action=route.action or str(route.source.get("projection", "")),
        place=place,
        how=how,
    )


def _places(
    subscription: Subscription, route: Route, contract: Contract, path: str, reader: Reader | None
) -> list[tuple[str, Literal["sent", "seen", "may"]]]:
    """Where a route sends a classed field to. A condition reads, and sends nothing."""
    personal_data = masked_fields(contract)[path]
    if personal_data not in subscription.personal_data_allowed:
        return []
    if route.reads is None:
        was_seen = reader is not None and any(overlaps(read, path) for read in reader.fields)
        return [("anywhere", "seen" if was_seen else "may")]
    return [
        (place, "sent")
        for place, reads in route.reads.items()
        if personal_data in route.carried.get(place, ()) and any(overlaps(read, path) for read in reads)
    ]


def received(given: Iterable[Given], connections: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What vendors were given about one person, a row each; an entity that is made of personal data is not shown."""
    return [
        {
            "subscription": one.receipt.subscription,
            "connection": one.receipt.connection,
            "connector": connections.get(one.receipt.connection, {}).get("connector"),
            "region": connections.get(one.receipt.connection, {}).get("region"),
            "sub_processor": connections.get(one.receipt.connection, {}).get("sub_processor"),
            "action": one.receipt.action,
            "entity": entity_shown(one),
            "personal_data": list(one.classes),
            "first_at": one.first_at,
            "last_at": one.last_at,
            "count": one.count,
            "erased_at": one.erased_at,
        }
        for one in given
    ]


def entity_shown(given: Given) -> str:
    """What it is about at the vendor, as a person may see it."""
    one = given.receipt
    if one.entity_hashed:
        return "‹hashed›"
    return f"{one.about} {one.entity}".strip()
