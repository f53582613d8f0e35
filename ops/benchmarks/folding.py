"""Onboarding with ``attach --fold``: a long past of few entities, by a process of its own, whose memory is measured.

``python -m ops.benchmarks.folding BOOTSTRAP REGISTRY VENDOR TOPIC COUNT`` is that process; it says what it measured as
one line of JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence

import uvloop
from confluent_kafka import Consumer, TopicPartition

from consumers import facts
from consumers.assignment import Place
from ops.benchmarks.delivery import running
from ops.benchmarks.jobs import HUBSPOT_JOB
from ops.benchmarks.measure import Line
from ops.benchmarks.memory import peak_mib
from ops.benchmarks.site import Site
from ops.benchmarks.stage import Stage
from ops.watch import logs
from ops.watch.observe import Observation

EVENTS = 1_000_000
ENTITIES = 10_000
MEMORY_MIB = 300
WITHIN_S = 1_800.0


def lines(stage: Stage) -> list[Line]:
    """Rows and calls at the vendor, time until all is sent and until all is committed, and memory."""
    topic = "billing.invoices.past"
    if not stage.site.partitions(topic):
        stage.fill(stage.topic(topic), EVENTS, distinct=5 * ENTITIES, keys=ENTITIES)
    stage.vendor_latency("hubspot", 20)
    url = stage.vendors()["hubspot"]
    words = [sys.executable, "-m", "ops.benchmarks.folding", stage.bootstrap, stage.registry_url, url, topic]
    done = subprocess.run([*words, str(EVENTS)], stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    with urllib.request.urlopen(f"{url}/__fake__/report", timeout=60) as answer:
        report = json.load(answer)
    past = f"{EVENTS:,} events of {ENTITIES:,} entities, folded"
    cpu = [measured["cpu_s"] / EVENTS * 1e6]
    return [
        Line(f"{past}: rows sent", "rows", [report["applied"]], target=ENTITIES, at_most=True),
        Line("  calls of 100 rows at most, 20 ms each", "calls", [report["calls"]]),
        Line("  until every row is sent", "s", [measured["sent_s"]]),
        Line("  until every event has its receipt and is committed", "s", [measured["over_s"]], cpu),
        Line("  peak memory", "MiB", [measured["peak_mib"]], target=MEMORY_MIB, at_most=True),
    ]


def _ends(site: Site, topic: str) -> dict[Place, int]:
    consumer = Consumer({"bootstrap.servers": site.bootstrap, "group.id": "bench-ends"})
    try:
        return {
            (topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)[1]
            for number in range(site.partitions(topic))
        }
    finally:
        consumer.close()


async def measure(site: Site, url: str, topic: str, count: int) -> dict[str, float]:
    """Fold a topic as a new subscription and catch up."""
    untils = _ends(site, topic)
    if sum(untils.values()) < count:
        raise RuntimeError(f"{topic} holds {sum(untils.values())} events")
    text = HUBSPOT_JOB.text.replace("connection: hubspot\n", "connection: hubspot\npolicies: {send: latest}\n")
    job = dataclasses.replace(HUBSPOT_JOB, text=text, url=url, receipts=True)
    sent: set[Place] = set()
    over: set[Place] = set()
    all_over = asyncio.Event()
    times: dict[str, float] = {}
    observe = Observation()
    began = time.perf_counter()

    def observer(fact: facts.Fact) -> None:
        observe(fact)
        if isinstance(fact, facts.PastSent):
            sent.add(fact.place)
            if sent == set(untils):
                times["sent_s"] = time.perf_counter() - began

    def caught_up(places: Sequence[Place]) -> None:
        over.update(place for place in places if place in untils)
        if over == set(untils):
            times["over_s"] = time.perf_counter() - began
            all_over.set()

    async with running([(job, topic)], site, observers=[observer], untils=untils, caught_up=caught_up):
        async with asyncio.timeout(WITHIN_S):
            await all_over.wait()
    return {**times, "cpu_s": time.process_time(), "peak_mib": peak_mib()}


if __name__ == "__main__":
    logs.configure(True, level="error")
    bootstrap, registry, vendor, past, wanted = sys.argv[1:]
    print(json.dumps(uvloop.run(measure(Site(bootstrap, registry), vendor, past, int(wanted)))), flush=True)
