"""Rounds of measuring over minutes and hours, on a simulated cluster whose time the test moves."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from ops.lag.cluster import Cluster
from ops.lag.measure import GroupLag, LagReader, Subject
from tests.conftest import ROOT
from tests.ops.simulated_cluster import Log, Reader, SimulatedCluster, Time

PLACE = ("orders", 0)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def cluster(clock: Time) -> SimulatedCluster:
    return SimulatedCluster(clock)


def reader_of(cluster: SimulatedCluster, **settings: Any) -> LagReader:
    view = Cluster(cast(Any, cluster), cast(Any, cluster.consumer))
    return LagReader(view, clock=cluster.clock, monotonic=cluster.clock, **settings)


def watched(cluster: SimulatedCluster, seconds: int, reader: LagReader | None = None, **subject: Any) -> GroupLag:
    """The group ``g`` after rounds of 15 s over so long."""
    reader = reader or reader_of(cluster)
    for _ in range(seconds // 15):
        reader.measure([Subject(name="g", **subject)])
        cluster.clock.now += 15
    (found,) = reader.measure([Subject(name="g", **subject)])
    return found


def test_a_stuck_group_is_stalled_after_ten_minutes_and_the_reason_says_since_when(cluster: SimulatedCluster) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 100)
    cluster.readers["g"] = Reader({PLACE: 40})
    assert watched(cluster, 585).status == "OK"
    found = watched(cluster, 1_080)
    assert found.status == "STALLED"
    assert found.worst is not None
    assert found.worst.reason.startswith("It stands at 40 for 18m, with 1 member;")
    assert found.age_s == pytest.approx(60 + 585 + 1_080)


def test_a_group_without_members_is_told_after_five_minutes(cluster: SimulatedCluster) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 100)
    cluster.readers["g"] = Reader({PLACE: 40}, members=0)
    reader = reader_of(cluster)
    assert watched(cluster, 285, reader).status == "OK"
    assert watched(cluster, 15, reader).status == "NO_MEMBERS"


def test_catching_up_has_an_eta_that_comes_true(cluster: SimulatedCluster) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 3_600)
    cluster.readers["g"] = Reader({PLACE: 0}, per_s=5.0, since=cluster.clock.now)
    reader = reader_of(cluster)
    found = watched(cluster, 300, reader, slo_s=60.0)
    assert found.status == "CATCHING_UP"
    assert found.eta_s == pytest.approx(600, rel=0.02)
    cluster.clock.now += found.eta_s + 15
    (level,) = reader.measure([Subject(name="g", slo_s=60.0)])
    assert level.lag <= 1


@pytest.mark.parametrize(
    ("configs", "status", "margin_s"),
    [
        ({"retention.ms": "7200000"}, "AT_RISK", 3_600.0),
        ({"retention.ms": "86400000"}, "OK", 82_800.0),
        ({"retention.ms": "-1"}, "OK", None),
        ({"retention.ms": "7200000", "cleanup.policy": "compact"}, "OK", None),
    ],
)
def test_what_retention_is_about_to_delete_is_at_risk_from_the_topics_own_settings(
    cluster: SimulatedCluster, configs: dict[str, str], status: str, margin_s: float | None
) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 3_600)
    cluster.configs["orders"] = configs
    cluster.readers["g"] = Reader({PLACE: 0}, per_s=3.0, since=cluster.clock.now)
    found = watched(cluster, 0)
    assert found.status == status
    assert found.margin_s == (None if margin_s is None else pytest.approx(margin_s, abs=2))


def test_a_log_that_is_cut_by_size_puts_a_slow_reader_at_risk_before_it_loses_anything(
    cluster: SimulatedCluster,
) -> None:
    log = cluster.logs[PLACE] = Log(since=cluster.clock.now - 36_000)
    cluster.configs["orders"] = {"retention.bytes": "1000000"}
    cluster.readers["g"] = Reader({PLACE: 20_000}, per_s=0.5, since=cluster.clock.now)
    reader, seen = reader_of(cluster), []
    for _ in range(150):  # the log's start advances by 10 a second
        (found,) = reader.measure([Subject(name="g")])
        seen.append((found.status, found.lost, found.margin_s))
        cluster.clock.now += 15
        log.start += 150
    statuses = [status for status, _, _ in seen]
    at_risk, lost = statuses.index("AT_RISK"), next(n for n, one in enumerate(seen) if one[1])
    assert at_risk < lost
    assert statuses[lost] == "DATA_LOSS"
    assert found.partitions[0].lost_total == found.lost > 0


def test_lost_records_are_counted_up_also_when_the_group_goes_on(cluster: SimulatedCluster) -> None:
    log = cluster.logs[PLACE] = Log(since=cluster.clock.now - 1_000, start=500)
    group = cluster.readers["g"] = Reader({PLACE: 400})
    reader = reader_of(cluster)
    assert watched(cluster, 0, reader).partitions[0].lost_total == 100
    group.commits[PLACE] = 600
    assert watched(cluster, 0, reader).partitions[0].lost_total == 100
    log.start = 700
    found = watched(cluster, 0, reader).partitions[0]
    assert (found.offsets.lost, found.lost_total) == (100, 200)


def test_a_group_that_could_not_be_asked_keeps_its_window_and_shows_no_positions(cluster: SimulatedCluster) -> None:
    """It used to look like one that had lost its commits."""
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 100)
    cluster.readers["g"] = Reader({PLACE: 40})
    reader = reader_of(cluster)
    starts = {PLACE: 5}
    watched(cluster, 600, reader, starts=starts)
    cluster.failing["g"] = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    failed = watched(cluster, 15, reader, starts=starts)
    assert failed.problem is not None
    assert (failed.partitions, failed.lag, failed.trend) == ((), 0, None)
    del cluster.failing["g"]
    found = watched(cluster, 0, reader, starts=starts)
    assert (found.status, found.trend is not None) == ("STALLED", True)


def test_a_group_that_went_away_is_forgotten(cluster: SimulatedCluster) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 100)
    cluster.readers["g"] = Reader({PLACE: 40})
    reader = reader_of(cluster)
    watched(cluster, 900, reader)
    reader.measure([])
    assert watched(cluster, 0, reader).status == "OK"


def test_reads_are_bounded_and_everybody_gets_a_turn(cluster: SimulatedCluster) -> None:
    """Inside a batch only reading tells the age: until its turn comes a group has a bound, and it is marked."""
    old = cluster.clock.now - 600
    for number in range(10):
        place = (f"orders-{number}", 0)
        cluster.logs[place] = Log(since=0, records=[(0, old), (1, old), (2, old + 300)])
        cluster.readers[f"g-{number}"] = Reader({place: 1})
        cluster.configs[f"orders-{number}"] = {"message.timestamp.type": "CreateTime"}
    reader = reader_of(cluster, reads_max=3)
    subjects = [Subject(name=f"g-{number}") for number in range(10)]
    exact: list[int] = []
    for turn in range(1, 5):
        before = cluster.requests.get("reads", 0)
        groups = reader.measure(subjects)
        assert cluster.requests["reads"] - before <= 3
        exact.append(sum(group.age_s is not None and not group.age_is_bound for group in groups))
        assert exact[-1] == min(10, 3 * turn)
        cluster.clock.now += 15
    assert all(group.age_s == pytest.approx(600 + 45) for group in groups)
    before = cluster.requests["reads"]
    reader.measure(subjects)
    assert cluster.requests["reads"] == before, "what stands still is not read again"


def test_a_search_that_runs_out_of_time_goes_on_in_the_next_round_and_has_a_bound_until_then(
    cluster: SimulatedCluster,
) -> None:
    cluster.logs[PLACE] = Log(since=cluster.clock.now - 500_000, every_s=7.0)
    cluster.readers["g"] = Reader({PLACE: 12_345})
    reader, seen = reader_of(cluster, search_s=0.0), []
    for _ in range(40):
        (found,) = reader.measure([Subject(name="g")])
        seen.append((found.age_s, found.age_is_bound, cluster.requests["offsets"]))
        if found.age_s is not None and not found.age_is_bound:
            break
        cluster.clock.now += 15
    true = cluster.clock.now - cluster.logs[PLACE].stamp(12_345) / 1000
    assert found.age_s == pytest.approx(true, abs=1)
    bounds = [age for age, is_bound, _ in seen if age is not None and is_bound]
    assert len(seen) > 5
    assert bounds, "it is at most so old, as soon as an older record is known"
    assert all(bound >= found.age_s - 15 * len(seen) for bound in bounds)
    asked = [requests for _, _, requests in seen]
    assert all(later - earlier == 4 for earlier, later in itertools.pairwise(asked)), "ends, start, one step"


def test_what_has_nothing_to_wait_for_is_not_read_again_and_again(cluster: SimulatedCluster) -> None:
    """A foreign group that commits ``last + 1`` on a transactional topic stands before the marker for ever."""
    cluster.logs[PLACE] = Log(since=0, records=[(0, cluster.clock.now - 600)])
    cluster.readers["g"] = Reader({PLACE: 1})

    class Marked(Cluster):
        reads = 0

        def ends(self, places: Any, isolation: Any) -> Any:
            return dict.fromkeys(places, 2)  # the marker occupies offset 1

        def first_records(self, offsets: Any, isolation: Any) -> Any:
            Marked.reads += 1
            return dict.fromkeys(offsets)

    reader = LagReader(
        Marked(cast(Any, cluster), cast(Any, cluster.consumer)), clock=cluster.clock, monotonic=cluster.clock
    )
    for _ in range(5):
        (found,) = reader.measure([Subject(name="g", slo_s=1.0)])
        assert (found.lag, found.age_s, found.status) == (1, 0.0, "OK")
        cluster.clock.now += 15
    assert Marked.reads == 1


def test_a_thousand_groups_of_twelve_partitions_are_a_round_in_time_and_in_memory() -> None:
    """In a process of its own, whose CPU time and memory are measured: 15 s and 300 MiB are the bounds. With full
    windows (45 rounds: ``python -m tests.ops.monitor_scale 45``) it takes no longer and 191 MiB."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.ops.monitor_scale", "3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["groups"], found["partitions"]) == (1_000, 12_000)
    assert found["slowest_round_cpu_s"] <= 15
    assert found["peak_mib"] <= 300
    # each group is described once and asked for its commits once in a round; ends and ages are asked for all together
    assert found["requests"]["describe"] == found["requests"]["commits"] == 3 * 1_000
    assert found["requests"]["offsets"] <= 3 * 100
