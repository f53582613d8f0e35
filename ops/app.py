"""What every command is given: the screen, the project, the context, and lazily everything that talks to the outside.

``App`` is click's ``obj``. Nothing is imported, read or connected before it is asked for; what was made is kept, and
``close`` ends it. Not thread-safe: one command, one main thread. A command looks like this::

    @click.command()
    @screen_options
    @click.pass_obj
    def lag(app: App, ...) -> None: ...
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import click

from ops.screen import OUTPUTS, Screen
from schemas.errors import BackboneError, InputError, NotAllowedError, NotFoundError, UnreachableError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

    from connectors.connector import ConnectorType
    from consumers.control import ControlSnapshot
    from consumers.subscription import Subscription
    from ops.ledger.query import Ledger
    from ops.settings import Context, Project
    from producers.kafka import RecordProducer
    from producers.publisher import Publisher
    from schemas.codec import Decoder, Encoder
    from schemas.contract import Contracts
    from schemas.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

AWAY = frozenset({
    "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "_RESOLVE", "REQUEST_TIMED_OUT",
    "COORDINATOR_NOT_AVAILABLE", "LEADER_NOT_AVAILABLE", "BROKER_NOT_AVAILABLE",
})  # fmt: skip
"""Kafka's errors that mean that nobody answers."""

REFUSALS = frozenset({"_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED"})
"""Its errors that mean that somebody answers, and does not let us in."""

READER = "backbone-reader"
"""What a reader outside any group calls its group: the client asks for its coordinator all the same."""
CLUSTER_TIMEOUT_S = 8.0
"""How long a command waits for the cluster before it says that it cannot be reached (exit 8)."""
WHY_TIMEOUT_S = 3.0
"""How long it then looks for the reason, where a login or a certificate may be it."""


class App:
    """Everything a command may need, made when it is first asked for and kept."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.interrupted = "Interrupted."
        """The sentence of exit 130; whoever does long work says here how to go on."""
        self._made: dict[str, Any] = {}
        self._troubles: dict[str, str] = {}
        self._closing: list[Callable[[], object]] = []
        self._login: dict[str, str] = {}

    # ---- where we are -----------------------------------------------------------------------------------------

    def choose_context(self, name: str) -> None:
        """Take the context of that name; NotFoundError with a suggestion if backbone.toml has none of it."""
        self.screen.context = name
        if name != "local":
            self.project.context_settings(name)

    @property
    def project(self) -> Project:
        """backbone.toml, read and checked. Raises InputError, NotFoundError."""
        from ops.settings import load_project

        return self._once("project", load_project)

    @property
    def context(self) -> Context:
        """The chosen context with its addresses. Raises UnreachableError if ``local`` is chosen and not running."""
        return self._once("context", lambda: self.project.context(self.screen.context))

    # ---- contracts and registry -------------------------------------------------------------------------------

    @property
    def contracts(self) -> Contracts:
        """The project's contracts: from its folder, or from the registry where ``schemas = "registry"``."""
        return self._once("contracts", self._contracts)

    @property
    def engine_contracts(self) -> Contracts:
        """The backbone's own events (``backbone.ChangeApplied`` ...)."""
        from schemas.contract import engine_contracts

        return self._once("engine_contracts", engine_contracts)

    @property
    def registry(self) -> Registry:
        return self._once("registry", self._open_registry)

    @property
    def encoder(self) -> Encoder:
        from schemas.codec import Encoder

        return self._once("encoder", lambda: Encoder(self.registry))

    @property
    def decoder(self) -> Decoder:
        """Reads events as this project's contracts (and the backbone's own) state them."""
        from schemas.codec import Decoder

        return self._once(
            "decoder", lambda: Decoder(self.registry, contracts={**self.contracts, **self.engine_contracts})
        )

    # ---- Kafka ------------------------------------------------------------------------------------------------

    def admin(self) -> AdminClient:
        """The cluster's AdminClient. Making it does not connect; ``cluster`` errors come from its calls and are
        translated by ``translated``."""
        from confluent_kafka.admin import AdminClient

        return self._once("admin", lambda: AdminClient(self._client()))

    def renew(self, username: str, password: str) -> None:
        """What is opened after this logs in with these (SASL PLAIN and SCRAM), and ``admin`` is another one: librdkafka
        2.16 gets no more answers of coordinators by a client whose login was refused for a while. Whoever has an older
        one, or a consumer, tells it the new credentials or takes a new one."""
        self._login = {"sasl.username": username, "sasl.password": password}
        self._troubles.clear()
        self._made.pop("admin", None)
        self.admin()

    def consumer(self, **settings: Any) -> Consumer:
        """A consumer that belongs to no group (``assign`` only) and commits nothing; give librdkafka's settings with
        ``_`` for ``.`` (``isolation_level="read_uncommitted"``). It is closed with the app."""
        from confluent_kafka import Consumer

        wanted = {name.replace("_", "."): value for name, value in settings.items()}
        consumer = Consumer(
            self._client()
            | {
                # librdkafka wants a name even where no group is used; nothing is ever committed under it
                "group.id": READER,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "check.crcs": True,
            }
            | wanted
        )
        self._closing.append(consumer.close)
        return consumer

    def producer(self) -> RecordProducer:
        from producers.kafka import RecordProducer

        def make() -> RecordProducer:
            producer = RecordProducer(self.context.kafka)
            self._closing.append(lambda: producer.close(5.0))
            return producer

        return self._once("producer", make)

    def publisher(self) -> Publisher:
        """Publishes events as a service would, with this context's cluster and registry. Closed with the app, where
        something unconfirmed is said."""
        from producers import KafkaPublisher

        def make() -> Publisher:
            publisher = KafkaPublisher(self.context.publisher_settings())
            self._closing.append(publisher.close)
            return publisher

        return self._once("publisher", make)

    def control(self) -> ControlSnapshot:
        """What ``backbone.control`` says now: read from its beginning to its end, every time. A topic that is not
        there yet reads as empty."""
        from ops.completing import remember
        from ops.control import read_control

        found = read_control(self)
        remember(self, "subscription", sorted(found.subscriptions), whole=True)
        return found

    # ---- receipts ---------------------------------------------------------------------------------------------

    @property
    def installation_key(self) -> bytes:
        """The key that personal values in receipts are hashed with. Raises InputError where the context has none."""
        return self.context.installation_key

    def ledger(self) -> Ledger:
        """The receipts of this context, to read. Raises RefusedError where none are kept (with what to set) or where
        they have another form, UnreachableError if the database does not answer."""
        from ops.ledger.query import open_ledger

        def make() -> Ledger:
            ledger = open_ledger(self)
            self._closing.append(ledger.close)
            return ledger

        return self._once("ledger", make)

    # ---- connectors and subscriptions -------------------------------------------------------------------------

    @property
    def connector_types(self) -> Mapping[str, ConnectorType]:
        """Installed connectors by name; a warning for each that cannot be used."""
        from connectors.connector import connector_types

        return self._once("connector_types", lambda: connector_types(self.screen.warn))

    @property
    def connection_types(self) -> Mapping[str, ConnectorType]:
        """The connector of every connection of backbone.toml, by the connection's name."""
        return self._once("connection_types", lambda: self.project.connection_types(self.connector_types))

    def subscription_files(self) -> dict[str, Path]:
        """The project's subscription files by name."""
        folder = self.project.subscriptions
        return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder.is_dir() else {}

    def subscription_file(self, name: str) -> Path:
        """One of them. Raises NotFoundError with a suggestion."""
        files = self.subscription_files()
        if name not in files:
            raise NotFoundError(
                f"There is no subscription '{name}' in {self.project.subscriptions}.{did_you_mean(name, files)}"
            )
        return files[name]

    def subscriptions(self) -> dict[str, Subscription]:
        """Every subscription file, loaded. Raises SubscriptionError for the first one that is wrong."""
        from consumers.subscription import load_subscription

        return {
            name: load_subscription(path, contracts=self.contracts, connections=self.connection_types)
            for name, path in self.subscription_files().items()
        }

    # ---- errors and the end -----------------------------------------------------------------------------------

    def translated(self, error: BaseException) -> BackboneError | None:
        """A foreign error as one of ours, or None: Kafka's errors by what the person should do."""
        kafka = sys.modules.get("confluent_kafka")
        if kafka is not None and isinstance(error, kafka.KafkaException):
            return self.kafka_error(error.args[0] if error.args else error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return BackboneError("The disk is full: make room and run it again.")
        if isinstance(error, OSError) and error.filename:
            from ops.files import file_error

            return file_error(error)
        return None

    def kafka_error(self, error: Any, doing: str = "this") -> BackboneError:
        """One of ours for a ``KafkaError``: unreachable (8), not allowed (4), not found (5), or unexpected (1).
        ``doing``: what was asked of the cluster, where that is known: ``reading the topic billing.invoices``."""
        name = error.name() if hasattr(error, "name") else str(error)
        if name in AWAY:
            return self.unreachable()
        if name in REFUSALS:
            return self._refused(name, str(error.str()) if hasattr(error, "str") else "")
        if name.endswith("AUTHORIZATION_FAILED") or name == "POLICY_VIOLATION":
            return NotAllowedError(
                f"The Kafka cluster of '{self.screen.context}' does not permit {doing} ({name}). "
                "What each role needs: backbone topic acls"
            )
        if name in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"}:
            return NotFoundError("The cluster has no such topic or partition. See: backbone topic list")
        if name == "_INVALID_ARG":
            return self._refused_setting(error)
        return BackboneError(f"Kafka answered {name}.")

    def reading_error(self, error: Any, topic: str) -> BackboneError:
        """The same for what a consumer of ``consumer()`` answers while it reads a topic."""
        if error.name() == "GROUP_AUTHORIZATION_FAILED":
            return self.kafka_error(error, f"describing the group {READER}")
        return self.kafka_error(error, f"reading the topic {topic}")

    def _refused_setting(self, error: Any) -> InputError:
        """What librdkafka says of settings it does not take; the value is not repeated."""
        said = str(error.str()) if hasattr(error, "str") else ""
        from ops.project_file import ProjectFileError

        file, place = self.project.file, f"contexts.{self.screen.context}.kafka"
        found = re.search(r'configuration property:? "([^"]+)"', said, re.IGNORECASE)
        if found is None:
            said = said.rpartition("client: ")[2].strip()[:200]
            return ProjectFileError(file, "bad-setting", f"{place}: librdkafka says: {said}.")
        if said.startswith("No such"):
            message = f"{place}: librdkafka knows no setting '{found[1]}'."
            return ProjectFileError(file, "unknown-setting", message)
        return ProjectFileError(file, "bad-setting", f"{place}: librdkafka does not take this value of '{found[1]}'.")

    def unreachable(self) -> BackboneError:
        """The sentence for a cluster that does not answer; names its address. Where it is not the cluster but the
        login or the certificate, that is said: librdkafka tells it beside the error of the call."""
        refused = self._why_away()
        if refused is not None:
            return refused
        address = self.context.kafka_address
        advice = " Start it: backbone local up" if self.screen.context == "local" else ""
        return UnreachableError(f"The Kafka cluster at {address} does not answer.{advice}")

    def _why_away(self) -> BackboneError | None:
        """A login or a certificate that is refused, as far as a client has heard of it."""
        if str(self.context.kafka.get("security.protocol", "plaintext")).lower() == "plaintext":
            return None
        from confluent_kafka import KafkaException

        admin = self.admin()
        admin.poll(0)
        if not self._troubles:
            with suppress(KafkaException):  # it is away; only what it says beside that is of interest
                admin.list_topics(timeout=WHY_TIMEOUT_S)
            admin.poll(0)
        for name, said in self._troubles.items():
            if name in REFUSALS:
                return self._refused(name, said)
        return None

    def _refused(self, name: str, said: str) -> BackboneError:
        from ops.refused_login import refused_login

        return refused_login(name, said, self.context.kafka_address, f"contexts.{self.screen.context}.kafka")

    def _heard(self, error: Any) -> None:
        """What a client says of its connections: the call that needed one reports that it failed, not why."""
        said = str(error.str())
        # since TLS 1.3 a broker refuses a client's certificate after the handshake, which looks like a lost connection
        self._troubles["_SSL" if "SSL alert" in said else str(error.name())] = said

    def sentence(self, error: BackboneError) -> str:
        """What is shown of an error: an article begins with a capital (a name does not), and an unreachable registry
        has its address."""
        text = str(error)
        registry = sys.modules.get("schemas.registry")
        if registry is not None and isinstance(error, registry.RegistryUnavailableError):
            from ops.settings import redacted_url

            advice = " Start it: backbone local up" if self.screen.context == "local" else ""
            text = f"The registry at {redacted_url(self.context.registry_url)}: {text}{advice}"
        return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "an ", "no ", "there ")) else text

    def close(self) -> None:
        """End what was opened, the last first. Errors of ending are not shown: the command's own outcome stands."""
        while self._closing:
            with suppress(Exception):
                self._closing.pop()()
        self._made.clear()

    def on_close(self, close: Callable[[], object]) -> None:
        """Have something ended with the app."""
        self._closing.append(close)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._made:
            self._made[name] = make()
        return cast(T, self._made[name])

    def _client(self) -> dict[str, Any]:
        # librdkafka prints its own lines about every refused connection to stderr; our one sentence is enough
        return {
            "log_level": 0,
            "error_cb": self._heard,
            "socket.connection.setup.timeout.ms": 5000,
            **self.context.kafka,
            **self._login,
        }

    def _contracts(self) -> Contracts:
        from schemas.contract import load_contracts

        where = self.project.schemas
        if isinstance(where, Path):
            return load_contracts(where)
        from ops.contracts.registered import registered_contracts
        from schemas.schema_cache import SchemaCache

        kept = SchemaCache(self._schema_cache, self.context.registry_url)
        return registered_contracts(self.registry, kept, self.screen.warn)

    @property
    def _schema_cache(self) -> Path:
        return self.project.root / ".backbone" / "schemas" / self.context.name

    def _open_registry(self) -> Registry:
        from schemas.registry import open_registry

        cache = self._schema_cache
        return open_registry(self.context.registry_url, cache=cache, **self.context.registry_credentials())


@overload
def screen_options(command: F) -> F: ...
@overload
def screen_options(*, github: bool = False) -> Callable[[F], F]: ...
def screen_options(command: F | None = None, *, github: bool = False) -> F | Callable[[F], F]:
    """Give a command ``--output --fields --sort -q -v --no-input`` and ``-c``; they set ``app.screen``.

    ``@screen_options``, or ``@screen_options(github=True)`` for a command that ends with ``screen.findings``: then
    ``--output github`` writes annotations for GitHub's workflows.
    """
    if command is None:
        return lambda decorated: _with_screen_options(decorated, github)
    return _with_screen_options(command, github)


def _with_screen_options(command: F, github: bool) -> F:
    outputs = (*OUTPUTS, "github") if github else OUTPUTS

    def store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if ctx.resilient_parsing:
            if param.name == "context" and value is not None:
                from ops.completing import CONTEXT

                ctx.meta[CONTEXT] = value
            return
        app = ctx.find_object(App)
        if app is None or value is None or value is False:
            return
        if param.name == "context":
            app.choose_context(value)
        elif param.name in ("fields", "sort"):
            setattr(app.screen, param.name, tuple(part.strip() for part in value.split(",") if part.strip()))
        elif param.name is not None:
            setattr(app.screen, param.name, value)

    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(*names, expose_value=False, callback=store, **settings)

    for decorate in (
        option("-c", "--context", metavar="NAME", help="The context to talk to; default: local."),
        option("--no-input", is_flag=True, help="Never ask; what would be asked is refused."),
        option("-v", "--verbose", is_flag=True, help="More words on stderr."),
        option("-q", "--quiet", is_flag=True, help="No words on stderr but errors and warnings."),
        option("--sort", metavar="FIELD,-FIELD", help="Order of rows; - for descending."),
        option("--fields", metavar="FIELD,FIELD", help="Only these fields, in this order."),
        option("--output", type=click.Choice(outputs), help="A table for people, JSON or JSON lines for programs."),
    ):
        command = decorate(command)
    return command
