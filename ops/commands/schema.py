"""``backbone schema check | generate | register | package``."""

from __future__ import annotations

from pathlib import Path

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.commands.package import package
from ops.screen import Column

REGISTER_COLUMNS = [Column("kind", "WHAT"), Column("name"), Column("state"), Column("detail")]


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
    """Find what is wrong in contract files: rules, and changes that would break somebody. Exit 3 if something is."""
    from ops.contract_check import check_files
    from schemas.errors import InputError

    if everything and files:
        raise InputError("Name files, or give --all for every contract.")
    folder = None if files else _folder(app)
    paths = [Path(name) for name in files] if folder is None else sorted(folder.rglob("*.avsc"))
    findings = check_files(app, paths, folder=folder, registry=registry, base=base)
    app.screen.findings("schema.check", findings, checked=_contracts(len(paths)))


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
    return f"{count} contract{'s' if count != 1 else ''}"
