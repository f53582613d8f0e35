"""What the publishing side states to an observer; ``ops/watch`` makes metrics of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Published:
    """One publish came to its outcome: in the log, never written, or not known."""

    event: str
    """the event type, ``billing.InvoiceCreated``"""
    outcome: Literal["acked", "rejected", "unknown"]
    seconds: float
    """from ``publish`` to the outcome"""


Observer: TypeAlias = Callable[[Published], None]
"""Called from the thread that polls Kafka's reports: quick, thread-safe; what it raises is logged and dropped."""
