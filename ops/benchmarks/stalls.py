"""What a vendor that does not answer costs: memory, another subscription of the process, a process that joins; and how
long a process takes from its start to its first delivery."""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import uvloop

from consumers.control import inbox_topic
from ops.benchmarks.delivery import Count, running
from ops.benchmarks.jobs import HUBSPOT_JOB, SLACK_JOB
from ops.benchmarks.measure import Line, Round, interleaved
from ops.benchmarks.stage import Stage
from ops.watch.observe import Observation

BACKLOG = 1_000_000
STALLED_S = 15.0
MEMORY_MIB = 300
ISOLATION_COUNT = 15_000
ISOLATION_PERCENT = 5
JOIN_S = {"classic": 3.0, "consumer": 7.0}
START_S = 3.0
WITHIN_S = 90.0
FOREVER_MS = 3_600_000


class Member:
    """A process of ``ops.benchmarks.member``, by what it says."""

    def __init__(self, stage: Stage, vendor: str, topic: str, group: str, protocol: str = "consumer") -> None:
        words = [
            sys.executable,
            "-m",
            "ops.benchmarks.member",
            stage.bootstrap,
            stage.registry_url,
            vendor,
            topic,
            group,
        ]
        self._process = subprocess.Popen([*words, "--protocol", protocol], stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("ended")

    def wait(self, word: str) -> str:
        """Until it says a line that begins so; what follows on the line."""
        until = time.monotonic() + WITHIN_S
        while True:
            line = self._lines.get(timeout=max(0.1, until - time.monotonic()))
            if line.startswith(word):
                return line.removeprefix(word).strip()
            if line == "ended":
                raise RuntimeError(f"a process of the benchmark ended before it said '{word}'")

    def end(self) -> int:
        """The most memory it had, in KiB."""
        self._process.send_signal(signal.SIGTERM)
        peak = int(self.wait("peak"))
        self._process.wait(30)
        return peak

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


def memory_line(stage: Stage) -> Line:
    """The peak memory of a process whose vendor never answers, with a long backlog."""
    topic = "billing.invoices.backlog"
    if not stage.site.partitions(topic):
        stage.fill(stage.topic(topic), BACKLOG, distinct=10_000)
    stage.vendor_latency("slack", FOREVER_MS)
    member = Member(stage, stage.vendors()["slack"], topic, _group())
    try:
        member.wait("full")
        time.sleep(STALLED_S)  # what is measured: it must not grow meanwhile
        peak = member.end()
    finally:
        member.kill()
    name = f"peak memory, vendor stalled {STALLED_S:.0f} s, {BACKLOG:,} events behind"
    return Line(name, "MiB", [peak / 1024], target=MEMORY_MIB, at_most=True)


def isolation_lines(stage: Stage, topic: str, rounds: int) -> list[Line]:
    """A healthy subscription alone, and beside one whose vendor takes every call and never answers."""
    stage.vendor_latency("slack", 20)
    stage.vendor_latency("hubspot", FOREVER_MS)
    urls = stage.vendors()
    healthy = dataclasses.replace(SLACK_JOB, url=urls["slack"], receipts=True)
    dead = dataclasses.replace(HUBSPOT_JOB, url=urls["hubspot"], receipts=True)

    async def beside(*others: object) -> Round:
        count = Count(Observation())
        count.goal = ISOLATION_COUNT
        jobs = [(healthy, topic), *((dead, topic) for _ in others)]
        async with running(jobs, stage.site, observers=[count, *(Observation() for _ in others)]):
            async with asyncio.timeout(WITHIN_S):
                await count.reached.wait()
        return Round(ISOLATION_COUNT - 1, count.last[0] - count.first[0], count.last[1] - count.first[1])

    alone, beside_dead = interleaved(
        rounds,
        [
            ("a healthy subscription alone in its process, 20 ms", lambda: uvloop.run(beside()), None),
            ("  beside one whose vendor never answers", lambda: uvloop.run(beside(None)), None),
        ],
    )
    cost = [100 * (1 - two / one) for one, two in zip(alone.values, beside_dead.values, strict=True)]
    line = Line("  what the dead vendor costs it", "%", cost, target=ISOLATION_PERCENT, at_most=True)
    return [alone, beside_dead, line]


def join_lines(stage: Stage, topic: str, rounds: int) -> list[Line]:
    """From the start of a second process' runtime to its first record, while the first one holds what it may and its
    vendor is away. A vendor that takes calls and never answers them is waited for first, at most 25 s (the drain)."""
    found = []
    for protocol, target in JOIN_S.items():
        name = f"joining, vendor away, {'new' if protocol == 'consumer' else protocol} protocol: first record"
        values = [_join(stage, topic, protocol) for _ in range(rounds)]
        found.append(Line(name, "s", values, target=target, at_most=True))
    return found


def _join(stage: Stage, topic: str, protocol: str) -> float:
    group, away = _group(), f"http://127.0.0.1:{_closed_port()}"
    stage.topic(inbox_topic(group))
    first = Member(stage, away, topic, group, protocol)
    try:
        first.wait("full")
        return uvloop.run(_first_record(stage, away, topic, group, protocol))
    finally:
        first.kill()


async def _first_record(stage: Stage, vendor: str, topic: str, group: str, protocol: str) -> float:
    job = dataclasses.replace(SLACK_JOB, url=vendor)
    began = time.perf_counter()
    async with (
        asyncio.timeout(WITHIN_S),
        running(
            [(job, topic)], stage.site, observers=[lambda _: None], group=group, kafka={"group.protocol": protocol}
        ) as (runtime,),
    ):
        while not runtime.unfinished:
            await asyncio.sleep(0.005)  # the step of the measurement
        return time.perf_counter() - began


def start_line(stage: Stage, topic: str, rounds: int) -> Line:
    """A whole process, from its start to its first delivery: imports, schemas, joining, fetching, one call."""
    stage.vendor_latency("slack", 0)
    values = []
    for _ in range(rounds):
        group = _group()
        stage.topic(inbox_topic(group))
        began = time.perf_counter()
        member = Member(stage, stage.vendors()["slack"], topic, group)
        try:
            member.wait("delivered")
            values.append(time.perf_counter() - began)
        finally:
            member.kill()
    return Line("a process from its start to its first delivery", "s", values, target=START_S, at_most=True)


def _group() -> str:
    return f"bench-m{uuid.uuid4().hex[:8]}"


def _closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
