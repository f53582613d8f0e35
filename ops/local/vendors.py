"""Every connector's fake in one process: what the connections of the ``local`` context reach.

``python -m ops.local.vendors --state FILE [--host ADDRESS] [--port CONNECTOR=PORT]..`` serves until SIGTERM. When all
listen, FILE holds the pid and their base URLs by connector. A port that is not named is the one in an older FILE if it
is free, else any free one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from connectors.connector import Fake, connector_types
from ops.local.fakes import ports_of, read_fakes, write_fakes
from ops.local.ports import choose
from schemas.errors import BackboneError, InputError


async def serve(state: Path, *, host: str, ports: Mapping[str, int]) -> None:
    """Serve until the process is told to end. ``ports`` by connector; the others are kept or chosen."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    types = connector_types(lambda sentence: print(f"Warning: {sentence}", file=sys.stderr, flush=True))  # noqa: T201
    makers = {name: kind.fake for name, kind in sorted(types.items()) if kind.fake is not None}
    if unknown := sorted(set(ports) - set(makers)):
        raise InputError(f"--port: no connector '{unknown[0]}' has a fake. There are: {', '.join(makers)}.")
    others = [name for name in makers if name not in ports]
    listening = {**choose(others, ports_of(read_fakes(state))), **ports}
    fakes: list[Fake] = []
    urls: dict[str, str] = {}
    try:
        for name, make in makers.items():
            fake = make()
            urls[name] = await fake.start(listening[name], host)
            fakes.append(fake)
        write_fakes(state, urls)
        await ended.wait()
    finally:
        for fake in fakes:
            await fake.stop()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.local.vendors", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, help="file that gets the base URLs as JSON")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", action="append", default=[], type=_port, metavar="CONNECTOR=PORT", dest="ports")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(serve(given.state, host=given.host, ports=dict(given.ports)))
    except (BackboneError, OSError) as error:
        parser.exit(1, f"Error: {error}\n")


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal() or not 0 < int(number) < 65536:
        raise argparse.ArgumentTypeError("write CONNECTOR=PORT, as in hubspot=8181")
    return name, int(number)


if __name__ == "__main__":
    main(sys.argv[1:])
