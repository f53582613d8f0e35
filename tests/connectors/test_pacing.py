"""Pacing alone: the quota is kept whatever comes, live goes before background, and turns are fair."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.pacing import Meter, Pacing, Party, Quota, Rate, read_rate
from schemas.errors import InputError


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("80/10s", Rate(80, 10)), ("5/s", Rate(5, 1)), ("1000/m", Rate(1000, 60)),
        (" 250000 / d ", Rate(250_000, 86_400)), ("1/500ms", Rate(1, 0.5)), ("90/2h", Rate(90, 7200)),
    ],
)  # fmt: skip
def test_a_rate_is_a_count_of_calls_and_a_time(text: str, rate: Rate) -> None:
    assert read_rate(text) == rate


@given(st.text(max_size=20) | st.from_regex(r"[0-9]*/?[0-9]*[smhdx]?", fullmatch=True))
def test_whatever_is_written_it_is_a_rate_or_refused(text: str) -> None:
    try:
        rate = read_rate(text)
    except InputError:
        return
    assert rate.count > 0
    assert rate.seconds > 0


@pytest.mark.parametrize("text", ["0/s", "5/0s", "80", "/10s", "-1/s", "1.5/s", "80/10", "80/10s/5", "٣/s"])
def test_a_rate_that_would_stop_everything_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="such as 80/10s"):
        read_rate(text)


@given(
    per_second=st.floats(0.01, 1000),
    burst=st.floats(0.1, 50),
    changes=st.lists(st.tuples(st.floats(0, 20), st.sampled_from([0.25, 0.5, 1.0])), max_size=30),
)
def test_a_meter_never_gives_more_than_its_rate_and_one_burst(
    per_second: float, burst: float, changes: list[tuple[float, float]]
) -> None:
    """Also not when its rate is set down and up again: what is owed stays owed."""
    meter, now, taken = Meter(per_second, burst), 0.0, []
    for seconds, part in changes:
        until = now + seconds
        meter.change(per_second * part, burst * part, now)
        while (at := max(now, meter.ready_at)) <= until and len(taken) < 2000:
            now = at
            meter.take(now)
            taken.append(now)
        now = max(now, until)
    most = max(1.0, burst)
    for first in range(0, len(taken), 7):
        for last in range(first, len(taken), 11):
            stretch = taken[last] - taken[first]
            assert last - first + 1 <= stretch * per_second + most + 1e-6 * (last + 1)


class Crowd:
    """Parties that always want more, served as fast as the quota lets them: who was served, in order."""

    def __init__(self, quota: Quota, shares: dict[str, float], calls_max: int = 256) -> None:
        self.pacing = Pacing(quota, calls_max=calls_max)
        self.parties = {name: self.pacing.join(0.0) for name in shares}
        for name, share in shares.items():
            self.pacing.set_share(self.parties[name], share, 0.0)
        self.now = 0.0

    def ask(self, name: str, *, background: bool = False) -> bool:
        return self.pacing.begin(self.parties[name], background=background, now=self.now)

    def name(self, party: Party) -> str:
        return next(name for name, one in self.parties.items() if one is party)

    def run(self, wanting: list[tuple[str, bool]], calls: int) -> list[tuple[str, bool]]:
        """Every call ends before the next begins; asks in the order that ``turns`` says."""
        served: list[tuple[str, bool]] = []
        while len(served) < calls:
            order = [self.name(party) for party in self.pacing.turns(self.now)] or [name for name, _ in wanting]
            for name in order:
                for background in (True, False):
                    if (name, background) in wanting and self.ask(name, background=background):
                        served.append((name, background))
                        self.pacing.end(background=background)
            for name, background in wanting:
                self.pacing.want(self.parties[name], background=background)
            at = self.pacing.next_at(self.now)
            assert at is not None
            assert at >= self.now
            self.now = at
        return served


def test_a_process_keeps_to_its_share_of_the_rate() -> None:
    crowd = Crowd(Quota(rate=Rate(80, 10)), {"a": 0.25, "b": 0.125})
    crowd.run([("a", False), ("b", False)], 300)
    assert 300 / crowd.now == pytest.approx(3.0, rel=0.03)


def test_subscriptions_have_turns_by_their_shares_and_the_idle_ones_share_is_the_others() -> None:
    crowd = Crowd(Quota(rate=Rate(100, 10)), {"a": 0.6, "b": 0.2, "c": 0.2})
    counts = Counter(name for name, _ in crowd.run([("a", False), ("b", False)], 400))
    assert counts["a"] == pytest.approx(300, abs=3)
    assert 400 / crowd.now == pytest.approx(10, rel=0.05), "c wants nothing: a and b use all of the process's quota"


def test_who_was_idle_does_not_save_turns_up() -> None:
    crowd = Crowd(Quota(rate=Rate(100, 10)), {"a": 0.5, "b": 0.5})
    crowd.run([("a", False)], 200)
    counts = Counter(name for name, _ in crowd.run([("a", False), ("b", False)], 100))
    assert abs(counts["a"] - counts["b"]) <= 2


@pytest.mark.parametrize("quota", [Quota(rate=Rate(100, 10)), Quota(concurrency=4)], ids=["rate", "slots"])
def test_background_gets_a_tenth_of_what_live_could_use_and_no_more(quota: Quota) -> None:
    crowd = Crowd(quota, {"a": 0.5, "b": 0.5}) if quota.rate else SlotCrowd(quota, {"a": 0.5, "b": 0.5})
    served = crowd.run([("a", False), ("b", False), ("b", True)], 1000)
    assert sum(background for _, background in served) == pytest.approx(100, abs=2)


class SlotCrowd(Crowd):
    """No rate: what paces is that one call has to end before another begins, the oldest first."""

    def run(self, wanting: list[tuple[str, bool]], calls: int) -> list[tuple[str, bool]]:
        served: list[tuple[str, bool]] = []
        out: list[bool] = []
        while len(served) < calls:
            for name, background in sorted(wanting, key=lambda one: not one[1]):
                while self.ask(name, background=background):
                    served.append((name, background))
                    out.append(background)
            assert sum(self.pacing.in_flight) == self.pacing.slots
            self.pacing.end(background=out.pop(0))
        return served


def test_background_alone_uses_its_share_of_the_rate_and_not_more() -> None:
    crowd = Crowd(Quota(rate=Rate(100, 10), background=0.3), {"a": 1.0})
    crowd.run([("a", True)], 300)
    assert 300 / crowd.now == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(("concurrency", "most"), [(10, 3), (3, 1), (1, 1)])
def test_background_alone_uses_its_share_of_the_places_and_at_least_one(concurrency: int, most: int) -> None:
    crowd = Crowd(Quota(concurrency=concurrency), {"a": 1.0})
    assert [crowd.ask("a", background=True) for _ in range(5)].count(True) == most
    assert crowd.pacing.next_at(0.0) is None, "waits for an end, not for a time"
    assert [crowd.ask("a") for _ in range(20)].count(True) == concurrency - most


def test_a_call_that_is_not_made_costs_nothing_of_the_quota() -> None:
    crowd = Crowd(Quota(rate=Rate(1, 10)), {"a": 1.0})
    for background in (False, True, False, True):
        assert crowd.ask("a", background=background)
        assert not crowd.ask("a", background=background)
        crowd.pacing.cancel(crowd.parties["a"], background=background)
        crowd.pacing.end(background=background)
        crowd.pacing.ask(crowd.parties["a"])
    assert crowd.ask("a")
    assert not crowd.ask("a")
    assert crowd.pacing.next_at(0.0) is not None


@pytest.mark.parametrize(("share", "every_s", "used"), [(1.0, 0.125, 1.0), (1.0, 0.25, 0.5), (0.5, 0.5, 0.5)])
def test_how_much_of_the_rate_is_used_is_said_as_a_part_of_this_processs_share(
    share: float, every_s: float, used: float
) -> None:
    crowd = Crowd(Quota(rate=Rate(80, 10)), {"a": share})
    for _ in range(400):
        assert crowd.ask("a")
        crowd.pacing.end(background=False)
        crowd.now += every_s
    assert crowd.pacing.used(crowd.now) == pytest.approx(used, rel=0.05)
    assert Crowd(Quota(), {"a": 1.0}).pacing.used(0.0) is None


def test_concurrency_is_shared_and_at_least_one() -> None:
    crowd = Crowd(Quota(concurrency=10), {"a": 0.25})
    assert crowd.pacing.slots == 2
    crowd.pacing.set_share(crowd.parties["a"], 0.01, 0.0)
    assert crowd.pacing.slots == 1
    crowd.pacing.set_share(crowd.parties["a"], 0.0, 0.0)
    assert crowd.ask("a"), "who has no partition may still end what it began"


@given(seed=st.integers(0, 10_000), share=st.sampled_from([1.0, 0.5, 0.1]), concurrency=st.sampled_from([None, 1, 7]))
def test_whatever_comes_when_the_rate_and_the_concurrency_are_kept_and_nobody_starves(
    seed: int, share: float, concurrency: int | None
) -> None:
    """Random arrivals, lengths of calls, classes and departures; the vendor's stamps are judged."""
    chance = random.Random(seed)
    quota = Quota(rate=Rate(chance.randint(1, 50), chance.choice([1.0, 10.0])), concurrency=concurrency)
    assert quota.rate is not None
    crowd = Crowd(quota, {"a": share / 2, "b": share / 2}, calls_max=16)
    began: list[float] = []
    ends: list[tuple[float, bool]] = []
    for _ in range(200):
        crowd.now += chance.expovariate(quota.rate.count / quota.rate.seconds) * chance.choice([0.1, 1, 3])
        for end in [one for one in ends if one[0] <= crowd.now]:
            ends.remove(end)
            crowd.pacing.end(background=end[1])
        for party in crowd.pacing.turns(crowd.now):
            crowd.pacing.ask(party)
        for _ in range(chance.randint(0, 4)):
            background = chance.random() < 0.3
            if crowd.ask(chance.choice("ab"), background=background):
                began.append(crowd.now)
                ends.append((crowd.now + chance.expovariate(1), background))
        assert sum(crowd.pacing.in_flight) == len(ends)
        assert len(ends) <= (16 if concurrency is None else max(1, int(concurrency * share)))
    per_second, burst = quota.rate.count / quota.rate.seconds * share, max(1.0, quota.rate.count * 0.1 * share)
    for first, start in enumerate(began):
        for last in range(first, len(began), 5):
            assert last - first + 1 <= (began[last] - start) * per_second + burst + 1e-6
    assert began, "it was not all refused"
    assert all(one <= two for one, two in pairwise(began))
