"""Access tokens that expire: one refresh at a time, ahead of the expiry, shared by every call of a connection.

A hundred calls that meet an expired token cause one refresh and wait for it; a call that was refused (401) with a token
that somebody has renewed meanwhile gets the new one and causes none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from connectors.connector import Unavailable

AHEAD = 0.1
"""The last part of a token's life in which it is renewed while calls go on with it."""
AGAIN_AFTER_S = 10.0
"""How long after a refresh that failed the next one is tried, while the old token still works."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A token the vendor has just issued, and how many seconds it lives. Its repr does not show it."""

    token: str = field(repr=False)
    seconds: float


Fetch: TypeAlias = Callable[[], Awaitable[Fresh | Unavailable]]
"""Asks the vendor for a token. Bounded in time, raises nothing: a refusal is Unavailable(needs_operator)."""


class Tokens:
    """The tokens of one connection, on its event loop. ``clock`` is in seconds and never steps back."""

    __slots__ = ("_again_at", "_clock", "_expires_at", "_fetch", "_refreshing", "_renew_at", "_token")

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._clock = fetch, clock
        self._token: str | None = None
        self._expires_at = self._renew_at = self._again_at = float("-inf")
        self._refreshing: asyncio.Task[Fresh | Unavailable] | None = None

    async def current(self) -> str | Unavailable:
        """A token that works, as far as is known. Waits only when there is none; a token near its end is renewed in
        the background."""
        now = self._clock()
        if self._token is None or now >= self._expires_at:
            return await self._refreshed()
        if now >= self._renew_at and now >= self._again_at:
            self._refresh()
        return self._token

    async def renew(self, refused: str) -> str | Unavailable:
        """A token in place of one that the vendor has refused: a new one, unless there is one already."""
        if self._token is not None and self._token != refused:
            return self._token
        self._token = None
        return await self._refreshed()

    async def close(self) -> None:
        """Give up a refresh on its way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _refreshed(self) -> str | Unavailable:
        # shielded: who gives up waiting (a deadline) must not take the refresh away from the others
        found = await asyncio.shield(self._refresh())
        return found if isinstance(found, Unavailable) else found.token

    def _refresh(self) -> asyncio.Task[Fresh | Unavailable]:
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._fetch_once())
        return self._refreshing

    async def _fetch_once(self) -> Fresh | Unavailable:
        try:
            found = await self._fetch()
            now = self._clock()
            if isinstance(found, Unavailable):
                self._again_at = now + AGAIN_AFTER_S
            else:
                self._token = found.token
                self._expires_at = now + found.seconds
                self._renew_at = now + found.seconds * (1 - AHEAD)
            return found
        finally:
            self._refreshing = None
