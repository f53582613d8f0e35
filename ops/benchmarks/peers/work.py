"""What every peer does with an event, in the peers' own environment: decode it, post a message, count.

Nothing of this project is imported: it may not be importable there. A peer is called with where things are and prints
one line of JSON: events, seconds, CPU seconds, from the first settled event to the last.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
import urllib.request
from typing import Any

import aiohttp
import fastavro

LIMIT_S = 60.0


class Work:
    """Made on the event loop. ``count`` events, or what is done of them in a minute."""

    def __init__(self, arguments: list[str]) -> None:
        self.bootstrap, self.registry, self.url, self.token, self.topic, count = arguments
        self.count = int(count)
        self.done = asyncio.Event()
        self._settled = 0
        self._schemas: dict[int, Any] = {}
        self._first = (0.0, 0.0)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=256),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json; charset=utf-8"},
        )

    async def deliver(self, value: bytes) -> None:
        """One event, wholly."""
        data = self._decoded(value)
        body = {"channel": "#bench", "text": f"Invoice {data['invoice_id']}: {data['total_minor']}"}
        async with self._http.post(f"{self.url}/chat.postMessage", data=json.dumps(body).encode()) as answer:
            said = await answer.json()
        if answer.status != 200 or not said["ok"]:
            raise RuntimeError("the vendor's fake refused")
        self._settled += 1
        if self._settled == 1:
            self._first = (time.perf_counter(), time.process_time())
        if self._settled == self.count or time.perf_counter() - self._first[0] > LIMIT_S:
            self.done.set()

    def tell(self) -> None:
        """Print what was measured, and end the process: how a peer shuts down is not measured."""
        seconds, cpu = time.perf_counter() - self._first[0], time.process_time() - self._first[1]
        print(json.dumps({"events": self._settled - 1, "seconds": seconds, "cpu_seconds": cpu}))
        sys.stdout.flush()
        os._exit(0)

    def _decoded(self, value: bytes) -> Any:
        number = int.from_bytes(value[1:5], "big")
        schema = self._schemas.get(number)
        if schema is None:
            with urllib.request.urlopen(f"{self.registry}/schemas/ids/{number}", timeout=10) as answer:
                schema = self._schemas[number] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
