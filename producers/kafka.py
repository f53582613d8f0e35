"""The one door to Kafka for writing: a record goes in, and what came of it comes back exactly once."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.errors import Backpressure
from producers.settled import RECORD_BYTES_MAX, Acknowledged, Headers, OnSettled, SendFailed, Settled
from schemas.errors import InputError, RefusedError
from schemas.findings import did_you_mean

__all__ = ["Acknowledged", "Backpressure", "RecordProducer", "SendFailed", "Settled", "producer_settings"]

_log = logging.getLogger("backbone.kafka")
_client_log = logging.getLogger("backbone.kafka.client")
_client_log.addHandler(logging.NullHandler())  # it repeats itself by the second while a broker is away: opt in


_LOSES = "it can lose or reorder acknowledged events"
PINNED: Final[Mapping[str, tuple[str | int | bool, str]]] = {
    "enable.idempotence": (True, "without it a retry inside the client duplicates and reorders records"),
    "acks": ("all", "an acknowledgement must mean that every in-sync replica has the record"),
    "message.timeout.ms": (120_000, "every send is settled within 120 s; a caller that wants less waits less"),
    "queue.buffering.max.messages": (100_000, "it bounds memory, and Backpressure is raised at the bound"),
    "queue.buffering.max.kbytes": (65_536, "it bounds memory, and Backpressure is raised at the bound"),
    "partitioner": ("murmur2_random", "every producer in every language must put a key into the same partition"),
    "topic.metadata.propagation.max.ms": (5_000, "a topic that does not exist must be named quickly"),
    "linger.ms": (5, "it is measured together with the batch sizes"),
    "compression.type": ("lz4", "one codec that every client of the topics reads"),
}
"""What delivery needs, with the reason shown to whoever tries to change it (delivery.md section 8)."""

_SAME_AS: Final = {
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "queue.buffering.max.ms": "linger.ms",
    "compression.codec": "compression.type",
}
_REFUSED: Final[Mapping[str, str]] = {
    "transactional.id": "events are published one by one and settled one by one; transactions are not used",
    "message.send.max.retries": _LOSES,
    "retries": _LOSES,
    "max.in.flight": _LOSES,
    "max.in.flight.requests.per.connection": _LOSES,
    "enable.gapless.guarantee": "one failed record would stop all others",
    "delivery.report.only.error": "an acknowledgement would never arrive",
    "dr_cb": "every send has its own settlement",
    "on_delivery": "every send has its own settlement",
    "stats_cb": "an exception in a callback of the client loses delivery reports",
    "throttle_cb": "an exception in a callback of the client loses delivery reports",
    "logger": "the client's log goes to the logger 'backbone.kafka.client'",
}
_NEVER_WRITTEN: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_RECORD", "INVALID_TIMESTAMP",
    "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART", "TOPIC_EXCEPTION",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT", "UNSUPPORTED_COMPRESSION_TYPE", "POLICY_VIOLATION", "_UNKNOWN_TOPIC",
    "_UNKNOWN_PARTITION", "_INVALID_ARG",
})  # fmt: skip
"""Answers after which the record is certainly not in the log. Everything else is unknown: never guess that it is not.
Two limits: the client does not tell whether an earlier attempt of the same record was written before a permission was
taken away between two attempts; such a record is called rejected. And where a topic takes less than the client puts
into a batch (``max.message.bytes`` below 1 MB; ours are created with more), the broker
refuses whole batches and small records with them; sending those again alone would pass later ones of their key."""


def producer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The user's librdkafka settings with ours; InputError names a setting that is pinned and why."""
    merged: dict[str, Any] = {}
    for name, value in settings.items():
        pinned = _SAME_AS.get(name, name)
        if pinned in PINNED:
            fixed, why = PINNED[pinned]
            raise InputError(f"The Kafka setting '{name}' cannot be changed (it is {_text(fixed)}): {why}.")
        if name in _REFUSED:
            raise InputError(f"The Kafka setting '{name}' cannot be used: {_REFUSED[name]}.")
        merged[name] = value
    if not merged.get("bootstrap.servers") and not merged.get("metadata.broker.list"):
        raise InputError("The Kafka setting 'bootstrap.servers' is missing: host:port of one or more brokers.")
    # The topics take events of 1 MiB and their dead letters; the client's own default would refuse those.
    merged.setdefault("message.max.bytes", RECORD_BYTES_MAX)
    merged.update({name: fixed for name, (fixed, _) in PINNED.items()})
    return merged


class RecordProducer:
    """Writes records and settles every one of them exactly once.

    ``settings`` are librdkafka's own names; the pinned ones are refused (InputError). Constructing it sends nothing
    and waits for nothing. All methods are thread-safe. One daemon thread per producer polls the client; every
    ``on_settled`` is called there, so it must be quick; what it raises is logged and dropped, because an exception
    inside a callback of the client would lose other reports. It does not survive ``os.fork()``: make it in the child.

    ``block_s``: how long ``send`` may wait for room before it raises Backpressure; 0 on an event loop.
    """

    def __init__(self, settings: Mapping[str, Any], *, block_s: float = 5.0) -> None:
        self._settings = producer_settings(settings)
        self._block_s = block_s
        self._rebuilding = threading.Lock()
        self._forks = _forks
        self._closed = False
        self._client = _Client(self._settings)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        *,
        partition: int = -1,
        on_settled: OnSettled,
        block_s: float | None = None,
    ) -> None:
        """Hand one record over; ``on_settled`` is called once, within about 125 s, in the poll thread.

        ``value`` None is a tombstone; ``partition`` -1 means by key (murmur2 as Java's), without a key a random one.
        Blocks at most ``block_s`` (default: the producer's) while the queue is full. Raises Backpressure (not taken:
        ``on_settled`` will not be called), RefusedError when the producer is closed or was made before a fork.
        """
        if self._closed:
            raise RefusedError("The producer is closed; nothing can be sent any more.")
        if self._forks != _forks:
            raise RefusedError("The producer was made before os.fork() and cannot be used here; make it in the child.")
        client = self._client

        # A partial keeps no cells alive: with many sends under way that is half of the garbage collector's work.
        report = partial(_report, on_settled, topic, partition)
        deadline: float | None = None
        wait_s = 0.0
        while True:
            try:
                client.producer.produce(topic, value, key, partition, report, headers=headers)  # type: ignore[arg-type]
                if client.abandoned:
                    # close() or a rebuild ran between our look at the client and this produce, so that its thread may
                    # have ended: settle what we just put there ourselves.
                    client.give_up()
                return
            except BufferError:
                now = time.monotonic()
                if deadline is None:
                    wait_s = self._block_s if block_s is None else block_s
                    deadline = now + wait_s
                if not client.wait_for_room(deadline - now):
                    stayed = f" and stayed full for {wait_s:g} s" if wait_s else ""
                    raise Backpressure(
                        f"The queue to Kafka is full{stayed}{client.trouble()}; nothing was sent, try again later."
                    ) from None
            except KafkaException as failure:
                error = failure.args[0]
                if not client.fatal and not error.fatal() and error.code() != KafkaError._FATAL:
                    client.settle_soon(on_settled, _failed(error, topic, partition))
                    return
                client = self._rebuilt(client)

    def flush(self, timeout_s: float) -> int:
        """Wait at most ``timeout_s`` until everything sent before is settled; answers how many sends are not."""
        return self._client.drain(timeout_s)

    def close(self, timeout_s: float = 30.0) -> int:
        """Flush, then give up what is still unconfirmed: it is settled as unknown. Answers how many those were.

        Blocks at most ``timeout_s`` and a little; every ``on_settled`` has been called when it returns. A second call
        does nothing and answers 0.
        """
        with self._rebuilding:
            if self._closed:
                return 0
            self._closed = True
        if self._forks != _forks:
            return 0
        left = self._client.drain(timeout_s)
        self._client.abandon()
        self._client.thread.join()
        return left

    def _rebuilt(self, broken: _Client) -> _Client:
        """A client in place of one that met a fatal error; what the broken one had not settled becomes unknown."""
        with self._rebuilding:
            if self._closed:
                raise RefusedError("The producer is closed; nothing can be sent any more.")
            if self._client is broken:
                if time.monotonic() - broken.born < _REBUILD_S:
                    raise Backpressure(
                        f"Kafka's client fails again and again{broken.trouble()}; nothing was sent, try again later."
                    )
                _log.warning("Kafka's client failed for good%s; it is rebuilt.", broken.trouble())
                self._client = _Client(self._settings)
                broken.abandon()
            return self._client


class _Client:
    """One life of librdkafka's producer with the thread that polls it; ends by ``abandon`` and is never reused."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.fatal = False
        self.born = time.monotonic()
        self._trouble = ""
        self._error_cb: Callable[[KafkaError], None] | None = settings.get("error_cb")
        self._refused: deque[tuple[OnSettled, SendFailed]] = deque()
        self._polled = threading.Condition()
        self._waiting = 0
        self.abandoned = False
        try:
            self.producer = Producer({**settings, "error_cb": self._on_error, "logger": _Log(), "log.queue": True})
        except (KafkaException, TypeError, ValueError) as error:
            raise _setting_refused(error, settings) from None
        self.thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self.thread.start()

    def wait_for_room(self, timeout_s: float) -> bool:
        """False when the time is up; True when reports came, so that another attempt is worth it."""
        if timeout_s <= 0 or self.abandoned:
            return False
        with self._polled:
            self._waiting += 1
            try:
                # Woken after each poll; the bound catches a report that came between BufferError and this wait.
                self._polled.wait(min(timeout_s, 0.1))
            finally:
                self._waiting -= 1
        return True

    def drain(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while (left := self.unsettled()) and (wait := deadline - time.monotonic()) > 0:
            self.wait_for_room(wait)
        return left

    def unsettled(self) -> int:
        return len(self.producer) + len(self._refused)

    def settle_soon(self, on_settled: OnSettled, failed: SendFailed) -> None:
        """Settle in the poll thread what the client refused at once."""
        self._refused.append((on_settled, failed))

    def trouble(self) -> str:
        """`` (what the client complained about last)`` or nothing; for the end of a sentence."""
        return f" ({self._trouble})" if self._trouble else ""

    def abandon(self) -> None:
        """Give up what is not settled: the poll thread reports it as purged (unknown) and ends."""
        self.abandoned = True

    def _poll(self) -> None:
        while not self.abandoned and not self.fatal:
            self._serve(0.1)
        self.give_up()

    def give_up(self) -> None:
        """Everything still queued or under way is reported with _PURGE_QUEUE or _PURGE_INFLIGHT, which is unknown."""
        self.producer.purge(in_queue=True, in_flight=True, blocking=True)
        deadline = time.monotonic() + 10
        while self.unsettled() and time.monotonic() < deadline:
            self._serve(0.05)

    def _serve(self, timeout_s: float) -> None:
        try:
            served = self.producer.poll(timeout_s)
        except KafkaException as failure:  # how the client tells of a fatal error
            served = 1
            self._on_error(failure.args[0])
        except Exception:  # noqa: BLE001 - callbacks never raise; were the client to, other reports must still flow
            _log.exception("Polling Kafka's client failed.")
            served = 1
        while self._refused:
            served += 1
            on_settled, failed = self._refused[0]
            try:
                on_settled(failed)
            except BaseException:  # noqa: BLE001 - the poll thread must outlive a bad callback
                _log.exception("A settlement callback failed; the record itself is settled.")
            self._refused.popleft()  # after the call, so that drain() does not miss it
        if served and self._waiting:
            with self._polled:
                self._polled.notify_all()

    def _on_error(self, error: KafkaError) -> None:
        self._trouble = error.name()
        if error.fatal():
            self.fatal = True
        if self._error_cb is not None:
            try:
                self._error_cb(error)
            except BaseException:  # noqa: BLE001 - an exception in a callback of the client loses other reports
                _log.exception("The error_cb of the Kafka settings failed.")


def _report(on_settled: OnSettled, topic: str, partition: int, error: KafkaError | None, message: Message) -> None:
    """The client's delivery report. Never raises: an exception in a callback of the client loses other reports."""
    try:
        if error is None:
            on_settled(Acknowledged(topic, message.partition(), message.offset()))  # type: ignore[arg-type]
        else:
            on_settled(_failed(error, topic, partition))
    except BaseException:  # noqa: BLE001 - see above
        _log.exception("A settlement callback failed; the record itself is settled.")


class _Log:
    """What librdkafka has to say, into Python's logging; it must never raise into the client."""

    def log(self, level: int, text: str, *arguments: Any) -> None:
        with contextlib.suppress(Exception):
            _client_log.log(level, text, *arguments)


def _failed(error: KafkaError, topic: str, partition: int) -> SendFailed:
    name = error.name()
    match name:
        case "UNKNOWN_TOPIC_OR_PART" | "_UNKNOWN_TOPIC":
            reason = f"The topic '{topic}' does not exist"
        case "_UNKNOWN_PARTITION":
            reason = f"The topic '{topic}' has no partition {partition}"
        case "TOPIC_AUTHORIZATION_FAILED" | "CLUSTER_AUTHORIZATION_FAILED":
            reason = f"Writing to the topic '{topic}' is not permitted"
        case "MSG_SIZE_TOO_LARGE" | "RECORD_LIST_TOO_LARGE" | "INVALID_MSG_SIZE":
            reason = f"The record, or the batch it travelled in, is larger than the topic '{topic}' or the client takes"
        case "_MSG_TIMED_OUT":
            reason = f"Kafka did not confirm a record for the topic '{topic}' within {_MESSAGE_TIMEOUT_S} s"
        case "_PURGE_QUEUE" | "_PURGE_INFLIGHT":
            reason = f"The producer was closed or rebuilt before Kafka confirmed a record for the topic '{topic}'"
        case _:
            reason = f"Kafka answered {name} for the topic '{topic}'"
    return SendFailed("rejected" if name in _NEVER_WRITTEN else "unknown", reason, name)


def _setting_refused(error: Exception, settings: Mapping[str, Any]) -> InputError:
    """librdkafka's refusal as a sentence that names the setting, never its value (it may be a secret)."""
    text = str(error.args[0].str() if isinstance(error, KafkaException) else error)
    named = next((name for name in settings if f'"{name}"' in text or f"'{name}'" in text), "")
    if "No such configuration property" in text and named:
        return InputError(f"Kafka's client knows no setting '{named}'.{did_you_mean(named, _COMMON_SETTINGS)}")
    if named:
        return InputError(f"The Kafka setting '{named}' has a value that Kafka's client does not take.")
    return InputError("Kafka's client does not take these settings together; check the ones beside bootstrap.servers.")


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_MESSAGE_TIMEOUT_S: Final = 120
_REBUILD_S: Final = 1.0
_COMMON_SETTINGS: Final = (
    "bootstrap.servers", "client.id", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password",
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "batch.size", "batch.num.messages",
    "message.max.bytes", "socket.timeout.ms", "client.rack",
)  # fmt: skip
_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)
