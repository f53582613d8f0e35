"""Writing dead letters: each is acked, or the subscription learns that it cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from consumers.deadletter import DeadLetter, letter_record
from producers.kafka import Acknowledged, Backpressure, SendFailed
from schemas.event import Origin

FULL_WAIT_S = 0.2


class Producer(Protocol):
    """What writes dead letters: ``producers.kafka.RecordProducer``, made not to block."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        partition: int = -1,
        on_settled: Callable[[Acknowledged | SendFailed], None],
    ) -> None: ...


class Letters:
    """The letters of one subscription, written to its dead topic. Lives on one event loop, which it never blocks."""

    def __init__(self, topic: str, producer: Producer) -> None:
        self._topic, self._producer = topic, producer
        self._loop = asyncio.get_running_loop()

    def write(self, letter: DeadLetter, settled: Callable[[str | None], None], *, omit_value: bool = False) -> None:
        """Write it; ``settled`` is called on the loop with None when it is acked, else with Kafka's name of why it
        cannot be written. A letter that is too large for the topic leaves a pointer without its value."""
        record = letter_record(letter, omit_value=omit_value)

        def answered(answer: Acknowledged | SendFailed) -> None:  # on the producer's thread
            self._loop.call_soon_threadsafe(self._answered, letter, settled, omit_value, answer)

        try:
            self._producer.send(
                self._topic,
                record.key,
                record.value,
                record.headers,
                partition=record.partition,
                on_settled=answered,
            )
        except Backpressure:
            self._loop.call_later(FULL_WAIT_S, lambda: self.write(letter, settled, omit_value=omit_value))

    def close(self, origin: Origin, settled: Callable[[str | None], None]) -> None:
        """Close the letter of this origin: its tombstone. ``settled`` as for ``write``."""

        def answered(answer: Acknowledged | SendFailed) -> None:  # on the producer's thread
            error = None if isinstance(answer, Acknowledged) else answer.error
            self._loop.call_soon_threadsafe(settled, error)

        try:
            self._producer.send(
                self._topic, str(origin).encode(), None, [], partition=origin.partition, on_settled=answered
            )
        except Backpressure:
            self._loop.call_later(FULL_WAIT_S, lambda: self.close(origin, settled))

    def _answered(
        self,
        letter: DeadLetter,
        settled: Callable[[str | None], None],
        omit_value: bool,
        answer: Acknowledged | SendFailed,
    ) -> None:
        if isinstance(answer, Acknowledged):
            settled(None)
        elif answer.error == "MSG_SIZE_TOO_LARGE" and not omit_value:
            self.write(letter, settled, omit_value=True)
        else:
            settled(answer.error)
