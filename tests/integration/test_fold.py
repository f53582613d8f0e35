"""``attach --fold``: the past of a topic becomes one delivery an entity, by real workers that are killed meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from consumers.receipts import SETTLED, TOPIC
from schemas.codec import Decoder
from schemas.contract import engine_contracts
from schemas.event import Event, Record
from schemas.registry import open_registry
from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

EVENTS, ENTITIES = 6_000, 300


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        world.write_subscription("{send: latest}")
        world.backbone("schema", "register", "--apply", "--yes")
        yield world
    finally:
        world.close()


def attach(world: World) -> None:
    world.backbone("subscription", "attach", world.subscription, "--from", "earliest", "--fold", "--apply", "--yes")
    world.quick_sessions()


def receipts(world: World) -> dict[str, list[dict[str, Any]]]:
    """Every receipt of the subscription, by event id."""
    registry = open_registry(world.stack.registry_url)
    decoder = Decoder(registry, contracts=engine_contracts())
    ends = world.ends(TOPIC)
    found: dict[str, list[dict[str, Any]]] = {}
    consumer = Consumer({"bootstrap.servers": world.stack.bootstrap, "group.id": f"{world.name}-receipts"})
    try:
        consumer.assign([TopicPartition(*place, 0) for place, end in ends.items() if end])
        left = sum(ends.values())
        while left > 0:
            messages = consumer.consume(min(left, 5_000), 5)
            left -= len(messages)
            for m in messages:
                record = Record(TOPIC, m.partition(), m.offset(), m.key(), m.value(), tuple(m.headers() or ()), 0)
                if dict(record.headers).get("ce_type") != SETTLED.encode() or world.name.encode() not in record.value:
                    continue
                event = decoder.decode(record)
                while not isinstance(event, Event):
                    decoder.load(event)  # type: ignore[arg-type]  # the schema that is wanted
                    event = decoder.decode(record)
                if event.data["subscription"] == world.subscription:
                    found.setdefault(event.data["event_id"], []).append(dict(event.data))
    finally:
        consumer.close()
    return found


def test_killed_while_it_folds_and_while_it_sends_the_past_still_arrives_once_an_entity_and_before_what_is_live(
    world: World,
) -> None:
    world.publish(EVENTS, keys=ENTITIES)
    attach(world)
    folding = world.start_worker()
    eventually(lambda: folding.said("past_folded"), 90, poll_s=0.02, about="a folded partition")
    folding.kill()
    assert world.vendor.report()["applied"] == 0 or folding.said("past_sent") == []

    world.vendor.reset()
    world.vendor.misbehave({"kind": "stall_after_effect", "times": 10})
    sending = world.start_worker()
    eventually(lambda: world.vendor.report()["applied"] >= 100, 90, poll_s=0.05, about="a call of folded deliveries")
    sending.kill()
    assert set(world.committed().values()) <= {0}, "nothing is committed before all of it has its end"
    begun = dict(world.applications())

    world.vendor.reset()
    past = world.final_numbers()
    world.publish(ENTITIES, keys=ENTITIES)  # what is live comes meanwhile
    last = world.start_worker()
    world.wait_until_caught_up(150)
    assert last.stop() == 0
    applied = world.applications()
    by_entity: dict[str, list[str]] = {}
    for entity, trace in applied:
        by_entity.setdefault(entity, []).append(trace)
    assert {len(traces) for traces in by_entity.values()} == {2}, "the past as one, and then the live event"
    assert {entity: traces[0] for entity, traces in by_entity.items() if entity in begun} == begun, "the same keys"
    assert world.contacts() == world.final_numbers()
    folded = last.said("past_folded")
    assert sum(line["events"] for line in folded) == EVENTS
    assert sum(line["deliveries"] for line in folded) == ENTITIES
    assert sum(line["unfolded"] for line in last.said("past_sent")) == 0

    told = receipts(world)
    assert len(told) == EVENTS + ENTITIES
    assert {len(each) for each in told.values()} == {1}
    outcomes = Counter((each[0]["outcome"], each[0]["reason"]) for each in told.values())
    assert outcomes == {("delivered", None): 2 * ENTITIES, ("skipped", "merged"): EVENTS - ENTITIES}
    carriers = {f"{entity}/{number}" for entity, number in past.items()}
    assert {each[0]["merged_into"] for each in told.values()} - {None} == carriers
    assert all(told[carrier][0]["outcome"] == "delivered" for carrier in carriers)


def test_a_folded_delivery_that_is_rejected_is_sent_event_by_event_and_calls_are_full(world: World) -> None:
    world.publish(1_000, keys=100)
    attach(world)
    world.vendor.misbehave({"kind": "partial", "fail": 1})
    worker = world.start_worker()
    world.wait_until_caught_up(120)
    assert worker.stop() == 0
    assert world.contacts() == world.final_numbers()
    assert sum(line["unfolded"] for line in worker.said("past_sent")) == 1
    applications = Counter(entity for entity, _ in world.applications())
    assert sorted(applications.values())[-2:] == [1, 10], "one entity's ten events, and every other one as one"
    assert world.vendor.report()["calls"] == 1 + 10
    assert world.letters() == []
