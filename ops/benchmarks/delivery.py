"""One run of a subscription's real runtime over a topic, wired and observed as in ``backbone run``.

As a program it is the process of the memory benchmark: a vendor that never answers, a long backlog; prints its peak
memory in KiB.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import time
import uuid
from pathlib import Path

import uvloop

from connectors.connection import Connection
from connectors.connector import ConnectorType
from consumers import facts
from consumers.control import Begin
from consumers.pipeline import Pipeline
from consumers.runtime import Runtime
from consumers.subscription import Subscription, load_text
from ops.benchmarks.measure import Round
from ops.watch import logs
from ops.watch.observe import Observation
from ops.wiring import collect_less
from producers.kafka import RecordProducer
from schemas.codec import Decoder
from schemas.contract import engine_contracts, load_contracts
from schemas.registry import open_registry

EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"
WITHIN_S = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is delivered where: a subscription's text, its connector, and the address of the vendor's fake (empty: the
    connector's own file in ``folder``)."""

    text: str
    kind: ConnectorType
    url: str = ""
    folder: Path = Path()


def deliver(job: Job, bootstrap: str, decoder: Decoder, topic: str, count: int) -> Round:
    """Deliver ``count`` events of the topic from its beginning, as a new group; what is counted begins at the first
    settled one."""
    with open(os.devnull, "w") as nowhere:
        logs.configure(True, stream=nowhere)
        return uvloop.run(_deliver(job, bootstrap, decoder, topic, count))


async def _deliver(
    job: Job, bootstrap: str, decoder: Decoder, topic: str, count: int, *, stalled_s: float = 0.0
) -> Round:
    subscription = _subscription(job, topic)
    producer = RecordProducer({"bootstrap.servers": bootstrap}, block_s=0)
    settings = job.kind.settings.model_validate(job.kind.fake_settings(job.url, job.folder))
    connection = Connection(job.kind.name, job.kind, job.kind.open(settings), observer=lambda *_: None)
    observation = Observation()
    settled = counted = 0
    began = ended = (0.0, 0.0)
    done = asyncio.Event()

    def observe(fact: facts.Fact) -> None:
        nonlocal settled, counted, began, ended
        observation(fact)
        if type(fact) is facts.DeliverySettled:
            settled += 1
            if settled == 1:
                began = (time.perf_counter(), time.process_time())
            elif settled == count:
                ended = (time.perf_counter(), time.process_time())
                done.set()

    def stopped(reason: str) -> None:
        raise RuntimeError(reason)

    runtime = Runtime(
        subscription=subscription,
        pipeline=Pipeline(subscription, decoder),
        connection=connection,
        producer=producer,
        receipts=None,
        kafka={"bootstrap.servers": bootstrap},
        resolve=lambda committed: {place: Begin(0, first=True) for place in committed},
        started=lambda _: None,
        load_schema=decoder.load,
        stopped=stopped,
        observer=observe,
    )
    collect_less()
    runtime.start()
    try:
        if stalled_s:
            await asyncio.sleep(stalled_s)
            if settled or runtime.unfinished < runtime.limits.records_max:
                raise RuntimeError("the vendor was not stalled, or the process did not take in what it may")
            return Round(1, 1.0, 1.0)
        async with asyncio.timeout(WITHIN_S):
            await done.wait()
    finally:
        await runtime.close("the benchmark is over")
        await connection.close()
        await asyncio.to_thread(producer.close, 5.0)
    return Round(count - 1, ended[0] - began[0], ended[1] - began[1])


def _subscription(job: Job, topic: str) -> Subscription:
    """A new subscription (a new group) over a topic of its own: the contract's, with its topic replaced."""
    name = f"bench-b{uuid.uuid4().hex[:8]}"
    contracts, connections = load_contracts(EVENTS), {job.kind.name: job.kind}
    loaded = load_text(name, job.text, contracts=contracts, connections=connections, folder=Path())
    return dataclasses.replace(
        loaded, contracts={n: dataclasses.replace(c, topic=topic) for n, c in loaded.contracts.items()}
    )


def _stalled(arguments: argparse.Namespace) -> int:
    """Run against a vendor that does not answer; the most memory this process has had so far, in KiB."""
    from ops.benchmarks.path import SLACK_JOB

    job = dataclasses.replace(SLACK_JOB, url=arguments.vendor)
    decoder = Decoder(open_registry(arguments.registry), contracts={**load_contracts(EVENTS), **engine_contracts()})
    uvloop.run(_deliver(job, arguments.bootstrap, decoder, arguments.topic, 1, stalled_s=arguments.seconds))
    with open("/proc/self/status") as lines:  # not ru_maxrss: that begins with the memory of the parent
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A process with a stalled vendor; prints its peak memory in KiB.")
    for name in ("bootstrap", "registry", "vendor", "topic"):
        parser.add_argument(name)
    parser.add_argument("seconds", type=float)
    logs.configure(True, level="warning")
    print(_stalled(parser.parse_args()))
