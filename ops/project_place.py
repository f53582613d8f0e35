"""Where the project is. Light: completion asks it on every press of a key."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import NotFoundError

FILE = "backbone.toml"


def project_file(start: Path | None = None) -> Path:
    """The backbone.toml of ``start`` (a folder or the file), of ``BACKBONE_PROJECT``, or the nearest one upwards from
    the working directory. Raises NotFoundError if there is none."""
    named = start or (Path(os.environ["BACKBONE_PROJECT"]) if os.environ.get("BACKBONE_PROJECT") else None)
    if named is not None:
        file = named / FILE if named.is_dir() else named
        if not file.is_file():
            raise NotFoundError(f"There is no project file {file}.")
        return file.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    raise NotFoundError(
        f"There is no {FILE} in {here} or above it. Go to a project's folder, or set BACKBONE_PROJECT to one."
    )
