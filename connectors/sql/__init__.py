"""sql: rows in a database of your own (SQLite, PostgreSQL)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from connectors.connector import Connector, ConnectorType, Delivery, Idempotency, JsonValue
from connectors.sql.actions import ACTIONS
from connectors.sql.settings import DEPENDENCY, SqlSettings

__all__ = ["CONNECTOR"]


def _open(settings: SqlSettings) -> Connector:
    from connectors.sql.connector import Sql

    return Sql(settings)


def _fake_settings(url: str, folder: Path) -> dict[str, JsonValue]:
    if url:  # a database of the context's own, as in docker-compose.yml
        return {"url": url}
    folder.mkdir(parents=True, exist_ok=True)
    return {"url": f"sqlite:///{(folder / 'sql.sqlite').resolve()}"}


def _preview(settings: SqlSettings, deliveries: Sequence[Delivery]) -> list[str]:
    from connectors.sql.connector import preview_ddl

    return preview_ddl(settings, deliveries)


CONNECTOR = ConnectorType(
    name="sql",
    doc="A database of your own (PostgreSQL, SQLite): one row per entity, tables and columns made as they are needed.",
    idempotency=Idempotency("upsert"),
    on_unknown="resend",
    batch_max=1000,
    actions=ACTIONS,
    settings=SqlSettings,
    open=_open,
    fake=None,
    fake_settings=_fake_settings,
    dependency=DEPENDENCY,
    preview=_preview,
    check=True,
    look_up=True,
    read_back=True,
    list_ours=True,
)
