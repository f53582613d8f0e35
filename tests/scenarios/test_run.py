"""``backbone run`` as a person meets it: a port that is taken, a cluster that dies, leaving in a hurry."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import local
from ops.local.state import State
from tests.conftest import ROOT, Stack
from tests.integration.world import Worker, World, new_world
from tests.waiting import eventually

pytestmark = pytest.mark.integration
ARTIFACTS = ROOT / ".backbone" / "artifacts"


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    world = new_world(tmp_path, stack, prefix)
    try:
        world.prepare()
        yield world
    finally:
        world.close()


def heard(worker: Worker) -> str:
    return worker.log.read_text() if worker.log.exists() else ""


def test_a_second_signal_leaves_at_once_and_what_was_in_flight_is_made_again(world: World) -> None:
    """It went unheard: a person at a terminal waited for a stalled vendor without a word."""
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 30)
    world.vendor.misbehave({"kind": "stall", "times": 100})
    world.publish(5)
    eventually(lambda: world.vendor.report()["calls"] >= 1, 30)
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: "Leaving: what is in flight ends first" in heard(worker), 10)
    assert worker.process.poll() is None
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(5) == 130
    assert "is made again" in heard(worker)
    assert "Traceback" not in heard(worker)
    world.vendor.reset()
    world.start_worker()
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()


def test_a_port_that_is_taken_is_said(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "run", world.subscription, "--health", address],
            env=world.environment, cwd=world.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 6
    assert f"cannot be served on {address}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def own_world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    """A world on a Kafka of its own, which may be killed; the programs are those of ``stack``."""
    folder = tmp_path / "cluster"
    started = local.up(folder, artifacts=ARTIFACTS, parts=("kafka", "registry"))
    world = new_world(tmp_path, Stack(started.address.kafka, started.address.registry, folder), prefix)
    try:
        world.backbone("schema", "register", "--apply", "--yes")
        world.backbone("subscription", "attach", world.subscription, "--from", "earliest", "--apply", "--yes")
        yield world
    finally:
        world.close()
        local.down(folder)


def test_a_worker_outlives_its_kafka_by_itself_and_loses_nothing(own_world: World) -> None:
    """Kafka is killed while calls are out, so that their outcomes are known only when nobody takes the commit."""
    world = own_world
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 30)
    world.vendor.misbehave({"kind": "late", "seconds": 2, "times": 2})
    world.publish(200)
    eventually(lambda: world.vendor.report()["calls"] >= 2, 30)
    os.kill(State(world.stack.folder).processes()["kafka"].pid, signal.SIGKILL)
    world.wait_until_applied()
    local.up(world.stack.folder, artifacts=ARTIFACTS, parts=("kafka", "registry"))
    world.wait_until_caught_up(90)
    world.publish(50)
    world.wait_until_caught_up(90)
    assert world.contacts() == world.final_numbers()
    assert len([line for line in worker.lines() if line.get("logger", "").startswith("kafka")]) < 50
    assert worker.stop() == 0
