"""The small HTTP server of a process: ``/live``, ``/ready`` and ``/metrics``, and what a monitor answers besides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from schemas.errors import RefusedError


class HealthServer:
    """A running server; ``port`` is the one it listens on."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    async def stop(self) -> None:
        """Stop listening. May be called twice."""
        await self._runner.cleanup()


async def serve(
    host: str,
    port: int,
    *,
    live: Callable[[], bool],
    ready: Callable[[], bool],
    registry: CollectorRegistry,
    more: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]] | None = None,
) -> HealthServer:
    """Listen on ``host:port`` (a free port for 0) on the running event loop until ``stop()``.

    ``GET /live`` and ``/ready`` answer 200 or 503 by asking ``live`` and ``ready`` (quick, called on the loop); they
    speak of the process, not of a stopped subscription: restarting the process would not clear that. ``GET /metrics``
    answers in Prometheus' text or OpenMetrics form as asked; it is rendered in a thread so that the loop stays free.
    ``more`` are other paths to read, by their pattern.
    Raises RefusedError if the port cannot be listened on.
    """
    app = web.Application()
    app.router.add_get("/live", _probe(live))
    app.router.add_get("/ready", _probe(ready))
    app.router.add_get("/metrics", _metrics(registry))
    for path, answer in (more or {}).items():
        app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise RefusedError(
            f"Health and metrics cannot be served on {host}:{port}: {error.strerror or 'the address is not usable'}. "
            "Choose another port; 0 takes a free one."
        ) from None
    return HealthServer(runner, runner.addresses[0][1])


def _probe(ask: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        good = ask()
        return web.Response(text="ok\n" if good else "no\n", status=200 if good else 503)

    return answer


def _metrics(registry: CollectorRegistry) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer
