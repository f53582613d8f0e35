"""Without TLS nothing leaves this machine, unless the context says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.rules import RULES
from ops.settings import Context, load_project
from producers import plaintext
from schemas.errors import InputError
from tests.ops.projects import make_project

START = '[project]\nname = "acme"\nschemas = "schemas/events"\nsubscriptions = "s"\n'


def context(folder: Path, text: str) -> Context:
    (folder / "backbone.toml").write_text(START + "[contexts.prod]\n" + text)
    return load_project(folder).context("prod")


@pytest.mark.parametrize(
    ("servers", "protocol", "words"),
    [
        ("k1.example:9092", None, "events would go to k1.example:9092 unencrypted (security.protocol is PLAINTEXT)"),
        ("127.0.0.1:9092,k1.example:9092", "plaintext", "events would go to k1.example:9092 unencrypted"),
        ("10.1.2.3:9092", "SASL_PLAINTEXT", "unencrypted, the password too (security.protocol is SASL_PLAINTEXT)"),
        ("k1.example:9093", "SASL_SSL", None),
        ("k1.example:9093", "ssl", None),
        ("127.0.0.1:9092", None, None),
        ("localhost:9092, [::1]:9092, PLAINTEXT://127.0.0.2:1", None, None),
    ],
)
def test_kafka_without_tls_beyond_this_machine_is_refused_with_what_to_write(
    tmp_path: Path, servers: str, protocol: str | None, words: str | None
) -> None:
    text = f'kafka."bootstrap.servers" = "{servers}"\n'
    text += "" if protocol is None else f'kafka."security.protocol" = "{protocol}"\n'
    if words is None:
        assert context(tmp_path, text).kafka["bootstrap.servers"] == servers
        return
    with pytest.raises(InputError) as caught:
        _ = context(tmp_path, text).kafka
    assert words in str(caught.value)
    assert str(caught.value).endswith("Use TLS, or write allow_plaintext = true in [contexts.prod]. [plaintext]")
    assert context(tmp_path, f"allow_plaintext = true\n{text}").kafka["bootstrap.servers"] == servers


def test_a_registry_and_a_vault_over_http_beyond_this_machine_are_refused(tmp_path: Path) -> None:
    text = 'registry.url = "http://registry.example:8080"\nvault = {address = "http://v.example", token = "env:T"}\n'
    found = context(tmp_path, text)
    with pytest.raises(InputError, match=r"contexts\.prod\.registry: the registry would be asked at registry\.example"):
        _ = found.registry_url
    with pytest.raises(InputError, match=r"the vault would be asked at v\.example unencrypted"):
        found.secrets.look_up("vault:a/b#c")
    assert context(tmp_path, f"allow_plaintext = true\n{text}").registry_url.startswith("http://registry")
    token = 'kafka = {"bootstrap.servers" = "k:1", "security.protocol" = "sasl_ssl", \
"sasl.oauthbearer.token.endpoint.url" = "http://id.example/token"}\n'
    with pytest.raises(InputError, match=r"the client secret would go to id\.example unencrypted"):
        _ = context(tmp_path, token).kafka
    for fine in ("https://registry.example", "http://127.0.0.1:8081", "http://[::1]:1/x", "memory://x"):
        assert context(tmp_path, f'registry.url = "{fine}"\n').registry_url == fine


def test_a_command_that_would_speak_plaintext_ends_with_the_sentence_and_exit_2(tmp_path: Path) -> None:
    project = make_project(tmp_path, "t", kafka="k1.example:9092")
    result = project.run("-c", "prod", "lag")
    assert result.exit_code == 2
    assert "allow_plaintext = true in [contexts.prod]" in result.stderr
    assert project.run("-c", "prod", "context", "show").exit_code == 0


@given(st.text(max_size=40), st.sampled_from(["plaintext", "SASL_SSL", "x"]))
def test_no_text_in_place_of_servers_raises_anything(servers: str, protocol: str) -> None:
    plaintext.of_kafka({"bootstrap.servers": servers, "security.protocol": protocol})
    plaintext.of_url("it goes to", f"http://{servers}")
    plaintext.is_here(servers)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('vault.token = "env:T"\n', "'contexts.prod.vault': address is missing"),
        ('vault.address = "vault:8200"\n', "address is http(s)://HOST:PORT, without a user"),
        ('vault.address = "https://me:hunter2@v"\n', "without a user"),
        ('vault.address = "https://v"\n', "give one of token, approle and kubernetes"),
        ('vault = {address = "https://v", token = "hunter2"}\n', "in this file. Write env:NAME or file:PATH. ["),
        ('vault = {address = "https://v", token = "vault:a/b#c"}\n', "stands outside it"),
        (
            'vault = {address = "https://v", approle = {role_id = "r", secret_id = "hunter2"}}\n',
            "is a credential and does not stand",
        ),
        (
            'vault = {address = "https://v", approle = {role_id = "r", secret_id = "env:S", mont = "m"}}\n',
            "Did you mean 'mount'?",
        ),
        ('kafka."sasl.password" = "vault:x#y"\n', "contexts.prod.kafka.sasl.password: a secret of the vault is"),
        ('registry.token = "vault:hunter2"\n', "Write env:NAME, file:PATH or vault:PATH#FIELD"),
        ('registry.token = "vault:a/../b#c"\n', "contexts.prod.registry.token: a secret of the vault is"),
    ],
)
def test_a_mistake_in_the_vaults_table_is_one_sentence_without_a_secret(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        context(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).rpartition(" [")[2].removesuffix("]") in RULES
    assert "hunter2" not in str(caught.value)


def test_a_reference_to_the_vault_in_a_context_without_one_says_what_to_write(tmp_path: Path) -> None:
    found = context(tmp_path, 'ledger = "vault:secret/data/ledger#url"\n')
    with pytest.raises(InputError, match=r"has no vault: write address = .* in \[contexts\.prod\.vault\]"):
        _ = found.ledger


def test_a_token_of_the_vault_that_is_not_there_is_named_as_the_vaults(tmp_path: Path) -> None:
    text = (
        'ledger = "vault:secret/data/ledger#url"\nvault = {address = "https://v.example", token = "env:NO_SUCH_ONE"}\n'
    )
    with pytest.raises(InputError) as caught:
        _ = context(tmp_path, text).ledger
    assert str(caught.value) == (
        f"{tmp_path / 'backbone.toml'}: contexts.prod.vault.token: the environment variable NO_SUCH_ONE is not set "
        "where this runs; set it. [unresolved-reference]"
    )


def test_tls_files_of_kafka_are_relative_to_the_project(tmp_path: Path) -> None:
    text = 'kafka = {"bootstrap.servers" = "k:1", "security.protocol" = "ssl", "ssl.ca.location" = "ca.pem"}\n'
    assert context(tmp_path, text).kafka["ssl.ca.location"] == str(tmp_path / "ca.pem")
    probe = text.replace("ca.pem", "probe")
    assert context(tmp_path, probe).kafka["ssl.ca.location"] == "probe"


def test_doctor_says_how_the_cluster_is_talked_to_and_that_plaintext_is_allowed(tmp_path: Path) -> None:
    project = make_project(tmp_path, "t", kafka="k1.example:9092")
    file = tmp_path / "backbone.toml"
    lines = {line["check"]: line for line in project.document("-c", "prod", "doctor", code=3)["data"]}
    assert lines["transport"]["verdict"] == "fail"
    assert "unencrypted" in lines["transport"]["found"]
    file.write_text(file.read_text().replace("production = true", "production = true\nallow_plaintext = true"))
    lines = {line["check"]: line for line in project.document("-c", "prod", "doctor", code=3)["data"]}
    assert lines["transport"]["verdict"] == "warn"
    assert lines["transport"]["found"] == "Kafka PLAINTEXT, registry memory; plaintext is allowed here"
