"""``backbone init``: a new project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ops.app import App, screen_options


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--name", metavar="NAME", help="The project's name; default: the folder's.")
@click.option("--schemas", type=click.Choice(["files", "registry"]), default="files", show_default=True,
              help="Contracts of its own, as files; or those that a registry has.")  # fmt: skip
@screen_options
@click.pass_obj
def init(app: App, folder: str, name: str | None, schemas: str) -> None:
    """Write a new project into DIR, which must be empty or new.

    It has a project file, an event, a subscription with tests, a workflow that checks both, and a README with the next
    commands: it works with `backbone local up` as it is. With --schemas registry it has no event of its own.
    """
    from ops.files import folder_error
    from ops.init.project import project_files, project_name, write_project

    target = Path(folder)
    chosen = project_name(target, name)
    files = project_files(chosen, "registry" if schemas == "registry" else "own")
    try:
        write_project(target, files)
    except OSError as error:
        raise folder_error(error, target) from None
    next_ = (
        ["backbone local up", "backbone schema register --apply --yes"]
        if schemas == "files"
        else ["fill in [contexts.company] in backbone.toml", "backbone -c company doctor"]
    )
    data = {
        "project": chosen,
        "folder": str(target),
        "files": [str(path) for path in files],
        "next": [f"cd {target}", *next_],
    }
    app.screen.document("init", data, _words)


def _words(data: dict[str, Any]) -> str:
    steps = "\n".join(f"  {step}" for step in data["next"])
    return "\n".join(str(Path(data["folder"]) / file) for file in data["files"]) + (
        f"\nThe project {data['project']} is there. Next:\n{steps}\nREADME.md has the rest."
    )
