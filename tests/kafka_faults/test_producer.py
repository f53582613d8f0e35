"""What Kafka can do to a record that is being written, and what the one who sent it is told (G1, G2)."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from producers.errors import Backpressure
from producers.kafka import Acknowledged, RecordProducer, SendFailed
from producers.settled import Headers, Settled
from tests.kafka_faults.mock_cluster import CUT, Api, MockCluster, library
from tests.waiting import eventually

REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_LEADER = 7, 19, 6
OUT_OF_ORDER_SEQUENCE, DUPLICATE_SEQUENCE, PRODUCER_FENCED = 45, 46, 90


REBUILD_S = 0.2


@pytest.fixture(autouse=True)
def rebuilt_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken client is rebuilt at most once in so many seconds; really once a second."""
    monkeypatch.setattr("producers.kafka._REBUILD_S", REBUILD_S)


def log_of(cluster: MockCluster, topic: str, count: int) -> list[tuple[bytes | None, bytes | None, Headers | None]]:
    """The first ``count`` records of partition 0: value, key, headers."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    found: list[tuple[bytes | None, bytes | None, Headers | None]] = []

    def read() -> bool:
        while (message := consumer.poll(0.1)) is not None:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            found.append((message.value(), message.key(), message.headers()))  # type: ignore[arg-type]
        return len(found) >= count

    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        eventually(read, about=f"{count} records in {topic}")
        assert consumer.poll(0.1) is None, "more records than were expected"
    finally:
        consumer.close()
    return found


def settled(producer: RecordProducer, topic: str, *values: bytes) -> list[Settled]:
    got: list[Settled] = []
    for value in values:
        producer.send(topic, b"k", value, None, on_settled=got.append)
    assert producer.flush(15) == 0
    assert len(got) == len(values)
    return got


@pytest.mark.parametrize(
    "answers",
    [
        [REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT],
        [NOT_LEADER],
        [CUT, CUT],
    ],
    ids=["not enough replicas", "another leader", "the answer is lost"],
)
def test_what_kafka_may_do_later_is_tried_again_until_it_is_acknowledged_once_and_in_order(
    cluster: MockCluster, producer: RecordProducer, answers: Sequence[int]
) -> None:
    topic = cluster.make_topic("t")
    cluster.fail_next(Api.PRODUCE, *answers)
    got = settled(producer, topic, b"1", b"2", b"3")
    assert got == [Acknowledged(topic, 0, n) for n in range(3)]
    assert [value for value, *_ in log_of(cluster, topic, 3)] == [b"1", b"2", b"3"]


def test_a_broker_that_goes_away_delays_an_acknowledgement_and_loses_nothing(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.down()
    got: list[Settled] = []
    producer.send(topic, b"k", b"meanwhile", None, on_settled=got.append)
    assert producer.flush(0.3) == 1
    assert got == []
    cluster.up()
    assert producer.flush(15) == 0
    assert got == [Acknowledged(topic, 0, 1)]


def test_slow_round_trips_delay_an_acknowledgement_and_nothing_else(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.slow(400)
    assert settled(producer, topic, b"1", b"2") == [Acknowledged(topic, 0, 1), Acknowledged(topic, 0, 2)]


@pytest.mark.parametrize("name", ["TOPIC_AUTHORIZATION_FAILED", "MSG_SIZE_TOO_LARGE", "INVALID_RECORD"])
def test_what_kafka_refuses_for_good_is_rejected_and_the_next_record_goes_through(
    cluster: MockCluster, producer: RecordProducer, name: str
) -> None:
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.fail_next(
        Api.PRODUCE, {"TOPIC_AUTHORIZATION_FAILED": 29, "MSG_SIZE_TOO_LARGE": 10, "INVALID_RECORD": 87}[name]
    )
    (refused,) = settled(producer, topic, b"refused")
    assert isinstance(refused, SendFailed)
    assert (refused.kind, refused.error) == ("rejected", name)
    # the client asks for the topic anew before it believes that it may write again
    eventually(lambda: isinstance(settled(producer, topic, b"after")[0], Acknowledged))
    assert [value for value, *_ in log_of(cluster, topic, 2)] == [b"before", b"after"]


def test_a_record_that_kafka_already_has_is_acknowledged_even_where_it_no_longer_says_at_which_offset(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    """The acknowledgement used to carry None as its offset."""
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.fail_next(Api.PRODUCE, DUPLICATE_SEQUENCE)
    assert settled(producer, topic, b"again") == [Acknowledged(topic, 0, -1)]


def test_whether_a_fenced_producers_record_was_written_is_unknown(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.fail_next(Api.PRODUCE, PRODUCER_FENCED)
    (unknown,) = settled(producer, topic, b"perhaps")
    assert isinstance(unknown, SendFailed)
    assert (unknown.kind, unknown.error) == ("unknown", "PRODUCER_FENCED")


# ---- the client fails for good


def test_after_a_fatal_error_the_client_is_rebuilt_and_what_it_had_not_settled_is_sent_again_as_it_was(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    """They used to be handed back as unknown; a dead letter among them stopped its subscription."""
    topic = cluster.make_topic("t")
    settled(producer, topic, b"before")
    cluster.fail_next(Api.PRODUCE, OUT_OF_ORDER_SEQUENCE)
    headers = [("ce_id", b"7"), ("nothing", None), ("ce_id", b"again")]
    sends: list[tuple[bytes | None, bytes | None, Headers | None]] = [
        (b"value", b"k", headers),
        (None, b"tombstone", None),
        (b"", b"", [("x", b"")]),
        (b"no key", None, None),
    ]
    got: list[Settled] = []
    for value, key, sent_headers in sends:
        producer.send(topic, key, value, sent_headers, partition=0, on_settled=got.append)
    assert producer.flush(15) == 0
    assert got == [Acknowledged(topic, 0, n) for n in range(1, 5)]
    assert log_of(cluster, topic, 5)[1:] == sends
    settled(producer, topic, b"after")


def test_what_is_sent_again_keeps_the_order_of_the_sends_and_stands_before_anything_newer(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    """The client gives back what it has queued before what is under way: the other way round than it was sent."""
    topic = cluster.make_topic("t")
    settled(producer, topic, b"0")
    cluster.slow(300)
    got: list[Settled] = []
    count = 12_200
    broken = producer._client
    for number in range(1, count):
        producer.send(topic, b"k", b"%d" % number, None, on_settled=got.append)
        if number == 12_000:  # more than a batch: some are under way, the rest is queued
            eventually(lambda: cluster.requests(Api.PRODUCE) > 1, poll_s=0.005, about="records under way")
            break_for_good(broken.producer)
    assert producer._client is not broken, "it waited for the new client instead of failing"
    cluster.slow(0)
    assert producer.flush(15) == 0
    assert {type(one) for one in got} == {Acknowledged}
    values = [int(value or b"") for value, *_ in log_of(cluster, topic, max(a.offset for a in got) + 1)]  # type: ignore[union-attr]
    first = list(dict.fromkeys(values))
    assert first == list(range(count)), "a duplicate may come again, nothing comes late"


def test_a_client_that_breaks_again_is_not_rebuilt_without_end_and_what_breaks_it_twice_is_unknown(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    topic = cluster.make_topic("t")
    cluster.fail_next(Api.PRODUCE, OUT_OF_ORDER_SEQUENCE, OUT_OF_ORDER_SEQUENCE)
    first = producer._client
    (unknown,) = settled(producer, topic, b"twice")
    assert isinstance(unknown, SendFailed)
    assert (unknown.kind, unknown.error) == ("unknown", "OUT_OF_ORDER_SEQUENCE_NUMBER")
    second = producer._client
    assert second.born - first.born >= REBUILD_S
    with pytest.raises(Backpressure, match=r"failed \(.*\) and is being rebuilt; nothing was sent"):
        eventually(lambda: producer.send(topic, b"k", b"later", None, on_settled=lambda _: None, block_s=0))
    settled(producer, topic, b"after")
    assert producer._client.born - second.born >= REBUILD_S


def test_closing_a_producer_whose_client_broke_settles_everything_as_unknown_and_counts_it(
    cluster: MockCluster,
) -> None:
    cluster.down()
    producer = RecordProducer({"bootstrap.servers": cluster.bootstrap})
    got: list[Settled] = []
    for number in range(5):
        producer.send("t", b"k", b"%d" % number, None, on_settled=got.append)
    first = producer._client
    break_for_good(first.producer)
    eventually(lambda: first.fatal)
    assert producer.close(0.1) == 5
    assert [one.kind for one in got if isinstance(one, SendFailed)] == ["unknown"] * 5


def test_threads_that_send_while_it_breaks_again_and_again_have_every_taken_record_settled_once(
    cluster: MockCluster, producer: RecordProducer
) -> None:
    topic = cluster.make_topic("t")
    counts: dict[int, int] = {}
    ended = threading.Event()

    def keep_sending(first: int) -> None:
        number = first
        while not ended.is_set():
            number += 2

            def settle(_: Settled, number: int = number) -> None:
                counts[number] += 1

            counts[number] = 0
            producer.send(topic, b"k", b"v", None, on_settled=settle)

    threads = [threading.Thread(target=keep_sending, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = producer._client
        eventually(lambda: len(counts) > 100, poll_s=0.001)
        break_for_good(before.producer)
        eventually(lambda: producer._client is not before, poll_s=0.001)  # noqa: B023
    ended.set()
    for thread in threads:
        thread.join()
    assert producer.flush(15) == 0
    assert set(counts.values()) == {1}


def test_a_served_producer_settles_in_the_thread_that_serves_it_and_once_also_while_its_client_breaks(
    cluster: MockCluster, closing: Callable[[Callable[[], object]], None]
) -> None:
    producer = RecordProducer({"bootstrap.servers": cluster.bootstrap}, served=True)
    closing(lambda: producer.close(0))
    topic, here = cluster.make_topic("t"), threading.get_ident()
    told: list[tuple[int, int]] = []

    def send(number: int) -> None:
        producer.send(
            topic, b"k", b"%d" % number, None, on_settled=lambda _: told.append((number, threading.get_ident()))
        )

    def served(count: int) -> bool:
        producer.serve()
        return len(told) >= count

    for number in range(100):
        send(number)
    eventually(lambda: served(100), poll_s=0.001)
    assert {thread for _, thread in told} == {here}
    for number in range(100, 300):
        send(number)
        if number == 200:
            break_for_good(producer._client.producer)
    eventually(lambda: served(300), poll_s=0.001)
    assert sorted(number for number, _ in told) == list(range(300))


def test_what_nobody_serves_is_settled_all_the_same(
    cluster: MockCluster, closing: Callable[[Callable[[], object]], None]
) -> None:
    producer = RecordProducer({"bootstrap.servers": cluster.bootstrap}, served=True)
    closing(lambda: producer.close(0))
    got: list[Settled] = []
    producer.send(cluster.make_topic("t"), b"k", b"v", None, on_settled=got.append)
    eventually(lambda: got)
    assert isinstance(got[0], Acknowledged)


def break_for_good(producer: Producer) -> None:
    """By librdkafka's own test hook; what the client says from then on is real."""
    # its handle is the first member of the Python object
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    library().rd_kafka_test_fatal_error(handle, OUT_OF_ORDER_SEQUENCE, b"broken by a test")


# ---- callbacks that raise


def test_what_callbacks_raise_costs_no_record_its_settlement(
    cluster: MockCluster, closing: Callable[[Callable[[], object]], None]
) -> None:
    """Settlements, the error callback of the user's settings and the client's log: an exception in any of them inside
    the client would lose the reports behind it."""

    def bad(*_: object) -> None:
        raise SystemExit("a bad callback")

    producer = RecordProducer({"bootstrap.servers": cluster.bootstrap, "error_cb": bad, "debug": "msg"})
    closing(lambda: producer.close(0))
    topic = cluster.make_topic("t")
    got: list[Settled] = []
    cluster.fail_next(Api.PRODUCE, CUT, OUT_OF_ORDER_SEQUENCE)
    for number in range(300):
        producer.send(topic, b"k", b"%d" % number, None, on_settled=bad if number % 3 else got.append)
    cluster.down()
    cluster.up()
    assert producer.flush(15) == 0
    assert [type(one) for one in got] == [Acknowledged] * 100
