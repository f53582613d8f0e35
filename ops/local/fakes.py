"""The file in which the process of the vendors' fakes (``vendors.py``) says where they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ops.local.state import read_json, write_json


def write_fakes(path: Path, urls: Mapping[str, str]) -> None:
    """Say that this process serves these base URLs, by connector."""
    write_json(path, {"pid": os.getpid(), "urls": dict(urls)})


def read_fakes(path: Path, *, pid: int | None = None) -> dict[str, str] | None:
    """Base URLs by connector as the process ``pid`` (None: any) has written them; None as long as it has not."""
    content = read_json(path)
    urls = content.get("urls")
    if not isinstance(urls, dict) or (pid is not None and content.get("pid") != pid):
        return None
    return {str(name): str(url) for name, url in urls.items()}


def ports_of(urls: Mapping[str, str] | None) -> dict[str, int]:
    """The ports in the URLs, by connector; one that cannot be read is left out."""
    ports = {}
    for name, url in (urls or {}).items():
        with contextlib.suppress(ValueError):  # not a URL of ours: a port is chosen anew
            if port := urlsplit(url).port:
                ports[name] = port
    return ports
