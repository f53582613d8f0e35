"""Lineage as cards and lines: event fields, the places a subscription fills from them, the vendor's fields. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ops.catalog.catalog import Catalog
from ops.catalog.drawing import Card, Drawing, Link, Row, draw
from ops.catalog.lineage import UNCLASSED, Flow

Address = Callable[[str, str], str]
"""The page of a kind and a name (``event``, ``billing.InvoiceCreated``), as this drawing's page links to it."""

K = TypeVar("K")

WHOLE = "(all that may leave)"
DOMAINS = "domains"
EVENTS_MAX = 60
"""More events than these make a drawing in which nothing can be followed."""


def lineage_graph(flows: Sequence[Flow], catalog: Catalog, address: Address) -> Drawing | None:
    """Fields -> subscriptions -> vendor fields, for some flows; None where there are none."""
    if not flows:
        return None
    fields = _grouped((flow.event, flow.field) for flow in flows)
    # a card for each action of a subscription, so that two actions do not share a row
    places = _grouped(((flow.subscription, _asked(flow)), flow.vendor_field) for flow in flows)
    vendor = _grouped((_asked(flow), flow.vendor_field) for flow in flows if flow.leaves)
    events = [
        Card(
            f"e {event}", event, "event",
            tuple(Row(path, path or WHOLE, _class(catalog, event, path)) for path in paths), address("event", event),
        )
        for event, paths in fields.items()
    ]  # fmt: skip
    subscriptions = [
        Card(
            f"s {name} {asked}", name, "subscription",
            tuple(Row(place, place) for place in wanted), address("subscription", name),
        )
        for (name, asked), wanted in places.items()
    ]  # fmt: skip
    vendors = [
        Card(
            f"v {asked}", asked, "vendor",
            tuple(Row(name, name) for name in names), address("connection", asked.partition(" ")[0]),
        )
        for asked, names in vendor.items()
    ]  # fmt: skip
    links: dict[Link, None] = {}
    for flow in flows:
        middle = (f"s {flow.subscription} {_asked(flow)}", flow.vendor_field)
        links[Link((f"e {flow.event}", flow.field), middle, "sends" if flow.leaves else "looks")] = None
        if flow.leaves:
            links[Link(middle, (f"v {_asked(flow)}", flow.vendor_field))] = None
    return draw([events, subscriptions, vendors], list(links))


def overview_graph(catalog: Catalog, address: Address) -> Drawing | None:
    """Events by domain -> subscriptions -> connections; None where nobody reads anything. Of more than ``EVENTS_MAX``
    events only the domains are drawn."""
    pairs = sorted({(reader.event, reader.subscription) for reader in catalog.readers})
    if not pairs:
        return None
    read = {event for event, _ in pairs}
    domains = _grouped((_domain(event), event) for event in catalog.events if event in read)
    many = len(read) > EVENTS_MAX
    columns = [
        _domains(domains, address) if many else _events(domains, address),
        [
            Card(f"s {name}", name, "subscription", href=address("subscription", name))
            for name in catalog.subscriptions
        ],
        [
            Card(f"c {name}", name, "vendor", href=address("connection", name))
            for name in catalog.connections
            if catalog.users_of(name)
        ],
    ]  # fmt: skip
    starts = [((DOMAINS, _domain(event)) if many else (f"d {_domain(event)}", event), name) for event, name in pairs]
    links = list(dict.fromkeys(Link(start, (f"s {name}", "")) for start, name in starts))
    links += [Link((f"s {one.name}", ""), (f"c {one.connection}", "")) for one in catalog.subscriptions.values()]
    return draw(columns, links)


def _events(domains: Mapping[str, Sequence[str]], address: Address) -> list[Card]:
    """A card for each domain with its events."""
    return [
        Card(
            f"d {domain}", domain, "event",
            tuple(Row(event, event.rpartition(".")[2], href=address("event", event)) for event in events),
        )
        for domain, events in domains.items()
    ]  # fmt: skip


def _domains(domains: Mapping[str, Sequence[str]], address: Address) -> list[Card]:
    """One card with the domains, and how many of their events are read."""
    rows = [Row(name, name, str(len(events)), address("domain", name)) for name, events in domains.items()]
    return [Card(DOMAINS, "domains", "event", tuple(rows))]


def _domain(event: str) -> str:
    return event.rpartition(".")[0]


def _grouped(pairs: Iterable[tuple[K, str]]) -> dict[K, list[str]]:
    """Second by first, each once, in the order they come."""
    found: dict[K, dict[str, None]] = {}
    for first, second in pairs:
        found.setdefault(first, {})[second] = None
    return {first: list(seconds) for first, seconds in found.items()}


def _asked(flow: Flow) -> str:
    return f"{flow.connection} {flow.asked}"


def _class(catalog: Catalog, event: str, path: str) -> str:
    field = catalog.events[event].fields.get(path)
    return "" if field is None or field.personal_data in UNCLASSED else str(field.personal_data)
