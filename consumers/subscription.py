"""A subscription: a named reader of events, its map to a vendor's actions, and its policies. One YAML file each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

from connectors.connector import ConnectorType
from schemas.contract import Contract, Contracts
from schemas.errors import InputError
from schemas.event import Event
from schemas.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A delivery is dead-lettered when ``within`` has passed since its first attempt *and* ``attempts`` were made."""

    attempts: int = 5
    within: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What is in force, defaults filled in. ``slo`` is the age at which an undelivered event is late.

    ``send`` latest: waiting upserts of one entity merge field by field, the newest value wins. ``expire_after``: what
    is older is not sent any more (None: never). ``on_dead_letter`` park_key: while a key has an open dead letter its
    later events are set aside behind it. ``weight``: its part of the connection's quota, against that of others."""

    slo: timedelta
    retry: Retry
    on_unknown: Literal["resend", "hold", "look_up"]
    send: Literal["every", "latest"] = "every"
    expire_after: timedelta | None = None
    on_dead_letter: Literal["continue", "park_key"] = "continue"
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What a route or a Python projection makes of an event: the action asked of the vendor."""

    action: str
    entity: str
    body: Mapping[str, Any]


Project: TypeAlias = Callable[[Event], Projected | None]
"""What a Python projection is: a plain function of one event, quick and without side effects. It gets the event with
only those fields that may leave (no personal-data class, or one that the subscription allows); any exception in it
makes the event a dead letter, None means not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the map, compiled. ``fits`` says whether it is for this event (``where``); ``project`` makes the
    action; None from a Python projection means not ours. ``reads`` are the dotted data paths that each of its places
    reads (``where``, ``entity``, ``body.email``; the path ``""`` is the payload as a whole); None: a Python projection,
    whose reads are known only by recording them (``consumers.recording``). ``source`` is how the person wrote it."""

    events: tuple[str, ...]
    fits: Callable[[Event], bool] | None
    project: Project
    action: str | None
    reads: Mapping[str, frozenset[str]] | None
    source: Mapping[str, Any]
    place: str = ""
    """``routes[0]``, its place in the file"""
    explain: Callable[[Event], str] | None = None
    """where ``project`` fails for this event: ``body.email``"""
    carried: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """the personal-data classes that travel to each place of the delivery (``entity``, ``body.email``); ``body`` for
    all of it where the places are not known"""

    @property
    def fields_read(self) -> frozenset[str] | None:
        """Every data path it reads, wherever; None: not known."""
        return None if self.reads is None else frozenset().union(*self.reads.values())


def carried_by(routes: Iterable[Route]) -> dict[str, frozenset[str]]:
    """The personal-data classes that travel to each place of a delivery which several routes have made."""
    found: dict[str, frozenset[str]] = {}
    for route in routes:
        for place, classes in route.carried.items():
            found[place] = found.get(place, frozenset()) | classes
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A loaded, checked, compiled subscription. ``version`` is 6 hex digits; ``topics`` are its sources;
    ``routes`` maps every event type it reads to its routes in file order."""

    name: str
    description: str
    owner: str
    connection: str
    connector: ConnectorType
    policies: Policies
    routes: Mapping[str, tuple[Route, ...]]
    contracts: Mapping[str, Contract]
    version: str
    text: str
    projection_hashes: Mapping[str, str]
    personal_data_allowed: frozenset[str]
    purpose: str = ""
    file: str = ""
    policy_sources: Mapping[str, str] = field(default_factory=dict)
    """where each policy in force comes from: ``this file``, ``the connector slack``, ``default``"""
    tests: tuple[Mapping[str, Any], ...] = ()
    """the file's ``tests:``, checked in form"""

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(sorted({contract.topic for contract in self.contracts.values()}))

    @property
    def dead_topic(self) -> str:
        return f"{self.name}.dead"

    @property
    def inbox_topic(self) -> str:
        return f"{self.name}.inbox"


class SubscriptionError(InputError):
    """A subscription's file is refused. ``findings`` say every place; the message is the first and how many more."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"] or list(findings)
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{errors[0]}{more}" if errors else "The subscription is refused.")
        self.findings = list(findings)


def load_subscription(
    path: Path, *, contracts: Contracts, connections: Mapping[str, ConnectorType], events: Sequence[str] | None = None
) -> Subscription:
    """The subscription in one file, compiled. ``connections`` are the accounts of backbone.toml with their connector
    types; ``events`` limits what wildcards stand for (the list frozen when it was attached). Executes the Python
    projections' files. Blocks on the disk only. Raises SubscriptionError."""
    subscription, findings = check_subscription(path, contracts=contracts, connections=connections, events=events)
    if subscription is None:
        raise SubscriptionError(findings)
    return subscription


def check_subscription(
    path: Path, *, contracts: Contracts, connections: Mapping[str, ConnectorType], events: Sequence[str] | None = None
) -> tuple[Subscription | None, list[Finding]]:
    """As ``load_subscription``, with everything that is to be said of the file, warnings too; None where there is an
    error. Does not raise for anything in the file."""
    from consumers.loader import check_file

    return check_file(path, contracts=contracts, connections=connections, events=events)


def load_text(
    name: str,
    text: str,
    *,
    contracts: Contracts,
    connections: Mapping[str, ConnectorType],
    folder: Path,
    events: Sequence[str] | None = None,
    projections: Mapping[str, str] | None = None,
) -> Subscription:
    """The subscription of a text, as ``backbone.control`` holds it. ``folder`` has the Python projections' files;
    ``projections`` maps them to the SHA-256 that they must have, and nothing of a file that differs is executed.
    Raises SubscriptionError."""
    from consumers.loader import check_text

    subscription, findings = check_text(
        name, text, contracts=contracts, connections=connections, folder=folder, events=events, projections=projections
    )
    if subscription is None:
        raise SubscriptionError(findings)
    return subscription
