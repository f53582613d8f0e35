"""The failure modes of delivery.md section 9 that the runtime meets, each on a real broker and registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from schemas.codec import Encoder
from schemas.registry import open_registry
from tests.conftest import Stack
from tests.integration.proxy import Proxy
from tests.integration.world import PARTITIONS, World, new_world
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        world.prepare()
        yield world
    finally:
        world.close()


def produce(world: World, value: bytes | None, *, key: bytes = b"poison", headers: dict[str, bytes] | None = None,
            **settings: object) -> None:  # fmt: skip
    producer = Producer({"bootstrap.servers": world.stack.bootstrap, "partitioner": "murmur2_random", **settings})
    failed: list[object] = []
    wanted = {"ce_type": world.event.encode()} if headers is None else headers
    producer.produce(
        world.topic, value, key=key, headers=list(wanted.items()), on_delivery=lambda e, _: e and failed.append(e)
    )
    assert producer.flush(20) == 0
    assert not failed


def state(world: World) -> dict[str, object]:
    document = json.loads(world.backbone("status", world.subscription, "--output", "json"))
    return dict(document["data"])


def stopped_line(worker) -> dict[str, object] | None:
    return next(iter(worker.said("subscription_stopped")), None)


def framed(world: World, data: dict[str, object]) -> bytes:
    registry = open_registry(world.stack.registry_url)
    return Encoder(registry).encode(world.contract, data, id="x", source="test", time=datetime.now(UTC)).value


def test_bytes_that_nobody_can_read_become_dead_letters_with_the_same_bytes(world: World) -> None:
    good = framed(world, {"thing_id": "t", "number": 1})
    poison = {
        "cut in the middle": good[:-1],
        "trailing bytes": good + b"\x00",
        "another magic byte": b"\x07" + good[1:],
        "no framing at all": b"{}",
        "too short for a schema id": b"\x00\x00",
        "empty": b"",
        "a length that is negative": good[:5] + b"\x01",
        "more than a mebibyte": good[:5] + b"x" * (1 << 20),
    }
    worker = world.start_worker()
    world.publish(40)
    for value in poison.values():
        produce(world, value, **{"message.max.bytes": 2_000_000} if len(value) > 1_000_000 else {})
    world.publish(40)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
    letters = {letter.value: letter for letter in world.letters()}
    assert set(letters) == set(poison.values())
    assert {letter.outcome for letter in letters.values()} == {"undecodable"}
    assert all(letter.key == b"poison" for letter in letters.values())
    assert worker.stop() == 0


def test_a_tombstone_and_another_type_of_event_are_not_ours(world: World) -> None:
    world.start_worker()
    produce(world, None)
    produce(world, b"\x00\x00\x00\x00\x01zzz", headers={"ce_type": b"somebody.Else"})
    world.publish(5)
    world.wait_until_caught_up()
    assert world.letters() == []
    assert world.contacts() == world.final_numbers()


def test_lag_reaches_zero_on_a_transactional_topic(world: World) -> None:
    """A commit or abort marker takes one offset; committing last + 1 would stop on it for ever."""
    worker = world.start_worker()
    producer = Producer({"bootstrap.servers": world.stack.bootstrap, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(20)
    encoder = Encoder(open_registry(world.stack.registry_url))
    for number, commit in ((1, True), (2, False), (3, True)):
        producer.begin_transaction()
        for thing in range(PARTITIONS * 3):
            data = {"thing_id": f"thing-{thing}", "number": number}
            encoded = encoder.encode(
                world.contract, data, id=f"{thing}/{number}", source="test", time=datetime.now(UTC)
            )
            producer.produce(world.topic, encoded.value, key=encoded.key, headers=encoded.headers)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    world.wait_until_caught_up()
    rows = json.loads(world.backbone("lag", world.subscription, "--output", "json"))["data"]
    assert sum(row["lag"] for row in rows) == 0
    assert set(world.contacts().values()) == {"3"}
    assert worker.stop() == 0


def test_a_dead_topic_that_cannot_be_written_stops_and_passes_nothing_over(world: World) -> None:
    world.admin.delete_topics([f"{world.subscription}.dead"])[f"{world.subscription}.dead"].result(20)
    worker = world.start_worker()
    produce(world, b"nobody can read this")
    line = eventually(lambda: stopped_line(worker), 60, about="a stop")
    assert f"{world.subscription}.dead" in str(line["reason"])
    committed, ends = world.committed(), world.ends()
    assert any(committed.get(place, 0) < end for place, end in ends.items()), "the poison record was passed over"
    new = NewTopic(f"{world.subscription}.dead", PARTITIONS, 1, config={"cleanup.policy": "compact"})
    world.admin.create_topics([new])[new.topic].result(20)
    world.backbone("subscription", "resume", world.subscription)
    world.wait_until_caught_up()
    assert [letter.value for letter in world.letters()] == [b"nobody can read this"]
    assert worker.stop() == 0


def test_five_rejections_in_a_row_stop_it_and_a_resume_can_accept_them(world: World) -> None:
    worker = world.start_worker()
    for number in range(8):
        produce(world, b"nobody can read this", key=b"key-%d" % number)
    line = eventually(lambda: stopped_line(worker), 60, about="a stop")
    assert "5 events in a row" in str(line["reason"])
    world.backbone("subscription", "resume", world.subscription, "--accept", "10")
    world.wait_until_caught_up()
    assert len(world.letters()) == 8
    assert worker.stop() == 0


def test_a_stop_survives_a_restart_and_is_cleared_only_by_a_resume(world: World) -> None:
    worker = world.start_worker()
    for number in range(6):
        produce(world, b"nobody can read this", key=b"key-%d" % number)
    eventually(lambda: stopped_line(worker), 60, about="a stop")
    assert worker.stop() == 0
    again = world.start_worker()
    eventually(lambda: again.said("worker_started"), 30)
    world.publish(10)
    assert world.contacts() == {}
    world.backbone("subscription", "resume", world.subscription, "--accept", "6")
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()


def test_while_the_registry_is_away_known_schemas_flow_and_new_ones_wait(world: World) -> None:
    proxy = Proxy(world.stack.registry_url)
    world.registry_url = proxy.url
    world.write_project()
    worker = world.start_worker()
    world.publish(20)
    world.wait_until_caught_up()
    proxy.take_away()
    try:
        world.publish(20)
        world.wait_until_caught_up()
        schema = {**world.contract.schema, "fields": [
            *world.contract.schema["fields"],
            {"name": "colour", "type": ["null", "string"], "default": None, "doc": "Its colour.", "examples": ["red"]},
        ]}  # fmt: skip
        registered = open_registry(world.stack.registry_url).register(world.contract.subject, json.dumps(schema))
        value = framed(world, {"thing_id": "thing-0", "number": 99})
        evolved = b"\x00" + registered.id.to_bytes(4, "big") + value[5:] + b"\x00"
        produce(world, evolved, key=b"thing-0")
        world.publish(20, keys=20)
        eventually(lambda: world.contacts().get("thing-1") == str(world.published["thing-1"][-1]), 30)
        assert not world.caught_up()
    finally:
        proxy.bring_back()
    world.wait_until_caught_up()
    assert world.letters() == []
    assert world.contacts() == world.final_numbers()
    assert worker.stop() == 0
    proxy.close()


def test_a_worker_starts_and_delivers_while_the_registry_is_away_when_it_knows_the_schemas(world: World) -> None:
    proxy = Proxy(world.stack.registry_url)
    world.registry_url = proxy.url
    world.write_project()
    worker = world.start_worker()
    world.publish(10)
    world.wait_until_caught_up()
    assert worker.stop() == 0
    proxy.take_away()
    worker = world.start_worker()
    world.publish(10)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
    assert worker.stop() == 0
    proxy.close()


def test_a_partition_added_later_is_read_from_its_beginning(world: World) -> None:
    world.write_project(**{"topic.metadata.refresh.interval.ms": "1000"})
    worker = world.start_worker()
    world.publish(20)
    world.wait_until_caught_up()
    world.admin.create_partitions([NewPartitions(world.topic, PARTITIONS + 3)])[world.topic].result(20)
    eventually(lambda: len(world.ends()) == PARTITIONS + 3)
    for number in range(60):
        key = f"added-{number}"
        world.published[key] = [1]
        value = framed(world, {"thing_id": key, "number": 1})
        produce(world, value, key=key.encode(), **{"topic.metadata.refresh.interval.ms": 100})
    assert sum(end for (_, partition), end in world.ends().items() if partition >= PARTITIONS) > 0
    world.wait_until_caught_up(90)
    assert world.contacts() == world.final_numbers()
    assert worker.stop() == 0


def test_positions_that_expired_at_the_broker_stop_it_and_nothing_is_delivered_again(world: World) -> None:
    worker = world.start_worker()
    world.publish(40)
    world.wait_until_caught_up()
    assert worker.stop() == 0
    world.vendor.reset()
    world.admin.delete_consumer_groups([world.subscription])[world.subscription].result(20)
    worker = world.start_worker()
    line = eventually(lambda: stopped_line(worker), 60, about="a stop")
    assert f"backbone rewind {world.subscription}" in str(line["reason"])
    assert world.vendor.report()["applied"] == 0
    assert worker.stop() == 0


def test_records_deleted_before_they_were_read_stop_it_and_are_counted(world: World) -> None:
    worker = world.start_worker()
    world.publish(40)
    world.wait_until_caught_up()
    assert worker.stop() == 0
    world.publish(40)
    ends = world.ends()
    wanted = [TopicPartition(topic, partition, end) for (topic, partition), end in ends.items() if end]
    for deleted in world.admin.delete_records(wanted).values():
        deleted.result(20)
    worker = world.start_worker()
    line = eventually(lambda: stopped_line(worker), 60, about="a stop")
    assert "deleted before they were read" in str(line["reason"])
    assert worker.stop() == 0
