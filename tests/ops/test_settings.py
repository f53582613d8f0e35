"""backbone.toml: every mistake is one sentence with file and key, and no credential is ever shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.connector import connector_types
from connectors.pacing import Quota, Rate
from ops.installation_key import made_key
from ops.project_file import PINNED_KAFKA_KEYS, SECRET_KAFKA_KEYS
from ops.rules import RULES
from ops.settings import Project, load_project, redacted_url
from producers.kafka import PINNED
from schemas.errors import BackboneError, InputError, NotFoundError, UnreachableError

START = """
[project]
name = "acme"
schemas = "schemas/events"
subscriptions = "consumers/subscriptions"
"""
PROD = (
    START
    + """
[connections.hubspot]
connector = "hubspot"
region = "EU"
unique_property = "user_key"
[connections.slack]
connector = "slack"
[contexts.prod]
production = true
registry.url = "https://registry.example"
registry.token = "env:REGISTRY_TOKEN"
[contexts.prod.kafka]
bootstrap.servers = "k1.example:9093"
"security.protocol" = "SASL_SSL"
sasl.password = "file:kafka-password"
[contexts.prod.connections.hubspot]
token = "env:HUBSPOT_TOKEN"
"""
)


def project(folder: Path, text: str) -> Project:
    (folder / "backbone.toml").write_text(text)
    return load_project(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project", "not valid TOML"),
        ("", "'project' is missing"),
        (START.replace('name = "acme"', "name = 5"), "'project.name'"),
        (START + "[projects]\n", "there is no setting 'projects'. Did you mean 'project'?"),
        (START + "[contexts.x]\nproductoin = true\n", "Did you mean 'production'?"),
        (START + "[contexts.x.registry]\nurll = 'http://r'\n", "Did you mean 'url'?"),
        (START + "[contexts.x.topics]\npartitions = 0\n", "'contexts.x.topics.partitions'"),
        (START + "[connections.h]\nregion = 'EU'\n", "'connections.h.connector' is missing"),
        (
            START + "[connections.h]\nconnector = 'hubspot'\nrate = '80'\n",
            "'connections.h.rate': is a count of calls and a time, such as 80/10s",
        ),
        (START + "[connections.h]\nconnector = 'hubspot'\nconcurrency = 0\n", "'connections.h.concurrency'"),
        (START + "[connections.h]\nconnector = 'hubspot'\nbackground = 0\n", "'connections.h.background'"),
        (
            START + "[connections.h]\nconnector = 'hubspot'\ncircuit_open = '5ms'\n",
            "'connections.h.circuit_open': is a duration from 1s to 1h",
        ),
        (
            START + "[connections.h]\nconnector = 'hubspot'\ncredential_expires = '2027-02-30'\n",
            "'connections.h.credential_expires': is a date like 2027-03-31",
        ),
        (
            START + "[connections.h]\nconnector = 'hubspot'\n[contexts.x.connections.h]\nrate = '0/s'\n",
            "contexts.x.connections.h: 'rate': is a count of calls and a time",
        ),
        (START + "[contexts.x.kafka]\nacks = 1\n", "'acks' cannot be set"),
        (START + "[contexts.x.kafka]\n'enable.auto.commit' = true\n", "'enable.auto.commit' cannot be set"),
        (START + "[contexts.x.kafka]\nsasl.password = 'hunter2'\n", "Write env:NAME, file:PATH or vault:PATH#FIELD"),
        (START + "[contexts.x.kafka]\nclient.id = ['a']\n", "'client.id' is a text, a number or true/false"),
        (START + "[contexts.x.registry]\npassword = 'hunter2'\n", "Write env:NAME, file:PATH or vault:PATH#FIELD"),
        (START + "[contexts.x]\nledger = 'postgresql://me:hunter2@db/ledger'\n", "'ledger' holds a password"),
        (START + "[contexts.x]\nledger = 'postgresql://db/l?user=me&password=hunter2'\n", "'ledger' holds a password"),
        (START + "[connections.ledger]\nconnector = 'sql'\n", "connections.ledger: the backbone's own is called so"),
        (START + "[contexts.x]\ninstallation_key = 'hunter2'\n", "Write env:NAME, file:PATH or vault:PATH#FIELD"),
        (START + "[contexts]\nx = 5\n", "'contexts.x'"),
        (START + "contexts = 5\n", "backbone.toml"),
        ("project = [1]\n", "'project' is a table: [project]"),
        (START.replace('name = "acme"', 'name = "Acme Ltd"'), "'project.name': lower-case letters, digits and dashes"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key_and_never_the_secret(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        project(tmp_path, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / 'backbone.toml'}: ")
    assert sentence.rpartition(" [")[2].removesuffix("]") in RULES
    assert words in sentence
    assert "hunter2" not in sentence
    assert "\n" not in sentence


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_text_in_place_of_the_file_raises_anything_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(BackboneError):
        project(tmp_path, text.replace("\x00", "").encode("utf-8", "replace").decode() + "\n[nonsense]\n")


TOML_VALUES = st.sampled_from(["5", '"x"', "true", "[]", '["x"]', "{}", "{a=1}", "1.5", "2026-05-01"])
KEYS = st.sampled_from(
    ["project.name", "project.schemas", "contexts", "contexts.local", "contexts.a.kafka", "contexts.a.registry",
     "contexts.a.connections", "contexts.a.connections.b", "contexts.a.fakes", "contexts.a.topics", "connections",
     "connections.b", "connections.b.connector", "contexts.a.production"]
)  # fmt: skip


@given(st.dictionaries(KEYS, TOML_VALUES, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_values_of_the_wrong_kind_are_sentences_too(tmp_path: Path, table: dict[str, str]) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in table.items())
    sentence = ""
    try:
        found = project(tmp_path, text)
        for name in found.contexts:
            assert found.context(name).name == name
    except BackboneError as error:
        sentence = str(error)
    assert "\n" not in sentence


def test_dotted_and_quoted_kafka_keys_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "kafka-password").write_text("s3cret\n")
    context = project(tmp_path, PROD).context("prod")
    assert context.kafka == {
        "bootstrap.servers": "k1.example:9093",
        "security.protocol": "SASL_SSL",
        "sasl.password": "s3cret",
    }
    assert context.kafka_shown()["sasl.password"] == "file:kafka-password"


def test_a_missing_credential_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGISTRY_TOKEN", raising=False)
    context = project(tmp_path, PROD).context("prod")
    with pytest.raises(InputError, match=r"contexts\.prod\.kafka\.sasl\.password: the file .* cannot be read"):
        _ = context.kafka
    with pytest.raises(InputError, match=r"contexts\.prod\.registry\.token: the environment variable REGISTRY_TOKEN"):
        context.registry_credentials()


def test_a_connection_without_credentials_names_itself_while_others_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", "pat-1234")
    found = project(tmp_path, PROD)
    types = found.connection_types(connector_types())
    connections = found.context("prod").connections
    opened = connections["hubspot"].settings(types["hubspot"])
    assert opened.token.get_secret_value() == "pat-1234"
    assert opened.unique_property == "user_key"
    with pytest.raises(InputError, match="'slack' has no credentials in the context 'prod'"):
        connections["slack"].settings(types["slack"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[connections.h]\nconnector = 'hubspot'\ntoken = 'pat-hunter2'", "connections.h: 'token' is a credential"),
        (
            "[connections.h]\nconnector = 'hubspot'\n[contexts.x.connections.h]\nclient_secret = 'hunter2'",
            "contexts.x.connections.h: 'client_secret' is a credential",
        ),
        (
            "[connections.w]\nconnector = 'sql'\n[contexts.x.connections.w]\nurl = 'postgresql://u:hunter2@h/d'",
            "contexts.x.connections.w: 'url' holds a password",
        ),
        ("[contexts.x]\nregistry.url = 'https://u:hunter2@registry'", "contexts.x.registry: 'url' holds a password"),
        ("[contexts.x.fakes]\nw = 'postgresql://u:hunter2@h/d'", "contexts.x.fakes: 'w' holds a password"),
    ],
)
def test_a_plain_credential_is_refused_when_the_file_is_read_without_showing_it(
    tmp_path: Path, table: str, words: str
) -> None:
    """It used to be refused only when the connection was opened, and `context show` printed it."""
    with pytest.raises(InputError) as caught:
        project(tmp_path, START + table + "\n")
    assert words in str(caught.value)
    assert "env:NAME" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_how_the_vendor_is_protected_is_said_once_and_a_context_may_say_it_anew(tmp_path: Path) -> None:
    text = (
        PROD + 'rate = "5/s"\ncredential_expires = "2027-03-31"\n'
    )  # the sandbox's; PROD ends in that context's table of hubspot
    text = text.replace('connector = "hubspot"\n', 'connector = "hubspot"\nrate = "80/10s"\ncircuit_open = "5s"\n')
    found = project(tmp_path, text)
    found.connection_types(connector_types())
    here, there = found.context().connections["hubspot"], found.context("prod").connections["hubspot"]
    assert (here.quota, here.circuit_open_s) == (Quota(rate=Rate(80, 10)), 5.0)
    assert (there.quota, there.circuit_open_s) == (Quota(rate=Rate(5, 1)), 5.0)
    assert (here.credential_expires, there.credential_expires) == (None, date(2027, 3, 31))
    assert not {"rate", "circuit_open", "credential_expires"} & {*here.table, *there.table}, (
        "no setting of the connector's"
    )
    assert found.context("prod").connections["slack"].quota == Quota()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[contexts.x.connections.hubspott]\ntoken = 'env:T'", "no connection 'hubspott'. Did you mean 'hubspot'?"),
        ("[contexts.x.fakes]\nhubspott = 'http://127.0.0.1:1'", "no connection 'hubspott'. Did you mean 'hubspot'?"),
    ],
)
def test_a_connection_that_only_a_context_knows_is_a_mistake(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        project(tmp_path, START + "[connections.hubspot]\nconnector = 'hubspot'\n" + table + "\n")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("custom_propertys = ['plan']", "connections.hubspot: there is no setting 'custom_propertys'. Did you mean"),
        ("[contexts.x.connections.hubspot]\ntokn = 'env:T'", "contexts.x.connections.hubspot: there is no setting"),
    ],
)
def test_a_setting_that_the_connector_does_not_know_is_a_mistake_before_it_is_opened(
    tmp_path: Path, table: str, words: str
) -> None:
    """In a context with fakes it was never looked at: a misspelt setting had no effect and nobody was told."""
    found = project(tmp_path, START + "[connections.hubspot]\nconnector = 'hubspot'\n" + table + "\n")
    with pytest.raises(InputError) as caught:
        found.connection_types(connector_types())
    assert words in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors on Windows write one; the sentence was `Invalid statement (at line 1, column 1)`."""
    (tmp_path / "backbone.toml").write_text(START, encoding="utf-8-sig")
    assert load_project(tmp_path).name == "acme"


def test_in_the_local_context_every_connection_is_its_fake_and_no_credential_is_read(tmp_path: Path) -> None:
    found = project(tmp_path, PROD.replace('region = "EU"', 'token = "env:NOT_THERE"'))
    (tmp_path / ".backbone").mkdir()
    (tmp_path / ".backbone" / "local.json").write_text(
        '{"kafka": "127.0.0.1:9", "registry": "http://127.0.0.1:8", "fakes": {"hubspot": "http://127.0.0.1:7"}}'
    )
    types = found.connection_types(connector_types())
    context = found.context()
    opened = context.connections["hubspot"].settings(types["hubspot"])
    assert opened.base_url == "http://127.0.0.1:7"
    assert opened.unique_property == "user_key"
    with pytest.raises(UnreachableError, match="backbone local up"):
        context.connections["slack"].settings(types["slack"])
    assert context.kafka == {"bootstrap.servers": "127.0.0.1:9"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kafka": 5', "null"])
def test_a_broken_address_of_the_local_stack_is_one_sentence(tmp_path: Path, content: str) -> None:
    found = project(tmp_path, START)
    (tmp_path / ".backbone").mkdir()
    (tmp_path / ".backbone" / "local.json").write_text(content)
    with pytest.raises(UnreachableError, match="backbone local up"):
        _ = found.context().kafka


def test_unknown_names_are_not_found_with_a_suggestion(tmp_path: Path) -> None:
    found = project(tmp_path, PROD)
    with pytest.raises(NotFoundError, match="Did you mean 'prod'"):
        found.context("prdo")
    with pytest.raises(NotFoundError, match="Did you mean 'hubspot'"):
        found.context("prod").connection("hubpsot")
    wrong = project(tmp_path, PROD.replace('connector = "hubspot"', 'connector = "hubspott"'))
    with pytest.raises(InputError, match=r"there is no connector 'hubspott' installed\. Did you mean 'hubspot'"):
        wrong.connection_types(connector_types())


def test_a_project_is_found_upwards_and_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backbone.toml").write_text(START)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.delenv("BACKBONE_PROJECT", raising=False)
    monkeypatch.chdir(inner)
    assert load_project().root == tmp_path
    monkeypatch.chdir("/")
    with pytest.raises(NotFoundError):
        load_project()
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    assert load_project().name == "acme"


def test_everything_that_the_producer_pins_is_refused_in_the_file_too() -> None:
    assert set(PINNED) <= set(PINNED_KAFKA_KEYS)
    assert not SECRET_KAFKA_KEYS & set(PINNED_KAFKA_KEYS)


def test_an_address_is_shown_without_its_credentials() -> None:
    assert redacted_url("postgresql://user:pw@host:5/db?x=1") == "postgresql://…@host:5/db?x=1"
    assert redacted_url("http://host/path") == "http://host/path"


def test_only_the_local_context_keeps_a_ledger_by_itself(tmp_path: Path) -> None:
    found = project(tmp_path, START + "[contexts.a]\nledger = 'env:LEDGER_OF_A'\n[contexts.b]\n")
    assert found.context("local").ledger == "sqlite:///.backbone/ledger.db"
    assert found.context("b").ledger is None
    assert found.context("a").ledger_shown == "env:LEDGER_OF_A"
    with pytest.raises(InputError, match=r"contexts.a.ledger: the environment variable LEDGER_OF_A is not set"):
        assert found.context("a").ledger


def test_a_key_is_made_once_where_vendors_are_fakes_and_asked_for_elsewhere(tmp_path: Path) -> None:
    text = START + "[contexts.a]\n[contexts.b]\ninstallation_key = 'file:key'\n[contexts.c]\nconnections = 'fake'\n"
    found = project(tmp_path, text)
    made = found.context("local").installation_key
    assert len(made) == 64
    assert found.context("c").installation_key == made
    assert (tmp_path / ".backbone" / "installation.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match=r"contexts\.a needs installation_key"):
        assert found.context("a").installation_key
    (tmp_path / "key").write_text("short\n")
    with pytest.raises(InputError, match=r"contexts\.b\.installation_key is shorter than 16 bytes"):
        assert found.context("b").installation_key
    (tmp_path / "key").write_text("0123456789abcdef\n")
    assert project(tmp_path, text).context("b").installation_key == b"0123456789abcdef"


def test_processes_that_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "installation.key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: made_key(path), range(32)))
    assert len(keys) == 1
    assert [one.name for one in path.parent.iterdir()] == ["installation.key"]
