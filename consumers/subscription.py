"""A subscription: a named reader of events, its map to a vendor's actions, and its policies. Read from one YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from connectors.connector import ConnectorType
from schemas.contract import Contract
from schemas.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A delivery is dead-lettered when ``within`` has passed since its first attempt *and* ``attempts`` were made."""

    attempts: int = 5
    within: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What is in force, defaults filled in. ``slo`` is the age at which an undelivered event is late."""

    slo: timedelta
    retry: Retry
    on_unknown: Literal["resend", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What a route or a Python projection makes of an event: the action asked of the vendor."""

    action: str
    entity: str
    body: Mapping[str, Any]


Project: TypeAlias = Callable[[Event], Projected | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the map, compiled. ``fits`` says whether it is for this event (``where``); ``project`` makes the
    action; None from a Python projection means not ours. ``fields_read`` are the dotted data paths it reads
    (None: a Python projection, not known). ``source`` is how the person wrote it, for people."""

    events: tuple[str, ...]
    fits: Callable[[Event], bool] | None
    project: Project
    action: str | None
    fields_read: frozenset[str] | None
    source: Mapping[str, Any]


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

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(sorted({contract.topic for contract in self.contracts.values()}))

    @property
    def dead_topic(self) -> str:
        return f"{self.name}.dead"

    @property
    def inbox_topic(self) -> str:
        return f"{self.name}.inbox"


