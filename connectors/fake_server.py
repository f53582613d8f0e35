"""A vendor's stand-in: a real HTTP/1.1 server on 127.0.0.1 that answers as documented and misbehaves on order.

What is the same for every vendor lives here: connections, the queue of misbehaviours, the report. What a vendor says
lives in ``connectors/<vendor>/fake.py``. It is written on ``asyncio.Protocol`` because it shares two cores with what
it measures, and because misbehaving needs the bytes in hand: half an answer, one byte at a time, a reset.

Control: ``GET /__fake__/report``, ``POST /__fake__/reset``, ``POST /__fake__/misbehave`` with a JSON list of orders
(``connectors/misbehaviour.py``).
"""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote

from connectors.misbehaviour import LASTING, WITHOUT_EFFECT, Misbehaviour, read_misbehaviours

REQUEST_MAX = 16 << 20
HEAD_MAX = 64 << 10


@dataclass(slots=True)
class Request:
    """What a client sent. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Reply:
    """What the vendor answers. ``body`` is JSON unless ``headers`` name another content type."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Vendor(Protocol):
    """What one vendor's fake says and remembers. Called on the server's loop, never blocks."""

    def answer(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        """Act and answer; ``partial`` holds the parameters of a queued partial failure."""
        ...

    def order(self, kind: str, parameters: Mapping[str, Any]) -> bool:
        """Take a lasting order (``quota``, ``tokens``); False when this vendor knows none of that kind."""
        ...

    def report(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What was applied so far, beside ``calls`` and ``by_status`` which the server counts."""
        ...

    def reset(self) -> None: ...


def json_reply(status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers)


class FakeServer:
    """Serves one Vendor (fulfils ``connectors.connector.Fake``). All on one event loop."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._address = ("127.0.0.1", 0)
        self._connections: set[_Connection] = set()
        self._queue: deque[Misbehaviour] = deque()
        self._latency_s = 0.0
        self._calls = 0
        self._by_status: Counter[str] = Counter()
        self._return: asyncio.TimerHandle | None = None
        self._reopening: asyncio.Task[None] | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Listen on ``host`` (a free port for 0) and answer the base URL. OSError when the port is taken."""
        self._address = (host, port)
        self._bind()
        await self._listen()
        return f"http://{host}:{self._address[1]}"

    async def stop(self) -> None:
        """Close the listener and every connection. May be called twice."""
        if self._return is not None:
            self._return.cancel()
        if self._reopening is not None:
            await self._reopening
        self._hang_up()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- listening, and being away ------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Hold the port without listening: connections are refused, and nobody else can take it meanwhile."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(self._address)
        except OSError:
            bound.close()
            raise
        self._address = (self._address[0], bound.getsockname()[1])
        self._socket = bound

    async def _listen(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, loop), sock=self._socket, backlog=1024)

    def _hang_up(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._socket = None
        for connection in list(self._connections):
            connection.abort()

    def _go_away(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._return is not None:
            self._return.cancel()
        if self._server is not None:
            self._hang_up()
            self._bind()

        def come_back() -> None:
            self._return = None
            self._reopening = loop.create_task(self._listen())

        self._return = loop.call_later(seconds, come_back)

    # -- one request --------------------------------------------------------------------------------------------

    def take(self, connection: _Connection, request: Request) -> None:
        """Answer (or not) one request that came in on a connection."""
        if request.path.startswith("/__fake__/"):
            connection.send(self._control(request), 0.0)
            return
        self._calls += 1
        if not self._queue:
            reply = self._vendor.answer(request, None)
            self._by_status[str(reply.status)] += 1
            connection.send(reply, self._latency_s)
            return
        order = self._queue[0]
        order.times -= 1
        if order.times == 0:
            self._queue.popleft()
        self._misbehave(connection, request, order)

    def _misbehave(self, connection: _Connection, request: Request, order: Misbehaviour) -> None:
        kind, given = order.kind, order.parameters
        if kind == "status":
            body = given["body"] if isinstance(given["body"], str) else json.dumps(given["body"])
            headers = tuple((str(name), str(value)) for name, value in given["headers"].items())
            self._by_status[str(given["status"])] += 1
            connection.send(Reply(given["status"], body.encode(), headers), self._latency_s)
            return
        if kind in WITHOUT_EFFECT:
            reply = json_reply(200, {"filler": "x" * 200})
        else:
            reply = self._vendor.answer(request, given if kind == "partial" else None)
        if kind in ("partial", "late", "slow_body", "bomb"):
            self._by_status[str(reply.status)] += 1
        else:
            self._by_status[kind] += 1
        match kind:
            case "partial":
                connection.send(reply, self._latency_s)
            case "late":
                connection.send(reply, given["seconds"])
            case "slow_body":
                connection.drip(reply, given["interval_s"])
            case "bomb":
                headers = (("Content-Encoding", "gzip"), ("Content-Type", "application/json"))
                connection.send(Reply(200, _bomb(int(given["bytes"])), headers), self._latency_s)
            case "cut" | "cut_after_effect":
                connection.cut(reply, half=given["at"] == "half")
            case _:
                connection.stall()

    def _control(self, request: Request) -> Reply:
        match request.method, request.path.removeprefix("/__fake__/"):
            case "GET", "report":
                counts = {"calls": self._calls, "by_status": dict(self._by_status), "queued": len(self._queue)}
                return json_reply(200, counts | self._vendor.report(request.query))
            case "POST", "reset":
                self._queue.clear()
                self._latency_s = 0.0
                self._calls = 0
                self._by_status.clear()
                self._vendor.reset()
                return json_reply(200, {"ok": True})
            case "POST", "misbehave":
                return self._take_orders(request.body)
            case _:
                return json_reply(404, {"error": "the control paths are GET report, POST misbehave and POST reset"})

    def _take_orders(self, body: bytes) -> Reply:
        try:
            orders = read_misbehaviours(json.loads(body))
        except (ValueError, RecursionError) as error:
            return json_reply(400, {"error": str(error)})
        for order in orders:
            if order.kind in LASTING and not self._vendor.order(order.kind, order.parameters):
                return json_reply(400, {"error": f"this vendor's fake knows no {order.kind}; nothing was queued"})
        for order in orders:
            if order.kind == "away":
                # after this answer is out, so that who ordered it gets to know
                asyncio.get_running_loop().call_later(0.01, self._go_away, order.parameters["seconds"])
            elif order.kind == "well":
                self._queue.clear()
                self._latency_s = 0.0
            elif order.kind == "latency":
                self._latency_s = order.parameters["ms"] / 1000
            elif order.kind not in LASTING:
                self._queue.append(order)
        return json_reply(200, {"queued": len(self._queue)})


class _Connection(asyncio.Protocol):
    """One client's connection: one request at a time, kept alive."""

    __slots__ = ("_buffer", "_busy", "_loop", "_server", "_timer", "_transport")

    def __init__(self, server: FakeServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._buffer = b""
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._server._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._read()

    def _read(self) -> None:
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            if len(self._buffer) > HEAD_MAX:
                self._refuse(431)
            return
        head = self._buffer[:head_end].decode("latin-1")
        request_line, _, header_text = head.partition("\r\n")
        headers = {}
        for line in header_text.split("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        parts = request_line.split(" ")
        length_text = headers.get("content-length", "0")
        if len(parts) != 3 or not length_text.isdigit():
            self._refuse(400)
            return
        if "transfer-encoding" in headers:
            self._refuse(411)
            return
        length = int(length_text)
        if length > REQUEST_MAX:
            self._refuse(413)
            return
        end = head_end + 4 + length
        if len(self._buffer) < end:
            if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == head_end + 4:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = self._buffer[head_end + 4 : end]
        self._buffer = self._buffer[end:]
        path, _, query = parts[1].partition("?")
        self._busy = True
        pairs = dict(parse_qsl(query)) if query else {}
        self._server.take(self, Request(parts[0], unquote(path), pairs, headers, body))

    def _refuse(self, status: int) -> None:
        self._busy = True
        self._write(_encode(Reply(status, b"{}", (("Connection", "close"),))))
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _done(self) -> None:
        self._busy = False
        if self._buffer:
            self._read()

    def send(self, reply: Reply, after_s: float) -> None:
        if after_s > 0:
            self._timer = self._loop.call_later(after_s, self.send, reply, 0.0)
            return
        self._write(_encode(reply))
        self._done()

    def drip(self, reply: Reply, interval_s: float) -> None:
        wire = _encode(reply)
        head_end = wire.index(b"\r\n\r\n") + 4
        self._write(wire[:head_end])
        self._drip(wire, head_end, interval_s)

    def _drip(self, wire: bytes, position: int, interval_s: float) -> None:
        if position == len(wire):
            self._done()
            return
        self._write(wire[position : position + 1])
        self._timer = self._loop.call_later(interval_s, self._drip, wire, position + 1, interval_s)

    def cut(self, reply: Reply, *, half: bool) -> None:
        if half:
            wire = _encode(reply)
            self._write(wire[: wire.index(b"\r\n\r\n") + 4 + len(reply.body) // 2])
        if self._transport is not None:
            self._transport.close()

    def stall(self) -> None:
        """Stay busy for good: what comes in on this connection is not looked at again."""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@lru_cache(maxsize=256)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unnamed"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def _encode(reply: Reply) -> bytes:
    head = [_status_line(reply.status)]
    typed = False
    for name, value in reply.headers:
        typed = typed or name.lower() == "content-type"
        head.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
    if not typed:
        head.append(b"Content-Type: application/json;charset=utf-8\r\n")
    head.append(b"Content-Length: %d\r\n\r\n" % len(reply.body))
    head.append(reply.body)
    return b"".join(head)


@lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    """gzip of ``size`` spaces. One flushed block is made once and repeated: after a full flush every block stands on
    its own, so 300 MB take milliseconds and not seconds."""
    block_size = 1_000_000
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * block_size
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + repeated * max(0, size // block_size - 1)
