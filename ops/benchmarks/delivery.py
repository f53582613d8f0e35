"""Subscriptions' real runtimes over a topic, wired and observed as in ``backbone run``, and what is counted of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from connectors.connection import Connection
from connectors.connector import ConnectorType
from consumers import facts
from consumers.assignment import Place
from consumers.control import Begin, inbox_topic
from consumers.flow import Reader
from consumers.pipeline import Pipeline
from consumers.receipt_writer import ReceiptWriter
from consumers.receipts import ReceiptForm
from consumers.runtime import Runtime
from consumers.subscription import Subscription, load_text
from ops.benchmarks.measure import Round
from ops.benchmarks.site import Site
from ops.watch.observe import Observation
from ops.wiring import collect_less
from producers.kafka import RecordProducer
from producers.uuid7 import uuid7
from schemas.codec import Decoder, Encoder
from schemas.contract import engine_contracts, load_contracts
from schemas.registry import open_registry

EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"
WITHIN_S = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is delivered where: a subscription's text, its connector, and the address of the vendor's fake (empty: the
    connector's own file in ``folder``). ``reader`` takes the pipeline's place where only the lanes are measured."""

    text: str
    kind: ConnectorType
    url: str = ""
    folder: Path = Path()
    receipts: bool = False
    reader: Callable[[Subscription], Reader] | None = None


class Count:
    """Settled deliveries of one runtime, counted from the first; set ``goal`` and wait for ``reached``."""

    def __init__(self, observe: facts.Observer) -> None:
        self._observe = observe
        self.settled = self.goal = 0
        self.first = self.last = (0.0, 0.0)
        self.reached = asyncio.Event()

    def __call__(self, fact: facts.Fact) -> None:
        self._observe(fact)
        if type(fact) is facts.DeliverySettled:
            self.settled += 1
            if self.settled == 1:
                self.first = (time.perf_counter(), time.process_time())
            elif self.settled == self.goal:
                self.last = (time.perf_counter(), time.process_time())
                self.reached.set()


async def deliver(job: Job, site: Site, topic: str, count: int) -> Round:
    """Deliver ``count`` events of the topic from its beginning, as a new group; the rate is that from the first settled
    one to the last, CPU is the whole process'."""
    counted = Count(Observation())
    counted.goal = count
    async with running([(job, topic)], site, observers=[counted]):
        async with asyncio.timeout(WITHIN_S):
            await counted.reached.wait()
    (began, cpu), (ended, cpu_ended) = counted.first, counted.last
    return Round(count - 1, ended - began, cpu_ended - cpu)


@asynccontextmanager
async def running(
    jobs: list[tuple[Job, str]],
    site: Site,
    *,
    observers: list[facts.Observer],
    group: str = "",
    kafka: Mapping[str, Any] | None = None,
    untils: Mapping[Place, int] | None = None,
    caught_up: Callable[[Sequence[Place]], None] = lambda _: None,
) -> AsyncIterator[list[Runtime]]:
    """Each job over its topic by a runtime in this process, from the topic's beginning (``group``: from where that
    group stands); jobs of one connector share its connection where they share its address. ``untils``: what is before
    these positions is folded first."""
    producer = RecordProducer({"bootstrap.servers": site.bootstrap}, block_s=0, served=True)
    registry = open_registry(site.registry)
    decoder = Decoder(registry, contracts={**load_contracts(EVENTS), **engine_contracts()})
    encoder = Encoder(registry)
    connections: dict[tuple[str, str], Connection] = {}
    runtimes: list[Runtime] = []

    def stopped(reason: str) -> None:
        print(f"(a subscription of the benchmark stopped: {reason})", file=sys.stderr, flush=True)

    for (job, topic), observer in zip(jobs, observers, strict=True):
        subscription = subscription_of(job, topic, group)
        site.topic(inbox_topic(subscription.name), partitions=site.partitions(topic))
        connection = connections.get((job.kind.name, job.url))
        if connection is None:
            settings = job.kind.settings.model_validate(job.kind.fake_settings(job.url, job.folder))
            connection = Connection(job.kind.name, job.kind, job.kind.open(settings), observer=lambda *_: None)
            connections[job.kind.name, job.url] = connection
        receipts = ReceiptWriter(
            ReceiptForm(subscription, b"benchmark"),
            encoder=encoder, contracts=engine_contracts(), producer=producer, ids=uuid7, chance=random.random,
        )  # fmt: skip
        runtimes.append(
            Runtime(
                subscription=subscription,
                pipeline=Pipeline(subscription, decoder) if job.reader is None else job.reader(subscription),
                connection=connection,
                producer=producer,
                receipts=receipts if job.receipts else None,
                kafka={"bootstrap.servers": site.bootstrap, **(kafka or {})},
                resolve=lambda committed: {
                    place: Begin(
                        0 if at is None else at,
                        first=at is None,
                        until=None if untils is None else untils.get(place),
                        fold=untils is not None and place in untils,
                    )
                    for place, at in committed.items()
                },
                started=lambda _: None,
                load_schema=decoder.load,
                stopped=stopped,
                caught_up=caught_up,
                observer=observer,
            )
        )
    collect_less()
    for runtime in runtimes:
        runtime.start()
    try:
        yield runtimes
    finally:
        for runtime in runtimes:
            await runtime.close("the benchmark is over")
        for connection in connections.values():
            await connection.close()
        await asyncio.to_thread(producer.close, 5.0)


def subscription_of(job: Job, topic: str, group: str = "") -> Subscription:
    """A new subscription (a new group) over a topic of its own: the contract's, with its topic replaced."""
    name = group or f"bench-b{uuid.uuid4().hex[:8]}"
    contracts, connections = load_contracts(EVENTS), {job.kind.name: job.kind}
    loaded = load_text(name, job.text, contracts=contracts, connections=connections, folder=Path())
    return dataclasses.replace(
        loaded, contracts={n: dataclasses.replace(c, topic=topic) for n, c in loaded.contracts.items()}
    )
