"""UUIDv7 (RFC 9562): ids that sort by the time they were made. The standard library has none before Python 3.14."""

from __future__ import annotations

import os
import struct
import threading
import time

_lock = threading.Lock()
_last = 0
_random: list[int] = []


def uuid7() -> str:
    """A new id in the usual notation. 48 bits of milliseconds, 12 bits of their fraction (section 6.2, method 3),
    62 random bits. Ascending within a process, also when the clock steps back; any thread, after a fork too."""
    global _last
    stamp = (time.time_ns() << 12) // 1_000_000
    with _lock:
        if stamp <= _last:
            stamp = _last + 1
        _last = stamp
        if not _random:
            # 64 at a time: a call to the system for each would be half of an id's cost
            _random.extend(struct.unpack("64Q", os.urandom(512)))
        random = _random.pop()
    return (
        f"{stamp >> 28:08x}-{stamp >> 12 & 0xFFFF:04x}-7{stamp & 0xFFF:03x}"
        f"-{0x8000 | random >> 50:04x}-{random & 0xFFFF_FFFF_FFFF:012x}"
    )


def _forked() -> None:
    """The lock may have been held by a thread that does not exist in the child, and the parent has the same numbers."""
    global _lock
    _lock = threading.Lock()
    _random.clear()


os.register_at_fork(after_in_child=_forked)
