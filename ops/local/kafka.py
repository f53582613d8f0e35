"""One Kafka node (KRaft, broker and controller in one process) for a person's machine and for the tests."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.local.artifacts import Artifacts
from ops.local.java import Java
from ops.local.ports import accepts
from schemas.errors import UnreachableError

FORMAT_MAX_S = 60
SETTINGS = "server.properties"

# One node cannot replicate; groups of both protocols notice a killed member within seconds instead of 45 s, and the
# node itself starts 3 s after a kill instead of 9 s (it waits until its own old session has ended); nothing is created
# by a typo.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
auto.create.topics.enable=false
num.partitions=12
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=100
"""


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where this node keeps its things (``folder``) and listens (127.0.0.1 only)."""

    java: Java
    artifacts: Artifacts
    folder: Path
    port: int
    controller_port: int

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cache(self) -> Path:
        return self.artifacts.folder / f"kafka-{self.java.version}.aot"

    def command(self, *jvm: str, sustained: bool = False) -> list[str]:
        """The command that runs the node, in its ``folder``. ``sustained`` lets the JVM optimise fully: it pays after
        minutes."""
        options = ["-XX:+UseSerialGC", "-Xms64m", "-Xmx384m", *jvm]
        if not sustained:
            options.append("-XX:TieredStopAtLevel=1")
        return [*self._java(options), "kafka.Kafka", SETTINGS]

    def _java(self, options: Sequence[str]) -> list[str]:
        return [
            self.java.program,
            *options,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
            self.artifacts.kafka_class_path,
        ]

    def prepare(self, say: Callable[[str], None]) -> None:
        """Write the settings and format the data folder if that has not been done. Blocks about 1 s when it formats.

        Records are never thrown away: a data folder without its identity that holds any is set aside, and said so.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.data.exists() and not (self.data / "meta.properties").is_file():
            self._set_aside(say)
        if not self.data.exists():
            self._format()
        self._write_settings(SETTINGS, self.data)

    def _write_settings(self, name: str, data: Path) -> None:
        lines = [
            # relative to the folder: a path may hold commas, or letters that Java reads otherwise in such a file
            f"log.dirs={data.name}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
            f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}",
        ]
        (self.folder / name).write_text(PROPERTIES + "\n".join(lines) + "\n", encoding="utf-8")

    def _format(self) -> None:
        """Format beside and rename: a kill in the middle leaves no folder that looks formatted. The folder is this
        process's own: the formatter of a start that was killed may still write into its."""
        for left in self.folder.glob("data.new*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self.folder.glob("format*.properties"):
            left.unlink(missing_ok=True)
        fresh = self.folder / f"data.new-{os.getpid()}"
        settings = f"format-{os.getpid()}.properties"
        self._write_settings(settings, fresh)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [
            *self._java(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]),
            "kafka.tools.StorageTool",
            "format",
            # an id that starts with a dash would be read as an option
            f"--cluster-id={cluster}",
            "-c",
            settings,
        ]
        try:
            answer = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=FORMAT_MAX_S,
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError(f"Kafka's data folder was not formatted within {FORMAT_MAX_S} s.") from None
        if answer.returncode != 0 or not (fresh / "meta.properties").is_file():
            reason = ((answer.stderr or answer.stdout).strip().splitlines() or ["no reason given"])[-1]
            raise UnreachableError(f"Kafka's data folder {self.data} could not be formatted: {reason[:300]}")
        (self.folder / settings).unlink()
        fresh.rename(self.data)

    def _set_aside(self, say: Callable[[str], None]) -> None:
        if not any(log.stat().st_size for log in self.data.rglob("*.log")):
            say("Kafka's data folder was half-written (no meta.properties) and held no records: it is made anew")
            shutil.rmtree(self.data)
            return
        number = 1
        while (aside := self.folder / f"data.damaged-{number}").exists():
            number += 1
        self.data.rename(aside)
        say(
            "Kafka's data folder has lost its identity (no meta.properties) and cannot be used:"
            f" it was set aside as {aside}, and Kafka starts with an empty one"
        )

    def ready(self) -> bool:
        """Whether the node answers clients and has joined its own cluster."""
        if not accepts(self.port):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "socket.timeout.ms": 2000})
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False
