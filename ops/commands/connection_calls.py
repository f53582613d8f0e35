"""``backbone connection calls``: what was asked of a vendor and what it answered, redacted. Reads; changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column
from schemas.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from ops.watch.call_store import CallsWanted, KeptCall, KeptDelivery

COLUMNS = [
    Column("at", "WHEN"),
    Column("subscription"),
    Column("action"),
    Column("outcome"),
    Column("reason"),
    Column("method"),
    Column("endpoint"),
    Column("status"),
    Column("attempt"),
    Column("seconds"),
    Column("events"),
]


@click.command()
@click.argument("name")
@click.option("--event", metavar="ID", help="That asked something for the event with this id.")
@click.option("--entity", metavar="VALUE", help="About this entity at the vendor.")
@click.option("--outcome", metavar="OUTCOME",
              help="Whose worst outcome is this: delivered, retry_later, unavailable, rejected, unknown.")  # fmt: skip
@click.option("--from", "since", metavar="@TIME", help="That ended at this time or later (@-2h, @2026-05-01T14:00Z).")
@click.option("--to", "until", metavar="@TIME", help="That ended before this time.")
@click.option("--bodies", is_flag=True, help="Show what was asked and what was answered, too.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
@screen_options
@click.pass_obj
def calls(
    app: App,
    name: str,
    event: str | None,
    entity: str | None,
    outcome: str | None,
    since: str | None,
    until: str | None,
    bodies: bool,
    limit: int,
) -> None:
    """The calls of the connection NAME that workers on this machine have kept, the newest first.

    Kept are those of connections with call_log = true in backbone.toml, for 7 days (call_log.keep of the context).
    Values with a personal-data class are not in them: their class stands there, and of an answer only its shape, its
    codes and what was sent in the clear. A personal entity is found by its keyed hash.

    JSON: one row a call with id, at, subscription, connection, action, outcome, reason, attempt, seconds, trace_id,
    look_up, method, endpoint, status, events, deliveries (each with event, type, origin, entity, idempotency_key,
    attempt, outcome, reason, body) and exchanges (each with method, endpoint, status, failed, seconds, sent_bytes,
    received_bytes, headers, answer).
    """
    from ops.positions import parse_time
    from ops.watch.call_store import CallsWanted

    resolved = app.context.connection(name)
    now = datetime.now(UTC)
    wanted = CallsWanted(
        connection=name,
        event=event,
        entities=() if entity is None else _as_kept(app, entity),
        outcome=outcome,
        since=None if since is None else parse_time(since, now).timestamp(),
        until=None if until is None else parse_time(until, now).timestamp(),
    )
    found = kept_calls(app, wanted, limit=limit + 1)
    rows = [call_row(one) for one in found[:limit]]
    empty = "No kept call is like that."
    if not resolved.call_log:
        empty = (
            f"The calls of {name} are not kept: write call_log = true in [connections.{name}], and start the workers "
            "again."
        )
    elif not app.context.calls_file.exists():
        empty = "No worker on this machine has kept a call yet."
    if app.screen.output == "table" and bodies:
        app.screen.document("connection_calls", {"calls": rows}, lambda shown: _in_full(shown["calls"], empty))
    else:
        app.screen.rows("connection_calls", rows, COLUMNS, empty=empty)
    if len(found) > limit:
        app.screen.warn(f"Only the newest {limit:,} are shown; more with --limit, or narrow it.")


def kept_calls(app: App, wanted: CallsWanted, *, limit: int) -> list[KeptCall]:
    """Kept calls of this context, the newest first. Raises UnreachableError where the file cannot be read."""
    from ops.watch.call_store import find_calls

    file = app.context.calls_file
    try:
        return find_calls(file, wanted, limit=limit)
    except (sqlite3.Error, OSError) as error:
        raise UnreachableError(
            f"The call log {file} cannot be read ({error}). Nothing else depends on it; remove it, and workers begin a "
            "new one."
        ) from None


def call_row(call: KeptCall) -> dict[str, Any]:
    """A kept call as a row; method, endpoint and status are those of its last exchange."""
    last: Mapping[str, Any] = call.exchanges[-1] if call.exchanges else {}
    failed = next((one for one in call.deliveries if one.outcome == call.outcome), None)
    return {
        "id": call.id,
        "at": call.time,
        "subscription": call.subscription,
        "connection": call.connection,
        "action": call.action,
        "outcome": call.outcome,
        "reason": (failed.reason if failed is not None else "") or None,
        "attempt": call.attempt,
        "seconds": call.seconds,
        "trace_id": call.trace_id,
        "look_up": call.is_look_up,
        "method": last.get("method"),
        "endpoint": last.get("endpoint"),
        "status": last.get("status") or last.get("failed"),
        "events": len(call.deliveries),
        "deliveries": [_delivery(one) for one in call.deliveries],
        "exchanges": list(call.exchanges),
    }


def _delivery(one: KeptDelivery) -> dict[str, Any]:
    return {
        "event": one.event,
        "type": one.type,
        "origin": one.origin or None,
        "entity": one.entity or None,
        "entity_hashed": one.entity_hashed,
        "idempotency_key": one.idempotency_key,
        "attempt": one.attempt,
        "outcome": one.outcome,
        "reason": one.reason or None,
        "body": one.body,
    }


def _as_kept(app: App, entity: str) -> list[str]:
    """An entity as it may stand in the log: as it is, and as its keyed hash."""
    from consumers.receipts import hashed

    try:
        return [entity, hashed(entity, app.installation_key)]
    except InputError:
        return [entity]


def _in_full(calls: list[dict[str, Any]], empty: str) -> list[Any]:
    if not calls:
        return [empty]
    parts: list[str] = []
    for call in calls:
        parts.append(
            f"{call['at']:%Y-%m-%dT%H:%M:%SZ}  {call['subscription']}  {call['action']}  {call['outcome']}"
            f"{_reason(call['reason'])}, attempt {call['attempt']}, {call['seconds']:g} s"
        )
        for one in call["deliveries"]:
            entity = "‹hashed›" if one["entity_hashed"] else one["entity"] or ""
            parts.append(f"  {one['type']} {one['event']}  {entity}  {one['outcome']}{_reason(one['reason'])}")
            if one["body"] is not None:
                parts.append(f"    asked     {_text(one['body'])}")
        for one in call["exchanges"]:
            parts.append(
                f"  {one['method']} {one['endpoint']}  {one['status'] or one['failed']}  "
                f"{one['sent_bytes']:,} bytes there, {one['received_bytes']:,} back, {one['seconds']:g} s"
            )
            if one["headers"]:
                parts.append(f"    headers   {_text(one['headers'])}")
            if one["answer"] is not None:
                parts.append(f"    answered  {_text(one['answer'])}")
    return ["\n".join(parts)]


def _reason(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)
