"""The broker of a fault run: a Kafka of its own that can be frozen, killed and started again, with a second listener
that is advertised as the proxy's address, and a registry beside it.

The set-up is the one of the fault matrix: one offsets partition (so that a coordinator's move concerns every group),
sessions of 6 s with heartbeats every 0.5 s, no delay before a rebalance, nothing created by a typo.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from ops.local.aot import jvm_options
from ops.local.artifacts import artifacts
from ops.local.java import find_java
from ops.local.kafka import SETTINGS, Kafka
from ops.local.ports import choose
from ops.local.process import ProcessId, running, spawn, stop
from ops.local.registry import Registry
from ops.local.state import read_json
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
EXTRA = """\
offsets.topic.num.partitions=1
group.max.session.timeout.ms=60000
"""


def silent(_words: str) -> None:
    """For what is of no interest in a fault run."""


class Broker:
    """Kafka and the registry as children of this run; ``close`` stops what was started here and nothing else."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        java = find_java()
        programs = artifacts((ROOT / ".backbone" / "artifacts").absolute(), java, silent)
        ports = choose(("kafka", "controller", "registry", "management", "proxied"), {})
        self.kafka = Kafka(java, programs, folder / "kafka", ports["kafka"], ports["controller"])
        self.registry = Registry(java, programs, folder / "registry", ports["registry"], ports["management"])
        self._proxied_port = ports["proxied"]
        self._seed = seed
        self._kafka: ProcessId | None = None
        self._registry: ProcessId | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self.proxied = self.registry_proxied = ""
        self.restarts = 0

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap

    @cached_property
    def admin(self) -> AdminClient:
        """One for the whole run: a client that is let go of takes the answers that are under way with it."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def start(self) -> None:
        """Start everything and wait until it answers. Blocks some 8 s."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_proxy()
        self.registry.prepare(silent)
        registry = self.registry.command(*jvm_options(self.registry.cache))
        self._registry = spawn(registry, log=self.folder / "registry.log", folder=self.registry.folder)
        self.kafka.prepare(silent)
        settings = self.kafka.folder / SETTINGS
        text = settings.read_text(encoding="utf-8")
        text = text.replace(
            f"listeners=PLAINTEXT://127.0.0.1:{self.kafka.port},",
            f"listeners=PLAINTEXT://127.0.0.1:{self.kafka.port},PROXIED://127.0.0.1:{self._proxied_port},", 1,
        ).replace(
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.kafka.port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.kafka.port},PROXIED://{self.proxied}",
        ).replace(
            "listener.security.protocol.map=", "listener.security.protocol.map=PROXIED:PLAINTEXT,"
        )  # fmt: skip
        settings.write_text(text + EXTRA, encoding="utf-8")
        self.start_kafka()
        eventually(self.registry.ready, 60, poll_s=0.1, about="the registry")

    def start_kafka(self) -> None:
        """Start Kafka on the data it has, and wait until it answers."""
        command = self.kafka.command("-Xms256m", *jvm_options(self.kafka.cache))
        self._kafka = spawn(command, log=self.folder / "kafka.log", folder=self.kafka.folder)
        eventually(self.kafka.ready, 60, poll_s=0.1, about="Kafka")
        self.restarts += 1

    def freeze(self) -> Callable[[], None]:
        """SIGSTOP; answers what lets it go on."""
        assert self._kafka is not None
        process = self._kafka
        os.kill(process.pid, signal.SIGSTOP)
        return lambda: os.kill(process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._kafka is not None
        os.kill(self._kafka.pid, signal.SIGKILL)
        eventually(lambda: self._kafka is None or not running(self._kafka), 20, about="Kafka to be gone")

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone: a clean stop."""
        assert self._kafka is not None
        stop(self._kafka, grace_s=30)

    def _start_proxy(self) -> None:
        state = self.folder / "proxy.json"
        state.unlink(missing_ok=True)
        proxied = f"127.0.0.1:{self._proxied_port}"
        registry = f"127.0.0.1:{self.registry.port}"
        self._proxy = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.proxy", "--state", str(state), "--seed", str(self._seed),
             "--to", proxied, "--to", registry],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        eventually(state.exists, 20, about="the proxy")
        addresses = read_json(state)
        self.proxied = addresses[proxied]
        self.registry_proxied = self.registry.url.replace(registry, addresses[registry])

    def weather(self, **order: Any) -> dict[str, int]:
        """How the network behind the proxy is from now on; answers what was done to it so far. For Kafka and the
        registry alike: nobody uses both through it."""
        assert self._proxy is not None
        assert self._proxy.stdin is not None
        assert self._proxy.stdout is not None
        self._proxy.stdin.write(json.dumps(order).encode() + b"\n")
        self._proxy.stdin.flush()
        return dict(json.loads(self._proxy.stdout.readline()))

    def close(self) -> None:
        """Stop it all; a frozen Kafka is let go on first."""
        if self._kafka is not None and running(self._kafka):
            os.kill(self._kafka.pid, signal.SIGCONT)
            stop(self._kafka, grace_s=10)
        if self._registry is not None:
            stop(self._registry, grace_s=10)
        if self._proxy is not None and self._proxy.stdin is not None:
            self._proxy.stdin.close()
            self._proxy.wait(10)
        shutil.rmtree(self.kafka.folder, ignore_errors=True)


def now_ns() -> int:
    """The clock of every journal."""
    return time.monotonic_ns()
