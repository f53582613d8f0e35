"""A small company of its own for one test: a project directory, a HubSpot fake, real workers as child processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from connectors.connector import Fake, connector_types
from consumers.deadletter import DeadLetter, parse_letter
from consumers.pipeline import delivery_key
from producers import KafkaPublisher, PublisherSettings
from schemas.contract import Contract, load_contracts
from schemas.event import Record
from tests.conftest import Stack
from tests.ops.broker import backbone as typed
from tests.waiting import eventually

PARTITIONS = 6


class Vendor:
    """A fake vendor on a thread of its own, so that the test may block."""

    def __init__(self, fake: Fake) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._fake = fake
        self.url = self._on_loop(fake.start())

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def report(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/__fake__/report", timeout=20) as answer:
            return dict(json.load(answer))

    def misbehave(self, *orders: Mapping[str, Any]) -> None:
        request = urllib.request.Request(f"{self.url}/__fake__/misbehave", json.dumps(orders).encode(), method="POST")
        urllib.request.urlopen(request, timeout=20).read()

    def reset(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/__fake__/reset", b"", method="POST"), timeout=20)

    def close(self) -> None:
        self._on_loop(self._fake.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@dataclass
class Worker:
    """``backbone run`` as a child process, its log in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes where it stands into the log
            raise

    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event") == event]


@dataclass
class World:
    """``name`` is unique: the domain of the events, the prefix of topics and subscriptions."""

    name: str
    folder: Path
    stack: Stack
    vendor: Vendor
    workers: list[Worker] = field(default_factory=list)
    registry_url: str = ""
    protocol: str = "consumer"
    published: dict[str, list[int]] = field(default_factory=dict)
    thing: str = "thing"
    """what its things are called: a ledger holds the receipts of every test of the stack"""

    @property
    def topic(self) -> str:
        return f"{self.name}.things"

    @property
    def event(self) -> str:
        return f"{self.name}.ThingChanged"

    @property
    def subscription(self) -> str:
        return f"{self.name}-crm"

    @cached_property
    def contract(self) -> Contract:
        return load_contracts(self.folder / "events")[self.event]

    def write(self) -> None:
        """The project's files."""
        (self.folder / "events" / self.name).mkdir(parents=True)
        (self.folder / "subscriptions").mkdir()
        schema = {
            "type": "record", "name": "ThingChanged", "namespace": self.name, "doc": "A thing was changed.",
            "backbone": {
                "topic": self.topic, "key": "thing_id", "entity": "thing_id", "owner": "team-x", "contact": "#x",
                "status": "live", "freshness_slo": "60s", "retention": "7d",
            },
            "fields": [
                {"name": "thing_id", "type": "string", "doc": "Which thing.", "examples": ["t1"]},
                {"name": "number", "type": "long", "doc": "Grows with every change of a thing.", "examples": [1]},
            ],
        }  # fmt: skip
        (self.folder / "events" / self.name / "ThingChanged.avsc").write_text(json.dumps(schema, indent=2))
        self.write_subscription()
        self.write_project()

    def write_subscription(self, policies: str = "{}") -> Path:
        path = self.folder / "subscriptions" / f"{self.subscription}.yaml"
        path.write_text(
            f"description: Keeps things in step.\nowner: team-x\nconnection: hubspot\npolicies: {policies}\n"
            f"routes:\n  - event: {self.event}\n    action: contact.upsert\n"
            '    body: {plan: "{{ data.number }}"}\n'
        )
        return path

    def write_project(self, *, vendor_timeout_s: float = 20, **kafka: str) -> None:
        settings = {"bootstrap.servers": self.stack.bootstrap, "group.protocol": self.protocol}
        if self.protocol == "classic":
            settings |= {"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"}
        settings |= kafka
        lines = "\n".join(f'"{name}" = "{value}"' for name, value in settings.items())
        (self.folder / "backbone.toml").write_text(
            f'[project]\nname = "test"\nschemas = "events"\nsubscriptions = "subscriptions"\n'
            '[connections.hubspot]\nconnector = "hubspot"\ncustom_properties = ["plan"]\n'
            f'timeout_s = {vendor_timeout_s}\ncircuit_open = "1s"\n'  # a minute would be the test's whole time
            f'[contexts.test]\nconnections = "fake"\nregistry.url = "{self.registry_url or self.stack.registry_url}"\n'
            f'topics.partitions = {PARTITIONS}\n[contexts.test.fakes]\nhubspot = "{self.vendor.url}"\n'
            f"[contexts.test.kafka]\n{lines}\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BACKBONE_PROJECT": str(self.folder),
            "BACKBONE_CONTEXT": "test",
            "NO_COLOR": "1",
            "PYTHONFAULTHANDLER": "1",
        }

    def backbone(self, *words: str, code: int = 0) -> str:
        """The command line in the project's folder; its standard output. In this process: one of its own for each
        command took longer than all the rest. What only a process can show is asked of one, in ``tests/scenarios``."""
        with patch.dict(os.environ, self.environment, clear=True), contextlib.chdir(self.folder):
            done = typed(*words)
        assert done.code == code, f"{words}: exit {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        return done.out

    def answer(self, *words: str, code: int = 0) -> Any:
        """What the command line answers, as data; its standard output is one JSON document whatever it exits with."""
        return json.loads(self.backbone(*words, "--output", "json", code=code))["data"]

    def prepare(self, start: str = "earliest") -> None:
        """Register the contract with its topics and attach the subscription."""
        self.backbone("schema", "register", "--apply", "--yes")
        self.backbone("subscription", "attach", self.subscription, "--from", start, "--apply", "--yes")
        self.quick_sessions()

    def quick_sessions(self, group: str = "") -> None:
        """A killed member of the new group protocol is noticed after 1.5 s, not 45."""
        resource = ConfigResource(ResourceType.GROUP, group or self.subscription)
        for name, value in (("consumer.session.timeout.ms", "1500"), ("consumer.heartbeat.interval.ms", "300")):
            resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        for done in self.admin.incremental_alter_configs([resource]).values():
            done.result(20)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.stack.bootstrap})

    def start_worker(self, *others: str) -> Worker:
        """A worker of the subscription, and of ``others``."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "run", self.subscription, *others, "--log", "json"],
                env=self.environment, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    @contextmanager
    def publisher(self) -> Iterator[KafkaPublisher]:
        settings = PublisherSettings.model_validate(
            {"kafka": {"bootstrap.servers": self.stack.bootstrap}, "registry": {"url": self.stack.registry_url}}
        )
        with KafkaPublisher(settings) as publisher:
            yield publisher

    def publish(self, count: int, *, keys: int = 20, publisher: KafkaPublisher | None = None) -> None:
        """``count`` more events over so many keys, each with the next number of its key; waits for the acks."""
        total = sum(map(len, self.published.values()))
        self.publish_of([f"{self.thing}-{number % keys}" for number in range(total, total + count)], publisher)

    def publish_of(self, keys: Sequence[str], publisher: KafkaPublisher | None = None) -> None:
        """One more event of each of these keys, in this order; waits for the acks."""
        if publisher is None:
            with self.publisher() as own:
                self.publish_of(keys, own)
            return
        futures = []
        for key in keys:
            numbers = self.published.setdefault(key, [])
            numbers.append(len(numbers) + 1)
            data = {"thing_id": key, "number": numbers[-1]}
            futures.append(publisher.publish_data(self.contract, data, source="test", id=f"{key}/{numbers[-1]}"))
        for future in futures:
            future.result(30)

    # ---- what came of it

    def committed(self) -> dict[tuple[str, int], int]:
        """Asked by a consumer that never joins: the admin client's own call can end the process with a SIGSEGV while
        a coordinator moves or loads."""
        places = [TopicPartition(*place) for place in self.ends()]
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap, "group.id": self.subscription})
        try:
            return {(tp.topic, tp.partition): tp.offset for tp in consumer.committed(places, 20) if tp.offset >= 0}
        finally:
            consumer.close()

    def ends(self, topic: str | None = None) -> dict[tuple[str, int], int]:
        topic = topic or self.topic
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap, "group.id": f"{self.name}-ends"})

        def ask() -> dict[tuple[str, int], int] | None:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            try:
                return {
                    (topic, p): consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
                    for p in partitions
                }
            except KafkaException as error:
                if error.args[0].code() in (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE):
                    return None  # a partition that was just made
                raise

        try:
            return eventually(ask, about=f"the ends of {topic}") or {}
        finally:
            consumer.close()

    def caught_up(self) -> bool:
        try:
            committed, ends = self.committed(), self.ends()
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                return False  # its broker was just started
            raise
        return all(committed.get(place, 0) >= end for place, end in ends.items())

    def wait_until_caught_up(self, deadline_s: float = 60.0) -> None:
        eventually(self.caught_up, deadline_s, poll_s=0.2, about=f"lag 0 of {self.subscription}")

    def wait_until_applied(self, deadline_s: float = 60.0) -> None:
        """Until the vendor has applied every event that was published so far."""
        total = sum(map(len, self.published.values()))

        def applied() -> bool:
            report = self.vendor.report()
            return int(report["applied"]) - int(report["duplicates"]) >= total

        eventually(applied, deadline_s, poll_s=0.1, about=f"{total} events applied")

    def letters(self) -> list[DeadLetter]:
        """The open dead letters, read from the topic itself."""
        topic = f"{self.subscription}.dead"
        ends = self.ends(topic)
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap, "group.id": f"{self.name}-letters"})
        found: dict[bytes | None, DeadLetter | None] = {}
        try:
            consumer.assign([TopicPartition(topic, p, 0) for (topic, p), end in ends.items() if end])
            left = sum(ends.values())
            while left:
                for m in consumer.consume(min(left, 100), 5):
                    headers = tuple(m.headers() or ())
                    found[m.key()] = parse_letter(
                        Record(topic, m.partition(), m.offset(), m.key(), m.value(), headers, m.timestamp()[1])
                    )
                    left -= 1
        finally:
            consumer.close()
        return [letter for letter in found.values() if letter is not None]

    def contacts(self) -> dict[str, str]:
        return {entity: contact["plan"] for entity, contact in self.vendor.report()["contacts"].items()}

    def final_numbers(self) -> dict[str, str]:
        return {key: str(numbers[-1]) for key, numbers in self.published.items()}

    def trace(self, key: str, number: int, *, revision: str = "") -> str:
        """The idempotency key that the vendor is asked with for an event that is sent by itself."""
        return delivery_key("test", self.event, f"{key}/{number}", self.subscription, "contact.upsert", revision)

    def applications(self) -> list[tuple[str, str]]:
        return [(entity, trace) for entity, trace in self.vendor.report()["applications"]]

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        self.vendor.close()


def new_world(tmp_path: Path, stack: Stack, prefix: str, **changed: str) -> World:
    fake = connector_types()["hubspot"].fake
    assert fake is not None
    world = World(prefix.replace("-", ""), tmp_path, stack, Vendor(fake()), **changed)  # type: ignore[arg-type]
    world.write()
    return world


def first_applications(world: World) -> Mapping[str, Sequence[str]]:
    """Per entity the traces in the order each was first applied."""
    seen: set[str] = set()
    order: dict[str, list[str]] = {}
    for entity, trace in world.applications():
        if trace not in seen:
            seen.add(trace)
            order.setdefault(entity, []).append(trace)
    return order
