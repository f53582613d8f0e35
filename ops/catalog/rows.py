"""The lists of the catalogue: one plain row a thing."""

from __future__ import annotations

from typing import Any

from ops.catalog.catalog import Catalog
from ops.catalog.describe import fresh, personal_classes
from ops.catalog.lineage import classes_sent
from ops.screen import duration


def events(catalog: Catalog) -> list[dict[str, Any]]:
    """The project's events."""
    seen = catalog.seen
    return [
        {
            "event": contract.name,
            "domain": contract.domain,
            "owner": contract.owner,
            "status": contract.status,
            "doc": contract.doc,
            "topic": contract.topic,
            "fields": len(contract.fields),
            "readers": [reader.subscription for reader in catalog.readers_of(contract.name)],
            "personal_data": personal_classes(contract),
            "freshness_slo": duration(contract.freshness_slo),
            "about_per_day": None if seen is None else seen.per_day(contract),
            "last": None if seen is None or contract.name not in seen.events else seen.events[contract.name].last,
            "fresh": fresh(contract, catalog),
            "seen_at": None if seen is None else seen.at,
        }
        for contract in catalog.contracts.values()
    ]


def subscriptions(catalog: Catalog) -> list[dict[str, Any]]:
    """The subscriptions that can be read."""
    found = []
    for one in catalog.subscriptions.values():
        flows = catalog.flows_through(one.name)
        seen = None if catalog.seen is None else catalog.seen.readers.get(one.name)
        asked = {
            route.action or str(route.source.get("projection")) for routes in one.routes.values() for route in routes
        }
        found.append({
            "subscription": one.name,
            "description": one.description,
            "owner": one.owner,
            "connection": one.connection,
            "events": len(one.routes),
            "actions": sorted(asked),
            "personal_data": classes_sent(flows, catalog.events),
            "purpose": one.purpose or None,
            "version": one.version,
            "state": None if catalog.seen is None else "detached" if seen is None else seen.state,
            "lag": None if seen is None else seen.lag,
            "oldest_seconds": None if seen is None else seen.oldest_s,
            "is_late": None if seen is None else seen.is_late,
            "seen_at": None if catalog.seen is None else catalog.seen.at,
        })  # fmt: skip
    return found


def connections(catalog: Catalog) -> list[dict[str, Any]]:
    """The connections of backbone.toml; ``personal_data`` are the classes that subscriptions send over them."""
    return [
        {
            "connection": name,
            "connector": connector.name,
            "doc": connector.doc,
            "region": catalog.tables[name].get("region"),
            "sub_processor": catalog.tables[name].get("sub_processor"),
            "actions": list(connector.actions),
            "subscriptions": [one.name for one in catalog.users_of(name)],
            "personal_data": classes_sent((one for one in catalog.flows if one.connection == name), catalog.events),
        }
        for name, connector in catalog.connections.items()
    ]
