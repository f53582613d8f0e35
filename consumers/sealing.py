"""Short texts that only processes with the installation's key can read.

What an erasure is about (the entity at the vendor, a record's key) may be personal data itself. It has to wait in a
plan's file and in a topic until it is done, and there it stands sealed.

HMAC-SHA-256 in counter mode with a fresh nonce, then a tag over nonce and text (encrypt-then-MAC), each with a key of
its own drawn from the installation's. Not more than some kilobytes each: one hash a block of 32 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from itertools import count

_FORMAT = "s1."
_NONCE = 16
_TAG = 16


def seal(text: str, key: bytes) -> str:
    """The text sealed: letters, digits, ``-``, ``_`` and one dot. Never the same twice."""
    plain = text.encode("utf-8", "surrogatepass")
    nonce = secrets.token_bytes(_NONCE)
    hidden = _mixed(plain, nonce, key)
    return _FORMAT + base64.urlsafe_b64encode(nonce + hidden + _tag(nonce + hidden, key)).decode()


def unseal(sealed: str, key: bytes) -> str | None:
    """What was sealed with this key; None for anything else."""
    if not sealed.startswith(_FORMAT):
        return None
    try:
        whole = base64.b64decode(sealed.removeprefix(_FORMAT), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    nonce, hidden, tag = whole[:_NONCE], whole[_NONCE:-_TAG], whole[-_TAG:]
    if len(whole) < _NONCE + _TAG or not hmac.compare_digest(_tag(nonce + hidden, key), tag):
        return None
    try:
        return _mixed(hidden, nonce, key).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _mixed(content: bytes, nonce: bytes, key: bytes) -> bytes:
    """Content combined with the key's stream for this nonce; doing it again takes it back."""
    own = hmac.digest(key, b"backbone seal: hide", "sha256")
    stream = bytearray()
    for block in count():
        if len(stream) >= len(content):
            break
        stream += hmac.digest(own, nonce + block.to_bytes(8, "big"), "sha256")
    return bytes(one ^ other for one, other in zip(content, stream, strict=False))


def _tag(content: bytes, key: bytes) -> bytes:
    own = hmac.digest(key, b"backbone seal: prove", "sha256")
    return hmac.digest(own, content, "sha256")[:_TAG]
