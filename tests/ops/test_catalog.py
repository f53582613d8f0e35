"""``backbone catalog list | show | search | lineage | dependencies`` from the files of a project alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.app import App
from ops.catalog.catalog import Catalog, read_catalog
from ops.catalog.dependencies import graph, if_away
from ops.catalog.lineage import flows_of
from ops.catalog.names import named
from ops.catalog.search import entries, search, words_of
from schemas.errors import NotFoundError
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project

CONTACTS = """
description: Contacts of a CRM.
owner: team-revops
connection: hubspot
personal_data: {purpose: Sales talks to users., allow: [email]}
policies: {expire_after: 2h}
routes:
  - event: accounts.UserSignedUp
    where: data.plan != 'internal'
    action: contact.upsert
    entity: "{{ data.user_id }}"
    body: {email: "{{ data.email | lower }}", lifecyclestage: lead}
  - event: accounts.UserEmailChanged
    projection: changed.py:changed
"""
PYTHON = """
from consumers.subscription import Projected


def changed(event):
    return Projected(action="contact.upsert", entity=event.data["user_id"], body={"email": event.data["new_email"]})
"""
TESTED = """
tests:
  - {name: one, given: [{event: accounts.UserEmailChanged}], expect: [{action: contact.upsert}]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestProject:
    """Seven events; ``c-rows`` takes the accounts' whole, ``contacts`` some fields."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    made = make_project(tmp_path, "c")
    file = tmp_path / "backbone.toml"
    extra = '[connections.hubspot]\nconnector = "hubspot"\nregion = "EU"\nsub_processor = "HubSpot Ireland Ltd"\n'
    file.write_text(file.read_text() + extra)
    folder = tmp_path / "consumers" / "subscriptions"
    (folder / "contacts.yaml").write_text(CONTACTS + TESTED)
    (folder / "changed.py").write_text(PYTHON)
    return made


@pytest.fixture(scope="module")
def ours() -> Iterator[Catalog]:
    """The catalogue of this repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKBONE_PROJECT", str(ROOT))
        yield read_catalog(App())


def rows(project: TestProject, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.document("catalog", *arguments)["data"]
    return found


# ---- list ---------------------------------------------------------------------------------------------------------


def test_events_are_listed_with_owner_readers_and_classes(project: TestProject) -> None:
    found = {row["event"]: row for row in rows(project, "list", "--files")}
    assert len(found) == 7
    signed = found["accounts.UserSignedUp"]
    assert (signed["owner"], signed["domain"], signed["status"]) == ("team-accounts", "accounts", "live")
    assert signed["readers"] == ["c-rows", "contacts"]
    assert signed["personal_data"] == ["email", "name"]
    assert found["billing.InvoicePaid"]["readers"] == []
    assert (signed["last"], signed["fresh"], signed["seen_at"]) == (None, None, None)


def test_subscriptions_and_connections_are_listed_with_what_really_leaves(project: TestProject) -> None:
    found = {row["subscription"]: row for row in rows(project, "list", "subscriptions", "--files")}
    assert found["contacts"]["personal_data"] == ["email"]
    assert found["c-rows"]["personal_data"] == []
    assert found["contacts"]["actions"] == ["changed.py:changed", "contact.upsert"]
    found = {row["connection"]: row for row in rows(project, "list", "connections")}
    assert (found["hubspot"]["region"], found["hubspot"]["personal_data"]) == ("EU", ["email"])
    assert found["rows"]["subscriptions"] == ["c-rows"]


def test_without_a_cluster_one_sentence_says_that_only_files_were_read(project: TestProject) -> None:
    (project.folder / ".backbone" / "local.json").unlink()
    document = project.document("catalog", "list")
    assert len(document["data"]) == 7
    (warning,) = document["warnings"]
    assert warning == "Only files were read. The local stack is not running. Start it: backbone local up"
    assert project.document("catalog", "list", "--files")["warnings"] == []


def test_a_broken_subscription_file_is_left_out_and_said(project: TestProject) -> None:
    (project.folder / "consumers" / "subscriptions" / "bad.yaml").write_text("nonsense")
    document = project.document("catalog", "list", "subscriptions", "--files")
    assert [row["subscription"] for row in document["data"]] == ["c-rows", "contacts"]
    assert "bad.yaml has errors" in document["warnings"][0]


# ---- show ---------------------------------------------------------------------------------------------------------


def test_an_event_shows_who_reads_each_field(project: TestProject) -> None:
    data = project.document("catalog", "show", "accounts.UserSignedUp", "--files")["data"]
    readers = {
        field["field"]: {one["subscription"]: one["vendor_fields"] for one in field["readers"]}
        for field in data["fields"]
    }
    assert readers["email"] == {"contacts": ["email"]}  # rows takes all, but this class may not leave
    assert readers["user_id"] == {"c-rows": ["row"], "contacts": ["(what it is about)"]}
    assert readers["plan"]["contacts"] == ["(whether it is sent)"]
    assert {one["subscription"]: one["how"] for one in data["subscriptions"]} == {
        "c-rows": "from its file",
        "contacts": "from its file",
    }
    text = project.run("catalog", "show", "accounts.UserSignedUp", "--files").stdout
    assert "READ BY" in text
    assert "contacts" in text


def test_what_replaces_an_event_is_shown_from_both_sides(project: TestProject) -> None:
    path = project.folder / "schemas" / "events" / "billing" / "InvoicePaid.avsc"
    schema = json.loads(path.read_text())
    schema["backbone"] |= {"status": "deprecated", "sunset": "2027-01-31"}
    path.write_text(json.dumps(schema))
    schema["name"] = "InvoicePaidV2"
    schema["backbone"] = {k: v for k, v in schema["backbone"].items() if k not in ("status", "sunset")}
    schema["backbone"]["replaces"] = "billing.InvoicePaid"
    path.with_name("InvoicePaidV2.avsc").write_text(json.dumps(schema))
    old = project.document("catalog", "show", "billing.InvoicePaid", "--files")["data"]
    assert (old["replaced_by"], old["sunset"], old["status"]) == ("billing.InvoicePaidV2", "2027-01-31", "deprecated")
    assert project.document("catalog", "show", "billing.InvoicePaidV2", "--files")["data"]["replaces"] == (
        "billing.InvoicePaid"
    )
    text = project.run("catalog", "show", "billing.InvoicePaid", "--files").stdout
    assert "replaced by  billing.InvoicePaidV2" in text


def test_a_field_shows_where_it_goes_and_how_that_is_known(project: TestProject) -> None:
    data = project.document("catalog", "show", "accounts.UserEmailChanged.new_email")["data"]
    assert (data["personal_data"], data["owner"], data["type"]) == ("email", "team-accounts", "text")
    (reader,) = data["readers"]
    assert (reader["subscription"], reader["projection"]) == ("contacts", "changed.py:changed")
    assert "email" in reader["vendor_fields"]
    assert reader["how"].startswith("seen in 1 event, last on ")


def test_a_projection_that_nobody_ran_is_said_to_be_unknown(project: TestProject) -> None:
    (project.folder / "consumers" / "subscriptions" / "contacts.yaml").write_text(CONTACTS)
    data = project.document("catalog", "show", "accounts.UserEmailChanged", "--files")["data"]
    found = {one["subscription"]: one for one in data["subscriptions"]}["contacts"]
    assert (found["fields"], found["how"]) == (None, "not known: nobody ran changed.py:changed yet")
    flows = rows(project, "lineage", "accounts.UserEmailChanged.new_email")
    assert [(one["subscription"], one["vendor_field"], one["how"]) for one in flows] == [
        ("contacts", "(anything)", "unseen")
    ]


def test_a_subscription_shows_what_it_sends_and_how_it_stands(project: TestProject) -> None:
    data = project.document("catalog", "show", "contacts", "--files")["data"]
    assert (data["connection"], data["personal_data"], data["expire_after"]) == ("hubspot", ["email"], "2h")
    assert [(one["event"], one["where"], one["action"]) for one in data["routes"]] == [
        ("accounts.UserEmailChanged", None, None),
        ("accounts.UserSignedUp", "data.plan != 'internal'", "contact.upsert"),
    ]
    assert data["seen"] is None
    assert "Sales talks to users." in project.run("catalog", "show", "contacts", "--files").stdout


def test_an_action_shows_its_body_and_what_fills_it(project: TestProject) -> None:
    data = project.document("catalog", "show", "hubspot:contact.upsert")["data"]
    assert "lifecyclestage" in {one["field"] for one in data["body"]}
    assert {one["field"] for one in data["flows"] if one["vendor_field"] == "email"} == {"email"}
    assert data["personal_data"] == ["email"]


def test_one_name_of_two_things_is_the_connection_and_the_other_is_named(project: TestProject) -> None:
    project.write_subscription(name="rows")
    asked = project.run("catalog", "show", "rows", "--output", "json")
    assert json.loads(asked.stdout)["schema"] == "backbone.catalog.connection/v1"
    assert "backbone catalog show subscription:rows" in asked.stderr
    assert project.document("catalog", "show", "subscription:rows", "--files")["schema"] == (
        "backbone.catalog.subscription/v1"
    )


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("accounts.UserSignedUp.emial", 5, "accounts.UserSignedUp has no field 'emial'. Did you mean 'email'?"),
        ("hubspot:contact.upset", 5, "Did you mean 'contact.upsert'? It has: contact.upsert, contact.erase."),
        ("contact", 5, "Did you mean 'contacts'?"),
        ("usersignedup", 5, "Did you mean 'accounts.UserSignedUp'?"),
        ("c.users", 2, "c.users is a topic; it carries accounts.UserEmailChanged,"),
        ("zzzz", 5, "backbone catalog search WORDS"),
    ],
)
def test_a_name_that_is_nothing_here_is_one_sentence(project: TestProject, name: str, code: int, words: str) -> None:
    asked = project.run("catalog", "show", name)
    assert asked.exit_code == code
    assert words in asked.stderr


@given(st.text(max_size=60))
def test_whatever_is_typed_as_a_name_is_found_or_not_found(ours: Catalog, text: str) -> None:
    with contextlib.suppress(NotFoundError):
        assert named(ours, text).name


# ---- search -------------------------------------------------------------------------------------------------------


def test_the_best_hit_comes_first_and_every_word_must_be_found(ours: Catalog) -> None:
    hits, corrected = search(entries(ours), ["invoice", "created"])
    assert hits[0].entry.name == "billing.InvoiceCreated"
    assert not corrected
    assert {hit.entry.name for hit in search(entries(ours), ["coupon"])[0]} >= {"billing.InvoiceCreated.coupon"}
    assert search(entries(ours), ["InvoiceCreated"])[0][0].entry.name == "billing.InvoiceCreated"


def test_docs_owners_classes_and_connections_are_searched(ours: Catalog) -> None:
    def found(*words: str) -> set[str]:
        return {hit.entry.name for hit in search(entries(ours), words)[0]}

    assert "crm-contacts" in found("team-revops")
    assert "accounts.UserErased" in found("tombstone")
    assert "hubspot:contact.upsert" in found("lifecyclestage")
    assert "billing.InvoiceCreated.billing_email" in found("email", "billing")
    assert found("invoice", "qqqqqq") == set()


def test_a_typo_is_taken_as_the_nearest_word_and_said(project: TestProject) -> None:
    asked = project.run("catalog", "search", "invocie", "--output", "json")
    assert asked.exit_code == 0
    assert json.loads(asked.stdout)["data"][0]["name"] == "billing.InvoiceCreated"
    assert "Nothing has 'invocie'; looked for 'invoice'." in asked.stderr


def test_nothing_found_is_exit_3(project: TestProject) -> None:
    asked = project.run("catalog", "search", "qqqqqq")
    assert (asked.exit_code, asked.stdout) == (3, "")
    assert "Nothing in the catalogue has qqqqqq." in asked.stderr
    assert project.document("catalog", "search", "qqqqqq", code=3)["data"] == []


@pytest.mark.parametrize("words", ["", "  "])
def test_no_word_to_look_for_is_a_sentence(project: TestProject, words: str) -> None:
    asked = project.run("catalog", "search", words)
    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "Give at least one word to look for." in asked.stderr


def test_more_hits_than_the_limit_are_counted(project: TestProject) -> None:
    asked = project.run("catalog", "search", "invoice", "--limit", "2", "--output", "json")
    assert len(json.loads(asked.stdout)["data"]) == 2
    assert "more: --limit" in asked.stderr


def test_names_are_taken_apart_into_words() -> None:
    assert {"user", "signed", "up", "usersignedup"} <= words_of("accounts.UserSignedUp")
    assert {"billing", "email"} <= words_of("billing_email")
    assert {"http", "url", "2"} <= words_of("HTTPUrl2")


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_whatever_is_searched_for_the_answer_is_a_list(ours: Catalog, words: list[str]) -> None:
    hits, _ = search(entries(ours), words)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


# ---- lineage ------------------------------------------------------------------------------------------------------


def test_lineage_leads_from_the_field_to_the_vendors_field(project: TestProject) -> None:
    (flow,) = rows(project, "lineage", "accounts.UserSignedUp.email")
    assert flow == {
        "event": "accounts.UserSignedUp",
        "field": "email",
        "personal_data": ["email"],
        "subscription": "contacts",
        "connection": "hubspot",
        "action": "contact.upsert",
        "projection": None,
        "vendor_field": "email",
        "how": "parsed",
    }


@pytest.mark.parametrize(
    ("name", "subscriptions"),
    [
        ("accounts.UserSignedUp", {"c-rows", "contacts"}),
        ("contacts", {"contacts"}),
        ("hubspot", {"contacts"}),
        ("hubspot:contact.upsert", {"contacts"}),
        ("c.users", {"c-rows", "contacts"}),
        ("billing.InvoicePaid", set()),
    ],
)
def test_lineage_is_of_an_event_a_subscription_a_connection_or_a_topic(
    project: TestProject, name: str, subscriptions: set[str]
) -> None:
    assert {one["subscription"] for one in rows(project, "lineage", name)} == subscriptions


def test_lineage_is_a_tree_for_people_who_want_one_and_a_table_in_a_pipe(project: TestProject) -> None:
    tree = project.run("catalog", "lineage", "accounts.UserSignedUp", "--tree").stdout
    assert "└── contacts → hubspot contact.upsert email" in tree
    table = project.run("catalog", "lineage", "accounts.UserSignedUp").stdout
    assert table.startswith("EVENT")
    assert (
        "No subscription here reads billing.InvoicePaid."
        in project.run("catalog", "lineage", "billing.InvoicePaid").stderr
    )


def test_a_whole_carries_only_the_classes_that_are_allowed(ours: Catalog) -> None:
    contract = ours.contracts["billing.InvoiceCreated"]
    readers = {
        path: {one.subscription for one in flows_of(ours.flows_of(contract.name), field, contract.name)}
        for path, field in contract.fields.items()
    }
    assert readers["billing_email"] == set()
    assert readers["lines.sku"] == {"warehouse"}
    assert readers["currency"] == {"warehouse", "billing-alerts"}


# ---- dependencies -------------------------------------------------------------------------------------------------


def test_everything_that_is_needed_says_what_happens_without_it(project: TestProject) -> None:
    found = {(row["kind"], row["name"]): row for row in rows(project, "dependencies", "--files")}
    hubspot = found["connection", "hubspot"]
    assert hubspot["needs"] == ["vendor:HubSpot"]
    assert hubspot["needed_by"] == ["subscription:contacts"]
    assert hubspot["if_away"].startswith("contacts waits: nothing becomes a dead letter")
    assert "contacts skips what is older than 2h." in hubspot["if_away"]
    assert "cannot be published; c-rows, contacts wait" in found["topic", "c.users"]["if_away"]
    assert found["event", "billing.InvoicePaid"]["if_away"] == ("Nothing here: no subscription sends anything of it.")
    assert "hubspot contact.upsert email" in found["event", "accounts.UserSignedUp"]["if_away"]
    assert found["subscription", "contacts"]["needs"] == [
        "event:accounts.UserEmailChanged",
        "event:accounts.UserSignedUp",
        "connection:hubspot",
    ]


def test_one_thing_shows_what_it_needs_what_needs_it_and_the_vendors_manifest(project: TestProject) -> None:
    data = project.document("catalog", "dependencies", "hubspot", "--files")["data"]
    assert [(one["depth"], one["name"]) for one in data["needed_by"]] == [(1, "contacts")]
    assert data["dependency"]["vendor"] == "HubSpot"
    text = project.run("catalog", "dependencies", "c.users", "--files").stdout
    assert "It needs nothing." in text
    assert "├── contacts  subscription" in text or "└── contacts  subscription" in text


def test_a_thing_that_nothing_needs_is_not_found_with_a_suggestion(project: TestProject) -> None:
    asked = project.run("catalog", "dependencies", "hubspt", "--files")
    assert asked.exit_code == 5
    assert "Did you mean 'hubspot'?" in asked.stderr


def test_the_graph_is_whole_and_has_no_cycle(ours: Catalog) -> None:
    whole = graph(ours)
    for thing in whole.needs:
        assert all(other in whole.needs for other in whole.needs[thing])
        assert thing not in {other for _, other in whole.below(thing)}
        assert if_away(ours, thing)
    assert whole.needed_by["connection", "hubspot"] == (("subscription", "crm-contacts"),)
