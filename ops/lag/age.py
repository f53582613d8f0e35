"""How old is the first record not yet processed: a search by asking the broker for offsets at times. Pure.

``list_offsets(for_timestamp(T))`` answers the first offset whose record is stamped T or later *and that record's
timestamp*, so the search ends on the wanted timestamp itself, without reading a payload.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOSE_MS = 1_000
"""Bounds so near to each other are an answer (the older one: age is never under-stated by this)."""

ROUNDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to, in milliseconds since the epoch.

    ``timestamp`` is the answer, or None: then the record has to be read, and ``older`` and ``newer`` are the bounds
    that hold for a topic stamped by the broker (``older`` None: nothing older is known)."""

    timestamp: int | None
    older: int | None = None
    newer: int | None = None


class Search:
    """The search for the timestamp of the first record at or after ``offset``. Not thread-safe.

    Ask the broker for ``ask``, hand its answer to ``take``, until ``found`` is not None: 4-23 rounds, at most 60.
    ``append_time``: the broker stamps the topic's records, so time grows with the offset. Where producers stamp them
    only an exact hit counts. ``hint`` is a time to start at (the last answer for this partition)."""

    __slots__ = (
        "_append_time",
        "_hi",
        "_lo",
        "_now",
        "_offset",
        "_repeated",
        "_rounds",
        "_step",
        "ask",
        "found",
        "newer",
    )

    def __init__(self, offset: int, now_ms: int, *, append_time: bool, hint: int | None = None) -> None:
        self._offset = offset
        self._now = now_ms
        self._append_time = append_time
        self._lo = 0  # timestamp of the newest record known to be before the offset; 0: none known
        self._hi = now_ms + 1
        self._step = 60_000
        self._rounds = 0
        self._repeated = False
        self.newer: int | None = None
        self.ask = min(max(1, hint if hint is not None else now_ms - 60_000), now_ms)
        self.found: Found | None = None

    @property
    def older(self) -> int | None:
        """The time of the newest record that is known to be before the offset, so far."""
        return self._lo or None

    def take(self, offset: int, timestamp: int) -> None:
        """The broker's answer for ``ask``; offset -1: no record is that young."""
        asked = self.ask
        self._rounds += 1
        if offset == self._offset:
            self.found = Found(timestamp)
            return
        if offset < 0:
            self._hi = asked
        elif offset > self._offset:
            self._hi = asked
            self._repeated = self.newer == timestamp
            self.newer = timestamp if self.newer is None else min(self.newer, timestamp)
            if asked <= 1:  # the very first record of the log already stands behind the offset
                self.found = Found(self.newer)
                return
        else:
            # in a topic stamped by producers the answer may be stamped later than what follows it
            self._lo = max(self._lo, timestamp, asked)
        if self._append_time and self._lo and self.newer is not None and self.newer - self._lo <= CLOSE_MS:
            self.found = Found(self._lo, self._lo, self.newer)
        elif self._hi - self._lo <= 1 or self._rounds >= ROUNDS_MAX:
            self.found = Found(None, self._lo or None, self.newer)
        else:
            self.ask = self._next()

    def _next(self) -> int:
        if not self._lo:
            self._step *= 4
            return max(1, min(self._hi - 1, self._now - self._step))
        if self._repeated:
            # the same record twice: if it also answers right behind the older bound, there is nothing in between
            return self._lo + 1
        return min(max(self._lo + 1, (self._lo + self._hi + 1) // 2), self._hi - 1)
