"""How far a partition may be committed: the prefix of fetched offsets that is finished, and a map of what is beyond.

Logs have holes (compaction, transaction markers, aborted records), so the tracker knows *fetched* offsets, never a
range of integers. What is finished beyond the prefix travels in the commit's metadata, so that a restart does not
send it again.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

METADATA_BYTES_MAX = 4_000
"""Kafka refuses commit metadata above 4,096 bytes (``offset.metadata.max.bytes``)."""

Runs: TypeAlias = Sequence[tuple[int, int]]
"""Ascending, disjoint half-open ranges of offsets ``[from, to)``."""

_FORMAT = "r1:"


Ended: TypeAlias = Literal[
    "delivered", "merged", "expired", "erased", "superseded", "discarded", "dead", "parked", "not_ours", "earlier"
]
"""What became of a record, as ranges count it; ``earlier``: an earlier assignment had finished it, its receipt says."""


class Entry:
    """One fetched offset and what came of it, once that is final."""

    __slots__ = ("ended", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.ended: Ended | None = None


class Tracker:
    """Offsets of one partition during one assignment. Not thread-safe; every operation is O(1) amortised but
    ``metadata``, which looks at all entries.

    ``done`` are the runs read from the metadata of the commit this assignment starts at."""

    __slots__ = ("_committable", "_counts", "_done", "_done_from", "_entries", "_position", "unfinished")

    def __init__(self, position: int, done: Runs = ()) -> None:
        self._entries: deque[Entry] = deque()
        self._position = position
        self._committable = position
        self._done = list(done)
        self._done_from = [start for start, _ in done]
        self._counts: dict[Ended, int] = {}
        self.unfinished = 0

    def fetched(self, offset: int) -> Entry | None:
        """Take an offset in, in the order of the log; None when an earlier assignment has finished it already."""
        entry = Entry(offset)
        self._entries.append(entry)
        if self._done and self._is_done(offset):
            entry.ended = "earlier"
            return None
        self.unfinished += 1
        return entry

    def _is_done(self, offset: int) -> bool:
        at = bisect_right(self._done_from, offset) - 1
        return at >= 0 and offset < self._done[at][1]

    def finish(self, entry: Entry, ended: Ended) -> None:
        """What came of this entry is final: it may be committed over. Twice is the same as once."""
        if entry.ended is None:
            entry.ended = ended
            self.unfinished -= 1

    def read_to(self, position: int) -> None:
        """The consumer has handed over everything before ``position``, holes and markers included. Negative
        positions (nothing read yet) and steps back are ignored."""
        if position > self._position:
            self._position = position

    def committable(self) -> int:
        """The offset to commit: everything fetched before it is finished. Never decreases."""
        entries = self._entries
        while entries and (ended := entries[0].ended) is not None:
            entries.popleft()
            self._counts[ended] = self._counts.get(ended, 0) + 1
        # With nothing unfinished the position counts: it steps over transaction markers, so lag reaches 0.
        self._committable = max(self._committable, entries[0].offset if entries else self._position)
        return self._committable

    def take_counts(self) -> Mapping[Ended, int]:
        """How many records ended how, among those before ``committable()`` that were not counted yet."""
        counts, self._counts = self._counts, {}
        return counts

    def runs(self) -> list[tuple[int, int]]:
        """What is finished beyond ``committable()``; neighbours that were fetched one after another are one run.

        What an earlier assignment had finished and this one has not fetched again yet stays in the map."""
        base = self.committable()
        runs: list[tuple[int, int]] = []
        start = last = -1
        for entry in self._entries:
            if entry.ended is not None:
                if start < 0:
                    start = entry.offset
                last = entry.offset
            elif start >= 0:
                runs.append((start, last + 1))
                start = -1
        if start >= 0:
            runs.append((start, last + 1))
        fetched_to = self._entries[-1].offset + 1 if self._entries else base
        runs += [(max(a, fetched_to), b) for a, b in self._done if b > fetched_to]
        return runs

    def metadata(self) -> str:
        """``runs()`` for the commit, relative to ``committable()``."""
        return encode_runs(self.committable(), self.runs())


def encode_runs(base: int, runs: Runs) -> str:
    """Runs above ``base`` as text of at most ``METADATA_BYTES_MAX`` bytes; the highest runs are left out when it
    would be longer (their events are sent again after a restart, with the same idempotency keys)."""
    out = bytearray()
    limit = (METADATA_BYTES_MAX - len(_FORMAT)) // 4 * 3
    at = base
    for start, end in runs:
        mark = len(out)
        _append_varint(out, start - at)
        _append_varint(out, end - start)
        if len(out) > limit:
            del out[mark:]
            break
        at = end
    return _FORMAT + base64.b64encode(out).decode() if out else ""


def decode_runs(base: int, metadata: str | None) -> list[tuple[int, int]]:
    """The runs of a commit at ``base``. Metadata of anybody else, or broken, is no runs: never an error."""
    if not metadata or not metadata.startswith(_FORMAT) or len(metadata) > METADATA_BYTES_MAX:
        return []
    try:
        data = base64.b64decode(metadata[len(_FORMAT) :], validate=True)
        numbers = _varints(data)
    except (binascii.Error, ValueError):
        return []
    runs: list[tuple[int, int]] = []
    at = base
    for gap, length in zip(numbers[::2], numbers[1::2], strict=False):
        if length == 0 or at + gap + length > 1 << 63:
            return []
        runs.append((at + gap, at + gap + length))
        at += gap + length
    return runs


def _append_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _varints(data: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
        elif shift > 63:
            raise ValueError("varint longer than 63 bits")
    if shift or len(numbers) % 2:
        raise ValueError("cut in the middle")
    return numbers
