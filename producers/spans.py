"""The span of a publish, in services that trace with OpenTelemetry; in all others nothing.

A service that traces has imported ``opentelemetry`` by the time it publishes: it, or the agent that started it, has set
a tracer provider up. So the API is looked for among the modules that are loaded, never imported: whoever does not trace
needs no package and pays one look into a dictionary.

The record carries the span as its ``traceparent``, so that whoever delivers the event goes on in the same trace.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TypeAlias

from schemas.traceparent import TraceParent, parse_traceparent

NAME = "event-backbone"
"""The instrumentation scope of our spans."""

Span: TypeAlias = Any
"""``opentelemetry.trace.Span``; None where nobody traces."""

_log = logging.getLogger("backbone.publisher")


def begin(
    topic: str, event_type: str, *, id: str, source: str, traceparent: str | None
) -> tuple[Span | None, str | None]:
    """A span for one publish, and the ``traceparent`` that its record carries: the span's, or ``traceparent`` as given
    where no span is made. Its parent is ``traceparent``, else the span in whose block this is called. Never raises.

    It holds the event's type, id and source, and the topic; no key, no payload, no subject."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None, traceparent
    try:
        return _begun(trace, topic, event_type, id, source, traceparent)
    except Exception:  # noqa: BLE001 - whoever watches must not change what is watched
        _log.exception("The span of a publish could not be begun.")
        return None, traceparent


def _begun(
    trace: Any, topic: str, event_type: str, id: str, source: str, traceparent: str | None
) -> tuple[Span | None, str | None]:
    context, given = None, parse_traceparent(traceparent)
    if given is not None:
        remote = trace.SpanContext(given.trace_id, given.span_id, True, trace.TraceFlags(given.flags))
        context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    span = trace.get_tracer(NAME).start_span(
        f"publish {topic}",
        context,
        trace.SpanKind.PRODUCER,
        {
            "messaging.system": "kafka",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
            "cloudevents.event_id": id,
            "cloudevents.event_type": event_type,
            "cloudevents.event_source": source,
        },
    )
    made = span.get_span_context()
    if not made.is_valid or made.span_id == (given.span_id if given is not None else 0):
        return None, traceparent  # nobody has set tracing up: what was given stays word for word
    return span if span.is_recording() else None, str(TraceParent(made.trace_id, made.span_id, made.trace_flags))


def acknowledged(span: Span, partition: int, offset: int) -> None:
    """The event is in the log, there. Never raises."""
    _end(span, {"messaging.destination.partition.id": str(partition), "messaging.kafka.offset": offset}, failed=False)


def failed(span: Span, code: str) -> None:
    """It is not, or nobody knows; ``code`` is Kafka's name of why, or the class of the error. Never raises."""
    _end(span, {"error.type": code}, failed=True)


def _end(span: Span, attributes: dict[str, Any], *, failed: bool) -> None:
    try:
        span.set_attributes(attributes)
        if failed:
            trace = sys.modules["opentelemetry.trace"]
            span.set_status(trace.StatusCode.ERROR)
        span.end()
    except Exception:  # noqa: BLE001 - whoever watches must not change what is watched
        _log.exception("The span of a publish could not be ended.")
