"""An environment of a service for a test: a new virtual environment with nothing in it but a package for services and
the libraries that the package says it needs, taken from the running environment so that no network is used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


@dataclass(frozen=True, slots=True)
class Service:
    """``run("service.py")`` runs a file of ``folder`` with the environment's Python."""

    folder: Path
    python: Path

    def run(self, file: str, **environment: str) -> str:
        """What the program prints; fails the test when it fails."""
        done = subprocess.run(
            [str(self.python), file], cwd=self.folder, env={"PATH": os.environ["PATH"], **environment},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)


def make_service(folder: Path, *wheels: Path) -> Service:
    """A new environment below ``folder`` with these wheels installed by pip, and a folder for the service's code."""
    home = folder / "environment"
    venv.create(home, symlinks=True, with_pip=False)
    python = home / "bin" / "python"
    site = next(home.glob("lib/python*/site-packages"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check",
         "--no-index", "--no-deps", *map(str, wheels)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for info in site.glob("*.dist-info"):
        for needed in Distribution.at(info).requires or ():
            take(needed, site)
    code = folder / "service"
    code.mkdir()
    return Service(code, python)


def take(needed: str, site: Path) -> None:
    """Link what is required, and what that requires, in; what is here must fit the requirement."""
    requirement = Requirement(needed)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    found = distribution(requirement.name)
    assert requirement.specifier.contains(found.version, prereleases=True), f"{needed}, and {found.version} is here"
    installed = Path(sysconfig.get_paths()["purelib"])
    tops = {file.parts[0] for file in found.files or () if not re.match(r"\.\.|__pycache__", file.parts[0])}
    if all((site / top).exists() for top in tops):
        return
    for top in tops:
        (site / top).symlink_to(installed / top)
    for inner in found.requires or ():
        take(inner, site)
