"""``1,200/2,000 events  3,400/s  eta 1s``: how far something long has come."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import IO


class Progress:
    """Counts what is done and says so on ``stream``: a line that moves on a terminal, one line at the end elsewhere.

    ``advance`` may be called per event: it looks at the clock, and writes at most five times a second. One thread.
    """

    def __init__(self, total: int | None, unit: str, *, stream: IO[str] | None, moving: bool) -> None:
        self.total = total
        self.done = 0
        self._unit = unit
        self._stream = stream
        self._moving = moving
        self._began = time.monotonic()
        self._written = 0.0

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self._stream is None or not self._moving:
            return
        now = time.monotonic()
        if now - self._written >= 0.2:
            self._written = now
            self._stream.write(f"\r\x1b[K{self.line(now - self._began)}")
            self._stream.flush()

    def line(self, seconds: float) -> str:
        """What is written, ``seconds`` after the start."""
        rate = self.done / seconds if seconds > 0 else 0.0
        of = "" if self.total is None else f"/{self.total:,}"
        text = f"{self.done:,}{of} {self._unit}"
        if seconds >= 0.05:
            text += f"  {rate:,.0f}/s" if rate >= 10 else f"  {rate:.1f}/s"
        if self.total is not None and 0 < self.done < self.total:
            text += f"  eta {timedelta(seconds=round((self.total - self.done) / rate))}"
        return text

    def end(self) -> None:
        """The last line; nothing if nothing was ever counted."""
        if self._stream is None or self.done == 0:
            return
        start = "\r\x1b[K" if self._moving else ""
        self._stream.write(f"{start}{self.line(time.monotonic() - self._began)}\n")
        self._stream.flush()
