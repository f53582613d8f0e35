"""``backbone subscription attach | detach | pause | resume``: verbs of the group in ``ops.cli``."""

from __future__ import annotations

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.screen import Column

ATTACH_COLUMNS = [
    Column("subscription"),
    Column("version"),
    Column("topic"),
    Column("partitions", "PARTS"),
    Column("from"),
    Column("first_record"),
    Column("events"),
    Column("note"),
]
DETACH_COLUMNS = [
    Column("subscription"),
    Column("topic"),
    Column("partitions", "PARTS"),
    Column("not_read"),
]


@click.group()
def verbs() -> None:
    """Only a holder: the verbs stand in the group ``subscription``."""


@verbs.command()
@click.argument("files", nargs=-1, metavar="[FILE|NAME]..")
@click.option("--all", "everything", is_flag=True, help="Every file of the project's folder.")
@click.option("--from", "starting", metavar="POSITION", help="Where new topics begin: earliest, latest or @time.")
@click.option("--fold", is_flag=True, help="Of the past, send one delivery an entity (for 'send: latest').")
@change_options
@screen_options
@click.pass_obj
def attach(
    app: App,
    files: tuple[str, ...],
    everything: bool,
    starting: str | None,
    fold: bool,
    apply: bool,
    yes: bool,
    reason: str | None,
    confirm: str | None,
) -> None:
    """Start subscriptions, or new versions of running ones.

    Shows what would happen and plans it. A new version goes on where the old one stands; --from is asked for where
    topics are new, and never guessed. What is attached as it stands is left alone. With --fold all events of the past
    that are about one entity become one delivery before anything is sent.
    """
    from ops.changes import run_change
    from ops.changes.attach_plan import attach_plan, subscription_path
    from schemas.errors import InputError

    if everything == bool(files):
        raise InputError("Name files or subscriptions, or give --all for every file.")
    paths = list(app.subscription_files().values()) if everything else [subscription_path(app, name) for name in files]
    if not paths:
        raise InputError(f"There is no subscription file in {app.project.subscriptions}.")
    plan, unchanged, warnings = attach_plan(app, paths, starting, fold=fold)
    for warning in warnings:
        app.screen.warn(warning)
    if plan is None:
        app.screen.document(
            "change",
            {"state": "unchanged", "unchanged": unchanged},
            lambda data: f"attached as they are: {', '.join(data['unchanged'])}",
        )
        app.screen.say("There is nothing to change.")
        return
    if unchanged:
        app.screen.say(f"attached as they are: {', '.join(unchanged)}")
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=ATTACH_COLUMNS)


@verbs.command()
@click.argument("name")
@change_options
@screen_options
@click.pass_obj
def detach(app: App, name: str, apply: bool, yes: bool, reason: str | None, confirm: str | None) -> None:
    """End the subscription NAME; its topics, dead letters and positions stay at the cluster."""
    from ops.changes import run_change
    from ops.changes.attach_plan import detach_plan

    plan = detach_plan(app, name)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=DETACH_COLUMNS)


@verbs.command()
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why, for the audit and for whoever finds it paused.")
@screen_options
@click.pass_obj
def pause(app: App, name: str, reason: str | None) -> None:
    """Let the subscription NAME rest, at once; what is in flight ends, its place is kept."""
    from ops.changes.pause import pause_plan
    from ops.changes.run import act_at_once

    act_at_once(app, pause_plan(app, name, reason or ""), reason=reason)


@verbs.command()
@click.argument("name")
@click.option("--accept", type=click.IntRange(0, 1_000_000), default=0, metavar="N",
              help="So many rejections may pass as dead letters before it stops again.")  # fmt: skip
@click.option("--reason", metavar="TEXT", help="Why, for the audit.")
@screen_options
@click.pass_obj
def resume(app: App, name: str, accept: int, reason: str | None) -> None:
    """Let the subscription NAME run on after a pause or a stop, at once."""
    from ops.changes.pause import resume_plan
    from ops.changes.run import act_at_once

    act_at_once(app, resume_plan(app, name, accept), reason=reason)
