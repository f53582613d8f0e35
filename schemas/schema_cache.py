"""Schemas by id on disk. A schema never changes its meaning, so what is here is never out of date: a worker starts with
the registry away. Written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

_LOG = logging.getLogger("backbone.registry")


class SchemaCache:
    """One file an id in a folder of the registry's own; ``url`` tells registries apart. May be used from any thread.

    Ids that a registry has given keep their meaning only as long as it keeps its data: who resets a registry (a local
    one) removes this folder with it.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._said = False

    def read(self, key: int | str) -> str | None:
        """The schema's text, or None where it is not here or not whole."""
        try:
            text = (self._folder / f"{_file_name(key)}.avsc").read_text("utf-8")
            json.loads(text)
        except (OSError, ValueError, RecursionError):  # absent, or not what was written: asked of the registry again
            return None
        return text

    def write(self, key: int | str, text: str) -> None:
        """Keep a schema. A folder that cannot be written is said once in the log, and nothing else happens."""
        target = self._folder / f"{_file_name(key)}.avsc"
        partial = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._folder, prefix=".partial-")
            with open(handle, "w", encoding="utf-8") as opened:
                opened.write(text)
            os.replace(partial, target)
        except OSError as error:
            if partial:
                Path(partial).unlink(missing_ok=True)
            if not self._said:
                self._said = True
                _LOG.warning("schemas are not kept on disk: %s", error.strerror or type(error).__name__)


def _file_name(key: int | str) -> str:
    return str(key) if isinstance(key, int) else hashlib.sha256(key.encode()).hexdigest()[:32]
