"""``backbone subscription list | new | check | test | preview | schema``, ``catalog show``: as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consumers.control import State, definition_record, state_record
from schemas.codec import Encoder
from schemas.contract import load_contracts
from schemas.datum import example
from schemas.registry import open_registry
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import PROJECT, TEXT, Broker, backbone, project_folder

ALERTS = (
    TEXT + "tests: [{name: told, given: [{event: billing.InvoiceCreated}], expect: [{body: {channel: '#sales'}}]}]\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a cluster: its local stack does not run."""
    (tmp_path / "backbone.toml").write_text(PROJECT)
    (tmp_path / "subscriptions").mkdir()
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    return tmp_path


def write(project: Path, name: str, text: str = ALERTS) -> Path:
    path = project / "subscriptions" / f"{name}.yaml"
    path.write_text(text)
    return path


def test_check_is_silent_about_good_files_and_exits_3_with_place_and_advice_for_others(project: Path) -> None:
    write(project, "alerts")
    assert backbone("subscription", "check").code == 0
    bad = write(project, "bad", ALERTS.replace("data.invoice_id", "data.invoce_id"))
    answer = backbone("subscription", "check", "--output", "json")
    assert answer.code == 3
    (row,) = answer.data
    assert (row["file"], row["line"], row["path"]) == (str(bad), 9, "routes[0].body.text")
    assert "Did you mean 'data.invoice_id'" in row["message"]
    assert backbone("subscription", "check", "alerts").code == 0
    assert backbone("subscription", "check", str(bad)).code == 3
    github = backbone("subscription", "check", "--output", "github")
    assert github.out.startswith("::error file=")
    missing = backbone("subscription", "check", "alert")
    assert missing.code == 5
    assert "Did you mean 'alerts'" in missing.err


def test_check_v_says_which_policies_are_in_force_and_from_where(project: Path) -> None:
    write(project, "alerts")
    words = backbone("subscription", "check", "-v").err
    assert "alerts@" in words
    for line in ("slo 5m this file", "on_unknown resend the connector slack", "retry.attempts 5 default"):
        assert line in " ".join(words.split())


def test_test_runs_what_stands_in_files_and_exits_3_with_the_difference(project: Path) -> None:
    path = write(project, "alerts")
    answer = backbone("subscription", "test", "--output", "json")
    assert answer.code == 0
    assert [(row["test"], row["result"]) for row in answer.data] == [("told", "passed")]
    path.write_text(ALERTS.replace("expect: [{body: {channel: '#sales'", "expect: [{body: {channel: '#other'"))
    failed = backbone("subscription", "test")
    assert failed.code == 3
    assert "expected '#other', got '#sales'" in failed.out
    path.write_text("routes: 5")
    assert backbone("subscription", "test").code == 2


def test_new_writes_a_file_that_passes_its_own_checks_and_test(project: Path) -> None:
    answer = backbone("subscription", "new", "invoice-talk", "--connection", "slack", "--event", "billing.InvoicePaid")
    assert answer.code == 0
    assert (project / "subscriptions" / "invoice-talk.yaml").is_file()
    assert backbone("subscription", "check").code == 0
    assert backbone("subscription", "test").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["alerts", "--connection", "slack", "--event", "billing.InvoicePaid"], 6, "is there already"),
        (["x-y", "--connection", "slak", "--event", "billing.InvoicePaid"], 5, "Did you mean 'slack'"),
        (["x-y", "--connection", "slack", "--event", "billing.InvoicePayed"], 5, "Did you mean 'billing.InvoicePaid'"),
        (["x-y", "--connection", "slack", "--event", "billing.InvoicePaid", "--action", "m"], 2, "has no action 'm'"),
        (["X Y", "--connection", "slack", "--event", "billing.InvoicePaid"], 2, "no name for a subscription"),
        (["../x", "--connection", "slack", "--event", "billing.InvoicePaid"], 2, "without a folder"),
        (["ledger", "--connection", "slack", "--event", "billing.InvoicePaid"], 2, "reserved"),
        (["x-y", "--connection", "slack", "--event", "billing.InvoicePaid", "--owner", "a: b"], 2, "letters, digits"),
        (["x-y", "--connection", "slack"], 2, "--event"),
    ],
)
def test_new_refuses_with_a_sentence_and_writes_nothing(
    project: Path, arguments: list[str], code: int, words: str
) -> None:
    before = write(project, "alerts").read_text()
    answer = backbone("subscription", "new", *arguments)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert [path.name for path in (project / "subscriptions").iterdir()] == ["alerts.yaml"]
    assert before == ALERTS


def test_list_shows_the_files_without_a_cluster_and_says_so(project: Path) -> None:
    write(project, "alerts")
    write(project, "bad", "nonsense")
    answer = backbone("subscription", "list", "--output", "json")
    assert answer.code == 0
    document = json.loads(answer.out)
    assert [(row["subscription"], row["state"]) for row in document["data"]] == [("alerts", None), ("bad", "broken")]
    assert "What is attached is not known" in document["warnings"][0]


def test_preview_needs_the_cluster(project: Path) -> None:
    write(project, "alerts")
    assert backbone("subscription", "preview", "alerts").code == 8
    assert backbone("subscription", "preview", "alert").code == 5
    assert backbone("subscription", "preview", "alerts", "--from", "yesterday").code == 2
    assert backbone("subscription", "preview", "alerts", "--max", "0").code == 2


def test_catalog_show_tells_an_event_with_its_readers(project: Path) -> None:
    write(project, "alerts")
    answer = backbone("catalog", "show", "billing.InvoiceCreated", "--output", "json")
    assert answer.code == 0
    data = answer.data
    assert (data["topic"], data["key"], data["owner"]) == ("billing.invoices", "account_id", "team-billing")
    fields = {field["field"]: field for field in data["fields"]}
    assert fields["billing_email"]["personal_data"] == "email"
    assert fields["lines"]["type"] == "list of record"
    assert fields["lines.sku"]["doc"]
    assert fields["coupon"]["type"] == "text or null"
    assert [(one["subscription"], one["fields"]) for one in data["subscriptions"]] == [("alerts", ["invoice_id"])]
    table = backbone("catalog", "show", "billing.InvoiceCreated")
    assert "An invoice was issued" in table.out
    assert "alerts" in table.out


def test_catalog_show_tells_a_connection_with_its_actions(project: Path) -> None:
    write(project, "alerts")
    answer = backbone("catalog", "show", "slack", "--output", "json")
    assert answer.code == 0
    actions = {one["action"]: one for one in answer.data["actions"]}
    assert list(actions) == ["message.post", "message.delete"]
    action = actions["message.post"]
    body = {field["field"]: field for field in action["body"]}
    assert body["channel"]["required"]
    assert "at most 40000 characters" in body["text"]["limits"]
    assert [one["subscription"] for one in answer.data["subscriptions"]] == ["alerts"]
    assert "message.post" in backbone("catalog", "show", "slack").out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("billing.InvoiceCreate", "Did you mean 'billing.InvoiceCreated'"),
        ("invoicecreated", "Did you mean 'billing.InvoiceCreated'"),
        ("slak", "Did you mean 'slack'"),
    ],
)
def test_catalog_show_suggests_for_unknown_names(project: Path, name: str, words: str) -> None:
    answer = backbone("catalog", "show", name)
    assert answer.code == 5
    assert words in answer.err


def test_catalog_show_warns_of_files_it_cannot_read(project: Path) -> None:
    write(project, "bad", "nonsense")
    answer = backbone("catalog", "show", "billing.InvoiceCreated", "--output", "json")
    assert answer.code == 0
    assert "bad.yaml has errors" in json.loads(answer.out)["warnings"][0]


# -- at a real broker ------------------------------------------------------------------------------------------------

CRM = f"""
[project]
name = "acme"
schemas = "{ROOT}/schemas/events"
subscriptions = "subscriptions"
[connections.hubspot]
connector = "hubspot"
[contexts.local]
connections = "fake"
"""
CONTACTS = """description: Contacts.
owner: team-revops
connection: hubspot
personal_data: {purpose: To test., allow: [email]}
routes:
  - event: accounts.UserSignedUp
    where: data.plan != 'internal'
    action: contact.upsert
    body:
      email: "{{ data.email | lower }}"
      company: "{{ 'of ' ~ (data.company | default('nobody')) }}"
"""


@pytest.mark.integration
def test_preview_shows_real_events_masked_and_sends_and_commits_nothing(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(partitions=2)
    folder = project_folder(stack, tmp_path)
    (folder / "backbone.toml").write_text(CRM.replace(f"{ROOT}/schemas/events", "events"))
    (folder / "events" / "accounts").mkdir(parents=True)
    schema = (ROOT / "schemas/events/accounts/UserSignedUp.avsc").read_text().replace("accounts.users", topic)
    (folder / "events" / "accounts" / "UserSignedUp.avsc").write_text(schema)
    write(folder, "contacts", CONTACTS)
    monkeypatch.setenv("BACKBONE_PROJECT", str(folder))
    contract = load_contracts(folder / "events")["accounts.UserSignedUp"]
    registry = open_registry(stack.registry_url)
    registry.register(contract.subject, contract.text)
    encoder, producer = Encoder(registry), Broker(stack)
    send(producer, topic, [encode(encoder, contract, index, plan) for index, plan in enumerate("aib")])
    send(producer, topic, [(b"k", b"no avro", [("ce_type", b"accounts.UserSignedUp")])])

    answer = backbone("subscription", "preview", "contacts", "--from", "earliest", "--output", "json")
    assert answer.code == 0, answer.err
    rows = answer.data
    assert [row["outcome"] for row in rows] == ["would be sent", "would be sent", "dead letter"]
    assert rows[0]["body"] == {"email": "‹email›", "company": "of Example Ltd"}
    assert rows[0]["entity"] == "u-0"
    assert "undecodable" in rows[2]["reason"]
    assert "example.org" not in answer.out
    assert "1 not for contacts. Nothing was sent." in answer.err
    newest = backbone("subscription", "preview", "contacts", "--max", "1", "--output", "json")
    assert [row["outcome"] for row in newest.data] == ["dead letter"]
    assert "would be sent" in backbone("subscription", "preview", "contacts", "--max", "5").out
    assert producer.commits("contacts") == {}


def encode(encoder: Encoder, contract: Any, index: int, plan: str) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    from datetime import UTC, datetime

    data = {**example(contract), "user_id": f"u-{index}", "plan": "internal" if plan == "i" else "starter"}
    made = encoder.encode(contract, data, id=f"e-{index}", source="test", time=datetime.now(UTC))
    return made.key, made.value, made.headers


def send(broker: Broker, topic: str, records: list[tuple[bytes, bytes, list[tuple[str, bytes]]]]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for key, value, headers in records:
        producer.produce(topic, value, key, partition=0, headers=headers)
        producer.flush(10)


@pytest.mark.integration
def test_list_shows_what_is_attached_and_where_the_file_differs(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    folder = project_folder(stack, tmp_path)
    monkeypatch.setenv("BACKBONE_PROJECT", str(folder))
    name, gone = f"{prefix}-alerts".replace(".", "-").lower(), f"{prefix}-gone".replace(".", "-").lower()
    write(folder, name)
    write(folder, "only-a-file")
    broker = Broker(stack)
    broker.attach(name, {"billing.invoices": 1})
    broker.attach(gone, {"billing.invoices": 1})
    broker.control(state_record(gone, State(state="stopped", reason="It rejects everything.")))
    try:
        answer = backbone("subscription", "list", "--output", "json")
        assert answer.code == 0, answer.err
        rows = {row["subscription"]: row for row in answer.data}
        assert (rows[name]["state"], rows[name]["attached"]) == ("running", "3f9a2c")
        assert "another version" in rows[name]["note"]
        assert (rows[gone]["state"], rows[gone]["version"]) == ("stopped", None)
        assert rows[gone]["note"] == "It rejects everything."
        assert rows["only-a-file"]["state"] == "detached"
    finally:
        broker.control(definition_record(name, None), definition_record(gone, None))
