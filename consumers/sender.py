"""Records to Kafka until each is acked or refused: what dead letters and receipts are written with."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from producers.kafka import Acknowledged, Backpressure, SendFailed
from schemas.errors import RefusedError

FULL_WAIT_S = 0.2
Settled: TypeAlias = Callable[[str | None], None]
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class Producer(Protocol):
    """What writes: ``producers.kafka.RecordProducer``, made not to block."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        partition: int = -1,
        on_settled: Callable[[Acknowledged | SendFailed], None],
    ) -> None: ...


class Sender:
    """Lives on one event loop, which it never blocks.

    A full queue is waited for. A record of which nobody knows whether it was written (Kafka was away for longer than
    the client waits) is sent again as it is: who reads it twice knows it by its key or its id. So an outage of Kafka
    stops nothing, it only takes its time; and what is told as an error was never written."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._answers: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._told = False

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        partition: int = -1,
        settled: Settled,
    ) -> None:
        """Write one record; ``settled`` is called on the loop, once, with None when it is acked, else with Kafka's name
        of why it never will be."""

        def again() -> None:
            try:
                self._producer.send(topic, key, value, headers, partition=partition, on_settled=answered)
            except Backpressure:
                self._loop.call_later(FULL_WAIT_S, again)
            except RefusedError:
                self._loop.call_soon(settled, "CLOSED")

        def answered(answer: Acknowledged | SendFailed) -> None:  # on the producer's thread
            if isinstance(answer, Acknowledged):
                self._tell_soon(partial(settled, None))
            elif answer.kind == "unknown":
                self._tell_soon(again)
            else:
                self._tell_soon(partial(settled, answer.error))

        again()

    def _tell_soon(self, answer: Callable[[], None]) -> None:
        """Once for all that were settled in one go of the producer's thread."""
        with self._lock:
            self._answers.append(answer)
            wake, self._told = not self._told, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                logging.getLogger("backbone").info("a record was settled after the end")

    def _tell(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, deque()
            self._told = False
        for answer in answers:
            answer()
