"""A publish is a span where the service traces, and its record carries the trace on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from producers import EventRejected, MemoryPublisher
from producers.errors import Backpressure
from schemas.models.accounts import UserUpgraded
from schemas.traceparent import parse_traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def upgraded(user: str = "canary-user") -> UserUpgraded:
    return UserUpgraded(user_id=user, from_plan="starter", to_plan="team", upgraded_at=datetime.now(UTC))


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """One for this test alone: the API's own can be set once a process."""
    provider = TracerProvider()
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda name: provider.get_tracer(name))
    return provider


@pytest.fixture
def exported(provider: TracerProvider) -> InMemorySpanExporter:
    exported = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return exported


@pytest.fixture
def publisher() -> Iterator[MemoryPublisher]:
    with MemoryPublisher() as publisher:
        yield publisher


def test_a_publish_is_a_span_of_the_current_trace_and_the_record_carries_it(
    provider: TracerProvider, exported: InMemorySpanExporter, publisher: MemoryPublisher
) -> None:
    with provider.get_tracer("service").start_as_current_span("POST /upgrade"):
        publisher.publish(upgraded(), source="accounts", id="r-1").result()
    span, request = exported.get_finished_spans()
    assert (span.name, span.kind) == ("publish accounts.users", trace.SpanKind.PRODUCER)
    assert span.parent == request.context
    (record,) = publisher.records
    carried = parse_traceparent(publisher.events[0].traceparent)
    assert carried is not None
    assert carried[:2] == (span.context.trace_id, span.context.span_id)
    assert carried.flags & 1
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka", "messaging.operation.name": "publish", "messaging.operation.type": "send",
        "messaging.destination.name": "accounts.users",
        "messaging.destination.partition.id": str(record.partition), "messaging.kafka.offset": 0,
        "cloudevents.event_id": "r-1", "cloudevents.event_type": "accounts.UserUpgraded",
        "cloudevents.event_source": "accounts",
    }  # fmt: skip
    assert "canary" not in span.to_json()


def test_a_traceparent_that_is_given_is_the_parent(exported: InMemorySpanExporter, publisher: MemoryPublisher) -> None:
    publisher.publish(upgraded(), source="accounts", traceparent=GIVEN).result()
    (span,) = exported.get_finished_spans()
    assert (span.context.trace_id, span.parent.span_id) == (int(GIVEN[3:35], 16), int(GIVEN[36:52], 16))  # type: ignore[union-attr]
    assert publisher.events[0].traceparent != GIVEN


@pytest.mark.parametrize("given", [GIVEN, "not one", None])
def test_where_nobody_traces_it_stays_as_it_was_given(publisher: MemoryPublisher, given: str | None) -> None:
    """The API is loaded in this process, and no SDK is set up."""
    publisher.publish(upgraded(), source="accounts", traceparent=given).result()
    assert publisher.events[0].traceparent == given


def test_that_a_trace_is_not_sampled_is_carried_on(monkeypatch: pytest.MonkeyPatch, publisher: MemoryPublisher) -> None:
    off = TracerProvider(sampler=ALWAYS_OFF)
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda name: off.get_tracer(name))
    publisher.publish(upgraded(), source="accounts").result()
    carried = parse_traceparent(publisher.events[0].traceparent)
    assert carried is not None
    assert not carried.flags & 1


def test_a_publish_that_fails_is_a_span_with_the_reason(
    exported: InMemorySpanExporter, publisher: MemoryPublisher
) -> None:
    publisher.answer_next("rejected")
    with pytest.raises(EventRejected):
        publisher.publish(upgraded(), source="accounts").result()
    publisher.answer_next("backpressure")
    with pytest.raises(Backpressure):
        publisher.publish(upgraded(), source="accounts")
    with pytest.raises(EventRejected):
        publisher.publish_data(UserUpgraded.contract, {"user_id": 7}, source="accounts").result()
    failed = exported.get_finished_spans()
    assert [dict(one.attributes or {})["error.type"] for one in failed] == [
        "TOPIC_AUTHORIZATION_FAILED", "Backpressure", "EncodeError",
    ]  # fmt: skip
    assert {one.status.status_code for one in failed} == {trace.StatusCode.ERROR}


async def test_waiting_for_room_is_one_span_however_often_it_looks(
    exported: InMemorySpanExporter, publisher: MemoryPublisher
) -> None:
    publisher.answer_next("backpressure", times=3)
    await publisher.publish_async(upgraded(), source="accounts")
    assert len(exported.get_finished_spans()) == 1


def test_a_service_without_opentelemetry_neither_needs_nor_loads_it() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from datetime import UTC, datetime\n"
        "from producers import MemoryPublisher\n"
        "from schemas.models.accounts import UserUpgraded\n"
        "event = UserUpgraded(user_id='u', from_plan='a', to_plan='b', upgraded_at=datetime.now(UTC))\n"
        "with MemoryPublisher() as publisher: publisher.publish(event, source='accounts').result()\n"
        "assert publisher.events[0].traceparent is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
