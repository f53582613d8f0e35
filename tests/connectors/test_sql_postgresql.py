"""The sql connector on a real PostgreSQL (skipped with the reason where none is installed)."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from connectors.connector import Connector, Delivered, Delivery, Rejected, RetryLater, Skipped, Unavailable
from connectors.sql import CONNECTOR
from connectors.sql.settings import SqlSettings
from tests.connectors.postgresql import PostgreSql, postgresql, programs
from tests.connectors.samples import ask, delivery

pytestmark = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed here")
psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")


LONG_KEY = random.Random(1).randbytes(20_000).hex()
"""Too long for an index, also when it is compressed."""


def row(entity: str, offset: int = 0, table: str = "users", **columns: Any) -> Delivery:
    return delivery("row.upsert", entity, {"table": table, "row": columns}, offset=offset)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSql]:
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as running:
        yield running


@pytest.fixture
def fresh(server: PostgreSql) -> PostgreSql:
    run(server, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return server


@pytest.fixture
async def connector(fresh: PostgreSql) -> AsyncIterator[Connector]:
    opened = CONNECTOR.open(settings(fresh))
    yield opened
    await opened.close()


def settings(server: PostgreSql, **more: Any) -> SqlSettings:
    return SqlSettings(**{"url": server.url, "timeout_s": 5, **more})


def run(server: PostgreSql, *statements: str) -> list[Any]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


async def test_every_kind_of_value_is_kept_in_a_column_of_its_type(connector: Connector, fresh: PostgreSql) -> None:
    moment = datetime(2026, 11, 20, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    values = {
        "whole": 1 << 62,
        "huge": 10**30,
        "exact": Decimal("12345678901234567890.10"),
        "floating": 1.5,
        "truth": True,
        "words": "ä%s",
        "at": moment,
        "day": date(2026, 11, 20),
        "raw": b"\x00\xff",
        "id": UUID(int=1),
        "nested": {"at": moment, "sum": Decimal("1.20"), "list": [1, None]},
        "order": "reserved word",
    }
    assert await ask(connector, row("u1", **values)) == [Delivered()]
    names = ", ".join(f'"{name}"' for name in values)
    (found,) = run(fresh, f"SELECT {names} FROM users")
    kept = dict(zip(values, found, strict=True))
    assert kept == values | {
        "huge": Decimal(10**30),
        "at": moment.astimezone(UTC),
        "id": str(UUID(int=1)),
        "nested": {"at": moment.isoformat(), "sum": "1.20", "list": [1, None]},
    }


async def test_the_guard_refuses_a_late_older_write(connector: Connector, fresh: PostgreSql) -> None:
    await ask(connector, row("u1", offset=7, name="new"))
    assert await ask(connector, row("u1", offset=6, name="old"), row("u2", offset=6, name="x")) == [
        Skipped("superseded"),
        Delivered(),
    ]
    assert run(fresh, "SELECT name FROM users ORDER BY 1") == [("new",), ("x",)]


async def test_columns_are_added_also_under_another_writers_hands(fresh: PostgreSql) -> None:
    writers = [CONNECTOR.open(settings(fresh)) for _ in range(3)]
    for number in range(5):
        outcomes = await asyncio.gather(
            *(ask(writer, row(f"u{index}", offset=number, **{f"c{number}": 1})) for index, writer in enumerate(writers))
        )
        assert outcomes == [[Delivered()]] * 3
    assert run(fresh, "SELECT count(*) FROM users") == [(3,)]
    for writer in writers:
        await writer.close()


@pytest.mark.parametrize(
    "bad", [row("u1", name="a\0b"), row("u1", name="\ud800"), row("u1", nested={"a": "\0"}), row(LONG_KEY, a=1)]
)
async def test_what_postgresql_refuses_refuses_the_call_and_alone_the_delivery(
    connector: Connector, bad: Delivery
) -> None:
    good = row("u2", name="ok")
    outcomes = await ask(connector, bad, good)
    assert {one.scope for one in outcomes if isinstance(one, Rejected)} == {"call"}
    (alone,) = await ask(connector, bad)
    assert isinstance(alone, Rejected)
    assert alone.scope == "delivery"
    assert LONG_KEY[:20] not in alone.detail
    assert await ask(connector, good) == [Delivered()]


async def test_an_index_of_the_users_names_itself_and_not_the_value(connector: Connector, fresh: PostgreSql) -> None:
    await ask(connector, row("u1", name="secret"))
    run(fresh, "CREATE UNIQUE INDEX one_name ON users(name)")
    assert await ask(connector, row("u2", name="secret")) == [Rejected("refused", "sqlstate=23505 constraint=one_name")]


async def test_a_locked_row_is_the_entitys_trouble(connector: Connector, fresh: PostgreSql) -> None:
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    connector = CONNECTOR.open(settings(fresh, timeout_s=4))
    with psycopg.connect(fresh.url) as other:
        other.execute("SELECT * FROM users FOR UPDATE")
        assert await ask(connector, row("u1", offset=1, name="b")) == [
            Unavailable("locked", timedelta(seconds=1), scope="entity")
        ]
    await connector.close()
    again = CONNECTOR.open(settings(fresh))
    assert await ask(again, row("u1", offset=1, name="b")) == [Delivered()]
    await again.close()


async def test_a_statement_that_takes_too_long_is_tried_again(connector: Connector, fresh: PostgreSql) -> None:
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    connector = CONNECTOR.open(settings(fresh, timeout_s=4))
    run(
        fresh,
        "CREATE FUNCTION slow() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(20); RETURN NEW; END' LANGUAGE plpgsql",
        "CREATE TRIGGER slow BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    assert await ask(connector, row("u1", offset=1, name="b")) == [RetryLater("timeout")]
    await connector.close()


async def test_missing_rights_and_a_wrong_password_need_an_operator(fresh: PostgreSql) -> None:
    run(fresh, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'canary-reader'")
    needs = [Unavailable("forbidden", needs_operator=True)]
    for url in (
        fresh.url.replace("postgres:canary-password", "reader:canary-reader"),
        fresh.url.replace("canary-password", "canary-wrong"),
        fresh.url.replace("/postgres", "/nowhere").replace("//nowhere", "//postgres"),
    ):
        connector = CONNECTOR.open(SqlSettings(url=url, timeout_s=5))  # type: ignore[arg-type]
        assert await ask(connector, row("u1", name="a")) == needs
        await connector.close()
    connector = CONNECTOR.open(settings(fresh, database_schema="nowhere"))
    assert await ask(connector, row("u1", name="a")) == needs
    await connector.close()


async def test_tables_go_into_the_schema_of_the_settings(fresh: PostgreSql) -> None:
    run(fresh, "CREATE SCHEMA IF NOT EXISTS business")
    connector = CONNECTOR.open(settings(fresh, database_schema="business"))
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    assert await ask(connector, row("u1", offset=1, city="b")) == [Delivered()]
    assert run(fresh, "SELECT name, city FROM business.users") == [("a", "b")]
    run(fresh, "DROP SCHEMA business CASCADE")
    await connector.close()


async def test_a_server_that_is_away_is_unavailable_and_delivered_to_when_it_is_back(
    connector: Connector, fresh: PostgreSql
) -> None:
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    fresh.stop()
    assert await ask(connector, row("u1", offset=1, name="b")) == [Unavailable("unreachable")]
    fresh.start()
    assert await ask(connector, row("u1", offset=1, name="b")) == [Delivered()]


async def test_the_preview_shows_postgresqls_types(fresh: PostgreSql) -> None:
    assert CONNECTOR.preview is not None
    lines = CONNECTOR.preview(settings(fresh), [row("u1", at=datetime(2026, 1, 1), total=Decimal(1), lines=[1])])
    assert "at TIMESTAMP WITH TIME ZONE, total NUMERIC, lines JSONB" in lines[0]
    assert run(fresh, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


async def test_rows_read_back_as_they_were_asked_and_what_somebody_changed_is_found(
    connector: Any, fresh: PostgreSql
) -> None:
    whole = row(
        "u1", whole=1 << 62, huge=10**30, exact=Decimal("12.10"), floating=1.5, truth=True, text="ä",
        at=datetime(2026, 11, 20, 14, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=2))), day=date(2026, 11, 20),
        raw=b"\x00\xff", id=UUID(int=1), nested={"sum": Decimal("1.20"), "list": [1, None]}, nothing=None,
    )  # fmt: skip
    assert await ask(connector, whole) == [Delivered()]
    (kept,) = await connector.read_back([whole])
    assert kept.asked == kept.found
    run(fresh, "UPDATE users SET text = 'by hand', exact = 12.100, nested = '[]'")
    changed, gone = await connector.read_back([whole, row("u2", text="b")])
    assert {name for name in changed.asked if changed.asked[name] != changed.found[name]} == {"text", "nested"}
    assert gone is None
    page = await connector.list_ours({"table": "users"}, "")
    assert ([one.entity for one in page.found], page.after) == (["u1"], None)
