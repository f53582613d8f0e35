"""A new consumer is onboarded while live traffic runs: one file, one attach; the past in the background, then live."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consumers.pipeline import delivery_key
from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PAST = 1_500
RATE = 40
"""Calls a second of the account that both deliver to: the past takes some seconds, so that something happens in it."""


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    project = world.folder / "backbone.toml"
    project.write_text(
        project.read_text().replace('circuit_open = "1s"\n', f'circuit_open = "1s"\nrate = "{RATE}/s"\n')
    )
    try:
        yield world
    finally:
        world.close()


@contextmanager
def live_traffic(world: World) -> Iterator[None]:
    """Somebody publishes without a pause, until the block ends."""
    over = threading.Event()
    failed: list[BaseException] = []

    def publish() -> None:
        try:
            with world.publisher() as publisher:
                while not over.wait(0.1):  # some 50 a second: it is the attach that is tested
                    world.publish(5, publisher=publisher)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not failed


def said(world: World, *words: str) -> Any:
    return json.loads(world.backbone(*words, "--output", "json"))["data"]


def applied(world: World, subscription: str) -> list[tuple[str, int]]:
    """What the vendor has had from a subscription, in its order: the thing and the number of its change. One that came
    again under its key is there again."""
    numbers = {
        delivery_key("test", world.event, f"{thing}/{number}", subscription, "contact.upsert", ""): number
        for thing, its in list(world.published.items())
        for number in list(its)
    }
    return [(entity, numbers[trace]) for entity, trace in world.applications() if trace in numbers]


def every_event_once_and_in_order(world: World, subscription: str) -> None:
    """But for what was on its way when the worker was killed: that came again, under its key."""
    found = applied(world, subscription)
    first: dict[str, list[int]] = {}
    for thing, number in dict.fromkeys(found):
        first.setdefault(thing, []).append(number)
    assert first == world.published
    assert max(Counter(found).values()) <= 2


def test_a_new_consumer_catches_up_beside_live_traffic_through_a_crash_and_has_every_event_once_in_order(
    world: World,
) -> None:
    world.prepare()
    world.start_worker()
    world.publish(PAST)
    world.wait_until_applied()
    name = f"{world.name}-newcomer"
    with live_traffic(world):
        (world.folder / "subscriptions" / f"{name}.yaml").write_text(
            "description: A new team wants them too.\nowner: team-y\nconnection: hubspot\n"
            f"routes:\n  - event: {world.event}\n    action: contact.upsert\n"
            '    body: {plan: "{{ data.number }}"}\n'
        )
        plan = said(world, "subscription", "attach", name, "--from", "earliest")
        (effects,) = plan["effects"]
        assert effects["contracts"][0]["version"] == 1
        assert effects["permissions"]["known"]
        assert effects["catch_up"]["sent"] >= PAST
        assert len(effects["catch_up"]["by_event"][0]["examples"]) == 5
        assert effects["catch_up"]["seconds"] > 0
        change = said(world, "apply", plan["id"])
        hand_over = {place.split()[1]: until for place, until in change["after"]["hand_over"].items()}
        assert sum(hand_over.values()) >= effects["catch_up"]["offsets"]  # taken at apply, and traffic went on
        world.quick_sessions(name)

        killed = world.start_worker(name)
        eventually(lambda: applied(world, name), 60, poll_s=0.05, about="the first event of the past")
        killed.kill()
        assert killed.said("caught_up") == [], "it had caught up before it was killed"
        live = len(set(applied(world, world.subscription)))
        worker = world.start_worker(name)
        eventually(
            lambda: len(set(applied(world, world.subscription))) > live + 20, 60, poll_s=0.2, about="live deliveries"
        )
        status = eventually(
            lambda: (found := said(world, "status", name)["catch_up"])["handed_over_at"] and found, 120, poll_s=0.5,
            about="the hand-over",
        )  # fmt: skip
        assert (status["hand_over"], status["offsets_left"]) == (hand_over, 0)
    assert {line["partition"]: line["handed_over_at"] for line in worker.said("caught_up")} == hand_over
    total = sum(map(len, world.published.values()))
    for subscription in (world.subscription, name):
        eventually(
            lambda subscription=subscription: len(set(applied(world, subscription))) == total, 90, poll_s=0.2,
            about=f"every event of {subscription}",
        )  # fmt: skip
        every_event_once_and_in_order(world, subscription)
    (row,) = [one for one in said(world, "subscription", "list") if one["subscription"] == name]
    assert (row["catching_up"], row["handed_over_at"]) == (0, status["handed_over_at"])
