"""Lag measured on a real broker, with kafka-consumer-groups as oracle where both mean the same."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition

from ops.lag.cluster import Answers, Cluster, Group
from ops.lag.measure import GroupLag, LagReader, Subject
from ops.local.artifacts import artifacts
from ops.local.java import find_java
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import Broker
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(stack: Stack) -> Broker:
    return Broker(stack)


@pytest.fixture
def reader(broker: Broker) -> LagReader:
    return fresh_reader(broker)


def fresh_reader(broker: Broker) -> LagReader:
    return LagReader(Cluster(broker.admin, broker.consumer))


def one(reader: LagReader, name: str, **settings: Any) -> GroupLag:
    (found,) = reader.measure([Subject(name=name, **settings)])
    assert found.problem is None
    return found


def told_by_kafka(broker: Broker, group: str) -> dict[int, tuple[int | None, int, int | None]]:
    """Committed, end and lag by partition, as kafka-consumer-groups prints them."""
    java = find_java()
    found = artifacts(ROOT / ".backbone" / "artifacts", java, lambda _: None)
    run = subprocess.run(
        [
            str(java.program), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", found.kafka_class_path,
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "--bootstrap-server", broker.bootstrap, "--group", group, "--describe", "--offsets",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    rows = re.findall(rf"^{re.escape(group)}\s+\S+\s+(\d+)\s+(\S+)\s+(\S+)\s+(\S+)", run.stdout, re.MULTILINE)
    assert rows, run.stdout + run.stderr
    number = {"-": None}
    return {int(p): (number.get(c, c) and int(c), int(e), number.get(lag, lag) and int(lag)) for p, c, e, lag in rows}


def test_offset_lag_is_what_kafka_consumer_groups_says(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic("orders", partitions=4)
    for partition, count in enumerate((20, 7, 12, 0)):
        broker.produce(topic, count, partition=partition, linger_ms=5)
    broker.commit(prefix, topic, {0: 5, 1: 7, 2: 0, 3: 0})
    found = one(reader, prefix)
    ours = {p.partition: (p.committed, p.end, p.offsets.lag) for p in found.partitions}
    assert ours == {0: (5, 20, 15), 1: (7, 7, 0), 2: (0, 12, 12), 3: (0, 0, 0)}
    assert ours == told_by_kafka(broker, prefix)
    assert (found.lag, found.lag_max, found.state, found.no_commit) == (27, 15, "empty", 0)


def test_a_group_that_never_committed_counts_everything_and_says_that_it_is_a_guess(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic("orders", partitions=2)
    broker.produce(topic, 9, partition=0)
    broker.produce(topic, 4, partition=1)
    broker.commit(prefix, topic, {0: 9})
    found = one(reader, prefix)
    assert (found.lag, found.no_commit, found.is_guess) == (4, 1, True)
    ours = one(reader, prefix, starts={(topic, 1): 3}, topics=frozenset({topic}))
    assert (ours.lag, ours.is_guess) == (1, False)


def test_records_deleted_before_they_were_read_are_told(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    broker.produce(topic, 30, linger_ms=5)
    broker.commit(prefix, topic, {0: 10})
    broker.admin.delete_records([TopicPartition(topic, 0, 25)])[TopicPartition(topic, 0)].result()
    found = one(reader, prefix)
    assert (found.lag, found.lost, found.status) == (5, 15, "DATA_LOSS")


def transactions(broker: Broker, topic: str, prefix: str, kinds: str) -> None:
    """c: a committed transaction of 5 records, a: an aborted one, o: one left open."""
    for number, kind in enumerate(kinds):
        producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{prefix}-{number}"})
        producer.init_transactions(10)
        producer.begin_transaction()
        for value in range(5):
            producer.produce(topic, str(value).encode(), partition=0)
        producer.flush(10)
        if kind == "c":
            producer.commit_transaction(10)
        elif kind == "a":
            producer.abort_transaction(10)


def test_a_reader_at_the_end_of_a_transactional_topic_has_lag_0(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    """``last offset + 1`` stands before the marker: lag 1 for ever. The position stands behind it."""
    topic = make_topic()
    transactions(broker, topic, prefix, "cac")
    reading = broker.consumer(group_id=prefix)
    reading.assign([TopicPartition(topic, 0, 0)])
    last, seen_end = -1, False
    while not seen_end:
        for message in reading.consume(50, 1.0):
            if message.error() is None:
                last = message.offset() or 0
            else:
                seen_end = True
    (position,) = reading.position([TopicPartition(topic, 0)])
    reading.close()
    broker.commit(prefix, topic, {0: position.offset})
    at_position = one(reader, prefix, isolation="committed")
    assert (at_position.lag, at_position.age_s, at_position.status) == (0, 0.0, "OK")
    broker.commit(prefix, topic, {0: last + 1})
    # a foreign group that commits so: one offset, but nothing to read, hence no age that grows and no alarm
    fresh = fresh_reader(broker)

    def settled() -> bool:
        behind_last = one(fresh, prefix, isolation="committed", slo_s=1)
        assert behind_last.lag == 1
        return (behind_last.age_s, behind_last.status) == (0.0, "OK")

    eventually(settled, about="an age of 0 once the marker is older than a second")


def test_an_open_transaction_is_no_lag_of_a_committed_reader_and_is_shown(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    transactions(broker, topic, prefix, "co")
    broker.commit(prefix, topic, {0: 6})
    stable = one(reader, prefix, isolation="committed")
    assert (stable.lag, stable.uncommitted) == (0, 5)
    assert one(reader, f"{prefix}", isolation="uncommitted").lag == 5


def close_to(found: GroupLag, since: float) -> bool:
    return found.age_s is not None and abs(found.age_s - (found.at - since)) <= 1.1


def test_the_age_is_that_of_the_first_record_not_yet_processed(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    now = time.time()
    for age in (90_000, 7_200, 600, 45, 3):
        broker.produce(topic, 1, at_ms=int((now - age) * 1000))
    for offset, age in enumerate((90_000, 7_200, 600, 45, 3)):
        broker.commit(prefix, topic, {0: offset})
        assert close_to(one(reader, prefix), now - age)
    broker.commit(prefix, topic, {0: 5})
    assert one(reader, prefix).age_s == 0.0


def test_the_age_of_a_record_inside_a_batch_is_right(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    """The broker answers a time with the first record of a batch: bisecting alone says the age of the next batch."""
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    now = time.time()
    broker.produce(topic, 10, at_ms=int((now - 3_000) * 1000), linger_ms=200)
    broker.produce(topic, 10, at_ms=int((now - 1_000) * 1000), linger_ms=200)
    admin_reader = fresh_reader(broker)
    broker.commit(prefix, topic, {0: 4})
    assert close_to(one(admin_reader, prefix), now - 3_000)
    broker.commit(prefix, topic, {0: 14})
    assert close_to(one(admin_reader, prefix), now - 1_000)


def test_the_age_is_right_where_producers_stamp_records_in_the_past(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    now = time.time()
    for age in (100, 50_000, 90, 80):
        broker.produce(topic, 1, at_ms=int((now - age) * 1000))
    broker.commit(prefix, topic, {0: 1})
    assert close_to(one(reader, prefix), now - 50_000)


def test_an_unchanged_position_is_not_searched_again(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic()
    began = time.time()
    broker.produce(topic, 3)
    broker.commit(prefix, topic, {0: 1})
    searches: list[dict[Any, int]] = []

    class Counted(Cluster):
        def at_times(self, times: Any, isolation: Any) -> Any:
            searches.append(dict(times))
            return super().at_times(times, isolation)

    reader = LagReader(Counted(broker.admin, broker.consumer))
    assert close_to(one(reader, prefix), began)
    count = len(searches)
    assert count > 0
    assert close_to(one(reader, prefix), began)
    assert len(searches) == count


def test_many_groups_on_one_partition_are_measured_together(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    now = time.time()
    for number in range(60):
        broker.produce(topic, 1, at_ms=int((now - 600 + number) * 1000))
    for number in range(60):
        broker.commit(f"{prefix}-{number}", topic, {0: number})
    found = reader.measure([Subject(name=f"{prefix}-{number}") for number in range(60)])
    assert [group.lag for group in found] == [60 - number for number in range(60)]
    assert all(close_to(group, now - 600 + number) for number, group in enumerate(found))


def test_a_group_that_does_not_exist_is_dead_and_a_deleted_topic_is_named(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    assert one(reader, f"{prefix}-nobody").state == "dead"
    gone = one(reader, f"{prefix}-nobody", topics=frozenset({f"{prefix}.nothing"}))
    assert gone.missing == (f"{prefix}.nothing",)


def test_members_are_shown_with_what_they_read(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str,
) -> None:  # fmt: skip
    topic = make_topic(partitions=2)
    member = broker.join(prefix, topic, client_id="worker-7")

    def both() -> GroupLag | None:
        member.poll(0.1)
        found = one(reader, prefix)
        return found if len(found.partitions) == 2 and found.state == "stable" else None

    found = eventually(both, about="both partitions at the one member")
    assert found is not None
    member.close()
    assert [m.client_id for m in found.members] == ["worker-7"]
    assert {p.partition for p in found.partitions} == {0, 1}
    assert all(p.member is not None and p.member.client_id == "worker-7" for p in found.partitions)


def test_positions_move_and_so_do_trend_and_eta(
    broker: Broker, reader: LagReader, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    broker.produce(topic, 40, linger_ms=5)
    broker.commit(prefix, topic, {0: 10})
    first = one(reader, prefix)
    assert first.trend is None
    assert first.eta_s is None
    broker.commit(prefix, topic, {0: 30})
    second = one(reader, prefix)
    assert second.trend is not None
    assert second.trend.consumed_per_s > 0
    assert second.eta_s is not None
    assert second.eta_s == pytest.approx(10 / second.trend.consumed_per_s)
    assert second.status == "OK"
    broker.commit(prefix, topic, {0: 5})
    assert one(reader, prefix).status == "REWOUND"


def test_a_group_whose_coordinator_is_moving_is_not_asked_for_its_positions(broker: Broker, prefix: str) -> None:
    """librdkafka 2.16 ended the whole process (SIGSEGV) when it was: ``status`` right after a broker's start."""
    loading = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    asked: list[str] = []

    class Moving(Cluster):
        def groups(self, names: Iterable[str]) -> Answers[Group]:
            found = {name: Group(name, "empty") for name in names if name != prefix}
            return Answers(found, {prefix: loading})

        def _commits(self, names: Any, answers: Any, *, require_stable: bool) -> list[str]:
            asked.extend(names)
            return super()._commits(names, answers, require_stable=require_stable)

    (moving, other) = LagReader(Moving(broker.admin, broker.consumer)).measure(
        [Subject(name=prefix), Subject(name=f"{prefix}-other")]
    )
    assert asked == [f"{prefix}-other"]
    assert moving.problem is loading
    assert other.problem is None
