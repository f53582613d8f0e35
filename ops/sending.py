"""Sending records from the command line, each to its partition, and knowing what became of every one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import NotAllowedError, RefusedError

if TYPE_CHECKING:
    from ops.app import App
    from producers.kafka import Acknowledged, SendFailed

ACKED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record as it is produced. ``value`` None is a tombstone; ``partition`` -1: where its key belongs."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def send_acked(app: App, records: Iterable[Outgoing], *, within_s: float = ACKED_WITHIN_S) -> int:
    """Send the records in their order as ``records`` yields them, and wait for every acknowledgement, each for
    ``within_s``; how many.

    Blocks, also as long as ``records`` does. Raises RefusedError or NotAllowedError for the first that was refused,
    UnreachableError when it does not answer in time; others may stand then.
    """
    from producers.kafka import SendFailed

    producer = app.producer()
    failures: list[SendFailed] = []
    lock = threading.Lock()
    settled = threading.Semaphore(0)

    def on_settled(outcome: Acknowledged | SendFailed) -> None:
        if isinstance(outcome, SendFailed):
            with lock:
                failures.append(outcome)
        settled.release()

    count = 0
    for one in records:
        producer.send(one.topic, one.key, one.value, one.headers, partition=one.partition, on_settled=on_settled)
        count += 1
        if failures:
            break
    for _ in range(count):
        if not settled.acquire(timeout=within_s):
            raise app.unreachable()
    if failures:
        failed = failures[0]
        if failed.kind == "unknown":
            raise app.unreachable()
        if failed.error.endswith("AUTHORIZATION_FAILED"):
            raise NotAllowedError(f"{failed.reason} ({failed.error}). What each role needs: backbone topic acls")
        raise RefusedError(f"The cluster refused a record ({failed.error}): {failed.reason}.")
    return count
