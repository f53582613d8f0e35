"""The monitor's day of history: bounded, thrown away when it is no good, and never in the way."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.lag.measure import GroupLag, PartitionLag
from ops.lag.rules import Status, offset_lag
from ops.monitor.history import BARS, KEPT_MIN, SERIES_MAX, History, Point, sparkline

NOON = 1_700_000_000.0 // 60 * 60


def partition(
    number: int = 0, *, topic: str = "orders", committed: int = 90, end: int = 100, **more: Any
) -> PartitionLag:
    usual: dict[str, Any] = {
        "topic": topic, "partition": number, "committed": committed, "metadata": "", "log_start": 0, "end": end,
        "uncommitted": 0, "offsets": offset_lag(committed=committed, start=None, log_start=0, end=end),
        "age_s": 5.0, "age_is_bound": False, "status": "OK", "member": None,
    }  # fmt: skip
    return PartitionLag(**(usual | more))


def group(name: str = "g", *partitions: PartitionLag, at: float = NOON) -> GroupLag:
    return GroupLag(
        name=name, ours=False, state="stable", members=(), partitions=partitions or (partition(),), at=at, slo_s=None
    )


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "monitor" / "local.db")


def test_a_minute_keeps_its_worst_and_the_next_one_is_another_point(history: History) -> None:
    """Four rounds fall in a minute: a spike in one of them must not be averaged away."""
    ages: list[float | None] = [1.0, 9.0, None, 2.0]
    statuses: list[Status] = ["OK", "BEHIND", "OK", "OK"]
    for number, (age_s, status) in enumerate(zip(ages, statuses, strict=True)):
        history.add(NOON + 15 * number, [group("g", partition(age_s=age_s, committed=90 + number, status=status))])
    history.add(NOON + 60, [group("g", partition(age_s=3.0))])
    first, second = history.of("g", now=NOON + 60)
    assert first == Point("orders", int(NOON // 60), 10, 9.0, "OK", 93, 100)
    assert (second.minute, second.age_s) == (first.minute + 1, 3.0)


def test_topics_are_apart_and_sums_are_over_partitions(history: History) -> None:
    parts = (partition(0), partition(1, committed=80, age_s=7.0), partition(0, topic="users", committed=100))
    history.add(NOON, [group("g", *parts)])
    orders, users = history.of("g", now=NOON)
    assert (orders.topic, orders.lag, orders.age_s, orders.position, orders.end) == ("orders", 30, 7.0, 170, 200)
    assert (users.topic, users.lag) == ("users", 0)
    history.add(NOON + 60, [group("g", partition(age_s=None))])
    assert history.of("g", now=NOON + 60)[1].age_s is None


def test_what_is_older_than_a_day_goes_and_so_does_a_group_that_went_away(history: History) -> None:
    history.add(NOON, [group("gone"), group("g")])
    for minute in (1, KEPT_MIN - 1, KEPT_MIN, KEPT_MIN + 5):
        history.add(NOON + 60 * minute, [group("g")])
    later = NOON + 60 * (KEPT_MIN + 5)
    assert [point.minute - int(NOON // 60) for point in history.of("g", now=later)] == [
        KEPT_MIN - 1, KEPT_MIN, KEPT_MIN + 5,
    ]  # fmt: skip
    assert history.of("gone", now=NOON) == []
    with sqlite3.connect(history.file) as connection:
        assert connection.execute("SELECT name FROM series").fetchall() == [("g",)]
    connection.close()


def test_fewer_hours_can_be_asked_for(history: History) -> None:
    for minute in range(0, 180, 30):
        history.add(NOON + 60 * minute, [group("g")])
    assert len(history.of("g", now=NOON + 60 * 150, hours=1)) == 2
    assert history.of("nobody", now=NOON) == []


def test_so_many_series_are_kept_and_the_worst_come_first(history: History) -> None:
    quiet = [partition(topic=f"t{number}", committed=100, age_s=0.0) for number in range(SERIES_MAX)]
    history.add(NOON, [group("quiet", *quiet), group("bad", partition(status="STALLED"))])
    assert len(history.of("bad", now=NOON)) == 1
    assert len(history.of("quiet", now=NOON)) == SERIES_MAX - 1


def test_two_monitors_write_one_file(history: History) -> None:
    other = History(history.file)
    history.add(NOON, [group("g", partition(age_s=4.0))])
    other.add(NOON + 5, [group("g", partition(age_s=2.0))])
    assert [point.age_s for point in history.of("g", now=NOON)] == [4.0]
    other.close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_good_is_made_anew(history: History, content: bytes) -> None:
    history.file.parent.mkdir()
    history.file.write_bytes(content)
    history.add(NOON, [group("g")])
    assert len(history.of("g", now=NOON)) == 1


def test_a_file_of_another_version_is_made_anew(history: History) -> None:
    history.file.parent.mkdir()
    with sqlite3.connect(history.file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    history.add(NOON, [group("g")])
    assert len(history.of("g", now=NOON)) == 1


def test_a_file_that_was_deleted_meanwhile_comes_back_after_a_failure_at_most(history: History) -> None:
    history.add(NOON, [group("g")])
    history.close()
    history.file.unlink()
    history.add(NOON + 60, [group("g")])
    assert len(history.of("g", now=NOON + 60)) == 1


def test_a_full_disk_is_an_error_and_the_next_round_tries_again(tmp_path: Path) -> None:
    """The process's own limit on files stands for the disk's; in a child, so that only it is bound."""
    history = History(tmp_path / "h.db")
    history.add(NOON, [group("g")])
    history.close()
    size = history.file.stat().st_size
    many = [group(f"g{number}", *(partition(n) for n in range(3))) for number in range(3_000)]
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            history.add(NOON + 60, many)
            os._exit(1)
        except (sqlite3.Error, OSError):
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    history.add(NOON + 60, many)
    assert len(history.of("g7", now=NOON + 60)) == 1
    history.close()


POINTS = st.lists(
    st.builds(
        Point,
        topic=st.just("t"),
        minute=st.integers(int(NOON // 60) - 2_000, int(NOON // 60) + 2),
        lag=st.integers(0, 10),
        age_s=st.none() | st.floats(0, 1e9),
        status=st.just("OK"),
        position=st.just(0),
        end=st.just(0),
    ),
    max_size=50,
)


@given(POINTS)
def test_a_sparkline_has_a_bar_an_hour_whatever_there_is(points: list[Point]) -> None:
    bars = sparkline(points, now=NOON)
    assert len(bars) == 24
    assert set(bars) <= {" ", *BARS}
    known = [p.age_s for p in points if p.age_s is not None and 0 <= (int(NOON // 60) - p.minute) // 60 < 24]
    assert (bars.strip() == "") == (not known)
    if known and max(known) > 0:
        assert BARS[-1] in bars


def test_a_sparkline_shows_the_oldest_age_of_each_hour() -> None:
    minute = int(NOON // 60)
    ages = {0: 100.0, 59: 50.0, 61: 20.0, 200: 0.0}
    points = [Point("t", minute - back, 1, age, "OK", 0, 0) for back, age in ages.items()]
    assert sparkline(points, now=NOON) == " " * 20 + "▁ ▂█"
