"""What a service is promised of a publish (G1, G2), on a cluster that fails as it is told."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition

from producers import EventRejected, Publisher, PublishUnknown
from producers.kafka import RecordProducer
from schemas.codec import Encoder
from schemas.contract import Contract
from schemas.registry import open_registry
from tests.kafka_faults.mock_cluster import Api, MockCluster
from tests.producers.events import contract_on, note, note_model
from tests.waiting import eventually

NOT_ENOUGH_REPLICAS, TOPIC_CLOSED, PRODUCER_FENCED = 19, 29, 90


@pytest.fixture
def contract(cluster: MockCluster) -> Contract:
    return contract_on(cluster.make_topic("notes"))


@pytest.fixture
def publisher(producer: RecordProducer, contract: Contract) -> Publisher:
    registry = open_registry(f"memory://{uuid.uuid4()}")
    registry.register(contract.subject, contract.text)
    return Publisher(producer, Encoder(registry))


def ids_in(cluster: MockCluster, topic: str) -> list[str]:
    """The event ids of everything in partition 0."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    found: list[str] = []

    def read() -> bool:
        end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
        while (message := consumer.poll(0.1)) is not None:
            found.append((dict(message.headers() or [])["ce_id"] or b"").decode())
        return len(found) >= end

    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        eventually(read)
    finally:
        consumer.close()
    return found


def test_a_publish_is_acknowledged_when_kafka_has_confirmed_it_and_not_before(
    cluster: MockCluster, publisher: Publisher, contract: Contract
) -> None:
    model = note_model(contract)
    publisher.publish(model(**note()), source="test", id="first").result(15)
    cluster.down()
    waiting = publisher.publish(model(**note()), source="test", id="second")
    assert publisher.flush(0.3) == 1
    assert not waiting.done()
    cluster.fail_next(Api.PRODUCE, NOT_ENOUGH_REPLICAS)
    cluster.up()
    assert waiting.result(15).offset == 1
    assert ids_in(cluster, contract.topic) == ["first", "second"]


def test_a_publish_is_acknowledged_rejected_or_unknown_and_an_unknown_one_is_the_same_event_when_it_is_sent_again(
    cluster: MockCluster, publisher: Publisher, contract: Contract
) -> None:
    model = note_model(contract)
    publisher.publish(model(**note()), source="test", id="acknowledged").result(15)

    cluster.fail_next(Api.PRODUCE, PRODUCER_FENCED)
    with pytest.raises(PublishUnknown, match="Publish it again with the same id unknown") as unknown:
        publisher.publish(model(**note()), source="test", id="unknown").result(15)
    again = publisher.publish(model(**note()), source="test", id=unknown.value.id).result(15)
    assert again.id == "unknown"

    cluster.fail_next(Api.PRODUCE, TOPIC_CLOSED)
    with pytest.raises(EventRejected, match="is not permitted"):
        publisher.publish(model(**note()), source="test", id="rejected").result(15)
    assert ids_in(cluster, contract.topic) == ["acknowledged", "unknown"]
