"""Writing dead letters: acked, left as a pointer, or told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from consumers.deadletter import DeadLetter, letter_of, parse_letter
from consumers.letters import Letters
from producers.kafka import Acknowledged, Backpressure, SendFailed
from schemas.errors import RefusedError
from schemas.event import Record
from tests.waiting import eventually_async

LETTER = letter_of(
    Record("t", 2, 7, b"k", b"bytes", (), 5), outcome="rejected", reason="bad", detail="", attempts=1,
    seconds_tried=0.0, version="x@1", now=datetime(2026, 5, 1, tzinfo=UTC),
)  # fmt: skip
TOO_LARGE = SendFailed("rejected", "too large", "MSG_SIZE_TOO_LARGE")


class Log:
    """A producer that answers as it is told: an answer, or Backpressure to raise."""

    def __init__(self, *answers: Acknowledged | SendFailed | type[Backpressure]) -> None:
        self.answers, self.written = list(answers), []

    def send(self, topic: str, key: object, value: object, headers: object, *, partition: int = -1,
             on_settled: Callable[[Acknowledged | SendFailed], None]) -> None:  # fmt: skip
        answer = self.answers.pop(0)
        if answer is Backpressure:
            raise Backpressure("full")
        self.written.append(Record(topic, partition, 0, key, value, tuple(headers), 0))  # type: ignore[arg-type]
        on_settled(answer)  # type: ignore[arg-type]

    def serve(self) -> None:
        """It has answered already."""


async def settle(log: Log, letter: DeadLetter = LETTER) -> list[str | None]:
    told: list[str | None] = []
    Letters("x.dead", log).write(letter, told.append)
    await eventually_async(lambda: told)
    return told


async def test_an_acked_letter_is_told_once() -> None:
    log = Log(Acknowledged("x.dead", 2, 0))
    assert await settle(log) == [None]
    assert [(record.topic, record.partition) for record in log.written] == [("x.dead", 2)]


async def test_a_letter_too_large_for_the_topic_leaves_a_pointer() -> None:
    log = Log(TOO_LARGE, Acknowledged("x.dead", 2, 0))
    assert await settle(log) == [None]
    pointer = parse_letter(log.written[1])
    assert pointer is not None
    assert (pointer.value, pointer.omitted) == (None, 5)


async def test_a_pointer_that_is_too_large_as_well_is_told() -> None:
    assert await settle(Log(TOO_LARGE, TOO_LARGE)) == ["MSG_SIZE_TOO_LARGE"]


async def test_a_topic_that_cannot_be_written_is_told() -> None:
    assert await settle(Log(SendFailed("rejected", "no", "TOPIC_AUTHORIZATION_FAILED"))) == [
        "TOPIC_AUTHORIZATION_FAILED"
    ]


async def test_a_full_queue_is_waited_for_without_blocking_the_loop() -> None:
    log = Log(Backpressure, Backpressure, Acknowledged("x.dead", 2, 0))
    assert await settle(log) == [None]
    assert len(log.written) == 1


async def test_a_letter_of_which_nobody_knows_whether_it_was_written_is_written_again_as_it_is() -> None:
    """It used to stop its subscription: two minutes without Kafka, and a person had to resume it."""
    lost = SendFailed("unknown", "Kafka did not confirm it", "_MSG_TIMED_OUT")
    log = Log(lost, Backpressure, lost, Acknowledged("x.dead", 2, 0))
    assert await settle(log) == [None]
    assert log.written == [log.written[0]] * 3


async def test_a_letter_written_when_the_producer_is_closed_is_told() -> None:
    class Closed:
        def send(self, *_: object, **__: object) -> None:
            raise RefusedError("The producer is closed.")

    assert await settle(Closed()) == ["CLOSED"]  # type: ignore[arg-type]
