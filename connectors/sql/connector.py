"""Rows in a database: one transaction a batch, in one worker thread, guarded against late older writes.

What a row's write says: insert it, or update the columns sent where the key is there already, unless the row was last
written by a *later* event of the same topic and partition (``Delivery.sequence``). Then nothing is written, and the
delivery ends as Skipped(superseded). A redelivery (the same event again) writes the same values again.

A delete has the same guard: what a later event of the same partition has written stays, and the delivery is Skipped.

What errors mean: ``connectors/sql/errors.py``. Which values fit which columns: ``connectors/sql/tables.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from connectors.connector import (
    Delivered,
    Delivery,
    Kept,
    Listed,
    LookedUp,
    Outcome,
    Page,
    Rejected,
    RetryLater,
    Skipped,
    Unavailable,
    Unknown,
)
from connectors.sql.actions import DELETE
from connectors.sql.errors import classify, schema_changed
from connectors.sql.settings import SqlSettings
from connectors.sql.tables import (
    KEY,
    NAME,
    OFFSET,
    PARTITION,
    TOPIC,
    WRITTEN,
    Kind,
    Unfit,
    add_column_ddl,
    bound_value,
    column_kind,
    columns_of,
    create_ddl,
    dump_json,
    is_ours,
    kept_value,
    missing_columns,
    new_table,
)
from schemas.errors import UnreachableError
from schemas.event import Origin

SCHEMA_TRIES = 3
STATEMENTS_MAX = 1000
LIST_PAGE = 1000


Answer = TypeVar("Answer")
_Columns: TypeAlias = Mapping[str, tuple[str, Kind | None]]
"""A table's columns by lower-case name: the table's own spelling, and what it takes."""


@dataclass(slots=True)
class _Row:
    """One delivery on its way into a table."""

    index: int
    delivery: Delivery
    table: str
    values: Mapping[str, Any]
    columns: dict[str, Kind]


class Sql:
    """One database (a ``connectors.connector.Connector``). The database's client blocks, so it lives in a thread of its
    own; ``deliver`` waits for it, at most ``timeout_s``."""

    def __init__(self, settings: SqlSettings) -> None:
        self.pause_until = 0.0
        self._timeout_s = settings.timeout_s
        self._tables = _Tables(open_engine(settings), settings.database_schema)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sql-connector")
        self._closed = False

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Write, or delete, the rows of the batch in one transaction."""
        if self._closed:
            return [Unavailable("closed")] * len(batch)
        work: Future[list[Outcome]] = self._executor.submit(
            self._tables.delete if batch[0].action == DELETE else self._tables.write, batch
        )
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), self._timeout_s)
        except TimeoutError:
            # What can still be cancelled stood behind another batch: nothing of it was sent.
            outcome = Unavailable("busy", limited=True) if work.cancel() else Unknown("timeout")
            return [outcome] * len(batch)

    async def check(self) -> Outcome:
        """Ask the database for 1."""
        return await self._asked(self._tables.check)

    async def look_up(self, delivery: Delivery) -> LookedUp:
        """Whether the row is there as this event, or a later one of its partition, has written it."""
        if delivery.action == DELETE:
            return None  # deleting again does no harm
        found = await self._asked(self._tables.look_up, delivery)
        if found is None or isinstance(found, Delivered | Rejected | Unavailable):
            return found
        return Unavailable(found.reason)  # asking again does no harm

    async def read_back(self, wanted: Sequence[Delivery]) -> Sequence[Kept | Rejected | None] | Unavailable:
        """The rows as they are, as far as the deliveries speak of them."""
        return _not_unknown(await self._asked(self._tables.read_back, wanted))

    async def list_ours(self, about: Mapping[str, Any], after: str) -> Page | Unavailable:
        """A page of the table's rows, in the order of their keys, with the event that wrote each last."""
        return _not_unknown(await self._asked(self._tables.list_ours, str(about.get("table", "")), after))

    async def _asked(self, ask: Callable[..., Answer], *arguments: Any) -> Answer | Unavailable:
        """Run something that changes nothing in the connector's thread."""
        if self._closed:
            return Unavailable("closed")
        try:
            work = self._executor.submit(ask, *arguments)
            return await asyncio.wait_for(asyncio.wrap_future(work), self._timeout_s)
        except TimeoutError:
            return Unavailable("timeout")

    async def close(self) -> None:
        """Close the database connection, after the batch in hand. Waits at most ``timeout_s``."""
        if self._closed:
            return
        self._closed = True
        disposed = self._executor.submit(self._tables.close)
        self._executor.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(disposed)], timeout=self._timeout_s)


def _not_unknown(found: Answer | Outcome) -> Answer | Unavailable:
    """A question that failed, as one that may be asked again: nothing was written."""
    if isinstance(found, Delivered | Skipped | RetryLater | Unknown | Rejected):
        return Unavailable(getattr(found, "reason", "not_understood"))
    return found


def open_engine(settings: SqlSettings) -> sa.Engine:
    """An engine with one connection and bounds on everything it waits for. Connects on first use."""
    url = settings.address
    timeout_ms = int(settings.timeout_s * 1000)
    arguments: dict[str, Any]
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": min(5.0, settings.timeout_s / 2)}
    else:
        arguments = {
            "connect_timeout": max(2, min(5, int(settings.timeout_s / 2))),
            "tcp_user_timeout": timeout_ms,
            "prepare_threshold": None,  # poolers in front of a database lose prepared statements
            "application_name": "event-backbone",
            "options": f"-c statement_timeout={timeout_ms * 3 // 4} -c lock_timeout={timeout_ms // 4} -c timezone=UTC",
        }
    engine = sa.create_engine(
        url,
        connect_args=arguments,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=dump_json,
    )
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def durable(connection: Any, _record: Any) -> None:
            # readers (a person, a report) do not lock us out, and a commit is on disk before we say Delivered
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

    return engine


class _Tables:
    """The blocking side: the tables as last seen, and the writing. Used by one thread at a time."""

    def __init__(self, engine: sa.Engine, schema: str | None) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._schema = schema
        self._known: dict[str, tuple[sa.Table, _Columns]] = {}
        self._statements: dict[tuple[str, tuple[str, ...]], Any] = {}

    def close(self) -> None:
        self._engine.dispose()

    def forget(self) -> None:
        self._known.clear()
        self._statements.clear()

    def check(self) -> Outcome:
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.select(1))
        except DBAPIError as error:
            return classify(error, committing=False, alone=True)
        except SQLAlchemyError:
            return Unavailable("unreachable")
        return Delivered()

    def look_up(self, delivery: Delivery) -> LookedUp | Outcome:
        try:
            name = _row(0, delivery).table
            with self._engine.connect() as connection:
                if not sa.inspect(connection).has_table(name, schema=self._schema):
                    return None
                table = self._reflected(connection, name)
                if not is_ours(table):
                    return Rejected("not_our_table", f"table {name} was there already, without our key")
                held = table.columns
                written = connection.execute(
                    sa.select(held[TOPIC], held[PARTITION], held[OFFSET]).where(held[KEY] == delivery.entity)
                ).one_or_none()
        except Unfit as unfit:
            return Rejected("invalid_body", str(unfit)[:1000])
        except DBAPIError as error:
            return classify(error, committing=False, alone=True)
        except SQLAlchemyError:
            return Unavailable("unreachable")
        topic, partition, offset = delivery.sequence
        is_there = written is not None and tuple(written[:2]) == (topic, partition) and written[2] >= offset
        return Delivered() if is_there else None

    def read_back(self, wanted: Sequence[Delivery]) -> list[Kept | Rejected | None] | Outcome:
        found: dict[int, Kept | Rejected | None] = {}
        tables: dict[str, list[_Row]] = {}
        for index, delivery in enumerate(wanted):
            try:
                row = _row(index, delivery)
            except Unfit as unfit:
                found[index] = Rejected("invalid_body", str(unfit)[:1000])
            else:
                tables.setdefault(row.table, []).append(row)
        try:
            with self._engine.connect() as connection:
                for name, rows in tables.items():
                    found |= self._kept(connection, name, rows)
        except DBAPIError as error:
            self.forget()
            return classify(error, committing=False, alone=True)
        except SQLAlchemyError:
            return Unavailable("unreachable")
        return [found[index] for index in range(len(wanted))]

    def _kept(self, connection: sa.Connection, name: str, rows: Sequence[_Row]) -> dict[int, Kept | Rejected | None]:
        if not sa.inspect(connection).has_table(name, schema=self._schema):
            return dict.fromkeys((row.index for row in rows), None)
        table = self._reflected(connection, name)
        if not is_ours(table):
            refused = Rejected("not_our_table", f"table {name} was there already, without our key")
            return dict.fromkeys((row.index for row in rows), refused)
        columns = {column.name.lower(): (column.name, column_kind(column.type)) for column in table.columns}
        needed = {name.lower() for row in rows for name in row.values} & columns.keys()
        names = [KEY, *sorted(columns[name][0] for name in needed)]
        # as the database holds them: a value that somebody wrote by hand may be none that the type can read
        bare = [sa.type_coerce(table.columns[one], sa.types.NullType()) if self._sqlite else table.columns[one]
                for one in names]  # fmt: skip
        keys = [row.delivery.entity for row in rows]
        held = {one[0]: dict(zip(names, one, strict=True))
                for one in connection.execute(sa.select(*bare).where(table.columns[KEY].in_(keys)))}  # fmt: skip
        answers: dict[int, Kept | Rejected | None] = {}
        for row in rows:
            there = held.get(row.delivery.entity)
            try:
                asked = self._bound(columns, row)
            except Unfit as unfit:
                answers[row.index] = Rejected("invalid_body", str(unfit)[:1000])
                continue
            answers[row.index] = None if there is None else self._compared(table, columns, row, asked, there)
        return answers

    def _compared(
        self, table: sa.Table, columns: _Columns, row: _Row, asked: Mapping[str, Any], there: Mapping[str, Any]
    ) -> Kept:
        wanted: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for name, value in row.values.items():
            own = columns.get(name.lower())
            if own is None:
                wanted[name], found[name] = kept_value(value), None
                continue
            raw, kind = there[own[0]], own[1]
            if self._sqlite:
                raw = _readable(raw, table.columns[own[0]].type, self._engine.dialect)
            wanted[name], found[name] = kept_value(asked[own[0]], kind), kept_value(raw, kind)
        return Kept(wanted, found)

    def list_ours(self, name: str, after: str) -> Page | Outcome:
        try:
            with self._engine.connect() as connection:
                if not NAME.match(name) or not sa.inspect(connection).has_table(name, schema=self._schema):
                    return Page([], None)
                table = self._reflected(connection, name)
                if not is_ours(table):
                    return Page([], None)
                held = table.columns
                query = sa.select(held[KEY], held[TOPIC], held[PARTITION], held[OFFSET])
                rows = connection.execute(query.where(held[KEY] > after).order_by(held[KEY]).limit(LIST_PAGE)).all()
        except DBAPIError as error:
            self.forget()
            return classify(error, committing=False, alone=True)
        except SQLAlchemyError:
            return Unavailable("unreachable")
        found = [Listed(key, str(origin), origin) for key, *place in rows for origin in (Origin(*place),)]
        return Page(found, found[-1].entity if len(found) == LIST_PAGE else None)

    def write(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """Write a batch in one transaction; an outcome for each."""
        settled: dict[int, Outcome] = {}
        rows = []
        for index, delivery in enumerate(batch):
            try:
                rows.append(_row(index, delivery))
            except Unfit as unfit:
                settled[index] = Rejected("invalid_body", str(unfit)[:1000])
        failed = None
        written: set[tuple[str, str]] = set()
        for tries_left in reversed(range(SCHEMA_TRIES)):
            committing = False
            try:
                with self._engine.connect() as connection:
                    for (table, _), (statement, parameters) in self._groups(connection, rows, settled).items():
                        written.update((table, key) for (key,) in connection.execute(statement, parameters))
                    committing = True
                    connection.commit()
                break
            except DBAPIError as error:
                written.clear()
                self.forget()
                if not committing and tries_left and schema_changed(error):
                    continue
                failed = classify(error, committing=committing, alone=len(rows) == 1)
            except (StatementError, UnicodeError, ValueError, OverflowError):
                # a value that the driver could not even bind
                failed = Rejected("refused", "unbindable", scope="delivery" if len(rows) == 1 else "call")
            except SQLAlchemyError:
                failed = Unavailable("unreachable")
            break
        for row in rows:
            if row.index not in settled:
                done = Delivered() if (row.table, row.delivery.entity) in written else Skipped("superseded")
                settled[row.index] = failed or done
        return [settled[index] for index in range(len(batch))]

    def delete(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """Delete the rows of a batch in one transaction; an outcome for each."""
        outcomes: list[Outcome] = []
        committing = False
        try:
            with self._engine.connect() as connection:
                for delivery in batch:
                    outcomes.append(self._deleted(connection, delivery))
                committing = True
                connection.commit()
        except DBAPIError as error:
            self.forget()
            return [classify(error, committing=committing, alone=len(batch) == 1)] * len(batch)
        except (StatementError, UnicodeError, ValueError, OverflowError):
            alone = len(batch) == 1
            return [Rejected("refused", "unbindable", scope="delivery" if alone else "call")] * len(batch)
        except SQLAlchemyError:
            return [Unavailable("unreachable")] * len(batch)
        return outcomes

    def _deleted(self, connection: sa.Connection, delivery: Delivery) -> Outcome:
        try:
            name = _check_row(delivery.body.get("table"), delivery)
            if len(delivery.body) != 1:
                raise Unfit("body: a delete names the table and nothing else")
        except Unfit as unfit:
            return Rejected("invalid_body", str(unfit)[:1000])
        gone = Delivered(note="was_not_there")
        if not sa.inspect(connection).has_table(name, schema=self._schema):
            return gone
        table = self._reflected(connection, name)
        if not is_ours(table):
            return Rejected("not_our_table", f"table {name} was there already, without our key")
        held, (topic, partition, offset) = table.columns, delivery.sequence
        older = sa.or_(held[TOPIC] != topic, held[PARTITION] != partition, held[OFFSET] <= offset)
        if connection.execute(sa.delete(table).where(held[KEY] == delivery.entity, older)).rowcount:
            return Delivered()
        is_there = connection.execute(sa.select(held[KEY]).where(held[KEY] == delivery.entity)).first() is not None
        return Skipped("superseded") if is_there else gone

    def _groups(
        self, connection: sa.Connection, rows: Sequence[_Row], settled: dict[int, Outcome]
    ) -> dict[tuple[str, tuple[str, ...]], tuple[Any, list[dict[str, Any]]]]:
        """Statements and their parameters, by table and columns; rows that do not fit are settled here."""
        tables = {name: self._prepare(connection, name, columns) for name, columns in _wanted(rows).items()}
        groups: dict[tuple[str, tuple[str, ...]], tuple[Any, list[dict[str, Any]]]] = {}
        now: datetime = datetime.now(UTC)
        if self._sqlite:
            now = now.replace(tzinfo=None)
        for row in rows:
            table, columns = tables[row.table]
            if not is_ours(table):
                settled[row.index] = Rejected("not_our_table", f"table {row.table} was there already, without our key")
                continue
            try:
                parameters = self._bound(columns, row)
            except Unfit as unfit:
                settled[row.index] = Rejected("invalid_body", str(unfit)[:1000])
                continue
            group = (row.table, tuple(parameters))
            origin = row.delivery.sequence
            parameters[KEY] = row.delivery.entity
            parameters[TOPIC], parameters[PARTITION], parameters[OFFSET] = origin
            parameters[WRITTEN] = now
            if group not in groups:
                groups[group] = (self._statement(table, group), [])
            groups[group][1].append(parameters)
        return groups

    def _bound(self, columns: _Columns, row: _Row) -> dict[str, Any]:
        parameters: dict[str, Any] = {}
        for name, value in row.values.items():
            own = columns.get(name.lower())
            if own is None:
                continue  # None, in a column that nobody has needed yet
            try:
                parameters[own[0]] = bound_value(value, own[1], sqlite=self._sqlite)
            except Unfit as unfit:
                raise Unfit(f"{name}: {unfit}") from None
        return parameters

    def _statement(self, table: sa.Table, group: tuple[str, tuple[str, ...]]) -> Any:
        statement = self._statements.get(group)
        if statement is None:
            insert: Any = (sqlite.insert if self._sqlite else postgresql.insert)(table)
            excluded, held = insert.excluded, table.columns
            changed = (*group[1], TOPIC, PARTITION, OFFSET, WRITTEN)
            # The guard: of one partition only the same or a later event writes; of another one we cannot tell.
            newer = sa.or_(
                held[TOPIC] != excluded[TOPIC],
                held[PARTITION] != excluded[PARTITION],
                held[OFFSET] <= excluded[OFFSET],
            )
            statement = insert.on_conflict_do_update(
                index_elements=[held[KEY]], set_={name: excluded[name] for name in changed}, where=newer
            ).returning(held[KEY])
            if len(self._statements) >= STATEMENTS_MAX:
                self._statements.clear()
            self._statements[group] = statement
        return statement

    def _prepare(self, connection: sa.Connection, name: str, columns: Mapping[str, Kind]) -> tuple[sa.Table, _Columns]:
        """Have the table and its columns, making what is missing in a transaction of its own."""
        known = self._known.get(name)
        if known is not None and all(column.lower() in known[1] for column in columns):
            return known
        for statement in self._ddl(connection, name, columns):
            connection.exec_driver_sql(statement)
        connection.commit()
        table = self._reflected(connection, name)
        found = table, {column.name.lower(): (column.name, column_kind(column.type)) for column in table.columns}
        self._statements = {group: one for group, one in self._statements.items() if group[0] != name}
        if is_ours(table):
            self._known[name] = found
        return found

    def _reflected(self, connection: sa.Connection, name: str) -> sa.Table:
        return sa.Table(name, sa.MetaData(schema=self._schema), autoload_with=connection)

    def _ddl(self, connection: sa.Connection, name: str, columns: Mapping[str, Kind]) -> list[str]:
        """What has to be run so that the table has the columns: nothing, CREATE TABLE, or ALTER TABLE ADD COLUMN."""
        if not sa.inspect(connection).has_table(name, schema=self._schema):
            made = new_table(sa.MetaData(schema=self._schema), name, columns, sqlite=self._sqlite)
            return [create_ddl(made, self._engine.dialect)]
        table = self._reflected(connection, name)
        if not is_ours(table):
            return []
        return list(add_column_ddl(table, missing_columns(table, columns), self._engine.dialect))

    def preview(self, batch: Sequence[Delivery]) -> list[str]:
        """The DDL that such a batch would run now; runs none of it."""
        wanted = _wanted([_row(index, delivery) for index, delivery in enumerate(batch)])
        with self._engine.connect() as connection:
            return [line for table, columns in wanted.items() for line in self._ddl(connection, table, columns)]


def _readable(raw: Any, column: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Any:
    """A value of SQLite as its column's type reads it; as it stands where it is none of that."""
    read = column.dialect_impl(dialect).result_processor(dialect, None)
    if read is None or raw is None:
        return raw
    try:
        return read(raw)
    except (ValueError, TypeError):
        return raw


def _wanted(rows: Sequence[_Row]) -> dict[str, dict[str, Kind]]:
    """The columns that the rows need, by table; where they disagree the first one's kind."""
    wanted: dict[str, dict[str, Kind]] = {}
    for row in rows:
        columns = wanted.setdefault(row.table, {})
        for name, kind in row.columns.items():
            columns.setdefault(name, kind)
    return wanted


def _row(index: int, delivery: Delivery) -> _Row:
    body = delivery.body
    table, values = body.get("table"), body.get("row")
    if delivery.action != "row.upsert":
        raise Unfit("action: a database knows row.upsert and row.delete only")
    if not isinstance(values, Mapping):
        raise Unfit("row: is not columns and values")
    return _Row(index, delivery, _check_row(table, delivery), values, columns_of(values))


def _check_row(table: object, delivery: Delivery) -> str:
    """The table's name, if it and the row's key can be one."""
    if not isinstance(table, str) or not NAME.match(table) or table.lower().startswith(("sqlite_", "pg_")):
        raise Unfit("table: is not letters, digits and _, at most 63, or begins with sqlite_ or pg_")
    if not delivery.entity or "\0" in delivery.entity:
        raise Unfit("entity: is empty or holds a NUL")
    return table


def preview_ddl(settings: SqlSettings, deliveries: Sequence[Delivery]) -> list[str]:
    """The DDL that delivering these would run first, one statement a line; nothing is changed. Blocks on the database.

    Raises UnreachableError when it cannot be asked, InputError when a row cannot be written at all."""
    from schemas.errors import InputError

    url = settings.address
    engine = open_engine(settings)
    if engine.dialect.name == "sqlite" and not Path(url.database or "").exists():
        engine = sa.create_engine("sqlite://")  # asking must not make the file
    try:
        return _Tables(engine, settings.database_schema).preview(deliveries)
    except Unfit as unfit:
        raise InputError(f"The row cannot be written: {unfit}.") from None
    except SQLAlchemyError as error:
        reason = type(getattr(error, "orig", None) or error).__name__
        raise UnreachableError(f"The database could not be asked for its tables ({reason}).") from None
    finally:
        engine.dispose()
