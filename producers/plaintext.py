"""What would go over a network without TLS. Pure: settings in, a sentence's beginning out, None where all is well.

This machine's own addresses (127.0.0.0/8, ::1, localhost) are no network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


def of_kafka(settings: Mapping[str, Any]) -> str | None:
    """By librdkafka's settings, whose default is plaintext; where tokens are issued is looked at too."""
    issuer = of_url("the client secret would go to", str(settings.get("sasl.oauthbearer.token.endpoint.url", "")))
    if issuer is not None:
        return issuer
    protocol = str(settings.get("security.protocol", "plaintext")).upper()
    named = ",".join(str(settings.get(name, "")) for name in ("bootstrap.servers", "metadata.broker.list"))
    servers = [server.strip() for server in named.split(",") if server.strip()]
    away = [server for server in servers if not is_here(_host(server))]
    if protocol not in ("PLAINTEXT", "SASL_PLAINTEXT") or not away:
        return None
    secret = ", the password too" if protocol == "SASL_PLAINTEXT" else ""
    return f"events would go to {away[0]} unencrypted{secret} (security.protocol is {protocol})"


def of_url(what: str, url: str) -> str | None:
    """By an address over HTTP; ``what`` goes there: ``the registry would be asked at``."""
    if not url.lower().startswith("http://") or is_here(host := _host(url)):
        return None
    return f"{what} {host} unencrypted (http://)"


def is_here(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(server: str) -> str:
    """The host of ``host:port``, ``[::1]:port`` or ``SASL_SSL://host:port``; of anything else the text itself."""
    try:
        return urlsplit(server if "://" in server else f"//{server}").hostname or server
    except ValueError:
        return server  # an address that is none; the client says so
