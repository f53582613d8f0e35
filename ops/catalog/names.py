"""What a person may call the things of the catalogue, and which one is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from ops.catalog.catalog import Catalog
from schemas.errors import NotFoundError
from schemas.findings import did_you_mean

Kind = Literal["connection", "event", "subscription", "topic", "action", "field"]
KINDS: tuple[Kind, ...] = ("connection", "event", "subscription", "topic")
"""In the order in which a plain name is looked up; one of a later kind is reached by ``subscription:warehouse``."""


@dataclass(frozen=True, slots=True)
class Named:
    """``name`` is the thing's own; an action also has its ``part`` (``contact.upsert``), a field too (``lines.sku``).
    ``also`` are the other kinds that have something of this name."""

    kind: Kind
    name: str
    part: str = ""
    also: tuple[Kind, ...] = ()


def named(catalog: Catalog, text: str) -> Named:
    """What ``billing.InvoiceCreated``, ``billing.InvoiceCreated.coupon``, ``hubspot``, ``hubspot:contact.upsert``,
    ``crm-contacts``, ``billing.invoices`` or ``subscription:warehouse`` means. Raises NotFoundError, with a suggestion
    where something is called nearly so."""
    matching = [kind for kind in KINDS if text in _names(catalog, kind)]
    if matching:
        return Named(matching[0], text, also=tuple(matching[1:]))
    head, colon, rest = text.partition(":")
    if colon:
        for kind in KINDS:
            if head == kind and rest in _names(catalog, kind):
                return Named(kind, rest)
        if head in catalog.connections and rest in catalog.connections[head].actions:
            return Named("action", head, rest)
        if head in catalog.connections:
            hint = did_you_mean(rest, catalog.connections[head].actions)
            actions = ", ".join(catalog.connections[head].actions)
            raise NotFoundError(f"The connection '{head}' has no action '{rest[:100]}'.{hint} It has: {actions}.")
    for event, path in _split(text):
        if event in catalog.events:
            contract = catalog.events[event]
            if path in contract.fields:
                return Named("field", event, path)
            raise NotFoundError(f"{event} has no field '{path[:100]}'.{did_you_mean(path, contract.fields)}")
    raise NotFoundError(f"There is nothing called '{text[:100]}' in the catalogue.{_hint(catalog, text)}")


def topics(catalog: Catalog) -> list[str]:
    return sorted({contract.topic for contract in catalog.events.values()})


def _names(catalog: Catalog, kind: Kind) -> Collection[str]:
    match kind:
        case "connection":
            return catalog.connections
        case "event":
            return catalog.events
        case "subscription":
            return catalog.subscriptions
        case _:
            return topics(catalog)


def _split(text: str) -> Iterator[tuple[str, str]]:
    parts = text.split(".")
    return ((".".join(parts[:at]), ".".join(parts[at:])) for at in range(len(parts) - 1, 0, -1))


def _hint(catalog: Catalog, text: str) -> str:
    last = text.rpartition(".")[2].lower()
    same = [known for known in catalog.events if known.rpartition(".")[2].lower() == last]
    if same:
        return f" Did you mean '{same[0]}'?"
    known = [*catalog.events, *catalog.connections, *catalog.subscriptions, *topics(catalog)]
    return did_you_mean(text, known) or " Look for it: backbone catalog search WORDS"
