"""Asking one vendor what it has: call after call, as background, through the gate that deliveries go through.

The workers know nothing of it, so it takes only a part of what background may: with the usual settings a tenth of the
connection's rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from connectors.breaker import Circuit
from connectors.connection import Connection
from connectors.connector import Delivery, Kept, Page, Rejected, Unavailable
from schemas.errors import NotAllowedError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from connectors.connector import ConnectorType
    from ops.app import App

SHARE: Final = 1 / 3
"""Of what one process that has the whole quota would leave to background."""
WAIT_S: Final = 120.0
"""So long the vendor may be away, or ask for quiet, before this is given up."""
T = TypeVar("T")


class Asking:
    """One account of a vendor, to be read. Use as an asynchronous context on one event loop.

    Raises InputError, UnreachableError for settings that are not there; NotAllowedError where the vendor refuses the
    credentials, UnreachableError where it does not answer for ``WAIT_S``. Nothing is ever applied there."""

    def __init__(self, app: App, name: str, kind: ConnectorType) -> None:
        control = app.control().connections.get(name)
        if control is not None and control.state != "running":
            raise RefusedError(
                f"The connection '{name}' is {control.state}, so it is not asked. Let it be used again: "
                f"backbone connection resume {name}. Or without it: --no-vendor"
            )
        self.name, self._kind, self._resolved = name, kind, app.context.connection(name)
        self._settings = self._resolved.settings(kind)
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Asking:
        total_s = float(getattr(self._settings, "timeout_s", 20.0))
        self._connection = Connection(
            self.name,
            self._kind,
            self._kind.open(self._settings),
            observer=lambda *_: None,
            quota=self._resolved.quota,
            circuit=Circuit.of(open_s=self._resolved.circuit_open_s, total_s=total_s),
            total=timedelta(seconds=total_s),
        )
        self._seat = self._connection.join("reconcile", wake=self._wake.set)
        self._seat.share = SHARE
        return self

    async def __aexit__(self, *_: object) -> None:
        self._seat.close()
        await self._connection.close()

    async def read_back(self, wanted: Sequence[Delivery]) -> Sequence[Kept | Rejected | None]:
        """What the vendor has of them, one answer each."""
        return await self._asked(lambda: self._seat.read_back(wanted))

    async def list_ours(self, about: Mapping[str, Any], after: str) -> Page:
        """A page of what is ours there."""
        return await self._asked(lambda: self._seat.list_ours(about, after))

    async def _asked(self, ask: Callable[[], Awaitable[T | Unavailable]]) -> T:
        reason = "no call could be made"
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    await self._enter()
                    try:
                        found = await ask()
                    finally:
                        self._seat.leave()
                    if not isinstance(found, Unavailable):
                        return found
                    reason = found.reason
                    if found.needs_operator:
                        raise NotAllowedError(
                            f"{self.name} refuses to be read ({reason}). Nothing was stored. See: "
                            f"backbone connection check {self.name}"
                        )
                    after = None if found.after is None else found.after.total_seconds()
                    self._connection.pause(after, reason)
        except TimeoutError:
            raise UnreachableError(
                f"{self.name} could not be read for {WAIT_S:g} s ({reason}). Nothing was stored. Try again when it "
                "answers, or without it: --no-vendor"
            ) from None

    async def _enter(self) -> None:
        while True:
            self._wake.clear()
            if self._seat.try_enter(background=True):
                return
            await self._wake.wait()


def read_back_problem(kind: ConnectorType) -> str:
    """Why what this vendor has cannot be compared; empty: it can."""
    if not kind.read_back:
        return f"the connector {kind.name} cannot be asked what it has"
    if not any(action.upsert for action in kind.actions.values()):
        return f"no action of {kind.name} keeps a state"
    return ""
