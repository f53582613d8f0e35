"""``backbone schema check | diff | deprecate | generate | register | package``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.commands.package import package
from ops.screen import Column

REGISTER_COLUMNS = [Column("kind", "WHAT"), Column("name"), Column("state"), Column("detail")]

DIFFERENCE_COLUMNS = [Column("field"), Column("kind"), Column("attribute"), Column("before"), Column("after")]
IMPACT_COLUMNS = [Column("field"), Column("severity"), Column("message"), Column("rule")]
READER_COLUMNS = [Column("subscription"), Column("owner"), Column("connection")]


@click.group(no_args_is_help=True)
def schema() -> None:
    """Contracts: check their files, generate models from them, register them."""


@schema.command()
@click.argument("files", nargs=-1, metavar="[FILE]..")
@click.option("--all", "everything", is_flag=True, help="Every contract of the project (default).")
@click.option("--registry", is_flag=True, help="Also compare with what is registered.")
@click.option("--base", metavar="REVISION", help="Also compare with a revision of git, like origin/main.")
@screen_options(github=True)
@click.pass_obj
def check(app: App, files: tuple[str, ...], everything: bool, registry: bool, base: str | None) -> None:
    """Find what is wrong in contract files, and who would be hurt by what was changed. Exit 3 if something is.

    Rules are checked always. With --base or --registry what was changed is compared: compatibility in full, against
    every registered version; and each field that was removed, renamed, retyped or given another personal-data class
    is asked of everybody who reads it here. What somebody reads is refused with their names, also where Avro would
    allow it. Change the mapping in the same commit, or make a new event beside the old one.
    """
    from ops.contracts.check import check_files
    from schemas.errors import InputError

    if everything and files:
        raise InputError("Name files, or give --all for every contract.")
    folder = None if files else _folder(app)
    paths = [Path(name) for name in files] if folder is None else sorted(folder.rglob("*.avsc"))
    findings = check_files(app, paths, folder=folder, registry=registry, base=base)
    app.screen.findings("schema.check", findings, checked=_contracts(len(paths)))


@schema.command()
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@screen_options
@click.pass_obj
def diff(app: App, old: str, new: str) -> None:
    """What differs from A to B, whether each can read what the other wrote, and who would be hurt.

    A and B are files, events here (billing.InvoiceCreated), registered versions (billing.InvoiceCreated:3, :latest),
    or of git: billing.InvoiceCreated@origin/main, origin/main:schemas/events/billing/InvoiceCreated.avsc (the path
    from the project's folder).

    Exit code 0 whatever differs; the answers are in the output. To be told by an exit code: backbone schema check.

    JSON: old, new; differences, each with field, kind, attribute, before, after, says; compatible with backward (B
    reads what A wrote), forward (A reads what B wrote) and full; reasons; impact.
    """
    from ops.contracts.diff import compared, side

    data = compared(app, side(app, old), side(app, new))
    app.screen.document("schema.diff", data, lambda shown: _compared(app, shown))


@schema.command()
@click.argument("event", metavar="EVENT")
@click.option("--sunset", metavar="DATE", required=True, help="The last day on which it is published: 2027-03-31.")
@click.option("--replaced-by", metavar="EVENT", help="The new event in the same topic that is read instead.")
@screen_options
@click.pass_obj
def deprecate(app: App, event: str, sunset: str, replaced_by: str | None) -> None:
    """Write into a contract's file that the event ends, when, and what is read instead.

    Sets status, sunset and replaced_by, and in the new event's file what it replaces; the rest of the files stays as
    it is. Those who still read the event are listed, here, in `backbone schema check` and in `backbone status`.
    Nothing is registered: the files are merged first.
    """
    from datetime import UTC, date, datetime

    from ops.contracts.deprecation import deprecation, write
    from ops.contracts.impact import readings

    _folder(app)  # what is written are files
    contracts = app.contracts
    edits = deprecation(contracts, event, sunset=sunset, replaced_by=replaced_by, today=datetime.now(UTC).date())
    write(edits)
    rows = [
        {
            "subscription": one.subscription.name,
            "owner": one.subscription.owner,
            "connection": one.subscription.connection,
        }
        for one in readings(app, contracts, contracts)
        if event in one.subscription.routes
    ]
    data = {
        "event": event,
        "sunset": date.fromisoformat(sunset).isoformat(),
        "replaced_by": replaced_by or contracts[event].replaced_by,
        "written": [{"file": str(one.file), "lines": one.lines} for one in edits],
        "readers": rows,
    }
    app.screen.document("schema.deprecate", data, lambda shown: _deprecated(app, shown))
    if edits:
        app.screen.say("Next: backbone schema generate, and after merging backbone schema register (a new version).")


@schema.command()
@click.option("--check", "checking", is_flag=True, help="Write nothing; exit 3 if a file is not current.")
@screen_options(github=True)
@click.pass_obj
def generate(app: App, checking: bool) -> None:
    """Write the typed models of the contracts."""
    from schemas import generate as models

    folder = app.project.models
    contracts = app.contracts
    if checking:
        app.screen.findings("schema.generate", models.check(contracts, folder), checked=_contracts(len(contracts)))
        return
    written = [str(path) for path in models.generate(contracts, folder)]
    app.screen.document(
        "schema.generate",
        {"folder": str(folder), "written": written},
        lambda data: "\n".join(data["written"]) or f"{data['folder']} is current",
    )


@schema.command()
@click.argument("events", nargs=-1, metavar="[EVENT]..")
@click.option("--all", "everything", is_flag=True, help="Every contract of the project (default).")
@change_options
@screen_options
@click.pass_obj
def register(
    app: App,
    events: tuple[str, ...],
    everything: bool,
    apply: bool,
    yes: bool,
    reason: str | None,
    confirm: str | None,
) -> None:
    """Register contracts and create their topics (a change).

    Only what is missing is made. A schema that would break readers or writers is refused; a topic that exists is
    never altered, how it differs is said.
    """
    from ops.changes import run_change
    from ops.changes.register import register_plan
    from schemas.errors import InputError

    if everything and events:
        raise InputError("Name events, or give --all for every contract.")
    plan, differing = register_plan(app, events)
    for difference in differing:
        app.screen.warn(f"the topic {difference} (left as it is)")
    if plan is None:
        app.screen.document(
            "change", {"state": "unchanged"}, lambda _: "every schema is registered and every topic exists"
        )
        return
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=REGISTER_COLUMNS)


schema.add_command(package)


def _folder(app: App) -> Path:
    from schemas.errors import InputError

    folder = app.project.schemas
    if not isinstance(folder, Path):
        raise InputError(
            "This project reads its contracts from the registry and has no files of them; name files to check those."
        )
    return folder


def _contracts(count: int) -> str:
    from ops.wording import counted

    return counted(count, "contract")


def _compared(app: App, data: dict[str, Any]) -> list[Any]:
    if not data["differences"]:
        return [f"{data['old']['name']} and {data['new']['name']} say the same."]
    names = data["old"]["name"], data["new"]["name"]
    answers = {True: "yes", False: "no"}
    parts: list[Any] = [
        app.screen.table(data["differences"], DIFFERENCE_COLUMNS),
        "",
        f"{names[1]} reads what {names[0]} wrote: {answers[data['compatible']['backward']]}",
        f"{names[0]} reads what {names[1]} wrote: {answers[data['compatible']['forward']]}",
    ]
    parts += [f"  {one['direction']}: {one['field'] or 'the event'}: {one['message']}" for one in data["reasons"]]
    if data["impact"]:
        parts += ["", app.screen.table(data["impact"], IMPACT_COLUMNS)]
    return parts


def _deprecated(app: App, data: dict[str, Any]) -> list[Any]:
    parts: list[Any] = []
    for one in data["written"]:
        parts.append("\n".join([one["file"], *one["lines"]]))
    if not parts:
        parts.append(f"The file of {data['event']} says so already.")
    if data["readers"]:
        parts += ["\nStill read by:", app.screen.table(data["readers"], READER_COLUMNS)]
    else:
        parts.append("\nNo subscription here reads it.")
    return parts
