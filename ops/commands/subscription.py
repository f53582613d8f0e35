"""``backbone subscription list | new | check | test | preview``: the analyst's side of subscriptions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription

LIST_COLUMNS = [
    Column("subscription"), Column("state"), Column("version"), Column("attached"), Column("connection"),
    Column("events"), Column("owner"), Column("note"),
]  # fmt: skip
PREVIEW_COLUMNS = [
    Column("arrived"), Column("event"), Column("outcome"), Column("action"), Column("entity"), Column("body"),
    Column("reason"),
]  # fmt: skip


@click.group(no_args_is_help=True)
def subscription() -> None:
    """Who reads which events, and what a vendor is asked for each of them."""


@subscription.command(name="list")
@screen_options
@click.pass_obj
def list_(app: App) -> None:
    """The files here, what is attached of them, and how that is.

    Without a cluster the files alone are shown. JSON: subscription, state (running, paused, stopped, detached,
    broken; null: not known), version (of the file), attached (version), connection, events, owner, catching_up
    (partitions before their hand-over to live), handed_over_at (the last of them), note.
    """
    attached = _attached(app)
    rows = []
    names = sorted({*app.subscription_files(), *(attached or {})})
    for name in names:
        path = app.subscription_files().get(name)
        loaded, problem = _loaded(app, path) if path is not None else (None, "no file here")
        rows.append(_row(name, loaded, problem, None if attached is None else attached.get(name), attached is None))
    app.screen.rows(
        "subscriptions", rows, LIST_COLUMNS, empty="There is no subscription yet: backbone subscription new"
    )


def _attached(app: App) -> dict[str, AttachedSubscription] | None:
    """What the cluster says; None where it cannot be asked."""
    from schemas.errors import UnreachableError

    try:
        return dict(app.control().subscriptions)
    except UnreachableError as error:
        app.screen.warn(f"What is attached is not known. {error}")
        return None


def _loaded(app: App, path: Path) -> tuple[Subscription | None, str]:
    from consumers.subscription import check_subscription

    found, findings = check_subscription(path, contracts=app.contracts, connections=app.connection_types)
    return found, "" if found is not None else f"line {findings[0].line or 1}: {findings[0].message}"


def _row(
    name: str, loaded: Subscription | None, problem: str, attached: AttachedSubscription | None, unknown: bool
) -> dict[str, Any]:
    definition = None if attached is None else attached.definition
    note = problem
    if loaded is not None and definition is not None and definition.version != loaded.version:
        note = f"the file is another version: backbone subscription attach {name}"
    if attached is not None and attached.handed_over_at and not note:
        note = f"caught up, live since {attached.handed_over_at}"
    if attached is not None and attached.catching_up and not note:
        their = "partition before its" if len(attached.catching_up) == 1 else "partitions before their"
        note = f"catching up: {len(attached.catching_up)} {their} hand-over to live"
    if attached is not None and definition is not None and attached.state.reason:
        note = attached.state.reason
    new = [] if loaded is None or definition is None else sorted(set(loaded.routes) - set(definition.events))
    if new and not note:
        note = f"not read yet: {', '.join(new)}"
    state = None if unknown else "detached"
    if attached is not None and definition is not None:
        state = attached.state.state
    elif loaded is None:
        state = "broken"
    return {
        "subscription": name,
        "state": state,
        "version": None if loaded is None else loaded.version,
        "attached": None if definition is None else definition.version,
        "connection": loaded.connection if loaded else definition.connection if definition else None,
        "events": len(loaded.routes) if loaded else len(definition.events) if definition else None,
        "owner": None if loaded is None else loaded.owner,
        "catching_up": 0 if attached is None else len(attached.catching_up),
        "handed_over_at": None if attached is None else attached.handed_over_at or None,
        "note": note or None,
    }


@subscription.command()
@click.argument("name")
@click.option("--connection", required=True, metavar="CONNECTION", help="A connection of backbone.toml.")
@click.option("--event", required=True, metavar="EVENT", help="The event type it begins with.")
@click.option("--action", metavar="ACTION", help="What the vendor is asked; default: the connection's first action.")
@click.option("--owner", metavar="TEAM", default="team-unknown", show_default=True, help="The team that owns it.")
@screen_options
@click.pass_obj
def new(app: App, name: str, connection: str, event: str, action: str | None, owner: str) -> None:
    """Write the file of a new subscription: commented, complete, and without errors.

    It sends only what is not personal data, until somebody allows more. Nothing is attached.
    """
    from consumers.loader import name_problem
    from ops.catalog.draft import draft
    from schemas.errors import BackboneError, InputError, NotFoundError, RefusedError
    from schemas.findings import did_you_mean

    path = app.project.subscriptions / f"{name}.yaml"
    if "/" in name or "\\" in name:
        raise InputError("A subscription's name is the name of its file, without a folder.")
    if problem := name_problem(name):
        raise InputError(problem)
    if path.exists():
        raise RefusedError(f"{path} is there already. Nothing was changed.")
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", owner) is None:
        raise InputError("--owner is a name: letters, digits and . _ - only.")
    connections = app.connection_types
    if connection not in connections:
        raise NotFoundError(
            f"backbone.toml has no connection '{connection[:100]}'.{did_you_mean(connection, connections)}"
        )
    if event not in app.contracts:
        raise NotFoundError(f"There is no event '{event[:100]}'.{did_you_mean(event, app.contracts)}")
    text = draft(
        name,
        connection=connection,
        connector=connections[connection],
        contract=app.contracts[event],
        contracts=app.contracts,
        folder=app.project.subscriptions,
        owner=owner,
        action=action,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BackboneError(f"{path} cannot be written: {error.strerror or 'input/output error'}.") from None
    app.screen.document("subscription.new", {"file": str(path)}, lambda data: str(data["file"]))
    app.screen.say(f"Written. Edit it, then: backbone subscription check {name}")


@subscription.command()
@click.argument("files", nargs=-1, metavar="[FILE|NAME]..")
@screen_options(github=True)
@click.pass_obj
def check(app: App, files: tuple[str, ...]) -> None:
    """Find what is wrong in files: all of them without a FILE. Exit 3 if something is.

    Names, fields, types, personal data, traps of YAML. -v also prints the policies in force and where they come from.
    """
    from consumers.subscription import check_subscription

    paths = _paths(app, files)
    findings = []
    for path in paths:
        loaded, found = check_subscription(path, contracts=app.contracts, connections=app.connection_types)
        findings += found
        if loaded is not None and app.screen.verbose:
            app.screen.detail(_policies(loaded))
    if not paths:
        app.screen.warn(
            f"There is no subscription file in {app.project.subscriptions}. Write the first: "
            "backbone subscription new NAME --connection CONNECTION --event EVENT"
        )
    app.screen.findings("subscription.check", findings, checked=_count(len(paths), "subscription"))


def _policies(loaded: Subscription) -> str:
    from ops.screen import duration

    policies = loaded.policies
    in_force = {
        "send": policies.send,
        "slo": duration(policies.slo),
        "expire_after": "never" if policies.expire_after is None else duration(policies.expire_after),
        "retry.attempts": str(policies.retry.attempts),
        "retry.within": duration(policies.retry.within),
        "on_unknown": policies.on_unknown,
        "on_dead_letter": policies.on_dead_letter,
        "weight": str(policies.weight),
    }
    lines = [f"{loaded.name}@{loaded.version} reads {', '.join(loaded.routes)}"]
    lines += [f"  {name:<15} {value:<9} {loaded.policy_sources.get(name, '')}" for name, value in in_force.items()]
    allowed = ", ".join(sorted(loaded.personal_data_allowed)) or "none"
    lines.append(f"  {'personal data':<15} {allowed}")
    lines.append(f"  its name is its Kafka group and begins {loaded.dead_topic}: a renamed file is a new subscription")
    return "\n".join(lines)


@subscription.command()
@click.argument("files", nargs=-1, metavar="[FILE|NAME]..")
@screen_options
@click.pass_obj
def test(app: App, files: tuple[str, ...]) -> None:
    """Run the tests that stand in files: all of them without a FILE. Exit 3 if one fails.

    Events are encoded and decoded as in production; the vendor is the test's script, and time is simulated.
    """
    from consumers.recording import Recording
    from consumers.rehearsal import rehearse
    from consumers.subscription import load_subscription
    from ops.catalog.readers import note
    from schemas.contract import Contracts
    from schemas.errors import CheckFailedError

    contracts = Contracts({**app.contracts, **app.engine_contracts})
    rows: list[dict[str, Any]] = []
    failed = 0
    for path in _paths(app, files):
        loaded = load_subscription(path, contracts=app.contracts, connections=app.connection_types)
        recording = Recording(loaded)
        for verdict in rehearse(recording.subscription, contracts):
            failed += not verdict.passed
            rows.append(
                {
                    "subscription": verdict.subscription,
                    "test": verdict.test,
                    "result": "passed" if verdict.passed else "failed",
                    "differences": list(verdict.differences),
                }
            )
        note(app, recording)
    columns = [Column("subscription"), Column("test"), Column("result")]
    if failed:
        columns.append(Column("differences", show=lambda found: "\n".join(found)))
    app.screen.rows("subscription.test", rows, columns, empty="These files have no tests.")
    if failed:
        raise CheckFailedError(f"{failed} of {_count(len(rows), 'test')} failed.")


@subscription.command()
@click.argument("file", metavar="FILE|NAME")
@click.option("--max", "limit", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N",
              help="At most so many events.")  # fmt: skip
@click.option(
    "--from", "starting", metavar="POSITION", help="Where to begin: earliest, @time, 1234; default: the newest."
)
@screen_options
@click.pass_obj
def preview(app: App, file: str, limit: int, starting: str | None) -> None:
    """Show what real events would become. Nothing is sent, nothing is committed.

    Values that carry a personal-data class are masked, also behind filters; what a Python projection makes of them is
    masked whole.
    """
    import json
    from datetime import UTC, datetime

    from consumers.recording import Recording
    from consumers.subscription import load_subscription
    from ops.catalog.readers import note
    from ops.changes.attach_plan import subscription_path
    from ops.positions import parse_position
    from ops.preview import Seen
    from ops.preview import preview as previewed

    path = subscription_path(app, file)
    loaded = load_subscription(path, contracts=app.contracts, connections=app.connection_types)
    position = None if starting is None else parse_position(starting, datetime.now(UTC))
    seen = Seen()
    recording = Recording(loaded)
    rows = list(previewed(app, recording.subscription, position=position, limit=limit, seen=seen))
    note(app, recording)
    columns = [
        column
        if column.field != "body"
        else Column("body", show=lambda body: json.dumps(body, ensure_ascii=False, default=str))
        for column in PREVIEW_COLUMNS
        if column.field != "reason" or any(row["reason"] for row in rows)
    ]
    app.screen.rows("subscription.preview", rows, columns, empty="No event here is for this subscription.")
    app.screen.say(f"Read {seen.records:,} records, {seen.not_ours:,} not for {loaded.name}. Nothing was sent.")


def _paths(app: App, files: tuple[str, ...]) -> list[Path]:
    from ops.changes.attach_plan import subscription_path

    return [subscription_path(app, file) for file in files] if files else list(app.subscription_files().values())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
