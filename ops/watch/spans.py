"""What the consuming side states, as OpenTelemetry spans: an event's delivery goes on in the trace of its publish.

``deliver TOPIC`` (CONSUMER) is one event for one subscription, from its first attempt to its end, below the publish
that the record's ``traceparent`` names; each attempt is an event on it, with its outcome. ``POST /path`` (CLIENT; the
action's name where HTTP is not spoken) is one call: below the delivery where it asked for one alone, else in a trace of
its own with a link to each delivery in it, and from each of those one back.

Attributes are those of the semantic conventions for messaging, HTTP and CloudEvents, and our own words as
``backbone.*``. No key, subject, entity, vendor reference or payload is among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from connectors.connector import Delivered, Outcome, Rejected
from connectors.exchanges import Exchange
from consumers import facts
from consumers.assignment import Place
from consumers.calls import Asked
from ops.watch import metrics
from ops.watch.logs import LineBudget, logger
from ops.watch.observe import outcome_word, word_of
from schemas.event import Origin
from schemas.traceparent import parse_traceparent

OPEN_MAX = 20_000
"""Deliveries that were tried and have not come to their end, at most; beyond it they get no span until there is room.
Four subscriptions that are full reach it."""

_Key: TypeAlias = tuple[str, Origin]


@dataclass(slots=True)
class _Open:
    """A delivery under way. ``place``: the partition that it was read from."""

    span: Span
    place: Place


class Spans:
    """An observer: call it with every fact. On the event loop; never raises. ``wall_ns``: nanoseconds since the epoch.

    About 100 µs a delivery that is recorded, call included (the SDK's work), a tenth where the publisher's trace is not
    sampled: it is made only where somebody asked for spans."""

    def __init__(self, tracer: Tracer, *, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._tracer, self._wall_ns = tracer, wall_ns
        self._open: dict[_Key, _Open] = {}
        self._reasons = metrics.Reasons()
        self._log, self._fault_lines = logger(), LineBudget(1)
        self._takes: dict[type, Callable[[Any], None]] = {
            facts.CallMade: self._call_made,
            facts.DeliverySettled: self._delivery_settled,
            facts.PartitionsRevoked: self._partitions_revoked,
            facts.SubscriptionLeft: self._subscription_left,
        }

    def __call__(self, fact: facts.Fact) -> None:
        """Take one fact in; most say nothing about spans."""
        take = self._takes.get(type(fact))
        if take is None:
            return
        try:
            take(fact)
        except Exception as error:  # noqa: BLE001  an observer must not end what it observes
            if (left_out := self._fault_lines.take()) is not None:
                self._log.error("span_not_made", fact=type(fact).__name__, exc_info=error, left_out=left_out)

    @property
    def open(self) -> int:
        """Deliveries under way."""
        return len(self._open)

    def _call_made(self, fact: facts.CallMade) -> None:
        now = self._wall_ns()
        began = now - int(fact.seconds * 1e9)
        recorded: list[tuple[Asked, Span]] = []
        for one in fact.asked():
            span = self._delivery(fact.subscription, one, began)
            if span is not None and span.is_recording():
                recorded.append((one, span))
        if not recorded:
            return  # of a trace that is not sampled, or somebody else's by now
        call = self._call(fact, [span for _, span in recorded], began)
        call.end(now)
        for one, span in recorded:
            attributes: dict[str, AttributeValue] = {
                "backbone.attempt": one.attempt,
                **self._said(one.outcome),
            }
            if fact.is_look_up:
                attributes["backbone.look_up"] = True
            span.add_event("attempt", attributes, now)
            if fact.deliveries > 1:
                span.add_link(call.get_span_context())

    def _delivery(self, subscription: str, asked: Asked, began: int) -> Span | None:
        """The span of a delivery that was just tried; None where none is kept."""
        key = (subscription, asked.origin)
        if (known := self._open.get(key)) is not None:
            return known.span
        if not asked.is_ours or len(self._open) >= OPEN_MAX:
            return None
        event = asked.event
        span = self._begun(subscription, asked.origin, event.traceparent, began, event.id, event.type)
        span.set_attribute("cloudevents.event_source", event.source)
        if asked.change is not None:
            span.set_attribute("backbone.change", asked.change)
        self._open[key] = _Open(span, asked.place)
        return span

    def _begun(
        self, subscription: str, origin: Origin, traceparent: str | None, began: int, event_id: str, event_type: str
    ) -> Span:
        return self._tracer.start_span(
            f"deliver {origin.topic}",
            _below(traceparent),
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "deliver",
                "messaging.operation.type": "process",
                "messaging.destination.name": origin.topic,
                "messaging.destination.partition.id": str(origin.partition),
                "messaging.kafka.offset": origin.offset,
                "messaging.consumer.group.name": subscription,
                "cloudevents.event_id": event_id,
                "cloudevents.event_type": event_type,
            },
            start_time=began,
        )

    def _call(self, fact: facts.CallMade, deliveries: Sequence[Span], began: int) -> Span:
        is_alone = fact.deliveries == 1
        span = self._tracer.start_span(
            _name(fact),
            trace.set_span_in_context(deliveries[0], Context()) if is_alone else Context(),
            SpanKind.CLIENT,
            {
                "backbone.subscription": fact.subscription,
                "backbone.connection": fact.connection,
                "backbone.action": fact.action,
                "backbone.deliveries": fact.deliveries,
                "backbone.outcome": word_of(fact.outcome),
                **_over_http(fact.exchanges),
            },
            [] if is_alone else [Link(one.get_span_context()) for one in deliveries],
            began,
        )
        if fact.outcome not in ("Delivered", "Skipped", "NotThere"):
            span.set_status(StatusCode.ERROR)
        return span

    def _delivery_settled(self, fact: facts.DeliverySettled) -> None:
        now = self._wall_ns()
        known = self._open.pop((fact.subscription, fact.origin), None)
        span = (
            self._begun(fact.subscription, fact.origin, fact.traceparent, now, fact.event_id, fact.event)
            if known is None
            else known.span
        )
        if span.is_recording():
            attributes = {"backbone.connection": fact.connection, "backbone.action": fact.action}
            span.set_attributes({**attributes, "backbone.attempts": fact.attempts, **self._said(fact.outcome)})
            if isinstance(fact.outcome, Rejected):
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", self._reasons.label(fact.outcome.reason))
        span.end(now)

    def _partitions_revoked(self, fact: facts.PartitionsRevoked) -> None:
        gone = set(fact.partitions)
        self._leave([key for key, one in self._open.items() if key[0] == fact.subscription and one.place in gone])

    def _subscription_left(self, fact: facts.SubscriptionLeft) -> None:
        self._leave([key for key in self._open if key[0] == fact.subscription])

    def _leave(self, keys: Sequence[_Key]) -> None:
        """They go on elsewhere, in a span of their own."""
        now = self._wall_ns()
        for key in keys:
            span = self._open.pop(key).span
            span.set_attribute("backbone.outcome", "left")
            span.end(now)

    def _said(self, outcome: Outcome | None) -> dict[str, AttributeValue]:
        if outcome is None:
            return {"backbone.outcome": "not_there"}
        said: dict[str, AttributeValue] = {"backbone.outcome": outcome_word(outcome)}
        if not isinstance(outcome, Delivered):
            said["backbone.reason"] = self._reasons.label(outcome.reason)
        return said


def _below(traceparent: str | None) -> Context:
    """A context whose span is the publish that a record names; an empty one where it names none."""
    parent = parse_traceparent(traceparent)
    if parent is None:
        return Context()
    remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())


def _name(fact: facts.CallMade) -> str:
    if not fact.exchanges:
        return fact.action
    last = fact.exchanges[-1]
    return f"{last.method} {last.endpoint}"


def _over_http(exchanges: Sequence[Exchange]) -> dict[str, AttributeValue]:
    """The last exchange of a call, as the conventions for HTTP clients have it."""
    if not exchanges:
        return {}
    last = exchanges[-1]
    server = urlsplit(last.server)
    said: dict[str, AttributeValue] = {
        "http.request.method": last.method,
        "url.full": f"{last.server}{last.endpoint}",
        "url.template": last.endpoint,
        "server.address": server.hostname or "",
        "server.port": server.port or (443 if server.scheme == "https" else 80),
        "http.request.body.size": last.sent_bytes,
        "http.response.body.size": last.received_bytes,
        "backbone.requests": len(exchanges),
    }
    if last.status is not None:
        said["http.response.status_code"] = last.status
    if last.failed or (last.status is not None and last.status >= 400):
        said["error.type"] = last.failed or str(last.status)
    return said
