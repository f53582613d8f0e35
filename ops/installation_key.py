"""The installation's key: the secret by which personal values stand in receipts as keyed hashes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ops.files import file_error
from schemas.errors import InputError

BYTES_MIN = 16


def checked_key(text: str, place: str) -> bytes:
    """A key that somebody gave. Raises InputError naming ``place``, never the key."""
    key = text.encode()
    if len(key) < BYTES_MIN:
        raise InputError(
            f"{place} is shorter than {BYTES_MIN} bytes, which can be guessed. Make one: openssl rand -hex 32"
        )
    return key


def made_key(path: Path) -> bytes:
    """The key in ``path``, made (readable by its owner alone) where there is none yet. However many processes ask at
    once, all get the same. Raises what a file's error means."""
    try:
        while True:
            try:
                return checked_key(path.read_text(encoding="ascii").strip(), str(path))
            except FileNotFoundError:
                _make(path)
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is no key: delete it, and values hashed with it cannot be looked up any more."
        ) from None
    except OSError as error:
        raise file_error(error, path) from None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(written, path)  # the whole key or none; the first one stays
    except FileExistsError:
        return
    finally:
        written.unlink()
