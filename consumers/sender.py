"""Records to Kafka until each is acked or refused: what dead letters and receipts are written with."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from producers.kafka import Acknowledged, Backpressure, SendFailed
from schemas.errors import RefusedError

FULL_WAIT_S = 0.2
SERVE_S = 0.01
"""So often is looked what was settled, while something is under way."""
Settled: TypeAlias = Callable[[str | None], None]
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
_Sent: TypeAlias = tuple[str, bytes | None, bytes | None, Headers, int, Settled]


class Producer(Protocol):
    """What writes: ``producers.kafka.RecordProducer``, made not to block and to be served."""

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

    def serve(self) -> None: ...


class Sender:
    """Lives on one event loop, which it never blocks.

    A full queue is waited for. A record of which nobody knows whether it was written (Kafka was away for longer than
    the client waits) is sent again as it is: who reads it twice knows it by its key or its id. So an outage of Kafka
    stops nothing, it only takes its time; and what is told as an error was never written."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._answers: deque[Callable[[], None]] = deque()
        self._under_way = 0
        self._serving: asyncio.TimerHandle | None = None

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

        # Partials of methods, no functions that hold each other: such circles, one a receipt, kept the garbage
        # collector at work for a tenth of the time.
        record = (topic, key, value, headers, partition, settled)
        try:
            self._producer.send(
                topic, key, value, headers, partition=partition, on_settled=partial(self._answered, record)
            )
        except Backpressure:
            self._loop.call_later(FULL_WAIT_S, self._again, record)
        except RefusedError:
            self._loop.call_soon(settled, "CLOSED")
        else:
            self._under_way += 1
            self._serve_soon()

    def _again(self, record: _Sent) -> None:
        topic, key, value, headers, partition, settled = record
        self.send(topic, key, value, headers, partition=partition, settled=settled)

    def _answered(self, record: _Sent, answer: Acknowledged | SendFailed) -> None:
        """Within ``serve``, or where nobody served for long on the producer's thread."""
        if isinstance(answer, Acknowledged):
            self._answers.append(partial(record[-1], None))
        elif answer.kind == "unknown":
            self._answers.append(partial(self._again, record))
        else:
            self._answers.append(partial(record[-1], answer.error))

    def _serve(self) -> None:
        """Tell what is settled by now, all in one go, here on the loop: a thread that does it takes the interpreter's
        lock from the loop for each."""
        self._serving = None
        self._producer.serve()
        answers = self._answers
        try:
            for _ in range(len(answers)):
                self._under_way -= 1
                answers.popleft()()
        finally:
            self._serve_soon()

    def _serve_soon(self) -> None:
        if self._under_way and self._serving is None:
            self._serving = self._loop.call_later(SERVE_S, self._serve)
