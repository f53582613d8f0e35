"""When credentials end, as far as anybody can know: what a certificate or a token says of itself, what a person wrote.

What renews itself (OAuth access tokens, leases of the vault) has no end here, until its renewal fails. Times are
seconds since the epoch, UTC. No part of a credential leaves this module but its end.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, SecretStr

_TOKEN_MAX = 64 << 10
_FILE_MAX = 4 << 20


def of_token(text: str) -> float | None:
    """The end of a token that says it: a JWT's ``exp`` (RFC 7519), whose signature is not looked at. None for every
    other text."""
    parts = text.split(".")
    if len(parts) != 3 or len(text) > _TOKEN_MAX:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ends = claims["exp"]
        is_time = type(ends) in (int, float) and math.isfinite(ends)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return float(ends) if is_time else None


def of_certificate(content: bytes) -> float | None:
    """The end of a certificate of ours: the first one of its chain (PEM) to end. None where there is none to read."""
    return min(_ends(content), default=None)


def of_trusted(content: bytes) -> float | None:
    """The end of a file of authorities (PEM): the last one of them to end; after that nobody is trusted by it."""
    return max(_ends(content), default=None)


def _ends(content: bytes) -> list[float]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return [one.not_valid_after_utc.timestamp() for one in load_pem_x509_certificates(content)]
    except ValueError:
        return []


def of_kafka(settings: Mapping[str, Any]) -> float | None:
    """Of the certificates that librdkafka's settings name, as their files are now. Blocks on reading them."""
    own = _read(settings.get("ssl.certificate.location"))
    trusted = _read(settings.get("ssl.ca.location"))
    password = str(settings.get("ssl.keystore.password", ""))
    return earliest([
        None if own is None else of_certificate(own),
        None if trusted is None else of_trusted(trusted),
        _of_keystore(_read(settings.get("ssl.keystore.location")), password),
    ])  # fmt: skip


def _of_keystore(content: bytes | None, password: str) -> float | None:
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

    if content is None:
        return None
    try:
        found = load_pkcs12(content, password.encode() or None)
    except ValueError:
        return None
    certificates = [found.cert, *found.additional_certs]
    return earliest(None if one is None else one.certificate.not_valid_after_utc.timestamp() for one in certificates)


def of_settings(settings: BaseModel) -> float | None:
    """Of the secrets in a connector's settings: tokens, and the client certificate that a database URL names
    (``?sslcert=``). Blocks on reading that."""
    ends = []
    for name in type(settings).model_fields:
        secret = getattr(settings, name)
        if isinstance(secret, SecretStr):
            text = secret.get_secret_value()
            ends += [of_token(text), _of_url(text)]
    return earliest(ends)


def _of_url(text: str) -> float | None:
    if "sslcert=" not in text:
        return None
    try:
        named = parse_qs(urlsplit(text).query).get("sslcert", [])
    except ValueError:
        return None
    return earliest(of_certificate(content) for one in named if (content := _read(one)) is not None)


def of_day(day: date | None) -> float | None:
    """The beginning of a day that a person wrote."""
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def earliest(ends: Iterable[float | None]) -> float | None:
    """None where nothing says when."""
    return min((one for one in ends if one is not None), default=None)


def _read(file: Any) -> bytes | None:
    """None for what is no file that can be read: whoever uses it says so (librdkafka's ``probe`` is a word)."""
    if not file or file == "probe":
        return None
    try:
        with Path(str(file)).open("rb") as opened:
            return opened.read(_FILE_MAX)
    except (OSError, ValueError):
        return None
