"""The call log of a worker: what was asked of the vendors that have one, and what they answered, redacted and kept.

The event loop hands what it has over and goes on; redacting and writing happen in a thread of its own, in batches. A
disk that is full or a file that is broken costs kept calls, never a delivery: that is counted, and said once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.connector import Delivered
from connectors.exchanges import Exchange
from consumers import facts
from consumers.calls import Asked
from consumers.expressions.values import plain
from consumers.receipts import hashed
from ops.watch import redaction
from ops.watch.call_store import CallStore, KeptCall, KeptDelivery
from ops.watch.logs import logger
from ops.watch.observe import outcome_word, word_of
from schemas.traceparent import trace_id_of

WAITING_MAX = 16 << 20
"""Bytes of requests and answers that wait to be written, at most; what comes then is not kept."""
BATCH_S = 0.5
BATCH_MAX = 200
TIDY_S = 60.0
"""So often what is too old is let go of, also while no call is made."""
BODY_MAX = 16 << 10
"""What is kept of one body or answer, at most, as JSON."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A call as the event loop hands it over."""

    fact: facts.CallMade
    at: float
    asked: Sequence[Asked]
    size: int


class CallLog:
    """An observer that keeps the calls of ``connections``. Quick, thread-safe, never raises; ``close`` writes what
    waits. ``key``: the installation's, that personal entities are hashed with; None: they are not kept. ``lost`` is
    told a connection, why and how many were not kept. ``wall``: seconds since the epoch."""

    def __init__(
        self,
        store: CallStore,
        *,
        connections: Collection[str],
        key: bytes | None,
        lost: Callable[[str, str, int], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._connections, self._key = store, frozenset(connections), key
        self._lost, self._wall = lost, wall
        self._waiting: deque[_Taken] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._some, self._closing = threading.Event(), threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="call-log", daemon=True)
        self._thread.start()

    def __call__(self, fact: facts.Fact) -> None:
        """Take one fact in; all but calls say nothing here."""
        if type(fact) is not facts.CallMade or fact.connection not in self._connections:
            return
        size = 1_000 + sum(one.sent_bytes + one.received_bytes for one in fact.exchanges)
        with self._lock:
            has_room = self._size + size <= WAITING_MAX
            self._size += size if has_room else 0
        if not has_room:
            self._lost(fact.connection, "behind", 1)
            return
        self._waiting.append(_Taken(fact, self._wall(), fact.asked(), size))
        if not self._some.is_set():
            self._some.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, in ``timeout_s`` at most, and end. Blocks."""
        self._closing.set()
        self._some.set()
        self._thread.join(timeout_s)
        self._store.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._some.wait(TIDY_S):
                self._closing.wait(BATCH_S)  # more come meanwhile
            self._some.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        """Everything that waits; with nothing to write, what is too old is let go of all the same."""
        while True:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            self._keep(taken)
            with self._lock:
                self._size -= sum(one.size for one in taken)
            if not self._waiting:
                return

    def _keep(self, taken: Sequence[_Taken]) -> None:
        try:
            self._store.add([kept_call(one.fact, one.asked, one.at, self._key) for one in taken], self._wall())
        except Exception as error:  # noqa: BLE001 - whatever it is, deliveries go on; it is counted and said
            for one in taken:
                self._lost(one.fact.connection, "not_written", 1)
            self._tell(error)
        else:
            if self._problem:
                logger().info("call_log_written_again", file=str(self._store.kept.file))
            self._problem = ""

    def _tell(self, error: Exception) -> None:
        # SQLite's and the system's own words name no value; of anything else the type is said
        known = isinstance(error, sqlite3.Error | OSError)
        problem = str(error) if known else type(error).__name__
        if problem != self._problem:
            logger().warning("call_log_not_written", file=str(self._store.kept.file), reason=problem)
        self._problem = problem


def kept_call(fact: facts.CallMade, asked: Sequence[Asked], at: float, key: bytes | None) -> KeptCall:
    """A call as it may be kept. Pure; ``ops/watch/redaction.py`` says what that is."""
    known = redaction.Known()
    deliveries: list[KeptDelivery] = []
    for one in asked:
        own = redaction.Known(plain={one.delivery.idempotency_key})
        redaction.asked("entity", one.delivery.entity, one.carried, own)  # what it says is known then
        body = redaction.asked("body", plain(dict(one.delivery.body)), one.carried, own)
        deliveries.append(_delivery(one, _bounded(redaction.cleared(body, own)), key))
        deliveries += [_merged(one, index) for index in range(len(one.merged))]
        known.add(own)
    return KeptCall(
        at=at,
        subscription=fact.subscription,
        connection=fact.connection,
        action=fact.action,
        outcome=word_of(fact.outcome),
        attempt=fact.attempt,
        seconds=round(fact.seconds, 4),
        trace_id=trace_id_of(fact.traceparent),
        is_look_up=fact.is_look_up,
        exchanges=[_exchange(one, known) for one in fact.exchanges],
        deliveries=deliveries,
    )


def _delivery(one: Asked, body: Any, key: bytes | None) -> KeptDelivery:
    personal = any(found != "none" for found in one.carried.get("entity", ()))
    entity = one.delivery.entity
    if personal:
        entity = "" if key is None else hashed(entity, key)
    outcome = one.outcome
    reason = "" if outcome is None or isinstance(outcome, Delivered) else outcome.reason
    return KeptDelivery(
        event=one.event.id,
        type=one.event.type,
        origin=str(one.origin),
        entity=entity,
        entity_hashed=personal,
        idempotency_key=one.delivery.idempotency_key,
        attempt=one.attempt,
        outcome="not_there" if outcome is None else outcome_word(outcome),
        reason=reason if redaction.is_word(reason) else "other",
        body=body,
    )


def _merged(one: Asked, index: int) -> KeptDelivery:
    older = one.merged[index]
    return KeptDelivery(
        event=older.id, type=older.type, origin="", entity="", entity_hashed=False,
        idempotency_key=one.delivery.idempotency_key, attempt=one.attempt, outcome="merged", reason="",
    )  # fmt: skip


def _exchange(one: Exchange, known: redaction.Known) -> dict[str, Any]:
    said: dict[str, Any] = {
        "method": one.method,
        "endpoint": one.endpoint,
        "status": one.status,
        "failed": one.failed or None,
        "seconds": round(one.seconds, 4),
        "sent_bytes": one.sent_bytes,
        "received_bytes": one.received_bytes,
        "headers": {},
        "answer": None,
    }
    if one.answer is not None:
        said["headers"] = redaction.headers(one.answer.headers, known)
        said["answer"] = _bounded(redaction.answered(one.answer.body, known))
    return said


def _bounded(content: Any) -> Any:
    """What is kept of one body: all of it, or how much it would have been."""
    size = len(json.dumps(content, ensure_ascii=False, default=str).encode("utf-8", "replace"))
    return content if size <= BODY_MAX else f"‹too large to be kept, {size:,} bytes›"
