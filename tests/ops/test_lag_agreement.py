"""Fifty groups in random states on a real broker: what we say against what kafka-consumer-groups says.

Where the two mean different things the difference has a name: no commit (theirs: none), deleted records (theirs count
as lag what nobody can read any more), open transactions (theirs count them for everybody), a commit beyond the end
(theirs is negative).
"""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from ops.lag.cluster import Cluster, Isolation, Place
from ops.lag.measure import GroupLag, LagReader, PartitionLag, Subject
from ops.local.artifacts import artifacts
from ops.local.java import find_java
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import Broker
from tests.ops.test_lag_cluster import transactions
from tests.waiting import eventually

pytestmark = pytest.mark.integration
GROUPS = 50
Told = dict[tuple[str, str, int], tuple[int | None, int, int | None]]
"""By group, topic and partition: committed, end and lag."""


def told_by_kafka(bootstrap: str, groups: Sequence[str]) -> Told:
    """Kafka's own tool, run once for all of them."""
    java = find_java()
    found = artifacts(ROOT / ".backbone" / "artifacts", java, lambda _: None)
    run = subprocess.run(
        [
            str(java.program), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", found.kafka_class_path,
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", bootstrap,
            "--describe", "--offsets", "--timeout", "60000", *(word for name in groups for word in ("--group", name)),
        ],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    told: Told = {}
    for name, topic, number, *counts in re.findall(
        r"^(\S+) +(\S+) +(\d+) +(-|-?\d+) +(-|-?\d+) +(-|-?\d+) ", run.stdout, re.MULTILINE
    ):
        committed, end, lag = (None if count == "-" else int(count) for count in counts)
        assert end is not None
        told[name, topic, int(number)] = (committed, end, lag)
    assert told, run.stdout[-2000:] + run.stderr[-2000:]
    return told


def named(partition: PartitionLag) -> str:
    """Which case a partition is."""
    if partition.committed is None:
        return "no commit"
    if partition.committed < partition.log_start:
        return "deleted records"
    if partition.committed > partition.high_watermark:
        return "beyond the end"
    return "plain"


def agrees(ours: PartitionLag, theirs: tuple[int | None, int, int | None]) -> bool:
    committed, end, lag = theirs
    if (ours.committed, ours.high_watermark) != (committed, end):
        return False
    match named(ours):
        case "no commit":
            return lag is None and ours.offsets.lag == ours.end - ours.log_start
        case "deleted records":
            return lag == ours.offsets.lag + ours.offsets.lost
        case "beyond the end":
            return lag is not None and lag < 0 and ours.offsets.lag == 0
        case _:
            return lag is not None and ours.offsets.lag == max(0, lag - ours.uncommitted)


def test_fifty_random_states_agree_with_kafkas_own_tool_or_the_difference_has_a_name(
    stack: Stack, make_topic: MakeTopic, prefix: str
) -> None:
    broker, seed = Broker(stack), random.randrange(10**9)
    dice = random.Random(seed)
    topics = {
        "plain": make_topic("plain", 3),
        "transactional": make_topic("transactional", 1),
        "open": make_topic("open", 1),
        "deleted": make_topic("deleted", 2),
        "empty": make_topic("empty", 1),
    }
    for partition in range(3):
        broker.produce(topics["plain"], dice.randint(1, 60), partition=partition, linger_ms=5)
    transactions(broker, topics["transactional"], f"{prefix}-t", "".join(dice.choices("ca", k=4)))
    transactions(broker, topics["open"], f"{prefix}-o", "co")
    for partition in range(2):
        broker.produce(topics["deleted"], 40, partition=partition, linger_ms=5)
        place = TopicPartition(topics["deleted"], partition, dice.randint(5, 35))
        broker.admin.delete_records([place])[place].result()
    places = {name: broker.admin.list_topics(name, timeout=10).topics[name].partitions for name in topics.values()}
    ends = Cluster(broker.admin, broker.consumer).ends(
        [(name, number) for name, parts in places.items() for number in parts], "uncommitted"
    )
    groups = [f"{prefix}-{number}" for number in range(GROUPS)]
    with ExitStack() as members:
        for number, group in enumerate(groups):
            chosen = dice.sample(sorted(topics.values()), dice.randint(1, 3))
            for topic in chosen:
                commits = {
                    p: dice.choice((0, ends[topic, p], dice.randint(0, ends[topic, p]), ends[topic, p] + 3))
                    for p in places[topic]
                    # where a group with a member has not committed, Kafka's tool shows the partition too
                    if dice.random() < 0.7 and not (number % 10 == 0 and topic == chosen[0] and p == 0)
                }
                if commits:
                    broker.commit(group, topic, commits)
            if number % 10 == 0:  # with a member, two of them of the older protocol
                settings = {} if number % 30 else {"group_protocol": "classic"}
                member = broker.join(group, chosen[0], **settings)
                members.callback(member.close)
        # a group that nothing was committed for, and nobody is in, does not exist
        there = [group for group in groups if broker.commits(group) or groups.index(group) % 10 == 0]
        told = told_by_kafka(stack.bootstrap, there)
        reader = LagReader(Cluster(broker.admin, broker.consumer))
        measured = reader.measure([Subject(name=name) for name in there])
        committed = reader.measure([Subject(name=name, isolation="committed") for name in there])
    kinds = compared(measured, told, seed)
    assert {"plain", "no commit", "deleted records", "beyond the end"} <= kinds, f"seed {seed}: {kinds}"
    compared(committed, told, seed)
    waiting = [p for group in committed for p in group.partitions if p.topic == topics["open"]]
    assert all(p.uncommitted == 5 for p in waiting), "a reader of committed records does not wait for open ones"


def compared(measured: Sequence[GroupLag], told: Mapping[tuple[str, str, int], tuple[int | None, int, int | None]],
             seed: int) -> set[str]:  # fmt: skip
    """The cases that were seen, every partition that Kafka's tool tells being compared."""
    ours = {(group.name, p.topic, p.partition): p for group in measured for p in group.partitions}
    kinds = set()
    for place, theirs in told.items():
        assert place in ours, f"seed {seed}: {place} is not shown"
        assert agrees(ours[place], theirs), f"seed {seed}: {place}: {ours[place]} against {theirs}"
        kinds.add(named(ours[place]))
    # they show partitions with a commit or a member; of topics that a group reads we show the others too
    assert all(ours[place].committed is None for place in ours.keys() - told.keys()), f"seed {seed}"
    return kinds


class Overtaken(Cluster):
    """Whoever asks for the ends is overtaken by the group before anything else is asked."""

    def __init__(self, broker: Broker, committed: Mapping[Place, int]) -> None:
        super().__init__(broker.admin, broker.consumer)
        self._committed = committed

    def ends(self, places: Iterable[Place], isolation: Isolation) -> dict[Place, int]:
        found = super().ends(places, isolation)
        eventually(
            lambda: all(self._committed[place] > end for place, end in found.items()), 30, about="the group to move on"
        )
        return found


def test_lag_is_never_negative_and_no_commit_is_ahead_of_its_log_under_load(
    stack: Stack, make_topic: MakeTopic, prefix: str
) -> None:
    """Who asks for the end first sees a busy consumer ahead of it: kafka_exporter's #76 and #437."""
    broker, topic = Broker(stack), make_topic(partitions=2)
    done = threading.Event()
    committed: dict[Place, int] = dict.fromkeys([(topic, 0), (topic, 1)], 0)

    def publish() -> None:
        producer = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 1, "log_level": 0})
        sent = dict.fromkeys(committed, 0)
        while not done.is_set():
            for place in sent:
                if sent[place] - committed[place] < 200:  # so that the group is at the end all the while
                    producer.produce(topic, b"v", partition=place[1])
                    sent[place] += 1
            producer.poll(0.001)
        producer.flush(10)

    def consume(partition: int) -> None:
        consumer: Consumer = broker.consumer(group_id=prefix, fetch_wait_max_ms=1)
        consumer.assign([TopicPartition(topic, partition, 0)])
        while not done.is_set():
            messages = [message for message in consumer.consume(50, 0.05) if message.error() is None]
            if messages:
                consumer.commit(message=messages[-1], asynchronous=False)
                committed[topic, partition] = (messages[-1].offset() or 0) + 1
        consumer.close()

    threads = [threading.Thread(target=publish), *(threading.Thread(target=partial(consume, p)) for p in (0, 1))]
    for thread in threads:
        thread.start()
    reader = LagReader(Overtaken(broker, committed))
    try:
        eventually(lambda: min(committed.values()) > 0, 60, about="the group to move")
        for _ in range(5):
            (found,) = reader.measure([Subject(name=prefix, topics=frozenset({topic}))])
            for partition in found.partitions:
                assert partition.offsets.lag >= 0
                assert partition.age_s is None or partition.age_s >= 0
                assert partition.committed is None or partition.committed <= partition.end
    finally:
        done.set()
        for thread in threads:
            thread.join(15)


def test_a_time_behind_the_last_record_is_none_and_never_the_end(
    stack: Stack, make_topic: MakeTopic, prefix: str
) -> None:
    broker, topic = Broker(stack), make_topic()
    broker.produce(topic, 3)
    cluster = Cluster(broker.admin, broker.consumer)
    later = int((time.time() + 3600) * 1000)
    assert cluster.at_times({(topic, 0): later}, "committed") == {(topic, 0): (-1, -1)}
    broker.commit(prefix, topic, {0: 3})
    (found,) = LagReader(cluster).measure([Subject(name=prefix)])
    assert (found.lag, found.age_s, found.status) == (0, 0.0, "OK")
