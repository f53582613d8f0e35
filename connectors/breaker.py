"""The circuit breaker of a connection: keeps everybody away from a vendor that fails, and asks it one call at a time.

Pure: time (seconds of any clock that never steps back) and chance are arguments, nothing is read or scheduled here.

It opens at a tenth of at least 20 calls in 60 s failing, or 5 failures in a row, or 80 % of at least 20 calls being
slow. It stays open for ``Circuit.open_s``, doubled each time a probe fails, to ``open_max_s``, a tenth more or less by
chance. Then it is half open: one call at a time, and 3 that work close it. Calls that began before it opened say
nothing about the vendor as it is now, whenever they end.

No library does this (facts.md: none of five opens at a steady 80 % failure rate, two let every probe through).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from connectors.connector import Delivered, Outcome, Rejected, RetryLater, Skipped, Unavailable, Unknown

Verdict: TypeAlias = Literal["worked", "refused", "failed", "neither"]
"""What a call says about the vendor: it is there, it is there or was not asked (a refusal may be the connector's own,
before the call), it is not there, or nothing."""

WINDOW_S = 60
CALLS_MIN = 20
FAILED_SHARE = 0.1
SLOW_SHARE = 0.8
IN_A_ROW = 5
CLOSES = 3


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """What the outcomes of one call say about the vendor.

    Failed: timeouts, cuts, refused connections and 5xx of the whole call. Never a failure that names its item, a 4xx,
    a vendor that asks for quiet (``limited``) or credentials (``needs_operator``): somebody answered."""
    failed = quiet = refused = False
    for outcome in outcomes:
        match outcome:
            case Delivered() | Skipped() | RetryLater() | Unavailable(scope="entity"):
                return "worked"
            case Unavailable() if outcome.limited or outcome.needs_operator:
                quiet = True
            case Unknown() | Unavailable():
                failed = True
            case Rejected():
                refused = True
    if failed:
        return "failed"
    return "refused" if refused and not quiet else "neither"


OPEN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How patient a breaker is. ``slow_s``: a call that takes longer is slow."""

    open_s: float = OPEN_S
    open_max_s: float = 5 * OPEN_S
    slow_s: float = 10.0

    @classmethod
    def of(cls, *, open_s: float | None, total_s: float) -> Circuit:
        """One that stays open for ``open_s`` at first (None: as by default) and five times that at most; slow is what
        takes half of ``total_s``, the bound on a call."""
        first = OPEN_S if open_s is None else open_s
        return cls(open_s=first, open_max_s=5 * first, slow_s=total_s / 2)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that was let through; hand it back once, with ``settle`` or ``cancel``."""

    generation: int
    is_probe: bool


class Breaker:
    """One connection's breaker. ``state`` is as of the last call of a method; ``until`` is when an open one lets its
    first probe through; ``reason`` says why it opened (``failures``, ``failures_in_a_row``, ``slow``, ``probe``)."""

    __slots__ = (
        "_chance", "_circuit", "_in_a_row", "_opened", "_ordinary", "_probing", "_window", "_worked", "reason", "state",
        "until",
    )  # fmt: skip

    def __init__(self, circuit: Circuit, chance: Callable[[], float]) -> None:
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.until = 0.0
        self.reason = ""
        self._circuit, self._chance = circuit, chance
        self._ordinary = Ticket(0, False)
        self._window = _Window()
        self._in_a_row = 0
        self._opened = 0
        self._worked = 0
        self._probing = False

    def admits(self, now: float) -> bool:
        """Whether ``admit`` would let a call through."""
        if self.state == "closed":
            return True
        return not self._probing and (self.state == "half_open" or now >= self.until)

    def admit(self, now: float) -> Ticket | None:
        """Let a call through, or not (None)."""
        if self.state == "closed":
            return self._ordinary
        if not self.admits(now):
            return None
        if self.state == "open":
            self.state, self._worked = "half_open", 0
        self._probing = True
        return Ticket(self._ordinary.generation, True)

    def cancel(self, ticket: Ticket) -> None:
        """The call was not made, or nobody waited for its answer."""
        self.settle(ticket, "neither", 0.0, 0.0)

    def settle(self, ticket: Ticket, said: Verdict, seconds: float, now: float) -> None:
        """A call that was let through ended after so many seconds."""
        if ticket.generation != self._ordinary.generation:
            return
        if ticket.is_probe:
            self._probing = False
        if said == "neither" or (said == "refused" and self.state == "half_open"):
            return
        if self.state == "half_open":
            if said == "failed":
                self._open("probe", now)
            else:
                self._worked += 1
                if self._worked >= CLOSES:
                    self._close()
            return
        window = self._window
        window.add(now, said == "failed", seconds > self._circuit.slow_s)
        self._in_a_row = self._in_a_row + 1 if said == "failed" else 0
        if self._in_a_row >= IN_A_ROW:
            self._open("failures_in_a_row", now)
        elif window.calls >= CALLS_MIN:
            if window.failed >= window.calls * FAILED_SHARE:
                self._open("failures", now)
            elif window.slow >= window.calls * SLOW_SHARE:
                self._open("slow", now)

    def ask_now(self, now: float) -> None:
        """A person wants it asked at once: an open one lets its probe through from now on."""
        self.until = min(self.until, now)

    def _open(self, reason: str, now: float) -> None:
        seconds = min(self._circuit.open_max_s, self._circuit.open_s * (1 << min(self._opened, 16)))
        self.state, self.reason = "open", reason
        self.until = now + seconds * (0.9 + self._chance() / 5)
        self._opened += 1
        self._forget()

    def _close(self) -> None:
        self.state, self.reason, self._opened = "closed", "", 0
        self._forget()

    def _forget(self) -> None:
        self._ordinary = Ticket(self._ordinary.generation + 1, False)
        self._window = _Window()
        self._in_a_row = 0
        self._probing = False


class _Window:
    """Counts of the calls that ended in the last minute, by the second: its size does not grow with the rate."""

    __slots__ = ("_seconds", "calls", "failed", "slow")

    def __init__(self) -> None:
        self.calls = self.failed = self.slow = 0
        self._seconds: deque[list[int]] = deque()

    def add(self, now: float, failed: bool, slow: bool) -> None:
        second = int(now)
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            _, calls, failures, slows = self._seconds.popleft()
            self.calls -= calls
            self.failed -= failures
            self.slow -= slows
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0, 0])
        counts = self._seconds[-1]
        counts[1] += 1
        counts[2] += failed
        counts[3] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow
