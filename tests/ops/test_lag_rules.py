"""Lag's definitions against cases that fool other monitors, and the search for an age against simulated logs."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.lag.age import CLOSE_MS, ROUNDS_MAX, Search
from ops.lag.cluster import TopicSettings
from ops.lag.reasons import reason
from ops.lag.rules import (
    SEVERITY,
    LogStart,
    OffsetLag,
    Sample,
    Status,
    Trend,
    evaluate,
    margin_s,
    offset_lag,
    trend,
    worst,
)


def test_lag_is_counted_from_the_commit_to_the_end() -> None:
    assert offset_lag(committed=100, start=None, log_start=0, end=130) == OffsetLag(30, 0, 100, "commit")


def test_a_commit_beyond_the_end_is_no_negative_lag() -> None:
    assert offset_lag(committed=140, start=None, log_start=0, end=130).lag == 0


def test_records_deleted_before_they_were_read_are_lost_and_not_lag() -> None:
    assert offset_lag(committed=10, start=None, log_start=50, end=130) == OffsetLag(80, 40, 50, "commit")


def test_without_a_commit_the_recorded_start_counts() -> None:
    assert offset_lag(committed=None, start=100, log_start=0, end=130) == OffsetLag(30, 0, 100, "start")


def test_without_a_commit_and_a_start_the_whole_log_counts_and_is_marked() -> None:
    assert offset_lag(committed=None, start=None, log_start=20, end=130) == OffsetLag(110, 0, 20, "log")


OFFSETS = st.integers(0, 2**63 - 1)


@given(st.none() | OFFSETS, st.none() | OFFSETS, OFFSETS, OFFSETS)
def test_lag_and_lost_are_never_negative(committed: int | None, start: int | None, log_start: int, end: int) -> None:
    found = offset_lag(committed=committed, start=start, log_start=log_start, end=end)
    assert found.lag >= 0
    assert found.lost >= 0
    assert found.counted_from >= log_start


def window(at: Callable[[int], dict[str, object]], minutes: int = 10) -> list[Sample]:
    usual: dict[str, object] = {"log_start": 0, "high_watermark": 0, "members": 1, "age_s": 0.0}
    return [Sample(**(usual | {"at": float(t)} | at(t))) for t in range(0, minutes * 60 + 1, 15)]  # type: ignore[arg-type]


CASES: list[tuple[str, Status, list[Sample]]] = [
    (
        "a steady small lag is fine",
        "OK",
        window(lambda t: {"committed": 1000 + t, "end": 1005 + t, "age_s": 2.0}),
    ),
    (
        "a dead consumer of a quiet topic is found in 5 minutes",
        "NO_MEMBERS",
        window(lambda t: {"committed": 100, "end": 101 + t // 60, "members": 0, "age_s": float(t)}),
    ),
    (
        "a poison event",
        "STALLED",
        window(lambda t: {"committed": 100, "end": 200 + t, "members": 3, "age_s": t + 100.0}),
    ),
    ("an idle topic without commits", "OK", window(lambda t: {"committed": 100, "end": 100})),
    (
        "growing lag with one dip",
        "BEHIND",
        window(lambda t: {"committed": 1000 + t, "end": 2000 + 3 * t - 500 * (t == 300), "age_s": 400.0}),
    ),
    (
        "catching up",
        "CATCHING_UP",
        window(lambda t: {"committed": 1000 + 20 * t, "end": 200_000 + t, "age_s": 4000.0}),
    ),
    ("lag 1 of a marker that nobody can read", "OK", window(lambda t: {"committed": 100, "end": 101})),
    (
        "retention passed the consumer",
        "DATA_LOSS",
        window(lambda t: {"committed": 100, "end": 900, "log_start": 400 * (t >= 300), "age_s": 9.0}),
    ),
    (
        "a hanging transaction: lag 0 while data piles up",
        "BLOCKED_TXN",
        window(lambda t: {"committed": 100, "end": 100, "high_watermark": 100 + t}),
    ),
    (
        "a rewind",
        "REWOUND",
        window(lambda t: {"committed": 1000 if t < 580 else 10, "end": 1000, "age_s": 5000.0}),
    ),
    ("never committed", "NO_COMMIT", window(lambda t: {"committed": None, "end": 1000, "age_s": None})),
    ("nothing to commit", "OK", window(lambda t: {"committed": None, "end": 0, "age_s": None})),
    ("one sample claims nothing that needs time", "OK", window(lambda t: {"committed": 5, "end": 9, "members": 0}, 0)),
    ("one sample shows lateness", "BEHIND", window(lambda t: {"committed": 5, "end": 9, "age_s": 90.0}, 0)),
]


@pytest.mark.parametrize(("status", "samples"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_status_of(status: Status, samples: list[Sample]) -> None:
    assert evaluate(samples, slo_s=60) == status


def test_what_retention_is_about_to_delete_is_at_risk() -> None:
    samples = window(lambda t: {"committed": 100 + t, "end": 9000, "age_s": 50.0})
    assert evaluate(samples, slo_s=60, retention_margin_s=3600) == "AT_RISK"


def test_a_group_is_as_bad_as_its_worst_partition() -> None:
    assert worst(["OK", "BEHIND", "STALLED", "CATCHING_UP"]) == "STALLED"
    assert worst([]) == "OK"


def test_the_eta_comes_from_the_difference_of_the_two_rates() -> None:
    pace = trend([(0.0, 100, 1000), (10.0, 400, 1100)])
    assert pace == Trend(30.0, 10.0, 10.0)
    assert pace.eta_s(700) == 35.0
    assert pace.eta_s(0) == 0.0
    assert Trend(5.0, 10.0, 10.0).eta_s(700) is None
    assert trend([(0.0, 100, 1000)]) is None
    assert trend([(3.0, 1, 1), (3.0, 2, 2)]) is None


class Log:
    """Records ``(offset, timestamp)`` as a broker answers for them; offsets may have holes."""

    def __init__(self, records: list[tuple[int, int]]) -> None:
        self.offsets = [offset for offset, _ in records]
        self.stamps = [stamp for _, stamp in records]
        self.highest: list[int] = []
        for stamp in self.stamps:
            self.highest.append(max(stamp, self.highest[-1] if self.highest else 0))

    def at_time(self, wanted: int) -> tuple[int, int]:
        at = bisect.bisect_left(self.highest, wanted)
        return (self.offsets[at], self.stamps[at]) if at < len(self.offsets) else (-1, -1)

    def first_from(self, offset: int) -> int | None:
        at = bisect.bisect_left(self.offsets, offset)
        return self.stamps[at] if at < len(self.offsets) else None


def searched(log: Log, offset: int, now: int, *, append_time: bool, hint: int | None = None) -> tuple[Search, int]:
    search = Search(offset, now, append_time=append_time, hint=hint)
    rounds = 0
    while search.found is None:
        search.take(*log.at_time(search.ask))
        rounds += 1
    assert rounds <= ROUNDS_MAX
    return search, rounds


START = 1_700_000_000_000
STEPS = st.lists(
    # hole before the batch, records in the batch, milliseconds since the batch before
    st.tuples(st.integers(0, 5), st.integers(1, 6), st.sampled_from([0, 1, 40, 900, 5_000, 70_000, 4_000_000])),
    min_size=1,
    max_size=60,
)


def batches(steps: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    records, offset, stamp = [], 0, START
    for hole, size, later in steps:
        offset, stamp = offset + hole, stamp + later
        for _ in range(size):
            records.append((offset, stamp))
            offset += 1
    return records


@given(STEPS, st.integers(0, 400), st.integers(0, 10_000_000), st.none() | st.integers(-100_000, 100_000))
def test_on_a_topic_stamped_by_the_broker_the_search_is_right_or_says_that_it_must_read(
    steps: list[tuple[int, int, int]], offset: int, quiet: int, hint: int | None
) -> None:
    """Batches share one timestamp, so the bisect alone answers with the next batch (15.5 s where 30.5 s were true)."""
    records = batches(steps)
    log, now = Log(records), records[-1][1] + quiet
    true = log.first_from(offset)
    search, _ = searched(log, offset, now, append_time=True, hint=None if hint is None else START + hint)
    found = search.found
    assert found is not None
    if found.timestamp is not None:
        assert true is not None
        assert 0 <= true - found.timestamp <= CLOSE_MS
    elif true is not None:
        assert found.older is not None
        assert found.older <= true
        assert found.newer is None or true <= found.newer


@given(STEPS, st.integers(0, 400), st.lists(st.integers(-20_000_000, 0), min_size=1, max_size=20))
def test_on_a_topic_stamped_by_producers_an_answer_is_exact(
    steps: list[tuple[int, int, int]], offset: int, shifts: list[int]
) -> None:
    records = [(o, stamp + shifts[o % len(shifts)]) for o, stamp in batches(steps)]
    log = Log(records)
    search, _ = searched(log, offset, max(stamp for _, stamp in records) + 5, append_time=False)
    assert search.found is not None
    if search.found.timestamp is not None:
        assert search.found.timestamp == log.first_from(offset)


@given(STEPS, st.integers(0, 400))
def test_with_one_record_a_batch_every_age_is_found_without_reading(
    steps: list[tuple[int, int, int]], offset: int
) -> None:
    records = batches([(hole, 1, max(later, 1)) for hole, _, later in steps])
    log = Log(records)
    offset = min(offset, records[-1][0])
    true = log.first_from(offset)
    search, _ = searched(log, offset, records[-1][1] + 60_000, append_time=True)
    # with holes before it the exact offset is never hit; then bounds a second apart or less are the answer
    if search.found is not None and search.found.timestamp is None:
        assert search.found.newer == true
    else:
        assert search.found is not None
        assert true is not None
        assert 0 <= true - (search.found.timestamp or 0) <= CLOSE_MS


def test_a_day_of_bursts_takes_few_rounds() -> None:
    """Interpolating monitors say 1,000 days or 12 s here."""
    records = [(n, START + n * 400) for n in range(216_000)]
    records += [(216_000 + n, records[-1][1] + (n + 1) * 10_000) for n in range(180)]
    log, now = Log(records), records[-1][1]
    for offset in (0, 1_000, 108_000, 216_000, 216_150, 216_179):
        search, rounds = searched(log, offset, now, append_time=True)
        assert search.found is not None
        assert abs((search.found.timestamp or 0) - (log.first_from(offset) or 0)) <= 400
        assert rounds <= 25


# ---- retention -----------------------------------------------------------------------------------------------------

WEEK_S = 7 * 86_400.0
BY_TIME = TopicSettings("append", WEEK_S, by_size=False)
BY_BOTH = TopicSettings("append", WEEK_S, by_size=True)


def margin(settings: TopicSettings, *, age_s: float | None = 3600.0, start_per_s: float | None = None) -> float | None:
    return margin_s(position=5_000, log_start=1_000, age_s=age_s, settings=settings, start_per_s=start_per_s)


def test_a_record_is_kept_for_the_topics_time_less_its_age() -> None:
    assert margin(BY_TIME) == WEEK_S - 3600
    assert margin(BY_BOTH) == WEEK_S - 3600
    assert margin(BY_TIME, age_s=WEEK_S + 60) == 0.0


def test_where_size_limits_a_topic_the_pace_of_its_start_says_when() -> None:
    assert margin(BY_BOTH, start_per_s=2.0) == 2_000
    assert margin(BY_BOTH, start_per_s=0.0) == WEEK_S - 3600


def test_a_start_that_moves_where_only_time_limits_is_no_sign() -> None:
    """Segments go as a whole, and Kafka Streams deletes what it has read: both would page for nothing."""
    assert margin(BY_TIME, start_per_s=100.0) == WEEK_S - 3600
    assert margin(TopicSettings("create", None, by_size=False), start_per_s=100.0) is None


def test_without_a_limit_an_age_or_a_view_of_the_settings_nothing_is_claimed() -> None:
    assert margin(BY_TIME, age_s=None) is None
    assert margin(TopicSettings("append", None, by_size=True)) is None
    assert margin(TopicSettings("append", WEEK_S, by_size=True, deletes=False), start_per_s=5.0) is None
    assert margin(TopicSettings()) is None
    assert margin(TopicSettings(), start_per_s=4.0) == 1_000


@given(st.lists(st.tuples(st.floats(0.1, 400), st.integers(0, 10_000)), min_size=1, max_size=80))
def test_the_pace_of_a_logs_start_is_that_of_the_last_hour_and_unknown_below_ten_minutes(
    steps: list[tuple[float, int]],
) -> None:
    log, at, offset, seen = LogStart(), 0.0, 0, []
    for seconds, deleted in steps:
        at, offset = at + seconds, offset + deleted
        log.saw(at, offset)
        seen.append((at, offset))
    pace = log.per_s(at)
    begin = seen[0][0]
    if at - begin < 600:
        assert pace is None
    else:
        assert pace is not None
        assert 0 <= pace <= (seen[-1][1] - seen[0][1]) / 600
        if at - begin <= 3600:
            assert pace == pytest.approx((seen[-1][1] - seen[0][1]) / (at - begin))


# ---- reasons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "samples"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_status_but_ok_has_a_sentence(status: Status, samples: list[Sample]) -> None:
    said = reason(status, samples[-1], unchanged_s=600.0, slo_s=60.0, margin_s=None, watched_s=600.0)
    assert bool(said) == (status != "OK")
    assert said == "" or said.endswith(".")


def test_a_reason_says_since_when_how_many_and_how_old() -> None:
    now = Sample(at=0, committed=100, end=105, log_start=0, high_watermark=105, members=3, age_s=1080.0)
    usual: dict[str, float | None] = {"unchanged_s": 1080.0, "slo_s": 60.0, "margin_s": 10_200.0, "watched_s": 900.0}
    said = {status: reason(status, now, **usual) for status in SEVERITY}  # type: ignore[arg-type]
    assert said["STALLED"] == "It stands at 100 for 18m, with 3 members; 5 offsets wait, the oldest for 18m."
    assert said["AT_RISK"] == "Retention deletes its next record in 2h50m; 5 offsets wait, the oldest for 18m."
    assert said["NO_MEMBERS"] == "Nobody has read it for at least 10m; 5 offsets wait, the oldest for 18m."
