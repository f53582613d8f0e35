"""``backbone catalog show``: what an event or a connection is, and who uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.data_map import personal_data
from ops.screen import Column

if TYPE_CHECKING:
    from consumers.subscription import Subscription


@click.group(no_args_is_help=True)
def catalog() -> None:
    """What there is: events with their fields, connections with their actions, and who uses them."""


catalog.add_command(personal_data)


@catalog.command()
@click.argument("name", metavar="EVENT|CONNECTION")
@screen_options
@click.pass_obj
def show(app: App, name: str) -> None:
    """Everything about an event (billing.InvoiceCreated) or a connection (hubspot).

    An event: what it means, its fields with their personal-data classes, and the subscriptions that read them.
    A connection: its actions with their bodies and limits, and the subscriptions that use it.
    """
    from ops.catalog.describe import describe_connection, describe_event
    from schemas.contract import Contracts
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    connections = app.connection_types
    if name in connections:
        table = app.project.connections[name].model_dump(exclude_none=True)
        found = describe_connection(name, connections[name], table, _subscriptions(app))
        app.screen.document("catalog.connection", found, lambda data: _connection(app, data))
        return
    events = Contracts({**app.contracts, **app.engine_contracts})
    if name in events:
        found = describe_event(events[name], _subscriptions(app))
        app.screen.document("catalog.event", found, lambda data: _event(app, data))
        return
    same = [known for known in events if known.rpartition(".")[2].lower() == name.rpartition(".")[2].lower()]
    hint = f" Did you mean '{same[0]}'?" if same else did_you_mean(name, [*events, *connections])
    raise NotFoundError(f"There is no event and no connection '{name[:100]}'.{hint}")


def _subscriptions(app: App) -> list[Subscription]:
    """Those files that can be read; the others are named."""
    from consumers.subscription import check_subscription

    found = []
    for name, path in app.subscription_files().items():
        loaded, _ = check_subscription(path, contracts=app.contracts, connections=app.connection_types)
        if loaded is None:
            app.screen.warn(f"{path} has errors and is left out: backbone subscription check {name}")
        else:
            found.append(loaded)
    return found


def _event(app: App, data: dict[str, Any]) -> list[Any]:
    screen = app.screen
    head = [
        f"{data['event']}  ({data['status']})",
        data["doc"],
        "",
        f"owner      {data['owner']}{'  ' + data['contact'] if data['contact'] else ''}",
        f"topic      {data['topic']}   key {data['key']}   about {data['entity']}",
        f"fresh in   {data['freshness_slo']}   kept {data['retention']}",
        "",
    ]
    rows = [
        {**field, "needed": "yes" if field["required"] else "", "examples": ", ".join(map(str, field["examples"]))}
        for field in data["fields"]
    ]
    columns = [
        Column("field"), Column("type"), Column("personal_data", "PERSONAL DATA"), Column("examples"), Column("doc"),
    ]  # fmt: skip
    parts: list[Any] = ["\n".join(head), screen.table(rows, columns)]
    if data["subscriptions"]:
        read = [
            {**one, "fields": "(a Python projection)" if one["fields"] is None else ", ".join(one["fields"]) or "none"}
            for one in data["subscriptions"]
        ]
        columns = [Column("subscription"), Column("owner"), Column("connection"), Column("fields", "READS")]
        parts += ["", screen.table(read, columns)]
    else:
        parts.append("\nNo subscription here reads it.")
    return parts


def _connection(app: App, data: dict[str, Any]) -> list[Any]:
    screen = app.screen
    place = ", ".join(str(data[name]) for name in ("region", "sub_processor") if data[name])
    idempotency = {
        "upsert": "the same delivery twice writes the same thing",
        "replay_key": "the vendor remembers a delivery's key",
        "dedupe_id": "the vendor drops a delivery it has seen",
        "none": "the same delivery twice happens twice",
    }[data["idempotency"]]
    if data["idempotency_ttl"]:
        idempotency += f" (for {data['idempotency_ttl']})"
    head = [
        f"{data['connection']}  ({data['connector']})",
        data["doc"],
        "",
        *([f"where        {place}"] if place else []),
        f"idempotency  {data['idempotency']}: {idempotency}",
        f"lost answer  {data['on_unknown']} (unless the subscription says otherwise)",
        f"batches      of at most {data['batch_max']}",
    ]
    parts: list[Any] = ["\n".join(head)]
    for action in data["actions"]:
        marks = [word for word, is_so in (("upsert", action["upsert"]), ("in order", action["order_matters"])) if is_so]
        parts += [f"\n{action['action']}{'  (' + ', '.join(marks) + ')' if marks else ''}\n{action['doc']}\n"]
        rows = [
            {**field, "required": "yes" if field["required"] else "", "doc": _with_limits(field)}
            for field in action["body"]
        ]
        parts.append(screen.table(rows, [Column("field"), Column("type"), Column("required", "NEEDED"), Column("doc")]))
    if data["dependency"]:
        parts.append("\n" + "\n".join(f"{name:<12} {value}" for name, value in data["dependency"].items()))
    if data["subscriptions"]:
        columns = [Column("subscription"), Column("owner"), Column("personal_data", "PERSONAL DATA"), Column("purpose")]
        parts += ["", screen.table(data["subscriptions"], columns)]
    return parts


def _with_limits(field: dict[str, Any]) -> str:
    limits = "; ".join(field["limits"])
    return f"{field['doc']} ({limits})" if limits else field["doc"]
