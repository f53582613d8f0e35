"""The connector of a connection and its successor: a call ends with the connector it began with.

When credentials change, the next call takes the new connector; the old one is closed when its last call has ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from connectors.connector import Connector


@dataclass(slots=True, eq=False)
class Turn:
    """One connector's time in use. ``calls``: how many are in flight. Not frozen: it is counted per call."""

    connector: Any
    calls: int = 0


class Succession:
    """On the connection's event loop."""

    __slots__ = ("_closing", "_turn")

    def __init__(self, connector: Connector) -> None:
        self._turn = Turn(connector)
        self._closing: set[asyncio.Task[None]] = set()

    def begin(self) -> Turn:
        """Who answers a call that begins now; give it back with ``end``."""
        self._turn.calls += 1
        return self._turn

    def end(self, turn: Turn) -> None:
        turn.calls -= 1
        if not turn.calls and turn is not self._turn:
            self._close(turn)

    def is_over(self, turn: Turn) -> bool:
        """Whether another connector has taken its place."""
        return turn is not self._turn

    def follow(self, connector: Connector) -> None:
        """Calls from now on are the new one's."""
        before, self._turn = self._turn, Turn(connector)
        if not before.calls:
            self._close(before)

    async def close(self) -> None:
        """Close the connector in use, and wait for those that are being closed."""
        await asyncio.gather(self._turn.connector.close(), *self._closing)

    def _close(self, turn: Turn) -> None:
        task = asyncio.get_running_loop().create_task(turn.connector.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
