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
Phase = Literal["proposed", "approved", "planned", "applied", "partly_applied", "failed", "undone"]
"""``proposed`` and ``approved`` where a context asks for two persons; ``planned``: about to act; the others: what came
of it."""


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
    """Write that a change moved on, by whoever runs this. Blocks and raises as ``append``."""
    from ops.settings import user_name

    entry = Entry(
        change_id=plan.id, kind=plan.kind, phase=phase, context=plan.context, author=user_name(),
        reason=reason or plan.reason, plan_hash=plan.hash, summary=plan.title, before=plan.before,
        after=plan.after if after is None else dict(after), at=datetime.now(UTC),
    )  # fmt: skip
    append(app, entry)


def append(app: App, entry: Entry) -> None:
    """Write an entry and wait for its acknowledgement. Blocks up to 15 s.

    Raises RefusedError if the topic or its schema is missing (naming ``backbone schema register``) or the cluster
    refuses it, UnreachableError if it does not answer.
    """
    from ops.sending import Outgoing, send_acked

    if not exists(app):
        raise RefusedError(
            f"The topic {TOPIC} does not exist yet, and nothing is changed without its audit record. "
            "Create it: backbone schema register"
        )
    encoded = app.encoder.encode(
        app.engine_contracts[EVENT],
        {
            "change_id": entry.change_id,
            "kind": entry.kind,
            "phase": entry.phase,
            "context": entry.context,
            "author": entry.author,
            "reason": entry.reason or None,
            "plan_hash": entry.plan_hash,
            "summary": entry.summary,
            "before": json.dumps(entry.before, ensure_ascii=False),
            "after": json.dumps(entry.after, ensure_ascii=False),
            "at": entry.at,
        },
        id=str(uuid.uuid4()),
        source=f"backbone/{entry.context}",
        time=entry.at,
        subject=entry.change_id,
    )
    send_acked(app, [Outgoing(TOPIC, -1, encoded.key, encoded.value, encoded.headers)], within_s=15.0)


def exists(app: App) -> bool:
    """Whether the audit's topic is there. Blocks."""
    from ops.reading import partition_count

    try:
        return partition_count(app, TOPIC) > 0
    except NotFoundError:
        return False


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
