"""``backbone catalog lineage | dependencies``: where fields go, and what needs what."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.catalog import files_option
from ops.commands.catalog_screens import FLOW_COLUMNS, flow_line, lines
from ops.screen import Column

if TYPE_CHECKING:
    from ops.catalog.catalog import Catalog
    from ops.catalog.dependencies import Graph, Thing
    from ops.catalog.lineage import Flow


@click.command()
@click.argument("name", required=False, metavar="[EVENT[.FIELD]|SUBSCRIPTION|CONNECTION[:ACTION]]")
@click.option("--tree/--table", default=None, help="As a tree (default on a terminal) or as a table.")
@screen_options
@click.pass_obj
def lineage(app: App, name: str | None, tree: bool | None) -> None:
    """Which field of which event goes to which field of which vendor, through which subscription.

    KNOWN: parsed (from the file, exact), recorded (seen while a Python projection ran), unseen (nobody ran it: it may
    read whatever may leave). (all) is the payload as a whole. Read from files; nothing is asked of the cluster.
    """
    from ops.catalog.catalog import read_catalog
    from ops.catalog.describe import flow_row

    catalog = read_catalog(app)
    flows = list(catalog.flows) if name is None else _about(catalog, name)
    rows = [flow_row(flow, catalog) for flow in flows]
    as_tree = sys.stdout.isatty() if tree is None else tree
    if as_tree and rows and app.screen.output == "table" and not app.screen.fields:
        app.screen.document("catalog.lineage", rows, _tree)
        return
    if app.screen.output == "table":
        rows = [flow_line(row) for row in rows]
    app.screen.rows("catalog.lineage", rows, FLOW_COLUMNS, empty=f"No subscription here reads {name or 'an event'}.")


def _about(catalog: Catalog, name: str) -> list[Flow]:
    from ops.catalog.lineage import flows_of
    from ops.catalog.names import named

    found = named(catalog, name)
    match found.kind:
        case "field":
            field = catalog.events[found.name].fields[found.part]
            return flows_of(catalog.flows_of(found.name), field, found.name)
        case "event":
            return catalog.flows_of(found.name)
        case "topic":
            return [one for one in catalog.flows if catalog.events[one.event].topic == found.name]
        case "subscription":
            return catalog.flows_through(found.name)
        case _:
            return [
                one
                for one in catalog.flows
                if one.connection == found.name and found.part in ("", one.action)
            ]  # fmt: skip


def _tree(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Events, their fields, and where each goes."""
    from rich.text import Text
    from rich.tree import Tree

    trees: dict[str, Tree] = {}
    fields: dict[tuple[str, str], Tree] = {}
    for row in rows:
        event, field = row["event"], row["field"]
        if event not in trees:
            trees[event] = Tree(Text(event, style="bold"), guide_style="dim")
        if (event, field) not in fields:
            label = Text(field)
            if row["personal_data"]:
                label.append(f"  {', '.join(row['personal_data'])}", style="yellow")
            fields[event, field] = trees[event].add(label)
        known = "" if row["how"] == "parsed" else f"  ({row['how']})"
        line = Text(f"{row['subscription']} → {row['connection']} {row['action'] or row['projection']} ")
        line.append(row["vendor_field"], style="bold")
        line.append(known, style="dim")
        fields[event, field].add(line)
    return list(trees.values())


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@files_option
@screen_options
@click.pass_obj
def dependencies(app: App, name: str | None, files_only: bool) -> None:
    """What needs what: producers -> events -> topics, subscriptions -> connections -> vendors.

    Without NAME every thing, with how many it needs and what happens while it is away. With one (an event, a topic, a
    subscription, a connection, a vendor, or a producer such as producer:billing) what it needs and what needs it, and
    of a connection what its connector states about the vendor. Producers are seen on the cluster.
    """
    from ops.catalog.catalog import read_catalog, with_seen
    from ops.catalog.dependencies import KINDS, graph, if_away

    catalog = read_catalog(app)
    if not files_only:
        catalog = with_seen(app, catalog, catalog.contracts)
    whole = graph(catalog)
    if name is not None:
        data = _one(catalog, whole, _thing(whole, name))
        app.screen.document("catalog.dependency", data, _drawn)
        return
    rows = [
        {
            "kind": kind,
            "name": thing,
            "needs": [_typed(one) for one in whole.needs[kind, thing]],
            "needed_by": [_typed(one) for one in whole.needed_by[kind, thing]],
            "if_away": if_away(catalog, (kind, thing)),
        }
        for kind, thing in sorted(whole.needs, key=lambda one: (KINDS.index(one[0]), one[1]))
    ]
    columns = [
        Column("kind"), Column("name"), Column("needs", show=lambda names: str(len(names))),
        Column("needed_by", show=lambda names: str(len(names))), Column("if_away", "WHILE IT IS AWAY"),
    ]  # fmt: skip
    app.screen.rows("catalog.dependencies", rows, columns, empty="There is nothing in this project yet.")


def _thing(whole: Graph, name: str) -> Thing:
    from ops.catalog.dependencies import KINDS
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    kind, colon, rest = name.partition(":")
    if colon and (kind, rest) in whole.needs:
        return kind, rest
    found = [(one, name) for one in ("connection", "event", "subscription", *KINDS) if (one, name) in whole.needs]
    if not found:
        known = [*(name for _, name in whole.needs), *(f"{kind}:{name}" for kind, name in whole.needs)]
        raise NotFoundError(
            f"Nothing called '{name[:100]}' needs anything or is needed here.{did_you_mean(name, known)}"
        )
    return found[0]


def _one(catalog: Catalog, whole: Graph, thing: Thing) -> dict[str, Any]:
    from ops.catalog.dependencies import if_away

    kind, name = thing
    return {
        "kind": kind,
        "name": name,
        "if_away": if_away(catalog, thing),
        "needs": [{"depth": depth, "kind": one[0], "name": one[1]} for depth, one in whole.below(thing)],
        "needed_by": [{"depth": depth, "kind": one[0], "name": one[1]} for depth, one in whole.above(thing)],
        "dependency": dict(catalog.connections[name].dependency) if kind == "connection" else {},
    }


def _drawn(data: Mapping[str, Any]) -> list[Any]:
    parts: list[Any] = [f"{data['kind']} {data['name']}\nWhile it is away: {data['if_away']}\n"]
    for title, key in (("It needs", "needs"), ("It is needed by", "needed_by")):
        parts.append(_branches(title, data[key]) if data[key] else f"{title} nothing.")
    if data["dependency"]:
        parts.append("\n" + lines(*data["dependency"].items()))
    return parts


def _branches(title: str, things: Sequence[Mapping[str, Any]]) -> Any:
    from rich.text import Text
    from rich.tree import Tree

    at = [Tree(Text(title, style="bold"), guide_style="dim")]
    for one in things:
        del at[one["depth"] :]
        at.append(at[-1].add(Text(f"{one['name']}  ").append(one["kind"], style="dim")))
    return at[0]


def _typed(thing: Thing) -> str:
    """A thing as it is typed."""
    return f"{thing[0]}:{thing[1]}"
