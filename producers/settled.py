"""What came of handing one record to the log: acknowledged, or failed in one of two ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

RECORD_BYTES_MAX: Final = (1 << 20) + (128 << 10)
"""A value of 1 MiB with its key, its headers and those of a dead letter, as the topics are created to take them."""


class Acknowledged(NamedTuple):
    """All in-sync replicas have the record, and this is where it stands."""

    topic: str
    partition: int
    offset: int


class SendFailed(NamedTuple):
    """No acknowledgement will come. ``rejected``: the record is not in the log and never will be. ``unknown``: it may
    be there; sending the same again may duplicate it. ``reason`` is a sentence without its full stop, ``error``
    Kafka's name of it (``TOPIC_AUTHORIZATION_FAILED``, ``_MSG_TIMED_OUT``)."""

    kind: Literal["rejected", "unknown"]
    reason: str
    error: str


Settled: TypeAlias = Acknowledged | SendFailed
OnSettled: TypeAlias = Callable[[Settled], None]
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class RecordLog(Protocol):
    """Where a publisher puts its records: Kafka, or memory in tests."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        *,
        partition: int = -1,
        on_settled: OnSettled,
        block_s: float | None = None,
    ) -> None:
        """Take one record and call ``on_settled`` once, later or now; raise Backpressure if it was not taken."""
        ...

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is settled; how many are not."""
        ...

    def close(self, timeout_s: float = 30.0) -> int:
        """Flush, then settle the rest as unknown; how many those were."""
        ...
