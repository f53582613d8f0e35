from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.connector import (
    Connector,
    Delivered,
    Delivery,
    Kept,
    Listed,
    Outcome,
    Page,
    Rejected,
    Skipped,
    Unavailable,
    Unknown,
)
from connectors.sql import CONNECTOR
from connectors.sql.actions import RowUpsert
from connectors.sql.settings import SqlSettings
from connectors.sql.tables import Unfit, columns_of, kind_of
from schemas.errors import InputError, UnreachableError
from schemas.event import Origin
from tests.connectors.samples import ask, delivery


def row(entity: str, offset: int = 0, table: str = "users", partition: int = 0, **columns: Any) -> Delivery:
    return delivery("row.upsert", entity, {"table": table, "row": columns}, offset=offset, partition=partition)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.sqlite"


@pytest.fixture
async def connector(database: Path) -> AsyncIterator[Connector]:
    opened = CONNECTOR.open(settings(database))
    yield opened
    await opened.close()


def settings(database: Path, **more: Any) -> SqlSettings:
    return SqlSettings(url=f"sqlite:///{database}", **more)  # type: ignore[arg-type]


def rows(database: Path, table: str = "users") -> list[dict[str, Any]]:
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        return [
            {name: one[name] for name in one.keys() if name != "backbone_written_at"}  # noqa: SIM118
            for one in connection.execute(f"SELECT * FROM {table} ORDER BY backbone_key")
        ]


async def test_a_row_is_made_then_updated_and_left_out_columns_stay(connector: Connector, database: Path) -> None:
    assert await ask(connector, row("u1", name="Ana", plan="free")) == [Delivered()]
    assert await ask(connector, row("u1", offset=5, plan="pro")) == [Delivered()]
    (one,) = rows(database)
    assert one == {
        "backbone_key": "u1",
        "name": "Ana",
        "plan": "pro",
        "backbone_topic": "accounts.users",
        "backbone_partition": 0,
        "backbone_offset": 5,
    }


async def test_a_null_clears(connector: Connector, database: Path) -> None:
    await ask(connector, row("u1", name="Ana"))
    await ask(connector, row("u1", offset=1, name=None))
    assert rows(database)[0]["name"] is None


async def test_the_same_event_again_is_the_same_row(connector: Connector, database: Path) -> None:
    for _ in range(2):
        assert await ask(connector, row("u1", offset=3, name="Ana")) == [Delivered()]
    assert len(rows(database)) == 1


async def test_a_late_older_write_does_not_overwrite_and_says_so(connector: Connector, database: Path) -> None:
    await ask(connector, row("u1", offset=7, name="new"))
    assert await ask(connector, row("u1", offset=6, name="old"), row("u2", offset=6)) == [
        Skipped("superseded"),
        Delivered(),
    ]
    assert rows(database)[0]["name"] == "new"
    # of another partition nobody can say which is newer
    assert await ask(connector, row("u1", offset=1, partition=1, name="other")) == [Delivered()]


async def test_every_kind_of_value_is_kept(connector: Connector, database: Path) -> None:
    moment = datetime(2026, 11, 20, 14, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=2)))
    values = {
        "whole": 1 << 62,
        "huge": 10**30,
        "exact": Decimal("12345678901234567890.10"),
        "floating": 1.5,
        "truth": True,
        "text": "ä\u2028'\"; DROP TABLE users",
        "at": moment,
        "naive": moment.replace(tzinfo=None),
        "day": date(2026, 11, 20),
        "clock": time(12, 30),
        "raw": b"\x00\xff",
        "id": UUID(int=1),
        "nested": {"at": moment, "sum": Decimal("1.20"), "list": [1, None, {"a": "b"}]},
        "items": (1, 2),
        "nothing": None,
    }
    assert await ask(connector, row("u1", **values)) == [Delivered()]
    (one,) = rows(database)
    assert one["whole"] == 1 << 62
    assert one["huge"] == str(10**30)
    assert one["exact"] == "12345678901234567890.10"
    assert (one["floating"], one["truth"], one["text"]) == (1.5, 1, values["text"])
    assert one["at"] == "2026-11-20 12:30:01.250000"
    assert one["naive"] == "2026-11-20 14:30:01.250000"
    assert (one["day"], one["clock"], one["raw"]) == ("2026-11-20", "12:30:00", b"\x00\xff")
    assert one["id"] == str(UUID(int=1))
    assert json.loads(one["nested"]) == {"at": moment.isoformat(), "sum": "1.20", "list": [1, None, {"a": "b"}]}
    assert json.loads(one["items"]) == [1, 2]
    assert "nothing" not in one


async def test_tables_and_columns_are_made_when_they_are_needed_and_never_narrowed(
    connector: Connector, database: Path
) -> None:
    await ask(connector, row("u1", name="Ana"), row("i1", table="invoices", total=1))
    await ask(connector, row("u2", offset=1, plan="pro", since=date(2026, 1, 1)), row("u3", name="Bob"))
    assert [one["plan"] for one in rows(database)] == [None, "pro", None]
    with sqlite3.connect(database) as connection:
        types = {name: kind for _, name, kind, *_ in connection.execute("PRAGMA table_info(users)")}
    assert (types["name"], types["plan"], types["since"]) == ("TEXT", "TEXT", "DATE")


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        (1, 2, True),
        (1, "two", False),
        (1, 1.5, False),
        (1, True, False),
        (1, None, True),
        (1.5, 2, True),
        (1.5, (1 << 53) + 1, False),
        ("a", 1, False),
        ("a", UUID(int=1), True),
        (True, 1, False),
        (datetime(2026, 1, 1), date(2026, 1, 1), False),
        (datetime(2026, 1, 1), "2026-01-01", False),
        ([1], "text", True),
        ([1], datetime(2026, 1, 1), True),
        ("a", [1], False),
        (b"a", "a", False),
    ],
)
async def test_a_value_of_another_type_than_its_column_is_rejected_alone_with_its_column_named(
    connector: Connector, first: object, second: object, fits: bool
) -> None:
    await ask(connector, row("u1", thing=first))
    outcome, other = await ask(connector, row("u2", thing=second), row("u3", thing=first))
    assert other == Delivered()
    if fits:
        assert outcome == Delivered()
    else:
        assert isinstance(outcome, Rejected)
        assert (outcome.reason, outcome.scope) == ("invalid_body", "delivery")
        assert outcome.detail.startswith("thing: ")


@pytest.mark.parametrize(
    "wrong",
    [
        row("u1", table="users; DROP TABLE users", a=1),
        row("u1", table="sqlite_master", a=1),
        row("u1", table="x" * 64, a=1),
        row("u1", **{'secret"': 1}),
        row("u1", **{"x" * 64: 1}),
        row("u1", backbone_key="secret"),
        row("u1", name="secret", NAME="secret"),
        row("u1", thing=object()),
        row("u1", thing=float("nan")),
        row("u1", thing=Decimal("NaN")),
        row("u1", thing={"secret": float("inf")}),
        row("u1", thing={"secret": b"bytes"}),
        row("", thing=1),
        row("u\0", thing=1),
        row("u1", **{f"c{number}": 1 for number in range(1001)}),
        delivery("row.upsert", "u1", {"table": "users"}),
        delivery("row.upsert", "u1", {"table": "users", "row": "secret"}),
        delivery("row.patch", "u1", {"table": "users", "row": {}}),
    ],
)
async def test_a_row_that_cannot_be_written_is_rejected_alone_and_without_its_values(
    connector: Connector, database: Path, wrong: Delivery
) -> None:
    first, second = await ask(connector, wrong, row("good", other=1))
    assert isinstance(first, Rejected)
    assert first.scope == "delivery"
    assert "secret" not in first.detail.replace('secret"', "")
    assert second == Delivered()
    assert [one["backbone_key"] for one in rows(database)] == ["good"]


async def test_text_that_the_driver_cannot_bind_refuses_the_call_and_alone_the_delivery(connector: Connector) -> None:
    bad, good = row("u1", name="\ud800"), row("u2", name="ok")
    outcomes = await ask(connector, bad, good)
    assert {type(one) for one in outcomes} == {Rejected}
    assert {one.scope for one in outcomes if isinstance(one, Rejected)} == {"call"}
    (alone,) = await ask(connector, bad)
    assert isinstance(alone, Rejected)
    assert alone.scope == "delivery"
    assert await ask(connector, good) == [Delivered()]


async def test_a_constraint_of_the_database_refuses_the_call_until_the_runtime_has_found_the_row(
    connector: Connector, database: Path
) -> None:
    await ask(connector, row("u1", name="a"))
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE UNIQUE INDEX one_name ON users(name)")
    both = await ask(connector, row("u2", name="a"), row("u3", name="b"))
    assert both == [Rejected("refused", "SQLITE_CONSTRAINT_UNIQUE", scope="call")] * 2
    assert await ask(connector, row("u2", name="a")) == [Rejected("refused", "SQLITE_CONSTRAINT_UNIQUE")]
    assert await ask(connector, row("u3", name="b")) == [Delivered()]


async def test_a_table_that_is_not_ours_is_left_alone_until_somebody_moves_it(
    connector: Connector, database: Path
) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT)")
    outcome, other = await ask(connector, row("u1", name="a", plan="x"), row("i1", table="invoices", total=1))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "not_our_table"
    assert other == Delivered()
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE users RENAME TO old_users")
    assert await ask(connector, row("u1", name="a")) == [Delivered()]


async def test_a_table_dropped_or_changed_by_somebody_else_is_read_again(connector: Connector, database: Path) -> None:
    await ask(connector, row("u1", name="a"))
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE users")
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    assert len(rows(database)) == 1


async def test_two_writers_may_make_the_same_table_and_columns(database: Path) -> None:
    writers = [CONNECTOR.open(settings(database)) for _ in range(3)]
    for number in range(5):
        outcomes = await asyncio.gather(
            *(ask(writer, row(f"u{index}", offset=number, **{f"c{number}": 1})) for index, writer in enumerate(writers))
        )
        assert {type(one) for (one,) in outcomes} <= {Delivered, Unavailable}
    for writer in writers:
        await writer.close()


async def test_a_locked_database_is_unavailable_and_nothing_is_lost(database: Path) -> None:
    connector = CONNECTOR.open(settings(database, timeout_s=0.4))
    assert await ask(connector, row("u1", name="a")) == [Delivered()]
    with sqlite3.connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await ask(connector, row("u2", name="a")) == [Unavailable("locked", timedelta(seconds=1), limited=True)]
    assert await ask(connector, row("u2", name="a")) == [Delivered()]
    await connector.close()


async def test_a_batch_that_never_started_is_unavailable_and_one_that_did_is_unknown(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = CONNECTOR.open(settings(database, timeout_s=0.2))
    held = threading.Event()
    tables = connector._tables  # type: ignore[attr-defined]
    write = tables.write
    monkeypatch.setattr(tables, "write", lambda batch: (held.wait(10), write(batch))[1])
    first = asyncio.ensure_future(ask(connector, row("u1", name="a")))
    await asyncio.sleep(0)
    assert await ask(connector, row("u2", name="a")) == [Unavailable("busy", limited=True)]
    assert await first == [Unknown("timeout")]
    held.set()
    await connector.close()


@pytest.mark.parametrize("make", ["no folder", "not a database", "a folder"])
async def test_a_file_that_cannot_be_a_database_needs_an_operator(tmp_path: Path, make: str) -> None:
    file = tmp_path / "missing" / "x.sqlite" if make == "no folder" else tmp_path / "x.sqlite"
    if make == "not a database":
        file.write_bytes(b"this is no database, it is a text that is long enough to be looked at" * 100)
    if make == "a folder":
        file.mkdir()
    connector = CONNECTOR.open(settings(file))
    assert await ask(connector, row("u1", name="a")) == [Unavailable("forbidden", needs_operator=True)]
    await connector.close()


async def test_after_close_nothing_is_sent(database: Path) -> None:
    connector = CONNECTOR.open(settings(database))
    await connector.close()
    await connector.close()
    assert await ask(connector, row("u1")) == [Unavailable("closed")]


async def test_a_thousand_rows_of_many_shapes_are_one_batch(connector: Connector, database: Path) -> None:
    batch = [row(f"u{number:04}", number, **{f"c{number % 7}": number}) for number in range(1000)]
    assert set(await ask(connector, *batch)) == {Delivered()}
    assert len(rows(database)) == 1000


def test_the_preview_shows_the_ddl_and_does_none_of_it(database: Path) -> None:
    lines = CONNECTOR.preview(settings(database), [row("u1", name="a"), row("u2", city="b")])  # type: ignore[misc]
    assert len(lines) == 1
    assert lines[0].startswith("CREATE TABLE IF NOT EXISTS users ( backbone_key TEXT NOT NULL, name TEXT, city TEXT, ")
    assert not database.exists()


async def test_the_preview_shows_columns_to_be_added_and_nothing_when_all_is_there(
    connector: Connector, database: Path
) -> None:
    await ask(connector, row("u1", name="a"))
    preview = CONNECTOR.preview
    assert preview is not None
    assert preview(settings(database), [row("u1", name="b")]) == []
    assert preview(settings(database), [row("u1", order=[1])]) == ['ALTER TABLE users ADD COLUMN "order" JSON']
    with pytest.raises(InputError, match="table"):
        preview(settings(database), [row("u1", table="a b")])


def test_the_preview_of_a_database_that_cannot_be_asked_says_so(tmp_path: Path) -> None:
    assert CONNECTOR.preview is not None
    with pytest.raises(UnreachableError, match="could not be asked"):
        CONNECTOR.preview(settings(tmp_path), [row("u1", a=1)])


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("canary", "is no database URL"),
        ("postgresql://u:canary@host:notaport/x", "is no database URL"),
        ("mysql://u:canary@host/x", "must begin with"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_wrong_urls_are_named_and_never_shown(url: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint) as caught:
        SqlSettings(url=url)  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)


def test_plain_postgresql_urls_use_the_locked_driver() -> None:
    for url in ("postgresql://u:p@h/d", "postgres://u:p@h/d"):
        found = SqlSettings(url=url).url.get_secret_value()  # type: ignore[arg-type]
        assert found == "postgresql+psycopg://u:p@h/d"


async def test_the_fake_is_a_file_in_the_folder_given(tmp_path: Path) -> None:
    connector = CONNECTOR.open(SqlSettings(**CONNECTOR.fake_settings("", tmp_path / "fakes")))
    assert await ask(connector, row("u1", a=1)) == [Delivered()]
    assert (tmp_path / "fakes" / "sql.sqlite").exists()
    await connector.close()


@hypothesis_settings(deadline=None)  # it writes to a disk that others use as well
@given(st.dictionaries(st.text(max_size=5), st.none() | st.text() | st.integers() | st.floats() | st.binary()))
def test_any_row_has_columns_or_a_sentence(values: dict[str, Any]) -> None:
    try:
        columns = columns_of(values)
    except Unfit:
        return
    assert set(columns) <= set(values)


@hypothesis_settings(deadline=None)  # it writes to a disk that others use as well
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.decimals()
        | st.datetimes()
        | st.times(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_has_a_kind(value: object) -> None:
    assert (kind_of(value) is None) == (value is None)


def test_every_field_of_the_body_says_what_it_is() -> None:
    schema = RowUpsert.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    for example in schema["examples"]:
        RowUpsert.model_validate(example)


def _types() -> tuple[type[Outcome], ...]:
    return (Delivered, Skipped, Rejected, Unavailable, Unknown)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(deadline=None)  # it writes to a disk that others use as well
@given(st.dictionaries(st.sampled_from(["a", "b", "A", "c d", "select"]), json_like, max_size=4))
def test_whatever_the_row_each_delivery_gets_one_outcome(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    database = tmp_path_factory.getbasetemp() / "any.sqlite"

    async def deliver() -> list[Outcome]:
        connector = CONNECTOR.open(settings(database))
        try:
            return await ask(connector, row("u1", **values), row("u2", other="x"))
        finally:
            await connector.close()

    assert all(isinstance(outcome, _types()) for outcome in asyncio.run(deliver()))


# -- checking and looking up ----------------------------------------------------------------------------------------


async def test_a_row_is_there_when_this_event_or_a_later_one_of_its_partition_wrote_it(connector: Any) -> None:
    assert await connector.look_up(row("u1", offset=5, name="a")) is None, "no table yet"
    await ask(connector, row("u1", offset=5, name="a"))
    assert await connector.look_up(row("u1", offset=5, name="a")) == Delivered()
    assert await connector.look_up(row("u1", offset=4, name="a")) == Delivered()
    assert await connector.look_up(row("u1", offset=6, name="a")) is None
    assert await connector.look_up(row("u1", offset=5, partition=1, name="a")) is None, "of another we cannot tell"
    assert await connector.look_up(row("u2", offset=5, name="a")) is None
    assert isinstance(await connector.look_up(row("", name="a")), Rejected)


async def test_a_database_that_cannot_be_asked_is_not_a_row_that_is_missing(database: Path) -> None:
    database.write_bytes(b"this is no database, and long enough to be seen as one" * 20)
    connector: Any = CONNECTOR.open(settings(database))
    assert await connector.check() == Unavailable("forbidden", needs_operator=True)
    assert await connector.look_up(row("u1", name="a")) == Unavailable("forbidden", needs_operator=True)
    await connector.close()


def remove(entity: str, offset: int = 0, table: Any = "users", **body: Any) -> Delivery:
    return delivery("row.delete", entity, {"table": table, **body}, offset=offset)


async def test_a_row_is_deleted_and_one_that_is_not_there_counts_as_deleted(
    connector: Connector, database: Path
) -> None:
    gone = Delivered(note="was_not_there")
    assert await ask(connector, remove("u1")) == [gone]  # not even the table is there
    await ask(connector, row("u1", name="Ana"), row("u2", name="Bob"))
    assert await ask(connector, remove("u1", offset=1), remove("u9")) == [Delivered(), gone]
    assert [one["backbone_key"] for one in rows(database)] == ["u2"]


async def test_an_older_delete_leaves_a_row_that_a_later_event_wrote(connector: Connector, database: Path) -> None:
    await ask(connector, row("u1", offset=5, name="Ana"))
    assert await ask(connector, remove("u1", offset=4)) == [Skipped("superseded")]
    elsewhere = replace(remove("u1"), sequence=Origin("crm.inbox", 0, 0))
    assert await ask(connector, elsewhere) == [Delivered()]
    assert rows(database) == []


@pytest.mark.parametrize("wrong", [remove("u1", table="a;b"), remove(""), remove("u1", table=None), remove("u1", x=1)])
async def test_a_delete_that_cannot_be_is_rejected_alone(connector: Connector, wrong: Delivery) -> None:
    await ask(connector, row("u2", name="Bob"))
    first, second = await ask(connector, wrong, remove("u2"))
    assert isinstance(first, Rejected)
    assert second == Delivered()


async def test_rows_of_a_table_that_is_not_ours_are_not_deleted(connector: Connector, database: Path) -> None:
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE users (id TEXT)")
    (outcome,) = await ask(connector, remove("u1"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "not_our_table"


def test_user_and_password_may_stand_beside_the_address_and_are_never_shown() -> None:
    url = "postgresql://old:older@db:5432/app"
    found = SqlSettings.model_validate({"url": url, "username": "leased", "password": "hunter2/@"})
    assert (found.address.username, found.address.password, found.address.host) == ("leased", "hunter2/@", "db")
    assert "hunter2" not in repr(found)
    assert SqlSettings.model_validate({"url": url}).address.password == "older"


# -- reading back ---------------------------------------------------------------------------------------------------

EVERY_KIND = {
    "whole": 1 << 62, "huge": 10**30, "exact": Decimal("12345678901234567890.10"), "floating": 1.5, "truth": True,
    "text": "ä", "at": datetime(2026, 11, 20, 14, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=2))),
    "naive": datetime(2026, 11, 20, 14, 30), "day": date(2026, 11, 20), "clock": time(12, 30), "raw": b"\x00\xff",
    "id": UUID(int=1), "nested": {"sum": Decimal("1.20"), "list": [1, None, {"a": "b"}]}, "items": (1, 2),
    "nothing": None,
}  # fmt: skip


async def read(connector: Any, *wanted: Delivery) -> list[Kept | Rejected | None]:
    found = await connector.read_back(wanted)
    assert not isinstance(found, Unavailable), found
    assert len(found) == len(wanted)
    return list(found)


async def test_what_was_written_reads_back_as_it_was_asked(connector: Connector) -> None:
    whole = row("u1", **EVERY_KIND)
    assert await ask(connector, whole) == [Delivered()]
    (kept,) = await read(connector, whole)
    assert isinstance(kept, Kept)
    assert kept.asked == kept.found
    assert set(kept.asked) == set(EVERY_KIND)
    json.dumps([kept.asked, kept.found])  # plain JSON values


async def test_numbers_that_are_one_number_are_not_different(connector: Connector) -> None:
    await ask(connector, row("u1", floating=2.0))
    (kept,) = await read(connector, row("u1", floating=2))
    assert isinstance(kept, Kept)
    assert kept.asked == kept.found


async def test_every_field_that_somebody_changed_is_found_and_no_other(connector: Connector, database: Path) -> None:
    whole = row("u1", **EVERY_KIND)
    await ask(connector, whole, row("u2", text="b"))
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE users SET text = 'by hand', day = 'no day', exact = '1' WHERE backbone_key = 'u1'")
    changed, same, gone = await read(connector, whole, row("u2", text="b"), row("u3", text="c"))
    assert isinstance(changed, Kept)
    assert isinstance(same, Kept)
    assert {name for name in changed.asked if changed.asked[name] != changed.found[name]} == {"text", "day", "exact"}
    assert (changed.found["text"], changed.found["day"]) == ("by hand", "no day")
    assert same.asked == same.found
    assert gone is None


async def test_what_is_not_there_at_all_is_missing_and_what_cannot_be_said_is_refused(
    connector: Connector, database: Path
) -> None:
    assert await read(connector, row("u1", name="Ana")) == [None]  # no table
    await ask(connector, row("u1", name="Ana"))
    column, wrong = await read(connector, row("u1", plan="pro"), row("u2", name=7))
    assert column == Kept({"plan": "pro"}, {"plan": None})
    assert isinstance(wrong, Rejected)
    with sqlite3.connect(database) as opened:
        opened.execute("CREATE TABLE theirs (name TEXT)")
    (theirs,) = await read(connector, row("u1", table="theirs", name="Ana"))
    assert theirs == Rejected("not_our_table", "table theirs was there already, without our key")


async def test_all_rows_are_listed_page_by_page_with_the_event_that_wrote_each(
    connector: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.sql.connector.LIST_PAGE", 2)
    for number in range(5):
        await ask(connector, row(f"u{number}", offset=number, name="x"))
    found: list[Listed] = []
    after: str | None = ""
    while after is not None:
        page = await connector.list_ours({"table": "users"}, after)
        found += page.found
        after = page.after
    assert found == [
        Listed(f"u{number}", f"accounts.users/0/{number}", Origin("accounts.users", 0, number)) for number in range(5)
    ]
    assert await connector.list_ours({"table": "none"}, "") == Page([], None)
    assert await connector.list_ours({}, "") == Page([], None)
