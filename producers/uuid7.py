"""UUIDv7 (RFC 9562): ids that sort by the time they were made. The standard library has none before Python 3.14."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0


def uuid7() -> str:
    """A new id in the usual notation. 48 bits of milliseconds, 12 bits of their fraction (section 6.2, method 3),
    62 random bits. Ascending within a process, also when the clock steps back; any thread, after a fork too."""
    global _last
    stamp = (time.time_ns() << 12) // 1_000_000
    with _lock:
        if stamp <= _last:
            stamp = _last + 1
        _last = stamp
    random = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{stamp >> 12:012x}7{stamp & 0xFFF:03x}{0x8000_0000_0000_0000 | random:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _forked() -> None:
    """The lock may have been held by a thread that does not exist in the child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
