"""The one door to Kafka for writing: a record goes in, and what came of it comes back exactly once."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.client_log import ClientLog
from producers.client_settings import PINNED, producer_settings
from producers.errors import Backpressure
from producers.failures import not_taken, send_failed, setting_refused
from producers.settled import Acknowledged, Headers, OnSettled, SendFailed, Settled
from schemas.errors import InputError, RefusedError

__all__ = ["PINNED", "Acknowledged", "Backpressure", "RecordProducer", "SendFailed", "Settled", "producer_settings"]

_log = logging.getLogger("backbone.kafka")
_client_log = logging.getLogger("backbone.kafka.client")
_client_log.addHandler(logging.NullHandler())  # it repeats itself by the second while a broker is away: opt in


class _Sent(NamedTuple):
    """A record that a broken client had not settled; ``number`` is its place in the order of sends."""

    number: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    partition: int
    on_settled: OnSettled
    failed: SendFailed


class RecordProducer:
    """Writes records and settles every one of them exactly once.

    ``settings`` are librdkafka's own names; the pinned ones are refused (InputError). Constructing it sends nothing
    and waits for nothing. All methods are thread-safe. One daemon thread per producer polls the client; every
    ``on_settled`` is called there, so it must be quick; what it raises is logged and dropped, because an exception
    inside a callback of the client would lose other reports. It does not survive ``os.fork()``: make it in the child.

    When the client fails for good (a fatal error of its idempotence) it is rebuilt, and what it had not settled is
    sent again byte for byte, once, in the order of the sends and before anything newer: an event so keeps its id, a
    duplicate in the log is possible, the order of a key is kept. Until then ``send`` waits as for a full queue.

    ``block_s``: how long ``send`` may wait for room before it raises Backpressure; 0 on an event loop.
    ``served``: its maker calls ``serve`` every few milliseconds, and ``on_settled`` is called there. A thread that
    takes the interpreter's lock from a busy event loop for every report costs an event 50 us and more; the poll thread
    then steps in only for what nobody has served for ``_LEFT_S``.
    """

    def __init__(self, settings: Mapping[str, Any], *, block_s: float = 5.0, served: bool = False) -> None:
        self._settings = producer_settings(settings)
        if served:
            self._settings["linger.ms"] = SERVED_LINGER_MS
        self._block_s, self._is_served = block_s, served
        self._swap = threading.Condition()
        self._numbers = itertools.count()
        self._forks = _forks
        self._closed = self._given_up = False
        self._client = _Client(self._settings, self._broken, served=served)

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
        """Hand one record over; ``on_settled`` is called once, within about 125 s (twice that if the client had to be
        rebuilt), in the poll thread.

        ``value`` None is a tombstone; ``partition`` -1 means by key (murmur2 as Java's), without a key a random one.
        Blocks at most ``block_s`` (default: the producer's) while the queue is full. Raises Backpressure (not taken:
        ``on_settled`` will not be called), RefusedError when the producer is closed or was made before a fork.
        """
        if self._closed:
            raise RefusedError("The producer is closed; nothing can be sent any more.")
        if self._forks != _forks:
            raise RefusedError("The producer was made before os.fork() and cannot be used here; make it in the child.")
        number = next(self._numbers)
        deadline: float | None = None
        wait_s = 0.0
        while True:
            client = self._client
            # A partial keeps no cells alive: with many sends under way that is half of the garbage collector's work.
            report = partial(client.report, number, on_settled, topic, partition, headers)
            client.open.append(None)  # before: the report may come before produce returns
            taken = full = False
            try:
                client.producer.produce(topic, value, key, partition, report, headers=headers)  # type: ignore[arg-type]
                taken = True
            except BufferError:
                full = True
            except KafkaException as failure:
                error = failure.args[0]
                taken = not client.fatal and not error.fatal() and error.code() != KafkaError._FATAL
                if taken:
                    client.settle_soon(on_settled, send_failed(error.name(), topic, partition))
            finally:
                if not taken:
                    client.open.pop()
            if taken:
                if client.abandoned:
                    # close() or a rebuild ran between our look at the client and this produce, so that its thread may
                    # have ended: settle what we just put there ourselves.
                    client.give_up()
                    self._send_again(client)
                return
            now = time.monotonic()
            if deadline is None:
                wait_s = self._block_s if block_s is None else block_s
                deadline = now + wait_s
            if full:
                again = client.wait_for_room(deadline - now)
            else:
                again = self._wait_for_rebuilt(client, deadline - now)
            if not again:
                raise Backpressure(not_taken(full, wait_s, client.trouble())) from None
            if self._closed:
                raise RefusedError("The producer is closed; nothing can be sent any more.")

    def renew(self, username: str, password: str) -> None:
        """Authenticate with these from the next connection on (SASL PLAIN and SCRAM); connections that are open stay.
        Does not block."""
        self._settings |= {"sasl.username": username, "sasl.password": password}
        self._client.producer.set_sasl_credentials(username, password)

    def serve(self) -> None:
        """Call ``on_settled`` for what is settled by now, in this thread; does not wait. For a producer made with
        ``served``; harmless for any."""
        self._client.serve()

    def flush(self, timeout_s: float) -> int:
        """Wait at most ``timeout_s`` until everything sent before is settled; answers how many sends are not."""
        deadline = time.monotonic() + timeout_s
        while True:
            client = self._client
            left = client.drain(deadline - time.monotonic())
            if client is self._client:  # else it was rebuilt meanwhile: what it had not settled is with the new one
                return left

    def close(self, timeout_s: float = 30.0) -> int:
        """Flush, then give up what is still unconfirmed: it is settled as unknown. Answers how many those were.

        Blocks at most ``timeout_s`` and a little; every ``on_settled`` has been called when it returns. A second call
        does nothing and answers 0.
        """
        with self._swap:
            if self._closed:
                return 0
            self._closed = True
            self._swap.notify_all()
        if self._forks != _forks:
            return 0
        left = self.flush(timeout_s)
        with self._swap:
            self._given_up = True
            self._swap.notify_all()
            client = self._client
        client.abandon()
        client.thread.join()
        return left

    # ---- a client that failed for good, on its own poll thread

    def _broken(self, broken: _Client) -> None:
        """Put a client in place of one that met a fatal error, and send again what that one had not settled."""
        rebuilt = self._rebuilt(broken)
        if rebuilt is not None:
            taken = rebuilt.take_over(broken.unresolved())
            with self._swap:
                if self._given_up:
                    rebuilt.abandon()
                elif rebuilt.born > self._client.born:  # it may have broken and been replaced already
                    self._client = rebuilt
                broken.forget(taken)  # not before: who flushes meanwhile would find nothing left to wait for
                self._swap.notify_all()
            if rebuilt.abandoned:
                rebuilt.thread.join()
        broken.abandon()
        broken.give_up()
        self._send_again(broken)

    def _rebuilt(self, broken: _Client) -> _Client | None:
        """A new client; None when the producer is given up. One that breaks again and again is rebuilt once a second,
        not without end."""
        wait_s = broken.born + _REBUILD_S - time.monotonic()
        while True:
            with self._swap:
                if self._swap.wait_for(lambda: self._given_up, wait_s):
                    return None
            _log.warning("Kafka's client failed for good%s; it is rebuilt.", broken.trouble())
            try:
                return _Client(self._settings, self._broken, served=self._is_served)
            except InputError as error:  # the settings are as they were: it is the machine that gives no more
                _log.error("Kafka's client cannot be rebuilt: %s", error)
            wait_s = _REBUILD_S

    def _send_again(self, broken: _Client) -> None:
        """What reached a broken client too late to be taken over with the rest."""
        late = broken.taken()
        with self._swap:
            current = None if self._given_up else self._client
        if current is None or current is broken:
            for sent in late:
                _tell(sent.on_settled, sent.failed)
        elif late:
            current.take_over(late)

    def _wait_for_rebuilt(self, broken: _Client, timeout_s: float) -> bool:
        with self._swap:
            return self._swap.wait_for(lambda: self._client is not broken or self._closed, max(0.0, timeout_s))


class _Client:
    """One life of librdkafka's producer with the thread that polls it; ends by ``abandon``, or by a fatal error, of
    which ``broken`` is then told on that thread; it is never reused."""

    def __init__(self, settings: Mapping[str, Any], broken: Callable[[_Client], None], *, served: bool) -> None:
        self.fatal = False
        self._is_served, self._served_at = served, time.monotonic()
        self._draining = 0
        self._serving = threading.RLock()  # a report may send, and a send may give the client up
        self._look = threading.Event()
        self.born = time.monotonic()
        self._broken = broken
        self._trouble = ""
        self._error_cb: Callable[[KafkaError], None] | None = settings.get("error_cb")
        self._refused: deque[tuple[OnSettled, SendFailed]] = deque()
        self.open: deque[None] = deque()
        """One for each send that is not settled: threads may append and pop at once. The client's own length also
        counts what it wants to tell of itself: its log lines, its errors."""
        self._unresolved: deque[_Sent] = deque()
        self._gathered = threading.Event()
        self._polled = threading.Condition()
        self._waiting = 0
        self.abandoned = False
        try:
            self.producer = Producer(
                {**settings, "error_cb": self._on_error, "logger": ClientLog(_client_log), "log.queue": True}
            )
        except (KafkaException, TypeError, ValueError) as error:
            text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise setting_refused(str(text), settings) from None
        self.thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self.thread.start()

    def wait_for_room(self, timeout_s: float) -> bool:
        """False when the time is up; True when reports came, so that another attempt is worth it."""
        if timeout_s <= 0:
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
        self._draining += 1
        self._look.set()
        try:
            while (left := self.unsettled()) and (wait := deadline - time.monotonic()) > 0:
                self.wait_for_room(wait)
        finally:
            self._draining -= 1
        return left

    def serve(self) -> None:
        with self._serving:
            if not self.fatal and not self.abandoned:
                self._served_at = time.monotonic()
                if self._poll_once(0.0) and self._waiting:
                    with self._polled:
                        self._polled.notify_all()

    def unsettled(self) -> int:
        if self.fatal:
            self._gathered.wait(_GIVE_UP_S)  # until then nobody knows: some would be counted twice
            return len(self._unresolved)
        return len(self.open)

    def settle_soon(self, on_settled: OnSettled, failed: SendFailed) -> None:
        """Settle in the poll thread what the client refused at once."""
        self._refused.append((on_settled, failed))

    def trouble(self) -> str:
        """`` (what the client complained about last)`` or nothing; for the end of a sentence."""
        return f" ({self._trouble})" if self._trouble else ""

    def abandon(self) -> None:
        """Give up what is not settled: the poll thread reports it as purged (unknown) and ends."""
        self.abandoned = True
        self._look.set()

    def take_over(self, unresolved: Sequence[_Sent]) -> int:
        """Send what a broken client had not settled, in the order in which it was sent; answers how many those were.
        What breaks this one too is unknown for good."""
        for sent in sorted(unresolved):
            report = partial(self._report_again, sent.on_settled, sent.topic, sent.partition)
            self.open.append(None)
            try:
                self.producer.produce(
                    sent.topic,
                    sent.value,
                    sent.key,
                    sent.partition,
                    report,
                    headers=sent.headers,  # type: ignore[arg-type]
                )
            except (BufferError, KafkaException):
                _tell(sent.on_settled, sent.failed)  # unknown, as it was
                self.open.pop()
        return len(unresolved)

    def _report_again(
        self, on_settled: OnSettled, topic: str, partition: int, error: KafkaError | None, message: Message
    ) -> None:
        """The delivery report of what another client had sent before."""
        _report(on_settled, topic, partition, error, message)
        self.open.pop()

    def unresolved(self) -> Sequence[_Sent]:
        """What it had not settled when it broke."""
        return list(self._unresolved)

    def forget(self, count: int) -> None:
        """The first so many of the unresolved are somebody else's now."""
        for _ in range(count):
            self._unresolved.popleft()

    def taken(self) -> Sequence[_Sent]:
        """The unresolved, each for one caller only."""
        found = []
        with contextlib.suppress(IndexError):  # another thread may take of them too
            while True:
                found.append(self._unresolved.popleft())
        return found

    def report(
        self,
        number: int,
        on_settled: OnSettled,
        topic: str,
        partition: int,
        headers: Headers | None,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        """The delivery report of a first send: as ``_report``, but what a broken client leaves unknown is kept."""
        if error is None or not self.fatal:
            _report(on_settled, topic, partition, error, message)
            self.open.pop()  # after the call, so that drain() does not miss it
            return
        failed = send_failed(error.name(), topic, partition)
        if failed.kind == "unknown":
            # The client keeps key and value for its reports, not the headers.
            key, value = message.key(), message.value()
            self._unresolved.append(_Sent(number, topic, key, value, headers, partition, on_settled, failed))
        else:
            _tell(on_settled, failed)
        self.open.pop()

    def _poll(self) -> None:
        while not self.abandoned and not self.fatal:
            if not self._is_served or self._draining:
                self._serve(0.1)
            else:
                if self._refused or time.monotonic() - self._served_at > _LEFT_S:
                    self._serve(0.0)
                self._look.wait(_LEFT_S / 2)
                self._look.clear()
        with self._serving:
            pass  # who served in another thread has told what it took
        self.give_up()
        self._gathered.set()
        if self.fatal:
            self._broken(self)

    def give_up(self) -> None:
        """Everything still queued or under way is reported with _PURGE_QUEUE or _PURGE_INFLIGHT, which is unknown."""
        self.producer.purge(in_queue=True, in_flight=True, blocking=True)
        deadline = time.monotonic() + _GIVE_UP_S
        while self.open and time.monotonic() < deadline:
            self._serve(0.05)

    def _poll_once(self, timeout_s: float) -> int:
        try:
            return self.producer.poll(timeout_s)
        except KafkaException as failure:  # how the client tells of a fatal error
            self._on_error(failure.args[0])
        except Exception:  # noqa: BLE001 - callbacks never raise; were the client to, other reports must still flow
            _log.exception("Polling Kafka's client failed.")
        return 1

    def _serve(self, timeout_s: float) -> None:
        served = self._poll_once(timeout_s)
        while self._refused:
            served += 1
            _tell(*self._refused[0])
            self._refused.popleft()  # after the call, so that drain() does not miss it
            self.open.pop()
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
    if error is not None:
        _tell(on_settled, send_failed(error.name(), topic, partition))
        return
    offset = message.offset()
    # The broker may know a record as one it has, and no longer where: then the client says so without an offset.
    _tell(on_settled, Acknowledged(topic, message.partition(), -1 if offset is None else offset))  # type: ignore[arg-type]


def _tell(on_settled: OnSettled, settled: Settled) -> None:
    try:
        on_settled(settled)
    except BaseException:  # noqa: BLE001 - a bad callback must cost no other record its report
        _log.exception("A settlement callback failed; the record itself is settled.")


SERVED_LINGER_MS: Final = 50
"""Receipts come one by one over many partitions: with 5 ms next to each wakes a thread and is a request of its own, and
nobody but the next commit waits for them."""
_REBUILD_S: Final = 1.0
_GIVE_UP_S: Final = 10.0
_LEFT_S: Final = 0.1
_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)
