"""``trace`` and ``receipt list`` where no cluster runs: the ledger answers alone, and every mistake is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumers.receipts import hashed
from tests.conftest import Stack
from tests.ops.ledgers import address_of, open_store, row
from tests.ops.projects import TestProject, make_project


@pytest.fixture
def empty(tmp_path: Path) -> TestProject:
    """The local context of a project whose stack is not running."""
    made = make_project(tmp_path, "acme")
    (made.folder / ".backbone" / "local.json").unlink()
    return made


@pytest.fixture
def project(empty: TestProject) -> TestProject:
    """With three receipts in its ledger: an event that was redriven, and one about somebody's e-mail address."""
    assert empty.run("context", "show").exit_code == 0
    from ops.settings import load_project

    key = load_project(empty.folder).context("local").installation_key
    store = open_store(address_of(empty.folder, "sqlite:///.backbone/ledger.db"))
    secret = hashed("ana@example.org", key)
    store.put_receipts([
        row(1, 1, outcome="rejected", reason="invalid_email"),
        row(2, 1, change_id="ch-7f3a", change_kind="redrive", redrives=1),
        row(3, 2, subscription="mail", action="mail.send", entity=secret, entity_hashed=True, reference=secret,
            reference_hashed=True, outcome="skipped", reason="merged", merged_into="e-9"),
    ])  # fmt: skip
    store.close()
    return empty


def ids(document: dict[str, Any]) -> list[str]:
    return [one["event_id"] for one in document["data"]]


def test_the_ledger_answers_alone_and_says_what_was_not_looked_at(project: TestProject) -> None:
    document = project.document("trace", "e-1")
    (event,) = document["data"]["events"]
    (delivery,) = event["deliveries"]
    assert [(one["outcome"], one["change_id"], one["replaced"]) for one in delivery["steps"]] == [
        ("rejected", None, True), ("delivered", "ch-7f3a", False),
    ]  # fmt: skip
    assert (delivery["state"], event["origin"]) == ("delivered", "accounts.users/0/1")
    (warning,) = document["warnings"]
    assert "backbone local up" in warning
    people = project.run("trace", "accounts.users/0/1")
    assert people.exit_code == 0
    assert "redrive ch-7f3a" in people.stdout


def test_a_personal_value_is_found_and_never_shown(project: TestProject) -> None:
    for arguments in (
        ("trace", "email=ana@example.org"),
        ("receipt", "list", "--entity", "ana@example.org"),
        ("receipt", "list", "--key", "email=ana@example.org"),
    ):
        result = project.run(*arguments)
        assert result.exit_code == 0, result.output
        assert "e-2" in result.stdout
        assert "‹hashed›" in result.stdout
        assert "ana@" not in result.output
    missing = project.run("trace", "email=bob.secret@example.org")
    assert missing.exit_code == 5
    assert "bob.secret" not in missing.output


def test_receipts_are_listed_by_what_they_are_asked_for(project: TestProject) -> None:
    assert ids(project.document("receipt", "list")) == ["e-2", "e-1"]
    for arguments, expected in (
        (("--subscription", "mail"), ["e-2"]),
        (("--outcome", "skipped", "--outcome", "rejected"), ["e-2"]),
        (("--cause", "merged"), ["e-2"]),
        (("--change", "ch-7f3a"), ["e-1"]),
        (("--event", "e-1"), ["e-1"]),
        (("--key", "user_id=u-1"), ["e-2", "e-1"]),
        (("--from", "@2026-05-01T12:00:02Z"), ["e-2"]),
        (("--to", "@2026-05-01T12:00:02Z"), ["e-1"]),
        (("--limit", "1"), ["e-2"]),
    ):
        assert ids(project.document("receipt", "list", *arguments)) == expected, arguments
    assert "Only the newest 1 are shown" in project.run("receipt", "list", "--limit", "1").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("trace", "emial=x"), 5, "No event has a field 'emial'. Did you mean 'email'?"),
        (("receipt", "list", "--subscription", "male"), 5, "Did you mean 'mail'?"),
        (("receipt", "list", "--outcome", "rejcted"), 2, "Did you mean 'rejected'?"),
        (("receipt", "list", "--from", "yesterday"), 2, "is not a time"),
        (("receipt", "list", "--key", "u-1"), 2, "--key is written FIELD=VALUE"),
        (("trace", "e-404"), 8, "knows nothing of 'e-404', and the topics cannot be read now"),
        (("trace", "e-1", "-c", "prod"), 6, 'contexts.prod.ledger = "env:LEDGER_URL"'),
        (("receipt", "list", "-c", "prod"), 6, "keeps no ledger"),
    ],
)
def test_a_mistake_is_one_sentence(project: TestProject, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = project.run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert result.stdout == ""


def test_an_empty_ledger_is_said_and_none_is_made(empty: TestProject) -> None:
    result = empty.run("receipt", "list")
    assert result.exit_code == 0
    assert "no worker has written to it yet" in result.stderr
    assert not (empty.folder / ".backbone" / "ledger.db").exists()


@pytest.mark.integration
def test_a_ledger_that_is_not_kept_is_not_run(stack: Stack, tmp_path: Path, prefix: str) -> None:
    """``backbone run ledger`` waited for ever with nothing to do."""
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    assert made.run("schema", "register", "--apply", "--yes", "-q").exit_code == 0
    result = made.run("run", "ledger", "-c", "prod")
    assert result.exit_code == 6
    assert "contexts.prod.ledger" in result.stderr
