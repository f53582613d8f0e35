"""What tests of commands need at the test run's real broker: records, commits, attached subscriptions, a project."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, not in its __all__

from consumers.control import TOPIC, ControlRecord, Definition, Start, definition_record, start_record, timestamp
from consumers.heartbeat import TOPIC as HEARTBEAT
from consumers.heartbeat import Heartbeat, farewell_record, heartbeat_record
from tests.conftest import ROOT, Stack
from tests.waiting import eventually

PROJECT = f"""
[project]
name = "acme"
schemas = "{ROOT}/schemas/events"
subscriptions = "subscriptions"
[connections.slack]
connector = "slack"
[contexts.local]
connections = "fake"
"""

TEXT = """
description: Tells sales about invoices.
owner: team-sales-ops
connection: slack
policies: {slo: 5m}
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body: {channel: "#sales", text: "{{ data.invoice_id }}"}
"""


@dataclass(frozen=True)
class Answer:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The data of its JSON document."""
        return json.loads(self.out)["data"]


class Broker:
    """The test run's cluster. Everything waits until it is so."""

    def __init__(self, stack: Stack) -> None:
        self.bootstrap = stack.bootstrap
        self.stack = stack
        self.admin = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})

    def consumer(self, **settings: Any) -> Consumer:
        """Belongs to no group unless ``group_id`` is given."""
        wanted = {name.replace("_", "."): value for name, value in settings.items()}
        usual = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "backbone-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "log_level": 0,
        }
        return Consumer(usual | wanted)

    def produce(
        self,
        topic: str,
        count: int,
        *,
        partition: int = 0,
        at_ms: int = 0,
        linger_ms: int = 0,
        value: bytes = b"v",
        key: bytes | None = None,
        event: str | None = None,
    ) -> None:
        """One record a batch, unless ``linger_ms`` lets them gather. ``event``: the type that its envelope states."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": linger_ms, "log_level": 0})
        for _ in range(count):
            headers: list[tuple[str, str | bytes | None]] = [] if event is None else [("ce_type", event.encode())]
            producer.produce(topic, value, key, partition=partition, timestamp=at_ms, headers=headers)
            if not linger_ms:
                producer.flush(10)
        assert producer.flush(10) == 0

    def commit(self, group: str, topic: str, offsets: Mapping[int, int], metadata: str = "") -> None:
        places = [TopicPartition(topic, p, o, metadata) for p, o in offsets.items()]
        wanted = ConsumerGroupTopicPartitions(group, places)

        def done() -> bool:
            (future,) = self.admin.alter_consumer_group_offsets([wanted]).values()
            return all(tp.error is None for tp in future.result().topic_partitions)

        eventually(done, about="the group's coordinator to take the positions (it loads at first)")

    def commits(self, group: str) -> dict[tuple[str, int], tuple[int, str]]:
        try:
            # First, because asking a coordinator that moves or loads for commits can end the process with a SIGSEGV.
            self.admin.describe_consumer_groups([group])[group].result(20)
            (future,) = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
            found = future.result().topic_partitions
        except KafkaException:
            return {}
        return {(tp.topic, tp.partition): (tp.offset, tp.metadata or "") for tp in found if tp.offset >= 0}

    def join(self, group: str, topic: str, **settings: Any) -> Consumer:
        """A member of the group that has its partitions; it polls only when the test does."""
        usual = {"group_protocol": "consumer", "auto_offset_reset": "latest"}
        member = self.consumer(group_id=group, **(usual | settings))
        member.subscribe([topic])

        def assigned() -> bool:
            member.poll(0.1)
            return bool(member.assignment())

        eventually(assigned, about=f"partitions of {topic} for a member of {group}")
        return member

    def control(self, *records: ControlRecord) -> None:
        """Write to backbone.control; the topic is made when it is not there."""
        self._write(TOPIC, records, {"cleanup.policy": "compact"})

    def beat(self, *heartbeats: Heartbeat) -> None:
        """Write heartbeats as workers do; the topic is made when it is not there."""
        self._write(HEARTBEAT, map(heartbeat_record, heartbeats), {"message.timestamp.type": "LogAppendTime"})

    def farewell(self, *processes: str) -> None:
        """As workers do when they leave."""
        self._write(HEARTBEAT, map(farewell_record, processes), {"message.timestamp.type": "LogAppendTime"})

    def _write(self, topic: str, records: Iterable[ControlRecord], config: dict[str, str]) -> None:
        with contextlib.suppress(KafkaException):  # it is there
            self.admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)
        eventually(lambda: self.admin.list_topics(topic, timeout=5).topics[topic].partitions, about=topic)
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(10) == 0

    def attach(
        self,
        name: str,
        topics: Mapping[str, int],
        *,
        text: str = TEXT,
        starts: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        """As ``subscription attach`` records it, without workers."""
        definition = Definition(
            text=text, version="3f9a2c", author="ana", at=timestamp(), connection="slack",
            events=("billing.InvoiceCreated",), topics=dict(topics),
        )  # fmt: skip
        places = [(topic, p) for topic, count in topics.items() for p in range(count)]
        self.control(
            definition_record(name, definition),
            *(
                start_record(name, *place, Start(offset=(starts or {}).get(place, 0), state="pending"))
                for place in places
            ),
        )

    def detach(self, name: str) -> None:
        self.control(definition_record(name, None))


def project_folder(stack: Stack, folder: Path) -> Path:
    """A project of its own whose local context is the test run's stack."""
    (folder / "backbone.toml").write_text(PROJECT)
    (folder / "subscriptions").mkdir()
    (folder / ".backbone").mkdir()
    running = json.loads((stack.folder / "local.json").read_text())
    (folder / ".backbone" / "local.json").write_text(json.dumps({"fakes": {}} | running))
    return folder


def backbone(*arguments: str) -> Answer:
    """The command as a person types it, in this process (BACKBONE_PROJECT says where)."""
    from ops.cli import cli

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    return Answer(int(code or 0), out.getvalue(), err.getvalue())


def minutes_from_now(minutes: int) -> str:
    return timestamp(datetime.fromtimestamp(datetime.now(UTC).timestamp() + 60 * minutes, UTC))
