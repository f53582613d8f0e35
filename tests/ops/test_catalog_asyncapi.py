"""``backbone catalog export asyncapi``: the official schema accepts it, and it says what the contracts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from ops.catalog.asyncapi import Server, as_text, asyncapi
from ops.catalog.catalog import Catalog
from schemas.contract import Contracts
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project

SCHEMA = Path(__file__).parent / "standards" / "asyncapi-3.1.0.schema.json"
"""AsyncAPI 3.1.0's own (Apache-2.0)."""

PROD = """
[contexts.live]
production = true
registry.url = "https://registry.example/apis"
registry.username = "reader"
registry.password = "env:REGISTRY_PASSWORD"
topics.partitions = 6
topics.replication = 3
[contexts.live.kafka]
"bootstrap.servers" = "k1.example:9093,SASL_SSL://k2.example:9093"
"security.protocol" = "SASL_SSL"
"sasl.mechanism" = "SCRAM-SHA-512"
"sasl.username" = "backbone"
"sasl.password" = "env:KAFKA_PASSWORD"
[contexts.secret]
registry.url = "env:REGISTRY"
[contexts.secret.kafka]
"bootstrap.servers" = "env:KAFKA"
"""


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    made = make_project(tmp_path, "a")
    file = tmp_path / "backbone.toml"
    file.write_text(file.read_text() + PROD)
    return made


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def exported(project: TestProject, *arguments: str) -> dict[str, Any]:
    result = project.run(*arguments, "catalog", "export", "asyncapi")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("context", ["local", "live", "secret"])
def test_the_official_schema_accepts_it(project: TestProject, validator: Draft7Validator, context: str) -> None:
    document = exported(project, "-c", context)
    assert [error.message for error in validator.iter_errors(document)] == []


def test_the_schema_would_refuse_another_document(project: TestProject, validator: Draft7Validator) -> None:
    document = exported(project)
    document["channels"]["a.users"]["messages"] = []
    assert list(validator.iter_errors(document))


def test_this_repositorys_events_are_accepted_too(validator: Draft7Validator, tmp_path: Path) -> None:
    ours = TestProject(ROOT, "x")
    out = tmp_path / "asyncapi.json"
    result = ours.run("-c", "compose", "catalog", "export", "asyncapi", "--out", str(out))
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert not list(validator.iter_errors(json.loads(out.read_text())))


def test_channels_messages_and_operations_say_what_the_contracts_say(project: TestProject) -> None:
    document = exported(project)
    channel = document["channels"]["a.users"]
    assert set(channel["messages"]) == {
        "accounts.UserEmailChanged", "accounts.UserErased", "accounts.UserSignedUp", "accounts.UserUpgraded",
    }  # fmt: skip
    kafka = channel["bindings"]["kafka"]
    assert (kafka["topic"], kafka["partitions"]) == ("a.users", 3)
    assert kafka["topicConfiguration"]["retention.ms"] == 30 * 86_400_000
    message = document["components"]["messages"]["accounts.UserSignedUp"]
    avsc = json.loads((project.folder / "schemas/events/accounts/UserSignedUp.avsc").read_text())
    assert message["payload"] == {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "schema": avsc}
    assert message["x-personal-data"] == {"email": "email", "name": "name"}
    sends = document["operations"]["send.accounts.UserSignedUp"]
    assert (sends["action"], sends["tags"]) == ("send", [{"name": "team-accounts"}])
    receives = document["operations"]["receive.a-rows.a.users"]
    assert receives["bindings"]["kafka"]["groupId"]["enum"] == ["a-rows"]
    assert len(receives["messages"]) == 4


def test_every_reference_leads_somewhere(project: TestProject) -> None:
    document = exported(project)

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [one for inner in value.values() for one in references(inner)]
        return [one for inner in value for one in references(inner)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_the_server_is_the_contexts_cluster_without_credentials(project: TestProject) -> None:
    text = project.run("-c", "live", "catalog", "export", "asyncapi").stdout
    assert "PASSWORD" not in text
    assert "reader" not in text
    servers = json.loads(text)["servers"]
    assert [servers[name]["host"] for name in ("live", "live-2")] == ["k1.example:9093", "k2.example:9093"]
    assert servers["live"]["protocol"] == "kafka-secure"
    assert servers["live"]["security"] == [{"type": "scramSha512"}]
    assert servers["live"]["bindings"]["kafka"]["schemaRegistryUrl"] == "https://registry.example/apis"
    assert json.loads(text)["channels"]["a.users"]["bindings"]["kafka"]["replicas"] == 3
    assert "servers" not in exported(project)
    assert "servers" not in exported(project, "-c", "secret")


def test_the_same_files_give_the_same_document_and_another_contract_another_version(project: TestProject) -> None:
    first = project.run("catalog", "export", "asyncapi").stdout
    assert project.run("catalog", "export", "asyncapi").stdout == first
    path = project.folder / "schemas/events/accounts/UserErased.avsc"
    path.write_text(path.read_text().replace("personal data is to be erased", "personal data must be erased"))
    assert exported(project)["info"]["version"] != json.loads(first)["info"]["version"]


def test_in_json_mode_it_is_the_data_of_one_document(project: TestProject) -> None:
    document = project.document("catalog", "export", "asyncapi")
    assert document["schema"] == "backbone.catalog.asyncapi/v1"
    assert document["data"] == exported(project)


def test_what_would_move_a_terminal_is_spelled_out_and_stays_the_same_json() -> None:
    document = {"doc": "a\u202eb\U000e0001c"}
    text = as_text(document)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == document


@pytest.mark.parametrize(("out", "code"), [("missing/x.json", 5), (".", 2)])
def test_a_file_that_cannot_be_written_is_one_sentence(project: TestProject, out: str, code: int) -> None:
    result = project.run("catalog", "export", "asyncapi", "--out", str(project.folder / out))
    assert result.exit_code == code
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_server_without_security_has_none() -> None:
    nothing = Catalog(
        project="x y", contracts=Contracts({}), engine=Contracts({}), subscriptions={}, connections={}, tables={},
        readers=(), flows=(),
    )  # fmt: skip
    document = asyncapi(nothing, [], Server(name="c", hosts=("h:9092",)))
    assert document["id"] == "urn:event-backbone:x-y"
    assert "security" not in document["servers"]["c"]
    assert document["servers"]["c"]["protocol"] == "kafka"
