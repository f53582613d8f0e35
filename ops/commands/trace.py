"""``backbone trace``: one event, or all events of one business key, from the topic to the vendors. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.receipt import entity_text, receipt_row
from ops.screen import Column, shown
from schemas.errors import UnreachableError

if TYPE_CHECKING:
    from ops.ledger.trace import Delivered, TracedEvent

STEPS = [
    Column("subscription"),
    Column("state", "OUTCOME"),
    Column("last_at", "WHEN"),
    Column("action"),
    Column("entity"),
    Column("reference", "VENDOR'S ID"),
    Column("attempts"),
    Column("why"),
]
CALLS = [
    Column("subscription", "CALLED BY"),
    Column("outcome"),
    Column("at", "WHEN"),
    Column("connection"),
    Column("method"),
    Column("endpoint"),
    Column("status"),
    Column("attempt"),
    Column("seconds"),
]
CALLS_MAX = 100
LONG = ("deliveries", "exchanges")
WORDS = {
    "waiting": "waiting",
    "held": "held",
    "passed": "done, receipt not read yet",
    "not_ours": "not for it",
    "before_start": "before its start",
    "no_position": "no position",
    "dead_letter": "dead letter",
}


@click.command()
@click.argument("question", metavar="ID|FIELD=VALUE")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000),
              help="With FIELD=VALUE: at most so many events, the newest first.")  # fmt: skip
@click.option("--scan-max", type=click.IntRange(1), default=100_000, show_default=True, metavar="N",
              help="With an ID that has no receipt: look at so many records of the topics at most.")  # fmt: skip
@screen_options
@click.pass_obj
def trace(app: App, question: str, limit: int, scan_max: int) -> None:
    """What became of one event (ID, or its place TOPIC/PARTITION/OFFSET), or of all events of one business key.

    Shows where it stands, and for each subscription how its delivery ended (and had ended before), the vendor's id, its
    open dead letter, its redrives, or what it waits for. FIELD=VALUE finds events whose entity, key or subject has the
    value (user_id=u-4711); a personal value is found by its keyed hash and is never shown.

    JSON: data.events, each with id, type, source, time, origin, arrived and deliveries: subscription, state, steps (as
    of receipt list), dead_letter, before, held; and calls, those that workers on this machine have kept (as of
    connection calls, without what was asked and answered). data.unread: receipts that the ledger has not written yet.
    """
    from ops.ledger.question import AboutEvent, parse_question
    from ops.ledger.trace import trace_event, trace_value

    ledger = app.ledger()
    asked = parse_question(question, app.contracts)
    if isinstance(asked, AboutEvent):
        found = trace_event(app, ledger, asked, scan_max=scan_max)
    else:
        found = trace_value(app, ledger, asked, limit=limit)
    if found.unread:
        app.screen.warn(
            f"The ledger has not written the last {found.unread:,} receipts yet: some of this may be older."
        )
    events = [_event(one) | {"calls": _calls(app, one.id)} for one in found.events]
    data = {"events": events, "unread": found.unread}
    app.screen.document("trace", data, lambda shown_: _parts(app, shown_))
    closed = next((one for event in found.events for one in event.deliveries if one.letter is not None), None)
    kept = next(((event, one) for event in events for one in event["calls"]), None)
    if kept is not None:
        app.screen.say(
            f"What was asked and answered: backbone connection calls {kept[1]['connection']} --event {kept[0]['id']} "
            "--bodies"
        )
    if closed is not None:
        app.screen.say(
            f"Its open dead letter: backbone deadletter show {closed.subscription} {closed.letter.origin}"  # type: ignore[union-attr]
        )


def _calls(app: App, event: str) -> list[dict[str, Any]]:
    """The event's calls that were kept here, the oldest first; a log that cannot be read keeps nobody from the rest."""
    from ops.commands.connection_calls import call_row, kept_calls
    from ops.watch.call_store import CallsWanted

    try:
        found = kept_calls(app, CallsWanted(event=event), limit=CALLS_MAX)
    except UnreachableError as error:
        app.screen.warn(str(error))
        return []
    return [{key: value for key, value in call_row(one).items() if key not in LONG} for one in reversed(found)]


def _event(event: TracedEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "time": event.time,
        "origin": str(event.origin),
        "arrived": event.arrived,
        "deliveries": [_delivery(one) for one in event.deliveries],
    }


def _delivery(one: Delivered) -> dict[str, Any]:
    letter, held = one.letter, one.held
    return {
        "subscription": one.subscription,
        "state": one.state,
        "steps": [receipt_row(step) for step in one.receipts],
        "dead_letter": None if letter is None else {
            "id": str(letter.origin), "outcome": letter.outcome, "reason": letter.reason, "detail": letter.detail,
            "attempts": letter.attempts, "redrives": letter.redrives, "fingerprint": letter.fingerprint,
            "first_at": letter.first_at, "last_at": letter.last_at,
        },
        "before": one.before if one.standing == "waiting" else None,
        "held": None if held is None else {
            "why": held.why, "reason": held.reason, "since": datetime.fromtimestamp(held.since, UTC),
            "waiting": held.waiting, "due": None if held.due is None else datetime.fromtimestamp(held.due, UTC),
        },
    }  # fmt: skip


def _parts(app: App, data: dict[str, Any]) -> list[Any]:
    parts: list[Any] = []
    for event in data["events"]:
        when = "" if event["time"] is None else f", {shown(event['time'])}"
        arrived = "" if event["arrived"] is None else f", arrived {shown(event['arrived'])}"
        said = f"{event['type'] or 'cannot be decoded'}{when}"
        parts.append(f"{event['id']}  {said}\n  at {event['origin']}{arrived}")
        rows = [row for one in event["deliveries"] for row in _rows(one)]
        parts.append(app.screen.table(rows, STEPS) if rows else "  no attached subscription reads it")
        if event["calls"]:
            parts.append(app.screen.table(event["calls"], CALLS))
    return parts


def _rows(delivery: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for step in delivery["steps"]:
        rows.append(
            {
                **step,
                "state": step["outcome"],
                "entity": entity_text(step),
                "reference": "‹hashed›" if step["reference_hashed"] and step["reference"] else step["reference"],
                "why": _why(step),
            }
        )
    letter, held = delivery["dead_letter"], delivery["held"]
    if letter is not None and rows:
        rows[-1]["why"] = "; ".join(filter(None, (rows[-1]["why"], "its dead letter is open")))
    if not rows:
        words = WORDS.get(delivery["state"], delivery["state"])
        why = None
        if letter is not None:
            why = f"{letter['outcome']}: {letter['reason']}; it is open"
        elif held is not None:
            why = ": ".join(filter(None, (held["why"], held["reason"])))
        elif delivery["before"] is not None:
            why = f"at most {delivery['before']:,} before it" if delivery["before"] else "it is the next"
        rows.append({"subscription": delivery["subscription"], "state": words, "why": why})
    return rows


def _why(step: dict[str, Any]) -> str | None:
    parts = [step["reason"]] if step["reason"] else []
    if step["merged_into"]:
        parts.append(f"into {step['merged_into']}")
    if step["change_id"]:
        parts.append(f"{step['change_kind'] or 'change'} {step['change_id']}")
    return ", ".join(parts) or None
