"""The tail of ``backbone.control``: a thread that follows the topic, outside any group, and holds its current view."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from consumers.control import TOPIC, Control, ControlSnapshot
from consumers.erased import Erased
from consumers.kafka import FETCH_MAX, error_name
from producers.client_log import ClientLog
from schemas.errors import UnreachableError


class ControlTail:
    """Follows ``backbone.control`` with a thread of its own, outside any group.

    ``erased`` is kept current with the marks of erased people. ``changed`` is called on that thread with the names a
    batch of records was about, after the view holds them."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        changed: Callable[[frozenset[str]], None],
        log: logging.Logger,
        erased: Erased | None = None,
    ) -> None:
        self._log = ClientLog(log)
        self._consumer = Consumer(
            {
                **settings,
                "group.id": "backbone.control-tail",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 20,
            },
            logger=self._log,
        )
        self._changed = changed
        self._control = Control(erased)
        self._lock = threading.Condition()
        self._wanted = self._served = 0
        self._closing = False
        self._credentials: tuple[str, str] | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-control", daemon=True)

    def start(self) -> None:
        self._consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
        self._thread.start()

    def renew(self, username: str, password: str) -> None:
        """Authenticate with these from the next connection on (SASL PLAIN and SCRAM). From any thread; does not
        block: only the thread that polls may speak to the client."""
        self._credentials = (username, password)

    def current(self) -> ControlSnapshot:
        """The view as far as it has been read. Does not wait."""
        with self._lock:
            return self._control.snapshot()

    def snapshot(self, timeout_s: float) -> ControlSnapshot:
        """The view, having read to the end that was current when this was called. Blocks; not from the event loop.
        Raises UnreachableError when the end cannot be learnt or reached in time."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            wanted = self._wanted = self._wanted + 1
            while self._served < wanted:
                left = deadline - time.monotonic()
                if left <= 0 or not self._lock.wait(left):
                    raise UnreachableError(f"The topic {TOPIC} could not be read to its end in {timeout_s:.0f} s.")
            return self._control.snapshot()

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except KafkaException as error:
                self._log.warning("reading %s: %s", TOPIC, error_name(error))
            except Exception:  # noqa: BLE001 - a worker whose tail is gone follows nothing, and does not know
                self._log.error("following %s failed", TOPIC, exc_info=True)

    def _step(self) -> None:
        if (credentials := self._credentials) is not None:
            self._credentials = None
            self._consumer.set_sasl_credentials(*credentials)
        with self._lock:
            wanted = self._wanted
        # Who asks for a snapshot is served once everything below the end learnt *after* the question has been read.
        end = None
        if wanted > self._served:
            end = self._consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=5)[1]
        while True:
            message = self._consumer.poll(0.05 if end is None else 0.2)
            messages = [] if message is None else [message, *self._consumer.consume(FETCH_MAX, 0)]
            self._apply([m for m in messages if m.error() is None])
            at = self._consumer.position([TopicPartition(TOPIC, 0)])[0].offset
            if end is None or end == 0 or at >= end or self._closing:
                break
            if message is not None and (error := message.error()) is not None:
                raise KafkaException(error)
        if end is not None:
            with self._lock:
                self._served = wanted
                self._lock.notify_all()

    def _apply(self, messages: Sequence[Message]) -> None:
        names = set()
        with self._lock:
            for message in messages:
                name = self._control.apply(message.key(), message.value())
                if name is not None:
                    names.add(name)
        if names:
            self._changed(frozenset(names))

    def close(self) -> None:
        """Stop following. Blocks for at most a second."""
        self._closing = True
        if self._thread.is_alive():
            self._thread.join(2)
        self._consumer.close()
