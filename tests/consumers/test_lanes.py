"""Ordered lanes by key, of live records and of the background's."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from consumers.lanes import Lane, LaneKey, Lanes


@dataclass(eq=False)
class Item:
    number: int
    background: bool = False
    partition: int = 0
    lane: Lane[Item] = field(init=False)


def key(name: str, partition: int = 0) -> LaneKey:
    return ("t", partition, name.encode())


def add(lanes: Lanes[Item], name: str, number: int, *, background: bool = False, partition: int = 0) -> Item:
    item = Item(number, background, partition)
    assert lanes.add(key(name, 0), item) is item.lane
    return item


def take(lanes: Lanes[Item], *, background: bool = False) -> Lane[Item]:
    lane = lanes.take(background=background)
    assert lane is not None
    return lane


def test_only_the_head_of_a_lane_is_worked_on() -> None:
    lanes: Lanes[Item] = Lanes()
    for number in (1, 2):
        add(lanes, "a", number)
    lane = take(lanes)
    assert lane.queue[0].number == 1
    assert lanes.take() is None
    lanes.finish(lane)
    assert take(lanes) is lane
    assert lane.queue[0].number == 2


def test_a_held_lane_waits_for_its_time_and_others_go_on() -> None:
    lanes: Lanes[Item] = Lanes()
    add(lanes, "a", 1)
    add(lanes, "b", 2)
    a = take(lanes)
    lanes.hold(a, until=10.0)
    assert take(lanes).queue[0].number == 2
    lanes.due(9.9)
    assert lanes.take() is None
    assert lanes.next_due() == 10.0
    lanes.due(10.0)
    assert lanes.take() is a
    assert lanes.held == 0


def test_a_released_head_goes_first_or_behind_the_others() -> None:
    lanes: Lanes[Item] = Lanes()
    add(lanes, "a", 1)
    add(lanes, "b", 2)
    a = take(lanes)
    lanes.release(a)
    assert lanes.take() is a
    lanes.release(a, first=False)
    assert take(lanes).queue[0].number == 2
    assert lanes.take() is a


def test_an_empty_lane_is_forgotten() -> None:
    lanes: Lanes[Item] = Lanes()
    add(lanes, "a", 1)
    lanes.finish(take(lanes))
    assert len(lanes) == 0


def test_several_that_went_as_one_are_over_as_one() -> None:
    lanes: Lanes[Item] = Lanes()
    for number in range(4):
        add(lanes, "a", number)
    lane = take(lanes)
    lanes.finish(lane, 3)
    assert [item.number for item in take(lanes).queue] == [3]


def test_a_lane_is_live_while_anything_live_waits_in_it() -> None:
    lanes: Lanes[Item] = Lanes()
    add(lanes, "a", 1, background=True)
    assert lanes.take() is None
    assert lanes.ready(background=True)
    add(lanes, "a", 2)
    assert lanes.take(background=True) is None
    lane = take(lanes)
    assert lane.queue[0].number == 1
    lanes.finish(lane)
    lanes.finish(take(lanes))
    add(lanes, "b", 3)
    add(lanes, "b", 4, background=True)
    lanes.finish(take(lanes))
    assert lanes.take() is None
    assert take(lanes, background=True).queue[0].number == 4


def test_dropping_a_partition_leaves_others_and_late_answers_change_nothing() -> None:
    lanes: Lanes[Item] = Lanes()
    old = add(lanes, "a", 1)
    add(lanes, "b", 2, partition=1)
    lane = take(lanes)
    assert lanes.drop(lambda item: item.partition == 0) == [old]
    add(lanes, "a", 3)
    lanes.finish(lane)
    lanes.release(lane)
    lanes.hold(lane, 5.0)
    assert sorted([take(lanes).queue[0].number, take(lanes).queue[0].number]) == [2, 3]


def test_what_is_left_of_a_lane_goes_on_as_it_was() -> None:
    """Live records and those of an inbox share a lane, but not their partition: only one of them may be given up."""
    lanes: Lanes[Item] = Lanes()
    head = add(lanes, "a", 1)
    gone = add(lanes, "a", 2, background=True, partition=1)
    busy = take(lanes)
    assert lanes.drop(lambda item: item.partition == 1) == [gone]
    assert lanes.take() is None
    assert head.lane is not busy
    lanes.hold(head.lane, 5.0)
    again = add(lanes, "a", 3, background=True, partition=1)
    assert lanes.drop(lambda item: item is again) == [again]
    assert (lanes.take(), lanes.next_due(), lanes.held) == (None, 5.0, 1)
    lanes.due(5.0)
    assert take(lanes).queue[0] is head
    behind = add(lanes, "a", 4)
    assert lanes.drop(lambda item: item is head) == [head]
    assert take(lanes).queue[0] is behind


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["finish", "hold", "release", "behind"]),
    ),
    max_size=200,
)


@given(STEPS)
def test_every_key_is_worked_on_in_the_order_it_came_whatever_happens(
    steps: list[tuple[str, bool, bool, str]],
) -> None:
    lanes: Lanes[Item] = Lanes()
    done: dict[LaneKey, list[int]] = {}
    now = 0.0

    def finish(lane: Lane[Item]) -> None:
        done.setdefault(lane.key, []).append(lane.queue[0].number)
        lanes.finish(lane)

    for number, (name, background, serve_background, what) in enumerate(steps):
        add(lanes, name, number, background=background)
        now += 1
        lanes.due(now)
        lane = lanes.take(background=serve_background)
        if lane is None:
            continue
        assert serve_background == (lane.live == 0)
        if what == "finish":
            finish(lane)
        elif what == "hold":
            lanes.hold(lane, now + 3)
        else:
            lanes.release(lane, first=what == "release")
    lanes.due(now + 10)
    while (lane := lanes.take() or lanes.take(background=True)) is not None:
        finish(lane)
    assert len(lanes) == 0
    assert sum(map(len, done.values())) == len(steps)
    assert all(numbers == sorted(numbers) for numbers in done.values())
