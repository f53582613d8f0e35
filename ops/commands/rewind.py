"""``backbone rewind``: everything after a place is read again, by the whole group. A change with undo."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.screen import Column

COLUMNS = [
    Column("topic"),
    Column("partition", "PART", str),
    Column("committed"),
    Column("target"),
    Column("again"),
    Column("skipped"),
    Column("first_record"),
    Column("note"),
]


@click.command()
@click.argument("name")
@click.option("--to", "to", required=True, metavar="POSITION",
              help="earliest latest 1234 +10 -1000 @time; +/- count from the committed position.")  # fmt: skip
@click.argument("topics", nargs=-1, metavar="[TOPIC[:PARTS]..]")
@change_options
@screen_options
@click.pass_obj
def rewind(
    app: App,
    name: str,
    to: str,
    topics: tuple[str, ...],
    apply: bool,
    yes: bool,
    reason: str | None,
    confirm: str | None,
) -> None:
    """Move the committed positions of NAME: a subscription, or a foreign group that has no members.

    Shows for every partition what would be read again or skipped, and plans it. All topics and partitions of the
    group, unless TOPIC or TOPIC:0,3-5 are named. A partition without a record since a time is left as it is. Our
    workers leave and come back by themselves. Skipping, more than 10,000 events and foreign groups need --confirm NAME.
    """
    from ops.changes.rewind_plan import rewind_plan
    from ops.changes.run import run_change
    from ops.positions import parse_position

    position = parse_position(to, datetime.now(UTC))
    plan = rewind_plan(app, name, position, topics)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=COLUMNS)
