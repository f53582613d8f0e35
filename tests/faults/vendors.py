"""The vendors of a fault run, in a process that is never faulted: the connectors' own fakes, which misbehave on order,
each with a journal of every call that came and everything that was applied, whatever was answered.

``python -m tests.faults.vendors --journals DIR --state FILE --vendor NAME=CONNECTOR..`` serves until SIGTERM; FILE then
holds the base URLs by name. ``POST /__fake__/behave`` ends every order at once and forgets nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from connectors.fake_server import FakeServer, Reply, Request, Vendor, _Connection, json_reply
from connectors.hubspot.fake import HubSpotFake
from connectors.misbehaviour import Misbehaviour
from connectors.slack.fake import SlackFake
from ops.local.state import write_json
from tests.faults.history import Journal

CANARY_TOKEN = "canary-2c91e0-secret"
"""The credential of every connection; it must appear in no log, metric or header."""


class Journalled:
    """A vendor whose deeds are written down, before its answer is."""

    def __init__(self, vendor: Vendor, deeds: Callable[[Request, Mapping[str, Any]], list[dict[str, Any]]],
                 journal: Journal) -> None:  # fmt: skip
        self._vendor, self._deeds, self._journal = vendor, deeds, journal
        self._seen = 0

    def answer(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        reply = self._vendor.answer(request, partial)
        report = self._vendor.report({"since": str(self._seen), "contacts": "0"})
        for deed in self._deeds(request, report):
            self._seen += 1
            self._journal.write("applied", **deed)
        return reply

    def order(self, kind: str, parameters: Mapping[str, Any]) -> bool:
        return self._vendor.order(kind, parameters)

    def report(self, query: Mapping[str, str]) -> dict[str, Any]:
        return self._vendor.report(query)

    def reset(self) -> None:
        self._seen = 0
        self._vendor.reset()


class Witness(FakeServer):
    """A fake that writes down every call as it comes in, with what it will do wrong with it."""

    def __init__(self, vendor: Vendor, asked: Callable[[Request], list[tuple[str, str]]], journal: Journal) -> None:
        super().__init__(vendor)
        self._asked, self._journal = asked, journal

    def take(self, connection: _Connection, request: Request) -> None:
        if request.path == "/__fake__/behave":
            self._queue.clear()
            self._latency_s = 0.0
            connection.send(json_reply(200, {"ok": True}), 0.0)
            return
        if not request.path.startswith("/__fake__/"):
            order: Misbehaviour | None = self._queue[0] if self._queue else None
            behaviour = None if order is None else {"does": order.kind, **order.parameters}
            self._journal.write("call", asked=self._asked(request), behaviour=behaviour)
        super().take(connection, request)


def _hubspot_asked(request: Request) -> list[tuple[str, str]]:
    try:
        inputs = json.loads(request.body)["inputs"]
        return [(f"{one['id']}/{one['properties']['plan']}", one["objectWriteTraceId"]) for one in inputs]
    except (ValueError, KeyError, TypeError):
        return []  # a call without deliveries: a look-up, or a check of the credential


def _hubspot_deeds(request: Request, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    numbers = {trace: event for event, trace in _hubspot_asked(request)}
    return [
        {"entity": entity, "trace": trace, "event": numbers.get(trace, "")} for entity, trace in report["applications"]
    ]


def _slack_asked(request: Request) -> list[tuple[str, str]]:
    try:
        message = json.loads(request.body)
        return [(message["text"], message["metadata"]["event_payload"]["idempotency_key"])]
    except (ValueError, KeyError, TypeError):
        return []


def _slack_deeds(_request: Request, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"entity": str(one["text"]).rpartition("/")[0], "trace": one["key"], "event": one["text"]}
        for one in report["messages"]
    ]


def make(connector: str, journal: Journal) -> Witness:
    """A vendor with its journal. ``asked`` and deeds are told as event id (``key/number``) and idempotency key."""
    if connector == "hubspot":
        return Witness(Journalled(HubSpotFake(CANARY_TOKEN), _hubspot_deeds, journal), _hubspot_asked, journal)
    if connector == "slack":
        return Witness(Journalled(SlackFake(CANARY_TOKEN), _slack_deeds, journal), _slack_asked, journal)
    raise ValueError(f"there is no witness for {connector}")


async def serve(state: Path, journals: Path, wanted: Mapping[str, str]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the run's own process decides
    servers = {name: make(connector, Journal(journals / f"{name}.vendor")) for name, connector in wanted.items()}
    urls = {name: await server.start() for name, server in servers.items()}
    write_json(state, urls)
    await ended.wait()
    for server in servers.values():
        await server.stop()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.vendors")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--journals", type=Path, required=True)
    parser.add_argument("--vendor", action="append", required=True, metavar="NAME=CONNECTOR")
    given = parser.parse_args(arguments)
    asyncio.run(serve(given.state, given.journals, dict(one.split("=", 1) for one in given.vendor)))


if __name__ == "__main__":
    main(sys.argv[1:])
