"""``backbone context list | show``: the places this can talk to, as backbone.toml describes them. Asks nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.settings import Context

COLUMNS = [
    Column("name"),
    Column("chosen"),
    Column("production"),
    Column("kafka"),
    Column("registry"),
    Column("connections"),
    Column("problem"),
]


@click.group(no_args_is_help=True)
def context() -> None:
    """Contexts: which cluster, registry and vendor accounts a command talks to."""


@context.command("list")
@screen_options
@click.pass_obj
def list_(app: App) -> None:
    """Every context of backbone.toml."""
    app.screen.rows("contexts", [_row(app, name) for name in app.project.contexts], COLUMNS)


@context.command()
@click.argument("name", required=False)
@screen_options
@click.pass_obj
def show(app: App, name: str | None) -> None:
    """One context (default: the chosen one); credentials are shown as the references they are."""
    from ops.monitor.address import address

    chosen = app.project.context(name or app.screen.context)
    data = {
        "name": chosen.name,
        "production": chosen.production,
        "project": str(app.project.file),
        "kafka": chosen.kafka_shown(),
        "registry": chosen.registry_shown(),
        "vault": chosen.table.vault.model_dump(exclude_none=True),
        "allow_plaintext": chosen.table.allow_plaintext,
        "ledger": chosen.ledger_shown,
        "monitor": address(chosen),
        "topics": {"partitions": chosen.partitions, "replication": chosen.replication},
        "connections": [_connection(app, chosen, connection) for connection in chosen.connections],
    }
    columns = [Column("name"), Column("connector"), Column("kind"), Column("address"), Column("problem")]

    def render(shown: dict[str, Any]) -> list[Any]:
        plain = {key: value for key, value in shown.items() if key != "connections"}
        for key in ("kafka", "registry", "vault", "topics"):
            plain |= {f"{key}.{inner}": value for inner, value in plain.pop(key).items()}
        width = max(len(key) for key in plain)
        from ops.screen import shown as text

        lines = "\n".join(f"{key:<{width}}  {text(value)}" for key, value in plain.items())
        return [lines, app.screen.table(shown["connections"], columns)] if shown["connections"] else [lines]

    app.screen.document("context", data, render)


def _row(app: App, name: str) -> dict[str, Any]:
    from schemas.errors import BackboneError

    row: dict[str, Any] = {"name": name, "chosen": name == app.screen.context, "kafka": None, "registry": None}
    table = app.project.context_settings(name)
    row["production"] = table.production
    row["connections"] = "fake" if table.connections == "fake" else list(table.connections)
    row["problem"] = None
    try:
        found = app.project.context(name)
        row["kafka"] = found.kafka_address
        row["registry"] = found.registry_shown().get("url")
    except BackboneError as error:
        row["problem"] = str(error)
    return row


def _connection(app: App, chosen: Context, name: str) -> dict[str, Any]:
    from schemas.errors import BackboneError

    connection = chosen.connections[name]
    problem = None
    try:
        kind = app.connector_types.get(connection.connector)
        if kind is None:
            problem = f"no connector '{connection.connector}' is installed"
        else:
            connection.settings(kind)
    except BackboneError as error:
        problem = str(error)
    return {
        "name": name,
        "connector": connection.connector,
        "kind": "fake" if connection.is_fake else "account",
        "address": connection.fake_url,
        "settings": connection.shown(),
        "problem": problem,
    }
