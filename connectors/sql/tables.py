"""Tables as rows need them: which type a value asks for, what a column takes, and the DDL between the two.

A column's type is decided by its first value and never changed. What a later value may do:

=============================  =======================  ========================  ==================================
value                          column made              in SQLite                 fits also into
=============================  =======================  ========================  ==================================
int (64 bits)                  BIGINT                   BIGINT                    DOUBLE (to 2^53), NUMERIC
int beyond, Decimal            NUMERIC                  TEXT (exact digits)       –
float                          DOUBLE PRECISION         DOUBLE                    –
bool                           BOOLEAN                  BOOLEAN                   –
str, UUID, time of day         TEXT                     TEXT                      –
datetime                       TIMESTAMP WITH TIME ZONE TIMESTAMP (UTC)           –
date                           DATE                     DATE                      –
bytes                          BYTEA                    BLOB                      –
list, mapping                  JSONB                    JSON                      –
anything above                 –                        –                         JSON
None                           no column                no column                 every column
=============================  =======================  ========================  ==================================

Everything else is refused with the column's name: a number that becomes text in the middle of a table is a fault to
look at, not to store.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from connectors.sql.actions import NAME_PATTERN, RESERVED

Kind: TypeAlias = Literal["integer", "numeric", "float", "boolean", "text", "timestamp", "date", "binary", "json"]

KEY = "backbone_key"
TOPIC = "backbone_topic"
PARTITION = "backbone_partition"
OFFSET = "backbone_offset"
WRITTEN = "backbone_written_at"
"""Our columns: the entity, where its newest event stands in the log, and when the row was written."""

NAME = re.compile(NAME_PATTERN)
COLUMNS_MAX = 1000
INTEGER_MAX = 1 << 63
EXACT_FLOAT_MAX = 1 << 53


class Unfit(Exception):
    """A row that cannot be written as it is; the message names the column and never a value."""


def kind_of(value: object) -> Kind | None:
    """The kind of column a value asks for; None for None. Raises Unfit for what no column holds."""
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case str() | UUID() | time():
            return "text"
        case int():
            return "integer" if -INTEGER_MAX <= value < INTEGER_MAX else "numeric"
        case float():
            return "float"
        case Decimal():
            return "numeric"
        case datetime():
            return "timestamp"
        case date():
            return "date"
        case bytes() | bytearray() | memoryview():
            return "binary"
        case Mapping() | list() | tuple():
            return "json"
        case _:
            raise Unfit(f"is a {type(value).__name__}, which no column holds")


def column_type(kind: Kind, *, sqlite: bool) -> sa.types.TypeEngine[Any]:
    """The type of a column made for a kind of value."""
    match kind:
        case "integer":
            return sa.BigInteger()
        case "numeric":
            # SQLite has no exact decimals: with any other type it would make a binary float of them
            return sa.Text() if sqlite else sa.Numeric()
        case "float":
            return sa.Double()
        case "boolean":
            return sa.Boolean()
        case "text":
            return sa.Text()
        case "timestamp":
            return sa.TIMESTAMP(timezone=True)
        case "date":
            return sa.Date()
        case "binary":
            return sa.LargeBinary()
        case "json":
            return sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def column_kind(column: sa.types.TypeEngine[Any]) -> Kind | None:
    """The kind of values a column that exists takes; None for a type we never make."""
    match column:
        case sa.Boolean():
            return "boolean"
        case sa.Integer():
            return "integer"
        case sa.Float():
            return "float"
        case sa.Numeric():
            return "numeric"
        case sa.DateTime():
            return "timestamp"
        case sa.Date():
            return "date"
        case sa.JSON():
            return "json"
        case sa.LargeBinary():
            return "binary"
        case sa.String():
            return "text"
        case _:
            return None


def bound_value(value: object, column: Kind | None, *, sqlite: bool) -> object:
    """A value as it is bound to a column of that kind. Raises Unfit when it does not fit."""
    kind = kind_of(value)
    if kind is None:
        return None
    if column == "json":
        return _checked_json(value)
    if kind == "numeric" and column == ("text" if sqlite else "numeric"):
        number = Decimal(value) if isinstance(value, int) else value
        assert isinstance(number, Decimal)
        if not number.is_finite() or abs(number.adjusted()) > 1000:
            raise Unfit("is not a number that a column holds")
        return format(number, "f") if sqlite else number
    if kind == "integer" and column in ("float", "numeric"):
        assert isinstance(value, int)
        if column == "float" and abs(value) > EXACT_FLOAT_MAX:
            raise Unfit("is a whole number too large for its column of floating numbers")
        return float(value) if column == "float" else Decimal(value)
    if kind != column:
        raise Unfit(f"is {kind}, its column is {column or 'of a type of its own'}")
    match value:
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return moment.replace(tzinfo=None) if sqlite else moment
        case UUID() | time():
            return str(value)
        case bytearray() | memoryview():
            return bytes(value)
        case float():
            if sqlite and not math.isfinite(value):
                raise Unfit("is not a finite number")
            return value
        case _:
            return value


def kept_value(value: object, column: Kind | None = None) -> object:
    """A value that is bound to a column of that kind, or was read from one, as a plain JSON value: the same one
    wherever the database has the same. What is no value of the column's kind stands as it is."""
    if value is None:
        return None
    if column == "json":
        try:
            return json.loads(dump_json(value))
        except (TypeError, ValueError, RecursionError):
            return str(value)
    match value:
        case bool() | int() if column == "boolean":
            return bool(value)
        case bool() | str() if column != "numeric":
            return value
        case int() | float() | Decimal() | str() if column in ("numeric", "float", "integer"):
            return _number(value)
        case int() | str():
            return value
        case float() | Decimal():
            return _number(value)
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return moment.isoformat()
        case date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Mapping() | list() | tuple():
            return json.loads(dump_json(value))
        case _:
            return str(value)


def _number(value: float | Decimal | str) -> object:
    """5, 5.0 and 5.00 are one number; text that is none stands as it is."""
    try:
        number = Decimal(value)
    except (ArithmeticError, ValueError):
        return value
    if not number.is_finite() or abs(number.adjusted()) > 1000:
        return str(value)
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _checked_json(value: object) -> object:
    try:
        dump_json(value)
    except (TypeError, ValueError, RecursionError):
        raise Unfit("holds what JSON cannot say") from None
    return value


def dump_json(value: object) -> str:
    """JSON text; times, decimals and ids inside become text. Raises TypeError or ValueError for anything else."""
    return json.dumps(value, allow_nan=False, default=_as_json)


def _as_json(value: object) -> object:
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() if value.is_finite() and abs(value.adjusted()) <= 1000:
            return format(value, "f")
        case UUID():
            return str(value)
        case Mapping():
            return dict(value)
        case _:
            raise TypeError


def columns_of(row: Mapping[Any, object]) -> dict[str, Kind]:
    """The columns a row asks for, without those that are None. Raises Unfit naming the column at fault."""
    if len(row) > COLUMNS_MAX:
        raise Unfit(f"row: has more than {COLUMNS_MAX} columns")
    asked: dict[str, Kind] = {}
    folded = set()
    for name, value in row.items():
        if not isinstance(name, str) or not NAME.match(name):
            raise Unfit("row: a column's name is not letters, digits and _, at most 63")
        if name.lower().startswith(RESERVED):
            raise Unfit(f"{name}: names that begin with {RESERVED} are ours")
        if name.lower() in folded:
            raise Unfit(f"{name}: stands twice but for upper and lower case")
        folded.add(name.lower())
        try:
            kind = kind_of(value)
        except Unfit as unfit:
            raise Unfit(f"{name}: {unfit}") from None
        if kind is not None:
            asked[name] = kind
    return asked


def new_table(metadata: sa.MetaData, name: str, columns: Mapping[str, Kind], *, sqlite: bool) -> sa.Table:
    """The table as it is made for a first row."""
    return sa.Table(
        name,
        metadata,
        sa.Column(KEY, sa.Text(), primary_key=True),
        *(sa.Column(column, column_type(kind, sqlite=sqlite)) for column, kind in columns.items()),
        sa.Column(TOPIC, sa.Text(), nullable=False),
        sa.Column(PARTITION, sa.Integer(), nullable=False),
        sa.Column(OFFSET, sa.BigInteger(), nullable=False),
        sa.Column(WRITTEN, sa.TIMESTAMP(timezone=True), nullable=False),
    )


def is_ours(table: sa.Table) -> bool:
    """Whether an existing table has our key and guard columns, so that rows can be written safely."""
    return {KEY, TOPIC, PARTITION, OFFSET, WRITTEN} <= set(_names(table)) and [
        column.name for column in table.primary_key
    ] == [KEY]


def missing_columns(table: sa.Table, asked: Mapping[str, Kind]) -> dict[str, Kind]:
    """The columns that a table lacks. Names are compared without regard to case, as SQLite does."""
    present = {name.lower() for name in _names(table)}
    return {name: kind for name, kind in asked.items() if name.lower() not in present}


def create_ddl(table: sa.Table, dialect: sa.Dialect) -> str:
    return " ".join(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).split())


def add_column_ddl(table: sa.Table, columns: Mapping[str, Kind], dialect: sa.Dialect) -> Iterable[str]:
    """One ALTER TABLE per column; additions only."""
    sqlite = dialect.name == "sqlite"
    preparer = dialect.identifier_preparer
    for name, kind in columns.items():
        typed = dialect.type_compiler_instance.process(column_type(kind, sqlite=sqlite).dialect_impl(dialect))
        yield f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {preparer.quote(name)} {typed}"


def _names(table: sa.Table) -> list[str]:
    return [column.name for column in table.columns]
