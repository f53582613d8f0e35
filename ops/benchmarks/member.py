"""One process of a subscription, for what is measured between processes: ``python -m ops.benchmarks.member ...``.

It says on standard output, a line each: ``full`` when it has taken in what it may, ``delivered`` at its first delivery,
and when it is told to end (SIGTERM) ``peak N``, the most memory it has had so far in KiB. It ends without leaving its
group in an orderly way.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
from contextlib import suppress

import uvloop

from ops.benchmarks.delivery import Count, running
from ops.benchmarks.jobs import SLACK_JOB
from ops.benchmarks.memory import peak_mib
from ops.benchmarks.site import Site
from ops.watch import logs
from ops.watch.observe import Observation


async def main(arguments: argparse.Namespace) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    job = dataclasses.replace(SLACK_JOB, url=arguments.vendor, receipts=True)
    count = Count(Observation())
    kafka = {"group.protocol": arguments.protocol}
    async with running(
        [(job, arguments.topic)], Site(arguments.bootstrap, arguments.registry), observers=[count],
        group=arguments.group, kafka=kafka,
    ) as (runtime,):  # fmt: skip
        full = delivered = False
        while not ended.is_set():
            if not delivered and count.settled:
                print("delivered", flush=True)
                delivered = True
            if not full and runtime.unfinished >= runtime.limits.records_max:
                print("full", flush=True)
                full = True
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.01)
        print("peak", round(peak_mib() * 1024), flush=True)
        os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A process of a subscription; says how it is on standard output.")
    for name in ("bootstrap", "registry", "vendor", "topic", "group"):
        parser.add_argument(name)
    parser.add_argument("--protocol", default="consumer", choices=["consumer", "classic"])
    logs.configure(True, level="error")
    uvloop.run(main(parser.parse_args()))
