"""Facts become metrics and log lines; the health server shows what it is told."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from connectors.connector import Delivered, Rejected, RetryLater, Skipped, Unavailable, Unknown
from connectors.exchanges import Exchange
from consumers import facts
from ops.watch import health, logs, metrics
from ops.watch.expiry_metrics import Expiries
from ops.watch.observe import Observation, in_short
from ops.watch.tally import Deliveries
from schemas.errors import RefusedError
from schemas.event import Origin

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    logs.configure(json=True, stream=out, level="debug")
    yield out
    logs.configure(json=True)


def written(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def settled(outcome: Any, *, attempts: int = 1) -> facts.DeliverySettled:
    return facts.DeliverySettled(
        subscription="crm-contacts", connection="hubspot", action="contact.upsert", event="accounts.UserSignedUp",
        outcome=outcome, attempts=attempts, seconds=0.02, age_seconds=1.5,
        origin=Origin("accounts.users", 3, 17), event_id="e-1", traceparent=TRACEPARENT,
    )  # fmt: skip


def call(outcome: str = "Delivered", *exchanges: Exchange) -> facts.CallMade:
    return facts.CallMade(
        subscription="crm-contacts", connection="hubspot", action="contact.upsert", deliveries=3, seconds=0.02,
        outcome=outcome, idempotency_key="ab" * 32, attempt=2, traceparent=TRACEPARENT, exchanges=exchanges,
        is_look_up=False, asked=list,
    )  # fmt: skip


ONE_OF_EACH: list[facts.Fact] = [
    settled(Delivered("v-1")),
    settled(Skipped("merged")),
    settled(Rejected("invalid_email", "code 12 at properties.email")),
    facts.DeliveryHeld("crm-contacts", "hubspot", "contact.upsert", "e", RetryLater("locked", timedelta(seconds=2)), 1),
    facts.DeliveryHeld("crm-contacts", "hubspot", "contact.upsert", "e", Unavailable("http_503"), 1),
    facts.DeliveryHeld("crm-contacts", "hubspot", "contact.upsert", "e", Unknown("timeout"), 1),
    facts.RecordsNotOurs("crm-contacts", 40),
    call(),
    call("Unavailable"),
    facts.DeadLettered("crm-contacts", "rejected", "invalid_email", "accounts.users/3/17", "accounts.UserSignedUp"),
    facts.DeadLetterClosed("crm-contacts", "accounts.users/3/17", "delivered"),
    facts.KeyParked("crm-contacts", "accounts.users/3/17"),
    facts.KeyUnparked("crm-contacts", "accounts.users/3/17"),
    facts.ReceiptsWritten("crm-contacts", 400),
    facts.ConnectionPaused("hubspot", "http_429", 12.0),
    facts.ConnectionOpened("warehouse", "timeouts", 60.0),
    facts.ConnectionHalfOpen("warehouse"),
    facts.ConnectionHeld("crm-test", "INC-412"),
    facts.ConnectionStopped("slack", "invalid_auth"),
    facts.ConnectionResumed("hubspot"),
    facts.SubscriptionStarted("crm-contacts", "3f9a2c"),
    facts.SubscriptionNotStarted("warehouse", "The connection 'warehouse' has no credentials here."),
    facts.SubscriptionStopped("billing-alerts", "5 rejections in a row."),
    facts.SubscriptionLeft("warehouse", "paused"),
    facts.CaughtUp("crm-contacts", ("accounts.users", 1), 4_000),
    facts.PastFolded("crm-contacts", ("accounts.users", 1), 4_000, 120),
    facts.PastSent("crm-contacts", ("accounts.users", 1), 120, 2),
    facts.PartitionsAssigned("crm-contacts", (("accounts.users", 0), ("accounts.users", 1))),
    facts.PartitionsRevoked("crm-contacts", (("accounts.users", 1),), False),
    facts.CommitFailed("crm-contacts", "ILLEGAL_GENERATION"),
    facts.SlowProjection("crm-contacts", "accounts.UserSignedUp", 0.2),
]


def test_every_kind_of_fact_is_taken_and_none_is_an_error(lines: io.StringIO) -> None:
    observation = Observation()
    for fact in ONE_OF_EACH:
        observation(fact)
    assert {type(fact) for fact in ONE_OF_EACH} == set(get_args(facts.Fact))
    assert "fact_not_taken" not in lines.getvalue()


def test_facts_are_counted_under_the_names_of_the_list(lines: io.StringIO) -> None:
    observation = Observation()
    for fact in ONE_OF_EACH:
        observation(fact)
    value = observation.registry.get_sample_value
    delivered = {"subscription": "crm-contacts", "connection": "hubspot", "action": "contact.upsert"}
    ended = delivered | {"event": "accounts.UserSignedUp"}
    assert value("backbone_deliveries_total", ended | {"outcome": "delivered", "reason": ""}) == 1
    assert value("backbone_deliveries_total", ended | {"outcome": "rejected", "reason": "invalid_email"}) == 1
    assert value("backbone_deliveries_held_total", delivered | {"outcome": "retry_later", "reason": "locked"}) == 1
    assert value("backbone_records_not_ours_total", {"subscription": "crm-contacts"}) == 40
    assert value("backbone_event_age_seconds_count", {"subscription": "crm-contacts"}) == 3
    assert value("backbone_partitions_assigned", {"subscription": "crm-contacts"}) == 1
    assert value("backbone_revocations_not_drained_total", {"subscription": "crm-contacts"}) == 1
    assert value("backbone_connection_state", {"connection": "slack", "backbone_connection_state": "stopped"}) == 1
    assert value("backbone_connection_state", {"connection": "hubspot", "backbone_connection_state": "closed"}) == 1
    assert value("backbone_connection_state", {"connection": "warehouse", "backbone_connection_state": "half_open"})
    assert value("backbone_connection_state", {"connection": "crm-test", "backbone_connection_state": "paused"}) == 1
    assert value("backbone_receipts_total", {"subscription": "crm-contacts"}) == 400
    assert value("backbone_deadletter_closed_total", {"subscription": "crm-contacts", "outcome": "delivered"}) == 1
    observation.registry.register(Expiries(dict))  # the worker adds it: what ends some day is no fact
    shown = {metric.name for metric in observation.registry.collect()}
    assert shown == {metric.name.removesuffix("_total") for metric in metrics.METRICS}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["delivered", "rejected"]),
            st.one_of(st.floats(0, 100), st.sampled_from(metrics.SECONDS)),
            st.one_of(st.floats(0, 1e6), st.sampled_from(metrics.AGES)),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_deliveries_are_counted_as_the_library_would_count_them(
    settled: list[tuple[str, str, str, float, float]],
) -> None:
    ours, theirs, tally = CollectorRegistry(), CollectorRegistry(), Deliveries()
    ours.register(tally)
    counter = metrics.counter(metrics.DELIVERIES, theirs)
    seconds_of = metrics.histogram(metrics.DELIVERY_SECONDS, theirs)
    ages = metrics.histogram(metrics.EVENT_AGE, theirs)
    for subscription, connection, outcome, seconds, age_s in settled:
        tally.add((subscription, connection, "action", "event", outcome, ""), seconds, age_s)
        counter.labels(subscription, connection, "action", "event", outcome, "").inc()
        seconds_of.labels(connection).observe(seconds)
        ages.labels(subscription).observe(age_s)
    assert samples(ours) == samples(theirs)


def samples(registry: CollectorRegistry) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())), round(sample.value, 6))
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_no_metric_has_a_label_outside_the_short_list() -> None:
    allowed = {"group", "topic", "partition", "subscription", "event", "connection", "action", "outcome", "reason"}
    allowed |= {"kind", "owner", "version"}  # two ends of one log, and what a subscription's info is of
    for metric in (*metrics.METRICS, *metrics.MONITOR_METRICS):
        assert set(metric.labels) <= allowed, metric.name
        assert re.fullmatch(r"backbone_[a-z_]+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_a_connector_that_makes_up_reasons_cannot_grow_the_series_without_bound(lines: io.StringIO) -> None:
    observation = Observation()
    for number in range(1000):
        observation(settled(Rejected(f"reason-{number}")))
        observation(settled(Rejected(f"user {number}@example.org was not found")))
    series = [s for m in observation.registry.collect() if m.name == "backbone_deliveries" for s in m.samples]
    assert len([s for s in series if s.name == "backbone_deliveries_total"]) <= 201
    assert "@example" not in generate_latest(observation.registry).decode()


def test_an_observer_never_raises_whatever_it_is_given(lines: io.StringIO) -> None:
    observation = Observation()
    observation("not a fact")  # type: ignore[arg-type]
    assert written(lines)[0]["event"] == "fact_not_taken"


def test_many_threads_count_exactly(lines: io.StringIO) -> None:
    observation = Observation()

    def settle_many() -> None:
        for _ in range(2000):
            observation(settled(Delivered()))

    threads = [threading.Thread(target=settle_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        observation.registry.get_sample_value("backbone_event_age_seconds_count", {"subscription": "crm-contacts"})
        == 8000
    )


def test_followed_numbers_are_read_when_they_are_asked_for() -> None:
    observation = Observation()
    held = 3
    observation.follow("warehouse", lanes_held=lambda: held, oldest_s=lambda: 7.5, keys_parked=lambda: 2)
    observation.follow_connection("hubspot", quota_used=lambda: 0.25)
    observation.follow_connection("sql", quota_used=lambda: None)
    value = observation.registry.get_sample_value
    assert value("backbone_keys_parked", {"subscription": "warehouse"}) == 2
    assert value("backbone_quota_used_ratio", {"connection": "hubspot"}) == 0.25
    assert value("backbone_quota_used_ratio", {"connection": "sql"}) is None
    assert value("backbone_connection_state", {"connection": "sql", "backbone_connection_state": "closed"}) == 1
    assert value("backbone_lanes_held", {"subscription": "warehouse"}) == 3
    held = 4
    assert value("backbone_lanes_held", {"subscription": "warehouse"}) == 4
    assert value("backbone_oldest_unfinished_seconds", {"subscription": "warehouse"}) == 7.5


def test_lines_about_delivered_calls_are_sampled_and_say_how_many_were_left_out(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)
    observation = Observation()
    for _ in range(250):
        observation(call())
    now = 1001.0
    observation(call())
    called = [line for line in written(lines) if line["event"] == "vendor_called"]
    assert len(called) == 101
    assert called[-1]["left_out"] == 150
    assert called[0].keys() >= {"connection", "action", "outcome", "seconds", "deliveries", "idempotency_key", "time"}


def test_the_line_of_a_call_says_where_it_went_how_it_ended_and_of_which_trace_it_is(lines: io.StringIO) -> None:
    observation = Observation()
    refused = Exchange("POST", "/crm/v3/contacts", "https://a.example", 120, 0.01, 401, "", 80)
    observation(call("Delivered", refused, Exchange("POST", "/crm/v3/contacts", "", 120, 0.01, 200, "", 900)))
    observation(call("Unknown", Exchange("POST", "/crm/v3/contacts", "", 120, 20.0, None, "timeout")))
    observation(call("NotThere"))
    answered, cut, without_http = written(lines)
    del answered["time"]
    assert answered == {
        "level": "info", "event": "vendor_called", "subscription": "crm-contacts", "connection": "hubspot",
        "action": "contact.upsert", "outcome": "delivered", "deliveries": 3, "seconds": 0.02, "attempt": 2,
        "idempotency_key": "ab" * 32, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "method": "POST",
        "endpoint": "/crm/v3/contacts", "status": 200, "sent_bytes": 240, "received_bytes": 980, "requests": 2,
    }  # fmt: skip
    assert (cut["level"], cut["status"], cut["failed"], cut["received_bytes"]) == ("warning", None, "timeout", 0)
    assert (without_http["level"], without_http["outcome"]) == ("info", "not_there")
    assert without_http.keys().isdisjoint({"method", "endpoint", "status", "sent_bytes"})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=40), st.integers(1, 20))
def test_a_line_budget_writes_or_counts_every_line(steps: list[tuple[int, int]], limit: int) -> None:
    budget = logs.LineBudget(limit)
    now, asked, accounted = 0, 0, 0
    for seconds, lines_wanted in steps:
        now += seconds
        for _ in range(lines_wanted):
            asked += 1
            if (left_out := budget.take(now)) is not None:
                accounted += 1 + left_out
    if (left_out := budget.take(now + 1)) is not None:
        accounted += left_out
    assert accounted == asked


def test_dead_letters_are_always_logged_with_their_place(lines: io.StringIO) -> None:
    observation = Observation()
    for offset in range(300):
        observation(facts.DeadLettered("s", "rejected", "invalid_email", f"accounts.users/3/{offset}", "e"))
    found = [line for line in written(lines) if line["event"] == "dead_lettered"]
    assert len(found) == 300
    assert found[0]["level"] == "error"
    assert found[0]["origin"] == "accounts.users/3/0"


def test_the_events_of_a_parked_key_do_not_fill_the_log_but_are_all_counted(lines: io.StringIO) -> None:
    observation = Observation()
    for offset in range(300):
        observation(facts.DeadLettered("s", "parked", "parked", f"accounts.users/3/{offset}", "e"))
    found = [line for line in written(lines) if line["event"] == "event_parked"]
    assert 0 < len(found) <= 2 * logs.LINES_MAX
    value = observation.registry.get_sample_value
    assert (
        value("backbone_deadletter_records_total", {"subscription": "s", "outcome": "parked", "reason": "parked"})
        == 300
    )


def test_what_the_client_repeats_while_kafka_is_away_is_written_once_and_counted(lines: io.StringIO) -> None:
    """It was a hundred lines a second: an outage of a night would have filled the disk."""
    now = [0.0]
    logs.configure(json=True, stream=lines, clock=lambda: now[0])
    client = logging.getLogger("kafka")
    for number in range(500):
        client.error("FAIL [worker#consumer-%d]: 127.0.0.1:42459: Connection refused (after %dms)", number, number)
    client.error("another thing")
    logging.getLogger("elsewhere").error("said")
    logging.getLogger("elsewhere").error("said")
    now[0] = 31.0
    client.error("FAIL [worker#consumer-%d]: 127.0.0.1:42459: Connection refused (after %dms)", 7, 7)
    events = [line["event"] for line in written(lines)]
    assert events == [
        "FAIL [worker#consumer-0]: 127.0.0.1:42459: Connection refused (after 0ms)",
        "another thing",
        "said",
        "said",
        "FAIL [worker#consumer-7]: 127.0.0.1:42459: Connection refused (after 7ms) (and 499 lines like it since)",
    ]


def test_an_exception_is_logged_without_its_text(lines: io.StringIO) -> None:
    try:
        raise ValueError("ana@example.org is not valid")
    except ValueError as error:
        logs.logger().error("failed", exc_info=error)
        logging.getLogger("some.library").error("it failed", exc_info=True)
    ours, theirs = written(lines)
    assert "ana@example.org" not in lines.getvalue()
    assert ours["error"] == theirs["error"] == "builtins.ValueError"
    assert ours["at"][-1].startswith("test_watch.py:")
    assert theirs["logger"] == "some.library"


def test_a_terminal_gets_words_and_a_pipe_gets_json() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    try:
        logs.configure(stream=terminal)
        logs.logger().info("subscription_started", subscription="crm-contacts")
        logs.configure(stream=pipe)
        logs.logger().info("subscription_started", subscription="crm-contacts")
    finally:
        logs.configure(json=True)
    assert "subscription_started" in terminal.getvalue()
    assert "crm-contacts" in terminal.getvalue()
    with pytest.raises(ValueError):
        json.loads(terminal.getvalue())
    assert json.loads(pipe.getvalue())["subscription"] == "crm-contacts"


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    logs.configure(json=True, stream=out, level="warning")
    try:
        logs.logger().info("quiet")
        logs.logger().warning("loud")
    finally:
        logs.configure(json=True)
    assert [line["event"] for line in written(out)] == ["loud"]


def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["Content-Type"]


async def test_the_health_server_says_what_it_is_told_and_shows_the_metrics() -> None:
    observation = Observation()
    observation(settled(Delivered()))
    able = {"live": True, "ready": False}
    server = await health.serve(
        "127.0.0.1", 0, live=lambda: able["live"], ready=lambda: able["ready"], registry=observation.registry
    )
    try:
        base = f"http://127.0.0.1:{server.port}"
        assert (await asyncio.to_thread(get, f"{base}/live"))[:2] == (200, "ok\n")
        assert (await asyncio.to_thread(get, f"{base}/ready"))[:2] == (503, "no\n")
        able["ready"] = True
        assert (await asyncio.to_thread(get, f"{base}/ready"))[0] == 200
        status, text, kind = await asyncio.to_thread(get, f"{base}/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        assert 'backbone_deliveries_total{action="contact.upsert"' in text
        openmetrics = await asyncio.to_thread(get, f"{base}/metrics", "application/openmetrics-text; version=1.0.0")
        assert openmetrics[1].endswith("# EOF\n")
        assert (await asyncio.to_thread(get, f"{base}/secrets"))[0] == 404
    finally:
        await server.stop()
        await server.stop()


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    def yes() -> bool:
        return True

    server = await health.serve("127.0.0.1", 0, live=yes, ready=yes, registry=CollectorRegistry())
    try:
        with pytest.raises(RefusedError, match=r"cannot be served on 127\.0\.0\.1:\d+: .*Choose another port"):
            await health.serve("127.0.0.1", server.port, live=yes, ready=yes, registry=CollectorRegistry())
    finally:
        await server.stop()


def test_partitions_are_written_as_runs() -> None:
    assert in_short([("b", 0), ("a", 5), ("a", 0), ("a", 1), ("a", 2)]) == "a:0-2,5 b:0"
