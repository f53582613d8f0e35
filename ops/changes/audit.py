"""``backbone.audit``: who changed what, when and why. Written and acknowledged before anything is changed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from schemas.errors import BackboneError, NotFoundError, RefusedError

if TYPE_CHECKING:
    from ops.app import App
    from ops.changes.plan import Plan

TOPIC = "backbone.audit"
EVENT = "backbone.ChangeApplied"
Phase = Literal["planned", "applied", "partly_applied", "failed", "undone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit."""

    change_id: str
    kind: str
    phase: str
    context: str
    author: str
    reason: str
    plan_hash: str
    summary: str
    before: dict[str, Any]
    after: dict[str, Any]
    at: datetime


def record(app: App, plan: Plan, phase: Phase, *, after: Mapping[str, Any] | None = None, reason: str = "") -> None:
    """Write an entry and wait for its acknowledgement. Blocks up to 15 s.

    Raises RefusedError if the topic or its schema is missing (naming ``backbone schema register``) or the cluster
    refuses it, UnreachableError if it does not answer.
    """
    from ops.reading import partition_count
    from ops.sending import Outgoing, send_acked

    try:
        partition_count(app, TOPIC)
    except NotFoundError:
        raise RefusedError(
            f"The topic {TOPIC} does not exist yet, and nothing is changed without its audit record. "
            "Create it: backbone schema register"
        ) from None
    now = datetime.now(UTC)
    encoded = app.encoder.encode(
        app.engine_contracts[EVENT],
        {
            "change_id": plan.id,
            "kind": plan.kind,
            "phase": phase,
            "context": plan.context,
            "author": plan.author,
            "reason": reason or plan.reason or None,
            "plan_hash": plan.hash,
            "summary": plan.title,
            "before": json.dumps(plan.before, ensure_ascii=False),
            "after": json.dumps(plan.after if after is None else dict(after), ensure_ascii=False),
            "at": now,
        },
        id=str(uuid.uuid4()),
        source=f"backbone/{plan.context}",
        time=now,
        subject=plan.subject,
    )
    send_acked(app, [Outgoing(TOPIC, -1, encoded.key, encoded.value, encoded.headers)], within_s=15.0)


def entries(app: App) -> list[Entry]:
    """The whole audit, oldest first; empty if the topic does not exist yet. Blocks."""
    from ops.reading import as_record, read_to_end
    from schemas.codec import SchemaWanted
    from schemas.event import Event

    found = []
    try:
        for message in read_to_end(app, TOPIC):
            read = as_record(message)
            decoded = app.decoder.decode(read)
            if isinstance(decoded, SchemaWanted):
                app.decoder.load(decoded)
                decoded = app.decoder.decode(read)
            if isinstance(decoded, Event) and decoded.type == EVENT:
                found.append(_entry(decoded.data))
    except NotFoundError:
        return []
    return sorted(found, key=lambda entry: entry.at)


def _entry(data: Mapping[str, Any]) -> Entry:
    return Entry(
        change_id=data["change_id"], kind=data["kind"], phase=data["phase"], context=data["context"],
        author=data["author"], reason=data["reason"] or "", plan_hash=data["plan_hash"], summary=data["summary"],
        before=_values(data["before"]), after=_values(data["after"]), at=data["at"],
    )  # fmt: skip


def _values(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BackboneError(f"An entry of {TOPIC} holds values that are not JSON.") from error
    return found if isinstance(found, dict) else {}
