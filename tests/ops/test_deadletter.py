"""``backbone deadletter`` at a real broker and registry: letters are written as the runtime writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from consumers.deadletter import DeadLetter, letter_of, letter_record
from consumers.settlement import DeadOutcome
from ops.deadletters import OpenLetter, by_cause, matching
from schemas.codec import Encoder
from schemas.contract import Contract, example, load_contracts
from schemas.event import Origin, Record
from schemas.registry import open_registry
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import Broker, backbone, project_folder

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def broker(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project_folder(stack, tmp_path)))
    return Broker(stack)


@pytest.fixture
def name(broker: Broker, make_topic: MakeTopic, prefix: str) -> Iterator[str]:
    """An attached subscription with a dead topic of 2 partitions."""
    topic = make_topic("users", partitions=2)
    make_topic("dead", partitions=2, config={"cleanup.policy": "compact"})
    broker.attach(f"{prefix}", {topic: 2})
    yield prefix
    broker.detach(prefix)


@pytest.fixture
def signed_up() -> Contract:
    return load_contracts(ROOT / "schemas" / "events")["accounts.UserSignedUp"]


@pytest.fixture
def encoder(stack: Stack, signed_up: Contract) -> Encoder:
    registry = open_registry(stack.registry_url)
    registry.register(signed_up.subject, json.dumps(signed_up.schema))
    return Encoder(registry)


def event(encoder: Encoder, contract: Contract, number: int = 0, **data: Any) -> Record:
    usual = example(contract)
    encoded = encoder.encode(
        contract, usual | data, id=f"e-{number}", source="shop", time=NOW, subject=usual[contract.entity]
    )  # fmt: skip
    return Record("accounts.users", 1, number, encoded.key, encoded.value, tuple(encoded.headers), 1_777_000_000_000)


def letter(
    record: Record, outcome: DeadOutcome = "rejected", reason: str = "invalid_email", detail: str = ""
) -> DeadLetter:
    return letter_of(
        record, outcome=outcome, reason=reason, detail=detail, attempts=2, seconds_tried=60, version="3f9a2c",
        now=datetime.now(UTC) - timedelta(hours=2),
    )  # fmt: skip


def write(broker: Broker, name: str, *letters: DeadLetter, close: bool = False, omit_value: bool = False) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for one in letters:
        made = letter_record(one, omit_value=omit_value)
        value = None if close else made.value
        headers: list[tuple[str, str | bytes | None]] = [] if close else list(made.headers)
        producer.produce(f"{name}.dead", value, made.key, made.partition, headers=headers)
    assert producer.flush(10) == 0


def plain(number: int, value: bytes | None = b"{}") -> Record:
    return Record(
        "accounts.users", 0, number, b"u1", value, (("ce_type", b"accounts.UserSignedUp"),), 1_777_000_000_000
    )


@pytest.mark.integration
def test_letters_are_grouped_by_cause_the_most_first(broker: Broker, name: str) -> None:
    write(broker, name, *(letter(plain(n), detail=f"code {n} at properties.email") for n in range(3)))
    write(broker, name, letter(plain(9), reason="plan_unknown"))
    answer = backbone("deadletter", "list", name, "--output", "json")
    assert answer.code == 0, answer.err
    first, second = answer.data
    assert (first["count"], first["reason"], first["outcome"]) == (3, "invalid_email", "rejected")
    assert first["events"] == ["accounts.UserSignedUp"]
    assert first["oldest_seconds"] == pytest.approx(2 * 3600 + 60, abs=60)
    assert (second["count"], second["reason"]) == (1, "plan_unknown")
    table = backbone("deadletter", "list", name)
    assert "invalid_email" in table.out
    assert f"backbone deadletter show {name} --cause {first['fingerprint']}" in table.err


@pytest.mark.integration
def test_a_closed_letter_is_gone_and_one_that_fails_again_is_one(broker: Broker, name: str) -> None:
    again = letter(plain(1), reason="second_reason")
    write(broker, name, letter(plain(0)), letter(plain(1), reason="first_reason"), again)
    write(broker, name, letter(plain(0)), close=True)
    (row,) = backbone("deadletter", "show", name, "--output", "json").data
    assert (row["id"], row["reason"]) == ("accounts.users/0/1", "second_reason")


@pytest.mark.integration
def test_fail_on_says_no_while_a_letter_is_open(broker: Broker, name: str) -> None:
    assert backbone("deadletter", "list", name, "--fail-on").code == 0
    write(broker, name, letter(plain(0)))
    answer = backbone("deadletter", "list", name, "--fail-on")
    assert answer.code == 3
    assert "1 open dead letter." in answer.err
    assert backbone("deadletter", "list", name, "--fail-on", "--cause", "another").code == 0
    write(broker, name, letter(plain(0)), close=True)
    assert backbone("deadletter", "list", name, "--fail-on").code == 0


@pytest.mark.integration
def test_one_letter_in_full_is_decoded_and_masked(
    broker: Broker, name: str, encoder: Encoder, signed_up: Contract
) -> None:
    record = event(encoder, signed_up, 7, email="ana.secret@example.org")
    write(broker, name, letter(record, detail="INVALID_EMAIL at properties.email"))
    answer = backbone("deadletter", "show", name, "accounts.users/1/7", "--output", "json")
    assert answer.code == 0, answer.err
    shown = answer.data
    assert shown["event"] == "accounts.UserSignedUp"
    assert shown["payload"]["email"] == "‹email›"
    assert shown["payload"]["user_id"] == signed_up.fields["user_id"].examples[0]
    assert shown["envelope"]["id"] == "e-7"
    assert (shown["attempts"], shown["version"]) == (2, "3f9a2c")
    assert "ana.secret" not in answer.out + answer.err
    human = backbone("deadletter", "show", name, "accounts.users/1/7")
    assert human.code == 0
    assert "ana.secret" not in human.out + human.err


@pytest.mark.integration
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\x00\x00\x00\x00", {"undecodable", "detail", "bytes"}),
        (b"ana@example.org in plain text", {"undecodable", "detail", "bytes"}),
        (b"\x00\x7f\xff\xff\xf0 of no schema", {"undecodable", "bytes"}),
    ],
)
def test_bytes_that_cannot_be_decoded_are_told_by_their_length(
    broker: Broker, name: str, value: bytes, shown: set[str]
) -> None:
    write(broker, name, letter(plain(3, value), outcome="undecodable", reason="no-framing"))
    answer = backbone("deadletter", "show", name, "accounts.users/0/3", "--output", "json")
    assert answer.code == 0, answer.err
    assert answer.data["payload"].keys() == shown
    assert answer.data["payload"]["bytes"] == len(value)
    assert "plain text" not in answer.out


@pytest.mark.integration
def test_a_null_value_and_an_omitted_one_are_told_apart(broker: Broker, name: str) -> None:
    write(broker, name, letter(plain(1, None)))
    write(broker, name, letter(plain(2, b"x" * 5000)), omit_value=True)
    assert backbone("deadletter", "show", name, "accounts.users/0/1", "--output", "json").data["payload"] is None
    omitted = backbone("deadletter", "show", name, "accounts.users/0/2", "--output", "json").data["payload"]
    assert omitted["bytes"] == 5000


@pytest.mark.integration
def test_headers_that_are_not_of_the_envelope_are_named_and_not_shown(broker: Broker, name: str) -> None:
    record = plain(4)
    record.headers = (*record.headers, ("customer", b"ana@example.org"), ("ce_subject", b"ana"))
    record.headers = tuple(h for h in record.headers if h[0] != "ce_type")
    write(broker, name, letter(record))
    answer = backbone("deadletter", "show", name, "accounts.users/0/4", "--output", "json")
    assert answer.data["envelope"] == {"customer": "‹not shown›", "subject": "‹not shown›"}
    assert answer.data["key"] == "‹not shown›"
    assert "ana" not in answer.out


@pytest.mark.integration
def test_records_that_are_no_letters_of_ours_are_said_and_not_counted(broker: Broker, name: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(f"{name}.dead", b"from elsewhere", b"key")
    assert producer.flush(10) == 0
    answer = backbone("deadletter", "list", name, "--output", "json")
    assert answer.data == []
    assert "1 live records" in answer.err


@pytest.mark.integration
def test_names_and_ids_that_do_not_exist_are_not_found(broker: Broker, name: str) -> None:
    write(broker, name, letter(plain(0)))
    for arguments, words in (
        (("list", name + "x"), f"Did you mean '{name}'?"),
        (("show", "nothing-like-it"), "There is no subscription 'nothing-like-it'."),
        (("show", name, "accounts.users/0/1"), "Did you mean 'accounts.users/0/0'?"),
    ):
        answer = backbone("deadletter", *arguments)
        assert answer.code == 5
        assert words in answer.err
        assert answer.out == ""


@pytest.mark.integration
def test_without_a_name_the_letters_of_all_are_listed(broker: Broker, name: str) -> None:
    write(broker, name, letter(plain(0)))
    answer = backbone("deadletter", "list", "--output", "json")
    assert name in {row["subscription"] for row in answer.data}


@pytest.mark.integration
def test_more_letters_than_the_limit_are_said(broker: Broker, name: str) -> None:
    write(broker, name, *(letter(plain(n)) for n in range(5)))
    answer = backbone("deadletter", "show", name, "--limit", "2", "--output", "json")
    assert len(answer.data) == 2
    assert "Only 2 of 5 are shown" in answer.err


REASONS = st.sampled_from(["invalid_email", "plan_unknown"])


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), REASONS, st.integers(0, 99)), max_size=30))
def test_grouping_loses_no_letter(drawn: list[tuple[str, str, int]]) -> None:
    letters = [
        OpenLetter(subscription=name, letter=letter(plain(place), reason=reason, detail=f"at line {number}"))
        for place, (name, reason, number) in enumerate(drawn)
    ]
    causes = by_cause(letters)
    assert sorted(found.id for cause in causes for found in cause.letters) == sorted(found.id for found in letters)
    assert [len(cause.letters) for cause in causes] == sorted((len(cause.letters) for cause in causes), reverse=True)
    for cause in causes:
        assert {found.subscription for found in cause.letters} == {cause.subscription}
        assert len({found.letter.reason for found in cause.letters}) == 1
    assert matching(letters, None) == letters
    assert all(found.letter.reason == "invalid_email" for found in matching(letters, "invalid_email"))


def test_an_id_is_the_origin() -> None:
    found = OpenLetter(subscription="s", letter=letter(plain(3)))
    assert found.id == str(Origin("accounts.users", 0, 3))
