"""What of a partition is to be committed, and what happens when the broker does not take it."""

from __future__ import annotations

from consumers.assignment import Assigned
from consumers.work import Partition


def finished(partition: Partition, *offsets: int) -> None:
    for offset in offsets:
        entry = partition.tracker.fetched(offset)
        assert entry is not None
        partition.tracker.finish(entry, "delivered")
    partition.tracker.read_to(max(offsets) + 1)
    partition.dirty = True


def test_what_is_finished_is_due_once() -> None:
    partition = Partition(Assigned(("t", 0), 1, 5, ()))
    assert partition.take_due() is None
    finished(partition, 5, 6)
    assert partition.take_due() == (7, "")
    assert partition.take_due() is None


def test_what_the_broker_did_not_take_is_due_again_without_a_new_event() -> None:
    """It used to wait for the next event: after an outage of the broker the lag of a quiet topic stayed for ever."""
    partition = Partition(Assigned(("t", 0), 1, 5, ()))
    finished(partition, 5, 6)
    assert partition.take_due() == (7, "")
    partition.not_committed()
    assert partition.take_due() == (7, "")
    assert partition.take_due() is None


def test_what_ended_with_its_assignment_is_never_due_again() -> None:
    partition = Partition(Assigned(("t", 0), 1, 5, ()))
    finished(partition, 5)
    partition.live = False
    assert partition.take_due() is None
    partition.not_committed()
    assert partition.take_due() is None
