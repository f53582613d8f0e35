"""What went over the wire during one call to a vendor, for whoever watches: noted by the transport, never kept here.

A call may be several HTTP exchanges (an expired token, an erasure that asks twice) or none (a database). Whoever makes
the call says ``note_exchanges()`` first; what its connector asks for in that task, or in tasks that it begins, is noted
in the list that this answers. Where nobody said so, nothing is noted.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.transport import Answer


@dataclass(slots=True)
class Exchange:
    """One HTTP request and what came of it. Not frozen: it is noted when it begins and filled when it ends.

    ``endpoint`` is the path without what differs from call to call, so neither it nor the repr holds a value of an
    event. ``status`` None: no whole answer came; ``failed`` says why (``unfinished``: it was given up on the way).
    Sizes are of the bodies, the answer's after decompression. ``answer`` is None too where the exchange is about
    credentials."""

    method: str
    endpoint: str
    server: str
    """scheme, host and port"""
    sent_bytes: int
    seconds: float = 0.0
    status: int | None = None
    failed: str = "unfinished"
    received_bytes: int = 0
    answer: Answer | None = field(default=None, repr=False)


_noted: ContextVar[list[Exchange] | None] = ContextVar("exchanges", default=None)


def note_exchanges() -> list[Exchange]:
    """Note from now on, in this task, in this new list."""
    noted: list[Exchange] = []
    _noted.set(noted)
    return noted


def noted_exchanges() -> list[Exchange] | None:
    """Where to note; None: nobody wants to know."""
    return _noted.get()
