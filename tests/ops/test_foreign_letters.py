"""Dead letters that Kafka Connect and Spring have written, recognised by their headers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from ops.foreign_letters import ForeignLetter, parse_foreign
from schemas.event import Record
from tests.conftest import MakeTopic, Stack
from tests.ops.broker import Broker, backbone, project_folder

CANARY = b"canary-7f3a@personal.example"
CONNECT = (
    ("__connect.errors.topic", b"billing.invoices"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"40217"),
    ("__connect.errors.connector.name", b"warehouse-sink"),
    ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"io.confluent.connect.avro.AvroConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", b"cannot convert " + CANARY),
    ("__connect.errors.exception.stacktrace", b"org.apache.kafka...: cannot convert " + CANARY),
)
SPRING = (
    ("kafka_dlt-original-topic", b"accounts.users"),
    ("kafka_dlt-original-partition", struct.pack(">i", 2)),
    ("kafka_dlt-original-offset", struct.pack(">q", 88_120)),
    ("kafka_dlt-original-timestamp", struct.pack(">q", 1_777_000_000_000)),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"crm-sync"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"no such user " + CANARY),
    ("kafka_dlt-exception-stacktrace", b"java.lang.IllegalStateException: no such user " + CANARY),
)


def record(headers: tuple[tuple[str, bytes | None], ...]) -> Record:
    return Record("others.dlt", 0, 0, b"k", b"v", headers, 1_777_000_000_000)


def test_a_record_of_connect_is_told_by_its_place_its_exception_and_its_connector() -> None:
    assert parse_foreign(record(CONNECT)) == ForeignLetter(
        writer="connect", origin="billing.invoices/3/40217", exception="org.apache.kafka.connect.errors.DataException",
        by="warehouse-sink", stage="VALUE_CONVERTER",
    )  # fmt: skip


def test_a_record_of_spring_is_told_by_its_place_its_exceptions_and_its_group() -> None:
    assert parse_foreign(record(SPRING)) == ForeignLetter(
        writer="spring", origin="accounts.users/2/88120", by="crm-sync", cause="java.lang.IllegalStateException",
        exception="org.springframework.kafka.listener.ListenerExecutionFailedException",
    )  # fmt: skip


def test_what_is_missing_or_no_name_is_left_open_and_what_has_no_such_headers_is_no_letter() -> None:
    assert parse_foreign(record((("__connect.errors.topic", b"a"),))) == ForeignLetter(
        writer="connect", origin="a/?/?", exception=""
    )
    odd = parse_foreign(record((("kafka_dlt-exception-fqcn", b"no class: " + CANARY),)))
    assert odd == ForeignLetter(writer="spring", origin="", exception="‹not shown›")
    assert parse_foreign(record((("ce_type", b"x"),))) is None
    assert parse_foreign(record(())) is None


NAMES = [name for name, _ in (*CONNECT, *SPRING)]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.binary(max_size=40)), max_size=8))
def test_whatever_stands_in_such_headers_is_never_an_error_and_never_shown_as_it_is(
    headers: list[tuple[str, bytes | None]],
) -> None:
    found = parse_foreign(record(tuple(headers)))
    assert (found is not None) == bool(headers)
    if found is not None:
        assert all(text.isprintable() for text in (found.origin, found.exception, found.cause, found.by, found.stage))


@pytest.mark.integration
def test_a_topic_of_foreign_dead_letters_is_shown_without_messages(
    stack: Stack, tmp_path: Path, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project_folder(stack, tmp_path)))
    broker = Broker(stack)
    topic, empty = make_topic("others-dlt", partitions=2), make_topic("plain")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for headers in (CONNECT, SPRING, (("other", b"thing"),)):
        producer.produce(topic, b"payload " + CANARY, b"k", 0, headers=list(headers))
        producer.flush(10)
    producer.produce(empty, b"v", b"k")
    assert producer.flush(10) == 0
    shown = backbone("deadletter", "show", topic, "--output", "json")
    assert [(row["id"], row["writer"], row["origin"]) for row in shown.data] == [
        (f"{topic}/0/0", "connect", "billing.invoices/3/40217"),
        (f"{topic}/0/1", "spring", "accounts.users/2/88120"),
    ]
    table = backbone("deadletter", "show", topic)
    assert "1 record of" in table.err
    for text in (shown.out, shown.err, table.out, table.err):
        assert CANARY.decode() not in text
    chosen = backbone("deadletter", "show", topic, "--cause", "crm-sync", "--output", "json")
    assert [row["writer"] for row in chosen.data] == ["spring"]
    one = backbone("deadletter", "show", topic, f"{topic}/0/1")
    assert (one.code, f"backbone event get {topic}/0/1" in one.err) == (2, True)
    nothing = backbone("deadletter", "show", empty)
    assert (nothing.code, "no record of this topic has the headers of a dead letter" in nothing.err) == (5, True)
