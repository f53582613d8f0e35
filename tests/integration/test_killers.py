"""Foreign producers write what kills decoders, through a real registry and broker: the workers live, every such record
is a dead letter with its bytes and its code, and all other events arrive."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.schemas.killers import KILLERS, foreign_schema

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        world.prepare()
        yield world
    finally:
        world.close()


def registered(world: World, subject: str, schema: str) -> bytes:
    """The id under which a registry takes a schema from a client that checks nothing (ours would)."""
    body = json.dumps({"schema": schema, "schemaType": "AVRO"}).encode()
    request = urllib.request.Request(
        f"{world.stack.registry_url}/subjects/{subject}/versions",
        body,
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(json.load(answer)["id"]).to_bytes(4, "big")


def test_killers_of_foreign_producers_become_dead_letters_and_everything_else_arrives(world: World) -> None:
    producer = Producer({"bootstrap.servers": world.stack.bootstrap, "message.max.bytes": 4_000_000})
    failed: list[object] = []
    codes: dict[bytes, str] = {}
    worker = world.start_worker()
    for number, killer in enumerate(KILLERS):
        schema = json.dumps(foreign_schema(killer, f"foreign.Strange{number}"))
        value = b"\0" + registered(world, f"{world.topic}-foreign.Strange{number}", schema) + killer.body
        codes[value] = killer.code
        producer.produce(
            world.topic, value, key=f"foreign-{number}".encode(), headers={"ce_type": world.event.encode()},
            on_delivery=lambda error, _: error and failed.append(error),
        )  # fmt: skip
        assert producer.flush(20) == 0
        world.publish(24)  # success in between: a row of failures alone would rightly stop the subscription
        if number % 3 == 2:
            world.wait_until_caught_up()
    world.wait_until_caught_up()
    assert not failed
    assert worker.process.poll() is None, "a killer has ended the worker"
    assert worker.said("subscription_stopped") == []
    assert {letter.value: letter.reason for letter in world.letters()} == codes
    assert {letter.outcome for letter in world.letters()} == {"undecodable"}
    assert world.contacts() == world.final_numbers()
    assert worker.stop() == 0
