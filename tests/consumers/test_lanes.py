"""Ordered lanes by key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.lanes import Lanes


def key(name: str, partition: int = 0):
    return ("t", partition, name.encode())


def test_only_the_head_of_a_lane_is_worked_on() -> None:
    lanes: Lanes[int] = Lanes()
    for number in (1, 2):
        lanes.add(key("a"), number)
    lane = lanes.take()
    assert lane is not None
    assert lane.queue[0] == 1
    assert lanes.take() is None
    lanes.finish(lane)
    assert lanes.take() is lane
    assert lane.queue[0] == 2


def test_a_held_lane_waits_for_its_time_and_others_go_on() -> None:
    lanes: Lanes[int] = Lanes()
    lanes.add(key("a"), 1)
    lanes.add(key("b"), 2)
    a = lanes.take()
    assert a is not None
    lanes.hold(a, until=10.0)
    b = lanes.take()
    assert b is not None
    assert b.queue[0] == 2
    lanes.due(9.9)
    assert lanes.take() is None
    assert lanes.next_due() == 10.0
    lanes.due(10.0)
    assert lanes.take() is a
    assert lanes.held == 0


def test_a_released_head_goes_first() -> None:
    lanes: Lanes[int] = Lanes()
    lanes.add(key("a"), 1)
    lanes.add(key("b"), 2)
    a = lanes.take()
    assert a is not None
    lanes.release(a)
    assert lanes.take() is a


def test_an_empty_lane_is_forgotten() -> None:
    lanes: Lanes[int] = Lanes()
    lanes.add(key("a"), 1)
    lane = lanes.take()
    assert lane is not None
    lanes.finish(lane)
    assert len(lanes) == 0


def test_dropping_a_partition_leaves_others_and_late_answers_change_nothing() -> None:
    lanes: Lanes[int] = Lanes()
    lanes.add(key("a", 0), 1)
    lanes.add(key("a", 1), 2)
    lane = lanes.take()
    assert lane is not None
    assert lanes.drop("t", 0) == [1]
    lanes.add(key("a", 0), 3)
    lanes.finish(lane)
    lanes.release(lane)
    lanes.hold(lane, 5.0)
    taken = [lanes.take(), lanes.take()]
    assert sorted(lane.queue[0] for lane in taken if lane) == [2, 3]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["finish", "hold", "release"])), max_size=200))
def test_every_key_is_worked_on_in_the_order_it_came_whatever_happens(steps: list[tuple[str, str]]) -> None:
    lanes: Lanes[tuple[str, int]] = Lanes()
    done: dict[str, list[int]] = {}
    now = 0.0
    for number, (name, what) in enumerate(steps):
        lanes.add(key(name), (name, number))
        now += 1
        lanes.due(now)
        lane = lanes.take()
        if lane is None:
            continue
        if what == "finish":
            owner, n = lane.queue[0]
            done.setdefault(owner, []).append(n)
            lanes.finish(lane)
        elif what == "hold":
            lanes.hold(lane, now + 3)
        else:
            lanes.release(lane)
    lanes.due(now + 10)
    while (lane := lanes.take()) is not None:
        owner, n = lane.queue[0]
        done.setdefault(owner, []).append(n)
        lanes.finish(lane)
    assert len(lanes) == 0
    assert sum(map(len, done.values())) == len(steps)
    assert all(numbers == sorted(numbers) for numbers in done.values())
