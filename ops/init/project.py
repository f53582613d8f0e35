"""The files of a new project, and writing them into a folder that holds nothing yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from schemas.errors import InputError, RefusedError

Variant = Literal["own", "registry"]
TEMPLATES = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9-]{0,59}\Z")
IGNORED = frozenset({".git"})
"""What may be there already: a repository that was just made."""


def project_name(folder: Path, given: str | None) -> str:
    """The name that was given, else the folder's, made fit. Raises InputError where it cannot be a project's."""
    if given is not None:
        if not NAME.match(given):
            raise InputError(
                "--name: a project's name is at most 60 lower-case letters, digits and dashes, a letter first: acme."
            )
        return given
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")
    if not NAME.match(name):
        raise InputError(f"No name can be made of the folder's, '{folder.absolute().name[:100]}': give --name NAME.")
    return name


def project_files(name: str, variant: Variant) -> dict[Path, str]:
    """Every file of a new project by its path in it."""
    files = {}
    for part in ("every", variant):
        for path in sorted((TEMPLATES / part).rglob("*")):
            if path.is_file():
                place = path.relative_to(TEMPLATES / part)
                target = Path(*(re.sub(r"^dot-", ".", step) for step in place.parts))
                files[target] = path.read_text("utf-8").replace("@name@", name)
    return dict(sorted(files.items()))


def write_project(folder: Path, files: Mapping[Path, str]) -> None:
    """Write them, all or none. Raises RefusedError for a folder that holds something, InputError for a file; OSError
    where it cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder.")
    there = sorted(path.name for path in folder.iterdir() if path.name not in IGNORED) if folder.is_dir() else []
    if there:
        raise RefusedError(f"{folder} is not empty ({there[0]} is there). Nothing was written: name a new folder.")
    written: list[Path] = []
    try:
        for place, text in files.items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_text(text, "utf-8")
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
