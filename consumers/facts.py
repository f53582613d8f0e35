"""What the consuming side states to an observer; ``ops/watch`` makes metrics and log lines of it.

An observer is called on the hot path, from the event loop or the thread that owns the Kafka consumer: it must be
quick, thread-safe and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from connectors.connector import Outcome
from connectors.exchanges import Exchange
from schemas.event import Origin

if TYPE_CHECKING:
    from consumers.calls import Asked


@dataclass(slots=True)
class DeliverySettled:
    """One delivery came to its end (Delivered, Skipped or Rejected with its dead letter acked). Not frozen: it is made
    per delivery."""

    subscription: str
    connection: str
    action: str
    event: str
    outcome: Outcome
    attempts: int
    seconds: float
    """from its first attempt to its end"""
    age_seconds: float
    """from the event's time (``ce_time``) to now"""
    origin: Origin
    event_id: str
    """empty where it could not be decoded"""
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class DeliveryHeld:
    """An attempt did not end it; it waits in its lane."""

    subscription: str
    connection: str
    action: str
    event: str
    outcome: Outcome
    attempts: int


@dataclass(frozen=True, slots=True)
class RecordsNotOurs:
    subscription: str
    count: int


@dataclass(slots=True)
class CallMade:
    """One call to a vendor ended; the structured log line of every call. Not frozen: it is made per call."""

    subscription: str
    connection: str
    action: str
    deliveries: int
    seconds: float
    outcome: str
    """the worst outcome's class name; ``NotThere``: the vendor was asked whether it has it, and has not"""
    idempotency_key: str
    """of the first delivery, as the two below"""
    attempt: int
    """which one of its attempts this is, the first is 1; what uses no attempt is not counted"""
    traceparent: str | None
    exchanges: Sequence[Exchange]
    """what went over HTTP, in the order in which it began; empty for a vendor that speaks something else"""
    is_look_up: bool
    asked: Callable[[], Sequence[Asked]]
    """each delivery with its own outcome. To be called while the fact is observed: later they have moved on."""


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter was written and acked."""

    subscription: str
    outcome: str
    reason: str
    origin: str
    event: str


@dataclass(frozen=True, slots=True)
class DeadLetterClosed:
    """An open dead letter was closed: its event was delivered after all, or a person discarded it, or was erased."""

    subscription: str
    origin: str
    how: Literal["delivered", "discarded", "erased", "superseded"]


@dataclass(frozen=True, slots=True)
class KeyParked:
    """From now on the events of this record's key wait as dead letters of their own, in order."""

    subscription: str
    origin: str


@dataclass(frozen=True, slots=True)
class KeyUnparked:
    """The last dead letter of a parked key was closed; the key goes on."""

    subscription: str
    origin: str


@dataclass(frozen=True, slots=True)
class ReceiptsWritten:
    """Receipts were acked since the last such fact; stated with the commits, never per receipt."""

    subscription: str
    count: int


@dataclass(frozen=True, slots=True)
class ConnectionPaused:
    """The vendor asked for quiet, or cannot be reached."""

    connection: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """Its circuit breaker opened: no call is made for so long, then one is tried."""

    connection: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionHalfOpen:
    """The breaker lets one call at a time through, to see whether the vendor is back."""

    connection: str


@dataclass(frozen=True, slots=True)
class ConnectionHeld:
    """A person paused it."""

    connection: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionStopped:
    """A person must act: credentials or permissions."""

    connection: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionResumed:
    """Calls are made again, whatever kept them back."""

    connection: str


@dataclass(frozen=True, slots=True)
class SubscriptionStarted:
    subscription: str
    version: str


@dataclass(frozen=True, slots=True)
class SubscriptionNotStarted:
    """It is attached but cannot run in this process (no credentials, another projection file); tried again later."""

    subscription: str
    reason: str


@dataclass(frozen=True, slots=True)
class SubscriptionStopped:
    """It will not go on by itself; ``reason`` is a sentence with the command that clears it."""

    subscription: str
    reason: str


@dataclass(frozen=True, slots=True)
class SubscriptionLeft:
    """It left its group in an orderly way (paused, detached, rewind, shut down)."""

    subscription: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What an attach had to catch up with in this partition is done: from ``until`` on it is live."""

    subscription: str
    place: tuple[str, int]
    until: int


@dataclass(frozen=True, slots=True)
class PastFolded:
    """The past of this partition was read: so many events of it are in so many deliveries, which go out now."""

    subscription: str
    place: tuple[str, int]
    events: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class PastSent:
    """What was folded of this partition has its end; so many deliveries, of which ``unfolded`` are sent event by event
    after all. Its records are read once more for their receipts."""

    subscription: str
    place: tuple[str, int]
    deliveries: int
    unfolded: int


@dataclass(frozen=True, slots=True)
class PartitionsAssigned:
    subscription: str
    partitions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PartitionsRevoked:
    subscription: str
    partitions: tuple[tuple[str, int], ...]
    drained: bool


@dataclass(frozen=True, slots=True)
class CommitFailed:
    subscription: str
    reason: str


@dataclass(frozen=True, slots=True)
class SlowProjection:
    """A projection took longer than 50 ms; the event loop stood still for all."""

    subscription: str
    event: str
    seconds: float


Fact: TypeAlias = (
    DeliverySettled
    | DeliveryHeld
    | RecordsNotOurs
    | CallMade
    | DeadLettered
    | DeadLetterClosed
    | KeyParked
    | KeyUnparked
    | ReceiptsWritten
    | ConnectionPaused
    | ConnectionOpened
    | ConnectionHalfOpen
    | ConnectionHeld
    | ConnectionStopped
    | ConnectionResumed
    | SubscriptionStarted
    | SubscriptionNotStarted
    | SubscriptionStopped
    | SubscriptionLeft
    | CaughtUp
    | PastFolded
    | PastSent
    | PartitionsAssigned
    | PartitionsRevoked
    | CommitFailed
    | SlowProjection
)
Observer: TypeAlias = Callable[[Fact], None]
