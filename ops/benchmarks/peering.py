"""What people use beside us, on the same topic and vendor: two libraries in an environment of their own, and a pool of
threads as it is commonly written by hand."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from connectors.slack import CONNECTOR as SLACK
from ops.benchmarks.measure import Round
from ops.benchmarks.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".backbone" / "peers"
LOCK = ROOT / "requirements-peers.lock"
NEWEST_FIRST = ("3.14", "3.13", "3.12")
POOL_COUNT, PARALLEL_COUNT, ACKING_COUNT = 10_000, 10_000, 400
Subject = tuple[str, Callable[[], Round], float | None]


@dataclass(frozen=True, slots=True)
class Peers:
    """Who can be measured here: ``python`` is that of the libraries' environment, or None with ``missing`` said."""

    stage: Stage
    slack: str
    topic: str
    python: Path | None

    @classmethod
    def of(cls, stage: Stage, slack: str, topic: str) -> Peers:
        python, missing = environment()
        if python is None:
            print(f"({missing}; FastStream and pyrallel-consumer are left out)", flush=True)
        return cls(stage, slack, topic, python)

    def subjects(self) -> list[Subject]:
        found: list[Subject] = [("  peer: 64 threads, a barrier a batch", self._thread_pool, None)]
        if self.python is not None:
            found += [
                ("  peer: pyrallel-consumer, 256 in flight", lambda: self._library("pyrallel", PARALLEL_COUNT), None),
                ("  peer: FastStream, ack after the work", lambda: self._library("acking", ACKING_COUNT), None),
            ]
        return found

    def _library(self, name: str, count: int) -> Round:
        settings = SLACK.fake_settings(self.slack, Path())
        words = [str(self.python), "-m", f"ops.benchmarks.peers.{name}", self.stage.bootstrap, self.stage.registry_url]
        words += [str(settings["base_url"]), str(settings["token"]), self.topic, str(count)]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=180, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        if done.returncode != 0:
            raise RuntimeError(f"the peer {name} failed: {done.stderr.strip().splitlines()[-1:]}")
        counted = json.loads(done.stdout.strip().splitlines()[-1])
        return Round(counted["events"], counted["seconds"], counted["cpu_seconds"])

    def _thread_pool(self) -> Round:
        """Poll a batch, group it by key, a pool of threads, wait for all, commit."""
        import fastavro

        http = urllib3.PoolManager(maxsize=64)
        settings = SLACK.fake_settings(self.slack, Path())
        headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json; charset=utf-8"}
        url = f"{settings['base_url']}/chat.postMessage"
        schema = fastavro.parse_schema(json.loads(self.stage.contract.text))

        def post(values: list[bytes]) -> None:
            for value in values:
                data: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
                body = {"channel": "#bench", "text": f"Invoice {data['invoice_id']}: {data['total_minor']}"}
                if http.request("POST", url, body=json.dumps(body), headers=headers).status != 200:
                    raise RuntimeError("the vendor's fake refused")

        consumer = Consumer({"bootstrap.servers": self.stage.bootstrap, "group.id": f"peer-{uuid.uuid4().hex[:8]}"})
        try:
            partitions = range(self.stage.site.partitions(self.topic))
            consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in partitions])
            done, began = 0, (0.0, 0.0)
            with ThreadPoolExecutor(64) as pool:
                while done < POOL_COUNT:
                    by_key: dict[bytes, list[bytes]] = {}
                    messages = consumer.consume(500, 1)
                    for m in messages:
                        by_key.setdefault(m.key() or b"", []).append(m.value() or b"")
                    list(pool.map(post, by_key.values()))
                    consumer.commit(asynchronous=True)
                    if not done and messages:
                        began, first = (time.perf_counter(), time.process_time()), len(messages)
                    done += len(messages)
            return Round(done - first, time.perf_counter() - began[0], time.process_time() - began[1])
        finally:
            consumer.close()


def environment() -> tuple[Path | None, str]:
    """The Python that has the locked peers, made when it is first asked for; or None and a sentence."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / "ready"
    if stamp.exists() and stamp.read_text() == LOCK.read_text():
        return python, ""
    maker = next(_pythons(), None)
    if maker is None:
        return None, f"Python {NEWEST_FIRST[-1]} or newer was not found: name one by BENCH_PYTHON"
    print("(installing the peers into .backbone/peers, once)", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]
    for words in ([maker, "-m", "venv", str(FOLDER)], [*pip, str(LOCK)]):
        if subprocess.run(words, capture_output=True).returncode != 0:
            return None, "the locked peers (requirements-peers.lock) could not be installed"
    stamp.write_text(LOCK.read_text())
    return python, ""


def _pythons() -> Iterator[str]:
    """Pythons that are new enough and run: what BENCH_PYTHON names, ours, those on the path, those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [os.environ.get("BENCH_PYTHON", ""), sys.executable, *(f"python{version}" for version in NEWEST_FIRST)]
    named += [str(path) for version in NEWEST_FIRST for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    test = f"import sys; sys.exit(sys.version_info < ({NEWEST_FIRST[-1].replace('.', ',')}))"
    for name in named:
        if name and shutil.which(name) and subprocess.run([name, "-c", test], capture_output=True).returncode == 0:
            yield name
