"""The project's own subscriptions: every file loads, every test in it passes, editors get a current schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from consumers.rehearsal import Verdict, rehearse
from consumers.subscription import check_subscription
from ops.catalog.subscription_schema import FILE
from ops.settings import Project, load_project
from schemas.contract import Contracts, load_contracts
from tests.conftest import ROOT

PROJECT: Project = load_project(ROOT)
FILES = sorted(PROJECT.subscriptions.glob("*.yaml"))


def contracts() -> Contracts:
    assert isinstance(PROJECT.schemas, Path)
    return load_contracts(PROJECT.schemas)


def connections() -> Any:
    from connectors.connector import connector_types

    return PROJECT.connection_types(connector_types())


def verdicts() -> list[Verdict]:
    known, accounts = contracts(), connections()
    found = []
    for path in FILES:
        subscription, _ = check_subscription(path, contracts=known, connections=accounts)
        found += [] if subscription is None else rehearse(subscription, known)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_has_nothing_to_say(path: Path) -> None:
    subscription, findings = check_subscription(path, contracts=contracts(), connections=connections())
    assert findings == []
    assert subscription is not None
    assert subscription.tests


@pytest.mark.parametrize("verdict", verdicts(), ids=lambda verdict: f"{verdict.subscription}: {verdict.test}")
def test_every_test_in_a_file_passes(verdict: Verdict) -> None:
    assert verdict.differences == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_for_editors_takes_the_shipped_files(path: Path) -> None:
    schema = json.loads((PROJECT.subscriptions / FILE).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    assert path.read_text().startswith(f"# yaml-language-server: $schema={FILE}\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accounts.UserSignedUp", "accounts.UserSignedUpp"),
        ("contact.upsert", "contact.insert"),
        ("lifecyclestage: lead", "lifecyclestage: leader"),
        ("firstname:", "firstnam:"),
        ("connection: hubspot", "connection: hub"),
        ("owner:", "ownr:"),
        ("allow: [email, name]", "allow: [mail]"),
    ],
)
def test_the_schema_for_editors_marks_what_is_wrong(old: str, new: str) -> None:
    schema = json.loads((PROJECT.subscriptions / FILE).read_text())
    text = (PROJECT.subscriptions / "crm-contacts.yaml").read_text()
    assert old in text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text.replace(old, new, 1)), schema)
