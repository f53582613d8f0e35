"""The data map, and what vendors were given about one person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.connector import Action, connector_types
from ops import event_log
from ops.app import App
from ops.catalog.data_map import received
from ops.ledger.given import given
from ops.ledger.query import Ledger, StoredReceipt
from schemas.event import Event, Record
from tests.ops.ledgers import KEY, NOW, address_of, open_store, row
from tests.ops.projects import TestProject, make_project

ACTIONS = {"hubspot": connector_types()["hubspot"].actions, "slack": connector_types()["slack"].actions}
MAPPED = """
description: Sends some.
owner: team-x
connection: rows
personal_data: {purpose: To test., allow: [email]}
routes:
  - event: accounts.UserSignedUp
    where: data.name != 'x'
    action: row.upsert
    entity: "{{ data.user_id }}"
    body: {table: t, row: {mail: "{{ data.email | lower }}", plan: "{{ data.plan }}"}}
"""
PYTHON = """
from consumers.subscription import Projected


def renamed(event):
    row = {"mail": event.data["new_email"]}
    return Projected(action="row.upsert", entity=event.data["user_id"], body={"table": "t", "row": row})
"""
PROJECTED = """
description: Renames.
owner: team-x
connection: rows
personal_data: {purpose: To test., allow: [email]}
routes:
  - event: accounts.UserEmailChanged
    projection: renames.py:renamed
tests:
  - {name: one, given: [{event: accounts.UserEmailChanged}], expect: [{action: row.upsert}]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestProject:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    made = make_project(tmp_path, "r")
    folder = tmp_path / "consumers" / "subscriptions"
    (folder / "mapped.yaml").write_text(MAPPED)
    (folder / "renames.yaml").write_text(PROJECTED)
    (folder / "renames.py").write_text(PYTHON)
    return made


def mapped(project: TestProject, *words: str) -> list[dict[str, Any]]:
    result = project.run("catalog", "personal-data", *words, "--output", "json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["data"]
    return found


def test_the_map_says_which_field_goes_where_and_a_condition_sends_nothing(project: TestProject) -> None:
    ((one,),) = [[row for row in mapped(project) if row["subscription"] == "mapped"]]
    assert (one["personal_data"], one["event"], one["field"]) == ("email", "accounts.UserSignedUp", "email")
    assert (one["connection"], one["connector"], one["action"], one["place"]) == (
        "rows", "sql", "row.upsert", "body.row.mail",
    )  # fmt: skip
    assert (one["purpose"], one["owner"], one["how"]) == ("To test.", "team-x", "sent")


def test_of_a_python_projection_the_map_says_what_may_leave_and_what_was_seen(project: TestProject) -> None:
    found = {row["field"]: row["how"] for row in mapped(project) if row["subscription"] == "renames"}
    assert found == {"new_email": "seen", "old_email": "may"}


def test_fields_that_go_nowhere_are_shown_when_all_are_asked_for(project: TestProject) -> None:
    names = {(row["event"], row["field"]) for row in mapped(project, "--all") if row["subscription"] is None}
    assert ("accounts.UserSignedUp", "name") in names
    assert ("accounts.UserSignedUp", "email") not in names
    assert all(row["subscription"] for row in mapped(project))


def test_the_map_is_narrowed_and_unknown_names_get_a_suggestion(project: TestProject) -> None:
    assert mapped(project, "--class", "name") == []
    assert {row["event"] for row in mapped(project, "--event", "accounts.UserSignedUp")} == {"accounts.UserSignedUp"}
    assert mapped(project, "--connection", "rows") == mapped(project)
    for words, said in (
        (("--class", "emial"), "no class of personal data 'emial'. Did you mean 'email'?"),
        (("--event", "accounts.UserSignedUpp"), "Did you mean 'accounts.UserSignedUp'?"),
        (("--connection", "row"), "no connection 'row'. Did you mean 'rows'?"),
    ):
        result = project.run("catalog", "personal-data", *words)
        assert result.exit_code == 5
        assert said in result.stderr
    result = project.run("catalog", "personal-data", "--of", "user_id=u1", "--all")
    assert result.exit_code == 2


def test_who_got_something_about_a_person_is_asked_by_field_and_value(project: TestProject) -> None:
    result = project.run("catalog", "personal-data", "--of", "u-secret")
    assert result.exit_code == 2
    assert "u-secret" not in result.stderr
    result = project.run("catalog", "personal-data", "--of", "usr_id=u-secret")
    assert result.exit_code == 5
    assert "Did you mean 'user_id'?" in result.stderr
    assert "u-secret" not in result.stderr


# ---- from receipts --------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    address = address_of(tmp_path)
    store = open_store(address)
    store.put_receipts(
        [
            row(0, 0),
            row(1, 1, personal_data_sent=["name"]),
            row(2, 2, outcome="rejected", personal_data_sent=["phone"]),
            row(3, 3, outcome="skipped", reason="merged", body_sha256=None),
            row(4, 4, subscription="chat", connection="slack", action="message.post", reference="C1/1.1"),
            row(5, 5, subscription="chat", connection="slack", action="message.post", reference="C1/1.2"),
            row(6, 6, entity="u-2", record_key="u-2", event_subject="u-2"),
        ]
    )
    opened = Ledger(address, lambda: KEY)
    yield opened
    opened.close()


def about(ledger: Ledger) -> list[StoredReceipt]:
    return ledger.about("u-1", {"accounts.UserSignedUp"})


def test_what_was_given_is_summed_up_by_entity_and_where_the_vendor_is_asked_by_id_one_by_one(ledger: Ledger) -> None:
    contact, *messages = given(about(ledger), ACTIONS)
    assert (contact.receipt.entity, contact.classes, contact.count) == ("u-1", ("email", "name"), 2)
    assert (contact.first_at, contact.last_at) == (NOW, NOW + timedelta(seconds=1))
    assert [one.receipt.reference for one in messages] == ["C1/1.1", "C1/1.2"]
    assert ledger.about("u-1", {"accounts.Other"}) == []


def test_of_a_connection_that_is_gone_it_is_still_known_what_it_got(ledger: Ledger) -> None:
    assert {one.receipt.connection for one in given(about(ledger), {})} == {"hubspot", "slack"}


def test_what_was_erased_since_is_marked_and_what_was_sent_after_that_is_not(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    store = open_store(address)
    erasing = {"action": "contact.erase", "change_kind": "erase", "change_id": "ch-1", "revision": "ch-1",
               "body_sha256": None, "personal_data_sent": []}  # fmt: skip
    store.put_receipts([row(0, 0), row(1, 1, **erasing)])
    ledger = Ledger(address, lambda: KEY)
    (one,) = given(about(ledger), ACTIONS)
    assert one.erased_at == NOW + timedelta(seconds=1)
    store.put_receipts([row(2, 2)])
    (one,) = given(about(ledger), ACTIONS)
    assert (one.erased_at, one.count) == (None, 2)
    ledger.close()


def test_an_entity_made_of_personal_data_is_not_shown(ledger: Ledger) -> None:
    found: list[StoredReceipt] = about(ledger)
    shown = received(given(found, ACTIONS), {"hubspot": {"connector": "hubspot", "region": "EU"}})
    assert (shown[0]["entity"], shown[0]["region"], shown[1]["region"]) == ("u-1", "EU", None)
    hidden = [replace(one, entity_hashed=True) for one in found]
    assert {one["entity"] for one in received(given(hidden, ACTIONS), {})} == {"‹hashed›"}


def test_every_action_that_is_erased_names_an_action_of_its_connector_that_takes_one_more_field_at_most() -> None:
    for name, one in connector_types().items():
        for action in one.actions.values():
            if action.erased_by:
                erasing: Action = one.actions[action.erased_by]
                assert len(erasing.about) <= 1, name
                assert erasing.about == action.about, name


def test_the_subject_of_an_event_is_shown_by_the_class_of_its_entity_not_of_its_key(project: TestProject) -> None:
    """It was shown wherever the key could be: of an event keyed by account and about an address, the address."""
    schema = {
        "type": "record", "name": "MailVerified", "namespace": "accounts", "doc": "An address was verified.",
        "backbone": {"topic": "r.mails", "key": "account_id", "entity": "email", "owner": "team-x", "contact": "#x",
                     "status": "live", "freshness_slo": "60s", "retention": "7d"},
        "fields": [
            {"name": "account_id", "type": "string", "doc": "Whose.", "examples": ["a1"]},
            {"name": "email", "type": "string", "doc": "Which.", "personal_data": "email", "examples": ["a@x.org"]},
        ],
    }  # fmt: skip
    (project.folder / "schemas" / "events" / "accounts" / "MailVerified.avsc").write_text(json.dumps(schema))
    record = Record("r.mails", 0, 0, b"a1", b"", (), 0)
    found = Event(
        id="e1", type="accounts.MailVerified", source="s", time=NOW, subject="ana@x.org", key="a1",
        data={"account_id": "a1", "email": "ana@x.org"},
    )  # fmt: skip
    shown = event_log.row(App(), record, found)
    assert shown["key"] == "a1"
    assert "ana@x.org" not in str(shown)


def test_projects_without_a_key_for_real_vendors_can_erase_nobody(project: TestProject) -> None:
    file = project.folder / "backbone.toml"
    file.write_text(file.read_text().replace('production = true\nconnections = "fake"', "production = true"))
    result = project.run("-c", "prod", "erase", "user_id=u-secret")
    assert result.exit_code == 2
    assert "needs installation_key" in result.stderr
    assert "u-secret" not in result.stderr
