"""Two subscriptions on one connection: one is live, the other was just attached and catches up.

Our ``Flow`` twice and our ``Pacing``, on a clock of its own; the vendor takes its time and nothing fails. Every number
is chosen by the seed. What the live one may ask of the vendor is what the two classes promise it: nine of ten calls,
and seven of ten places (delivery.md, 5); as long as it wants no more than that, none of its events waits.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass

from connectors.connector import Delivered
from connectors.pacing import Pacing, Party, Quota, Rate
from consumers.batches import Batch
from tests.consumers.flow_rig import Rig

EVENTS = 120
BACKLOG = 300
PLACE = ("t", 0)


@dataclass(frozen=True, slots=True)
class Found:
    """``waited_s``: how long the live one's events waited for their call, the longest; ``bound_s``: how long they may;
    ``caught_up``: events of the other that were delivered while the live one was busy; ``seconds`` it took."""

    waited_s: float
    bound_s: float
    caught_up: int
    seconds: float


class _Subscription:
    """One of the two: a flow, and its place at the pacing."""

    def __init__(self, pacing: Pacing, until: int | None) -> None:
        self.rig = Rig(receipts_on=False)
        self.rig.assign(PLACE, until=until)
        self.party: Party = pacing.join(0.0)
        self.party.share = 0.5
        self.delivered = 0

    def give(self, count: int) -> None:
        self.rig.give(*[{"entity": "x"}] * count, key=None)


class _Run:
    """The clock, the calls on their way, and what ``runtime.py`` and ``connection.py`` do with them."""

    def __init__(self, pacing: Pacing, takes_s: float) -> None:
        self.now = 0.0
        self.pacing, self._takes_s = pacing, takes_s
        self._calls: list[tuple[float, int, _Subscription, Batch]] = []
        self._tickets = itertools.count()
        self.live, self.catching_up = _Subscription(pacing, None), _Subscription(pacing, BACKLOG)
        self.called_at: list[float] = []
        """when the live one's events were asked, in order"""

    def pump(self, of: _Subscription) -> None:
        flow, of.rig.now = of.rig.flow, self.now
        for background in (False, True):
            while flow.waiting(background=background) and self.pacing.begin(
                of.party, background=background, now=self.now
            ):
                batch = flow.next_batch(self.now, background=background)
                if batch is None:
                    self.pacing.cancel(of.party, background=background)
                    self.pacing.end(background=background)
                    break
                if of is self.live:
                    self.called_at.append(self.now)
                heapq.heappush(self._calls, (self.now + self._takes_s, next(self._tickets), of, batch))

    def end_calls(self) -> None:
        while self._calls and self._calls[0][0] <= self.now:
            _, _, of, batch = heapq.heappop(self._calls)
            of.rig.now = self.now
            of.rig.answer(batch, Delivered())
            of.delivered += 1
            self.pacing.end(background=batch.background)
            self.pump(of)

    def offer(self) -> None:
        for party in self.pacing.turns(self.now):
            if (at := self.pacing.next_at(self.now)) is None or at > self.now:
                return
            self.pacing.ask(party)
            self.pump(self.live if party is self.live.party else self.catching_up)

    def next_at(self) -> list[float]:
        """When something happens by itself."""
        ends = [self._calls[0][0]] if self._calls else []
        at = self.pacing.next_at(self.now)
        return ends if at is None else [*ends, max(at, self.now)]


def simulate(seed: int) -> Found:
    """Run until the live one has had all of its events asked."""
    rng = random.Random(seed)
    per_second, concurrency = rng.choice((5, 20, 80)), rng.choice((4, 10, 20))
    wants = per_second * rng.uniform(0.65, 0.8)
    takes_s = rng.uniform(0.3, 0.8) * concurrency / per_second
    run = _Run(Pacing(Quota(rate=Rate(per_second, 1.0), concurrency=concurrency), calls_max=64), takes_s)
    run.catching_up.give(BACKLOG)
    run.pump(run.catching_up)
    arrivals = [1 + n / wants for n in range(EVENTS)]
    arrived = 0
    while len(run.called_at) < EVENTS:
        run.end_calls()
        while arrived < EVENTS and arrivals[arrived] <= run.now:
            run.live.give(1)
            arrived += 1
            run.pump(run.live)
        run.offer()
        run.now = min([*arrivals[arrived : arrived + 1], *(at for at in run.next_at() if at > run.now)])
    waited = max(at - came for at, came in zip(run.called_at, arrivals, strict=True))
    # a call of the background may have taken the last token, and the one that is its tenth the next
    return Found(waited, 2.5 / per_second, run.catching_up.delivered, run.now)
