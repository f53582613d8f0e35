"""``backbone catalog export asyncapi | html``: the catalogue for other tools and for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.app import App, screen_options
from ops.commands.catalog import files_option

if TYPE_CHECKING:
    from ops.catalog.asyncapi import Server


@click.group(no_args_is_help=True)
def export() -> None:
    """Write the catalogue as a document for other tools, or as web pages."""


@export.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there; default: stdout.")
@screen_options
@click.pass_obj
def asyncapi(app: App, out: Path | None) -> None:
    """The events as an AsyncAPI 3.1 document (JSON): channels, messages with Avro schemas, who sends and receives.

    The server is the cluster of the context (-c), without credentials; local names none. The same files give the same
    document.
    """
    from ops.catalog.asyncapi import as_text
    from ops.catalog.asyncapi import asyncapi as made
    from ops.catalog.catalog import read_catalog
    from schemas.topics import REPLICATION, topics_for

    catalog = read_catalog(app)
    wanted = app.project.context_settings(app.screen.context).topics
    replication = REPLICATION if wanted.replication is None else wanted.replication
    plans = topics_for(catalog.contracts, partitions=wanted.partitions, replication=replication)
    document = made(catalog, plans, _server(app))
    if out is None:
        app.screen.document("catalog.asyncapi", document, lambda data: as_text(data).rstrip("\n"))
        return
    _write(out, as_text(document))
    app.screen.document("catalog.export", {"file": str(out)}, lambda data: data["file"])


def _server(app: App) -> Server | None:
    """The cluster as the context names it; None where that is a reference, and for the stack on this machine, which
    nobody else can reach and whose ports change."""
    from ops.catalog.asyncapi import Server
    from ops.secrets.reference import is_reference
    from ops.settings import redacted_url

    if app.screen.context == "local":
        app.screen.detail("No server is named: the local stack is on this machine only. Choose a context: -c NAME")
        return None
    context = app.context
    table, registry = context.kafka_shown(), context.registry_url
    address = str(table.get("bootstrap.servers", ""))
    if not address or is_reference(address):
        app.screen.detail("No server is named: the context's bootstrap.servers is a reference.")
        return None
    return Server(
        name=context.name,
        hosts=tuple(host.strip().rpartition("//")[2] for host in address.split(",") if host.strip()),
        protocol=str(table.get("security.protocol", "PLAINTEXT")),
        mechanism=str(table.get("sasl.mechanism", table.get("sasl.mechanisms", ""))),
        registry="" if is_reference(registry) else redacted_url(registry),
        production=context.production,
    )


@export.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to write.")
@files_option
@screen_options
@click.pass_obj
def html(app: App, out: Path, files_only: bool) -> None:
    """The catalogue as web pages in one folder: open index.html, no server is needed.

    Events, fields with their readers, subscriptions, connections, the map of personal data, lineage as graphs, and
    search. What is seen on the cluster is shown with the time it was looked at; --files leaves it out. Pages of an
    earlier export that are no longer needed are removed; a folder that holds anything else is refused.
    """
    from ops.catalog.catalog import read_catalog, with_seen
    from ops.catalog.site import site, write_site

    catalog = read_catalog(app)
    if not files_only:
        catalog = with_seen(app, catalog, catalog.contracts, versions=True)
    written = write_site(out, site(catalog, app.screen.context))
    data = {"folder": str(out), "index": str(out / "index.html"), "files": len(written)}
    app.screen.document("catalog.export", data, lambda data: data["index"])


def _write(path: Path, text: str) -> None:
    from ops.files import file_error

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise file_error(error, path) from None
