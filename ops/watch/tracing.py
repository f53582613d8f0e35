"""Whether this process makes spans, and where they go: OpenTelemetry's SDK, set up as the environment asks.

Without the SDK, or without a wish, nothing is made and nothing is paid. Spans leave by OTLP over HTTP in a thread of
the SDK's own, from a bounded queue: a collector that is away costs spans, never a delivery.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops.watch.logs import logger

if TYPE_CHECKING:
    from consumers.facts import Observer

CLOSE_S = 5.0
"""So long at most a worker that leaves waits for its last spans to be sent."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """``observe`` makes spans of facts; ``close`` sends what is left, in ``CLOSE_S`` at most. Blocks."""

    observe: Observer
    close: Callable[[], None]


def open_tracing(*, wanted: bool, who: str, version: str) -> Tracing | None:
    """Spans as the environment wants them (``ops.settings.spans_wanted``), or for a tracer provider that somebody has
    set up already (``opentelemetry-instrument backbone run``). None: nobody wants any, or, which is logged, the extra
    ``opentelemetry`` is not installed."""
    provider = _given()
    if provider is not None:
        return Tracing(_spans(provider, version), lambda: None)
    if not wanted:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger().warning(
            "spans_not_made",
            why="the environment asks for spans (OTEL_EXPORTER_OTLP_ENDPOINT), but the SDK is not installed. Install "
            "it: pip install 'event-backbone[opentelemetry]'",
        )
        return None
    resource = Resource.create({"service.instance.id": who})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "event-backbone", "service.version": version}))
    own = TracerProvider(resource=resource, shutdown_on_exit=False)
    own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(_spans(own, version), lambda: _shut_down(own))


def _given() -> Any:
    """A tracer provider that is set up in this process; it has loaded the API then."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else provider


def _spans(provider: Any, version: str) -> Observer:
    from ops.watch.spans import Spans
    from producers.spans import NAME

    return Spans(provider.get_tracer(NAME, version))


def _shut_down(provider: Any) -> None:
    # a daemon: an exporter that tries a dead collector again must not keep the process
    thread = threading.Thread(target=provider.shutdown, name="spans-last", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
