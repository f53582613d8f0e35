"""Every connector's fake in one process: what the connections of the ``local`` context reach.

``python -m ops.local.vendors --state FILE`` serves until SIGTERM. When all listen, FILE holds its pid and their base
URLs by connector; the ports in an older FILE are used again when they are free.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from connectors.connector import Fake, connector_types
from ops.local.ports import choose
from ops.local.fakes import ports_of, read_fakes, write_fakes


async def serve(state: Path) -> None:
    """Serve until the process is told to end, each fake on the port it had before if that is still free."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    makers = {name: kind.fake for name, kind in sorted(connector_types().items()) if kind.fake is not None}
    ports = choose(list(makers), ports_of(read_fakes(state)))
    fakes: list[Fake] = []
    urls: dict[str, str] = {}
    try:
        for name, make in makers.items():
            fake = make()
            urls[name] = await fake.start(ports[name])
            fakes.append(fake)
        write_fakes(state, urls)
        await ended.wait()
    finally:
        for fake in fakes:
            await fake.stop()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.local.vendors", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="file that gets the base URLs as JSON")
    asyncio.run(serve(parser.parse_args(arguments).state))


if __name__ == "__main__":
    main(sys.argv[1:])
