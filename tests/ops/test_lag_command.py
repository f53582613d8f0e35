"""``backbone lag`` as a person types it, at a real broker."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.conftest import MakeTopic, Stack
from tests.ops.broker import Answer, Broker, backbone, project_folder

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project_folder(stack, tmp_path)))
    return Broker(stack)


def one_row(answer: Answer) -> dict[str, object]:
    assert answer.code == 0, answer.err
    (row,) = answer.data
    return dict(row)


def test_a_foreign_group_is_shown_with_lag_and_age(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic(partitions=2)
    broker.produce(topic, 5)
    broker.commit(prefix, topic, {0: 2, 1: 0})
    row = one_row(backbone("lag", prefix, "--output", "json"))
    assert (row["group"], row["ours"], row["lag"], row["lag_max"], row["state"]) == (prefix, False, 3, 3, "empty")
    assert isinstance(row["lag_seconds"], float)
    assert 0 < row["lag_seconds"] < 60
    table = backbone("lag", prefix)
    assert table.code == 0
    assert table.out.split()[:2] == ["GROUP", "STATUS"]
    assert prefix in table.out


def test_verbose_rows_are_partitions(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic(partitions=2)
    broker.produce(topic, 5)
    broker.commit(prefix, topic, {0: 2})
    answer = backbone("lag", prefix, "-v", "--output", "json")
    assert [(row["partition"], row["committed"], row["lag"], row["lag_from"]) for row in answer.data] == [
        (0, 2, 3, "commit"),
        (1, None, 0, "log"),
    ]


def test_a_foreign_group_without_a_commit_is_marked_and_one_of_ours_counts_from_its_start(
    broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(partitions=2)
    broker.produce(topic, 6, partition=1)
    broker.commit(prefix, topic, {0: 0})
    row = one_row(backbone("lag", prefix, "--output", "json"))
    assert (row["lag"], row["lag_is_guess"], row["no_commit"]) == (6, True, 1)
    assert "~" in backbone("lag", prefix).out
    broker.attach(prefix, {topic: 2}, starts={(topic, 1): 4})
    try:
        row = one_row(backbone("lag", prefix, "--output", "json"))
        assert (row["ours"], row["lag"], row["lag_is_guess"], row["slo_seconds"]) == (True, 2, False, 300.0)
    finally:
        broker.detach(prefix)


def test_one_of_ours_that_never_ran_is_no_unknown_name(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic()
    broker.produce(topic, 3)
    broker.attach(prefix, {topic: 1})
    try:
        row = one_row(backbone("lag", prefix, "--output", "json"))
        assert (row["state"], row["members"], row["lag"]) == ("dead", 0, 3)
    finally:
        broker.detach(prefix)


def test_a_misspelt_name_is_not_found_and_gets_a_suggestion(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic()
    broker.commit(f"{prefix}-invoices", topic, {0: 0})
    answer = backbone("lag", f"{prefix}-invioces")
    assert answer.code == 5
    assert f"Did you mean '{prefix}-invoices'?" in answer.err
    assert answer.out == ""


def test_without_a_name_every_group_is_shown(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic()
    for name in ("a", "b"):
        broker.commit(f"{prefix}-{name}", topic, {0: 0})
    answer = backbone("lag", "--output", "json", "--fields", "group,lag")
    assert answer.code == 0, answer.err
    assert {f"{prefix}-a", f"{prefix}-b"} <= {row["group"] for row in answer.data}
    assert all(row.keys() == {"group", "lag"} for row in answer.data)


def test_fail_over_says_no_when_a_record_waits_longer(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    broker.produce(topic, 2, at_ms=int((time.time() - 90) * 1000))
    broker.commit(prefix, topic, {0: 1})
    late = backbone("lag", prefix, "--fail-over", "60s")
    assert late.code == 3
    assert f"{prefix} is late: its oldest waiting record is 1m3" in late.err
    assert prefix in late.out
    assert backbone("lag", prefix, "--fail-over", "2m").code == 0
    broker.commit(prefix, topic, {0: 2})
    assert backbone("lag", prefix, "--fail-over", "60s").code == 0


def test_json_stays_one_document_when_the_answer_is_no(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    broker.produce(topic, 1, at_ms=int((time.time() - 90) * 1000))
    broker.commit(prefix, topic, {0: 0})
    answer = backbone("lag", prefix, "--fail-over", "60s", "--output", "json")
    assert answer.code == 3
    assert json.loads(answer.out)["schema"] == "backbone.lag/v1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail-over", "a minute"), "a duration is a whole number with a unit"),
        (("--watch", "--output", "json"), "--output ndjson"),
        (("--watch", "--every", "1ms"), "at least 200ms"),
        (("--isolation", "dirty"), "'dirty' is not one of"),
    ],
)
def test_what_can_be_typed_wrong_is_one_sentence_and_exit_2(
    broker: Broker, arguments: tuple[str, ...], words: str
) -> None:
    answer = backbone("lag", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_watching_shows_a_trend_and_ends_when_the_answer_is_no(
    broker: Broker, make_topic: MakeTopic, prefix: str
) -> None:
    """The limit passes while it watches, so the second look or a later one ends it."""
    topic = make_topic(config={"message.timestamp.type": "CreateTime"})
    broker.produce(topic, 1, at_ms=int((time.time() - 56) * 1000))
    broker.commit(prefix, topic, {0: 0})
    answer = backbone("lag", prefix, "--watch", "--every", "200ms", "--fail-over", "60s", "--output", "ndjson")
    assert answer.code == 3
    *measured, last = [json.loads(line) for line in answer.out.splitlines()]
    assert last["error"]["code"] == 3
    looks = [look["data"] for look in measured]
    assert len(looks) > 2
    assert looks[0]["trend"] is None
    assert looks[1]["trend"] is not None
    ages = [look["lag_seconds"] for look in looks]
    assert ages == sorted(ages)


def test_an_open_transaction_counts_only_for_who_reads_it(broker: Broker, make_topic: MakeTopic, prefix: str) -> None:
    from confluent_kafka import Producer

    topic = make_topic()
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": prefix})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"v", partition=0)
    producer.flush(10)
    broker.commit(prefix, topic, {0: 0})
    assert one_row(backbone("lag", prefix, "--output", "json"))["lag"] == 1
    row = one_row(backbone("lag", prefix, "--output", "json", "--isolation", "committed"))
    assert (row["lag"], row["uncommitted"]) == (0, 1)
    producer.abort_transaction(10)
