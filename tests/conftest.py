"""What the tests of every folder share: the locked environment, one Kafka and one registry a run, fresh topics."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ops import local
from ops.local.process import ProcessId, identify, running
from tests.lock import differences
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
STACKS = ROOT / ".backbone" / "test"
"""One folder for each test run, named by its process, so that runs beside each other do not meet."""


ORDER = (
    "simulation", "scenarios", "integration", "conformance", "ops", "kafka_faults", "faults", "bounds", "connectors",
    "consumers", "schemas", "producers", "",
)  # fmt: skip
"""The folders in the order in which they are run: first what takes long in one piece, or waits for others, last what
takes a moment, so that no worker of ``pytest -n`` ends long after the others. "" is this folder itself."""

# Some hundred processes of ours are started. Where Python is told to keep no bytecode, as in many images, each of them
# compiles all that it imports, a fifth of what it does at all, and pytest rewrites every test file for every worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A deadline per example is an assertion about time: on a machine with other work it fails what is right.
settings.register_profile("backbone", deadline=None)
settings.load_profile("backbone")


def pytest_configure(config: pytest.Config) -> None:
    """Stop before the first test when other versions are installed than the locked ones: pip falls back silently."""
    if found := differences(ROOT / "requirements-dev.lock"):
        raise pytest.UsageError(
            "The installed packages are not the locked ones: "
            + ", ".join(found[:5])
            + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            + ". Install them: make .venv (or: .venv/bin/pip install --require-hashes -r requirements-dev.lock)"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = folder_of(item.path)
        return ORDER.index(folder) if folder in ORDER else -1

    items.sort(key=place)


def folder_of(path: Path) -> str:
    """Below ``tests``; "" for this folder itself."""
    first, *more = path.relative_to(ROOT / "tests").parts
    return first if more else ""


@dataclass(frozen=True, slots=True)
class Stack:
    """The Kafka and the registry of this test run. ``folder`` is laid out like a project's ``.backbone`` folder:
    its ``local.json`` names both, its ``local/logs`` holds what they say."""

    bootstrap: str
    registry_url: str
    folder: Path


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A real Kafka and a real registry, started when the first test asks and stopped after the last one."""
    _sweep()
    mine = identify(os.getpid())
    assert mine is not None
    folder = STACKS / f"{mine.pid}_{mine.started}"
    try:
        started = local.up(folder, artifacts=ROOT / ".backbone" / "artifacts", parts=("kafka", "registry"))
        yield Stack(started.address.kafka, started.address.registry, folder)
    finally:
        local.down(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Stop what a killed test run has left behind."""
    for folder in STACKS.glob("*_*"):
        pid, _, started = folder.name.partition("_")
        if pid.isdigit() and not running(ProcessId(int(pid), started)):
            local.down(folder)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _documents_are_what_is_promised() -> Iterator[None]:
    """Every JSON document that a command prints in a test is held to its schema (``tests/outputs.py``)."""
    from ops.screen import Screen, plain_json
    from tests import outputs

    with pytest.MonkeyPatch.context() as patched:
        printed = Screen._document

        def checked(self: Screen, schema: str, data: Any, *, error: Mapping[str, Any] | None = None) -> None:
            printed(self, schema, data, error=error)
            if error is None and not self.fields:
                row = self.output == "ndjson"
                outputs.seen(f"backbone.{schema}/v1", json.loads(plain_json(data)), is_row=row)

        patched.setattr(Screen, "_document", checked)
        yield


_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    """A name no other test has: put it before topics, groups and subjects."""
    return f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}"


MakeTopic = Callable[..., str]


@pytest.fixture
def make_topic(stack: Stack, prefix: str) -> MakeTopic:
    """``make_topic("invoices", partitions=3, config={...})`` creates ``<prefix>.invoices`` and answers its full name.

    LogAppendTime like every topic of the backbone, unless ``config`` says otherwise. The topic can be used at once.
    """
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": stack.bootstrap})

    def make(name: str = "events", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = f"{prefix}.{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"
        settings = {"message.timestamp.type": "LogAppendTime", **(config or {})}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=settings)
        admin.create_topics([new])[topic].result(30)

        def led() -> bool:
            found = admin.list_topics(topic, timeout=10).topics[topic]
            return found.error is None and sum(p.leader >= 0 for p in found.partitions.values()) == partitions

        eventually(led, about=f"a leader for every partition of {topic}")
        return topic

    return make
