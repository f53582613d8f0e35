"""The catalogue: everything that exists in a project, read from its files once, and what is seen of it on the cluster.

Every screen and every export is made of this one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from connectors.connector import ConnectorType
from consumers.subscription import Subscription
from ops.catalog.lineage import Flow, flows
from ops.catalog.readers import Reader, loaded_subscriptions, readers_of
from schemas.contract import Contract, Contracts
from schemas.errors import BackboneError

if TYPE_CHECKING:
    from ops.app import App
    from ops.catalog.seen import Seen


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """``contracts`` are the project's own, ``engine`` the backbone's. ``connections`` are the connectors by the names
    of backbone.toml, ``tables`` what stands there beside. ``seen`` None: only files were read."""

    project: str
    contracts: Contracts
    engine: Contracts
    subscriptions: Mapping[str, Subscription]
    connections: Mapping[str, ConnectorType]
    tables: Mapping[str, Mapping[str, Any]]
    readers: tuple[Reader, ...]
    flows: tuple[Flow, ...]
    seen: Seen | None = None

    @cached_property
    def events(self) -> Mapping[str, Contract]:
        """Every event type there is, the backbone's own last."""
        return {**self.contracts, **self.engine}

    @cached_property
    def _readers_by_event(self) -> Mapping[str, list[Reader]]:
        found: dict[str, list[Reader]] = {}
        for reader in self.readers:
            found.setdefault(reader.event, []).append(reader)
        return found

    @cached_property
    def _flows_by_event(self) -> Mapping[str, list[Flow]]:
        found: dict[str, list[Flow]] = {}
        for flow in self.flows:
            found.setdefault(flow.event, []).append(flow)
        return found

    def readers_of(self, event: str) -> list[Reader]:
        return self._readers_by_event.get(event, [])

    def flows_of(self, event: str) -> list[Flow]:
        return self._flows_by_event.get(event, [])

    def flows_through(self, subscription: str) -> list[Flow]:
        return [one for one in self.flows if one.subscription == subscription]

    def users_of(self, connection: str) -> list[Subscription]:
        """The subscriptions that use a connection."""
        return [one for one in self.subscriptions.values() if one.connection == connection]


def read_catalog(app: App) -> Catalog:
    """The catalogue from files alone. Subscription files with errors are left out and said on the screen; the tests of
    files with projections are run, to know what they read. Raises InputError for contracts that cannot be read."""
    subscriptions = loaded_subscriptions(app)
    readers = tuple(reader for one in subscriptions for reader in readers_of(app, one))
    return Catalog(
        project=app.project.name,
        contracts=app.contracts,
        engine=app.engine_contracts,
        subscriptions={one.name: one for one in subscriptions},
        connections=app.connection_types,
        tables={name: table.model_dump(exclude_none=True) for name, table in app.project.connections.items()},
        readers=readers,
        flows=flows(subscriptions, readers),
    )


def with_seen(app: App, catalog: Catalog, events: Mapping[str, Contract], *, versions: bool = False) -> Catalog:
    """The same with what the cluster shows of these events; where it does not answer or does not permit it, one
    sentence says that only files were read."""
    from confluent_kafka import KafkaException

    from ops.catalog.seen import look

    try:
        return replace(catalog, seen=look(app, events, versions=versions))
    except BackboneError as error:
        reason = error
    except KafkaException as error:
        reason = app.kafka_error(error.args[0])
    if reason.exit_code not in (4, 8):
        raise reason
    app.screen.warn(f"Only files were read. {app.sentence(reason)}")
    return catalog
