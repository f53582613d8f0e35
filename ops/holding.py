"""What holds a subscription, as its workers see it: a connection, a quota, a key, a slow projection. Pure.

The cluster shows that something waits; only the workers know why. They say it in their heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ops.problems import Case, Kind, Problem, problem, since_s
from ops.wording import counted, duration

if TYPE_CHECKING:
    from consumers.heartbeat import Held
    from ops.connections import ConnectionStatus
    from ops.watch.heartbeats import Beat

EVERYDAY_S = 10.0
"""A key that is held for less is a first retry: nothing that a person has to know."""
QUOTA_FULL = 0.95

WHY = {
    "retry": "an attempt failed",
    "busy": "the vendor says that its object is busy",
    "schema": "its schema is not known here yet",
    "letter": "its dead letter is being written",
}


def holds(case: Case, now: datetime) -> Iterator[Problem]:
    """What holds one subscription, besides its connection."""
    yield from _blind(case)
    yield from _cannot_run(case)
    yield from _held(case, now)
    yield from _parked(case, now)
    yield from _slow(case)


def connection_problems(status: ConnectionStatus, now: datetime) -> list[Problem]:
    """What is wrong with a connection that attached subscriptions use; its problems concern all of them."""
    name, where = status.name, f" {status.where}" if status.where else ""
    first, *others = status.subscriptions or ("nobody",)
    whom = f"It holds {first}" + (f" and {counted(len(others), 'more subscription')}" if others else "") + "."
    how = where + (f" ({status.reason})" if status.reason else "")
    until = moment(status.until)
    going_on = "" if until is None else f", until {until:%H:%M:%S}Z"
    kind: Kind | None = None
    match status.state:
        case "stopped":
            kind, command = "connection_stopped", f"backbone connection check {name}"
            cause = (
                f"The connection {name} stopped{how}: a person must mend its credentials or permissions. {whom} "
                f"It asks once a minute; at once: backbone connection resume {name}"
            )
        case "held":
            kind, command = "connection_held", f"backbone connection resume {name}"
            by = f" by {status.control.by}" if status.control is not None and status.control.by else ""
            because = f" ({status.reason})" if status.reason else ""
            cause = f"The connection {name} is paused{by}{because}: no call is made. {whom}"
        case "open":
            kind, command = "circuit_open", f"backbone connection check {name}"
            cause = f"The circuit of {name} is open{how}{going_on}: events wait, none is set aside for it. {whom}"
        case "half_open":
            kind, command = "circuit_open", f"backbone connection show {name}"
            cause = f"The circuit of {name} is half open{how}: one call at a time shows whether it is back. {whom}"
        case "paused" if status.reason == "quota":
            kind, command = "quota", f"backbone connection show {name}"
            cause = f"The vendor's quota of {name} is used up{where}{going_on}. {whom}"
        case "paused":
            kind, command = "connection_paused", f"backbone connection show {name}"
            cause = f"{name} waits for its vendor{how}{going_on}: it asked for quiet, or did not answer. {whom}"
        case "running" | "unused":
            command = f"backbone connection show {name}"
            full = [view for _, view in status.views if (view.quota_used or 0.0) >= QUOTA_FULL and view.waiting]
            if full:
                kind = "quota"
                used = max(view.quota_used or 0.0 for view in full)
                cause = f"The rate of {name} is used up ({used:.0%}): what is ready waits for its turn. {whom}"
        case word:
            kind, command = "connection_paused", f"backbone connection show {name}"
            cause = f"The connection {name} is {word}{how}. {whom}"
    if kind is None:
        return []
    said = status.control
    age_s = since_s(said.at, now) if said is not None and status.state in ("held", "stopped") else None
    return [
        Problem(
            kind=kind,
            subject=name,
            cause=cause,
            age_s=None if age_s is None else round(age_s, 3),
            owner="",
            command=command,
            subscriptions=status.subscriptions,
            until=until,
        )
    ]


def credential_problems(beats: Sequence[Beat]) -> list[Problem]:
    """Credentials that were replaced and that workers could not take; one problem a sentence, over all workers."""
    said: dict[str, list[str]] = {}
    for beat in beats:
        for sentence in beat.heartbeat.credentials:
            said.setdefault(sentence, []).append(beat.heartbeat.process)
    found = []
    for sentence, processes in sorted(said.items()):
        where = processes[0] if len(processes) == 1 else f"{processes[0]} and {len(processes) - 1} more"
        found.append(
            Problem(kind="credentials", subject=where, cause=sentence, age_s=None, owner="", command="backbone doctor")
        )
    return found


def _blind(case: Case) -> Iterator[Problem]:
    if case.sight.is_blind:
        silent_s = case.sight.silent_s
        since = "" if silent_s is None else f" for {_span(silent_s)}"
        cause = f"No heartbeat from any worker{since}: what holds it inside its workers cannot be seen."
        yield problem(case, "not_seen", cause, f"backbone lag {case.attached.name} -v", silent_s)


def _cannot_run(case: Case) -> Iterator[Problem]:
    name, state = case.attached.name, case.attached.state
    if state.state != "running":
        return
    said: dict[str, list[str]] = {}
    for beat, view in case.sight.views:
        before = state.at and beat.heartbeat.at < _epoch(state.at)
        if view.state != "running" and view.reason and not before:
            said.setdefault(view.reason, []).append(beat.heartbeat.process)
    for reason, processes in said.items():
        where = processes[0] if len(processes) == 1 else f"{processes[0]} and {len(processes) - 1} more"
        sentence = reason if reason.endswith((".", "!", "?")) else f"{reason}."
        yield problem(case, "cannot_run", f"It cannot run in {where}: {sentence}", f"backbone status {name}")


def _held(case: Case, now: datetime) -> Iterator[Problem]:
    held = [one for one in case.sight.held if now.timestamp() - one.since >= EVERYDAY_S]
    if not held:
        return
    oldest = held[0]
    age_s = now.timestamp() - oldest.since
    why = WHY.get(oldest.why, oldest.why)
    reason = f" ({oldest.reason})" if oldest.reason else ""
    due_s = None if oldest.due is None else oldest.due - now.timestamp()
    again = "" if due_s is None else f", tried again in {_span(max(0.0, due_s))}"
    # those that are held for a moment are not counted where they are named; where they are not, they cannot be told
    more = case.sight.held_total - len(case.sight.held) + len(held) - 1
    others = f" {counted(more, 'more key')} {'is' if more == 1 else 'are'} held." if more > 0 else ""
    waiting = f"; {counted(oldest.waiting, 'event')} {'waits' if oldest.waiting == 1 else 'wait'} behind it"
    cause = f"{_which(case, oldest)}: {why}{reason}{again}{waiting}.{others}"
    command = "backbone doctor" if oldest.why == "schema" else f"backbone event get {oldest.origin}"
    yield problem(
        case, "key_held", cause, command, age_s, origin=oldest.origin, key=_key(case, oldest), waiting=oldest.waiting
    )


def _parked(case: Case, now: datetime) -> Iterator[Problem]:
    count = case.sight.parked_keys
    if not count:
        return
    name, command = case.attached.name, f"backbone deadletter list {case.attached.name}"
    words = f"{counted(count, 'key')} {'is' if count == 1 else 'are'} parked behind open dead letters"
    parked = case.sight.parked
    if not parked:
        yield problem(case, "keys_parked", f"{words}.", command)
        return
    oldest = parked[0]
    waiting = f"{counted(oldest.waiting, 'event')} {'waits' if oldest.waiting == 1 else 'wait'} behind it"
    cause = (
        f"{words}; the oldest: {_which(case, oldest)}, {waiting}. "
        f"They go on once it is delivered or discarded: backbone deadletter redrive {name}"
    )
    yield problem(
        case, "keys_parked", cause, command, parked_s(case, oldest, now),
        origin=oldest.origin, key=_key(case, oldest), waiting=oldest.waiting,
    )  # fmt: skip


def parked_s(case: Case, parked: Held, now: datetime) -> float | None:
    """How long a key is parked: its worker says since when, or its dead letter does."""
    if parked.since > 0:
        return now.timestamp() - parked.since
    letters = case.dead.letters if case.dead is not None else ()
    since = next((found.since for found in letters if found.id == parked.origin), None)
    return None if since is None else max(0.0, (now - since).total_seconds())


def _slow(case: Case) -> Iterator[Problem]:
    slowest = max((view.slow_projection_s for _, view in case.sight.views), default=0.0)
    if slowest > 0:
        cause = (
            f"Its projection took {_span(slowest)} for one event: the whole worker stood still, and every "
            "subscription in it."
        )
        yield problem(case, "slow_projection", cause, f"backbone subscription preview {case.attached.name}")


def _which(case: Case, held: Held) -> str:
    known = case.standing.get(held.origin)
    return held.origin if known is None else known.words


def _key(case: Case, held: Held) -> str | None:
    known = case.standing.get(held.origin)
    return None if known is None else known.key


def moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time; None for none, and for what is no time."""
    try:
        return None if seconds is None else datetime.fromtimestamp(round(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _epoch(at: str) -> float:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0


def _span(seconds: float) -> str:
    return duration(timedelta(seconds=seconds))
