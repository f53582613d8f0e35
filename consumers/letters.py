"""Writing dead letters: each is acked, or the subscription learns that it cannot be written."""

from __future__ import annotations

from consumers.deadletter import DeadLetter, letter_record
from consumers.sender import Producer, Sender, Settled
from schemas.event import Origin


class Letters:
    """The letters of one subscription, written to its dead topic. Lives on one event loop, which it never blocks."""

    def __init__(self, topic: str, producer: Producer) -> None:
        self._topic, self._sender = topic, Sender(producer)

    def write(self, letter: DeadLetter, settled: Settled, *, omit_value: bool = False) -> None:
        """Write it; ``settled`` is called on the loop with None when it is acked, else with Kafka's name of why it
        cannot be written. A letter that is too large for the topic leaves a pointer without its value."""
        record = letter_record(letter, omit_value=omit_value)

        def answered(error: str | None) -> None:
            if error == "MSG_SIZE_TOO_LARGE" and not omit_value:
                self.write(letter, settled, omit_value=True)
            else:
                settled(error)

        self._sender.send(
            self._topic, record.key, record.value, record.headers, partition=record.partition, settled=answered
        )

    def close(self, origin: Origin, settled: Settled) -> None:
        """Close the letter of this origin: its tombstone. ``settled`` as for ``write``."""
        self._sender.send(self._topic, str(origin).encode(), None, [], partition=origin.partition, settled=settled)
