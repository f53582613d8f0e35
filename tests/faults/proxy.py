"""A TCP proxy that makes a network bad on order: latency with jitter, connections cut at random, one direction blocked.

A process of its own: ``python -m tests.faults.proxy --state FILE --seed N --to HOST:PORT..``; FILE then holds its
addresses by target. Orders are JSON lines on stdin and hold for every connection from the next piece of data on:
``{"latency_ms": 300, "jitter_ms": 200, "cut": 0.05, "blocked": "up" | "down" | "", "away": false}``; ``cut`` is the
share of connections that are cut within 2 s, of the open ones (one at least) and of new ones. ``{}`` is a good network
again. It ends with its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ops.local.state import write_json

PIECE = 65_536
CUT_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How the network is. ``up`` is from the client to the server."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    cut: float = 0.0
    blocked: Literal["", "up", "down"] = ""
    away: bool = False
    """open connections are cut, new ones refused"""


class Proxy:
    """Lives on one event loop. ``cuts``, ``delayed`` and ``held`` count what was done to the traffic."""

    def __init__(self, seed: int) -> None:
        self._weather = Weather()
        self._changed = asyncio.Event()
        self._chance = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = self.delayed = self.held = 0

    def order(self, weather: Weather) -> None:
        self._weather = weather
        if weather.away:
            self._cut(*self._open)
        elif weather.cut and self._open:
            some = self._chance.sample(sorted(self._open, key=id), max(1, round(len(self._open) * weather.cut)))
            for one in some:
                asyncio.get_running_loop().call_later(self._chance.random() * CUT_WITHIN_S, self._cut, one)
        self._changed.set()
        self._changed = asyncio.Event()

    async def listen(self, host: str, port: int) -> str:
        """Forward from a free port of this machine; answers its address."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(host, port, reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._weather.away:
            self._cut(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        cut = None
        if self._chance.random() < self._weather.cut:
            loop = asyncio.get_running_loop()
            cut = loop.call_later(self._chance.random() * CUT_WITHIN_S, self._cut, writer, server_writer)
        self._open |= {writer, server_writer}
        try:
            await asyncio.gather(self._pump("up", reader, server_writer), self._pump("down", server_reader, writer))
        finally:
            if cut is not None:
                cut.cancel()
            self._open -= {writer, server_writer}
            for one in (writer, server_writer):
                one.close()

    def _cut(self, *writers: asyncio.StreamWriter) -> None:
        self.cuts += 1
        for writer in writers:
            writer.transport.abort()

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # cut by either side: both ends are closed by _serve
            while data := await reader.read(PIECE):
                weather = self._weather
                while weather.blocked == direction:
                    self.held += 1
                    await self._changed.wait()
                    weather = self._weather
                if weather.latency_ms:
                    self.delayed += 1
                    wait_ms = weather.latency_ms + self._chance.uniform(-1, 1) * weather.jitter_ms
                    await asyncio.sleep(max(0.0, wait_ms) / 1000)
                writer.write(data)
                await writer.drain()
        if not writer.is_closing() and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()


async def serve(state: Path, seed: int, targets: list[str]) -> None:
    proxy = Proxy(seed)
    addresses = {}
    for target in targets:
        host, _, port = target.rpartition(":")
        addresses[target] = await proxy.listen(host, int(port))
    write_json(state, addresses)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    known = {field.name for field in fields(Weather)}
    while line := await orders.readline():
        order = json.loads(line)
        if unknown := set(order) - known:
            raise ValueError(f"no such weather: {', '.join(sorted(unknown))}")
        proxy.order(Weather(**order))
        counts = {"cuts": proxy.cuts, "delayed": proxy.delayed, "held": proxy.held}
        sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.proxy")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", action="append", required=True, metavar="HOST:PORT")
    given = parser.parse_args(arguments)
    asyncio.run(serve(given.state, given.seed, given.to))


if __name__ == "__main__":
    main(sys.argv[1:])
