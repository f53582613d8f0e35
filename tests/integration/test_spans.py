"""One trace from the publish to the vendor, and the calls kept of it, over a real broker and real processes."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.waiting import eventually

CANARY = "canary-4711@example.org"


class Collector:
    """An OTLP collector over HTTP that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.wire = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not to the test's output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        self.wire += body
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(one.resource)
            self.spans += [span for scope in one.scope_spans for span in scope.spans]

    def of(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[World]:
    """Its things have somebody's address, which HubSpot may get; its calls are kept."""
    world = new_world(tmp_path, stack, prefix)
    contract = world.folder / "events" / world.name / "ThingChanged.avsc"
    schema = json.loads(contract.read_text())
    schema["fields"].append({
        "name": "mail", "type": "string", "doc": "Whose it is.", "examples": ["a@x.org"], "personal_data": "email",
    })  # fmt: skip
    contract.write_text(json.dumps(schema))
    subscription = world.write_subscription()
    written = subscription.read_text().replace("body: {", 'body: {email: "{{ data.mail }}", ')
    subscription.write_text(f"personal_data: {{purpose: To tell who it is., allow: [email]}}\n{written}")
    project = world.folder / "backbone.toml"
    project.write_text(
        project.read_text().replace('connector = "hubspot"\n', 'connector = "hubspot"\ncall_log = true\n')
    )
    try:
        world.prepare()
        yield world
    finally:
        world.close()


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


def test_publish_attempts_and_delivery_are_one_trace_and_hold_nothing_of_anybody(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = InMemorySpanExporter()
    service = TracerProvider()
    service.add_span_processor(SimpleSpanProcessor(published))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda name: service.get_tracer(name))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    world.vendor.misbehave({"kind": "status", "status": 409, "body": {"message": CANARY}})
    worker = world.start_worker()
    with world.publisher() as publisher:
        publisher.publish_data(
            world.contract, {"thing_id": "t-1", "number": 1, "mail": CANARY}, source="test", id="e-1"
        ).result(30)
    (publish,) = published.get_finished_spans()
    name = f"deliver {world.topic}"
    (delivery,) = eventually(lambda: collector.of(name), 60, about="the span of the delivery")
    calls = eventually(lambda: len(found := collector.of(call_name(collector))) == 2 and found, about="two calls")
    assert worker.stop() == 0

    trace_id = publish.context.trace_id.to_bytes(16, "big")
    assert {one.trace_id for one in (delivery, *calls)} == {trace_id}
    assert delivery.parent_span_id == publish.context.span_id.to_bytes(8, "big")
    assert {one.parent_span_id for one in calls} == {delivery.span_id}
    assert [attributes(one)["http.response.status_code"] for one in calls] == [409, 200]
    assert [(attributes(one)["backbone.attempt"], attributes(one)["backbone.outcome"]) for one in delivery.events] == [
        (1, "retry_later"), (2, "delivered"),
    ]  # fmt: skip
    assert attributes(delivery)["messaging.consumer.group.name"] == world.subscription
    assert attributes(collector.resources[0])["service.name"] == "event-backbone"
    assert publish.end_time is not None
    assert CANARY.encode() not in collector.wire
    assert CANARY not in publish.to_json()
    assert CANARY not in worker.log.read_text()

    # the log line of each call names the same trace
    said = worker.said("vendor_called")
    assert {one["trace_id"] for one in said} == {trace_id.hex()}
    assert [(one["attempt"], one["status"], one["outcome"]) for one in said] == [
        (1, 409, "retry_later"), (2, 200, "delivered"),
    ]  # fmt: skip
    assert {one["method"] for one in said} == {"POST"}
    assert all(one["sent_bytes"] > 0 and one["received_bytes"] > 0 and one["seconds"] > 0 for one in said)
    assert json.dumps(said).count("/batch/upsert") == 2

    # both calls are kept, without the address
    kept = json.loads(world.backbone("connection", "calls", "hubspot", "--event", "e-1", "--output", "json"))["data"]
    assert [(one["outcome"], one["status"]) for one in kept] == [("delivered", 200), ("retry_later", 409)]
    for one in kept:
        assert one["deliveries"][0]["body"] == {"email": "‹email›", "plan": 1}
        assert one["trace_id"] == trace_id.hex()
    assert kept[1]["exchanges"][0]["answer"] == {"message": f"‹text, {len(CANARY)} characters›"}
    answer = kept[0]["exchanges"][0]["answer"]
    assert answer["results"][0]["objectWriteTraceId"] == kept[0]["deliveries"][0]["idempotency_key"]
    files = list((world.folder / ".backbone" / "calls").iterdir())
    assert files
    assert not [file for file in files if CANARY.encode() in file.read_bytes()]


def call_name(collector: Collector) -> str:
    return next((span.name for span in collector.spans if span.name.endswith("/batch/upsert")), "")
