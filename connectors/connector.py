"""The door to vendors: what is asked of one (Delivery), what came of it (Outcome), and who answers (Connector).

How each outcome is settled (the settle table, delivery.md section 2; the code is ``consumers/settlement.py``):

==========================  ===========================  ======  =======  ==========================================
what happened               outcome                      offset  attempt  then
==========================  ===========================  ======  =======  ==========================================
the vendor confirmed it     Delivered                    moves   counted  done
nothing to do, on purpose   Skipped                      moves   –        done
this one failed, try again  RetryLater                   waits   counted  lane holds; ``exhausted`` after the policy
the vendor is away or busy  Unavailable(connection)      waits   none     connection pauses, never a dead letter
one object there is busy    Unavailable(entity)          waits   none     lane holds; 3 in a row are a RetryLater
credentials or permission   Unavailable(needs_operator)  waits   none     connection stops until they work
it may have happened        Unknown                      waits   counted  by ``on_unknown``: resend or hold
it will never succeed       Rejected(delivery)           moves   counted  *after* the dead letter is acked
the whole call was refused  Rejected(call)               waits   –        the batch is halved, same keys
==========================  ===========================  ======  =======  ==========================================

``RetryLater`` and ``Unavailable`` are kept apart on purpose: without it an hour of vendor outage turns into a topic
full of dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from schemas.event import Origin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic import BaseModel

JsonValue: TypeAlias = Any
"""None, bool, int, float, str, or lists and string-keyed mappings of them."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The vendor confirmed it. ``reference`` is the vendor's own id, if it gave one. ``note`` is a short code from a
    closed set when the vendor confirmed, but kept something of its own as it documents (``lifecyclestage_kept``)."""

    reference: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was sent, on purpose; ``reason`` is from a closed set."""

    reason: Literal["merged", "expired", "erased", "superseded", "discarded"]


@dataclass(frozen=True, slots=True)
class RetryLater:
    """This delivery failed this time and may succeed later; counts an attempt."""

    reason: str
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The vendor (``connection``) or this one object there (``entity``) cannot be reached now; uses no attempt.

    ``needs_operator``: credentials or permission; nothing will succeed until a person acts. ``limited``: the vendor
    answered and asks for quiet (429, a quota, a lock); it is paced, not away, so the circuit breaker does not count it.
    """

    reason: str
    after: timedelta | None = None
    scope: Literal["connection", "entity"] = "connection"
    needs_operator: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """It will never succeed as it is. ``reason`` is a short code; ``detail`` at most 1 kB of code and field path,
    never payload. ``scope="call"``: the whole batch was refused, each delivery may still be fine alone."""

    reason: str
    detail: str = ""
    scope: Literal["delivery", "call"] = "delivery"


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened: the answer was lost, late or not understood."""

    reason: str


Outcome: TypeAlias = Delivered | Skipped | RetryLater | Unavailable | Rejected | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One action asked of a vendor for one event."""

    action: str
    """``contact.upsert``"""
    entity: str
    """what it is about at the vendor"""
    idempotency_key: str
    """64 hex digits, the same in every attempt, crash, redrive and replay"""
    sequence: Origin
    """origin topic, partition, offset: grows per key, a version for WHERE guards"""
    body: Mapping[str, JsonValue]


class Connector(Protocol):
    """Code for one vendor, opened on one account of it. Lives on one event loop.

    ``pause_until`` is a time of ``time.monotonic()`` (seconds; 0.0: no pause) before which the vendor asked not to be
    called: from Retry-After and its quota headers, also those on a success. The connector only raises it; the runtime
    reads it before each call and holds the connection's calls until then. ``deliver`` itself does not wait for it.
    A connector that knows how much of the vendor's quota is used may say so in ``quota_used`` (0..1, or None).
    """

    pause_until: float

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Ask the vendor for every delivery of the batch (never empty, at most ``batch_max``, one action,
        distinct entities) and say what came of each: same length, same order. Bounded in time, never raises
        on purpose; what it raises all the same is taken as Unknown for all."""
        ...

    async def close(self) -> None:
        """Let go of connections. May be called twice."""
        ...


class Checks(Protocol):
    """What a connector also can whose type says ``check=True``."""

    async def check(self) -> Outcome:
        """Make one harmless call with the credentials: Delivered when it works, else what an answer to ``deliver``
        would mean. Bounded in time, applies nothing."""
        ...


LookedUp: TypeAlias = Delivered | Rejected | Unavailable | None
"""What a look-up found: Delivered (it is there), Rejected (a person has to look), Unavailable (could not be asked now:
ask again later), None (it is not there: send it again)."""


class LooksUp(Protocol):
    """What a connector also can whose type says ``look_up=True``."""

    async def look_up(self, delivery: Delivery) -> LookedUp:
        """Say whether the vendor has this delivery, whose outcome was Unknown. Bounded in time, applies nothing.
        What cannot be asked is never None: that would post it a second time."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing as the vendor has it now, as far as a delivery speaks of it. ``asked`` are the delivery's fields in the
    form in which this vendor keeps them, ``found`` the same fields as they stand there: equal where the vendor has what
    was asked. Both hold plain JSON values. ``reference`` is the vendor's own id, for a person to find it."""

    asked: Mapping[str, JsonValue]
    found: Mapping[str, JsonValue]
    reference: str | None = None


class ReadsBack(Protocol):
    """What a connector also can whose type says ``read_back=True``."""

    async def read_back(self, wanted: Sequence[Delivery]) -> Sequence[Kept | Rejected | None] | Unavailable:
        """What the vendor has of each delivery's entity: same length, same order. None: nothing is there; Rejected: of
        this one it cannot be said. Never empty, at most ``batch_max``, one action, distinct entities. Unavailable:
        could not be asked now. Bounded in time, applies nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """One of our things at the vendor. ``origin``: the event that wrote it last, where the vendor knows; ``made_at``:
    when it was made there, where that is known."""

    entity: str
    reference: str | None = None
    origin: Origin | None = None
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of our things; ``after`` continues the list, None: these were the last."""

    found: Sequence[Listed]
    after: str | None


class ListsOurs(Protocol):
    """What a connector also can whose type says ``list_ours=True``: it can tell its own things from others'."""

    async def list_ours(self, about: Mapping[str, JsonValue], after: str) -> Page | Unavailable:
        """A page of everything there that deliveries have made, and nothing else; ``about`` are the fields of
        ``Action.about``. It begins at the beginning with ``after`` empty. Bounded in time, applies nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What the vendor does with the same delivery twice: ``replay_key`` and ``dedupe_id`` remember a key for
    ``ttl``, ``upsert`` writes the same thing again, ``none`` does it again."""

    kind: Literal["replay_key", "upsert", "dedupe_id", "none"]
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a vendor can be asked. ``body`` is the pydantic model of its body, whose docstring and field
    descriptions are shown to analysts. ``upsert``: asking twice with the newest values is the same as asking once;
    ``order_matters``: a later delivery must not overtake a failed one.

    For ``send: latest``: ``about`` are the fields of the body that belong to *what* it is about, as the entity does
    (sql: the table); ``fields_in`` is the field that holds the fields which merge one by one (sql: ``row``), None
    where they are the body's own.

    For ``backbone erase``: ``erased_by`` is the action that takes away for good what this one has made of a person; it
    is asked with the same entity and ``about`` (one field at most), and doing it twice does no harm. Empty: this vendor
    cannot, a person has to. ``by_reference`` is the body's field that takes the vendor's own id of what is to be
    erased (the reference of its receipt), where the entity does not say which (Slack: one message)."""

    name: str
    body: type[BaseModel]
    upsert: bool
    order_matters: bool = False
    about: tuple[str, ...] = ()
    fields_in: str | None = None
    erased_by: str = ""
    by_reference: str = ""


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """The version of a vendor's API that a connection asks. ``sunset``: the first day on which the vendor may not
    answer it any more; None: the vendor has named none."""

    version: str
    sunset: date | None = None


class Fake(Protocol):
    """A real HTTP server that behaves as the vendor documents, and misbehaves when told.

    Beside the vendor's own paths it serves ``GET /__fake__/report`` (JSON: ``calls``, ``by_status``, ``applied``: how
    often it did what was asked, ``effects``: how many things stand there because of it, ``duplicates``: how often it
    was asked with a key it had seen, and what the vendor's fake adds), ``POST /__fake__/misbehave`` (a JSON list of
    misbehaviours to queue: ``connectors/misbehaviour.py``) and ``POST /__fake__/reset``.
    """

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Listen on ``host`` (a free port for 0) and answer the base URL. OSError when the port is taken."""
        ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorType:
    """What a connector's package registers under the entry-point group ``event_backbone.connectors``.

    ``settings`` validates the connection's table of backbone.toml after references (``env:``, ``file:``) are
    resolved. ``open`` builds a connector on the running event loop. ``fake`` makes the vendor's stand-in, or is None
    where the fake needs no server (sql: a SQLite file); ``fake_settings(url, folder)`` are the settings that reach it.
    ``dependency`` is the manifest of rule 9 (API, version, docs, quota, owner ...), plain strings.
    ``actions_for(table)`` are the actions as this connection's table of backbone.toml makes them (HubSpot: its
    ``custom_properties`` become fields of the body); None where they are the same for all. Use ``configured``.
    ``preview(settings, deliveries)`` says, line by line, what the vendor's structure would have to become for such
    deliveries (sql: the DDL); it blocks, changes nothing, raises BackboneError. None where there is nothing to say.
    ``answered(status, after)`` is the connector's own classification of an HTTP status (with a Retry-After) for one
    delivery alone, without a body; the tests in subscription files use it. None: as HTTP says.
    ``api(table)`` is the version of the vendor's API that the connection of this table asks, and when the vendor ends
    it. None: the vendor's API has no versions.
    ``check``, ``look_up``, ``read_back`` and ``list_ours`` say that its connectors fulfil ``Checks``, ``LooksUp``,
    ``ReadsBack`` (of its actions that are upserts) and ``ListsOurs``.
    Importing the module that holds it must be cheap: heavy imports belong inside ``open`` and ``fake``.
    """

    name: str
    doc: str
    idempotency: Idempotency
    on_unknown: Literal["resend", "hold"]
    batch_max: int
    actions: Mapping[str, Action]
    settings: type[BaseModel]
    open: Callable[[Any], Connector]
    fake: Callable[[], Fake] | None
    fake_settings: Callable[[str, Path], dict[str, JsonValue]]
    dependency: Mapping[str, str] = field(default_factory=dict)
    actions_for: Callable[[Mapping[str, JsonValue]], Mapping[str, Action]] | None = None
    preview: Callable[[Any, Sequence[Delivery]], list[str]] | None = None
    answered: Callable[[int, timedelta | None], Outcome] | None = None
    api: Callable[[Mapping[str, JsonValue]], ApiVersion] | None = None
    check: bool = False
    look_up: bool = False
    read_back: bool = False
    list_ours: bool = False

    def configured(self, table: Mapping[str, JsonValue]) -> ConnectorType:
        """This type with its actions as one connection has them. ``table`` is ``[connections.NAME]`` as written in
        backbone.toml, other keys and unresolved references included. Raises InputError naming the wrong setting."""
        return self if self.actions_for is None else replace(self, actions=self.actions_for(table))


GROUP = "event_backbone.connectors"
OURS = "event-backbone"


def connector_types(refused: Callable[[str], object] = lambda _: None) -> dict[str, ConnectorType]:
    """Every connector installed, ours and other packages', by name. One that cannot be loaded does not keep the others
    from it: ``refused`` is told a sentence with its package and the reason, and it is as if it were not installed."""
    from importlib.metadata import entry_points

    found: dict[str, ConnectorType] = {}
    # ours first: another package does not take the place of what a project has used so far
    for point in sorted(entry_points(group=GROUP), key=lambda one: (_package(one) != OURS, _package(one))):
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever another package's module does while it is imported
            reason = str(error) if isinstance(error, ImportError) else type(error).__name__
            refused(f"the connector '{point.name}' of the package {_package(point)} cannot be loaded: {reason}.")
            continue
        if not isinstance(loaded, ConnectorType):
            problem = f"{point.value} is no ConnectorType"
        elif loaded.name != point.name:
            problem = f"{point.value} calls itself '{loaded.name}'"
        elif point.name in found:
            problem = "another package has one of that name"
        else:
            found[point.name] = loaded
            continue
        refused(f"the connector '{point.name}' of the package {_package(point)} is left out: {problem}.")
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "?"
