"""``backbone erase``: vendors erase what they got about a person, and replays skip it. A change without undo."""

from __future__ import annotations

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.screen import Column

COLUMNS = [
    Column("subscription"),
    Column("vendor"),
    Column("action"),
    Column("entity"),
    Column("personal_data", "CLASSES"),
    Column("first_at", "FIRST"),
    Column("last_at", "LAST"),
    Column("events"),
    Column("asked"),
]


@click.command()
@click.argument("question", metavar="FIELD=VALUE")
@click.option(
    "--wait", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="SECONDS",
    help="Report when nothing has come of any erasure for so long.",
)  # fmt: skip
@change_options
@screen_options
@click.pass_obj
def erase(
    app: App, question: str, wait: float, apply: bool, yes: bool, reason: str | None, confirm: str | None
) -> None:
    """Have every vendor erase what it got about a person (user_id=u-4711), and send nothing of it again (a change).

    The plan lists what each vendor got, from the ledger, and what it is asked; what no connector can do is for a person
    (exit 7). Applied, it marks the person as erased (replays, rewinds, redrives and new subscriptions skip what has
    arrived), closes their dead letters, and sends the erasures through the inboxes, with receipts. The value is stored
    as a keyed hash and sealed; it is never shown. Needs --confirm, with the name that the plan shows.
    """
    from ops.changes import run_change
    from ops.changes.erase_plan import erase_plan

    plan = erase_plan(app, question, wait_s=wait)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=COLUMNS)
