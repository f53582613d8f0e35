"""Reading the past of partitions beside the group: what is folded before the group's consumer reads it.

A thread of its own with a consumer that is in no group, one partition after the other; it ends when there is nothing
to be read. It commits nothing and knows no subscription.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumers.assignment import Place
from consumers.client_settings import DEFAULTS, PINNED
from consumers.kafka import FETCH_MAX, as_record, error_name
from producers.client_log import ClientLog
from schemas.event import Record

AHEAD_MAX = 2_000
"""Records handed over and not taken in, at most."""
POLL_S = 0.2
AGAIN_S = 5.0
"""After an error."""


class PastReader:
    """Made and asked on the event loop; nothing here blocks but ``close``. ``take`` is called on the loop with the
    ticket of what was asked for, records in log order and the position behind them; ``taken`` answers how many records
    were let go of so far; ``lost`` is called on the loop with the ticket of a partition whose records are not there any
    more."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[int, Sequence[Record], int], None],
        taken: Callable[[], int],
        lost: Callable[[int], None],
        log: logging.Logger,
    ) -> None:
        self._settings = dict(settings)
        self._loop, self._take, self._taken, self._lost, self._log = loop, take, taken, lost, ClientLog(log)
        self._changed = threading.Condition()
        self._wanted: deque[tuple[int, Place, int, int]] = deque()
        self._handed = 0
        self._thread: threading.Thread | None = None
        self._closing = False

    def read(self, ticket: int, place: Place, start: int, until: int) -> None:
        """Read from ``start`` to ``until``, after what was asked for before."""
        with self._changed:
            self._wanted.append((ticket, place, start, until))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kafka-past", daemon=True)
                self._thread.start()

    def end(self, ticket: int) -> None:
        """It is not wanted any more; what was handed over of it is the caller's to drop."""
        with self._changed:
            self._wanted = deque(one for one in self._wanted if one[0] != ticket)

    def room(self) -> None:
        """Records were taken in."""
        with self._changed:
            self._changed.notify()

    def renew(self, username: str, password: str) -> None:
        """Kafka's credentials for what is begun from now on."""
        self._settings |= {"sasl.username": username, "sasl.password": password}

    def close(self) -> None:
        """Stop reading. Blocks for a moment; not from the event loop."""
        with self._changed:
            self._closing = True
            self._wanted.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(5)

    # ---- the thread

    def _run(self) -> None:
        while True:
            consumer = None
            try:
                consumer = Consumer({
                    **DEFAULTS, **self._settings, **PINNED, "group.id": "backbone.past", "group.protocol": "classic",
                    "enable.partition.eof": True,
                }, logger=self._log)  # fmt: skip
                while (wanted := self._first()) is not None:
                    self._read_one(consumer, *wanted)
                return
            except KafkaException as error:
                self._log.warning("reading the past: %s; trying again", error_name(error))
            except Exception:  # noqa: BLE001 - it would never be read, and nobody would know
                self._log.error("reading the past failed; trying again", exc_info=True)
            finally:
                if consumer is not None:
                    consumer.close()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, AGAIN_S)

    def _first(self) -> tuple[int, Place, int, int] | None:
        with self._changed:
            if not self._wanted:
                self._thread = None
                return None
            return self._wanted[0]

    def _read_one(self, consumer: Consumer, ticket: int, place: Place, start: int, until: int) -> None:
        at = TopicPartition(*place)
        consumer.assign([TopicPartition(*place, start)])
        position = start
        while position < until:
            if not self._has_room(ticket):
                return
            records: list[Record] = []
            end = -1
            for message in consumer.consume(FETCH_MAX, POLL_S):
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        if (message.topic(), message.partition()) == place:
                            end = message.offset() or 0  # where nothing but markers is left, only this says so
                        continue
                    if error.code() == KafkaError._AUTO_OFFSET_RESET:
                        self._tell(self._lost, ticket)
                        self.end(ticket)
                        return
                    raise KafkaException(error)
                record = as_record(message)
                if record.offset < until and (record.topic, record.partition) == place:
                    records.append(record)
            reached = max(end, consumer.position([at])[0].offset)
            if reached <= position:
                continue
            position = reached
            with self._changed:
                if not self._wanted or self._wanted[0][0] != ticket:
                    return
                self._handed += len(records)
                if position >= until:
                    self._wanted.popleft()
                else:
                    self._wanted[0] = (ticket, place, position, until)
            self._tell(self._take, ticket, records, position)

    def _has_room(self, ticket: int) -> bool:
        """Wait until there is; False when the ticket is not wanted any more."""
        with self._changed:
            while self._wanted and self._wanted[0][0] == ticket and self._handed - self._taken() >= AHEAD_MAX:
                self._changed.wait(1.0)
            return bool(self._wanted) and self._wanted[0][0] == ticket

    def _tell(self, method: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(method, *arguments)
        except RuntimeError:
            with self._changed:
                self._wanted.clear()  # the loop is closed: nobody is left to fold
