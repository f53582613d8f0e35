"""backbone.toml and the environment: where contracts and subscriptions are, which contexts and connections there are.

The only reader of the environment besides ``producers.settings``: ``BACKBONE_PROJECT`` (the project's folder or file),
``BACKBONE_DEBUG`` (tracebacks), ``OTEL_…`` (whether spans are wanted; what else it says the SDK reads), and what
``env:NAME`` references name; click reads ``BACKBONE_CONTEXT``.

Credentials stand in the file only as references (``ops/secrets/reference.py``); they are looked up when they are needed
and never shown. Errors are one sentence with file, key, what is wrong and what to write instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from connectors.pacing import Quota, read_rate
from ops.project_file import (
    PER_CONTEXT,
    PLAIN_CREDENTIAL,
    ConnectionTable,
    ContextTable,
    File,
    ProjectFileError,
    read_file,
    rule_and_sentence,
)
from ops.project_place import FILE, project_file
from ops.secrets.lookup import Secrets
from ops.secrets.reference import FORMS, holds_reference, is_reference
from producers import plaintext
from schemas.duration import parse_duration
from schemas.errors import BackboneError, InputError, NotFoundError, UnreachableError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from connectors.connector import ApiVersion, ConnectorType
    from ops.secrets.vault import Vault
    from producers.settings import PublisherSettings

GROUP_KAFKA_KEYS = frozenset({"group.protocol", "session.timeout.ms", "heartbeat.interval.ms"})
"""Settings of group membership: they are for the consumers of subscriptions alone."""


TLS_FILES = frozenset({
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location",
})  # fmt: skip
"""Settings of Kafka's client that name a file of TLS, relative to the project."""

LOCAL_LEDGER = "sqlite:///.backbone/ledger.db"
OURS = frozenset({"connector", "region", "sub_processor"}) | PER_CONTEXT


@dataclass(frozen=True)
class ResolvedConnection:
    """A connection in a context. ``settings()`` looks its credentials up and validates them only when it is opened:
    one without credentials does not start, and names what it misses, while the others do."""

    name: str
    connector: str
    table: Mapping[str, Any]
    is_fake: bool
    root: Path
    file: Path
    secrets: Secrets
    fake_url: str | None = None
    problem: BackboneError | None = None
    """why it cannot be used in this context"""
    quota: Quota = field(default_factory=Quota)
    circuit_open_s: float | None = None
    call_log: bool = False
    credential_expires: date | None = None
    """as a person wrote it"""

    def settings(self, connector_type: ConnectorType) -> Any:
        """The connector's settings model. Raises InputError naming the connection and the key, never a value."""
        if self.problem is not None:
            raise self.problem
        where = f"connection '{self.name}'"
        table: dict[str, Any] = dict(self.table)
        if self.is_fake:
            # the vendor's address is the fake's, and no credential is read; what else the file says stays in force
            if self.fake_url is None and connector_type.fake is not None:
                raise UnreachableError(f"The fake of {where} is not running. Start it: backbone local up")
            folder = self.root / ".backbone" / "fakes"
            known = set(connector_type.settings.model_fields)
            faked = connector_type.fake_settings(self.fake_url or "", folder)
            table = {key: value for key, value in table.items() if key in known and not holds_reference(value)} | faked
        else:
            secrets = secret_fields(connector_type.settings)
            for key, value in table.items():
                if isinstance(value, str) and key in secrets and not is_reference(value):
                    raise ProjectFileError(self.file, "plain-credential", f"{where}: '{key}' {PLAIN_CREDENTIAL}")
            table = {key: self.secrets.resolved(value, f"{where}: {key}") for key, value in table.items()}
        try:
            return connector_type.settings.model_validate(table)
        except ValidationError as error:
            rule, message = rule_and_sentence(error, connector_type.settings)
            raise ProjectFileError(self.file, rule, f"{where}: {message}") from None

    def expiry(self, settings: Any) -> float | None:
        """When the credentials that it was opened with end, in seconds since the epoch; None: nothing says when, or
        its vendor is a fake. Blocks on reading a certificate."""
        from ops.secrets import expiry

        if self.is_fake:
            return None
        leased = self.secrets.ending(value for value in self.table.values() if isinstance(value, str))
        return expiry.earliest([expiry.of_settings(settings), expiry.of_day(self.credential_expires), leased])

    def api(self, connector_type: ConnectorType) -> ApiVersion | None:
        """The version of the vendor's API that it asks, and its end; None where the API has no versions."""
        return None if connector_type.api is None else connector_type.api(self.table)

    def shown(self) -> dict[str, Any]:
        """The settings as the file has them: references stay references, addresses lose their credentials."""
        return {
            key: redacted_url(value) if isinstance(value, str) and "://" in value else value
            for key, value in self.table.items()
        }


@dataclass(frozen=True)
class Context:
    """A place to talk to: one cluster, one registry, the connections to vendors there. Lazy where credentials are."""

    name: str
    table: ContextTable
    project: Project

    @property
    def production(self) -> bool:
        return self.table.production

    @cached_property
    def running(self) -> dict[str, Any]:
        """What ``backbone local up`` wrote; empty elsewhere. Raises UnreachableError when the stack is not running."""
        return local_stack(self.project.root) if self.name == "local" else {}

    @cached_property
    def secrets(self) -> Secrets:
        """What this context's references stand for."""
        return Secrets(self.project.file, os.environ, self._open_vault)

    @property
    def kafka(self) -> dict[str, Any]:
        """librdkafka's settings of a connection, for producers, readers and admin clients. Raises as
        ``subscription_kafka``."""
        return {key: value for key, value in self.subscription_kafka.items() if key not in GROUP_KAFKA_KEYS}

    @cached_property
    def subscription_kafka(self) -> dict[str, Any]:
        """librdkafka's settings of a subscription's consumer, references looked up. Raises as ``kafka_now``."""
        return self.kafka_now()

    def kafka_now(self) -> dict[str, Any]:
        """The same, looked up anew. Raises InputError (also where plaintext is refused), UnreachableError, and what
        looking up raises."""
        place = f"contexts.{self.name}.kafka"
        settings: dict[str, Any] = self.secrets.resolved(self._kafka_table, place)
        if "bootstrap.servers" not in settings:
            message = f'{place} needs "bootstrap.servers" = "host:9092".'
            raise ProjectFileError(self.project.file, "missing-setting", message)
        if not self.plaintext_allowed:
            self._refuse(place, plaintext.of_kafka(settings))
        for key in TLS_FILES & settings.keys():
            if settings[key] != "probe":  # librdkafka's word for the system's own
                settings[key] = str(self.project.root / str(settings[key]))
        return settings

    @property
    def plaintext_allowed(self) -> bool:
        """Whether connections beyond this machine may go without TLS."""
        return self.name == "local" or self.table.allow_plaintext

    def _refuse(self, place: str, what: str | None) -> None:
        if what is not None:
            message = f"{place}: {what}. Use TLS, or write allow_plaintext = true in [contexts.{self.name}]."
            raise ProjectFileError(self.project.file, "plaintext", message)

    def _open_vault(self) -> Vault:
        from ops.secrets.vault import Login, Vault

        table, place = self.table.vault, f"contexts.{self.name}.vault"
        if table.address is None:
            message = f'the context {self.name} has no vault: write address = "https://…" in [{place}].'
            raise ProjectFileError(self.project.file, "missing-setting", message)
        if not self.plaintext_allowed:
            self._refuse(place, plaintext.of_url("the vault would be asked at", table.address))
        if (token := table.token) is not None:
            login = Login(token=lambda: str(self.secrets.resolved(token, f"{place}.token")))
        elif (role := table.approle) is not None:
            login = Login(
                mount=role.mount,
                form=lambda: {
                    "role_id": role.role_id,
                    "secret_id": self.secrets.resolved(role.secret_id, f"{place}.approle.secret_id"),
                },
            )
        else:
            pod = table.kubernetes
            assert pod is not None, "VaultTable wants one of the three"
            login = Login(
                mount=pod.mount,
                form=lambda: {"role": pod.role, "jwt": self.secrets.resolved(pod.token, f"{place}.kubernetes.token")},
            )
        ca_file = None if table.ca_file is None else str(self.project.root / table.ca_file)
        if ca_file is not None and not Path(ca_file).is_file():
            raise ProjectFileError(self.project.file, "bad-setting", f"{place}.ca_file: {ca_file} is no file.")
        return Vault(table.address, login, namespace=table.namespace, ca_file=ca_file)

    @property
    def kafka_address(self) -> str:
        """The bootstrap servers, for people."""
        return str(self._kafka_table.get("bootstrap.servers", "?"))

    @property
    def _kafka_table(self) -> dict[str, Any]:
        table = dict(self.table.kafka)
        if "kafka" in self.running:
            table["bootstrap.servers"] = self.running["kafka"]
        return table

    @property
    def registry_url(self) -> str:
        url = self.running.get("registry") or self.table.registry.url
        if not url:
            message = f'contexts.{self.name} needs registry.url = "https://…".'
            raise ProjectFileError(self.project.file, "missing-setting", message)
        if not self.plaintext_allowed:
            self._refuse(f"contexts.{self.name}.registry", plaintext.of_url("the registry would be asked at", str(url)))
        return str(url)

    def registry_credentials(self) -> dict[str, Any]:
        """What ``schemas.registry.open_registry`` takes besides the address; only what is set."""
        table = self.table.registry.model_dump(exclude={"url"}, exclude_none=True)
        place = f"contexts.{self.name}.registry"
        found: dict[str, Any] = self.secrets.resolved(table, place)
        for key in ("ca_file", "cert_file", "key_file"):
            if key in found:
                found[key] = str(self.project.root / found[key])
        return found

    def kafka_shown(self) -> dict[str, Any]:
        """The Kafka settings for people: references stay references."""
        try:
            return self._kafka_table
        except UnreachableError:
            return dict(self.table.kafka)

    def registry_shown(self) -> dict[str, Any]:
        """The registry's settings for people: no credentials in the address, references stay references."""
        shown = self.table.registry.model_dump(exclude_none=True)
        try:
            url = self.running.get("registry") or self.table.registry.url
        except UnreachableError:
            url = self.table.registry.url
        return shown | ({"url": redacted_url(url)} if url else {})

    @property
    def ledger(self) -> str | None:
        """The address of the database that keeps the receipts, its reference looked up; None: none is kept here.
        Raises InputError."""
        written = self.ledger_shown
        return None if written is None else str(self.secrets.resolved(written, f"contexts.{self.name}.ledger"))

    @property
    def ledger_shown(self) -> str | None:
        """The same for people: a reference stays one."""
        return self.table.ledger or (LOCAL_LEDGER if self.name == "local" else None)

    @cached_property
    def installation_key(self) -> bytes:
        """The key that personal values in receipts are hashed with. Made in ``.backbone/`` where it is not set and
        every vendor is a fake. Raises InputError where it is not set and vendors are real ones, or too short."""
        from ops.installation_key import checked_key, made_key

        written = self.table.installation_key
        place = f"contexts.{self.name}"
        if written is not None:
            place = f"{place}.installation_key"
            return checked_key(str(self.secrets.resolved(written, place)), place)
        if self.name == "local" or self.table.connections == "fake":
            return made_key(self.project.root / ".backbone" / "installation.key")
        message = (
            f"{place} needs installation_key, as {FORMS}: receipts hold personal values as keyed hashes of it. "
            "Make one: openssl rand -hex 32"
        )
        raise ProjectFileError(self.project.file, "missing-setting", message)

    @property
    def calls_file(self) -> Path:
        """Where workers on this machine keep the calls of connections with ``call_log``."""
        return self.project.root / ".backbone" / "calls" / f"{self.name}.db"

    @property
    def partitions(self) -> int:
        return self.table.topics.partitions

    @property
    def replication(self) -> int | None:
        return self.table.topics.replication

    @cached_property
    def connections(self) -> dict[str, ResolvedConnection]:
        """Every connection of the project as it is here."""
        return {name: self._connection(name, table) for name, table in self.project.connections.items()}

    def connection(self, name: str) -> ResolvedConnection:
        """Raises NotFoundError with a suggestion."""
        if name not in self.connections:
            raise NotFoundError(f"There is no connection '{name}' in {FILE}.{did_you_mean(name, self.connections)}")
        return self.connections[name]

    def publisher_settings(self) -> PublisherSettings:
        from producers.settings import PublisherSettings

        registry = {"url": self.registry_url, **self.registry_credentials()}
        return PublisherSettings.model_validate(
            {"kafka": self.kafka, "registry": registry, "allow_plaintext": self.plaintext_allowed}
        )

    def _connection(self, name: str, table: ConnectionTable) -> ResolvedConnection:
        written = table.model_dump()
        settings = {key: value for key, value in written.items() if key not in OURS and value is not None}
        fake = self.table.connections == "fake"
        url: str | None = None
        problem: BackboneError | None = None
        if fake:
            fakes = dict(self.table.fakes)
            try:
                fakes = {**self.running.get("fakes", {}), **fakes}
            except UnreachableError as error:
                problem = error
            url = fakes.get(name) or fakes.get(table.connector)
        elif isinstance(self.table.connections, dict):
            settings |= self.table.connections.get(name, {})
            if name not in self.table.connections:
                message = (
                    f"the connection '{name}' has no credentials in the context '{self.name}': "
                    f"add [contexts.{self.name}.connections.{name}]. It never borrows another context's."
                )
                problem = ProjectFileError(self.project.file, "no-credentials", message)
        own = self.table.connections.get(name, {}) if isinstance(self.table.connections, dict) else {}
        ours = {key: own.get(key, written[key]) for key in PER_CONTEXT}
        settings = {key: value for key, value in settings.items() if key not in PER_CONTEXT}
        rate, opens = ours["rate"], ours["circuit_open"]
        return ResolvedConnection(
            quota=Quota(
                rate=None if rate is None else read_rate(rate),
                concurrency=ours["concurrency"],
                background=ours["background"],
            ),
            circuit_open_s=None if opens is None else parse_duration(opens).total_seconds(),
            call_log=ours["call_log"],
            credential_expires=None if (day := ours["credential_expires"]) is None else date.fromisoformat(day),
            name=name, connector=table.connector, table=settings, is_fake=fake, root=self.project.root,
            file=self.project.file, secrets=self.secrets, fake_url=url, problem=problem,
        )  # fmt: skip


@dataclass(frozen=True)
class Project:
    """A project directory, as its backbone.toml describes it."""

    file: Path
    content: File

    @property
    def root(self) -> Path:
        return self.file.parent

    @property
    def name(self) -> str:
        return self.content.project.name

    @property
    def schemas(self) -> Path | Literal["registry"]:
        """The folder of contracts, or ``registry``."""
        where = self.content.project.schemas
        return "registry" if where == "registry" else self.root / where

    @property
    def models(self) -> Path:
        """Where the models of the contracts are generated: ``models``, else beside the folder of the contracts."""
        where = self.content.project.models
        if where is not None:
            return self.root / where
        schemas = self.schemas
        return (schemas.parent if isinstance(schemas, Path) else self.root / "schemas") / "models"

    @property
    def subscriptions(self) -> Path:
        return self.root / self.content.project.subscriptions

    @property
    def connections(self) -> dict[str, ConnectionTable]:
        return self.content.connections

    @property
    def contexts(self) -> dict[str, ContextTable]:
        """By name; ``local`` exists even where the file does not name it."""
        return {"local": ContextTable(connections="fake")} | self.content.contexts

    def context_settings(self, name: str) -> ContextTable:
        """Raises NotFoundError with a suggestion."""
        if name not in self.contexts:
            raise NotFoundError(
                f"There is no context '{name}' in {self.file}.{did_you_mean(name, self.contexts)} "
                f"There are: {', '.join(self.contexts)}."
            )
        return self.contexts[name]

    def context(self, name: str | None = None) -> Context:
        """The context of that name (default ``local``). Raises NotFoundError. That the local stack is not running is
        said (UnreachableError) when its addresses are asked for."""
        chosen = name or "local"
        table = self.context_settings(chosen)
        return Context(name=chosen, table=table, project=self)

    def connection_types(self, installed: Mapping[str, ConnectorType]) -> dict[str, ConnectorType]:
        """The connector of every connection. Raises InputError for one that is not installed."""
        types = {}
        for name, table in self.connections.items():
            if table.connector not in installed:
                hint = did_you_mean(table.connector, installed) or f" There are: {', '.join(sorted(installed))}."
                message = f"connections.{name}: there is no connector '{table.connector}' installed.{hint}"
                raise ProjectFileError(self.file, "unknown-connector", message)
            connector = installed[table.connector]
            self._check_keys(name, table, connector)
            try:
                types[name] = connector.configured(table.model_dump(exclude_none=True))
            except InputError as error:
                raise ProjectFileError(self.file, "bad-setting", f"connections.{name}: {error}") from None
        return types

    def _check_keys(self, name: str, table: ConnectionTable, connector: ConnectorType) -> None:
        """A misspelt setting would have no effect in a context with fakes, and be found in production."""
        if connector.settings.model_config.get("extra") == "allow":
            return
        known = set(connector.settings.model_fields)
        tables = {f"connections.{name}": set(table.model_extra or {})}
        for context, settings in self.contexts.items():
            if isinstance(settings.connections, dict) and name in settings.connections:
                tables[f"contexts.{context}.connections.{name}"] = set(settings.connections[name]) - PER_CONTEXT
        for place, keys in tables.items():
            for key in sorted(keys - known):
                message = (
                    f"{place}: there is no setting '{key}'.{did_you_mean(key, known)} "
                    f"Known here: {', '.join(sorted(known | PER_CONTEXT | {'region', 'sub_processor'}))}."
                )
                raise ProjectFileError(self.file, "unknown-setting", message)


def load_project(start: Path | None = None) -> Project:
    """The project of ``start``, of ``BACKBONE_PROJECT``, or the nearest backbone.toml upwards from the working
    directory. Raises NotFoundError if there is none, InputError for what is wrong in it."""
    file = project_file(start)
    return Project(file=file, content=read_file(file))


def local_stack(root: Path) -> dict[str, Any]:
    """What ``backbone local up`` wrote about the running stack. Raises UnreachableError if there is nothing."""
    path = root / ".backbone" / "local.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreachableError("The local stack is not running. Start it: backbone local up") from None
    except (OSError, ValueError):
        raise UnreachableError(f"{path} cannot be read. Start the stack again: backbone local up") from None
    if not isinstance(found, dict) or "kafka" not in found:
        raise UnreachableError("The local stack is not running. Start it: backbone local up")
    return found


def is_debugging() -> bool:
    """Whether tracebacks are wanted (``BACKBONE_DEBUG=1``)."""
    return os.environ.get("BACKBONE_DEBUG", "") not in ("", "0")


def spans_wanted() -> bool:
    """Whether the environment asks for OpenTelemetry spans, in the SDK's own words: an OTLP endpoint, and nothing that
    switches them off."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return not off and any(os.environ.get(name) for name in endpoints)


def user_name() -> str:
    """Who changes something, for the audit: ``BACKBONE_AUTHOR``, else the login name."""
    import getpass

    try:
        return os.environ.get("BACKBONE_AUTHOR") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def secret_fields(model: type[BaseModel]) -> set[str]:
    """The names of a settings model's fields that are ``SecretStr``."""
    return {name for name, field in model.model_fields.items() if _mentions_secret(field.annotation)}


def _mentions_secret(annotation: Any) -> bool:
    if annotation is SecretStr:
        return True
    return any(_mentions_secret(part) for part in getattr(annotation, "__args__", ()))


def redacted_url(url: str) -> str:
    """An address without the user and password it may hold."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all, and whatever it holds is not shown
        return "…"
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()
