"""A change as anybody sees it, also from another machine than the one that planned it.

Its own machine knows everything (``ops.changes.store``). Elsewhere the audit says who began it and how it ended, and
``backbone.heartbeat`` whether it runs and how far it is; its steps, and what they noted, are known there only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ops.changes import audit
from ops.changes.audit import Entry
from ops.changes.plan import JsonValue
from ops.changes.store import Store
from schemas.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from ops.app import App
    from ops.changes.beat import Heard

State: TypeAlias = Literal["planned", "applying", "applied", "failed", "cancelled", "undone"]
"""As ``Progressed.state``: applying means begun and not ended, running or cut."""
ENDS: Final = 15.0
"""Seconds within which the audit has the end of a change that says that it is left; later it was cut."""


@dataclass(frozen=True, slots=True)
class Target:
    """A change as it is known here. ``is_here``: planned on this machine; ``runs``: a process applies it now;
    ``began`` is the audit's first entry of its applying, None where this machine knows better."""

    id: str
    kind: str
    title: str
    author: str
    state: State
    runs: bool
    is_here: bool
    began: Entry | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a change that was watched came to its end; ``applying``: it was cut."""

    state: str
    error: str = ""
    after: dict[str, JsonValue] = field(default_factory=dict)


def find(app: App, change_id: str) -> Target:
    """Blocks on the cluster for a change of another machine. Raises NotFoundError where neither this machine nor the
    audit knows it."""
    store = Store.of(app)
    try:
        plan = store.load(change_id)
    except NotFoundError:
        entries = [entry for entry in audit.entries(app) if entry.change_id == change_id]
        if not entries:
            raise
        return _from_audit(app, entries)
    state, runs = store.progressed(change_id).state, store.is_running(change_id)
    return Target(plan.id, plan.kind, plan.title, plan.author, state, runs, is_here=True)


def _from_audit(app: App, entries: Sequence[Entry]) -> Target:
    from ops.changes.beat import read_beats

    first, state = entries[0], state_of(entries)
    began = next((entry for entry in entries if entry.phase == "planned"), None)
    heard = read_beats(app).get(first.change_id) if state == "applying" else None
    runs = heard is not None and heard.is_fresh
    return Target(first.change_id, first.kind, first.summary, first.author, state, runs, is_here=False, began=began)


def state_of(entries: Sequence[Entry]) -> State:
    """What the audit says of one change, from its entries in order. Pure."""
    last = entries[-1]
    if last.phase in ("proposed", "approved"):
        return "planned"
    ends: dict[str, State] = {"applied": "applied", "failed": "failed", "undone": "undone"}
    if last.phase in ends:
        return ends[last.phase]
    # what broke in the middle goes on with apply; what somebody cancelled does not
    return "cancelled" if last.phase == "partly_applied" and last.after.get("cancelled") else "applying"


def close(app: App, target: Target, *, reason: str) -> None:
    """Write to the audit that a change which nobody runs any more was cancelled. Blocks; raises as ``audit.append``."""
    from ops.settings import user_name

    began = target.began
    if began is None:
        known = [one for one in audit.entries(app) if one.change_id == target.id and one.phase == "planned"]
        if not known:
            return
        began = known[0]
    ended = replace(
        began, phase="partly_applied", author=user_name(), reason=reason, after={"cancelled": True},
        at=datetime.now(UTC),
    )  # fmt: skip
    audit.append(app, ended)


def followed(app: App, change_id: str) -> Ended:
    """Wait, on another machine than its own, until nobody runs the change any more, with its progress on the screen.
    Blocks as long as it runs. Raises NotFoundError; RefusedError if it was never applied."""
    target = find(app, change_id)
    if target.state == "planned":
        raise RefusedError(f"{change_id} was not applied yet. {target.author} does it, where it was planned.")
    if target.state == "applying" and target.runs:
        _watch(app, change_id)
    return _ended(app, change_id, wait_s=ENDS if target.runs else 0.0)


def _watch(app: App, change_id: str) -> None:
    """Until it says that it is left, or nothing any more."""
    from confluent_kafka import KafkaError, TopicPartition

    from ops.changes.beat import TOPIC, read_beats

    consumer: Consumer = app.consumer(isolation_level="read_uncommitted", fetch_wait_max_ms=100)
    # from the end, asked for before what is there already is read: nothing can fall between
    end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=8.0)[1]
    consumer.assign([TopicPartition(TOPIC, 0, end)])
    now: Heard | None = read_beats(app).get(change_id)
    heard_at = time.monotonic() - (0.0 if now is None else now.age_s)
    total, unit = (None, "") if now is None else (now.beat.total, now.beat.unit)
    with app.screen.progress(total, unit) as progress:
        progress.advance(0 if now is None else now.beat.done)
        while now is not None and now.is_fresh:
            for message in consumer.consume(100, 0.5):
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise app.reading_error(error, TOPIC)
                if error is None and (told := _told(message.key(), message.value(), change_id)) != "other":
                    if told is None:
                        return
                    now, heard_at = told, time.monotonic()
                    progress.advance(told.beat.done - progress.done)
            now = replace(now, age_s=time.monotonic() - heard_at)


def _told(key: object, value: object, change_id: str) -> Heard | Literal["other"] | None:
    """What a record says of the change: its beat, None that it is left, or nothing of it."""
    from ops.changes.beat import Heard, change_of, decode_beat

    name = key if isinstance(key, bytes) else None
    if change_of(name) != change_id:
        return "other"
    if value is None:
        return None
    beat = decode_beat(name, value if isinstance(value, bytes) else None)
    return "other" if beat is None else Heard(beat, 0.0)


def _ended(app: App, change_id: str, *, wait_s: float) -> Ended:
    deadline = time.monotonic() + wait_s
    while True:
        entries = [entry for entry in audit.entries(app) if entry.change_id == change_id]
        state = state_of(entries)
        ended = entries[-1].phase != "planned"
        if ended or time.monotonic() > deadline:
            return Ended(state=state, after=entries[-1].after if ended else {})
        time.sleep(0.5)  # its end is written by another process; the deadline bounds it


__all__ = ["Ended", "State", "Target", "close", "find", "followed", "state_of"]
