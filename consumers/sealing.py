"""Short texts that only processes with the installation's key can read.

What an erasure is about (the entity at the vendor, a record's key) may be personal data itself. It has to wait in a
plan's file and in a topic until it is done, and there it stands sealed: Fernet of the ``cryptography`` library (AES and
HMAC-SHA-256), with a key of its own drawn from the installation's.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_FORMAT = "s1."


def seal(text: str, key: bytes) -> str:
    """The text sealed: letters, digits, ``-``, ``_``, ``=`` and one dot. Never the same twice."""
    return _FORMAT + _fernet(key).encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii")


def unseal(sealed: str, key: bytes) -> str | None:
    """What was sealed with this key; None for anything else."""
    from cryptography.fernet import InvalidToken

    if not sealed.startswith(_FORMAT):
        return None
    try:
        return _fernet(key).decrypt(sealed.removeprefix(_FORMAT).encode("utf-8")).decode("utf-8", "surrogatepass")
    except (InvalidToken, UnicodeError):
        return None


def _fernet(key: bytes) -> Fernet:
    from cryptography.fernet import Fernet

    return Fernet(base64.urlsafe_b64encode(hmac.digest(key, b"backbone seal", "sha256")))
