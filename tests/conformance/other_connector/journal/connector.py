"""The connector: appends, and says what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from connectors.connector import Delivered, Delivery, Outcome, Unavailable


class Journal:
    """Adds lines to a file, in the order they are asked for."""

    pause_until = 0.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        lines = [json.dumps({"entity": one.entity, **one.body}) + "\n" for one in batch]
        try:
            await asyncio.to_thread(self._append, "".join(lines))
        except OSError as error:
            return [Unavailable(error.strerror or "file", needs_operator=True)] * len(batch)
        return [Delivered()] * len(batch)

    async def close(self) -> None:
        pass

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
