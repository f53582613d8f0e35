"""The gate of a connection: whether calls may begin at all, and what people are told of it.

Pure: time (seconds of any clock that never steps back) and chance are arguments; ``asked`` is the connector's
``pause_until``. Whose turn it is and how fast is ``pacing``'s.

It is shut by a person (``hold``), by credentials that fail (``stop``), by the circuit breaker, and by quiet: the vendor
asked for it, or did not answer. After a quiet one call goes first: a vendor that has just come back is not met by all.
Only a call that began after the gate was shut says that it may open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from connectors.breaker import Breaker, Circuit, Ticket, Verdict, verdict
from connectors.connector import Delivered, Outcome, RetryLater, Unavailable, Unknown

PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 60.0
PROBE_EVERY_S = 60.0
"""How often a connection that stopped is asked whether its credentials work again."""

ConnectionState: TypeAlias = Literal["running", "paused", "open", "half_open", "stopped", "held"]


@dataclass(slots=True)
class Pass:
    """One call that was let through. ``first``: alone after a quiet. Not frozen: it is made per call."""

    ticket: Ticket
    first: bool


class Gate:
    """One connection's gate. ``has_check``: the connector can be asked whether its credentials work."""

    def __init__(self, circuit: Circuit, *, has_check: bool, probe_every_s: float, chance: Callable[[], float]) -> None:
        self._breaker, self._chance = Breaker(circuit, chance), chance
        self._circuit_reason = ""
        self._pause_until = self._paused_at = 0.0
        self._pause_reason = ""
        self._failures = 0
        self._away = 0
        """pauses in a row that the vendor did not ask for: only these make the next one longer"""
        self._is_first_out = False
        self._held = self._stopped = ""
        self._probe_every_s, self._probe_at = probe_every_s, 0.0
        self._has_check, self._check_tells, self._is_back_by_check = has_check, has_check, False

    # ---- calls

    def admits(self, now: float, asked: float) -> bool:
        """Whether a call may begin now."""
        if self._held or self.needs_check or self._quiet_until(asked) > now:
            return False
        return not (self._failures and self._is_first_out) and self._breaker.admits(now)

    def admit(self, now: float) -> Pass:
        """Let a call through that ``admits`` has allowed; give it back with ``leave``."""
        ticket = self._breaker.admit(now)
        assert ticket is not None, "admits was asked first"
        first = self._failures > 0
        if first:
            self._is_first_out = True
        return Pass(ticket, first)

    def cancel(self, one: Pass) -> None:
        """No call was made, or nobody waited for its answer. ``leave`` follows all the same."""
        self._breaker.cancel(one.ticket)

    def leave(self, one: Pass) -> None:
        if one.first:
            self._is_first_out = False

    def learn(self, one: Pass, outcomes: Sequence[Outcome], *, delivered: bool, began: float, now: float) -> None:
        """What a call that ended says about the vendor. ``delivered``: one of the outcomes is Delivered."""
        before = self._breaker.state
        said: Verdict = "worked" if delivered else verdict(outcomes)
        self._breaker.settle(one.ticket, said, now - began, now)
        if self._breaker.state == "open" and (before != "open" or said == "failed"):
            self._circuit_reason = "slow" if self._breaker.reason == "slow" else _failure(outcomes)
        if said == "worked" and began >= self._paused_at:
            proves = delivered or any(isinstance(outcome, Delivered | RetryLater) for outcome in outcomes)
            if proves and not self.needs_check:
                self._stopped, self._is_back_by_check, self._check_tells = "", False, self._has_check
            if not self._stopped or self._check_tells:
                self._failures = self._away = 0
                self._pause_until = 0.0

    def opens_at(self, now: float, asked: float) -> float | None:
        """When it may open by itself, ``now`` where it is open; None: when something happens."""
        if self._held or self.needs_check or (self._failures and self._is_first_out):
            return None
        at = max(now, self._quiet_until(asked))
        if self._breaker.admits(now):
            return at
        return None if self._breaker.state == "half_open" else max(at, self._breaker.until)

    # ---- what shuts it, and what opens it

    def pause(self, seconds: float | None, reason: str, *, now: float, asked: float) -> None:
        """Quiet for so long; None: 1 s doubling to 60 s, with jitter, while nothing succeeds (and nothing while the
        circuit is open, which has times of its own). A longer quiet that is in force stays; of many calls that fail
        together one counts."""
        if seconds is None:
            if self._breaker.state != "closed" or (self._failures and self._quiet_until(asked) > now):
                return
            seconds = min(PAUSE_MAX_S, PAUSE_FIRST_S * (1 << min(self._away, 10))) * (0.5 + self._chance() / 2)
            self._away += 1
        self._failures += 1
        self._paused_at = now
        self._pause_until = max(self._pause_until, now + seconds)
        self._pause_reason = reason

    def stop(self, reason: str, now: float) -> None:
        """Only a person can mend it. A check a minute sees whether somebody did (``needs_check``); where there is none,
        or it said that all is well and the calls that followed were refused again (a scope that it does not need),
        one call a minute."""
        if self._is_back_by_check:
            self._check_tells = False
        if self._check_tells:
            self._stopped = reason
        elif not self._stopped or self._pause_until <= now:
            self._stopped = reason
            self._failures += 1
            self._paused_at = now
            self._pause_until = self.probed_next(now)

    @property
    def needs_check(self) -> bool:
        """Whether it is stopped until ``checked`` says that the credentials work."""
        return self._stopped != "" and self._check_tells

    def probed_next(self, now: float) -> float:
        """When the credentials are to be tried next, as of now."""
        self._probe_at = now + self._probe_every_s
        return self._probe_at

    def checked(self) -> None:
        """The credentials work."""
        self._stopped, self._is_back_by_check = "", True

    def credentials_changed(self, now: float) -> None:
        """Where it is stopped without a check, one call may try the new ones at once."""
        if self._stopped and not self._check_tells:
            self._pause_until = min(self._pause_until, now)

    def hold(self, reason: str) -> None:
        self._held = reason

    def release(self, now: float) -> None:
        """End a person's pause, and every wait but the one that the vendor itself asked for."""
        self._held = ""
        self._pause_until = min(self._pause_until, now)
        self._breaker.ask_now(now)

    # ---- what people are told

    def state(self, asked: float) -> tuple[ConnectionState, str, float | None]:
        """Which of its states comes first, why, and until when as far as that is known."""
        if self._held:
            return "held", self._held, None
        if self._stopped:
            return "stopped", self._stopped, self._probe_at
        if self._breaker.state != "closed":
            return self._breaker.state, self._circuit_reason, self._breaker.until
        if self._failures:
            return "paused", self._pause_reason, self._quiet_until(asked)
        return "running", "", None

    def _quiet_until(self, asked: float) -> float:
        return max(self._pause_until, asked)


def _failure(outcomes: Sequence[Outcome]) -> str:
    """The reason that a failed call gave."""
    return next((one.reason for one in outcomes if isinstance(one, Unknown | Unavailable)), "")
