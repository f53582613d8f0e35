"""What needs what: producers -> events -> topics, subscriptions -> connections -> vendors. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from consumers.subscription import Subscription
from ops.catalog.catalog import Catalog
from ops.screen import duration
from ops.wording import counted

Thing = tuple[str, str]
"""A kind (``producer event topic subscription connection vendor``) and a name."""

KINDS = ("vendor", "connection", "topic", "event", "producer", "subscription")
"""Vendors and connections first: they are what goes away most often."""


@dataclass(frozen=True)
class Graph:
    """``needs`` maps a thing to what it does not work without."""

    needs: Mapping[Thing, tuple[Thing, ...]]

    @cached_property
    def needed_by(self) -> Mapping[Thing, tuple[Thing, ...]]:
        found: dict[Thing, list[Thing]] = {thing: [] for thing in self.needs}
        for thing, needed in self.needs.items():
            for one in needed:
                found[one].append(thing)
        return {thing: tuple(sorted(users)) for thing, users in found.items()}

    def below(self, thing: Thing) -> Iterator[tuple[int, Thing]]:
        """What it needs, and what that needs, with the depth; no thing has a cycle."""
        yield from _walk(self.needs, thing, 1)

    def above(self, thing: Thing) -> Iterator[tuple[int, Thing]]:
        """What needs it, and who needs that."""
        yield from _walk(self.needed_by, thing, 1)


def _walk(edges: Mapping[Thing, tuple[Thing, ...]], thing: Thing, depth: int) -> Iterator[tuple[int, Thing]]:
    for one in edges[thing]:
        yield depth, one
        yield from _walk(edges, one, depth + 1)


def graph(catalog: Catalog) -> Graph:
    """The graph of a project; producers are known only where the cluster was looked at."""
    needs: dict[Thing, tuple[Thing, ...]] = {}
    sources: dict[str, tuple[str, ...]] = {}
    if catalog.seen is not None:
        sources = {name: tuple(seen.producers) for name, seen in catalog.seen.events.items()}
    for contract in catalog.contracts.values():
        producers = tuple(("producer", source) for source in sources.get(contract.name, ()))
        needs["event", contract.name] = (*producers, ("topic", contract.topic))
        needs.update(dict.fromkeys((("topic", contract.topic), *producers), ()))
    for name in catalog.connections:
        needs["connection", name] = (("vendor", vendor(catalog, name)),)
        needs["vendor", vendor(catalog, name)] = ()
    for one in catalog.subscriptions.values():
        events = tuple(("event", event) for event in one.routes)
        for event in one.routes:
            needs.setdefault(("event", event), (("topic", catalog.events[event].topic),))
            needs.setdefault(("topic", catalog.events[event].topic), ())
        needs["subscription", one.name] = (*events, ("connection", one.connection))
    return Graph(needs)


def vendor(catalog: Catalog, connection: str) -> str:
    """Who stands behind a connection: as its connector's manifest names it."""
    connector = catalog.connections[connection]
    return str(connector.dependency.get("vendor") or catalog.tables[connection].get("sub_processor") or connector.name)


def if_away(catalog: Catalog, thing: Thing) -> str:
    """What happens while it does not work, in words."""
    kind, name = thing
    match kind:
        case "vendor" | "connection":
            return _without_vendor(_users(catalog, thing), catalog)
        case "topic":
            events = [one.name for one in catalog.events.values() if one.topic == name]
            users = [one.name for one in catalog.subscriptions.values() if name in one.topics]
            readers = f"; {_list(users)} {'waits' if len(users) == 1 else 'wait'}" if users else ""
            return f"{_list(events)} cannot be published{readers}. What was acknowledged before is kept."
        case "producer" | "event":
            return _without_events(catalog, thing)
        case _:
            return _without_subscription(catalog, name)


def _without_vendor(users: list[Subscription], catalog: Catalog) -> str:
    if not users:
        return "Nothing: no subscription uses it."
    kept = min(catalog.events[event].retention for one in users for event in one.routes)
    names = _list([one.name for one in users])
    said = (
        f"{names} {'waits' if len(users) == 1 else 'wait'}: nothing becomes a dead letter, and nothing is lost within "
        f"{duration(kept)}, which is how long the topics keep it."
    )
    for one in users:
        if one.policies.expire_after is not None:
            said += f" {one.name} skips what is older than {duration(one.policies.expire_after)}."
    return f"{said} Subscriptions on other connections go on."


def _users(catalog: Catalog, thing: Thing) -> list[Subscription]:
    kind, name = thing
    return [
        one
        for one in catalog.subscriptions.values()
        if (one.connection if kind == "connection" else vendor(catalog, one.connection)) == name
    ]


def _without_events(catalog: Catalog, thing: Thing) -> str:
    kind, name = thing
    events = {name}
    if kind == "producer":
        seen = catalog.seen.events if catalog.seen is not None else {}
        events = {event for event, one in seen.items() if name in one.producers}
    flows = [one for one in catalog.flows if one.event in events and one.leaves]
    if not flows:
        return "Nothing here: no subscription sends anything of it."
    filled = [f"{one.connection} {one.asked} {one.vendor_field}" for one in flows if one.place.startswith("body.")]
    fields = f" Not filled any more: {_list(list(dict.fromkeys(filled)))}." if filled else ""
    users = sorted({one.subscription for one in flows})
    return f"{_list(users)} {'gets' if len(users) == 1 else 'get'} nothing of it.{fields}"


def _without_subscription(catalog: Catalog, name: str) -> str:
    one = catalog.subscriptions[name]
    kept = min(catalog.events[event].retention for event in one.routes)
    return (
        f"{one.connection} gets nothing of {counted(len(one.routes), 'event type')} from it; they wait in their topics "
        f"for {duration(kept)}, and what is older is lost to it."
    )


def _list(names: list[str]) -> str:
    shown = names[:6]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
