"""Pacing: how many calls a connection makes at once and how many in a while, and whose turn it is.

Pure: time (seconds of any clock that never steps back) is an argument. Three rules, in this order:

1. **The quota.** ``rate`` and ``concurrency`` of the connection are the vendor's for us all; a process keeps to its
   share of them, the sum of its subscriptions' shares. In any stretch of time at most rate x stretch + a burst (a
   tenth of the rate's count, at least one call) begin, and at most ``concurrency`` are in flight, at least one.
2. **Live before background** (redrive, replay). Background gets what live leaves: of ten calls at least one when both
   want more, and never more than ``background`` of the quota (with no rate: of the calls in flight; at least one).
3. **Fair between subscriptions**, by their shares; what one does not use is the others' (start-time fair queueing,
   Goyal, Vin and Cheng 1996).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import exp

from schemas.duration import parse_duration
from schemas.errors import InputError

BACKGROUND = 0.3
BURST = 0.1
"""Part of the rate's count that may begin at once."""
SHARE_MIN = 0.01
"""A subscription that has no partition (yet) may still end what it began."""
LIVE_IN_A_ROW = 9
"""So many live calls while background waits, then one of the background: a tenth."""
_RATE = re.compile(r"\s*([0-9]{1,7})\s*/\s*([0-9a-z]{1,20})\s*\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in so many seconds."""

    count: int
    seconds: float


def read_rate(text: str) -> Rate:
    """``80/10s``, ``5/s``, ``1000/m``: a count of calls and a duration. Raises InputError."""
    found = _RATE.match(text)
    if found is not None:
        try:
            span = parse_duration(found[2] if found[2][0].isdigit() else f"1{found[2]}")
            rate = Rate(int(found[1]), span.total_seconds())
        except InputError:
            rate = Rate(0, 0.0)
        if rate.count and rate.seconds:
            return rate
    raise InputError("is a count of calls and a time, such as 80/10s, 5/s or 1000/m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a connection may use of the vendor, over all processes. ``rate`` None: no rate but the vendor's own words;
    ``concurrency`` None: the process's own bound. ``background``: the part (0..1) that background may use."""

    rate: Rate | None = None
    concurrency: int | None = None
    background: float = BACKGROUND


class Meter:
    """A token bucket as one time (GCRA): in any stretch of time at most ``rate`` x stretch + ``burst`` are taken."""

    __slots__ = ("_burst", "_every_s", "_paid_until")

    def __init__(self, per_second: float, burst: float) -> None:
        self._every_s, self._burst = 1 / per_second, max(1.0, burst)
        self._paid_until = float("-inf")

    def change(self, per_second: float, burst: float, now: float) -> None:
        """Another rate from now on; the tokens that are owed stay owed."""
        owed = max(0.0, self._paid_until - now) / self._every_s
        self._every_s, self._burst = 1 / per_second, max(1.0, burst)
        self._paid_until = now + owed * self._every_s

    @property
    def ready_at(self) -> float:
        """When the next token is there; a time that is over means now."""
        return self._paid_until - (self._burst - 1) * self._every_s

    def take(self, now: float) -> None:
        """Take a token. Only at ``ready_at`` or later."""
        self._paid_until = max(self._paid_until, now) + self._every_s

    def give_back(self) -> None:
        """A token that was taken was not used."""
        self._paid_until -= self._every_s


class Recent:
    """How many tokens were taken lately: each counts less with time, by e in ``seconds``."""

    __slots__ = ("_at", "_count", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._count, self._at, self._seconds = 0.0, 0.0, seconds

    def add(self, count: float, now: float) -> None:
        self._count, self._at = self.count(now) + count, now

    def give_back(self) -> None:
        """The last one was not used."""
        self._count -= 1

    def count(self, now: float) -> float:
        """Taken evenly it is rate x ``seconds``."""
        return self._count * exp((self._at - now) / self._seconds)


class Party:
    """One subscription's standing: its share, and for live and background what it wants now and when it had its last
    turn, in the virtual time of its class."""

    __slots__ = ("finish", "share", "wants")

    def __init__(self) -> None:
        self.share = 1.0
        self.wants = [False, False]
        """whether it asked for a call and may not make it yet: live, background"""
        self.finish = [0.0, 0.0]


class Pacing:
    """The turns of one connection in one process. ``calls_max`` is the process's own bound on calls in flight."""

    def __init__(self, quota: Quota, *, calls_max: int) -> None:
        self.in_flight = [0, 0]
        """calls: live, background"""
        self._quota, self._calls_max = quota, calls_max
        self._parties: list[Party] = []
        self._virtual = [0.0, 0.0]
        self._wishes = 0
        self._live_in_a_row = 0
        self._slots = self._background_slots = 1
        self._all: Meter | None = None
        self._background: Meter | None = None
        self._recent: Recent | None = None
        self._total = 1.0
        if quota.rate is not None:
            self._all, self._background = Meter(1.0, 1.0), Meter(1.0, 1.0)
            self._recent = Recent(quota.rate.seconds)
        self._divide(0.0)

    @property
    def slots(self) -> int:
        """Calls in flight at most."""
        return self._slots

    @property
    def is_full(self) -> bool:
        """Whether as many calls are in flight as may be, so that nobody's may begin."""
        return self.in_flight[0] + self.in_flight[1] >= self._slots

    def join(self, now: float) -> Party:
        party = Party()
        self._parties.append(party)
        self._divide(now)
        return party

    def leave(self, party: Party, now: float) -> None:
        """What it has in flight still has to be given back with ``end``."""
        self.ask(party)
        self._parties.remove(party)
        self._divide(now)

    def set_share(self, party: Party, share: float, now: float) -> None:
        party.share = min(1.0, max(0.0, share))
        self._divide(now)

    def begin(self, party: Party, *, background: bool, now: float) -> bool:
        """Take a turn for a call, if there is one for this party now; give it back with ``end``. False: it is
        remembered that the party wants one, until ``ask``."""
        kind = int(background)
        if not self._is_free(kind, now) or (self._wishes and not self._is_its_turn(party, kind, now)):
            self.want(party, background=background)
            return False
        self._forget(party, kind)
        if self._all is not None and self._background is not None and self._recent is not None:
            self._all.take(now)
            if kind:
                self._background.take(now)
            self._recent.add(1, now)
        self._virtual[kind] = start = max(self._virtual[kind], party.finish[kind])
        party.finish[kind] = start + 1 / max(party.share, SHARE_MIN)
        if background:
            self._live_in_a_row = 0
        elif self._is_wanted(1):
            self._live_in_a_row += 1
        self.in_flight[kind] += 1
        return True

    def want(self, party: Party, *, background: bool) -> None:
        """Remember that the party wants a call, without trying."""
        if not party.wants[background]:
            party.wants[background] = True
            self._wishes += 1

    def end(self, *, background: bool) -> None:
        """A call ended."""
        self.in_flight[background] -= 1

    def cancel(self, party: Party, *, background: bool) -> None:
        """A call was not made after all: its token and its turn are given back. ``end`` follows all the same."""
        for meter in (self._all, self._background)[: background + 1]:
            if meter is not None:
                meter.give_back()
        if self._recent is not None:
            self._recent.give_back()
        party.finish[background] -= 1 / max(party.share, SHARE_MIN)

    def turns(self, now: float) -> list[Party]:
        """Who wants a call, in the order in which it is their turn."""
        first = 1 if self._background_is_due(now) else 0
        found: list[Party] = []
        for kind in (first, 1 - first):
            wanting = [party for party in self._parties if party.wants[kind] and party not in found]
            found.extend(sorted(wanting, key=lambda party, kind=kind: self._start(party, kind)))  # type: ignore[misc]
        return found

    def ask(self, party: Party) -> None:
        """Forget what it wanted: it is being asked."""
        self._forget(party, 0)
        self._forget(party, 1)

    def next_at(self, now: float) -> float | None:
        """When the next call that somebody wants may begin: ``now`` or later. None: when one in flight has ended, or
        nobody wants any."""
        if self.is_full:
            return None
        times = []
        for kind, full in ((0, False), (1, self.in_flight[1] >= self._background_slots)):
            if self._is_wanted(kind) and not full:
                meters = (self._all, self._background)[: kind + 1]
                times.append(max([now, *(meter.ready_at for meter in meters if meter is not None)]))
        return min(times, default=None)

    @property
    def waiting(self) -> int:
        """How many subscriptions want a call and may not make it yet."""
        return sum(any(party.wants) for party in self._parties) if self._wishes else 0

    def used(self, now: float) -> float | None:
        """How much of this process's share of the rate was used lately, 0..1, and 1 while it keeps somebody waiting;
        None without a rate."""
        rate = self._quota.rate
        if rate is None or self._all is None or self._recent is None:
            return None
        if now < self._all.ready_at and self.waiting:
            return 1.0
        return min(1.0, self._recent.count(now) / (rate.count * self._total))

    def _divide(self, now: float) -> None:
        total = self._total = min(1.0, max(SHARE_MIN, sum(party.share for party in self._parties)))
        quota = self._quota
        self._slots = max(1, int(quota.concurrency * total)) if quota.concurrency is not None else self._calls_max
        self._background_slots = max(1, int(self._slots * quota.background))
        if quota.rate is not None and self._all is not None and self._background is not None:
            per_second, burst = quota.rate.count / quota.rate.seconds * total, quota.rate.count * BURST * total
            self._all.change(per_second, burst, now)
            self._background.change(per_second * quota.background, burst * quota.background, now)

    def _is_free(self, kind: int, now: float) -> bool:
        """Whether the quota has room for one more of this kind."""
        live, background = self.in_flight
        if live + background >= self._slots or (self._all is not None and now < self._all.ready_at):
            return False
        if kind == 0:
            return True
        return background < self._background_slots and (self._background is None or now >= self._background.ready_at)

    def _is_its_turn(self, party: Party, kind: int, now: float) -> bool:
        due = self._background_is_due(now)
        if kind == 0 and due:
            return False
        if kind == 1 and not due and self._live_in_a_row < LIVE_IN_A_ROW and self._is_wanted(0):
            return False
        start = self._start(party, kind)
        return not any(one.wants[kind] and one is not party and self._start(one, kind) < start for one in self._parties)

    def _background_is_due(self, now: float) -> bool:
        return self._live_in_a_row >= LIVE_IN_A_ROW and self._is_wanted(1) and self._is_free(1, now)

    def _forget(self, party: Party, kind: int) -> None:
        if party.wants[kind]:
            party.wants[kind] = False
            self._wishes -= 1

    def _is_wanted(self, kind: int) -> bool:
        return self._wishes > 0 and any(party.wants[kind] for party in self._parties)

    def _start(self, party: Party, kind: int) -> float:
        return max(self._virtual[kind], party.finish[kind])
