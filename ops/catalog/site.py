"""The catalogue as web pages: one folder, opened from disk, no server and nothing from elsewhere.

The pages are made from templates that escape everything (``html/``), and a Content-Security-Policy lets run only the
folder's own scripts and styles. The same catalogue gives the same files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ops.catalog import rows
from ops.catalog.catalog import Catalog
from ops.catalog.data_map import PersonalFlow, data_map
from ops.catalog.describe import describe_connection, describe_event, describe_subscription, flow_row
from ops.catalog.graphs import lineage_graph, overview_graph
from ops.catalog.search import Entry, entries
from ops.catalog.snippet import command_snippet, python_snippet
from ops.files import file_error
from ops.wording import counted, duration, plain_json, shown
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "html"
ASSETS = ("catalogue.css", "catalogue.js", "theme.js")
LISTING = "catalogue-files.json"
"""Names every file of an export, so that the next one removes what it no longer writes and nothing else."""
FORMAT = "backbone.catalogue-files/v1"


def site(catalog: Catalog, context: str) -> dict[str, str]:
    """Every file of the folder by its path (``events/billing.InvoiceCreated.html``). Pure but for reading the
    templates."""
    files = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ASSETS}
    files["search-index.js"] = _index(entries(catalog))
    page = partial(_page, catalog, context)
    events = {name: describe_event(contract, catalog) for name, contract in catalog.events.items()}
    subscriptions = {name: describe_subscription(one, catalog) for name, one in catalog.subscriptions.items()}
    files["index.html"] = page("index.html", "", title="Overview", **_overview(catalog))
    for name, contract in catalog.events.items():
        files[path_of("event", name)] = page(
            "event.html", "../", title=name, event=events[name], contract=contract,
            graph=lineage_graph(catalog.flows_of(name), catalog, partial(_address, "../")),
            flows=[flow_row(one, catalog) for one in catalog.flows_of(name)],
            python=python_snippet(contract), command=command_snippet(contract), is_own=name in catalog.contracts,
        )  # fmt: skip
    for name, one in subscriptions.items():
        flows = catalog.flows_through(name)
        files[path_of("subscription", name)] = page(
            "subscription.html", "../", title=name, subscription=one, text=catalog.subscriptions[name].text,
            graph=lineage_graph(flows, catalog, partial(_address, "../")), flows=one["flows"],
        )  # fmt: skip
    for name in catalog.connections:
        flows = [one for one in catalog.flows if one.connection == name and one.leaves]
        files[path_of("connection", name)] = page(
            "connection.html", "../", title=name, connection=describe_connection(name, catalog),
            flows=[flow_row(one, catalog) for one in flows],
        )  # fmt: skip
    files["personal-data.html"] = page("personal_data.html", "", title="Personal data", rows=_data_map(catalog))
    files["lineage.html"] = page(
        "lineage.html", "", title="Lineage", graph=overview_graph(catalog, partial(_address, "")),
        pairs=[(one.event, one.subscription, one.connection, one.how) for one in catalog.readers],
    )  # fmt: skip
    return files


def path_of(kind: str, name: str) -> str:
    """The page of a thing. Names of connections may hold anything: what is no plain character is written as its
    code."""
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "-._") else f"~{ord(char):x}" for char in name
    )
    return f"{kind}s/{plain}.html"


def write_site(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write the files and remove those of an earlier export that are no longer among them; the written paths.

    Raises RefusedError for a folder that holds something and was not written by an export, and what the system says of
    a file."""
    try:
        return _write(folder, files)
    except OSError as error:
        raise file_error(error, error.filename or folder) from None


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    listing = folder / LISTING
    before = _listed(listing) if listing.is_file() else None
    if before is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(f"{folder} holds something that is no exported catalogue: name a new or an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    # the listing first, naming old and new: an export that breaks off leaves nothing that the next one would not know
    names = sorted({*files, *(before or ())})
    listing.write_text(plain_json({"format": FORMAT, "files": names}, indent=1) + "\n", encoding="utf-8")
    written = []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for name in before or ():
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    listing.write_text(plain_json({"format": FORMAT, "files": sorted(files)}, indent=1) + "\n", encoding="utf-8")
    return written


def _listed(listing: Path) -> list[str]:
    """The files of an earlier export, those that can only be in its folder. Raises RefusedError for another file."""
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        if content["format"] == FORMAT:
            return [name for name in map(str, content["files"]) if ".." not in name and not name.startswith("/")]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RefusedError(f"{listing} was not written by this version: name a new or an empty folder.")


# ---- pages --------------------------------------------------------------------------------------------------------


def _page(catalog: Catalog, context: str, template: str, root: str, **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            root=root,
            project=catalog.project,
            context=context,
            seen=catalog.seen,
            href=partial(_address, root),
            **values,
        )
    )


def _address(root: str, kind: str, name: str) -> str:
    return f"{root}index.html#domain-{name}" if kind == "domain" else root + path_of(kind, name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "age": lambda seconds: duration(timedelta(seconds=seconds))}
    environment.globals["counted"] = counted
    return environment


def _overview(catalog: Catalog) -> dict[str, Any]:
    events, subscriptions = rows.events(catalog), rows.subscriptions(catalog)
    domains: dict[str, list[dict[str, Any]]] = {}
    for row in events:
        domains.setdefault(row["domain"], []).append(row)
    return {
        "domains": domains,
        "engine": [{"event": one.name, "doc": one.doc} for one in catalog.engine.values()],
        "subscriptions": subscriptions,
        "connections": rows.connections(catalog),
        "unread": [row["event"] for row in events if not row["readers"]],
        "fields": sum(row["fields"] for row in events),
        "late": [row for row in subscriptions if row["is_late"]],
    }


def _data_map(catalog: Catalog) -> list[PersonalFlow]:
    subscriptions = list(catalog.subscriptions.values())
    return data_map(catalog.contracts.values(), subscriptions, catalog.readers, catalog.tables)


def _index(every: list[Entry]) -> str:
    """What the pages search in, as a script: pages opened from disk may not read data files."""
    pages = {"field": "event", "action": "connection"}
    found = []
    for one in every:
        page = path_of(pages.get(one.kind, one.kind), one.of or one.name)
        anchor = f"#{quote(one.name.removeprefix(one.of)[1:])}" if one.of else ""
        also = " ".join(sorted({word for place in ("owner", "class") for word in one.texts.get(place, ())}))
        found.append([one.kind, one.name, one.doc, page + anchor, also])
    return f"self.catalogueIndex = {json.dumps(found, separators=(',', ':'))};\n"
