"""pyrallel-consumer: parallel by key, commits of what is contiguous; asyncio engine, 256 in flight."""

from __future__ import annotations

import asyncio
import sys
import uuid

import uvloop
from pyrallel_consumer import PyrallelConsumer  # type: ignore[import-not-found,unused-ignore]
from pyrallel_consumer.config import KafkaConfig  # type: ignore[import-not-found,unused-ignore]

from ops.benchmarks.peers.work import Work


async def main() -> None:
    work = Work(sys.argv[1:])
    config = KafkaConfig(
        BOOTSTRAP_SERVERS=work.bootstrap, CONSUMER_GROUP=f"peer-{uuid.uuid4().hex[:8]}", dlq_enabled=False
    )
    config.parallel_consumer.execution.max_in_flight = 256

    async def deliver(item: object) -> None:
        await work.deliver(item.payload)  # type: ignore[attr-defined]

    consumer = PyrallelConsumer(config, deliver, work.topic)
    await consumer.start()
    await work.done.wait()
    work.tell()


asyncio.run(main(), loop_factory=uvloop.new_event_loop)  # type: ignore[call-arg,unused-ignore]
