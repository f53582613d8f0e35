"""What a publisher needs to know: Kafka's address and options, the registry and its credentials.

From the environment: ``BACKBONE_KAFKA__<NAME>`` is librdkafka's setting of that name, lower case with dots for
underscores (``BACKBONE_KAFKA__BOOTSTRAP_SERVERS``, ``BACKBONE_KAFKA__SASL_PASSWORD``), ``BACKBONE_REGISTRY__<NAME>``
one of the registry's (``URL USERNAME PASSWORD TOKEN CA_FILE CERT_FILE KEY_FILE CACHE``). A value ``env:NAME`` or
``file:PATH`` stands for what that variable or file holds; it is looked up once, when the settings are read. A service
asks no vault: have it written to a file (an agent of the vault's, a mounted secret).

Without TLS nothing leaves this machine, unless ``BACKBONE_ALLOW_PLAINTEXT=true`` says that the network is your own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from producers.plaintext import of_kafka, of_url
from schemas.errors import InputError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from schemas.registry import Registry

_KAFKA: Final = "BACKBONE_KAFKA"
_REGISTRY: Final = "BACKBONE_REGISTRY"
_PLAINTEXT: Final = "BACKBONE_ALLOW_PLAINTEXT"
_SCHEMES: Final = ("http://", "https://", "memory://", "file://")


class RegistrySettings(BaseModel):
    """Where schemas are: an address (``http(s)://``, ``memory://NAME``, ``file://DIR``) and how we are let in.
    ``cache``: a folder where schemas are kept for ever (they never change), so that a start needs no registry."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(description="The schema registry's address.")
    username: str | None = Field(default=None, description="User of the registry, with the password.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    token: SecretStr | None = Field(default=None, description="Bearer token, in place of user and password.")
    ca_file: str | None = Field(default=None, description="Certificates to trust, PEM.")
    cert_file: str | None = Field(default=None, description="Our certificate, PEM.")
    key_file: str | None = Field(default=None, description="Its key, PEM.")
    cache: Path | None = Field(
        default=None, description="Folder where schemas are kept for ever, so that a start needs no registry."
    )

    @field_validator("url")
    @classmethod
    def _has_a_known_scheme(cls, url: str) -> str:
        if not url.startswith(_SCHEMES):
            raise ValueError(f"an address starts with one of {' '.join(_SCHEMES)}")
        return url


class PublisherSettings(BaseModel):
    """``kafka`` are librdkafka's settings by their own names (``bootstrap.servers`` at least; pinned ones are refused
    when the publisher is made); they are not shown by ``repr``, credentials stand among them. Raises ValidationError
    where events or credentials would go over a network without TLS and ``allow_plaintext`` is not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kafka: dict[str, str | int | float | bool] = Field(repr=False)
    registry: RegistrySettings
    allow_plaintext: bool = Field(
        default=False,
        description="`true`: talk to Kafka and the registry without TLS beyond this machine; else refused.",
    )

    @model_validator(mode="after")
    def _is_encrypted(self) -> PublisherSettings:
        found = of_kafka(self.kafka) or of_url("the registry would be asked at", self.registry.url)
        if found is not None and not self.allow_plaintext:
            raise ValueError(found)
        return self

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> PublisherSettings:
        """From the environment (default: the process's). Raises InputError naming the variable that is missing,
        unknown or wrong, never its value."""
        values = os.environ if environment is None else environment
        kafka = {name.replace("_", "."): value for name, value in _nested(values, _KAFKA).items()}
        registry: dict[str, Any] = dict(_nested(values, _REGISTRY))
        if not kafka.get("bootstrap.servers"):
            raise _not_set(values, f"{_KAFKA}__BOOTSTRAP_SERVERS", "host:port of one or more brokers")
        if not registry.get("url"):
            raise _not_set(values, f"{_REGISTRY}__URL", "the schema registry's address")
        for name in registry:
            if name not in RegistrySettings.model_fields:
                known = [f"{_REGISTRY}__{field.upper()}" for field in RegistrySettings.model_fields]
                variable = f"{_REGISTRY}__{name.upper()}"
                raise InputError(
                    f"The environment variable {variable} means nothing here.{did_you_mean(variable, known)}"
                )
        try:
            allowed = values.get(_PLAINTEXT) or "false"
            return cls.model_validate({"kafka": kafka, "registry": registry, "allow_plaintext": allowed})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            problem = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:
                sentence = f"{problem[:1].upper()}{problem[1:]}. Use TLS, or set {_PLAINTEXT}=true where the network is"
                raise InputError(f"{sentence} your own.") from None
            variable = "BACKBONE_" + "__".join(str(part).upper() for part in first["loc"][:2])
            raise InputError(f"The environment variable {variable} is wrong: {problem}.") from None

    def open_registry(self) -> Registry:
        """The registry of these settings; connects to nothing yet."""
        from schemas.registry import open_registry

        secret = {
            name: value.get_secret_value()
            for name in ("password", "token")
            if (value := getattr(self.registry, name)) is not None
        }
        plain = self.registry.model_dump(exclude={"url", "cache", "password", "token"}, exclude_none=True)
        return open_registry(self.registry.url, cache=self.registry.cache, **plain, **secret)


def _nested(values: Mapping[str, str], table: str) -> dict[str, str]:
    """The variables of one table, ``TABLE__NAME`` by lower-case name, references resolved."""
    found: dict[str, str] = {}
    for variable, value in values.items():
        if variable.startswith(f"{table}__") and len(variable) > len(table) + 2:
            found[variable[len(table) + 2 :].lower()] = _resolved(variable, value, values)
    return found


def _resolved(variable: str, value: str, values: Mapping[str, str]) -> str:
    kind, _, name = value.partition(":")
    if kind == "env" and name:
        if not values.get(name):
            raise InputError(f"The environment variable {variable} refers to {name}, which is not set.")
        return values[name]
    if kind == "file" and name and not name.startswith("//"):
        try:
            return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(
                f"The environment variable {variable} refers to the file {name}, which cannot be read ({reason})."
            ) from None
    if kind == "vault" and name:
        raise InputError(
            f"The environment variable {variable} refers to a vault, which a service does not ask. Have it written to "
            "a file (the vault's agent, a mounted secret), and write file:PATH."
        )
    return value


def _not_set(values: Mapping[str, str], variable: str, meaning: str) -> InputError:
    # Only said here: Kubernetes sets BACKBONE_KAFKA_PORT and more by itself for a service of the name backbone-kafka.
    meant = variable.replace("__", "_")
    hint = f" {meant} is set, but the name has two underscores." if meant in values else ""
    return InputError(f"The environment variable {variable} is not set: {meaning}.{hint}")
