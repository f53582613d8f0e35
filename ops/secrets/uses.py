"""How each thing that a worker or monitor opens takes new credentials: Kafka's clients, registry, vendors, ledger.

What librdkafka cannot do while it runs: read its TLS files again, or take another client secret of OAUTHBEARER. That
is said, and a restart is asked for. User and password of PLAIN and SCRAM it takes; open connections stay authenticated
until the broker ends them (``connections.max.reauth.ms``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.secrets import expiry
from ops.secrets.rotation import Use
from ops.settings import TLS_FILES
from schemas.errors import InputError

if TYPE_CHECKING:
    from connectors.connection import Connection
    from connectors.connector import ConnectorType
    from ops.app import App
    from ops.ledger.database import Address
    from ops.ledger.subscription import BuiltIn
    from ops.settings import Context, ResolvedConnection

RESTART = "Restart this process: SIGTERM lets what is in flight end first."
"""What a person does where a client takes new credentials only when it starts."""
LIVE = frozenset({"sasl.username", "sasl.password"})
"""What Kafka's clients take while they run."""


def of_kafka(context: Context, renew: Callable[[str, str], None]) -> Use:
    """``renew(user, password)`` tells every client of the process."""

    def read() -> dict[str, Any]:
        settings = context.kafka_now()
        return settings | {f"{key} (content)": _digest(settings[key]) for key in TLS_FILES & settings.keys()}

    began = read()

    def take(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
        if any(before.get(key) != after.get(key) for key in LIVE):
            renew(str(after.get("sasl.username", "")), str(after.get("sasl.password", "")))
        kept = sorted(
            key.removesuffix(" (content)")
            for key in (began.keys() | after.keys()) - LIVE
            if began.get(key) != after.get(key)
        )
        return f"{' and '.join(kept)} changed, which its client reads only when it starts. {RESTART}" if kept else ""

    # as its files were when its client read them: another one on the disk does not help this process
    ends = expiry.of_kafka(began)
    return Use("Kafka", read, take, began, label="kafka", expiry=lambda _: ends)


def of_registry(app: App) -> Use | None:
    """None for a registry that is no server."""
    from schemas.registry import HttpRegistry

    registry, context = app.registry, app.context
    if not isinstance(registry, HttpRegistry):
        return None

    def read() -> dict[str, Any]:
        found = context.registry_credentials()
        return {key: found[key] for key in ("username", "password", "token") if key in found}

    def take(_: object, after: Mapping[str, Any]) -> str:
        registry.renew(**after)
        return ""

    def ends(now: Mapping[str, Any]) -> float | None:
        return expiry.of_token(str(now.get("token", "")))

    return Use("the registry", read, take, read(), label="registry", expiry=ends)


def of_connection(connection: Connection, resolved: ResolvedConnection, kind: ConnectorType, settings: Any) -> Use:
    """``settings``: what it was opened with."""

    def take(_: object, after: Any) -> str:
        connection.renew(kind.open(after))
        return ""

    return Use(
        f"the connection {resolved.name}",
        lambda: resolved.settings(kind),
        take,
        settings,
        label=resolved.name,
        expiry=resolved.expiry,
    )


def of_ledger(
    connection: Connection, ledger: BuiltIn, address: Callable[[], Address | None], moved: Callable[[Address], BuiltIn]
) -> Use:
    """``moved`` is told the address to use from now on, and answers the ledger there."""

    def read() -> Address:
        found = address()
        if found is None:
            raise InputError("the address of the ledger is gone.")
        return found

    def take(before: Address, after: Address) -> str:
        if _place(before) != _place(after):
            return f"it is another database now. {RESTART}"
        connection.renew(moved(after).connector())
        return ""

    return Use("the ledger", read, take, ledger.address)


def _place(address: Address) -> Any:
    # not ``url.set``: to that, None means "as it was"
    return address.url._replace(username=None, password=None)


def _digest(file: str) -> str:
    """Of a TLS file's content; empty where it cannot be read now: librdkafka has it in memory."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""
