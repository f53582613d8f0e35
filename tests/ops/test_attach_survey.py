"""What an attach is going to catch up with: which offsets are looked at, what of it is said, and what expires first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.pacing import Quota, read_rate
from consumers.subscription import Route
from ops.changes import attach_effects
from ops.changes.attach_effects import Effects, figures, sentences, who_may_run
from ops.changes.attach_survey import EXAMPLES, Survey, effort, expires_before, sampled
from ops.lag.cluster import Cluster, Place
from ops.topics import TopicState
from schemas.errors import BackboneError, NotAllowedError, RefusedError, UnreachableError
from schemas.event import Record
from tests.consumers.flow_rig import NOW, ROUTE, JsonPipeline, subscription
from tests.ops.simulated_cluster import Log, SimulatedCluster, Time

A, B = ("t", 0), ("t", 1)
ROUTES: dict[str, tuple[Route, ...]] = {"shop.Ordered": (replace(ROUTE, carried={"body.mail": frozenset({"email"})}),)}


def surveyed(*values: bytes, total: int | None = None, looked_at: int | None = None, age_s: float = 0.0) -> Survey:
    sub = replace(subscription(expire_after=timedelta(hours=1)), routes=ROUTES)
    survey = Survey(total=len(values) if total is None else total)
    for offset, value in enumerate(values):
        record = Record("t", 0, offset, b"k", value, (), int((NOW - age_s) * 1000))
        survey.add(sub, record, JsonPipeline().project(record), NOW)
    survey.looked_at = len(values) if looked_at is None else looked_at
    return survey


# ---- which offsets are looked at


@given(
    st.dictionaries(
        st.tuples(st.just("t"), st.integers(0, 5)), st.tuples(st.integers(0, 50), st.integers(0, 200)), max_size=6
    ),
    st.integers(1, 100),
)
def test_what_is_looked_at_lies_between_start_and_hand_over_each_offset_once_and_not_much_more_than_asked(
    spans: dict[Place, tuple[int, int]], most: int
) -> None:
    begin = {place: at for place, (at, _) in spans.items()}
    until = {place: at + length for place, (at, length) in spans.items()}
    looks = sampled(begin, until, most)
    seen = [(place, n) for look in looks for place, found in look.items() for at, to in found for n in range(at, to)]
    assert len(seen) == len(set(seen))
    assert all(begin[place] <= offset < until[place] for place, offset in seen)
    total = sum(length for _, length in spans.values())
    if total <= most:
        assert len(seen) == total
    else:
        assert len(seen) <= most + 2 * len(spans)
    for place, (at, length) in spans.items():
        if length:
            assert (place, at) in seen  # the oldest of every partition


def test_of_a_long_past_the_oldest_and_the_newest_are_looked_at() -> None:
    oldest, newest = sampled({A: 0, B: 0}, {A: 900, B: 100}, 100)
    assert (oldest, newest) == ({A: [(0, 45)], B: [(0, 5)]}, {A: [(855, 900)], B: [(95, 100)]})


# ---- what is said of it


def test_events_are_counted_by_what_would_come_of_them_and_shown_masked() -> None:
    survey = surveyed(b'{"entity": "1", "mail": "ana@x.org"}', b"bad", b"where", b'{"entity": "2"}')
    (row,) = survey.plain()
    assert (row["event"], row["events"], row["sent"], row["dead_letter"]) == ("shop.Ordered", 3, 2, 1)
    assert row["examples"][0] == {
        "origin": "t/0/0", "outcome": "sent", "action": "note.put", "entity": "1", "body": {"mail": "‹email›"},
    }  # fmt: skip
    assert row["examples"][1] == {"origin": "t/0/1", "outcome": "dead_letter", "reason": "projection"}
    assert survey.not_ours == 1


def test_at_most_five_events_of_a_type_are_shown() -> None:
    (row,) = surveyed(*[b'{"entity": "1"}'] * 9).plain()
    assert (row["events"], len(row["examples"])) == (9, EXAMPLES)


def test_what_is_too_old_to_be_sent_costs_no_call() -> None:
    survey = surveyed(b'{"entity": "1"}', age_s=7200)
    assert (survey.outcome("sent"), survey.outcome("expired")) == (0, 1)
    assert effort(survey.outcome("sent"), 10, None).calls == 0


def test_counts_of_a_part_are_estimates_and_say_so() -> None:
    survey = surveyed(b'{"entity": "1"}', b"where", total=1_000, looked_at=2)
    assert (survey.is_exact, survey.events, survey.estimate(survey.not_ours)) == (False, 500, 500)
    said = list(sentences(subscription(), survey, effort(500, 100, None), None))
    assert said[0] == (
        "catch-up: 1,000 offsets before the hand-over to live (by a look at 2 of them, the oldest and the newest); "
        "about 500 events for it, 500 records not"
    )
    assert said[1] == "  about 500 shop.Ordered: 500 would be sent to crm"


def test_the_plan_in_words() -> None:
    """A snapshot: what an analyst reads before anything is sent."""
    quota = Quota(rate=read_rate("10/s"), background=0.3)
    survey = surveyed(b'{"entity": "1", "mail": "ana@x.org"}', b"bad")
    assert list(sentences(subscription(), survey, effort(90, 1, quota), quota)) == [
        "catch-up: 2 offsets before the hand-over to live; 2 events for it, 0 records not",
        "  2 shop.Ordered: 1 would be sent to crm, 1 dead letter",
        '    t/0/0 note.put 1 {"mail": "‹email›"}',
        "    t/0/1 dead letter: projection",
        "at least 90 calls to crm: 30s at the background's part of its quota (30%)",
        "live events go first, order per key holds over the hand-over, nothing is left out; what comes again after a "
        "crash has its key, so crm does it once",
    ]
    assert list(sentences(subscription(), Survey(total=0), effort(0, 1, quota), quota)) == [
        "nothing is to be caught up with: it is live from the first event"
    ]


def test_the_plan_in_figures() -> None:
    quota = Quota(rate=read_rate("10/s"), background=0.5)
    found = figures(surveyed(b'{"entity": "1"}', b"bad"), effort(1, 100, quota), quota, {B: 7, A: 2})
    by_event = found.pop("by_event")
    assert found == {
        "offsets": 2, "looked_at": 2, "exact": True, "events": 2, "not_ours": 0, "sent": 1, "expired": 0,
        "dead_letters": 1, "erased": 0, "calls_at_least": 1, "seconds": 0.2, "background": 0.5,
        "hand_over_about": {"t/0": 2, "t/1": 7},
    }  # fmt: skip
    assert [row["event"] for row in by_event] == ["shop.Ordered"]


def test_what_could_not_be_looked_at_is_no_estimate_of_nothing() -> None:
    said = list(sentences(subscription(), Survey(total=40), effort(0, 1, None), None))
    assert said == ["catch-up: 40 offsets before the hand-over to live, which were not looked at"]


@pytest.mark.parametrize("error", [RefusedError, NotAllowedError, UnreachableError])
def test_an_attach_is_planned_though_its_events_cannot_be_read(error: type[BackboneError]) -> None:
    """What only tells of an attach must not forbid it: credentials that may not read, or records that went."""
    simulated = SimulatedCluster(Time())
    simulated.logs[A] = Log(since=simulated.clock.now - 39)
    cluster, effects = Cluster(cast(Any, simulated), cast(Any, simulated.consumer)), Effects()
    app = SimpleNamespace(context=SimpleNamespace(connections={}))
    with patch.object(attach_effects, "look", side_effect=error("It cannot be read.")):
        takes = attach_effects.catch_up(cast(Any, app), cluster, subscription(), {A: 0}, effects)
    assert (takes.seconds, effects.figures["catch_up"]["looked_at"]) == (None, 0)
    assert effects.warnings == ["What the events would become could not be looked at. It cannot be read."]


def test_without_a_rate_only_the_vendor_knows_how_long_it_takes() -> None:
    assert effort(250, 100, Quota()).seconds is None
    said = list(sentences(subscription(), surveyed(b'{"entity": "1"}'), effort(250, 100, None), None))
    assert "at least 3 calls to crm; no rate is set for crm, so as fast as it answers" in said


# ---- what expires before it is read


@pytest.mark.parametrize(
    ("takes_s", "lost"),
    [
        (50, 0),  # read before the topic's time is over
        (100, 0),
        (200, 50),  # half of what is read in the second half is gone by then
    ],
)
def test_events_that_lie_evenly_expire_first_when_reading_takes_longer_than_they_are_kept(
    takes_s: float, lost: int
) -> None:
    ages = [(age, 100 - age) for age in range(0, 100, 10)]  # 100 events, one a second, the oldest about to go
    assert expires_before(ages, 100, 100.0, takes_s) == lost


def test_events_that_are_all_old_expire_though_reading_is_quicker_than_they_are_kept() -> None:
    assert expires_before([(0.0, 100), (90.0, 100)], 100, 100.0, 40.0) == 75  # ten seconds for all of them


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1_000)), max_size=10),
    st.integers(1, 1_000), st.floats(1, 1e6), st.floats(0, 1e6),
)  # fmt: skip
def test_no_more_is_lost_than_there_is(ages: list[tuple[float, int]], total: int, keeps: float, takes: float) -> None:
    older = [(age, min(count, total)) for age, count in ages]
    assert 0 <= expires_before(older, total, keeps, takes) <= total


def on_a_cluster(*, every_s: float, since_s: float, keeps: str) -> tuple[Effects, str]:
    clock = Time()
    simulated = SimulatedCluster(clock)
    simulated.logs[A] = Log(since=clock.now - since_s, every_s=every_s)
    effects, cluster = Effects(), Cluster(cast(Any, simulated), cast(Any, simulated.consumer))
    topic = TopicState(name="t", partitions=1, replication=1, config={"retention.ms": keeps})
    sub = subscription()
    with patch.object(attach_effects, "datetime", Clock(clock)):
        attach_effects.retention(cluster, sub, {"t": topic}, {A: 0}, effort(1_000, 1, SLOW), effects)
    return effects, " ".join(effects.warnings)


SLOW = Quota(rate=read_rate("1/m"), background=0.5)
"""Two minutes an event."""


class Clock:
    """``datetime`` on the time of a simulated cluster."""

    def __init__(self, time: Time) -> None:
        self._time = time

    def now(self, zone: Any) -> datetime:
        return datetime.fromtimestamp(self._time.now, zone)


def test_an_attach_that_would_lose_events_to_retention_is_severe_and_says_how_many() -> None:
    a_day = str(86_400_000)
    effects, said = on_a_cluster(every_s=86.4, since_s=86_300, keeps=a_day)
    assert effects.figures["retention"][0]["deleted_before_read"] > 0
    assert "are deleted before they are read" in effects.severe
    assert "catching up takes 1d9h, and t keeps events for 1d" in said
    assert "--from @time" in said


def test_an_attach_whose_events_are_kept_long_enough_is_not() -> None:
    effects, said = on_a_cluster(every_s=86.4, since_s=86_300, keeps=str(30 * 86_400_000))
    assert (effects.severe, said) == ("", "")
    assert effects.figures["retention"][0]["deleted_before_read"] == 0
    kept_for_ever, said = on_a_cluster(every_s=86.4, since_s=86_300, keeps="-1")
    assert (kept_for_ever.figures["retention"][0]["keeps_s"], said) == (None, "")


# ---- who may run it


def test_where_there_is_no_authorizer_everybody_may_and_where_acls_are_hidden_nobody_can_tell() -> None:
    figures, said, warning = who_may_run(subscription(), "no authorizer")
    assert (figures["known"], warning) == (True, "")
    assert said == "permissions: the cluster has no authorizer: everybody may do everything"
    figures, said, warning = who_may_run(subscription(), "not allowed")
    assert (figures["known"], warning) == (False, "")
    assert said.startswith("permissions: cannot be known")
