"""What follows from an outcome: the settle table as a pure function. Time and chance are arguments.

The table itself stands in ``connectors/connector.py``. Whoever changes a row here changes it there, in the test and
in the README.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias, assert_never

from connectors.connector import Delivered, Outcome, Rejected, RetryLater, Skipped, Unavailable, Unknown
from consumers.subscription import Policies

BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_MAX = timedelta(minutes=2)
BUSY_IN_A_ROW_MAX = 3
"""So many Unavailable(entity) in a row, while others on the connection succeed, count as an attempt that failed."""

DeadOutcome: TypeAlias = Literal["rejected", "undecodable", "exhausted", "unknown", "parked"]


@dataclass(slots=True)
class Attempts:
    """What was tried for one delivery so far. ``first_at`` is on the clock that is passed as ``now``."""

    count: int = 0
    first_at: float | None = None
    busy_in_a_row: int = 0
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """Terminal: its offset may be committed over."""

    outcome: Delivered | Skipped


@dataclass(frozen=True, slots=True)
class SetAside:
    """Terminal once the dead letter is acked."""

    outcome: DeadOutcome
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Its lane waits so many seconds and asks again; others go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PauseConnection:
    """Nothing of this connection is sent for so many seconds (None: the connection's own backoff); no attempt used."""

    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class StopConnection:
    """Nothing will succeed until a person acts; it is probed once a minute."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halve:
    """The call was refused as a whole: ask again in halves, down to single deliveries, with the same keys."""

    rejected: Rejected


@dataclass(frozen=True, slots=True)
class LookUp:
    """It may have happened: its lane waits so many seconds, then the vendor is asked whether it did, before it is sent
    again."""

    seconds: float


Decision: TypeAlias = Finish | SetAside | Hold | PauseConnection | StopConnection | Halve | LookUp


def decide(
    outcome: Outcome,
    attempts: Attempts,
    policies: Policies,
    *,
    now: float,
    alone: bool,
    others_succeed: bool,
    random: Callable[[], float],
) -> Decision:
    """What to do after one attempt; counts it in ``attempts`` (changed in place) where the table says so.

    ``now`` is any clock in seconds that does not step back. ``alone``: the delivery was the only one of its call.
    ``others_succeed``: another delivery on the connection was Delivered since this one became busy. ``random``
    answers a number in [0, 1)."""
    if attempts.first_at is None:
        attempts.first_at = now
    match outcome:
        case Delivered():
            attempts.count += 1
            return Finish(outcome)
        case Skipped():
            return Finish(outcome)
        case Rejected(scope="call") if not alone:
            return Halve(outcome)
        case Rejected():
            attempts.count += 1
            return SetAside("unknown" if attempts.unknown else "rejected", outcome.reason, outcome.detail)
        case Unavailable(needs_operator=True):
            return StopConnection(outcome.reason)
        case Unavailable(scope="connection"):
            return PauseConnection(None if outcome.after is None else outcome.after.total_seconds(), outcome.reason)
        case Unavailable():
            attempts.busy_in_a_row += 1
            if attempts.busy_in_a_row < BUSY_IN_A_ROW_MAX or not others_succeed:
                return Hold(_delay(outcome.after, attempts.busy_in_a_row - 1, random))
            attempts.busy_in_a_row = 0
            return _try_again(outcome.reason, outcome.after, attempts, policies, now, random)
        case RetryLater():
            attempts.busy_in_a_row = 0
            return _try_again(outcome.reason, outcome.after, attempts, policies, now, random)
        case Unknown():
            attempts.busy_in_a_row = 0
            attempts.unknown = True
            if policies.on_unknown == "hold":
                attempts.count += 1
                return SetAside("unknown", outcome.reason)
            again = _try_again(outcome.reason, None, attempts, policies, now, random)
            return LookUp(again.seconds) if policies.on_unknown == "look_up" and isinstance(again, Hold) else again
    assert_never(outcome)


def decide_look_up(
    found: Outcome | None,
    attempts: Attempts,
    policies: Policies,
    *,
    now: float,
    random: Callable[[], float],
) -> Decision:
    """What to do after the vendor was asked whether a delivery had happened. None: it had not, send it again at once. A
    question that failed is asked again; it counts as an attempt, so that it ends with the retry policy."""
    match found:
        case None:
            return Hold(0.0)
        case Delivered():
            return Finish(found)
        case Rejected():
            return SetAside("unknown", found.reason, found.detail)
        case Unavailable(needs_operator=True):
            return StopConnection(found.reason)
        case Unavailable(scope="connection"):
            return PauseConnection(None if found.after is None else found.after.total_seconds(), found.reason)
        case _:
            again = _try_again(found.reason, getattr(found, "after", None), attempts, policies, now, random)
            return LookUp(again.seconds) if isinstance(again, Hold) else again


def _try_again(
    reason: str,
    after: timedelta | None,
    attempts: Attempts,
    policies: Policies,
    now: float,
    random: Callable[[], float],
) -> Hold | SetAside:
    attempts.count += 1
    first_at = now if attempts.first_at is None else attempts.first_at
    if attempts.count >= policies.retry.attempts and now - first_at >= policies.retry.within.total_seconds():
        return SetAside("unknown" if attempts.unknown else "exhausted", reason)
    return Hold(_delay(after, attempts.count - 1, random))


def _delay(after: timedelta | None, failures: int, random: Callable[[], float]) -> float:
    return after.total_seconds() if after is not None else backoff(failures, random)


def backoff(failures: int, random: Callable[[], float]) -> float:
    """Full jitter: seconds in [0, min(2 min, 2 s * 2^failures)) ("Exponential Backoff And Jitter", AWS 2015)."""
    return random() * min(BACKOFF_MAX.total_seconds(), BACKOFF_FIRST.total_seconds() * (1 << min(failures, 16)))


class RejectionGuard:
    """Stops a subscription that rejects everything before it fills its dead topic: a bad deploy looks like poison.

    Trips at ``in_a_row`` rejections one after another in distinct lanes, or at ``share`` of the last ``window``
    settled deliveries. ``accept`` rejections pass uncounted first (``subscription resume --accept N``)."""

    def __init__(self, *, in_a_row: int = 5, share: float = 0.1, window: int = 1_000, accept: int = 0) -> None:
        self._in_a_row, self._limit = in_a_row, int(share * window)
        self._recent: deque[bool] = deque(maxlen=window)
        self._rejected = 0
        self._lanes_in_a_row: set[object] = set()
        self._accept = accept

    def succeeded(self) -> None:
        self._lanes_in_a_row.clear()
        self._add(False)

    def rejected(self, lane: object) -> str | None:
        """Count one in; a sentence when the subscription must stop."""
        if self._accept > 0:
            self._accept -= 1
            return None
        self._add(True)
        self._lanes_in_a_row.add(lane)
        if len(self._lanes_in_a_row) >= self._in_a_row:
            return f"{self._in_a_row} events in a row were rejected"
        if self._rejected >= self._limit:
            return f"{self._rejected} of the last {len(self._recent)} events were rejected"
        return None

    def _add(self, rejected: bool) -> None:
        if len(self._recent) == self._recent.maxlen and self._recent[0]:
            self._rejected -= 1
        self._recent.append(rejected)
        self._rejected += rejected
