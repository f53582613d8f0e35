"""``status`` and ``connection`` beside a real worker: what holds a subscription is named, and what a person says is
heard."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack
from tests.integration.world import Worker, World, new_world
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        world.write_subscription("{on_dead_letter: park_key}")
        world.prepare()
        yield world
    finally:
        world.close()
        if account(world)["state"] == "held":
            world.backbone("connection", "resume", "hubspot")  # the control topic is everybody's


def asked(world: World, *words: str) -> Any:
    return json.loads(world.backbone(*words, "--output", "json"))["data"]


def held_by(world: World) -> list[str]:
    (row,) = [row for row in asked(world, "status")["subscriptions"] if row["name"] == world.subscription]
    found: list[str] = row["held_by"]
    return found


def account(world: World) -> dict[str, Any]:
    (row,) = asked(world, "connection", "list")
    return dict(row)


def held_key(world: World, key: str) -> list[dict[str, Any]]:
    return [row for row in asked(world, "status", world.subscription)["held"] if row["key"] == key]


def parked_key(world: World) -> dict[str, Any] | None:
    """The parked key, once both of its later events wait behind it."""
    rows = asked(world, "status", world.subscription)["parked"]
    return dict(rows[0]) if rows and rows[0]["waiting"] == 2 else None


def refused(world: World, calls: int) -> bool:
    return int(world.vendor.report()["by_status"].get("500", 0)) >= calls


def metrics(worker: Worker) -> str:
    health = worker.said("worker_started")[0]["health"]
    with urllib.request.urlopen(f"{health}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_what_holds_a_subscription_is_named_and_a_person_ends_it(world: World) -> None:
    world.backbone("connection", "pause", "hubspot", "--reason", "INC-412")
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 30)
    world.publish(40)
    eventually(lambda: account(world)["workers"] == 1, 30, poll_s=1, about="the worker's view of the connection")
    row = account(world)
    assert (row["state"], row["reason"]) == ("held", "INC-412")
    assert world.subscription in row["subscriptions"]  # others of the test stack may be attached to one of this name
    assert "connection paused by a person" in held_by(world)
    assert "-> backbone -c test connection resume hubspot" in world.backbone("status")
    assert world.vendor.report()["calls"] == 0
    world.backbone("connection", "resume", "hubspot")
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()

    world.vendor.misbehave({"kind": "status", "status": 500, "times": 1000})
    with world.publisher() as publisher:
        for calls in range(1, 6):  # of keys of their own, so that each is a call at once and five fail in a row
            world.publish(1, keys=1000, publisher=publisher)
            eventually(partial(refused, world, calls), 30, about=f"{calls} refused calls")
    eventually(lambda: held_by(world)[:1] == ["open circuit"], 40, poll_s=1, about="the open circuit in status")
    shown = asked(world, "status", world.subscription)
    assert shown["connection"]["over_workers"]["state"] in ("open", "half_open")
    assert shown["dead_letters"]["open"] == 0
    (member,) = shown["members"]
    assert (member["state"], member["version"] is not None) == ("running", True)
    states = 'backbone_connection_state{backbone_connection_state="%s",connection="hubspot"} 1.0'
    assert any(states % state in metrics(worker) for state in ("open", "half_open"))
    world.vendor.reset()
    world.backbone("connection", "resume", "hubspot")
    world.wait_until_caught_up()

    world.vendor.misbehave({"kind": "partial", "fail": 1, "category": "CONFLICT", "times": 1000})
    world.publish(1, keys=1000)
    key = f"thing-{sum(map(len, world.published.values())) - 1}"
    held = eventually(lambda: held_key(world, key), 30, poll_s=1, about="the held key")
    assert (held[0]["event"], held[0]["why"]) == (world.event, "retry")
    assert held[0]["origin"].startswith(f"{world.topic}/")
    eventually(lambda: "held key" in held_by(world), 40, poll_s=1, about="a key that is held for more than a moment")
    said = world.backbone("status")
    assert f"{held[0]['origin']}, {world.event} of {key}: an attempt failed" in said
    world.vendor.reset()
    world.wait_until_caught_up(90)

    world.vendor.misbehave({"kind": "partial", "fail": 1, "category": "VALIDATION_ERROR"})
    with world.publisher() as publisher:
        for number in (1, 2, 3):  # of one key: the first is refused, the others wait for it
            data = {"thing_id": "thing-parked", "number": number}
            publisher.publish_data(world.contract, data, source="test", id=f"parked/{number}").result(30)
    eventually(lambda: "parked key" in held_by(world), 40, poll_s=1, about="the parked key in status")
    parked = eventually(lambda: parked_key(world), 20, poll_s=1, about="what waits behind the parked key")
    assert (parked["key"], parked["event"], parked["why"]) == ("thing-parked", world.event, "parked")
    assert parked["held_seconds"] is not None, "since its dead letter was written"
    assert "backbone_keys_parked" in metrics(worker)
    assert worker.stop() == 0
    assert account(world)["state"] == "unused", "it has said that it left"


def test_a_quota_that_is_used_up_is_named(world: World) -> None:
    settings = world.folder / "backbone.toml"
    settings.write_text(settings.read_text().replace("[connections.hubspot]", '[connections.hubspot]\nrate = "2/10s"'))
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 30)
    world.publish(60, keys=2)  # two lanes of thirty, so a call takes two at most
    eventually(lambda: "vendor quota" in held_by(world), 40, poll_s=1, about="the used quota in status")
    row = account(world)
    assert (row["state"], row["quota_used"] > 0.9) == ("running", True)
    assert "The rate of hubspot is used up (" in world.backbone("status", world.subscription)
    assert 'backbone_quota_used_ratio{connection="hubspot"}' in metrics(worker)
    assert world.vendor.report()["calls"] <= 12
