"""The local stack itself, with a real Kafka and a real registry of its own beside the one of the test run."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops import local
from ops.local.process import ProcessId, running
from ops.local.state import State
from schemas.errors import UnreachableError
from tests.conftest import ROOT, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ARTIFACTS = ROOT / ".backbone" / "artifacts"
BOTH: tuple[local.Part, ...] = ("kafka", "registry")
SCHEMA = b'{"schema": "{\\"type\\": \\"record\\", \\"name\\": \\"%b\\", \\"fields\\": []}"}'


@pytest.fixture
def folder(tmp_path: Path, stack: Stack) -> Iterator[Path]:
    """A folder for a stack; ``stack`` has seen to the programs."""
    yield tmp_path / "bb"
    local.down(tmp_path / "bb")


def up(folder: Path, *, parts: tuple[local.Part, ...] = BOTH) -> tuple[local.Started, list[str]]:
    heard: list[str] = []
    return local.up(folder, artifacts=ARTIFACTS, parts=parts, say=heard.append), heard


def processes(folder: Path) -> dict[str, ProcessId]:
    return State(folder).processes()


def register(address: local.Address, name: bytes) -> bytes:
    request = urllib.request.Request(
        f"{address.registry}/subjects/s-{name.decode()}/versions",
        data=SCHEMA % name,
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def write(address: local.Address, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": address.kafka})
    producer.produce("kept", value)
    assert producer.flush(20) == 0


def read_all(address: local.Address) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": address.kafka, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition("kept", 0, 0)])
    try:
        end = consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=20)[1]
        return [record.value() for record in consumer.consume(end, 20)]
    finally:
        consumer.close()


def test_what_was_written_outlives_kill_9_and_a_restart_and_the_ports_stay(folder: Path) -> None:
    first, _ = up(folder)
    assert first.started == BOTH
    admin = AdminClient({"bootstrap.servers": first.address.kafka})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
    write(first.address, b"one")
    identity = register(first.address, b"A")

    again, heard = up(folder)
    assert (again.started, again.address, heard) == ((), first.address, [])

    kafka = processes(folder)["kafka"]
    os.kill(kafka.pid, signal.SIGKILL)
    eventually(lambda: not running(kafka))
    assert {part.part: part.state for part in local.status(folder)}["kafka"] == "ended"
    restarted, heard = up(folder)
    assert restarted.started == ("kafka",)
    assert restarted.address == first.address
    assert f"kafka (pid {kafka.pid}) ended without 'backbone local down'" in heard[0]
    assert read_all(restarted.address) == [b"one"]
    write(restarted.address, b"two")

    before = processes(folder)
    assert local.down(folder) == ["kafka", "registry"]
    assert not any(running(process) for process in before.values())
    assert State(folder).address() is None
    assert {part.state for part in local.status(folder)} == {"down"}
    assert local.down(folder) == []

    third, _ = up(folder)
    assert third.address == first.address
    assert read_all(third.address) == [b"one", b"two"]
    assert register(third.address, b"A") == identity
    assert register(third.address, b"B") != identity

    registry = processes(folder)["registry"]
    os.kill(registry.pid, signal.SIGKILL)
    eventually(lambda: not running(registry))
    fourth, _ = up(folder)
    assert fourth.started == ("registry",)
    assert register(fourth.address, b"A") == identity

    (folder / "schemas" / "local").mkdir(parents=True)
    assert local.reset(folder) == ["kafka", "registry"]
    assert not (folder / "schemas" / "local").exists()
    assert not (folder / "local" / "kafka").exists()
    assert not (folder / "local" / "registry").exists()


def test_two_at_once_start_one_stack(folder: Path) -> None:
    answers: list[local.Started] = []
    threads = [threading.Thread(target=lambda: answers.append(up(folder, parts=("kafka",))[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.started for answer in answers) == [(), ("kafka",)]
    assert answers[0].address == answers[1].address


def test_a_start_up_cache_that_does_not_fit_does_not_stop_the_start(folder: Path, tmp_path: Path) -> None:
    (real,) = (found for found in ARTIFACTS.iterdir() if found.is_dir())
    programs = tmp_path / "artifacts" / real.name
    programs.mkdir(parents=True)
    (programs / "kafka").symlink_to(real / "kafka")
    (programs / "registry").symlink_to(real / "registry")
    caches = list(real.glob("*.aot"))
    for cache in caches:
        # the head is right, the rest is missing: what a full disk leaves
        (programs / cache.name).write_bytes(cache.read_bytes()[:1_000_000])
    started = local.up(folder, artifacts=tmp_path / "artifacts", parts=BOTH)
    assert started.started == BOTH


def test_a_part_that_cannot_start_is_explained_and_takes_the_others_back(folder: Path) -> None:
    (folder / "local" / "registry").mkdir(parents=True)
    (folder / "local" / "registry" / "schemas.mv.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UnreachableError) as caught:
        up(folder)
    message = str(caught.value)
    # it mostly ends by itself; now and then it hangs in its own shutdown until the wait is over
    assert "The registry ended while starting" in message or "The registry did not answer" in message
    assert "backbone local reset" in message
    assert "schemas.mv.db" in message
    assert "\tat " not in message
    assert processes(folder) == {}
    assert State(folder).address() is None


def test_what_a_killed_up_has_started_is_found_by_the_next_one(folder: Path) -> None:
    first, _ = up(folder, parts=("kafka",))
    # killed before it wrote the address: the processes are known all the same
    State(folder).put_address(None)
    second, _ = up(folder, parts=("kafka",))
    assert second.started == ()
    assert State(folder).address() == second.address == first.address


def test_a_training_run_that_a_killed_up_has_left_is_stopped(folder: Path) -> None:
    import sys

    from ops.local.process import spawn

    left = spawn([sys.executable, "-c", "import time; time.sleep(100)"], log=folder / "log", folder=folder.parent)
    State(folder).put_processes({"kafka-training": left})
    up(folder, parts=("kafka",))
    assert not running(left)
    assert set(processes(folder)) == {"kafka"}
