"""FastStream on confluent-kafka, acknowledging after the work: what its documentation shows for at-least-once."""

from __future__ import annotations

import asyncio
import sys
import uuid

import uvloop
from faststream import AckPolicy  # type: ignore[import-not-found,unused-ignore]
from faststream.confluent import KafkaBroker, KafkaMessage  # type: ignore[import-not-found,unused-ignore]

from ops.benchmarks.peers.work import Work


async def main() -> None:
    work = Work(sys.argv[1:])
    broker = KafkaBroker(work.bootstrap, logger=None)

    @broker.subscriber(  # type: ignore[untyped-decorator,unused-ignore]
        work.topic,
        group_id=f"peer-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=_raw,
    )
    async def deliver(value: bytes) -> None:
        await work.deliver(value)

    await broker.start()
    await work.done.wait()
    work.tell()


async def _raw(message: KafkaMessage) -> bytes:
    return bytes(message.body)


asyncio.run(main(), loop_factory=uvloop.new_event_loop)  # type: ignore[call-arg,unused-ignore]
