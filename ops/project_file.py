"""What may stand in backbone.toml, and the sentence for whatever may not. Reads the file, resolves nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from connectors.pacing import BACKGROUND, read_rate
from ops.secrets.reference import FORMS, OWN_FORMS, OWN_PATTERN, PATTERN, WRITE, is_reference, vault_reference
from ops.wording import printable
from schemas.duration import parse_duration
from schemas.errors import InputError
from schemas.findings import did_you_mean

PROTECTION = frozenset({"rate", "concurrency", "background", "circuit_open"})
"""How the vendor is protected."""

PER_CONTEXT = PROTECTION | {"call_log", "credential_expires"}
"""Keys of ours in a connection that a context may set anew: a sandbox has another quota and credential, and no calls
to be kept."""

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


CREDENTIAL_KEY = re.compile(
    r"(^|_)(token|password|passphrase|secret|api_?key|private_key|access_key|credentials?)$", re.I
)
_PASSWORD_IN_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]+@")
_PASSWORD_IN_QUERY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s]*[?&](ssl)?password=", re.I)


_PLAIN = "is a credential and does not stand in this file."
PLAIN_CREDENTIAL = f"{_PLAIN} {WRITE}"


class _Table(BaseModel):
    # strict: TOML's values have types, so a number in quotes is a mistake here as it is in the editor
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def _reference(value: Any) -> Any:
    if isinstance(value, str) and not is_reference(value):
        raise PydanticCustomError("plain-credential", PLAIN_CREDENTIAL)
    return value


def _own_reference(value: Any) -> Any:
    if isinstance(value, str) and not is_reference(value):
        raise PydanticCustomError("plain-credential", f"{_PLAIN} Write {OWN_FORMS}.")
    if isinstance(value, str) and value.startswith("vault:"):
        raise ValueError(f"what opens the vault stands outside it; write {OWN_FORMS}")
    return value


Reference = Annotated[str, BeforeValidator(_reference), WithJsonSchema({"type": "string", "pattern": PATTERN})]
"""``env:NAME``, ``file:PATH`` or ``vault:PATH#FIELD``."""
VaultOwn = Annotated[str, BeforeValidator(_own_reference), WithJsonSchema({"type": "string", "pattern": OWN_PATTERN})]
"""``env:NAME`` or ``file:PATH``: a credential that opens the vault."""


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


def _day(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("is a date like 2027-03-31") from None
    return text


class ProjectTable(_Table):
    """Where contracts and subscriptions are."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="The project's name.")
    schemas: str = Field(
        description="Folder of the contracts; or `registry`: contracts are read from the registry of the context."
    )
    subscriptions: str = Field(description="Folder of the subscription files.")
    models: str | None = Field(
        default=None, description="Folder of the generated models; default: `models` beside the contracts."
    )


class RegistryTable(_Table):
    """The schema registry, and how to get in."""

    url: str | None = Field(default=None, description="Address of the schema registry.")
    username: str | None = Field(default=None, description="User of the registry, with `password`.")
    password: Reference | None = Field(default=None, description="A reference.")
    token: Reference | None = Field(
        default=None, description="Bearer token, in place of user and password. A reference."
    )
    ca_file: str | None = Field(default=None, description="Certificates to trust, PEM.")
    cert_file: str | None = Field(default=None, description="Our certificate, PEM.")
    key_file: str | None = Field(default=None, description="Its key, PEM.")


class AppRoleTable(_Table):
    """A login to the vault as an AppRole."""

    role_id: str = Field(min_length=1, description="Log in to the vault as this AppRole; no secret.")
    secret_id: VaultOwn = Field(description="Its secret id. A reference, not to the vault.")
    mount: str = Field(default="approle", min_length=1, description="Where the auth method is mounted.")


class KubernetesTable(_Table):
    """A login to the vault with the service account of the pod."""

    role: str = Field(min_length=1, description="Log in to the vault with the pod's service account, as this role.")
    token: VaultOwn = Field(
        default="file:/var/run/secrets/kubernetes.io/serviceaccount/token",
        description="The service account's token. A reference, not to the vault.",
    )
    mount: str = Field(default="kubernetes", min_length=1, description="Where the auth method is mounted.")


class VaultTable(_Table):
    """Where ``vault:`` references are looked up, and how we are let in there."""

    address: str | None = Field(
        default=None, description="Address of HashiCorp Vault or OpenBao, for `vault:PATH#FIELD`: `https://…`."
    )
    namespace: str | None = Field(default=None, min_length=1, description="Namespace there.")
    ca_file: str | None = Field(default=None, description="Certificates to trust, PEM.")
    token: VaultOwn | None = Field(
        default=None,
        description="A token as it is, for example the file of a Vault Agent. A reference, not to the vault. Or one of "
        "the two below.",
    )
    approle: AppRoleTable | None = Field(
        default=None, description="A table: `role_id`, `secret_id` (a reference), `mount` (default `approle`)."
    )
    kubernetes: KubernetesTable | None = Field(
        default=None,
        description="A table: `role`, `token` (default: the pod's service account), `mount` (default `kubernetes`).",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        ways = [way for way in (self.token, self.approle, self.kubernetes) if way is not None]
        if self.address is None and (ways or self.namespace or self.ca_file):
            raise ValueError("address is missing")
        if self.address is not None:
            parts = urlsplit(self.address)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
                raise ValueError("address is http(s)://HOST:PORT, without a user")
            if len(ways) != 1:
                raise ValueError("give one of token, approle and kubernetes")
        return self


class TopicsTable(_Table):
    """How topics are created here. ``replication`` None: 3, or as many brokers as there are."""

    partitions: int = Field(default=12, ge=1, le=1000, description="Partitions of a topic that is created.")
    replication: int | None = Field(
        default=None, ge=1, le=15, description="Copies of it; default: 3, or as many brokers as there are."
    )


def _keep(text: str) -> str:
    try:
        span = parse_duration(text)
    except InputError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    if not timedelta(hours=1) <= span <= timedelta(days=90):
        raise ValueError("is a duration from 1h to 90d")
    return text


class CallLogTable(_Table):
    """How much is kept of the calls of connections with `call_log`; the oldest leave first."""

    keep: Annotated[str, AfterValidator(_keep)] = Field(
        default="7d", description="How long calls are kept (`call_log` of a connection)."
    )
    megabytes: int = Field(default=256, ge=1, le=65_536, description="How large their file may become.")


class ContextTable(_Table):
    """A place to talk to: one cluster, one registry, the connections to vendors there."""

    production: bool = Field(default=False, description="Every change needs `--reason`.")
    approval: Literal["two-person"] | None = Field(
        default=None,
        description="`two-person`: a change is applied only after another person than its author approved its plan "
        "(`backbone change approve ID --reason TEXT`). Not what acts at once (pause, resume), and not taking a change "
        "back.",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="Let Kafka, registry and vault be talked to without TLS beyond this machine; refused otherwise.",
    )
    kafka: dict[str, Any] = Field(
        default_factory=dict,
        description="librdkafka's settings by its own names, at least `bootstrap.servers`; credentials as references.",
    )
    registry: RegistryTable = Field(default=RegistryTable(), description="The schema registry here.")
    vault: VaultTable = Field(default=VaultTable(), description="Where references `vault:PATH#FIELD` are looked up.")
    topics: TopicsTable = Field(default=TopicsTable(), description="How topics are created here.")
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
    call_log: CallLogTable = Field(
        default=CallLogTable(), description="How much is kept of the calls of connections with `call_log`."
    )
    fakes: dict[str, str] = Field(
        default_factory=dict, description="Where the fakes answer, for contexts other than `local`."
    )


class ConnectionTable(BaseModel):
    """``connector`` and what the data map says of the vendor are ours; everything else is the connector's own."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, hide_input_in_errors=True)
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
        description="The part of `rate` (without one: of the calls in flight) that redrive, replay and the "
        "catch-up of an attach may use at most.",
    )
    circuit_open: Annotated[str, AfterValidator(_circuit_open)] | None = Field(
        default=None,
        description="How long nobody calls when the vendor fails, at first; it doubles up to five times that while a "
        "try fails. Default `60s`.",
    )
    call_log: bool = Field(
        default=False,
        description="Keep its calls, redacted: what was asked and what the vendor answered, for `backbone connection "
        "calls`.",
    )
    credential_expires: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)] | None = Field(
        default=None,
        description="The day on which the credential ends, `2027-03-31`, where the vendor says so and the credential "
        "itself does not. You are told 14 days before.",
    )


class File(_Table):
    """backbone.toml: where contracts and subscriptions are, the connections to vendors, the contexts they run in."""

    project: ProjectTable = Field(description="Where contracts and subscriptions are.")
    connections: dict[str, ConnectionTable] = Field(
        default_factory=dict, description="A table for each account at a vendor: what is the same everywhere."
    )
    contexts: dict[str, ContextTable] = Field(
        default_factory=dict, description="A table for each place to talk to: a cluster, a registry, credentials."
    )


BYTES_MAX = 256 << 10
DEPTH_MAX = 20
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){20}""")
"""A key of many parts: the parser takes the square of their number."""


class ProjectFileError(InputError):
    """Something in backbone.toml is not as it must be. The sentence names file, key, what is wrong and what to do, and
    ends with the rule, as findings do; it never holds a value."""

    def __init__(self, file: Path | str, rule: str, message: str) -> None:
        self.rule = rule
        # keys come from anywhere: no line of their own, no control sequence
        super().__init__(f"{file}: {printable(message)} [{rule}]")


def read_file(file: Path) -> File:
    """The file's content, checked. Raises ProjectFileError naming the key and what is wrong, never a value."""
    content = _parsed(file)
    contexts = content.get("contexts")
    for name, table in contexts.items() if isinstance(contexts, dict) else ():
        if isinstance(table, dict) and isinstance(table.get("kafka"), dict):
            table["kafka"] = _dotted(table["kafka"])
            _check_kafka(file, name, table["kafka"])
    _check_credentials(file, content)
    _check_vault_references(file, content)
    try:
        found = File.model_validate(content)
    except ValidationError as error:
        raise ProjectFileError(file, *rule_and_sentence(error, File)) from None
    _check_connections(file, found)
    return found


def _parsed(file: Path) -> dict[str, Any]:
    """The file as TOML, bounded in time, memory and depth."""
    try:
        with file.open("rb") as opened:
            written = opened.read(BYTES_MAX + 1)
        text = written.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProjectFileError(file, "toml-syntax", "this is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise ProjectFileError(file, "toml-unreadable", f"it cannot be read: {error.strerror}.") from None
    if len(written) > BYTES_MAX:
        raise ProjectFileError(file, "toml-size", f"it is longer than {BYTES_MAX >> 10} kB; a project file is short.")
    deep = f"a key or table is nested more than {DEPTH_MAX} deep; nothing here is."
    if _LONG_KEY.search(text):
        raise ProjectFileError(file, "toml-size", deep)
    try:
        content = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise ProjectFileError(file, "toml-syntax", f"this is not valid TOML: {error}.") from None
    except RecursionError:
        raise ProjectFileError(file, "toml-size", deep) from None
    except ValueError:  # tomllib lets through what int() says of thousands of digits
        raise ProjectFileError(file, "toml-syntax", "a number in it is out of range.") from None
    if _depth_exceeds(content, DEPTH_MAX):
        raise ProjectFileError(file, "toml-size", deep)
    return content


def _depth_exceeds(content: Any, most: int) -> bool:
    level = [content]
    for _ in range(most):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for values in inner for value in values]
    return any(isinstance(one, dict | list) for one in level)


def rule_and_sentence(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """A pydantic error as the rule that is broken and one sentence: key, what is wrong, what there is. Never the value:
    it may be a secret."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    first = found[0]
    path = ".".join(str(part) for part in first["loc"] if part not in ("dict[str,dict[str,any]]", "literal['fake']"))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            hint = did_you_mean(str(first["loc"][-1]), known)
            listed = ", ".join(sorted(known))
            return "unknown-setting", f"there is no setting '{path}'.{hint} Known here: {listed}{more}."
        case "missing":
            return "missing-setting", f"'{path}' is missing{more}.{_meaning(model, first['loc'])}"
        case "plain-credential":
            return "plain-credential", f"'{path}' {first['msg']}"
        case "value_error":
            message = first["msg"].removeprefix("Value error, ")
            return "bad-setting", f"'{path}': {message}{more}." if path else f"{message}{more}."
        case "model_type" | "model_attributes_type" | "dict_type" | "dataclass_type":
            return "bad-setting", f"'{path}' is a table: [{path}]{more}."
        case "string_pattern_mismatch" if first["loc"] == ("project", "name"):
            return "bad-setting", f"'{path}': lower-case letters, digits and dashes only, a letter first{more}."
        case _:
            message = first["msg"]
            return "bad-setting", f"'{path}': {message[:1].lower()}{message[1:]}{more}."


def _meaning(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """What the setting at a place is for; empty where nothing is known of it."""
    owner = _model_at(model, place[:-1])
    field = None if owner is None else owner.model_fields.get(str(place[-1]))
    return f" {field.description}" if field is not None and field.description else ""


def _check_kafka(file: Path, context: str, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        place = f"contexts.{context}.kafka"
        if key in PINNED_KAFKA_KEYS:
            message = f"{place}: '{key}' cannot be set: {PINNED_KAFKA_KEYS[key]}. Leave it out."
            raise ProjectFileError(file, "pinned-setting", message)
        if not isinstance(value, str | int | float | bool):
            raise ProjectFileError(file, "bad-setting", f"{place}: '{key}' is a text, a number or true/false.")
        if key in SECRET_KAFKA_KEYS and not is_reference(value):
            raise ProjectFileError(file, "plain-credential", f"{place}: '{key}' {PLAIN_CREDENTIAL}")


def _check_credentials(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse credentials in plain text wherever a connector's own settings stand: the file is shown and shared."""
    for place, table in _tables_of_connections(content):
        for key, value in table.items():
            if not isinstance(value, str) or is_reference(value):
                continue
            if CREDENTIAL_KEY.search(key):
                raise ProjectFileError(file, "plain-credential", f"{place}: '{key}' {PLAIN_CREDENTIAL}")
            if _holds_password(value):
                instead = (
                    f"Give username and password beside it, the password as {FORMS}."
                    if place.endswith(".registry")
                    else f"Write the whole address as {FORMS}."
                )
                message = f"{place}: '{key}' holds a password, which does not stand in this file. {instead}"
                raise ProjectFileError(file, "plain-credential", message)


def _check_vault_references(file: Path, content: Any, place: str = "") -> None:
    """A badly formed one would be found only where it is looked up, in production."""
    if isinstance(content, dict):
        for key, value in content.items():
            _check_vault_references(file, value, f"{place}.{key}" if place else key)
    elif isinstance(content, str) and content.startswith("vault:") and is_reference(content):
        try:
            vault_reference(content.removeprefix("vault:"))
        except InputError as error:
            raise ProjectFileError(file, "bad-setting", f"{place}: {error}.") from None


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
        message = "connections.ledger: the backbone's own is called so. Give this one another name."
        raise ProjectFileError(file, "reserved-connection", message)
    connectors = {table.connector for table in found.connections.values()}
    for context, settings in found.contexts.items():
        own = settings.connections if isinstance(settings.connections, dict) else {}
        for kind, names, known in (
            ("connections", own, set(found.connections)),
            ("fakes", settings.fakes, set(found.connections) | connectors),
        ):
            for name in names:
                if name not in known:
                    message = f"contexts.{context}.{kind}: there is no connection '{name}'.{did_you_mean(name, known)}"
                    raise ProjectFileError(file, "unknown-connection", message)
        for name, table in own.items():
            anew = {key: value for key, value in table.items() if key in PER_CONTEXT}
            try:
                ConnectionTable.model_validate({"connector": "", **anew})
            except ValidationError as error:
                rule, message = rule_and_sentence(error, ConnectionTable)
                place = f"contexts.{context}.connections.{name}"
                raise ProjectFileError(file, rule, f"{place}: {message}") from None


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
    found = _model_at(model, path)
    return [] if found is None else list(found.model_fields)


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The table at a place of the file."""
    current: Any = model
    for part in path:
        table = _table_of(current)
        if table is None:  # a table of tables: the part is a name somebody chose
            current = next((one for one in getattr(current, "__args__", ()) if _table_of(one)), None)
        else:
            field = table.model_fields.get(str(part))
            current = None if field is None else field.annotation
    return _table_of(current)


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The table that is written for it, or may be: ``T`` or ``T | None``."""
    if isinstance(annotation, UnionType):
        return next((found for one in annotation.__args__ if (found := _table_of(one))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
