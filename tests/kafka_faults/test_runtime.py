"""A whole subscription on a cluster that fails as it is told: what the event loop's side does with what the Kafka
thread says, and when it fails itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from connectors.connection import Connection
from connectors.connector import Delivered, Delivery, Outcome
from consumers import facts
from consumers.runtime import Runtime
from consumers.work import Limits
from producers.kafka import RecordProducer
from schemas.codec import SchemaWanted
from schemas.event import Record
from tests.consumers.flow_rig import JsonPipeline, subscription
from tests.kafka_faults.member import committed, from_the_beginning
from tests.kafka_faults.mock_cluster import Api, MockCluster
from tests.waiting import eventually_async

COUNT = 200
GROUP = "orders"


class Vendor:
    """Takes everything and remembers it in the order in which it came."""

    pause_until = 0.0

    def __init__(self) -> None:
        self.applied: list[int] = []

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        self.applied += [one.body["n"] for one in batch]  # type: ignore[misc]
        return [Delivered()] * len(batch)

    async def close(self) -> None:
        return


@pytest.fixture
def topic(cluster: MockCluster, producer: RecordProducer) -> str:
    for name in ("t", "orders.inbox", "orders.dead"):
        cluster.make_topic(name)
    for number in range(COUNT):
        value = json.dumps({"entity": f"e{number % 7}", "n": number}).encode()
        producer.send("t", b"%d" % (number % 7), value, None, partition=0, on_settled=lambda _: None)
    assert producer.flush(15) == 0
    return "t"


@asynccontextmanager
async def running(
    cluster: MockCluster,
    producer: RecordProducer,
    vendor: Vendor,
    stops: list[str],
    observer: facts.Observer = lambda _: None,
    pipeline: JsonPipeline | None = None,
    zombie_after_s: float = 10.0,
) -> AsyncIterator[Runtime]:
    """Attached to the topic ``t``, without receipts, committing ten times a second."""

    def no_schema(wanted: SchemaWanted) -> None:
        raise AssertionError(f"no schema is wanted here: {wanted}")

    sub = replace(subscription(batch_max=10), contracts={"shop.Ordered": SimpleNamespace(topic="t")})
    runtime = Runtime(
        subscription=sub,
        pipeline=pipeline or JsonPipeline(),  # type: ignore[arg-type]
        connection=Connection("crm", sub.connector, vendor, observer=lambda *_: None),
        producer=producer,
        receipts=None,
        kafka={"bootstrap.servers": cluster.bootstrap, "reconnect.backoff.max.ms": 100},
        resolve=from_the_beginning,
        started=lambda _: None,
        load_schema=no_schema,
        stopped=stops.append,
        caught_up=lambda _: None,
        observer=observer,
        limits=Limits(commit_every_s=0.1, drain_s=0.5, zombie_after_s=zombie_after_s),
    )
    runtime.start()
    try:
        yield runtime
    finally:
        assert await runtime.close("the test is over")


async def test_everything_is_delivered_and_committed_though_the_cluster_goes_away_and_refuses(
    cluster: MockCluster, producer: RecordProducer, topic: str
) -> None:
    vendor, stops, told = Vendor(), [], []
    cluster.fail_next(Api.OFFSET_COMMIT, 0, 14, 113, 16)
    async with running(cluster, producer, vendor, stops, told.append):
        await eventually_async(lambda: len(vendor.applied) > 0)
        cluster.down()
        cluster.up()
        await eventually_async(lambda: len(vendor.applied) == COUNT)
        await eventually_async(lambda: committed(cluster, (topic, 0), group=GROUP) == {(topic, 0): COUNT})
    assert sorted(vendor.applied) == list(range(COUNT))
    assert stops == []
    assert [fact.reason for fact in told if isinstance(fact, facts.CommitFailed)] == ["STALE_MEMBER_EPOCH"]


async def test_a_process_in_doubt_asks_with_a_commit_before_it_calls_and_calls_nobody_when_it_is_no_member(
    cluster: MockCluster, producer: RecordProducer, topic: str
) -> None:
    """The zombie guard, as if the last poll were always too old."""
    vendor, stops = Vendor(), []
    applied_by_then: list[int] = []

    def learns(fact: facts.Fact) -> None:
        if isinstance(fact, facts.CommitFailed):
            assert fact.reason == "UNKNOWN_MEMBER_ID"
            applied_by_then.append(len(vendor.applied))

    cluster.fail_next(Api.OFFSET_COMMIT, 0, 25)  # the start is committed, the first question is refused
    async with running(cluster, producer, vendor, stops, learns, zombie_after_s=-1.0):
        await eventually_async(lambda: len(vendor.applied) == COUNT)
    assert applied_by_then == [0]
    assert sorted(vendor.applied) == list(range(COUNT))
    assert stops == []


@pytest.mark.parametrize("where", ["observer", "half of a handover"])
async def test_an_error_of_our_own_stops_the_subscription_and_passes_nothing_over(
    cluster: MockCluster, producer: RecordProducer, topic: str, where: str
) -> None:
    """An exception on the loop was logged, and the rest of the handover passed over by the next commit."""

    class Fails(JsonPipeline):
        def route(self, record: Record) -> bool:
            if where != "observer" and record.offset == COUNT // 2:
                raise ZeroDivisionError
            return super().route(record)

    def fails(fact: facts.Fact) -> None:
        if where == "observer" and isinstance(fact, facts.DeliverySettled):
            raise ZeroDivisionError

    vendor, stops = Vendor(), []
    async with running(cluster, producer, vendor, stops, fails, Fails()):
        await eventually_async(lambda: stops)
        producer.send(topic, b"0", b'{"entity": "e0", "n": 200}', None, partition=0, on_settled=lambda _: None)
        await eventually_async(lambda: producer.flush(0) == 0)
    assert stops == ["an error of the backbone itself (ZeroDivisionError); see the log"]
    assert committed(cluster, (topic, 0), group=GROUP)[topic, 0] <= len(vendor.applied)
    async with running(cluster, producer, vendor, stops):
        await eventually_async(lambda: len(set(vendor.applied)) == COUNT + 1)
