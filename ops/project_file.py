"""What may stand in backbone.toml, and the sentence for whatever may not. Reads the file, resolves nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from connectors.pacing import BACKGROUND, read_rate
from schemas.duration import parse_duration
from schemas.errors import InputError
from schemas.findings import did_you_mean

PROTECTION = frozenset({"rate", "concurrency", "background", "circuit_open"})
"""How the vendor is protected: keys of a connection that a context may set anew (a sandbox has another quota)."""

SECRET_KAFKA_KEYS = frozenset({
    "sasl.password", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config", "ssl.key.password", "ssl.key.pem",
    "ssl.keystore.password", "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
})  # fmt: skip
PINNED_KAFKA_KEYS: Mapping[str, str] = {
    "enable.auto.commit": "an event is committed only after its outcome",
    "enable.auto.offset.store": "an event is committed only after its outcome",
    "auto.offset.reset": "a position is never guessed",
    "isolation.level": "aborted transactions must not be delivered",
    "check.crcs": "broken bytes must not be delivered",
    "fetch.queue.backoff.ms": "back-pressure depends on it",
    "queued.max.messages.kbytes": "it bounds the memory",
    "max.poll.interval.ms": "the runtime's own limits are set below it",
    "allow.auto.create.topics": "nothing is created by a typo",
    "socket.keepalive.enable": "long-idle connections must not die unnoticed",
    "enable.idempotence": "the order of a key and the absence of duplicates depend on it",
    "acks": "what is acknowledged must not be lost",
    "message.timeout.ms": "it bounds how long an outcome may be open",
    "queue.buffering.max.messages": "it bounds the memory",
    "queue.buffering.max.kbytes": "it bounds the memory",
    "partitioner": "every producer must send a key to the same partition",
    "topic.metadata.propagation.max.ms": "an unknown topic must be said quickly",
    "linger.ms": "it is measured",
    "compression.type": "it is measured",
    "group.id": "a subscription's name is its group",
    "group.instance.id": "rebalances depend on it",
    "partition.assignment.strategy": "sources and inbox must be assigned together",
    "group.remote.assignor": "sources and inbox must be assigned together",
    "transactional.id": "the outcome of a publish does not wait for a transaction",
}


_CREDENTIAL = re.compile(r"(^|_)(token|password|passphrase|secret|api_?key|private_key|access_key|credentials?)$", re.I)
_PASSWORD_IN_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]+@")
_PASSWORD_IN_QUERY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s]*[?&](ssl)?password=", re.I)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _reference(value: Any) -> Any:
    if isinstance(value, str) and not is_reference(value):
        raise ValueError("a credential does not stand in this file; write env:NAME or file:PATH")
    return value


Reference = Annotated[str, BeforeValidator(_reference)]
"""``env:NAME`` or ``file:PATH``."""


def _rate(text: str) -> str:
    try:
        read_rate(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


def _circuit_open(text: str) -> str:
    try:
        span = parse_duration(text)
    except InputError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    if not timedelta(seconds=1) <= span <= timedelta(hours=1):
        raise ValueError("is a duration from 1s to 1h")
    return text


class ProjectTable(_Table):
    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="The project's name.")
    schemas: str = Field(
        description="Folder of the contracts; or `registry`: contracts are read from the registry of the context."
    )
    subscriptions: str = Field(description="Folder of the subscription files.")
    models: str | None = Field(
        default=None, description="Folder of the generated models; default: `models` beside the contracts."
    )


class RegistryTable(_Table):
    url: str | None = Field(default=None, description="Address of the schema registry.")
    username: str | None = Field(default=None, description="User of the registry, with `password`.")
    password: Reference | None = Field(default=None, description="A reference.")
    token: Reference | None = Field(
        default=None, description="Bearer token, in place of user and password. A reference."
    )
    ca_file: str | None = Field(default=None, description="Certificates to trust, PEM.")
    cert_file: str | None = Field(default=None, description="Our certificate, PEM.")
    key_file: str | None = Field(default=None, description="Its key, PEM.")


class TopicsTable(_Table):
    """How topics are created here. ``replication`` None: 3, or as many brokers as there are."""

    partitions: int = Field(default=12, ge=1, le=1000, description="Partitions of a topic that is created.")
    replication: int | None = Field(
        default=None, ge=1, le=15, description="Copies of it; default: 3, or as many brokers as there are."
    )


class ContextTable(_Table):
    production: bool = Field(default=False, description="Every change needs `--reason`.")
    kafka: dict[str, Any] = Field(
        default_factory=dict,
        description="librdkafka's settings by its own names, at least `bootstrap.servers`; credentials as references.",
    )
    registry: RegistryTable = RegistryTable()
    topics: TopicsTable = TopicsTable()
    ledger: str | None = Field(
        default=None,
        min_length=1,
        description="The database that keeps the receipts, for `trace` and `receipt list`: `postgresql://…`, "
        "`sqlite:///file`, or a reference to such an address. Default in `local`: `sqlite:///.backbone/ledger.db`; "
        "elsewhere none is kept.",
    )
    monitor: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/@]+/?$",
        description="Where the monitor of this context answers, `http://host:port`; default: the one that runs in this "
        "project on this machine, if any.",
    )
    installation_key: Reference | None = Field(
        default=None,
        description="A reference to a secret of at least 16 bytes: personal values are stored in receipts as keyed "
        "hashes of it. Keep it: without it nobody can look them up. Default where every vendor is a fake: made in "
        "`.backbone/`.",
    )
    connections: Literal["fake"] | dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="`fake`: every vendor is its fake, and no credential is read. Or a table a connection, "
        "`[contexts.prod.connections.hubspot]`, with what is different here: its credentials.",
    )
    fakes: dict[str, str] = Field(
        default_factory=dict, description="Where the fakes answer, for contexts other than `local`."
    )


class ConnectionTable(BaseModel):
    """``connector`` and what the data map says of the vendor are ours; everything else is the connector's own."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)
    connector: str = Field(description="Name of the connector: `hubspot`, `slack`, `sql`, or one of another package.")
    region: str | None = Field(default=None, description="Where the vendor keeps the data; shown by `catalog show`.")
    sub_processor: str | None = Field(default=None, description="Who keeps them; shown by `catalog show`.")
    rate: Annotated[str, AfterValidator(_rate)] | None = Field(
        default=None,
        description="The vendor's quota for all our processes: calls and a time, `80/10s`. At most that and a tenth of "
        "its count at once; each process keeps to its share. Default: the vendor's own quota headers alone.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Calls in flight at most, over all processes (at least 1 in each). Default: 256 deliveries each.",
    )
    background: float = Field(
        default=BACKGROUND,
        ge=0.1,
        le=1,
        description="The part of `rate` (without one: of the calls in flight) that redrive and replay may use at most.",
    )
    circuit_open: Annotated[str, AfterValidator(_circuit_open)] | None = Field(
        default=None,
        description="How long nobody calls when the vendor fails, at first; it doubles up to five times that while a "
        "try fails. Default `60s`.",
    )


class File(_Table):
    project: ProjectTable
    connections: dict[str, ConnectionTable] = Field(default_factory=dict)
    contexts: dict[str, ContextTable] = Field(default_factory=dict)


def read_file(file: Path) -> File:
    """The file's content, checked. Raises InputError naming file, key and what is wrong, never a value."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file} is not valid TOML: {error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text.") from None
    except RecursionError:
        raise InputError(f"{file} is nested too deeply.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    contexts = content.get("contexts")
    for name, table in contexts.items() if isinstance(contexts, dict) else ():
        if isinstance(table, dict) and isinstance(table.get("kafka"), dict):
            table["kafka"] = _dotted(table["kafka"])
            _check_kafka(file, name, table["kafka"])
    _check_credentials(file, content)
    try:
        found = File.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{file}: {sentence(error, File)}") from None
    _check_connections(file, found)
    return found


def is_reference(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("env:", "file:")) and len(value.partition(":")[2]) > 0


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """A pydantic error as one sentence: key, what is wrong, what there is. Never the value: it may be a secret."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    first = found[0]
    path = ".".join(str(part) for part in first["loc"] if part not in ("dict[str,dict[str,any]]", "literal['fake']"))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            hint = did_you_mean(str(first["loc"][-1]), known)
            return f"there is no setting '{path}'.{hint} Known here: {', '.join(sorted(known))}{more}."
        case "missing":
            return f"'{path}' is missing{more}."
        case "value_error":
            message = first["msg"].removeprefix("Value error, ")
            return f"'{path}': {message}{more}." if path else f"{message}{more}."
        case "model_type" | "model_attributes_type" | "dict_type" | "dataclass_type":
            return f"'{path}' is a table: [{path}]{more}."
        case "string_pattern_mismatch" if first["loc"] == ("project", "name"):
            return f"'{path}': lower-case letters, digits and dashes only, a letter first{more}."
        case _:
            message = first["msg"]
            return f"'{path}': {message[:1].lower()}{message[1:]}{more}."


def _check_kafka(file: Path, context: str, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        place = f"{file}: contexts.{context}.kafka"
        if key in PINNED_KAFKA_KEYS:
            raise InputError(f"{place}: '{key}' cannot be set: {PINNED_KAFKA_KEYS[key]}. Leave it out.")
        if not isinstance(value, str | int | float | bool):
            raise InputError(f"{place}: '{key}' is a text, a number or true/false.")
        if key in SECRET_KAFKA_KEYS and not is_reference(value):
            raise InputError(
                f"{place}: '{key}' is a credential and does not stand in this file. Write env:NAME or file:PATH."
            )


def _check_credentials(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse credentials in plain text wherever a connector's own settings stand: the file is shown and shared."""
    for place, table in _tables_of_connections(content):
        for key, value in table.items():
            if not isinstance(value, str) or is_reference(value):
                continue
            if _CREDENTIAL.search(key):
                raise InputError(
                    f"{file}: {place}: '{key}' is a credential and does not stand in this file. "
                    "Write env:NAME or file:PATH."
                )
            if _holds_password(value):
                raise InputError(
                    f"{file}: {place}: '{key}' holds a password, which does not stand in this file. "
                    + ("Give username and password beside it, the password as env:NAME or file:PATH."
                       if place.endswith(".registry") else "Write the whole address as env:NAME or file:PATH.")
                )  # fmt: skip


def _holds_password(address: str) -> bool:
    return bool(_PASSWORD_IN_ADDRESS.search(address) or _PASSWORD_IN_QUERY.search(address))


def _tables_of_connections(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    def tables(of: Any) -> list[tuple[str, Mapping[str, Any]]]:
        return [(name, one) for name, one in of.items() if isinstance(one, dict)] if isinstance(of, dict) else []

    for name, table in tables(content.get("connections")):
        yield f"connections.{name}", table
    for context, settings in tables(content.get("contexts")):
        for name, table in tables(settings.get("connections")):
            yield f"contexts.{context}.connections.{name}", table
        for name in ("fakes", "registry"):
            if isinstance(settings.get(name), dict):
                yield f"contexts.{context}.{name}", settings[name]
        if "ledger" in settings:
            yield f"contexts.{context}", {"ledger": settings["ledger"]}


def _check_connections(file: Path, found: File) -> None:
    """A connection that only a context knows is a misspelt one; and what a context sets anew is checked as well."""
    if "ledger" in found.connections:
        raise InputError(f"{file}: connections.ledger: the backbone's own is called so. Give this one another name.")
    connectors = {table.connector for table in found.connections.values()}
    for context, settings in found.contexts.items():
        own = settings.connections if isinstance(settings.connections, dict) else {}
        for kind, names, known in (
            ("connections", own, set(found.connections)),
            ("fakes", settings.fakes, set(found.connections) | connectors),
        ):
            for name in names:
                if name not in known:
                    raise InputError(
                        f"{file}: contexts.{context}.{kind}: there is no connection '{name}'."
                        f"{did_you_mean(name, known)}"
                    )
        for name, table in own.items():
            anew = {key: value for key, value in table.items() if key in PROTECTION}
            try:
                ConnectionTable.model_validate({"connector": "", **anew})
            except ValidationError as error:
                place = f"contexts.{context}.connections.{name}"
                raise InputError(f"{file}: {place}: {sentence(error, ConnectionTable)}") from None


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``bootstrap.servers = …`` is a nested table in TOML; librdkafka's name has a dot."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The settings that exist at a place of the file, for suggestions."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = None if field is None else field.annotation
        else:
            # a table of tables: the part is a name somebody chose
            models = [item for item in getattr(current, "__args__", ()) if isinstance(item, type)]
            current = next((item for item in models if issubclass(item, BaseModel)), None)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
