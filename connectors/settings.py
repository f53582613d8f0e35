"""What the settings of several connectors have in common: address, credential and limits, each with its bound."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

SETTINGS = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
"""Unknown settings are errors, and no error repeats what was typed (it may be the secret)."""


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    loopback = host in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("must begin with https:// (http:// only for this machine): the credential goes with it")
    if not host or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be scheme and host, perhaps a port and a path, and nothing else")
    return url.rstrip("/")


def _credential(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is empty or holds spaces, line ends or other characters that no credential has")
    return secret


BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""Where the vendor answers. https, or http on this machine for its fake; no credentials inside."""

Credential = Annotated[SecretStr, AfterValidator(_credential)]
"""A secret that fits into a header."""

Timeout = Annotated[float, Field(gt=0, le=30)]
"""Seconds for a whole call, from connecting to the last byte of the answer."""

Connections = Annotated[int, Field(ge=1, le=4096)]
"""Size of the connection pool: at least the calls in flight."""
