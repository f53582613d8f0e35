"""Batches of one action and distinct entities."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Delivery
from consumers.assignment import Assigned
from consumers.batches import Batches
from consumers.work import Partition, Work
from schemas.event import Origin, Record


def work(action: str, entity: str, offset: int = 0) -> Work:
    partition = Partition(Assigned(("t", 0), 1, 0, ()))
    entry = partition.tracker.fetched(offset)
    assert entry is not None
    made = Work(partition, entry, Record("t", 0, offset, b"k", b"v", (), 0))
    made.delivery = Delivery(
        action=action, entity=entity, idempotency_key="0" * 64, sequence=Origin("t", 0, offset), body={}
    )
    return made


def test_a_vendor_that_takes_one_at_a_time_gets_batches_of_one_at_once() -> None:
    batches = Batches(1)
    batches.add(work("a", "x"))
    assert [len(batch) for batch in batches.ready] == [1]
    assert not batches.forming


def test_a_full_batch_is_ready_and_a_part_of_one_lingers_until_it_is_flushed() -> None:
    batches = Batches(3)
    for number in range(4):
        batches.add(work("a", str(number)))
    assert [len(batch) for batch in batches.ready] == [3]
    assert batches.forming
    batches.flush()
    assert [len(batch) for batch in batches.ready] == [3, 1]


def test_a_refused_batch_is_next_in_two_halves() -> None:
    batches = Batches(10)
    batches.add(work("a", "waits"))
    batches.flush()
    batches.halve([work("a", str(number)) for number in range(5)])
    assert [len(batch) for batch in batches.ready] == [3, 2, 1]


@given(st.integers(1, 7), st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("uvwxyz")), max_size=60))
def test_no_batch_mixes_actions_or_holds_an_entity_twice_and_nothing_is_lost(
    batch_max: int, wanted: list[tuple[str, str]]
) -> None:
    batches = Batches(batch_max)
    works = [work(action, entity) for action, entity in wanted]
    for one in works:
        batches.add(one)
    batches.flush()
    for batch in batches.ready:
        deliveries = [one.delivery for one in batch if one.delivery]
        assert 1 <= len(batch) <= batch_max
        assert len({delivery.action for delivery in deliveries}) == 1
        assert len({delivery.entity for delivery in deliveries}) == len(batch)
    assert sorted(map(id, works)) == sorted(id(one) for batch in batches.ready for one in batch)
