"""A redrive and a replay that are killed half-way and go on: real workers, a ledger, and a vendor that writes down what
it was asked."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.integration.world import World, first_applications
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
REFUSED = {"kind": "partial", "fail": 1, "category": "VALIDATION_ERROR", "named": "trace"}


def begin(world: World, change: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "apply", change], env=world.environment, cwd=world.folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def killed_and_resumed(world: World, change: str, asked: set[tuple[str, str]], total: int) -> None:
    """Apply a change, kill -9 it when the vendor was asked for some of it and more waits in the inbox, and go on while
    that still waits: what was sent to the workers must not be sent once more."""

    def new() -> int:
        return len(set(world.applications()) - asked)

    def sent() -> int:
        return sum(world.ends(f"{world.subscription}.inbox").values())

    world.vendor.misbehave({"kind": "latency", "ms": 1000})
    process = begin(world, change)
    try:
        eventually(lambda: new() >= 3, 60, poll_s=0.1, about="the first events at the vendor")
    finally:
        process.kill()
        process.communicate(timeout=10)
    world.vendor.misbehave({"kind": "status", "status": 503, "times": 1_000_000})
    before = sent()
    assert new() < before < total
    resumed = begin(world, change)
    try:
        eventually(lambda: sent() > before, 60, poll_s=0.2, about="the rest to be sent")
        assert new() < before
        world.vendor.misbehave({"kind": "well"})
        words, _ = resumed.communicate(timeout=90)
    finally:
        resumed.kill()
    assert resumed.returncode == 0, words
    assert "It goes on" in words


def test_what_a_bad_version_sent_is_corrected_by_a_replay_that_is_killed_half_way(world: World) -> None:
    world.prepare()
    name = world.subscription
    world.start_worker("ledger")
    world.publish(40, keys=5)
    world.wait_until_applied()
    world.wait_until_caught_up()
    asked, place = set(world.applications()), world.committed()
    world.backbone("replay", name, "--from", "earliest", "--only", "missing", code=6)  # there is nothing to replay

    path = world.write_subscription()
    path.write_text(path.read_text().replace("{{ data.number }}", "v{{ data.number }}"))
    world.backbone("subscription", "attach", name, "--apply", "--yes")
    last = world.answer("replay", name, "--from", "earliest", "--only", "changed")
    assert "5 events delivered again" in " ".join(last["summary"])  # the last of each key: the others are superseded
    words = ("replay", name, "--from", "earliest", "--only", "changed", "--allow-stale", "--rate", "4/s")
    plan = world.answer(*words)
    assert "40 events delivered again" in " ".join(plan["summary"])
    killed_and_resumed(world, plan["id"], asked, 40)

    assert world.contacts() == {key: f"v{number}" for key, number in world.final_numbers().items()}
    counts = Counter(one for one in world.applications() if one not in asked)
    assert len(counts) == 40  # every event under a new key
    assert set(counts.values()) == {1}  # and none of them twice
    order = {entity: [trace for trace in traces if (entity, trace) in counts] for entity, traces in
             first_applications(world).items()}  # fmt: skip
    assert {len(traces) for traces in order.values()} == {8}
    assert world.committed() == place
    shown = world.answer("change", "show", plan["id"])
    assert (shown["state"], shown["after"]["sent"], shown["after"]["waiting"]) == ("applied", 40, 0)
    assert shown["after"]["outcomes"] == {"delivered": 40}
    receipts = world.answer("receipt", "list", "--change", plan["id"], "--limit", "100")
    assert {one["outcome"] for one in receipts} == {"delivered"}
    assert len(receipts) == 40


def test_a_redrive_that_is_killed_half_way_delivers_each_event_once_in_the_order_of_its_key(world: World) -> None:
    world.write_subscription("{on_dead_letter: park_key}")
    world.prepare()
    name = world.subscription
    world.start_worker("ledger")
    world.vendor.misbehave(REFUSED)
    world.publish(1, keys=1)
    eventually(world.letters, 60, about="the poisoned event set aside")
    world.publish(19, keys=1)
    eventually(lambda: len(world.letters()) == 20, 60, about="the events behind it parked")
    plan = world.answer("deadletter", "redrive", name, "--all", "--rate", "2/s")
    killed_and_resumed(world, plan["id"], set(world.applications()), 20)
    assert world.letters() == []
    assert world.contacts() == {f"{world.thing}-0": "20"}
    assert set(Counter(world.applications()).values()) == {1}
    assert len(world.applications()) == 20
