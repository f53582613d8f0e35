"""Facts become spans: a delivery goes on in the trace of its publish, and shows its attempts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from connectors.connector import Delivered, Delivery, Outcome, Rejected, RetryLater, Skipped
from connectors.exchanges import Exchange
from consumers import facts
from consumers.calls import Asked
from ops.settings import spans_wanted
from ops.watch import logs, tracing
from ops.watch.observe import Observation, told_to
from ops.watch.spans import OPEN_MAX, Spans
from schemas.event import Event, Origin

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PERSONAL = {
    "email": "canary@example.org", "name": "Canary Jones", "phone": "+49 170 5550199", "address": "1 Canary Lane",
}  # fmt: skip


class Rig:
    def __init__(self) -> None:
        self.exported = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exported))
        self.now_ns = 1_700_000_000_000_000_000
        self.spans = Spans(provider.get_tracer("test"), wall_ns=lambda: self.now_ns)

    def call(self, *asked: Asked, outcome: str = "Delivered", exchanges: tuple[Exchange, ...] = ()) -> None:
        self.now_ns += 1_000_000_000
        self.spans(
            facts.CallMade(
                subscription="crm", connection="hubspot", action="contact.upsert", deliveries=len(asked), seconds=0.5,
                outcome=outcome, idempotency_key="ab" * 32, attempt=1, traceparent=None, exchanges=exchanges,
                is_look_up=False, asked=lambda: asked,
            )
        )  # fmt: skip

    def settle(self, offset: int, outcome: Outcome, *, attempts: int = 1, flags: str = "01") -> None:
        self.spans(
            facts.DeliverySettled(
                subscription="crm", connection="hubspot", action="contact.upsert", event="accounts.UserSignedUp",
                outcome=outcome, attempts=attempts, seconds=0.5, age_seconds=1.0, origin=origin(offset),
                event_id=f"e-{offset}", traceparent=traceparent(offset, flags),
            )
        )  # fmt: skip

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self.exported.get_finished_spans())

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]


def origin(offset: int) -> Origin:
    return Origin("accounts.users", 3, offset)


def traceparent(offset: int, flags: str = "01") -> str:
    return f"00-{TRACE[:-2]}{offset:02x}-00f067aa0ba902b7-{flags}"


def asked(offset: int, outcome: Outcome | None, *, attempt: int = 1, flags: str = "01", is_ours: bool = True) -> Asked:
    event = Event(
        id=f"e-{offset}", type="accounts.UserSignedUp", source="accounts", time=datetime.now(UTC),
        subject=PERSONAL["email"], key=PERSONAL["email"], data=PERSONAL, traceparent=traceparent(offset, flags),
    )  # fmt: skip
    delivery = Delivery(
        action="contact.upsert", entity=PERSONAL["email"], idempotency_key="ab" * 32, sequence=origin(offset),
        body=PERSONAL,
    )  # fmt: skip
    return Asked(
        origin=origin(offset), place=("accounts.users", 3), is_ours=is_ours, attempt=attempt, outcome=outcome,
        change=None, carried={}, event=event, delivery=delivery,
    )  # fmt: skip


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_delivery_is_a_span_below_its_publish_and_shows_every_attempt() -> None:
    rig = Rig()
    post = Exchange("POST", "/contacts/upsert", "https://api.example", 120, 0.4, 409, "", 30)
    rig.call(asked(7, RetryLater("conflict")), outcome="RetryLater", exchanges=(post,))
    post = Exchange("POST", "/contacts/upsert", "https://api.example", 120, 0.4, 200, "", 900)
    rig.call(asked(7, Delivered(PERSONAL["email"]), attempt=2), exchanges=(post,))
    assert not rig.of("deliver accounts.users")
    rig.settle(7, Delivered(PERSONAL["email"]), attempts=2)
    (delivery,) = rig.of("deliver accounts.users")
    assert delivery.kind is SpanKind.CONSUMER
    assert (delivery.parent.span_id, delivery.parent.is_remote) == (0x00F067AA0BA902B7, True)  # type: ignore[union-attr]
    assert [(one.name, dict(one.attributes or {})) for one in delivery.events] == [
        ("attempt", {"backbone.attempt": 1, "backbone.outcome": "retry_later", "backbone.reason": "conflict"}),
        ("attempt", {"backbone.attempt": 2, "backbone.outcome": "delivered"}),
    ]
    assert said(delivery) == {
        "messaging.system": "kafka", "messaging.operation.name": "deliver", "messaging.operation.type": "process",
        "messaging.destination.name": "accounts.users", "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7, "messaging.consumer.group.name": "crm", "cloudevents.event_id": "e-7",
        "cloudevents.event_type": "accounts.UserSignedUp", "cloudevents.event_source": "accounts",
        "backbone.connection": "hubspot", "backbone.action": "contact.upsert", "backbone.attempts": 2,
        "backbone.outcome": "delivered",
    }  # fmt: skip
    calls = rig.of("POST /contacts/upsert")
    assert [one.parent.span_id for one in calls] == [delivery.context.span_id] * 2  # type: ignore[union-attr]
    assert {one.context.trace_id for one in rig.ended} == {delivery.context.trace_id}  # type: ignore[union-attr]
    assert [one.status.status_code for one in calls] == [StatusCode.ERROR, StatusCode.UNSET]
    assert said(calls[0]) | {"backbone.outcome": ""} == {
        "backbone.subscription": "crm", "backbone.connection": "hubspot", "backbone.action": "contact.upsert",
        "backbone.deliveries": 1, "backbone.outcome": "", "http.request.method": "POST",
        "url.full": "https://api.example/contacts/upsert", "url.template": "/contacts/upsert",
        "server.address": "api.example", "server.port": 443, "http.request.body.size": 120,
        "http.response.body.size": 30, "backbone.requests": 1, "http.response.status_code": 409, "error.type": "409",
    }  # fmt: skip
    assert delivery.start_time == calls[0].start_time == calls[0].end_time - 500_000_000  # type: ignore[operator]


def test_a_call_for_many_is_one_span_with_a_link_to_each_and_one_back_from_each() -> None:
    rig = Rig()
    rig.call(asked(1, Delivered()), asked(2, Rejected("refused")), outcome="Rejected")
    rig.settle(1, Delivered())
    rig.settle(2, Rejected("refused"))
    (call,) = rig.of("contact.upsert")
    first, second = rig.of("deliver accounts.users")
    assert call.parent is None
    assert [one.context.span_id for one in call.links] == [first.context.span_id, second.context.span_id]  # type: ignore[union-attr]
    for delivery in (first, second):
        assert [one.context.span_id for one in delivery.links] == [call.context.span_id]  # type: ignore[union-attr]
    assert [one.status.status_code for one in (first, second)] == [StatusCode.UNSET, StatusCode.ERROR]
    assert said(second)["error.type"] == "refused"
    assert first.context.trace_id != second.context.trace_id  # type: ignore[union-attr]


def test_nothing_of_a_person_is_in_any_span() -> None:
    rig = Rig()
    rig.call(asked(1, RetryLater(f"no {PERSONAL['email']}")), asked(2, Delivered(PERSONAL["email"])), outcome="Unknown")
    rig.settle(1, Rejected(f"{PERSONAL['name']} is unknown", PERSONAL["address"]))
    rig.settle(2, Delivered(PERSONAL["email"]))
    everything = "".join(span.to_json() for span in rig.ended)
    assert len(rig.ended) == 3
    assert not [value for value in PERSONAL.values() if value in everything]


def test_what_was_never_asked_of_a_vendor_has_a_span_too() -> None:
    rig = Rig()
    rig.settle(4, Skipped("expired"))
    (span,) = rig.ended
    assert (said(span)["backbone.outcome"], said(span)["backbone.reason"]) == ("skipped", "expired")
    assert span.start_time == span.end_time


def test_a_trace_that_its_publisher_does_not_sample_costs_no_span() -> None:
    rig = Rig()
    rig.call(asked(1, Delivered(), flags="00"))
    rig.settle(1, Delivered(), flags="00")
    assert rig.ended == []
    assert rig.spans.open == 0


def test_spans_of_partitions_that_are_left_end_and_late_answers_open_none() -> None:
    rig = Rig()
    rig.call(asked(1, RetryLater("busy")), outcome="RetryLater")
    rig.spans(facts.PartitionsRevoked("other", (("accounts.users", 3),), True))
    assert rig.spans.open == 1
    rig.spans(facts.PartitionsRevoked("crm", (("accounts.users", 3),), True))
    rig.call(asked(2, Delivered(), is_ours=False))
    rig.call(asked(3, RetryLater("busy")), outcome="RetryLater")
    rig.spans(facts.SubscriptionLeft("crm", "paused"))
    assert rig.spans.open == 0
    assert [said(one)["backbone.outcome"] for one in rig.of("deliver accounts.users")] == ["left", "left"]


def test_what_is_kept_of_deliveries_under_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OPEN_MAX == 20_000
    monkeypatch.setattr("ops.watch.spans.OPEN_MAX", 2)
    rig = Rig()
    for offset in range(5):
        rig.call(asked(offset, RetryLater("busy")), outcome="RetryLater")
    assert rig.spans.open == 2


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    logs.configure(json=True, stream=out)
    yield out
    logs.configure(json=True)


def test_a_span_that_cannot_be_made_keeps_nobody_else_from_the_fact(lines: io.StringIO) -> None:
    rig, seen = Rig(), []
    tell = told_to(Observation(), rig.spans, seen.append)
    broken = facts.DeliverySettled("crm", "h", "a", "e", Delivered(), 1, 0.1, 0.1, None, "e-1", None)  # type: ignore[arg-type]
    tell(broken)
    assert seen == [broken]
    assert '"span_not_made"' in lines.getvalue()


def test_without_a_wish_there_are_no_spans_and_one_without_the_sdk_is_told_what_to_install(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracing.open_tracing(wanted=False, who="here/1", version="1") is None
    assert lines.getvalue() == ""
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    assert tracing.open_tracing(wanted=True, who="here/1", version="1") is None
    assert "pip install 'event-backbone[opentelemetry]'" in lines.getvalue()


def test_a_tracer_provider_that_somebody_has_set_up_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``opentelemetry-instrument backbone run`` does."""
    exported, theirs = InMemorySpanExporter(), TracerProvider()
    theirs.add_span_processor(SimpleSpanProcessor(exported))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: theirs)
    found = tracing.open_tracing(wanted=False, who="here/1", version="1.2")
    assert found is not None
    found.observe(facts.DeliverySettled("crm", "h", "a", "e", Delivered(), 1, 0.1, 0.1, origin(1), "e-1", None))
    found.close()
    (span,) = exported.get_finished_spans()
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("event-backbone", "1.2")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://here:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_wanted_as_the_environment_says(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert spans_wanted() is wanted
