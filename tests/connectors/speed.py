"""How fast a connector and its fake are together, and what a call costs each in CPU. Not a test: run it by hand.

``python -m tests.connectors.speed hubspot --calls 10000 --in-flight 64 --batch 1 [--loop asyncio]``
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from connectors.connector import Delivered, connector_types
from tests.connectors.samples import example

CLOCK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def runner(loop: str) -> Callable[[Coroutine[Any, Any, None]], None]:
    if loop == "asyncio":
        return asyncio.run
    import uvloop

    return uvloop.run


def serve(name: str, loop: str, said: Any) -> None:
    async def forever() -> None:
        make = connector_types()[name].fake
        assert make is not None
        said.send(await make().start())
        await asyncio.Event().wait()

    runner(loop)(forever())


async def measure(name: str, url: str, pid: int | None, calls: int, in_flight: int, batch: int) -> None:
    kind = connector_types()[name]
    with tempfile.TemporaryDirectory() as folder:
        connector = kind.open(kind.settings(**kind.fake_settings(url, Path(folder))))
        ready = [[example(kind, call * batch + index) for index in range(batch)] for call in range(calls)]
        await connector.deliver(ready[0])
        waiting = iter(ready)

        async def lane() -> None:
            for deliveries in waiting:
                outcomes = await connector.deliver(deliveries)
                assert all(isinstance(outcome, Delivered) for outcome in outcomes), outcomes[0]

        theirs, ours, start = cpu_s(pid) if pid else 0.0, time.process_time(), time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(in_flight)))
        took, ours = time.perf_counter() - start, time.process_time() - ours
        line = f"{name}: {calls / took:,.0f} calls/s, {calls * batch / took:,.0f} deliveries/s"
        line += f", connector {ours / calls * 1e6:.0f} µs CPU a call"
        print(line + (f", fake {(cpu_s(pid) - theirs) / calls * 1e6:.0f} µs" if pid else ""))  # noqa: T201
        await connector.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("name")
    arguments.add_argument("--calls", type=int, default=10_000)
    arguments.add_argument("--in-flight", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    given = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(given.name, given.loop, theirs))
    has_fake = connector_types()[given.name].fake is not None
    if has_fake:
        process.start()
    try:
        url, pid = (ours.recv(), process.pid) if has_fake else ("", None)
        runner(given.loop)(measure(given.name, url, pid, given.calls, given.in_flight, given.batch))
    finally:
        if has_fake:
            process.terminate()


if __name__ == "__main__":
    main()
