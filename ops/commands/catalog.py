"""``backbone catalog list | show | search``: what there is, and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.catalog_screens import field_lines, flow_table, lines, seen_lines
from ops.screen import Column, duration

if TYPE_CHECKING:
    from ops.catalog.catalog import Catalog
    from ops.catalog.names import Named

files_option = click.option("--files", "files_only", is_flag=True, help="Read the project's files only, no cluster.")

EVENT_COLUMNS = [
    Column("event"), Column("owner"), Column("status"), Column("readers", show=lambda names: ", ".join(names) or "-"),
    Column("personal_data", "PERSONAL DATA", lambda classes: ", ".join(classes) or "-"), Column("freshness_slo", "SLO"),
]  # fmt: skip
EVENT_SEEN_COLUMNS = [Column("about_per_day", "~PER DAY"), Column("last"), Column("fresh")]
SUBSCRIPTION_COLUMNS = [
    Column("subscription"), Column("owner"), Column("connection"), Column("events"),
    Column("actions", show=", ".join), Column("personal_data", "PERSONAL DATA", lambda names: ", ".join(names) or "-"),
    Column("purpose"),
]  # fmt: skip
SUBSCRIPTION_SEEN_COLUMNS = [Column("state"), Column("lag"), Column("oldest_seconds", "OLDEST", lambda s: _age(s))]
CONNECTION_COLUMNS = [
    Column("connection"), Column("connector"), Column("region"), Column("sub_processor", "SUB-PROCESSOR"),
    Column("actions", show=", ".join), Column("subscriptions", show=lambda names: ", ".join(names) or "-"),
    Column("personal_data", "PERSONAL DATA", lambda names: ", ".join(names) or "-"),
]  # fmt: skip


@click.command("list")
@click.argument("what", type=click.Choice(["events", "connections", "subscriptions"]), default="events", required=False)
@files_option
@screen_options
@click.pass_obj
def list_(app: App, what: str, files_only: bool) -> None:
    """What there is: events (default), connections or subscriptions.

    Events: readers are the subscriptions in the project's files; ~PER DAY and LAST come from the cluster, FRESH says
    whether every attached reader is within its SLO. JSON also has domain, topic, doc, fields (their number), seen_at.
    Without a cluster, or with --files, only files are read and what is seen is null.
    """
    from ops.catalog import rows
    from ops.catalog.catalog import read_catalog, with_seen

    catalog = read_catalog(app)
    if not files_only and what != "connections":
        catalog = with_seen(app, catalog, catalog.contracts if what == "events" else {})
    has_seen = catalog.seen is not None
    if what == "connections":
        app.screen.rows("catalog.connections", rows.connections(catalog), CONNECTION_COLUMNS,
                        empty="There is no connection yet: write one into backbone.toml.")  # fmt: skip
    elif what == "subscriptions":
        columns = [*SUBSCRIPTION_COLUMNS, *(SUBSCRIPTION_SEEN_COLUMNS if has_seen else ())]
        app.screen.rows("catalog.subscriptions", rows.subscriptions(catalog), columns,
                        empty="There is no subscription yet: backbone subscription new")  # fmt: skip
    else:
        columns = [*EVENT_COLUMNS, *(EVENT_SEEN_COLUMNS if has_seen else ())]
        app.screen.rows("catalog.events", rows.events(catalog), columns, empty="There is no contract yet.")


@click.command()
@click.argument("name", metavar="NAME")
@files_option
@screen_options
@click.pass_obj
def show(app: App, name: str, files_only: bool) -> None:
    """Everything about NAME.

    \b
    billing.InvoiceCreated         an event: what it means, its fields, who reads each, what is seen of it
    billing.InvoiceCreated.coupon  one field: who reads it, and for which field of which vendor
    hubspot                        a connection: its actions with their bodies and limits, and who uses it
    hubspot:contact.upsert         one action: its body, and what fills it
    crm-contacts                   a subscription: what it reads, what it asks, how it stands
    subscription:warehouse         the same, where a connection has the name too
    """
    from ops.catalog.catalog import read_catalog
    from ops.catalog.names import named
    from schemas.errors import InputError

    catalog = read_catalog(app)
    found = named(catalog, name)
    if found.kind == "topic":
        events = [one.name for one in catalog.events.values() if one.topic == found.name]
        raise InputError(f"{found.name} is a topic; it carries {', '.join(events)}. Show one of them.")
    for kind in found.also:
        if kind != "topic":
            app.screen.say(f"There is a {kind} of that name too: backbone catalog show {kind}:{found.name}")
    _SHOWN[found.kind](app, catalog, found, files_only)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="WORDS")
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="So many at most.")
@screen_options
@click.pass_obj
def search(app: App, words: tuple[str, ...], limit: int) -> None:
    """Find events, fields, subscriptions, connections and actions that have all WORDS.

    Looked at are names, docs, fields, owners and personal-data classes; the best hit comes first. A word that nothing
    has is taken as the nearest one. Exit 3 if there is nothing.
    """
    from ops.catalog import search as find
    from ops.catalog.catalog import read_catalog
    from schemas.errors import CheckFailedError, InputError

    if not " ".join(words).strip():
        raise InputError("Give at least one word to look for.")
    hits, corrected = find.search(find.entries(read_catalog(app)), words)
    for typed, taken in corrected.items():
        app.screen.say(f"Nothing has '{typed[:60]}'; looked for '{taken}'.")
    rows = [
        {
            "kind": hit.entry.kind,
            "name": hit.entry.name,
            "found_in": list(hit.found_in),
            "owner": hit.entry.owner or None,
            "doc": hit.entry.doc,
            "score": hit.score,
        }
        for hit in hits[:limit]
    ]
    columns = [Column("kind"), Column("name"), Column("owner"), Column("doc", show=_short)]
    if hits or app.screen.output != "table":
        app.screen.rows("catalog.search", rows, columns)
    if len(hits) > limit:
        app.screen.say(f"{len(hits) - limit:,} more: --limit {len(hits)}, or give more words.")
    if not hits:
        raise CheckFailedError(f"Nothing in the catalogue has {' and '.join(words)[:200]}.")


# ---- one thing ----------------------------------------------------------------------------------------------------


def _event(app: App, catalog: Catalog, found: Named, files_only: bool) -> None:
    from ops.catalog.catalog import with_seen
    from ops.catalog.describe import describe_event

    contract = catalog.events[found.name]
    if not files_only:
        catalog = with_seen(app, catalog, {contract.name: contract}, versions=True)
    app.screen.document("catalog.event", describe_event(contract, catalog), lambda data: _event_parts(app, data))


def _event_parts(app: App, data: dict[str, Any]) -> list[Any]:
    screen = app.screen
    head = lines(
        ("owner", f"{data['owner']}{'  ' + data['contact'] if data['contact'] else ''}"),
        ("topic", f"{data['topic']}   key {data['key']}   about {data['entity']}"),
        ("fresh in", f"{data['freshness_slo']}   kept {data['retention']}"),
        ("replaces", data["replaces"]),
        ("replaced by", data["replaced_by"]),
        ("sunset", data["sunset"]),
        *seen_lines(data["seen"], data["fresh"]),
    )
    rows = [
        {
            **field,
            "examples": ", ".join(map(str, field["examples"])),
            "read_by": ", ".join(dict.fromkeys(one["subscription"] for one in field["readers"])) or "-",
        }
        for field in data["fields"]
    ]
    columns = [
        Column("field"), Column("type"), Column("personal_data", "PERSONAL DATA"), Column("read_by"),
        Column("examples"), Column("doc"),
    ]  # fmt: skip
    title = f"{data['event']}  ({data['status']})\n{data['doc']}\n"
    parts: list[Any] = [f"{title}\n{head}\n", screen.table(rows, columns)]
    if data["subscriptions"]:
        read = [
            {**one, "fields": "(not known)" if one["fields"] is None else ", ".join(one["fields"]) or "none"}
            for one in data["subscriptions"]
        ]
        columns = [
            Column("subscription"), Column("owner"), Column("connection"), Column("fields", "READS"),
            Column("how", "KNOWN"),
        ]  # fmt: skip
        parts += ["", screen.table(read, columns)]
    else:
        parts.append("\nNo subscription here reads it.")
    return parts


def _field(app: App, catalog: Catalog, found: Named, files_only: bool) -> None:
    from ops.catalog.describe import describe_field

    contract = catalog.events[found.name]
    data = describe_field(contract, contract.fields[found.part], catalog)
    app.screen.document("catalog.field", data, lambda data: _field_parts(app, data))


def _field_parts(app: App, data: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [f"{data['event']}.{data['field']}\n{data['doc']}\n\n{field_lines(data)}"]
    if not data["readers"]:
        return [*parts, "\nNobody here reads it."]
    rows = [{**one, "asked": one["action"] or one["projection"]} for one in data["readers"]]
    columns = [
        Column("subscription"), Column("owner"), Column("connection"), Column("asked", "ACTION"),
        Column("vendor_fields", "VENDOR FIELDS"), Column("how", "KNOWN"),
    ]  # fmt: skip
    return [*parts, "", app.screen.table(rows, columns)]


def _subscription(app: App, catalog: Catalog, found: Named, files_only: bool) -> None:
    from ops.catalog.catalog import with_seen
    from ops.catalog.describe import describe_subscription

    if not files_only:
        catalog = with_seen(app, catalog, {})
    data = describe_subscription(catalog.subscriptions[found.name], catalog)
    app.screen.document("catalog.subscription", data, lambda data: _subscription_parts(app, data))


def _subscription_parts(app: App, data: dict[str, Any]) -> list[Any]:
    seen = data["seen"]
    state = None
    if seen is not None:
        late = ", late" if seen["is_late"] else ""
        state = seen["state"]
        if seen["lag"] is not None:
            oldest = "-" if seen["oldest_seconds"] is None else _age(seen["oldest_seconds"])
            state += f"   lag {seen['lag']:,}   oldest waiting {oldest}{late}"
    head = lines(
        ("owner", data["owner"]),
        ("connection", f"{data['connection']} ({data['connector']})"),
        ("version", data["version"]),
        ("may send", ", ".join(data["personal_data"]) or "no personal data"),
        ("purpose", data["purpose"]),
        ("late after", data["slo"]),
        ("now", state),
    )
    parts: list[Any] = [f"{data['subscription']}\n{data['description']}\n\n{head}\n"]
    return [*parts, flow_table(app, data["flows"], without=("subscription", "connection"))]


def _connection(app: App, catalog: Catalog, found: Named, files_only: bool) -> None:
    from ops.catalog.describe import describe_connection

    data = describe_connection(found.name, catalog)
    app.screen.document("catalog.connection", data, lambda data: _connection_parts(app, data))


def _connection_parts(app: App, data: dict[str, Any]) -> list[Any]:
    screen = app.screen
    idempotency = IDEMPOTENCY[data["idempotency"]]
    if data["idempotency_ttl"]:
        idempotency += f" (for {data['idempotency_ttl']})"
    head = lines(
        ("where", ", ".join(str(data[name]) for name in ("region", "sub_processor") if data[name])),
        ("idempotency", f"{data['idempotency']}: {idempotency}"),
        ("lost answer", f"{data['on_unknown']} (unless the subscription says otherwise)"),
        ("batches", f"of at most {data['batch_max']}"),
    )
    parts: list[Any] = [f"{data['connection']}  ({data['connector']})\n{data['doc']}\n\n{head}"]
    for action in data["actions"]:
        parts += _action_parts(app, action)
    if data["dependency"]:
        parts.append("\n" + lines(*data["dependency"].items()))
    if data["subscriptions"]:
        columns = [Column("subscription"), Column("owner"), Column("personal_data", "PERSONAL DATA"), Column("purpose")]
        parts += ["", screen.table(data["subscriptions"], columns)]
    return parts


def _action(app: App, catalog: Catalog, found: Named, files_only: bool) -> None:
    from ops.catalog.describe import describe_used_action

    def parts(data: dict[str, Any]) -> list[Any]:
        made = [f"{data['connection']}  ({data['connector']})", *_action_parts(app, data)]
        if not data["flows"]:
            return [*made, "\nNo subscription here asks it."]
        return [*made, "", flow_table(app, data["flows"], without=("connection", "action"))]

    app.screen.document("catalog.action", describe_used_action(found.name, found.part, catalog), parts)


def _action_parts(app: App, action: dict[str, Any]) -> list[Any]:
    marks = [word for word, is_so in (("upsert", action["upsert"]), ("in order", action["order_matters"])) if is_so]
    rows = [
        {**field, "required": "yes" if field["required"] else "", "doc": _with_limits(field)}
        for field in action["body"]
    ]  # fmt: skip
    columns = [Column("field"), Column("type"), Column("required", "NEEDED"), Column("doc")]
    head = f"\n{action['action']}{'  (' + ', '.join(marks) + ')' if marks else ''}\n{action['doc']}\n"
    return [head, app.screen.table(rows, columns)]


_SHOWN: dict[str, Callable[[App, Catalog, Named, bool], None]] = {
    "event": _event,
    "field": _field,
    "subscription": _subscription,
    "connection": _connection,
    "action": _action,
}

IDEMPOTENCY = {
    "upsert": "the same delivery twice writes the same thing",
    "replay_key": "the vendor remembers a delivery's key",
    "dedupe_id": "the vendor drops a delivery it has seen",
    "none": "the same delivery twice happens twice",
}
"""What a connector's idempotency means, in words."""


def _with_limits(field: dict[str, Any]) -> str:
    limits = "; ".join(field["limits"])
    return f"{field['doc']} ({limits})" if limits else field["doc"]


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:89]}…"


def _age(seconds: float) -> str:
    from datetime import timedelta

    return duration(timedelta(seconds=seconds))
