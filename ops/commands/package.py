"""``backbone schema package``: the wheel for services."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ops.app import App, screen_options


@click.command()
@click.option(
    "--name", metavar="NAME", help="What it is called, like acme-events; default: the project's name, -events."
)
@click.option("--out", metavar="DIR", default="dist", show_default=True, help="The folder that gets the wheel.")
@click.option("--date", metavar="DAY", help="The version's date, 2026-11-29 or 2026-11-29T14:32:05Z; default: of the "
              "last commit of the contracts.")  # fmt: skip
@screen_options
@click.pass_obj
def package(app: App, name: str | None, out: str, date: str | None) -> None:
    """Build a package for services: typed events, their contracts and the publisher, as one wheel.

    Its version is the date and time of the last commit of the contracts, in UTC, and a hash of its content: the same
    contracts make the same file. It depends on confluent-kafka, fastavro, pydantic and urllib3 alone, and is installed
    beside anything (pip install FILE).
    """
    from ops.files import folder_error
    from ops.package.content import import_name, package

    chosen = f"{app.project.name}-events" if name is None else name
    import_name(chosen)  # a wrong name is said before anything is read or asked
    folder = Path(out)
    at = _changed_at(app, date)
    made = package(chosen, app.contracts, project=app.project.name, changed_at=at)
    file = folder / made.file_name
    try:
        written = _write(folder, file, made.wheel)
    except OSError as error:
        raise folder_error(error, folder) from None
    app.screen.document(
        "schema.package",
        {
            "name": made.name,
            "version": made.version,
            "import": made.module,
            "events": made.events,
            "file": str(file),
            "written": written,
        },
        _words,
    )


def _changed_at(app: App, date: str | None) -> datetime:
    from ops.package.version import given_date, last_commit
    from schemas.errors import InputError

    if date is not None:
        return given_date(date)
    where = app.project.schemas
    if not isinstance(where, Path):
        raise InputError("Contracts in a registry have no date: give --date DAY, the day they changed last.")
    app.contracts  # noqa: B018  (a folder that is not there is said before git is asked)
    at, uncommitted = last_commit(where)
    if uncommitted:
        app.screen.warn(
            f"{where} holds changes that are not committed; the version has the date of its last commit, {at:%Y-%m-%d}."
        )
    return at


def _write(folder: Path, file: Path, content: bytes) -> bool:
    """Put the wheel there, whole or not at all; False where the same stands there already."""
    import os
    import tempfile

    from schemas.errors import InputError, RefusedError

    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: {folder} is a file: name a folder.")
    if file.exists():
        if file.read_bytes() == content:
            return False
        raise RefusedError(
            f"{file} is there, with other content. Nothing was changed: move it away, or give --out DIR."
        )
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
    try:
        with open(handle, "wb") as opened:
            opened.write(content)
        Path(partial).chmod(0o644)
        os.replace(partial, file)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return True


def _words(data: dict[str, Any]) -> str:
    state = "" if data["written"] else "  (it was there already)"
    event = f"{data['events']} event{'s' if data['events'] != 1 else ''}"
    made = f"{data['name']} {data['version']}: {event} and the publisher, imported as {data['import']}"
    return f"{data['file']}{state}\n{made}"
