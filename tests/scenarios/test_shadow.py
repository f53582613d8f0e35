"""A bad version went out: the corrected file is shadowed, attached, and what was sent wrongly is sent again. Real
workers, a ledger, and a vendor that says what it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    """A world that keeps a ledger."""
    world = new_world(tmp_path, stack, prefix)
    world.thing = world.name
    project = world.folder / "backbone.toml"
    project.write_text(project.read_text().replace("[contexts.test]\n", '[contexts.test]\nledger = "sqlite:///l.db"\n'))
    try:
        yield world
        for worker in world.workers:
            worker.stop()  # the group of the ledger is shared: who was killed would stay in it for a while
    finally:
        world.close()


def said(world: World, *words: str, code: int = 0) -> Any:
    return json.loads(world.backbone(*words, "--output", "json", code=code))["data"]


def test_a_bad_version_is_corrected_by_a_shadow_an_attach_and_a_replay_of_the_same_events(world: World) -> None:
    world.prepare()
    name = world.subscription
    world.start_worker("ledger")
    world.publish(10, keys=5)
    world.wait_until_applied()
    world.wait_until_caught_up()
    path = world.write_subscription()
    good = path.read_text()
    path.write_text(good.replace("{{ data.number }}", "v{{ data.number }}"))
    world.backbone("subscription", "attach", name, "--apply", "--yes")
    world.publish(20, keys=5)
    wrong = {key: f"v{number}" for key, number in world.final_numbers().items()}
    eventually(lambda: world.contacts() == wrong, 60, about="the bad version at the vendor")
    world.wait_until_caught_up()
    asked, place = len(world.applications()), world.committed()

    path.write_text(good)
    words = ("subscription", "shadow", str(path), "--days", "7", "--max-different", "0.1%")
    found = said(world, *words, code=3)
    (by_event,) = found["by_event"]
    different = by_event["different"]
    assert 0 < different <= 20  # what the first version sent is as the corrected one would send it
    assert (by_event["same"], by_event["not_compared"]) == (30 - different, 0)
    (field,) = found["differences"]
    assert (field["place"], field["cause"], field["events"]) == ("body.plan", "changed", different)
    assert field["examples"][0]["was"] == f"v{field['examples'][0]['now']}"
    assert (len(world.applications()), world.committed()) == (asked, place)  # the vendor was not asked, nothing moved

    world.backbone("subscription", "attach", str(path), "--apply", "--yes")
    replay = ("replay", name, "--from", "earliest", "--only", "changed", "--allow-stale")
    plan = said(world, *replay)
    assert f"{different} events delivered again" in " ".join(plan["summary"])
    assert f"{30 - different} events left out: the body would be the one that was sent" in " ".join(plan["summary"])
    said(world, "apply", plan["id"])
    eventually(lambda: world.contacts() == world.final_numbers(), 60, about="the corrected values at the vendor")
    again = said(world, *words)  # ends with 0: what was sent last is what this version sends
    assert (again["compared"], again["different_percent"]) == (30, 0.0)
