"""What one subscription suffers, another in the same process does not feel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.connector import connector_types
from tests.conftest import Stack
from tests.integration.world import Vendor, World, new_world
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def other(world: World) -> Iterator[Vendor]:
    """A second account, and a second subscription to the same events that brings them there."""
    fake = connector_types()["hubspot"].fake
    assert fake is not None
    vendor = Vendor(fake())
    file = world.folder / "backbone.toml"
    text = file.read_text().replace("[contexts.test.fakes]\n", f'[contexts.test.fakes]\nother = "{vendor.url}"\n')
    file.write_text(f'{text}\n[connections.other]\nconnector = "hubspot"\ncustom_properties = ["plan"]\n')
    first = world.folder / "subscriptions" / f"{world.subscription}.yaml"
    first.with_stem(f"{world.name}-other").write_text(
        first.read_text().replace("connection: hubspot", "connection: other")
    )
    world.prepare()
    world.backbone("subscription", "attach", f"{world.name}-other", "--from", "earliest", "--apply", "--yes")
    try:
        yield vendor
    finally:
        vendor.close()


def test_a_vendor_that_never_answers_holds_up_no_other_subscription(world: World, other: Vendor) -> None:
    other.misbehave({"kind": "stall", "times": 1000})
    world.start_worker(f"{world.name}-other")
    world.publish(300)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
    assert other.report()["calls"] > 0
    assert other.report()["contacts"] == {}


def test_a_subscription_that_stopped_holds_up_no_other_one(world: World, other: Vendor) -> None:
    other.misbehave({"kind": "status", "status": 400, "times": 1000})
    worker = world.start_worker(f"{world.name}-other")
    world.publish(60)
    eventually(lambda: worker.said("subscription_stopped"), 60, about="the stop of the other subscription")
    world.publish(60)
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()
