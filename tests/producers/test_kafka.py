"""The producer of records: every send is settled exactly once, whatever happens to the broker or to a callback."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from producers.errors import Backpressure
from producers.kafka import PINNED, Acknowledged, RecordProducer, SendFailed, producer_settings
from producers.settled import Settled
from schemas.errors import InputError, RefusedError
from tests.conftest import MakeTopic, Stack
from tests.waiting import eventually

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}
"""A port that nobody listens on."""


@pytest.fixture
def producer(stack: Stack) -> Iterator[RecordProducer]:
    made = RecordProducer({"bootstrap.servers": stack.bootstrap})
    yield made
    made.close(5)


def read(stack: Stack, acknowledged: Settled) -> Message:
    assert isinstance(acknowledged, Acknowledged), acknowledged
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "nobody", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(*acknowledged)])
        # a message without a value is false, because its length is 0
        return eventually(lambda: [m for m in (consumer.poll(1.0),) if m is not None], about="an acknowledged record")[
            0
        ]
    finally:
        consumer.close()


# ---- settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        *(({"bootstrap.servers": "k", name: "s3cret"}, f"'{name}' cannot be changed") for name in PINNED),
        (
            {"bootstrap.servers": "k", "delivery.timeout.ms": 1},
            "'delivery.timeout.ms' cannot be changed (it is 120000)",
        ),
        ({"bootstrap.servers": "k", "transactional.id": "s3cret"}, "'transactional.id' cannot be used"),
        ({"bootstrap.servers": "k", "max.in.flight": 9}, "can lose or reorder"),
        ({}, "'bootstrap.servers' is missing"),
        ({"bootstrap.servers": "k", "sasl.pasword": "s3cret"}, "Did you mean 'sasl.password'?"),
        ({"bootstrap.servers": "k", "batch.size": "s3cret"}, "'batch.size' has a value"),
        ({"bootstrap.servers": "k", "security.protocol": "s3cret"}, "'security.protocol' has a value"),
    ],
)
def test_a_setting_that_is_pinned_unknown_or_wrong_is_named_with_the_reason(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        RecordProducer(settings)
    assert sentence in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_other_settings_of_the_client_pass_through() -> None:
    merged = producer_settings({"bootstrap.servers": "k", "client.rack": "a"})
    assert merged["client.rack"] == "a"
    assert merged["acks"] == "all"


# ---- at a broker


@pytest.mark.integration
def test_a_record_is_acknowledged_with_its_place_and_stands_there_as_sent(
    stack: Stack, producer: RecordProducer, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=3)
    got: list[Settled] = []
    headers = [("a", b"1"), ("nothing", None), ("a", b"2")]
    producer.send(topic, b"key", b"value", headers, partition=2, on_settled=got.append)
    assert producer.flush(10) == 0
    assert got == [Acknowledged(topic, 2, 0)]
    message = read(stack, got[0])
    assert (message.key(), message.value(), message.headers()) == (b"key", b"value", headers)


@pytest.mark.integration
def test_a_tombstone_keeps_its_key_and_has_no_value(
    stack: Stack, producer: RecordProducer, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    got: list[Settled] = []
    producer.send(topic, b"key", None, None, on_settled=got.append)
    assert producer.flush(10) == 0
    message = read(stack, got[0])
    assert (message.key(), message.value(), message.headers()) == (b"key", None, None)


@pytest.mark.integration
def test_a_topic_that_does_not_exist_is_named_and_rejected_within_seconds(
    producer: RecordProducer, prefix: str
) -> None:
    got: list[Settled] = []
    producer.send(f"{prefix}.nowhere", b"k", b"v", None, on_settled=got.append)
    assert producer.flush(20) == 0
    (failed,) = got
    assert isinstance(failed, SendFailed)
    assert failed.kind == "rejected"
    assert failed.reason == f"The topic '{prefix}.nowhere' does not exist"


@pytest.mark.integration
def test_a_partition_that_does_not_exist_and_a_record_too_large_are_rejected(
    producer: RecordProducer, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    small = make_topic("small", config={"max.message.bytes": "2000"})
    got: dict[str, Settled] = {}
    producer.send(topic, b"k", b"v", None, on_settled=lambda s: got.update(first=s))
    assert producer.flush(10) == 0
    producer.send(topic, b"k", b"v", None, partition=7, on_settled=lambda s: got.update(partition=s))
    producer.send(topic, b"k", b"v" * 2_000_000, None, on_settled=lambda s: got.update(client=s))
    producer.send(small, b"k", os.urandom(5_000), None, on_settled=lambda s: got.update(broker=s))
    assert producer.flush(10) == 0
    assert got["partition"] == SendFailed("rejected", f"The topic '{topic}' has no partition 7", "_UNKNOWN_PARTITION")
    for name in ("client", "broker"):
        failed = got[name]
        assert isinstance(failed, SendFailed)
        assert (failed.kind, failed.error) == ("rejected", "MSG_SIZE_TOO_LARGE")


@pytest.mark.integration
def test_what_a_callback_raises_costs_no_other_record_its_settlement(
    producer: RecordProducer, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    got: list[Settled] = []

    def bad(_: Settled) -> None:
        raise SystemExit("a bad callback")

    for number in range(2_000):
        producer.send(topic, b"k", b"%d" % number, None, on_settled=bad if number % 3 else got.append)
    producer.send(topic, b"k", b"v", None, partition=9, on_settled=bad)
    assert producer.flush(20) == 0
    assert len(got) == 667
    producer.send(topic, b"k", b"after", None, on_settled=got.append)
    assert producer.flush(10) == 0
    assert len(got) == 668


@pytest.mark.integration
def test_every_settlement_comes_from_the_same_thread_and_not_from_a_sender(
    producer: RecordProducer, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    threads: set[int] = set()
    for _ in range(50):
        producer.send(topic, b"k", b"v", None, on_settled=lambda _: threads.add(threading.get_ident()))
    producer.send(topic, b"k", b"v", None, partition=9, on_settled=lambda _: threads.add(threading.get_ident()))
    assert producer.flush(10) == 0
    assert len(threads) == 1
    assert threading.get_ident() not in threads


# ---- without a broker


def test_a_queue_that_stays_full_is_backpressure_after_the_bounded_wait_and_the_rest_ends_as_unknown() -> None:
    producer = RecordProducer(NOWHERE, block_s=0.2)
    got: list[Settled] = []
    taken = 0

    def fill() -> None:
        nonlocal taken
        while True:
            producer.send("t", b"k", b"v" * 2_000, None, on_settled=got.append)
            taken += 1

    with pytest.raises(Backpressure, match=r"stayed full for 0\.2 s \(_TRANSPORT\); nothing was sent"):
        fill()
    with pytest.raises(Backpressure):
        producer.send("t", b"k", b"v" * 2_000, None, on_settled=got.append, block_s=0)
    assert taken > 10_000
    assert producer.flush(0.1) == taken
    assert producer.close(0.1) == taken
    assert len(got) == taken
    assert {(one.kind, one.error) for one in got if isinstance(one, SendFailed)} == {("unknown", "_PURGE_QUEUE")}


def test_only_sends_are_counted_as_unconfirmed_and_not_what_the_client_has_to_tell_of_itself() -> None:
    """Its errors and log lines stood in the same queue: of one event it was said that three were not confirmed."""
    told, go_on = threading.Event(), threading.Event()

    def hold_the_poll_thread(_: object) -> None:
        told.set()
        go_on.wait(60)

    producer = RecordProducer({**NOWHERE, "error_cb": hold_the_poll_thread, "reconnect.backoff.max.ms": 100})
    got: list[Settled] = []
    producer.send("t", b"k", b"v", None, on_settled=got.append)
    assert told.wait(60)
    eventually(lambda: len(producer._client.producer) > 1, 60, about="more that the client tells of itself")
    assert producer.flush(0) == 1
    go_on.set()
    assert producer.close(0) == 1
    assert len(got) == 1


def test_what_the_client_cannot_take_at_all_is_not_counted() -> None:
    producer = RecordProducer(NOWHERE)
    with pytest.raises(TypeError):
        producer.send("t", b"k", 5, None, on_settled=lambda _: None)  # type: ignore[arg-type]
    assert producer.close(0) == 0


def test_closing_twice_is_once_and_sending_afterwards_is_refused() -> None:
    producer = RecordProducer(NOWHERE)
    assert producer.close() == 0
    assert producer.close() == 0
    with pytest.raises(RefusedError, match="closed"):
        producer.send("t", b"k", b"v", None, on_settled=lambda _: None)


def test_threads_that_send_while_it_closes_have_every_taken_record_settled() -> None:
    for _ in range(5):
        producer = RecordProducer(NOWHERE)
        got: list[Settled] = []
        taken = [0, 0]

        def keep_sending(
            place: int, producer: RecordProducer = producer, got: list[Settled] = got, taken: list[int] = taken
        ) -> None:
            try:
                while True:
                    producer.send("t", b"k", b"v", None, on_settled=got.append)
                    taken[place] += 1
            except RefusedError:
                return

        threads = [threading.Thread(target=keep_sending, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda taken=taken: all(taken), poll_s=0.001)  # type: ignore[misc]
        producer.close(0)
        for thread in threads:
            thread.join()
        assert len(got) == sum(taken)


def test_a_producer_made_before_a_fork_is_refused_in_the_child() -> None:
    producer = RecordProducer(NOWHERE)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            producer.send("t", b"k", b"v", None, on_settled=lambda _: None)
        except RefusedError as error:
            os.write(write_end, str(error).encode())
        producer.close()
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        said = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "before os.fork()" in said
    producer.close(0)
