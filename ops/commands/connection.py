"""``backbone connection list | show | check | pause | resume``: vendor accounts, over all workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.connection_calls import calls
from ops.commands.lag import age_text
from ops.screen import Column, shown
from schemas.errors import CheckFailedError, InputError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from connectors.connector import Outcome
    from ops.connections import ConnectionStatus
    from ops.watch.heartbeats import Beats

percent = "{:.0%}".format
LIST = [
    Column("name", "CONNECTION"),
    Column("connector"),
    Column("state"),
    Column("until"),
    Column("workers"),
    Column("quota_used", "QUOTA USED", percent),
    Column("in_flight"),
    Column("reason"),
    Column("subscriptions"),
    Column("api_sunset", "API ENDS"),
]
WORKERS = [
    Column("process", "WORKER"),
    Column("state"),
    Column("until"),
    Column("in_flight"),
    Column("quota_used", "QUOTA USED", percent),
    Column("waiting"),
    Column("reason"),
    Column("heard_seconds", "HEARD", lambda seconds: f"{age_text(seconds)} ago"),
]
CHECKS = [
    Column("name", "CONNECTION"),
    Column("connector"),
    Column("answer"),
    Column("seconds"),
    Column("reason"),
    Column("advice"),
]


@click.group(no_args_is_help=True)
def connection() -> None:
    """Accounts at vendors: what state they are in, whether their credentials work, and a pause for them."""


connection.add_command(calls)


@connection.command("list")
@screen_options
@click.pass_obj
def list_(app: App) -> None:
    """Every connection with its state over all workers, its quota, and who uses it.

    STATE is the worst that a living worker says: running; paused (the vendor asked for quiet, or did not answer);
    half_open and open (the circuit breaker); held (paused by a person); stopped (credentials); unused (no worker has
    opened it). API ENDS is the day on which the vendor ends the version of its API that the connection asks.
    credential_expires is what backbone.toml says; workers know more: backbone_credential_expiry_timestamp_seconds.

    JSON: one row a connection with name, connector, state, reason, until, workers, workers_in_state, quota_used,
    in_flight, waiting, subscriptions, api_version, api_sunset, credential_expires.
    """
    statuses, beats = _statuses(app, list(app.project.connections))
    app.screen.rows("connections", [_row(app, status) for status in statuses], LIST)
    _say_blind(app, beats)


@connection.command()
@click.argument("name")
@screen_options
@click.pass_obj
def show(app: App, name: str) -> None:
    """One connection in full: its settings here, its state in every worker, what is wrong with it.

    Credentials are shown as the references they are written as.
    """
    from ops import holding

    resolved = app.context.connection(name)
    table, quota = app.project.connections[name], resolved.quota
    (status,), beats = _statuses(app, [name])
    heard = {beat.heartbeat.process: beat.age_s for beat in beats.fresh}
    problems = holding.connection_problems(status, datetime.now(UTC))
    data = _row(app, status) | {
        "fake": resolved.is_fake,
        "region": table.region,
        "sub_processor": table.sub_processor,
        "rate": None if quota.rate is None else f"{quota.rate.count}/{quota.rate.seconds:g}s",
        "concurrency": quota.concurrency,
        "background": quota.background,
        "call_log": resolved.call_log,
        "settings": resolved.shown(),
        "not_usable_because": None if resolved.problem is None else str(resolved.problem),
        "recorded": None if status.control is None else asdict(status.control),
        "in_workers": [
            {
                "process": process,
                "state": view.state,
                "reason": view.reason,
                "until": _time(view.until),
                "in_flight": view.in_flight,
                "quota_used": view.quota_used,
                "waiting": view.waiting,
                "heard_seconds": round(heard.get(process, 0.0), 1),
            }
            for process, view in status.views
        ],
        "problems": [asdict(problem) for problem in problems],
    }
    app.screen.document("connection", data, lambda shown_: _in_full(app, shown_), title=name)
    _say_blind(app, beats)


@connection.command()
@click.argument("names", nargs=-1, metavar="[NAME..]")
@screen_options
@click.pass_obj
def check(app: App, names: tuple[str, ...]) -> None:
    """Ask the vendor whether the credentials of these connections work; all of them without a NAME.

    One harmless call each, made from here with the settings of this context; nothing is applied at the vendor. ANSWER
    is works, no, or cannot tell (the connector has no such call). Exit 3 if one is no.

    JSON: one row a connection with name, connector, answer, outcome, reason, seconds, advice.
    """
    import asyncio

    for name in names:
        app.context.connection(name)
    chosen = list(dict.fromkeys(names)) or list(app.project.connections)
    rows = asyncio.run(_all_checked(app, chosen))
    app.screen.rows("connection_checks", rows, CHECKS)
    failed = [row["name"] for row in rows if row["answer"] == "no"]
    if failed:
        raise CheckFailedError(f"{', '.join(failed)}: the vendor cannot be used with these settings.")


@connection.command()
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why, for the audit and for whoever finds it paused.")
@screen_options
@click.pass_obj
def pause(app: App, name: str, reason: str | None) -> None:
    """Make no call with the connection NAME any more, at once and in every worker; calls in flight end.

    Events wait in their lanes; no attempt is used and nothing is set aside.
    """
    from ops.changes.connection import pause_plan
    from ops.changes.run import act_at_once

    act_at_once(app, pause_plan(app, name, reason or ""), reason=reason)


@connection.command()
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why, for the audit.")
@screen_options
@click.pass_obj
def resume(app: App, name: str, reason: str | None) -> None:
    """Let the connection NAME be used again, at once: after a pause, a stop, or while its circuit is open."""
    from ops.changes.connection import resume_plan
    from ops.changes.run import act_at_once

    act_at_once(app, resume_plan(app, name), reason=reason)


# ---- inside ---------------------------------------------------------------------------------------------------------


def _statuses(app: App, names: Sequence[str]) -> tuple[list[ConnectionStatus], Beats]:
    from ops.connections import connection_status, users_of
    from ops.watch.heartbeats import read_heartbeats

    known = app.project.connections
    for name in names:
        if name not in known:
            raise NotFoundError(f"There is no connection '{name}'.{did_you_mean(name, known)}")
    control, beats = app.control(), read_heartbeats(app)
    return [
        connection_status(
            name,
            control=control.connections.get(name),
            beats=beats.fresh,
            subscriptions=users_of(name, control.subscriptions),
        )
        for name in names
    ], beats


def _row(app: App, status: ConnectionStatus) -> dict[str, Any]:
    from ops.connections import as_row

    row = as_row(status)
    resolved = app.context.connection(status.name)
    kind = app.connector_types.get(resolved.connector)
    api = None if kind is None else resolved.api(kind)
    return (
        {"name": row.pop("name"), "connector": app.project.connections[status.name].connector}
        | row
        | {
            "until": _time(status.until),
            "api_version": None if api is None else api.version,
            "api_sunset": None if api is None else api.sunset,
            "credential_expires": resolved.credential_expires,
        }
    )


def _time(seconds: float | None) -> datetime | None:
    from ops.holding import moment

    return moment(seconds)


def _say_blind(app: App, beats: Beats) -> None:
    if not beats.topic_exists:
        app.screen.warn(
            "The topic backbone.heartbeat does not exist, so what the workers do cannot be seen. "
            "Make it: backbone schema register"
        )
    elif not beats.fresh:
        since = "" if beats.silent_s is None else f" for {age_text(beats.silent_s)}"
        app.screen.say(f"No heartbeat from any worker{since}: what the workers do cannot be seen.")


def _in_full(app: App, data: Mapping[str, Any]) -> list[Any]:
    from ops.problems import Problem, as_text

    lines = {
        "connector": data["connector"] + (", its fake" if data["fake"] else ""),
        "state": data["state"],
        "rate": data["rate"] or "none of our own; the vendor's own words are kept",
        "in flight": f"at most {data['concurrency']} calls" if data["concurrency"] else "bounded in each worker",
        "background": f"at most {data['background']:.0%} of that for what is redriven or caught up with",
        "used by": data["subscriptions"] or "no attached subscription",
        "call log": "kept; see: backbone connection calls" if data["call_log"] else "none",
        "region": data["region"],
        "kept by": data["sub_processor"],
        **{f"  {key}": value for key, value in data["settings"].items()},
    }
    if data["api_version"]:
        lines["asks"] = _api(data)
    if data["credential_expires"]:
        lines["credential"] = f"ends {data['credential_expires']}, as backbone.toml says"
    if data["not_usable_because"]:
        lines["not usable"] = data["not_usable_because"]
    width = max(len(label) for label in lines)
    parts: list[Any] = ["\n".join(f"{label:<{width}}  {shown(value)}" for label, value in lines.items())]
    for problem in data["problems"]:
        parts += ["", as_text(Problem(**problem))]
    if data["in_workers"]:
        parts += ["", app.screen.table(data["in_workers"], WORKERS)]
    return parts


def _api(data: Mapping[str, Any]) -> str:
    ends = "whose end the vendor has not named" if data["api_sunset"] is None else f"until {data['api_sunset']}"
    return f"version {data['api_version']} of its API, {ends}"


async def _all_checked(app: App, names: Sequence[str]) -> list[dict[str, Any]]:
    """At once: one vendor that does not answer takes its whole timeout."""
    import asyncio

    return await asyncio.gather(*(_checked(app, name) for name in names))


async def _checked(app: App, name: str) -> dict[str, Any]:
    """One row; wrong settings and a vendor that refuses are rows, too. Raises UnreachableError for a fake that does
    not run."""
    import time

    from connectors.connection import Connection

    resolved = app.context.connection(name)
    row: dict[str, Any] = {
        "name": name, "connector": resolved.connector, "answer": "no", "outcome": None, "reason": "", "seconds": None,
        "advice": "",
    }  # fmt: skip
    try:
        kind = app.connector_types.get(resolved.connector)
        if kind is None:
            raise InputError(f"The connector '{resolved.connector}' is not installed.")
        opened = Connection(name, kind, kind.open(resolved.settings(kind)), observer=lambda *_: None)
    except InputError as error:
        return row | {"reason": "settings", "advice": str(error)}
    try:
        if not kind.check:
            advice = f"the connector {kind.name} has no harmless call to ask with"
            return row | {"answer": "cannot tell", "advice": advice}
        began = time.monotonic()
        outcome = await opened.check()
        return row | _answer(outcome) | {"seconds": round(time.monotonic() - began, 3)}
    finally:
        await opened.close()


def _answer(outcome: Outcome) -> dict[str, Any]:
    from connectors.connector import Delivered, Unavailable, Unknown

    name, reason = type(outcome).__name__, getattr(outcome, "reason", "")
    match outcome:
        case Delivered():
            return {"answer": "works", "outcome": name}
        case Unavailable(needs_operator=True):
            advice = "mend the credentials or their permissions"
        case Unavailable() | Unknown():
            advice = "the vendor cannot be reached now, or asks to wait"
        case _:
            advice = "the vendor did not answer as it should"
    return {"answer": "no", "outcome": name, "reason": reason, "advice": advice}
