"""Settings of a publisher: what is missing or wrong is one sentence that names the variable and no value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from producers.settings import PublisherSettings
from schemas.errors import InputError

HERE = "127.0.0.1:9092"
GOOD = {"BACKBONE_KAFKA__BOOTSTRAP_SERVERS": HERE, "BACKBONE_REGISTRY__URL": "memory://settings"}
AWAY = GOOD | {"BACKBONE_KAFKA__BOOTSTRAP_SERVERS": "k1.example:9092"}


def test_names_nest_by_two_underscores_and_single_ones_are_dots_in_kafkas_names() -> None:
    found = PublisherSettings.from_env(GOOD | {"BACKBONE_KAFKA__SASL_MECHANISMS": "PLAIN", "PATH": "/bin"})
    assert found.kafka == {"bootstrap.servers": HERE, "sasl.mechanisms": "PLAIN"}
    assert found.registry.url == "memory://settings"


def test_references_are_looked_up_in_the_environment_and_in_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    found = PublisherSettings.from_env(
        GOOD
        | {
            "BACKBONE_KAFKA__SASL_PASSWORD": f"file:{secret}",
            "BACKBONE_REGISTRY__PASSWORD": "env:MINE",
            "BACKBONE_REGISTRY__USERNAME": "u",
            "MINE": "s3cret",
        }
    )
    assert found.kafka["sasl.password"] == "s3cret"
    assert found.registry.password is not None
    assert found.registry.password.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "BACKBONE_KAFKA__BOOTSTRAP_SERVERS is not set: host:port"),
        ({"BACKBONE_KAFKA__BOOTSTRAP_SERVERS": ""}, "BACKBONE_KAFKA__BOOTSTRAP_SERVERS is not set"),
        ({"BACKBONE_KAFKA__BOOTSTRAP_SERVERS": "k:1"}, "BACKBONE_REGISTRY__URL is not set"),
        ({"BACKBONE_KAFKA_BOOTSTRAP_SERVERS": "k:1"}, "but the name has two underscores."),
        (GOOD | {"BACKBONE_REGISTRY__PASWORD": "s3cret"}, "Did you mean 'BACKBONE_REGISTRY__PASSWORD'?"),
        (GOOD | {"BACKBONE_REGISTRY__URL": "s3cret"}, "BACKBONE_REGISTRY__URL is wrong: an address starts with one of"),
        (GOOD | {"BACKBONE_KAFKA__SASL_PASSWORD": "env:NOPE"}, "BACKBONE_KAFKA__SASL_PASSWORD refers to NOPE"),
        (GOOD | {"BACKBONE_KAFKA__SASL_PASSWORD": "file:/nope"}, "BACKBONE_KAFKA__SASL_PASSWORD refers to the file /n"),
        (GOOD | {"BACKBONE_KAFKA__SASL_PASSWORD": "file:/"}, "cannot be read"),
        (
            GOOD | {"BACKBONE_KAFKA__SASL_PASSWORD": "vault:kv/data/s3cret#x"},
            "SASL_PASSWORD refers to a vault, which a se",
        ),
        (
            AWAY,
            "Events would go to k1.example:9092 unencrypted (security.protocol is PLAINTEXT). Use TLS, or set BACKBO",
        ),
        (AWAY | {"BACKBONE_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "unencrypted, the password too"),
        (
            GOOD | {"BACKBONE_REGISTRY__URL": "http://r.example/s3cret"},
            "The registry would be asked at r.example unencr",
        ),
        (AWAY | {"BACKBONE_ALLOW_PLAINTEXT": "s3cret"}, "BACKBONE_ALLOW_PLAINTEXT is wrong: "),
    ],
)
def test_a_wrong_environment_is_one_sentence(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        PublisherSettings.from_env(environment)
    assert sentence in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        AWAY | {"BACKBONE_ALLOW_PLAINTEXT": "true", "BACKBONE_REGISTRY__URL": "http://r.example"},
        AWAY | {"BACKBONE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "BACKBONE_REGISTRY__URL": "https://r.example"},
        GOOD | {"BACKBONE_REGISTRY__URL": "http://localhost:8081", "BACKBONE_ALLOW_PLAINTEXT": ""},
    ],
)
def test_tls_this_machine_and_a_network_of_ones_own_are_fine(environment: dict[str, str]) -> None:
    assert PublisherSettings.from_env(environment).registry.url == environment["BACKBONE_REGISTRY__URL"]


def test_settings_made_by_hand_are_held_to_the_same() -> None:
    made = {"kafka": {"metadata.broker.list": "k1.example:9092"}, "registry": {"url": "memory://x"}}
    with pytest.raises(ValidationError, match=r"events would go to k1\.example:9092 unencrypted"):
        PublisherSettings.model_validate(made)
    assert PublisherSettings.model_validate(made | {"allow_plaintext": True}).allow_plaintext


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(ValidationError):
        PublisherSettings.model_validate({"kafka": {}, "registry": {"url": "memory://x"}, "topic": "x"})


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake() -> None:
    found = PublisherSettings.from_env(
        GOOD | {"BACKBONE_KAFKA_PORT": "tcp://10.0.0.1:9092", "BACKBONE_REGISTRY_PORT": "1"}
    )
    assert found.kafka == {"bootstrap.servers": HERE}


def test_a_file_registry_is_an_address_and_not_a_reference(tmp_path: Path) -> None:
    found = PublisherSettings.from_env(GOOD | {"BACKBONE_REGISTRY__URL": f"file://{tmp_path}"})
    assert found.registry.url == f"file://{tmp_path}"
    assert found.open_registry().subjects() == []
