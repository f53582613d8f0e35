"""What an attach catches up with: of the background class up to the hand-over position, live from there on."""

from __future__ import annotations

from connectors.connector import Delivered, Rejected
from consumers.work import Limits
from tests.consumers.flow_rig import Rig, redrive, subscription

A, B = ("t", 0), ("t", 1)
INBOX = ("orders.inbox", 0)


def test_what_is_below_the_hand_over_position_is_background_and_what_comes_after_is_live() -> None:
    rig = Rig()
    rig.assign(A, until=2)
    for key in (b"a", b"b", b"c"):
        rig.give({"entity": key.decode()}, key=key)
    assert rig.deliver() == [{"entity": "c"}]
    assert rig.deliver(background=True) == [{"entity": "a"}, {"entity": "b"}]
    assert rig.committed(A) == 3


def test_a_live_event_behind_what_is_caught_up_with_makes_its_key_live_in_order() -> None:
    rig = Rig()
    rig.assign(A, until=2)
    rig.give({"entity": "1", "n": 1}, {"entity": "1", "n": 2}, {"entity": "1", "n": 3}, key=b"k")
    assert [one["n"] for one in rig.deliver()] == [1, 2, 3]
    assert rig.batch(background=True) is None


def test_the_hand_over_is_told_once_when_everything_below_the_position_is_committed() -> None:
    rig = Rig()
    rig.assign(A, B, until=2)
    rig.give({"entity": "1"}, {"entity": "2"}, {"entity": "3"}, key=b"k")
    first = rig.batch()
    rig.flow.commit_due()
    assert rig.handed_over == []
    rig.answer(first, Delivered())
    rig.deliver()
    rig.committed(A)
    rig.flow.commit_due()
    rig.flow.commit_due()
    assert rig.handed_over == [A]


def test_the_hand_over_is_told_though_something_new_is_to_be_committed_every_second() -> None:
    """While live traffic ran a range was always on its way when the hand-over was looked for: it was never told."""
    rig = Rig()
    rig.assign(A, until=1)
    for number in range(3):
        rig.give({"entity": str(number)}, key=None)
        rig.deliver()
        rig.deliver(background=True)
        rig.flow.commit_due()  # the range is acked after it
    assert rig.handed_over == [A]


def test_a_partition_that_comes_after_its_hand_over_tells_it_so_that_a_record_that_was_lost_is_made_up_for() -> None:
    rig = Rig()
    rig.assign(A, at=7, until=7)
    rig.assign(B, at=0)
    rig.flow.commit_due()
    assert rig.handed_over == [A]


def test_the_heartbeat_says_how_far_the_hand_over_is_away() -> None:
    rig = Rig()
    rig.assign(A, at=10, until=40)
    rig.assign(B, at=40, until=40)
    rig.give(*[{"entity": str(n)} for n in range(5)], key=None)
    assert (rig.flow.view(rig.now).catching_up, rig.flow.view(rig.now).catch_up_left) == (1, 30)
    rig.deliver(background=True)
    assert (rig.flow.view(rig.now).catching_up, rig.flow.view(rig.now).catch_up_left) == (1, 25)


def test_a_rewind_below_the_hand_over_position_is_catch_up_again() -> None:
    rig = Rig()
    rig.assign(A, at=4, until=4)
    rig.flow.lost([A])
    rig.assign(A, at=3, until=4)
    rig.give({"entity": "again"}, {"entity": "live"}, key=None)
    assert rig.deliver() == [{"entity": "live"}]
    assert rig.deliver(background=True) == [{"entity": "again"}]


def test_rejections_while_catching_up_stop_the_subscription_as_live_ones_do() -> None:
    """A file with a mistake would fill the dead topic with its whole past otherwise."""
    rig = Rig()
    rig.assign(A, until=100)
    rig.give(*[{"entity": str(n)} for n in range(9)], key=None)
    while (batch := rig.batch(background=True)) is not None:
        rig.answer(batch, Rejected("invalid"))
        rig.ack()
    assert len(rig.letters) == 5
    assert "5 events in a row were rejected" in rig.stops[0]


def test_what_is_caught_up_with_and_what_is_live_merge_as_one() -> None:
    rig = Rig(sub=subscription(send="latest"))
    rig.assign(A, until=1)
    rig.give({"entity": "1", "a": 1}, {"entity": "1", "b": 2}, key=b"k")
    assert rig.deliver() == [{"entity": "1", "a": 1, "b": 2}]
    assert rig.committed(A) == 2


def test_with_a_live_partition_catch_up_leaves_it_room_and_goes_on_when_half_is_done() -> None:
    rig = Rig(limits=Limits(records_max=40))  # a quarter is 10
    rig.assign(A, until=1_000)
    rig.assign(B)
    rig.give(*[{"entity": str(n)} for n in range(9)], key=None, place=A)
    assert not rig.paused[A]
    rig.give({"entity": "9"}, key=None, place=A)
    assert (rig.paused[A], rig.paused[B]) == (True, False)
    rig.give({"entity": "live"}, key=None, place=B)
    assert rig.deliver() == [{"entity": "live"}]
    for _ in range(5):
        rig.answer(rig.batch(background=True), Delivered())
        rig.ack()
    assert not rig.paused[A]


def test_without_a_live_partition_catch_up_has_all_the_room() -> None:
    rig = Rig(limits=Limits(records_max=40))
    rig.assign(A, B, until=1_000)
    rig.assign(INBOX)
    rig.give(*[{"entity": str(n)} for n in range(30)], key=None, place=A)
    assert rig.paused == {A: False, B: False, INBOX: False}


def test_a_partition_that_was_paused_goes_on_though_it_was_handed_over_meanwhile() -> None:
    rig = Rig(limits=Limits(records_max=40))
    rig.assign(A, until=11)
    rig.assign(B)
    rig.give(*[{"entity": str(n)} for n in range(10)], key=None, place=A)
    assert rig.paused[A]
    rig.give({"entity": "10"}, {"entity": "live"}, key=None, place=A)  # was on its way when it was paused
    rig.deliver()
    rig.deliver(background=True)
    assert not rig.paused[A]


def test_what_is_redriven_is_not_counted_as_catch_up_nor_held_up_by_it() -> None:
    rig = Rig(limits=Limits(records_max=40))
    rig.assign(A, at=5, until=1_000)
    rig.assign(INBOX)
    rig.give(*[{"entity": str(n)} for n in range(20)], key=None, place=A)
    rig.give_again(redrive(2), {"entity": "again"}, key=b"other")
    assert not rig.paused[INBOX]
    assert {"entity": "again"} in rig.deliver(background=True)
