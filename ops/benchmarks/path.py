"""The whole path: consume, decode, project, HTTP to a vendor's fake in another process, settle, commit."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3
import uvloop
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from connectors.connection import Connection
from connectors.slack import CONNECTOR as SLACK
from consumers import facts
from consumers.control import Begin
from consumers.pipeline import Pipeline
from consumers.runtime import Runtime
from consumers.subscription import Subscription, load_text
from ops.benchmarks.measure import Result, Round, interleaved
from ops.benchmarks.stage import KEYS, Stage
from producers.kafka import RecordProducer
from schemas.codec import Decoder
from schemas.contract import load_contracts
from schemas.event import Event, Record
from schemas.registry import open_registry

COUNT = 20_000
BACKLOG = 300_000
STALLED_S = 15.0
EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"
TEXT = """\
description: Every invoice as a message.
owner: team-bench
connection: slack
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body:
      channel: "#bench"
      text: "Invoice {{ data.invoice_id }}: {{ data.total_minor | money(data.currency) }}"
"""


def results(stage: Stage, rounds: int) -> list[Result]:
    topic = stage.topic("billing.invoices.bench")
    stage.fill(topic, COUNT)
    slack = stage.vendors()["slack"]

    def ours() -> Round:
        return uvloop.run(_deliver(stage.bootstrap, stage.decoder(), slack, topic, COUNT))

    def peer() -> Round:
        return _thread_pool(stage, slack, topic)

    found = []
    for milliseconds, target in ((0.0, 3_000), (20.0, 2_500)):
        stage.vendor_latency("slack", milliseconds)
        found += interleaved(
            rounds,
            [
                (f"whole path, vendor {milliseconds:.0f} ms, order kept, 256 in flight", ours, target),
                (f"  peer: 64 threads, a barrier per batch, vendor {milliseconds:.0f} ms", peer, None),
            ],
        )
    return found


async def _deliver(
    bootstrap: str, decoder: Decoder, slack: str, topic: str, count: int, *, stalled_s: float = 0.0
) -> Round:
    subscription = _subscription(topic)
    producer = RecordProducer({"bootstrap.servers": bootstrap}, block_s=0)
    settings = SLACK.settings.model_validate(SLACK.fake_settings(slack, Path()))
    connection = Connection("slack", SLACK, SLACK.open(settings), observer=lambda *_: None)
    settled = 0
    first: tuple[float, float] | None = None
    last = (0.0, 0.0)
    done = asyncio.Event()

    def observe(fact: facts.Fact) -> None:
        nonlocal settled, first, last
        if isinstance(fact, facts.DeliverySettled):
            settled += 1
            if first is None:
                first = (time.perf_counter(), time.process_time())
            if settled == count:
                last = (time.perf_counter(), time.process_time())
                done.set()

    def stopped(reason: str) -> None:
        raise RuntimeError(reason)

    runtime = Runtime(
        subscription=subscription,
        pipeline=Pipeline(subscription, decoder),
        connection=connection,
        producer=producer,
        kafka={"bootstrap.servers": bootstrap},
        resolve=lambda committed: {place: Begin(0, first=True) for place in committed},
        started=lambda _: None,
        load_schema=decoder.load,
        stopped=stopped,
        observer=observe,
    )
    runtime.start()
    try:
        if stalled_s:
            await asyncio.sleep(stalled_s)
            return Round(1, 1.0, 1.0)
        async with asyncio.timeout(300):
            await done.wait()
    finally:
        await runtime.close("the benchmark is over")
        await connection.close()
        await asyncio.to_thread(producer.close, 5.0)
    assert first is not None
    return Round(count - 1, last[0] - first[0], last[1] - first[1])


def _subscription(topic: str) -> Subscription:
    """A new subscription (a new group) over a topic of its own: the contract's, with its topic replaced."""
    import dataclasses

    contracts = load_contracts(EVENTS)
    name = f"bench-{uuid.uuid4().hex[:8]}".replace("-", "-b")
    loaded = load_text(name, TEXT, contracts=contracts, connections={"slack": SLACK}, folder=Path())
    return dataclasses.replace(
        loaded, contracts={n: dataclasses.replace(c, topic=topic) for n, c in loaded.contracts.items()}
    )


def _thread_pool(stage: Stage, slack: str, topic: str) -> Round:
    """What is commonly written by hand: poll a batch, group it by key, a pool of threads, wait for all, commit."""
    decoder = stage.decoder()
    http = urllib3.PoolManager(maxsize=64)
    token = SLACK.fake_settings(slack, Path())["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"}
    url = f"{SLACK.fake_settings(slack, Path())['base_url']}/chat.postMessage"

    def post(events: list[Event]) -> None:
        for event in events:
            body = {"channel": "#bench", "text": f"Invoice {event.data['invoice_id']}: {event.data['total_minor']}"}
            if http.request("POST", url, body=json.dumps(body), headers=headers).status != 200:
                raise RuntimeError("the vendor's fake refused")

    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": f"peer-{uuid.uuid4().hex[:8]}"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        left = COUNT
        began: tuple[float, float] | None = None
        with ThreadPoolExecutor(64) as pool:
            while left > 0:
                messages = consumer.consume(500, 1)
                if not messages:
                    continue
                by_key: dict[bytes, list[Event]] = {}
                for m in messages:
                    by_key.setdefault(m.key() or b"", []).append(_decoded(decoder, m))
                list(pool.map(post, by_key.values()))
                left -= len(messages)
                consumer.commit(asynchronous=True)
                if began is None:
                    began, counted = (time.perf_counter(), time.process_time()), left
        assert began is not None
        return Round(counted, time.perf_counter() - began[0], time.process_time() - began[1])
    finally:
        consumer.close()


def _decoded(decoder: Decoder, m: Any) -> Event:
    record = Record(
        m.topic(), m.partition(), m.offset(), m.key(), m.value(), tuple(m.headers() or ()), m.timestamp()[1]
    )
    event = decoder.decode(record)
    while not isinstance(event, Event):
        decoder.load(event)  # type: ignore[arg-type]
        event = decoder.decode(record)
    return event


# ---- memory, in a process of its own


def memory_line(stage: Stage) -> str:
    """The peak memory of a process whose vendor never answers, with a long backlog."""
    topic = stage.topic("billing.invoices.backlog")
    stage.fill(topic, BACKLOG)
    stage.vendor_latency("slack", 3_600_000)
    words = [sys.executable, "-m", "ops.benchmarks.path", stage.bootstrap, stage.registry_url, stage.vendors()["slack"]]
    done = subprocess.run([*words, topic], capture_output=True, text=True, check=True)
    mib = int(done.stdout) / 1024
    return (
        f"memory: {mib:.0f} MiB at most (target < 250) after {STALLED_S:.0f} s with the vendor stalled and "
        f"{BACKLOG:,} events of {KEYS:,} keys behind"
    )


def _stalled(arguments: argparse.Namespace) -> None:
    registry = open_registry(arguments.registry)
    uvloop.run(
        _deliver(arguments.bootstrap, Decoder(registry), arguments.slack, arguments.topic, 1, stalled_s=STALLED_S)
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A process with a stalled vendor; prints its peak memory in KiB.")
    for name in ("bootstrap", "registry", "slack", "topic"):
        parser.add_argument(name)
    _stalled(parser.parse_args())
