"""Publishing: an event goes in, its outcome comes out of a future. What services use."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from producers import spans
from producers.errors import Backpressure, EventRejected, PublishUnknown
from producers.facts import Observer, Published
from producers.payload import payload
from producers.pending import Pending
from producers.settled import RecordLog, SendFailed, Settled
from producers.uuid7 import uuid7
from schemas.errors import BackboneError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from producers.settings import PublisherSettings
    from schemas.codec import Encoder
    from schemas.contract import Contract

_log = logging.getLogger("backbone.publisher")


class Acknowledgement(NamedTuple):
    """The event is in the log, on every in-sync replica, and this is where; ``id`` is the event's."""

    topic: str
    partition: int
    offset: int
    id: str


class Publisher:
    """Publishes events; each has exactly one outcome, which its future tells:

    - an ``Acknowledgement``: it is in the log on all in-sync replicas;
    - ``EventRejected``: it is not in the log and never will be as it is (schema, size, permission, no such topic);
    - ``PublishUnknown``: it may be in the log. Publish it again *with the same id*: a duplicate has the same
      identity, so that every vendor gets the same idempotency key. The order of its key holds only if nothing else
      of that key is published before.

    All methods are thread-safe; ``publish_async`` belongs to an event loop. Schemas are never registered here: an
    unregistered one is EventRejected with the command to run. Use it as a context manager, or call ``close``.
    Make it with ``Publisher.from_env()``, ``KafkaPublisher(settings)`` or, in tests, ``MemoryPublisher()``.
    """

    def __init__(self, log: RecordLog, encoder: Encoder, *, observe: Observer | None = None) -> None:
        self._records = log
        self._encoder = encoder
        self._observe = observe
        self._closed = False
        self._encoded: set[str] = set()
        # Failures are rare; the bound keeps a service that never looks at its futures from growing without end.
        self._failed: deque[Pending[Acknowledgement]] = deque(maxlen=1_000)

    @staticmethod
    def from_env() -> Publisher:
        """A publisher to the Kafka and registry of ``BACKBONE_KAFKA__BOOTSTRAP_SERVERS``, ``BACKBONE_REGISTRY__URL``
        and more (``producers.settings``). Raises InputError naming the variable that is missing or wrong."""
        from producers.settings import PublisherSettings

        return KafkaPublisher(PublisherSettings.from_env())

    def publish(
        self,
        event: BaseModel,
        *,
        source: str,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Future[Acknowledgement]:
        """Hand one event, a generated model, over; the outcome comes with the future.

        ``source`` says who publishes (``billing``); ``id`` makes a publish repeatable (same source, type and id =>
        same idempotency key at every vendor) and is a new UUIDv7 by default; ``time`` is when it happened (aware,
        default now); ``traceparent`` (W3C) says which trace it belongs to, by default that of the span in whose block
        this is called. In a service that traces with OpenTelemetry the publish is a span of that trace.

        Waits for the registry at the first event of a type, and a bounded time while the queue to Kafka is full.
        Raises Backpressure and RegistryUnavailableError (not taken: try again later), RefusedError after ``close``.
        """
        return self.publish_data(
            _contract(event),
            payload(event),
            source=source,
            id=id,
            time=time,
            subject=subject,
            correlation_id=correlation_id,
            causation_id=causation_id,
            traceparent=traceparent,
        )

    def publish_data(
        self,
        contract: Contract,
        data: Mapping[str, Any],
        *,
        source: str,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
        block_s: float | None = None,
    ) -> Future[Acknowledgement]:
        """The same for a payload without a model: plain Python values by the contract's Avro schema. ``block_s``
        bounds the wait for room in the queue instead of the publisher's own setting."""
        if self._closed:
            raise RefusedError("The publisher is closed; nothing can be published any more.")
        began = _now()
        identity = uuid7() if id is None else id
        pending: Pending[Acknowledgement] = Pending()
        span, traceparent = spans.begin(
            contract.topic, contract.name, id=identity, source=source, traceparent=traceparent
        )
        try:
            encoded = self._encoder.encode(
                contract,
                data,
                id=identity,
                source=source,
                time=datetime.now(UTC) if time is None else time,
                subject=subject,
                correlation_id=correlation_id,
                causation_id=causation_id,
                traceparent=traceparent,
            )
        except UnreachableError as error:
            _not_taken(span, error)
            raise
        except BackboneError as error:
            rejected = EventRejected(f"The event {contract.name} was not published: {error}", code=type(error).__name__)
            rejected.__cause__ = error
            _not_taken(span, error)
            self._fail(pending, rejected, contract.name, "rejected", began)
            return pending
        self._encoded.add(contract.name)

        on_settled = partial(self._settled, pending, contract.name, identity, began, span)
        try:
            self._records.send(
                contract.topic, encoded.key, encoded.value, encoded.headers, on_settled=on_settled, block_s=block_s
            )
        except BackboneError as error:
            if block_s != 0:  # else whoever looks whether there is room looks again, many times
                _not_taken(span, error)
            raise
        return pending

    def publish_many(self, events: Iterable[BaseModel], *, source: str) -> list[Future[Acknowledgement]]:
        """Publish in order; one future for each, in the same order.

        Where one is not taken (Backpressure, registry away), it and all after it fail with that error in their
        futures and nothing of them was sent, so that none of a key overtakes another.
        """
        futures: list[Future[Acknowledgement]] = []
        stopped: UnreachableError | None = None
        for event in events:
            if stopped is None:
                try:
                    futures.append(self.publish(event, source=source))
                    continue
                except UnreachableError as error:
                    stopped = error
            not_taken: Pending[Acknowledgement] = Pending()
            not_taken.set_exception(stopped)
            self._failed.append(not_taken)
            futures.append(not_taken)
        return futures

    async def publish_async(
        self,
        event: BaseModel,
        *,
        source: str,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
        block_s: float = 5.0,
    ) -> Acknowledgement:
        """``publish`` for asyncio: never blocks the loop, waits for the outcome. Raises what ``publish`` and its
        future raise; Backpressure when the queue stayed full for ``block_s``. A cancelled wait does not unsend."""
        contract, data = _contract(event), payload(event)
        deadline = _now() + block_s
        identity = uuid7() if id is None else id

        def hand_over() -> Future[Acknowledgement]:
            return self.publish_data(
                contract,
                data,
                source=source,
                id=identity,
                time=time,
                subject=subject,
                correlation_id=correlation_id,
                causation_id=causation_id,
                traceparent=traceparent,
                block_s=0,
            )

        while True:
            try:
                # Only the first event of a type may wait for the registry; a thread for every event costs 70 µs.
                known = contract.name in self._encoded
                pending = hand_over() if known else await asyncio.to_thread(hand_over)
                return await asyncio.wrap_future(pending)
            except Backpressure:
                if _now() >= deadline:
                    raise
                await asyncio.sleep(0.01)

    def flush(self, timeout_s: float = 30.0) -> int:
        """Wait at most ``timeout_s`` until everything published so far has its outcome; how many have none."""
        return self._records.flush(timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush and end. Every future is settled when it returns or raises.

        Raises PublishUnknown if anything was unconfirmed within ``timeout_s``, or if anything published earlier failed
        and nobody looked at its future; EventRejected if all of those were rejected. A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        unconfirmed = self._records.close(timeout_s)
        if unconfirmed:
            raise PublishUnknown(
                f"{_events(unconfirmed)} not confirmed by Kafka within {timeout_s:g} s and may be in the log or not: "
                "publish again what has no acknowledgement, with the same ids."
            )
        unseen = [future.exception(0) for future in self._failed if not future.seen]
        if unseen:
            only_rejected = all(isinstance(error, EventRejected) for error in unseen)
            failure = EventRejected if only_rejected else PublishUnknown
            raise failure(
                f"{_events(len(unseen))} not published, and nobody looked at the outcome; the first: {unseen[0]}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except BackboneError as failure:
            error.add_note(f"Also, when the publisher was closed: {failure}")  # the body's error stays the one raised

    def _settled(
        self,
        pending: Pending[Acknowledgement],
        event: str,
        id: str,
        began: float,
        span: spans.Span | None,
        settled: Settled,
    ) -> None:
        if isinstance(settled, SendFailed):
            if span is not None:
                spans.failed(span, settled.error)
            self._fail(pending, _failure(settled, event, id), event, settled.kind, began)
            return
        if span is not None:
            spans.acknowledged(span, settled.partition, settled.offset)
        pending.settle(Acknowledgement(*settled, id))
        if self._observe is not None:
            self._tell(event, "acked", began)

    def _fail(
        self,
        pending: Pending[Acknowledgement],
        error: BackboneError,
        event: str,
        outcome: Literal["rejected", "unknown"],
        began: float,
    ) -> None:
        self._failed.append(pending)
        pending.set_exception(error)
        if self._observe is not None:
            self._tell(event, outcome, began)

    def _tell(self, event: str, outcome: Literal["acked", "rejected", "unknown"], began: float) -> None:
        assert self._observe is not None
        try:
            self._observe(Published(event, outcome, _now() - began))
        except Exception:  # noqa: BLE001 - whoever watches must not change what is watched
            _log.exception("An observer of publishing failed.")


class KafkaPublisher(Publisher):
    """A publisher to Kafka and a Confluent-compatible registry.

    Making it connects to nothing. Raises InputError for settings that Kafka's client or the registry does not take.
    ``block_s`` bounds how long ``publish`` waits for room before it raises Backpressure; ``observe`` is told of every
    outcome (from the thread that polls Kafka's reports).
    """

    def __init__(self, settings: PublisherSettings, *, block_s: float = 5.0, observe: Observer | None = None) -> None:
        from producers.kafka import RecordProducer
        from schemas.codec import Encoder

        encoder = Encoder(settings.open_registry())
        super().__init__(RecordProducer(settings.kafka, block_s=block_s), encoder, observe=observe)


def _not_taken(span: spans.Span | None, error: BackboneError) -> None:
    if span is not None:
        spans.failed(span, type(error).__name__)


def _contract(event: BaseModel) -> Contract:
    contract: Contract | None = getattr(event, "contract", None)
    if contract is None:
        raise TypeError(f"{type(event).__name__} is no event: events are made by 'backbone schema generate'")
    return contract


def _failure(failed: SendFailed, event: str, id: str) -> EventRejected | PublishUnknown:
    if failed.kind == "rejected":
        return EventRejected(
            f"The event {event} was not published: {failed.reason} ({failed.error}).", code=failed.error
        )
    return PublishUnknown(
        f"It is not known whether {event} was published: {failed.reason} ({failed.error}). "
        f"Publish it again with the same id {id}.",
        id=id,
        code=failed.error,
    )


def _events(count: int) -> str:
    return "1 event was" if count == 1 else f"{count:,} events were"


def _now() -> float:
    return time.perf_counter()
