"""Brings servers of other containers to 127.0.0.1 of this one, and runs a command beside.

``python -m ops.local.forward PORT=HOST:PORT.. -- COMMAND..`` ends when the command ends, with its exit code, and hands
SIGTERM and SIGINT on to it. Connectors take an address without TLS only on their own machine, so that no credential
crosses a network in clear; the fakes of docker-compose.yml live in a container of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence

CONNECT_MAX_S = 10.0
CHUNK_BYTES = 65_536
WRITTEN_WRONG = "Error: write PORT=HOST:PORT.. -- COMMAND.., as in 8181=vendors:8181 -- backbone run\n"


async def forward(port: int, host: str, to: int) -> asyncio.Server:
    """Listen on 127.0.0.1:``port`` and pass every connection on to ``host:to``; one that cannot be is closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                there_reader, there_writer = await asyncio.open_connection(host, to)
        except OSError:  # TimeoutError is one
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, there_writer))
                both.create_task(_pass_on(there_reader, writer))
        finally:
            writer.close()
            there_writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        # a side that was cut is cut on the other side too
        target.transport.abort()


async def run(forwards: Sequence[tuple[int, str, int]], command: Sequence[str]) -> int:
    """Serve until ``command`` has ended; its exit code (128 + n when signal n ended it)."""
    servers = [await forward(*each) for each in forwards]
    process = await asyncio.create_subprocess_exec(*command)
    loop = asyncio.get_running_loop()

    def hand_on(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hand_on, number)
    code = await process.wait()
    for server in servers:
        server.close()
    return code if code >= 0 else 128 - code


def read(arguments: Sequence[str]) -> tuple[list[tuple[int, str, int]], list[str]] | None:
    """What was typed; None when it is not of the form above."""
    if "--" not in arguments:
        return None
    split = list(arguments).index("--")
    forwards = []
    for text in arguments[:split]:
        port, _, target = text.partition("=")
        host, _, to = target.rpartition(":")
        if not (port.isdecimal() and to.isdecimal() and host):
            return None
        forwards.append((int(port), host, int(to)))
    command = list(arguments[split + 1 :])
    return (forwards, command) if command else None


if __name__ == "__main__":
    given = read(sys.argv[1:])
    if given is None:
        sys.stderr.write(WRITTEN_WRONG)
        sys.exit(2)
    sys.exit(asyncio.run(run(*given)))
