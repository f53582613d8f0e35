"""The Kafka and the registry that all other integration tests stand on."""

from __future__ import annotations

import json
import urllib.request

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.conftest import MakeTopic, Stack

pytestmark = pytest.mark.integration


def test_a_record_comes_back_as_it_was_sent(stack: Stack, make_topic: MakeTopic) -> None:
    topic = make_topic("echo", partitions=3)
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    producer.produce(topic, b"value", b"key", partition=2)
    assert producer.flush(15) == 0
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 2, 0)])
    try:
        record = consumer.poll(15)
        assert record is not None
        assert (record.key(), record.value(), record.error()) == (b"key", b"value", None)
    finally:
        consumer.close()


def test_the_registry_refuses_incompatible_schemas_from_the_start(stack: Stack) -> None:
    with urllib.request.urlopen(f"{stack.registry_url}/config", timeout=10) as answer:
        assert json.load(answer)["compatibilityLevel"] == "FULL_TRANSITIVE"


def test_every_test_gets_topics_of_its_own(make_topic: MakeTopic) -> None:
    assert make_topic("same").endswith(".same")
