"""A long change while it is applied: a thread beside it hears what people want of it, and says that it runs.

What people want is the key ``change|ID`` of ``backbone.control``, written from any machine; the thread follows the
topic outside any group. That the change runs, and how far it is, stands in ``backbone.heartbeat``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from consumers.control import TOPIC, Control, Steering, steering_record
from consumers.heartbeat import EVERY_S
from consumers.heartbeat import TOPIC as HEARTBEAT
from ops.app import AWAY, CLUSTER_TIMEOUT_S
from ops.changes.beat import ChangeBeat, beat_record, farewell_record
from ops.changes.plan import Plan
from ops.changes.store import Journal
from producers.errors import Backpressure
from producers.settled import Acknowledged, SendFailed
from schemas.errors import BackboneError, NotFoundError, RefusedError

if TYPE_CHECKING:
    from confluent_kafka import Message

    from ops.app import App

HEAR_EVERY_S: Final = 0.2
"""So long at most a look at what people want waits for more of it."""


class Live:
    """``wanted`` is what people want of the change now: from any thread, without blocking. Made by ``live``."""

    def __init__(self, app: App, plan: Plan, journal: Journal, *, rate: float) -> None:
        self._app, self._plan, self._journal, self._rate = app, plan, journal, rate
        self._control = Control()
        self._key, _ = steering_record(plan.id, None)
        self._wanted = Steering()
        self._trouble: BackboneError | None = None
        self._resting = False
        self._is_mute = False
        self._is_seen = _exists(app, HEARTBEAT)
        self._due = threading.Event()
        self._closing = False
        self._told_at = 0.0
        self._process, self._by = _whoami()
        self._producer = app.producer()
        self._consumer = app.consumer(fetch_wait_max_ms=100)
        self._thread = threading.Thread(target=self._run, name="change", daemon=True)

    @property
    def wanted(self) -> Steering:
        """Raises what kept it from being heard: who runs on without listening could not be stopped."""
        if self._trouble is not None:
            raise self._trouble
        return self._wanted

    def rests(self, resting: bool) -> None:
        """Whoever applies it rests, or goes on: that is told at once."""
        if resting != self._resting:
            self._resting = resting
            self._due.set()

    def _begin(self) -> None:
        """Hear everything that was said before; then listen on. Blocks."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        self._consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
        heard = time.monotonic()
        while not self._take(self._consumer.consume(500, 0.1)):
            if self._trouble is not None:
                raise self._trouble
            if time.monotonic() - heard > CLUSTER_TIMEOUT_S:
                raise self._app.unreachable()
        self._tell()
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take(self._consumer.consume(500, HEAR_EVERY_S))
                if self._due.is_set() or time.monotonic() - self._told_at >= EVERY_S:
                    self._due.clear()
                    self._tell()
        except Exception as error:  # noqa: BLE001 - raised by ``wanted``, in the thread that acts
            self._trouble = self._app.translated(error) or BackboneError(
                f"Following {TOPIC} failed: unexpected {type(error).__name__}."
            )

    def _take(self, messages: list[Message]) -> bool:
        """Hear; whether the end of the topic was met."""
        from confluent_kafka import KafkaError

        ended = False
        for message in messages:
            error = message.error()
            if error is None:
                if message.key() == self._key:
                    self._control.apply(self._key, _bytes(message.value()))
                    self._wanted = self._control.snapshot().changes.get(self._plan.id, Steering())
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            elif error.name() not in AWAY:
                self._trouble = self._app.reading_error(error, TOPIC)
        return ended

    def _tell(self) -> None:
        """Say that it runs. Nothing hangs on it: who may not, or cannot now, goes on."""
        self._told_at = time.monotonic()
        noted = self._journal.notes.get("progress")
        steps = {"done": len(self._journal.done), "total": len(self._plan.steps) or None, "unit": "steps"}
        rate = self._rate if self._wanted.rate is None else self._wanted.rate
        beat = ChangeBeat(
            change=self._plan.id, process=self._process, by=self._by, rate=rate or None,
            state="paused" if self._resting else "running", **(noted or steps),
        )  # fmt: skip
        self._send(*beat_record(beat))

    def _send(self, key: bytes, value: bytes | None) -> None:
        if not self._is_seen:
            return
        try:
            self._producer.send(HEARTBEAT, key, value, None, partition=0, on_settled=self._settled, block_s=0.0)
        except (Backpressure, RefusedError) as error:
            self._app.screen.detail(f"{HEARTBEAT} was not written: {error}")

    def _settled(self, outcome: Acknowledged | SendFailed) -> None:
        if isinstance(outcome, SendFailed) and not self._is_mute:
            self._is_mute = True  # once: it is tried again with the next
            self._app.screen.detail(
                f"Other machines do not see that {self._plan.id} runs: {HEARTBEAT}: {outcome.error}"
            )

    def _end(self) -> None:
        self._closing = True
        if self._thread.is_alive():
            self._thread.join(CLUSTER_TIMEOUT_S)
        self._consumer.close()
        self._send(*farewell_record(self._plan.id))


@contextmanager
def live(app: App, plan: Plan, journal: Journal, *, rate: float = 0.0) -> Iterator[Live]:
    """Have a change heard and seen while it is applied. ``rate``: the plan's, 0: no limit. Blocks until everything
    that was said of it before is heard. Raises what reading ``backbone.control`` does."""
    made = Live(app, plan, journal, rate=rate)
    try:
        made._begin()
        yield made
    finally:
        made._end()


def _exists(app: App, topic: str) -> bool:
    from ops.reading import partition_count

    try:
        return partition_count(app, topic) > 0
    except NotFoundError:
        return False


def _whoami() -> tuple[str, str]:
    import os
    import socket

    from ops.settings import user_name

    return f"{socket.gethostname()}/{os.getpid()}", user_name()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
