"""What every publisher does, Kafka's and the one in memory: one outcome for each event, and nothing lost in silence."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from producers import (
    EventRejected,
    KafkaPublisher,
    MemoryPublisher,
    Published,
    Publisher,
    PublisherSettings,
    PublishUnknown,
)
from producers.memory import murmur2
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import Contract
from schemas.errors import RefusedError
from schemas.event import Event, Record
from schemas.registry import Registry, open_registry
from tests.producers.events import Note, contract_on, note, note_model

PARTITIONS = 4
SECRET = "s3cret"


@dataclass
class World:
    """A publisher to try, the contract it publishes, and what stands in the log afterwards."""

    contract: Contract
    registry: Registry
    open: Callable[..., Publisher]
    records: Callable[[], list[Record]]

    def __post_init__(self) -> None:
        self.model: type[Note] = note_model(self.contract)

    def events(self) -> list[Event]:
        decoder, found = Decoder(self.registry), []
        for record in self.records():
            event = decoder.decode(record)
            if isinstance(event, SchemaWanted):
                decoder.load(event)
                event = decoder.decode(record)
            assert isinstance(event, Event), event
            found.append(event)
        return found


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest, prefix: str) -> World:
    if request.param == "memory":
        registry = open_registry(f"memory://{uuid.uuid4()}")
        opened: list[MemoryPublisher] = []

        def open_memory(**settings: object) -> Publisher:
            opened.append(MemoryPublisher(registry, partitions=PARTITIONS, **settings))  # type: ignore[arg-type]
            return opened[-1]

        found = World(
            contract_on(f"{prefix}.notes"), registry, open_memory, lambda: [r for p in opened for r in p.records]
        )
    else:
        stack = request.getfixturevalue("stack")
        topic = request.getfixturevalue("make_topic")("notes", partitions=PARTITIONS)
        settings = PublisherSettings.model_validate(
            {"kafka": {"bootstrap.servers": stack.bootstrap}, "registry": {"url": stack.registry_url}}
        )
        registry = settings.open_registry()
        found = World(
            contract_on(topic),
            registry,
            lambda **more: KafkaPublisher(settings, **more),  # type: ignore[arg-type]
            lambda: read_all(stack.bootstrap, topic),
        )
    found.registry.register(found.contract.subject, found.contract.text)
    return found


def read_all(bootstrap: str, topic: str) -> list[Record]:
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "nobody", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "enable.partition.eof": True,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, ended, until = [], set(), time.monotonic() + 20
    while len(ended) < PARTITIONS and time.monotonic() < until:
        for m in consumer.consume(500, 0.2):
            if m.error() is not None:
                assert m.error().code() == KafkaError._PARTITION_EOF, m.error()
                ended.add(m.partition())
                continue
            found.append(
                Record(
                    m.topic(), m.partition(), m.offset(), m.key(), m.value(), tuple(m.headers() or ()), m.timestamp()[1]
                )
            )
    consumer.close()
    assert len(ended) == PARTITIONS
    return found


def test_an_event_is_acknowledged_with_its_place_and_reads_back_as_published(world: World) -> None:
    happened = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
    with world.open() as publisher:
        event = world.model(note_id="n-1", text="hello", count=3, parts=[{"word": "a"}])
        ack = publisher.publish(
            event, source="notes", id="mine", time=happened, subject="n-1", correlation_id="c", causation_id="d",
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ).result(timeout=10)  # fmt: skip
    (found,) = world.events()
    (record,) = world.records()
    assert (ack.topic, ack.partition, ack.offset) == record.origin
    assert ack.id == "mine"
    assert found == Event(
        id="mine", type="demo.NoteWritten", source="notes", time=happened, subject="n-1", key="n-1",
        data={"note_id": "n-1", "text": "hello", "count": 3, "parts": [{"word": "a"}]},
        correlation_id="c", causation_id="d", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )  # fmt: skip


def test_ids_are_new_uuids_of_version_7_and_times_are_now_unless_given(world: World) -> None:
    before = datetime.now(UTC)
    with world.open() as publisher:
        acks = [publisher.publish_data(world.contract, note(), source="notes").result(10) for _ in range(3)]
    ids = [ack.id for ack in acks]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert all(before <= event.time <= datetime.now(UTC) for event in world.events())


def test_events_of_a_key_stand_in_the_partition_of_javas_murmur2_in_the_order_published(world: World) -> None:
    with world.open() as publisher:
        for number in range(200):
            publisher.publish_data(world.contract, note(f"n-{number % 7}", count=number), source="notes")
    by_key: dict[str | None, list[int]] = {}
    for event, record in zip(world.events(), world.records(), strict=True):
        by_key.setdefault(event.key, []).append(event.data["count"])
        assert record.key is not None
        assert record.partition == murmur2(record.key) % PARTITIONS
    assert sum(len(counts) for counts in by_key.values()) == 200
    assert all(counts == sorted(counts) for counts in by_key.values())


def test_data_that_does_not_fit_is_rejected_naming_the_field_and_never_the_value(world: World) -> None:
    with world.open() as publisher:
        future = publisher.publish_data(world.contract, note(count=SECRET, more=SECRET), source="notes")
        with pytest.raises(EventRejected) as caught:
            future.result(10)
    assert "count" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert world.records() == []


def test_an_unregistered_schema_is_rejected_with_the_command_and_never_registered(world: World) -> None:
    other = contract_on(f"{world.contract.topic}.other")
    with world.open() as publisher:
        future = publisher.publish_data(other, note(), source="notes")
        with pytest.raises(EventRejected, match=r"backbone schema register demo\.NoteWritten"):
            future.result(10)
    assert world.registry.latest(other.subject) is None


def test_an_event_too_large_for_the_log_is_rejected(world: World) -> None:
    with world.open() as publisher:
        future = publisher.publish_data(world.contract, note(text="x" * (1 << 20)), source="notes")
        with pytest.raises(EventRejected, match="at most 1,048,576"):
            future.result(10)
    assert world.records() == []


def test_an_event_of_just_a_mebibyte_is_taken(world: World) -> None:
    """Kafka's client takes 1,000,000 bytes by default, so the largest events that we encode were refused."""
    with world.open() as publisher:
        publisher.publish_data(world.contract, note(text="x" * 1_030_000), source="notes").result(20)
    assert len(world.records()) == 1


def test_many_are_published_in_order_with_a_future_for_each(world: World) -> None:
    with world.open() as publisher:
        events = [world.model(note_id="n", text="x", count=number) for number in range(50)]
        acks = [future.result(10) for future in publisher.publish_many(events, source="notes")]
    assert [ack.offset for ack in acks] == list(range(50))
    assert [event.data["count"] for event in world.events()] == list(range(50))


async def test_it_can_be_awaited_by_many_tasks_at_once(world: World) -> None:
    publisher = world.open()
    acks = await asyncio.gather(
        *(publisher.publish_async(world.model(note_id=f"n-{n}", text="x"), source="notes") for n in range(40))
    )
    assert len({(ack.partition, ack.offset) for ack in acks}) == 40
    with pytest.raises(EventRejected):
        await publisher.publish_async(note_model(contract_on("t"))(note_id="n", text="x"), source="notes")
    await asyncio.to_thread(publisher.close)


def test_threads_share_a_publisher_and_every_event_stands_once(world: World) -> None:
    with world.open() as publisher, ThreadPoolExecutor(4) as pool:

        def publish(worker: int) -> None:
            for number in range(100):
                publisher.publish_data(world.contract, note(f"{worker}-{number}"), source="notes")

        list(pool.map(publish, range(4)))
    assert sorted(event.key or "" for event in world.events()) == sorted(
        f"{w}-{n}" for w in range(4) for n in range(100)
    )


def test_closing_sends_what_is_still_under_way(world: World) -> None:
    with world.open() as publisher:
        futures = [publisher.publish_data(world.contract, note(), source="notes") for _ in range(300)]
    assert all(future.done() for future in futures)
    assert len(world.records()) == 300


def fail_after_publishing(world: World, data: dict[str, object]) -> None:
    with world.open() as publisher:
        publisher.publish_data(world.contract, data, source="notes")
        raise KeyError("of the block")


def test_an_exception_in_the_block_passes_and_what_was_published_is_there(world: World) -> None:
    with pytest.raises(KeyError, match="of the block"):
        fail_after_publishing(world, note())
    assert len(world.records()) == 1


def test_a_failure_that_nobody_looked_at_is_raised_by_closing_and_does_not_hide_the_blocks_own(world: World) -> None:
    publisher = world.open()
    publisher.publish_data(world.contract, {}, source="notes")
    with pytest.raises(EventRejected, match="1 event was not published, and nobody looked at the outcome"):
        publisher.close()
    with pytest.raises(KeyError) as caught:
        fail_after_publishing(world, {})
    assert "nobody looked" in caught.value.__notes__[0]


def test_after_closing_publishing_is_refused_and_closing_again_is_nothing(world: World) -> None:
    publisher = world.open()
    publisher.close()
    publisher.close()
    with pytest.raises(RefusedError, match="closed"):
        publisher.publish_data(world.contract, note(), source="notes")


def test_an_observer_hears_of_every_outcome_and_may_fail(world: World) -> None:
    heard: list[Published] = []

    def observe(fact: Published) -> None:
        heard.append(fact)
        raise RuntimeError("a bad observer")

    with world.open(observe=observe) as publisher:
        publisher.publish_data(world.contract, note(), source="notes").result(10)
        assert publisher.publish_data(world.contract, {}, source="notes").exception(10)
        assert publisher.flush(10) == 0
    assert [(fact.event, fact.outcome) for fact in heard] == [
        ("demo.NoteWritten", "acked"),
        ("demo.NoteWritten", "rejected"),
    ]
    assert all(fact.seconds >= 0 for fact in heard)


def test_what_is_no_event_is_a_type_error(world: World) -> None:
    from tests.producers.events import Part

    with world.open() as publisher, pytest.raises(TypeError, match="Part is no event"):
        publisher.publish(Part(word="x"), source="notes")


def test_what_is_unconfirmed_at_the_end_is_said_and_settled_as_unknown(prefix: str) -> None:
    """At a broker that is not there; in memory the same by ``answer_next("late")`` (test_memory)."""
    contract = contract_on(f"{prefix}.notes")
    url = f"memory://{uuid.uuid4()}"
    open_registry(url).register(contract.subject, contract.text)
    publisher = KafkaPublisher(
        PublisherSettings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}, "registry": {"url": url}})
    )
    future = publisher.publish_data(contract, note(), source="notes", id="mine")
    with pytest.raises(PublishUnknown, match=r"1 event was not confirmed by Kafka within 0\.1 s"):
        publisher.close(0.1)
    with pytest.raises(PublishUnknown, match="Publish it again with the same id mine") as caught:
        future.result(0)
    assert (caught.value.id, caught.value.code) == ("mine", "_PURGE_QUEUE")
