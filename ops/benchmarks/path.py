"""The whole path: consume, decode, project, ask a vendor's fake in another process (or a database), settle, commit."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import urllib3
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from connectors.hubspot import CONNECTOR as HUBSPOT
from connectors.slack import CONNECTOR as SLACK
from connectors.sql import CONNECTOR as SQL
from ops.benchmarks.delivery import Job, deliver
from ops.benchmarks.measure import Line, Round, interleaved
from ops.benchmarks.stage import Stage
from schemas.codec import Decoder
from schemas.event import Event, Record

COUNT = 20_000
BACKLOG = 300_000
STALLED_S = 15.0
MEMORY_MIB = 250

SLACK_JOB = Job(
    """\
description: Every invoice as a message.
owner: team-bench
connection: slack
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body:
      channel: "#bench"
      text: "Invoice {{ data.invoice_id }}: {{ data.total_minor | money(data.currency) }}"
""",
    SLACK,
)
HUBSPOT_JOB = Job(
    """\
description: The billing address of every account.
owner: team-bench
connection: hubspot
personal_data: {purpose: A benchmark with made-up people., allow: [email]}
routes:
  - event: billing.InvoiceCreated
    action: contact.upsert
    entity: "{{ data.account_id }}"
    body: {email: "{{ data.billing_email | lower }}", country: "{{ data.country }}"}
""",
    HUBSPOT,
)
SQL_JOB = Job(
    """\
description: Every invoice as a row.
owner: team-bench
connection: sql
routes:
  - event: billing.InvoiceCreated
    action: row.upsert
    entity: "{{ event.source }}/{{ event.type }}/{{ event.id }}"
    body: {table: "{{ event.name | snake }}", row: "{{ data | allowed }}"}
""",
    SQL,
)


def lines(stage: Stage, rounds: int) -> list[Line]:
    """One delivery a call, at a vendor that answers at once and at one that takes 20 ms; a common way beside them."""
    topic = _filled(stage)
    job = dataclasses.replace(SLACK_JOB, url=stage.vendors()["slack"])

    def ours() -> Round:
        return deliver(job, stage.bootstrap, stage.decoder(), topic, COUNT)

    def peer() -> Round:
        return _thread_pool(stage, job.url, topic)

    found = []
    for milliseconds, target in ((0, 3_000), (20, 2_500)):
        stage.vendor_latency("slack", milliseconds)
        found += interleaved(
            rounds,
            [
                (f"whole path, 256 in flight, vendor {milliseconds} ms", ours, target),
                (f"  peer: 64 threads, a barrier a batch, vendor {milliseconds} ms", peer, None),
            ],
        )
    return found


def batch_lines(stage: Stage, rounds: int) -> list[Line]:
    """Many deliveries a call: HubSpot's 100 contacts, and 1,000 rows a transaction in a SQLite file."""
    topic = _filled(stage)
    stage.vendor_latency("hubspot", 20)
    hubspot = dataclasses.replace(HUBSPOT_JOB, url=stage.vendors()["hubspot"])

    def contacts() -> Round:
        return deliver(hubspot, stage.bootstrap, stage.decoder(), topic, COUNT)

    def rows() -> Round:
        with TemporaryDirectory(dir=stage.folder) as folder:
            job = dataclasses.replace(SQL_JOB, folder=Path(folder))
            return deliver(job, stage.bootstrap, stage.decoder(), topic, COUNT)

    return interleaved(
        rounds,
        [
            ("whole path, HubSpot, 100 contacts a call, 20 ms", contacts, None),
            ("whole path, SQLite file, 1,000 rows a transaction", rows, None),
        ],
    )


def memory_line(stage: Stage) -> Line:
    """The peak memory of a process whose vendor never answers, with a long backlog."""
    topic = stage.topic("billing.invoices.backlog")
    stage.fill(topic, BACKLOG)
    stage.vendor_latency("slack", 3_600_000)
    words = [sys.executable, "-m", "ops.benchmarks.delivery", stage.bootstrap, stage.registry_url]
    words += [stage.vendors()["slack"], topic, str(STALLED_S)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    name = f"peak memory, vendor stalled {STALLED_S:.0f} s, {BACKLOG:,} events behind"
    return Line(name, "MiB", [int(done.stdout) / 1024], target=MEMORY_MIB, at_most=True)


def _filled(stage: Stage) -> str:
    name = "billing.invoices.bench"
    if stage.exists(name):
        return name
    topic = stage.topic(name)
    stage.fill(topic, COUNT)
    return topic


def _thread_pool(stage: Stage, slack: str, topic: str) -> Round:
    """What is commonly written by hand: poll a batch, group it by key, a pool of threads, wait for all, commit."""
    decoder = stage.decoder()
    http = urllib3.PoolManager(maxsize=64)
    settings = SLACK.fake_settings(slack, Path())
    headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json; charset=utf-8"}
    url = f"{settings['base_url']}/chat.postMessage"

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
