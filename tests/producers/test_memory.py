"""The publisher for services' tests: it can be told to fail as Kafka can."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import Backpressure, EventRejected, MemoryPublisher, PublishUnknown
from producers.memory import murmur2
from schemas.registry import open_registry
from tests.producers.events import contract_on, note, note_model

CONTRACT = contract_on("demo.notes")
Note = note_model(CONTRACT)


def test_a_service_test_needs_nothing_but_the_publisher() -> None:
    with MemoryPublisher() as publisher:
        publisher.publish(Note(note_id="n-1", text="hello"), source="notes")
    (event,) = publisher.events
    assert (event.type, event.source, event.data["text"]) == ("demo.NoteWritten", "notes", "hello")
    publisher.clear()
    assert publisher.events == []


def test_rejected_unknown_and_unknown_but_written_as_told_one_after_the_other() -> None:
    publisher = MemoryPublisher()
    publisher.answer_next("rejected")
    publisher.answer_next("unknown")
    publisher.answer_next("unknown but written")
    futures = [publisher.publish_data(CONTRACT, note(f"n-{n}"), source="notes") for n in range(4)]
    assert isinstance(futures[0].exception(0), EventRejected)
    assert isinstance(futures[1].exception(0), PublishUnknown)
    assert isinstance(futures[2].exception(0), PublishUnknown)
    assert futures[3].result(0).id
    assert [event.key for event in publisher.events] == ["n-2", "n-3"]
    publisher.close()


def test_an_unknown_event_published_again_with_the_same_id_is_the_same_event() -> None:
    publisher = MemoryPublisher()
    publisher.answer_next("unknown but written")
    unknown = publisher.publish_data(CONTRACT, note(), source="notes").exception(0)
    assert isinstance(unknown, PublishUnknown)
    publisher.publish_data(CONTRACT, note(), source="notes", id=unknown.id).result(0)
    first, second = publisher.events
    assert (first.source, first.type, first.id) == (second.source, second.type, second.id)


def test_backpressure_is_raised_and_nothing_is_taken() -> None:
    publisher = MemoryPublisher()
    publisher.answer_next("backpressure")
    with pytest.raises(Backpressure):
        publisher.publish_data(CONTRACT, note(), source="notes")
    assert publisher.records == []
    publisher.close()


def test_publish_many_stops_at_backpressure_so_that_none_overtakes_another() -> None:
    publisher = MemoryPublisher()
    publisher.publish_data(CONTRACT, note("n-0"), source="notes")
    publisher.answer_next("backpressure")
    futures = publisher.publish_many([Note(note_id=f"n-{n}", text="x") for n in range(1, 4)], source="notes")
    assert [type(future.exception(0)) for future in futures] == [Backpressure] * 3
    assert [event.key for event in publisher.events] == ["n-0"]


async def test_awaiting_waits_out_backpressure_within_its_bound() -> None:
    publisher = MemoryPublisher()
    publisher.answer_next("backpressure", times=3)
    assert (await publisher.publish_async(Note(note_id="n", text="x"), source="notes")).offset == 0
    publisher.answer_next("backpressure", times=10_000)
    with pytest.raises(Backpressure):
        await publisher.publish_async(Note(note_id="n", text="x"), source="notes", block_s=0.05)


def test_late_answers_come_when_told_and_are_unknown_at_the_end() -> None:
    publisher = MemoryPublisher()
    publisher.answer_next("late", times=2)
    first = publisher.publish_data(CONTRACT, note(), source="notes")
    assert not first.done()
    assert publisher.flush(0) == 1
    assert publisher.answer_late() == 1
    assert first.result(0).offset == 0
    second = publisher.publish_data(CONTRACT, note(), source="notes")
    with pytest.raises(PublishUnknown, match="1 event was not confirmed"):
        publisher.close(0)
    assert isinstance(second.exception(0), PublishUnknown)


def test_with_a_registry_of_ones_own_nothing_is_registered_by_publishing() -> None:
    registry = open_registry(f"memory://{uuid.uuid4()}")
    publisher = MemoryPublisher(registry)
    assert isinstance(publisher.publish_data(CONTRACT, note(), source="notes").exception(0), EventRejected)
    assert registry.subjects() == []


@pytest.mark.parametrize(
    ("key", "hashed"),
    # the vectors of Kafka's own UtilsTest.testMurmur2, as positive numbers
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
     (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
     (b"abc", 479470107)],
)  # fmt: skip
def test_murmur2_is_javas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0x7FFF_FFFF


@given(st.binary(max_size=64))
def test_murmur2_takes_any_key(key: bytes) -> None:
    assert 0 <= murmur2(key) < 2**31
