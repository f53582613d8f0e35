"""``backbone replay``: past events are delivered again to one subscription, while it runs. A change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.changes.past import Only

COLUMNS = [
    Column("topic"),
    Column("partition", "PART", str),
    Column("from"),
    Column("to"),
    Column("offsets"),
    Column("first_record"),
    Column("note"),
]


@click.command()
@click.argument("name")
@click.option("--from", "start", required=True, metavar="POSITION",
              help="earliest 1234 +10 -1000 @time; +/- count from the committed position.")  # fmt: skip
@click.option("--to", "end", metavar="POSITION", help="Up to here, without it; default: where NAME stands live.")
@click.argument("topics", nargs=-1, metavar="[TOPIC[:PARTS]..]")
@click.option("--type", "types", multiple=True, metavar="EVENT", help="Only events of this type; may be repeated.")
@click.option("--key", metavar="KEY", help="Only records with this key.")
@click.option("--entity", metavar="VALUE", help="Only what is about this entity at the vendor.")
@click.option("--where", metavar="EXPR", help='Only events for which it is true: "data.total_minor > 100000".')
@click.option("--only", type=click.Choice(["all", "missing", "failed", "changed"]), default="all", show_default=True,
              help="missing: never delivered or skipped. failed: their last delivery ended as a dead letter. changed: "
              "delivered, and would be sent otherwise now.")  # fmt: skip
@click.option("--rate", metavar="N/s", help="At most so many a second; default: as the workers take them.")
@click.option("--allow-stale", is_flag=True, help="Send all of it, however old, without asking what is newer.")
@click.option("--wait", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="SECONDS",
              help="Report when nothing has come of any event for so long.")  # fmt: skip
@change_options
@screen_options
@click.pass_obj
def replay(
    app: App, name: str, start: str, end: str | None, topics: tuple[str, ...], types: tuple[str, ...],
    key: str | None, entity: str | None, where: str | None, only: str, rate: str | None, allow_stale: bool,
    wait: float, apply: bool, yes: bool, reason: str | None, confirm: str | None,
) -> None:  # fmt: skip
    """Deliver past events of NAME again, to NAME alone, in the order of their keys (a change).

    NAME stays up and its place does not move: the events go through its inbox, behind live ones and with their part of
    the quota. All topics and partitions, unless TOPIC or TOPIC:0,3-5 are named. The plan counts events and calls and
    shows some, masked. Of an upsert, fields that newer deliveries have sent since are left out: the ledger knows them.
    Every attempt carries the first one's idempotency key; with --only changed one of its own.
    """
    from ops.changes import run_change
    from ops.changes.attach_plan import attached_named
    from ops.changes.past import Selection, types_named
    from ops.changes.replay_plan import Replaying, replay_plan
    from ops.changes.staleness import attached_subscription
    from ops.changes.steering import parse_rate
    from ops.positions import parse_position

    now = datetime.now(UTC)
    begin, until = parse_position(start, now), None if end is None else parse_position(end, now)
    how = Replaying(rate=0.0 if rate is None else parse_rate(rate), allow_stale=allow_stale, wait_s=wait)
    subscription = attached_subscription(app, attached_named(app.control(), name))
    selection = Selection(
        types=types_named(types, subscription), key=key, entity=entity, where=where, only=cast("Only", only)
    )
    plan = replay_plan(app, name, begin, until, topics, selection, how)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=COLUMNS)
