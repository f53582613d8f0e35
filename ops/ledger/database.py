"""The ledger's database: where it is, opening it, and bringing its schema up to date safely.

Migrations run by themselves when a worker starts: in one transaction, under a lock that every process takes (SQLite:
the file's write lock; PostgreSQL: an advisory lock), so of processes that start together one migrates and the others
find it done; one that is killed in the middle leaves what was there. Readers never migrate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from connectors.sql.settings import SqlSettings
from connectors.sql.tables import dump_json
from ops.ledger.tables import about_ledger
from schemas.errors import BackboneError, InputError, NotAllowedError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"
HEAD: Final = "0002"
"""The newest of them."""
_LOCK: Final = 0x6C656467  # "ledg", the advisory lock's number
_MIGRATION_WAIT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Address:
    """A database's address; ``str`` of it is for people and has no password."""

    url: sa.URL

    def __str__(self) -> str:
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """SQLite's file."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None


def parse_address(text: str, *, root: Path, place: str) -> Address:
    """The address that a setting holds; SQLite's file is relative to ``root``. Raises InputError naming ``place``,
    never the address."""
    try:
        url = sa.make_url(SqlSettings.model_validate({"url": text}).url.get_secret_value())
    except ValidationError as error:
        said = error.errors(include_input=False, include_url=False, include_context=False)[0]["msg"]
        raise InputError(f"{place}: the address {said.removeprefix('Value error, ')}.") from None
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(root / (url.database or "")))
    return Address(url)


def open_engine(address: Address, *, writes: bool, wait_s: float = 15.0) -> sa.Engine:
    """An engine with one connection, and bounds on everything it waits for. Connects on first use. ``writes``: its
    transactions take SQLite's write lock when they begin, so that none fails in its middle."""
    arguments: dict[str, Any]
    if address.file is not None:
        arguments = {"timeout": wait_s / 3}
    else:
        arguments = {
            "connect_timeout": 5,
            "tcp_user_timeout": int(wait_s * 1000),
            "prepare_threshold": None,  # poolers in front of a database lose prepared statements
            "application_name": "event-backbone-ledger",
            "options": f"-c statement_timeout={int(wait_s * 1000)} -c lock_timeout={int(wait_s * 500)} -c timezone=UTC",
        }
    engine = sa.create_engine(
        address.url,
        connect_args=arguments,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=dump_json,
    )
    if address.file is not None:
        sa.event.listen(engine, "connect", _durable)
        if writes:
            sa.event.listen(engine, "begin", _begin_writing)
    return engine


def _durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves: Python's way leaves DDL out of them
    # people read while we write, and what is committed is on disk before Kafka is told so
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-32768")


def _begin_writing(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare(address: Address, *, cluster: str, begin_anew: Callable[[], None]) -> None:
    """Have a ledger of this cluster with this program's schema; made, or migrated, where it has to be. Blocks, at most
    10 min while another process migrates.

    ``begin_anew`` is called once in a new ledger's life, before anything else can use it: it is empty, so reading the
    receipts must begin at their beginning. What it raises passes through and leaves no ledger behind.

    Raises RefusedError where a newer program has written the ledger, or where it is another cluster's;
    UnreachableError, NotAllowedError, BackboneError (disk full) as the database's error means.
    """
    if address.file is not None:
        try:
            address.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotAllowedError(f"The ledger {address} cannot be made: {error.strerror}.") from None
    engine = open_engine(address, writes=True, wait_s=3.0 * _MIGRATION_WAIT_S)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_MIGRATION_WAIT_S}s'")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            _migrate(connection, address)
            _claim(connection, address, cluster, begin_anew)
    except SQLAlchemyError as error:
        raise database_error(error, address) from None
    finally:
        engine.dispose()


def _migrate(connection: sa.Connection, address: Address) -> None:
    from alembic import command

    if _state(connection) == "older":
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    elif _state(connection) == "newer":
        raise _newer(address)


def _claim(connection: sa.Connection, address: Address, cluster: str, begin_anew: Callable[[], None]) -> None:
    owner = connection.scalar(sa.select(about_ledger.c.value).where(about_ledger.c.name == "cluster"))
    if owner is None:
        begin_anew()
        connection.execute(about_ledger.insert().values(name="cluster", value=cluster))
    elif owner != cluster:
        raise RefusedError(
            f"The ledger {address} holds the receipts of another Kafka cluster ({owner}, this is {cluster}). Give this "
            "context a ledger of its own, or delete that one: it is rebuilt from the receipts."
        )


def check(connection: sa.Connection, address: Address) -> None:
    """That a reader understands this ledger. Raises RefusedError."""
    match _state(connection):
        case "newer":
            raise _newer(address)
        case "older":
            raise RefusedError(
                f"The ledger {address} has the form of an older version of the backbone. It is brought up to date when "
                "a worker starts: backbone run"
            )


def _newer(address: Address) -> RefusedError:
    return RefusedError(
        f"The ledger {address} was written by a newer version of the backbone than this one. Install that version here."
    )


def _state(connection: sa.Connection) -> str:
    """``current``, ``older`` (or empty), or ``newer`` than this program."""
    found = None
    if sa.inspect(connection).has_table("alembic_version"):
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found == HEAD:
        return "current"  # Alembic takes as long to import as the rest of a command: not where nothing is to be done
    from alembic.script import ScriptDirectory

    known = {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}
    return "older" if found is None or found in known else "newer"


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def database_error(error: SQLAlchemyError, address: Address) -> BackboneError:
    """A database's error as the sentence for a person; never its own words, which quote values."""
    from connectors.connector import Unavailable
    from connectors.sql.errors import classify

    if isinstance(error, DBAPIError):
        match classify(error, committing=False, alone=True):
            case Unavailable(needs_operator=True):
                return NotAllowedError(f"The ledger {address} cannot be opened with this user and these rights.")
            case Unavailable("out_of_resources"):
                return BackboneError(f"The disk of the ledger {address} is full: make room and run it again.")
            case Unavailable("locked"):
                return UnreachableError(f"The ledger {address} is locked by another process. Try again.")
            case Unavailable():
                return UnreachableError(f"The ledger {address} does not answer.")
    return BackboneError(f"The ledger {address} refused what was asked of it ({type(error).__name__}).")
