"""``backbone receipt list``: how deliveries ended, from the ledger. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.ledger.query import StoredReceipt

COLUMNS = [
    Column("last_at", "WHEN"),
    Column("subscription"),
    Column("event_type", "EVENT"),
    Column("event_id", "ID"),
    Column("action"),
    Column("entity"),
    Column("outcome"),
    Column("reason"),
    Column("reference", "VENDOR'S ID"),
    Column("attempts"),
    Column("change_id", "CHANGE"),
]


@click.group(no_args_is_help=True)
def receipt() -> None:
    """Receipts: how deliveries ended."""


@receipt.command("list")
@click.option("--event", metavar="ID", help="Of the event with this id.")
@click.option("--entity", metavar="VALUE", help="About this entity at the vendor.")
@click.option("--key", metavar="FIELD=VALUE", help="Of events whose entity, key or subject has this value.")
@click.option("--subscription", metavar="NAME", help="Of this subscription.")
@click.option("--outcome", "outcomes", multiple=True, metavar="OUTCOME",
              help="With this outcome: delivered, skipped, rejected, undecodable, exhausted, unknown, parked. "
              "Repeat it for several.")  # fmt: skip
@click.option("--cause", metavar="CODE", help="With this reason (merged, expired, invalid_email ...).")
@click.option("--change", metavar="CHANGE", help="Caused by this change (ch-7f3a).")
@click.option("--from", "since", metavar="@TIME", help="That ended at this time or later (@-2h, @2026-05-01T14:00Z).")
@click.option("--to", "until", metavar="@TIME", help="That ended before this time.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@screen_options
@click.pass_obj
def list_(
    app: App,
    event: str | None,
    entity: str | None,
    key: str | None,
    subscription: str | None,
    outcomes: tuple[str, ...],
    cause: str | None,
    change: str | None,
    since: str | None,
    until: str | None,
    limit: int,
) -> None:
    """How deliveries ended, the newest first, as the ledger has them; conditions are all to hold.

    A personal value is found by its keyed hash and is never shown.

    JSON: one row a delivery with the fields of backbone.DeliverySettled: event, origin, subscription, action, entity,
    outcome, reason, reference, attempts, times, change, names of the fields sent.
    """
    from ops.ledger.query import Wanted
    from ops.ledger.question import AboutValue, parse_question
    from ops.positions import parse_time
    from schemas.errors import InputError

    now = datetime.now(UTC)
    value = types = None
    if key is not None:
        asked = parse_question(key, app.contracts)
        if not isinstance(asked, AboutValue):
            raise InputError("--key is written FIELD=VALUE, for example --key user_id=u-4711.")
        value, types = asked.value, asked.types
    for outcome in outcomes:
        _check_outcome(outcome)
    wanted = Wanted(
        event_id=event,
        entity=entity,
        value=value,
        types=types,
        subscription=subscription,
        outcomes=outcomes,
        reason=cause,
        change=change,
        since=None if since is None else parse_time(since, now),
        until=None if until is None else parse_time(until, now),
    )
    ledger = app.ledger()
    if subscription is not None and ledger.exists:
        _check_subscription(ledger.subscriptions(), subscription)
    found = ledger.find(wanted, limit=limit + 1)
    empty = "No receipt is like that."
    if not ledger.exists:
        empty = "The ledger is empty: no worker has written to it yet. Start one: backbone run"
    rows = [receipt_row(one) for one in found[:limit]]
    if app.screen.output == "table":
        rows = [{**row, "entity": entity_text(row), "reference": _reference_text(row)} for row in rows]
    app.screen.rows("receipts", rows, COLUMNS, empty=empty)
    if len(found) > limit:
        app.screen.warn(f"Only the newest {limit:,} are shown; more with --limit, or narrow it.")


def receipt_row(one: StoredReceipt) -> dict[str, Any]:
    """A receipt as JSON has it: the contract's names; hashed values stand as the hash."""
    return {
        "event_id": one.event_id,
        "event_type": one.event_type,
        "event_source": one.event_source,
        "event_time": one.event_time,
        "origin": str(one.origin),
        "subscription": one.subscription,
        "subscription_version": one.subscription_version,
        "connection": one.connection,
        "action": one.action or None,
        "entity": one.entity or None,
        "entity_hashed": one.entity_hashed,
        "about": one.about or None,
        "outcome": one.outcome,
        "reason": one.reason,
        "merged_into": one.merged_into,
        "reference": one.reference,
        "reference_hashed": one.reference_hashed,
        "attempts": one.attempts,
        "first_at": one.first_at,
        "last_at": one.last_at,
        "seconds": round((one.last_at - one.first_at).total_seconds(), 3),
        "change_id": one.change_id,
        "change_kind": one.change_kind,
        "redrives": one.redrives,
        "revision": one.revision or None,
        "idempotency_key": one.idempotency_key or None,
        "trace_id": one.trace_id,
        "fields_sent": one.fields_sent,
        "personal_data_sent": one.personal_data_sent,
        "body_fields": one.body_fields,
        "body_sha256": one.body_sha256,
        "replaced": one.is_earlier,
    }


def entity_text(row: Mapping[str, Any]) -> str | None:
    """The entity for people."""
    about = f"{row['about']} " if row["about"] and not row["entity_hashed"] else ""
    return f"{about}{'‹hashed›' if row['entity_hashed'] else row['entity']}" if row["entity"] else None


def _reference_text(row: Mapping[str, Any]) -> str | None:
    return "‹hashed›" if row["reference"] and row["reference_hashed"] else row["reference"]


def _check_outcome(outcome: str) -> None:
    from consumers.receipts import ReceiptOutcome
    from schemas.errors import InputError
    from schemas.findings import did_you_mean

    known = get_args(ReceiptOutcome)
    if outcome not in known:
        raise InputError(
            f"There is no outcome '{outcome}'.{did_you_mean(outcome, known)} There are: {', '.join(known)}."
        )


def _check_subscription(known: list[str], name: str) -> None:
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    if name not in known:
        raise NotFoundError(f"The ledger has no receipt of a subscription '{name}'.{did_you_mean(name, known)}")
