"""Reading lock files: which versions are locked, and which of them are not what is installed."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from packaging.markers import Marker

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+))?"
)


def pins(text: str) -> dict[str, str]:
    """Version by package name, for the lines that are meant for this machine."""
    found = {}
    for line in text.splitlines():
        pin = _PIN.match(line)
        if pin and (pin["marker"] is None or Marker(pin["marker"].strip()).evaluate()):
            found[pin["name"]] = pin["version"]
    return found


def differences(lock: Path) -> list[str]:
    """One phrase for each package that is missing or of another version than locked."""
    found = []
    for name, version in pins(lock.read_text(encoding="utf-8")).items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} {version} is missing")
            continue
        if installed != version:
            found.append(f"{name} is {installed} instead of {version}")
    return found
