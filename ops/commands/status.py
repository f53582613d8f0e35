"""``backbone status``: what is wrong now, worst first. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.lag import DAY, age_text, day_rows
from ops.screen import Column, shown
from schemas.errors import NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from consumers.control import ControlSnapshot
    from consumers.heartbeat import Held
    from ops.lag.cluster import Member
    from ops.look import Look
    from ops.problems import Case
    from ops.watch.heartbeats import Beats
    from schemas.contract import Contracts

SUBSCRIPTIONS = [
    Column("name", "SUBSCRIPTION"),
    Column("state"),
    Column("members"),
    Column("lag"),
    Column("lag_seconds", "OLDEST", age_text),
    Column("slo_seconds", "SLO", age_text),
    Column("dead_letters", "DEAD"),
    Column("owner"),
]
PARTITIONS = [
    Column("topic"),
    Column("partition", "PART", str),
    Column("begun"),
    Column("committed"),
    Column("done_ahead"),
    Column("end"),
    Column("lag"),
    Column("lag_seconds", "OLDEST", age_text),
    Column("member"),
]
MEMBERS = [
    Column("client_id", "MEMBER"),
    Column("host"),
    Column("partitions", "PARTITIONS", str),
    Column("heard_seconds", "HEARD", lambda seconds: f"{age_text(seconds)} ago"),
    Column("state"),
    Column("unfinished"),
    Column("records_per_second", "PER S"),
]
HELD = [
    Column("origin", "HELD RECORD"),
    Column("event"),
    Column("key"),
    Column("why"),
    Column("reason"),
    Column("held_seconds", "SINCE", age_text),
    Column("waiting", "BEHIND IT"),
    Column("due_seconds", "AGAIN IN", age_text),
]
NEXT = [
    Column("origin", "NEXT RECORD"),
    Column("event"),
    Column("key"),
    Column("age_seconds", "ARRIVED", lambda seconds: f"{age_text(seconds)} ago"),
]
NEXT_MAX = 5
"""So many partitions' next records are shown, those of the oldest."""


@click.command()
@click.argument("name", required=False)
@screen_options
@click.pass_obj
def status(app: App, name: str | None) -> None:
    """What is wrong now, worst first, with the command to type next; or everything about the subscription NAME.

    HELD BY says what keeps events from being delivered: the vendor's quota, an open circuit, a connection that waits
    or stopped, a held or parked key, a slow projection, a pause, or that it is catching up. What only the workers
    know comes from their heartbeats; that none is heard is said. Where a monitor runs it is also known what
    takes time to be seen: that one stands still, an ETA, the last 24 hours of NAME.

    Exit code 0 whatever it finds; to be told by an exit code: backbone lag --fail-over 60s, backbone deadletter list
    --fail-on.

    JSON: problems, each with kind, subject, cause, age_s, owner, command and where it says something subscriptions,
    origin, key, waiting, until, eta_s; and subscriptions, each with name, state, version, owner, connection, members,
    lag, lag_seconds, slo_seconds, dead_letters, held_keys, parked_keys, records_per_second, eta_seconds,
    catch_up_left (offsets before the hand-over position of its attach), held_by, problems;
    sampled_at (when a monitor looked, null: none answers). With NAME: that one in full, catch_up with its offsets_left,
    folding (how far the past is folded, in words), eta_seconds, hand_over (the recorded positions) and handed_over_at
    too.
    """
    from ops import diagnosis
    from ops.look import take
    from ops.problems import as_text

    control = app.control()
    if name is not None and name not in control.subscriptions:
        raise _unknown(control, name)
    names = [name] if name is not None else list(control.subscriptions)
    now = datetime.now(UTC)
    look = take(app, control, names, now, everything=name is None)
    if look.sampled is not None:
        app.screen.say(f"What takes time to be seen was sampled {look.sampled.ago} by the monitor.")
    if name is not None:
        data = _in_full(app, look, control, now)
        app.screen.document("subscription_status", data, _full_text(app), title=name)
        return
    problems = look.problems
    data = {
        "problems": [asdict(problem) for problem in problems],
        "subscriptions": [
            diagnosis.summary(case, [p for p in problems if p.concerns(case.attached.name)]) for case in look.cases
        ],
        "sampled_at": _sampled_at(look),
    }

    def render(_: Any) -> list[Any]:
        text = "\n\n".join(as_text(problem) for problem in problems) or "Nothing is wrong."
        parts: list[Any] = [text]
        rows = data["subscriptions"]
        if rows:
            # where nothing is held, the column would be empty
            columns = [*SUBSCRIPTIONS, Column("held_by")] if any(row["held_by"] for row in rows) else SUBSCRIPTIONS
            parts += ["", app.screen.table(rows, columns)]
        return parts

    app.screen.document("status", data, render)
    if not control.subscriptions:
        app.screen.say("Nothing is attached. Attach: backbone subscription attach FILE --from earliest")


def _sampled_at(look: Look) -> str | None:
    from ops.lag.rows import at_text

    if look.sampled is None:
        return None
    return at_text(look.sampled.at)


def _in_full(app: App, look: Look, control: ControlSnapshot, now: datetime) -> dict[str, Any]:
    from consumers.offsets import decode_runs
    from ops.connections import as_row
    from ops.diagnosis import held_by
    from ops.lag.rows import partition_row

    (case,), problems = look.cases, look.problems
    attached, group, definition = case.attached, case.group, case.attached.definition
    assert definition is not None
    recorded, connection = control.connections.get(definition.connection), case.connection
    assert connection is not None
    partitions = []
    for partition in group.partitions:
        row = partition_row(case.attached.name, partition)
        start = attached.starts.get((partition.topic, partition.partition))
        runs = decode_runs(partition.committed, partition.metadata) if partition.committed is not None else []
        row["begun"] = None if start is None else start.offset
        row["start_state"] = None if start is None else start.state
        # finished beyond the committed offset, so not sent again: what holds the commit back is before it
        row["done_ahead"] = sum(end - begin for begin, end in runs)
        partitions.append(row)
    letters = case.dead.letters if case.dead is not None else ()
    return {
        "name": attached.name,
        "description": case.header.description,
        "owner": case.header.owner,
        "version": definition.version,
        "attached_at": definition.at,
        "attached_by": definition.author,
        "state": asdict(attached.state),
        "leave": None if attached.leave is None else asdict(attached.leave),
        "connection": {
            "name": definition.connection,
            "state": "running" if recorded is None else recorded.state,
            "reason": "" if recorded is None else recorded.reason,
            "over_workers": as_row(connection),
        },
        "events": list(definition.events),
        "not_read_yet": list(case.not_read_yet),
        "slo_seconds": group.slo_s,
        "group": group.state,
        "lag": group.lag,
        "lag_seconds": None if group.age_s is None else round(group.age_s, 3),
        "dead_letters": {
            "open": len(letters),
            "oldest_at": letters[0].letter.first_at if letters else None,
            "topic": None if case.dead is None else f"{attached.name}.dead",
        },
        "members": [_member(m, look.beats, attached.name) for m in group.members],
        "held_by": held_by(problems),
        "held_keys": case.sight.held_total,
        "held": [_held_row(case, one, now) for one in case.sight.held],
        "parked_keys": case.sight.parked_keys,
        "parked": [_held_row(case, one, now) | {"held_seconds": _parked(case, one, now)} for one in case.sight.parked],
        "records_per_second": case.sight.records_per_s,
        "eta_seconds": None if case.eta_s is None or not group.lag else round(case.eta_s, 1),
        "catch_up": {
            "offsets_left": case.catch_up_left,
            "folding": case.sight.folding,
            "eta_seconds": None if case.catch_up_s is None else round(case.catch_up_s, 1),
            "hand_over": {f"{t}/{p}": s.until for (t, p), s in sorted(attached.starts.items()) if s.until is not None},
            "handed_over_at": attached.handed_over_at or None,
        },
        "next": _next(app, case, look.contracts, now),
        "partitions": partitions,
        "problems": [asdict(problem) for problem in problems],
        "sampled_at": _sampled_at(look),
        "last_24_hours": day_rows(app, attached.name) if look.sampled is not None else None,
    }


def _member(member: Member, beats: Beats, name: str) -> dict[str, Any]:
    """A member of the group, with what its process said last."""
    row: dict[str, Any] = {
        "client_id": member.client_id,
        "host": member.host,
        "partitions": [f"{topic}/{partition}" for topic, partition in member.places],
        "process": None,
        "version": None,
        "heard_seconds": None,
        "state": None,
        "reason": None,
        "unfinished": None,
        "lanes": None,
        "records_per_second": None,
    }
    from ops.look import client_id

    beat = next((one for one in beats.all if client_id(one.heartbeat.process) == member.client_id), None)
    if beat is None:
        return row
    row |= {
        "process": beat.heartbeat.process,
        "version": beat.heartbeat.version,
        "heard_seconds": round(beat.age_s, 1),
    }
    view = next((one for one in beat.heartbeat.subscriptions if one.name == name), None)
    if view is not None:
        row |= {
            "state": view.state,
            "reason": view.reason,
            "unfinished": view.unfinished,
            "lanes": view.lanes,
            "records_per_second": round(view.records_per_s, 1),
        }
    return row


def _held_row(case: Case, held: Held, now: datetime) -> dict[str, Any]:
    known = case.standing.get(held.origin)
    return {
        "origin": held.origin,
        "event": None if known is None else known.event,
        "key": None if known is None else known.key,
        "why": held.why,
        "reason": held.reason,
        "held_seconds": round(max(0.0, now.timestamp() - held.since), 1),
        "waiting": held.waiting,
        "due_seconds": None if held.due is None else round(max(0.0, held.due - now.timestamp()), 1),
    }


def _parked(case: Case, parked: Held, now: datetime) -> float | None:
    from ops.holding import parked_s

    seconds = parked_s(case, parked, now)
    return None if seconds is None else round(seconds, 1)


def _next(app: App, case: Case, contracts: Contracts | None, now: datetime) -> list[dict[str, Any]]:
    """The record that each lagging partition goes on with, the oldest first."""
    from ops.origins import standing

    late = sorted(
        (p for p in case.group.partitions if p.offsets.lag), key=lambda p: (-(p.age_s or 0.0), p.topic, p.partition)
    )[:NEXT_MAX]
    origins = [f"{p.topic}/{p.partition}/{p.offsets.counted_from}" for p in late]
    found = standing(app, origins, contracts) if origins else {}
    return [
        {
            "origin": origin,
            "event": one.event if one else None,
            "key": one.key if one else None,
            "age_seconds": round(max(0.0, now.timestamp() - one.at), 1) if one else None,
        }
        for origin in origins
        for one in (found.get(origin),)
    ]


def _full_text(app: App) -> Any:
    def render(data: Mapping[str, Any]) -> list[Any]:
        from ops.problems import Problem, as_text

        state = data["state"]
        members = len(data["members"])
        by = ", ".join(part for part in (state["by"], state["at"]) if part)
        lines = {
            "description": data["description"],
            "owner": data["owner"],
            "version": f"{data['version']}, attached {data['attached_at']} by {data['attached_by']}",
            "state": state["state"] + (f" ({by})" if by else ""),
            "connection": _connection_text(data["connection"]),
            "events": data["events"],
            "group": "nobody has joined it yet"
            if data["group"] == "dead"
            else f"{data['group']}, {members} member{'' if members == 1 else 's'}",
            "lag": f"{data['lag']:,} offsets, the oldest waits {_age(data['lag_seconds'])}" if data["lag"] else "none",
            "catch-up": _catch_up_text(data["catch_up"]),
            "promised": f"at most {_age(data['slo_seconds'])}",
            "held by": data["held_by"] or "nothing",
            "dead letters": data["dead_letters"]["open"],
        }
        width = max(len(label) for label in lines)
        parts: list[Any] = ["\n".join(f"{label:<{width}}  {shown(value)}" for label, value in lines.items())]
        for problem in data["problems"]:
            parts += ["", as_text(Problem(**problem))]
        if data["members"]:
            rows = [row | {"partitions": len(row["partitions"])} for row in data["members"]]
            parts += ["", app.screen.table(rows, MEMBERS)]
        for title, rows, total in (
            ("held", data["held"], data["held_keys"]),
            ("parked", data["parked"], data["parked_keys"]),
        ):
            if rows:
                columns = [replace(HELD[0], title=f"{title.upper()} RECORD"), *HELD[1:]]
                parts += ["", app.screen.table(rows, columns)]
            if total > len(rows):
                parts.append(f"{total - len(rows):,} more are {title}.")
        if data["next"]:
            parts += ["", app.screen.table(data["next"], NEXT)]
        if data["partitions"]:
            parts += ["", app.screen.table(data["partitions"], PARTITIONS)]
        if data["last_24_hours"]:
            parts += ["", app.screen.table(data["last_24_hours"], DAY)]
        return parts

    return render


def _catch_up_text(catch_up: Mapping[str, Any]) -> str:
    left = catch_up["offsets_left"]
    if catch_up["folding"]:
        return str(catch_up["folding"])
    if left:
        eta = "" if catch_up["eta_seconds"] is None else f", in about {_age(catch_up['eta_seconds'])}"
        return f"catching up to the hand-over position: {left:,} offsets to go{eta}"
    if catch_up["handed_over_at"]:
        return f"handed over to live {catch_up['handed_over_at']}"
    return "at the hand-over position" if catch_up["hand_over"] else "there was none"


def _connection_text(connection: Mapping[str, Any]) -> str:
    over = connection["over_workers"]
    used = "" if over["quota_used"] is None else f", {over['quota_used']:.0%} of its rate used"
    state = connection["state"] if over["state"] == "unused" else over["state"]
    return f"{connection['name']}, {state}{used}"


def _age(seconds: float | None) -> str:
    return "unknown" if seconds is None else age_text(seconds)


def _unknown(control: ControlSnapshot, name: str) -> NotFoundError:
    if name in control.detached:
        return NotFoundError(
            f"{name} is detached. Attach it again: backbone subscription attach {name} --from POSITION"
        )
    return NotFoundError(
        f"No subscription '{name}' is attached.{did_you_mean(name, control.subscriptions)} "
        "See: backbone subscription list. For a foreign group: backbone lag NAME -v"
    )
