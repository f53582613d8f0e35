"""``backbone topic list | plan | acls``. Reads only: ``backbone schema register`` makes what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.topics import TopicState
    from schemas.topics import TopicPlan

LIST_COLUMNS = [
    Column("topic"),
    Column("partitions", "PARTS"),
    Column("copies"),
    Column("records", "RECORDS"),
    Column("cleanup"),
    Column("retention"),
    Column("time"),
    Column("for", "FOR"),
]
ACL_COLUMNS = [
    Column("role"),
    Column("resource", "ON"),
    Column("name"),
    Column("operations", "MAY", ", ".join),
    Column("why", "FOR"),
]
PLAN_COLUMNS = [Column("topic"), Column("state"), Column("partitions", "PARTS"), Column("difference")]


@click.group(no_args_is_help=True)
def topic() -> None:
    """Topics: what the cluster has, and what the contracts want."""


@topic.command("list")
@click.argument("names", nargs=-1, metavar="[TOPIC]..")
@screen_options
@click.pass_obj
def list_(app: App, names: tuple[str, ...]) -> None:
    """Topics of the cluster: partitions, copies, how many offsets they hold, and what they are for."""
    from ops import topics
    from ops.completing import remember
    from ops.lag.cluster import Cluster
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    there = topics.existing(app)
    for name in names:
        if name not in there:
            raise NotFoundError(f"The cluster has no topic '{name}'.{did_you_mean(name, there)}")
    chosen = {name: state for name, state in there.items() if not names or name in names}
    cluster = Cluster(app.admin(), app.consumer)
    places = [(name, partition) for name, state in chosen.items() for partition in range(state.partitions)]
    starts, ends = cluster.starts(places), cluster.ends(places, "uncommitted")
    purposes = _purposes(app)
    rows = []
    for name, state in chosen.items():
        own = [place for place in places if place[0] == name and place in starts and place in ends]
        rows.append(
            {
                "topic": name,
                "partitions": state.partitions,
                "copies": state.replication,
                "records": sum(ends[place] - starts[place] for place in own),
                "cleanup": state.config.get("cleanup.policy"),
                "retention": _retention(state),
                "time": {"LogAppendTime": "arrival", "CreateTime": "producer"}.get(
                    state.config.get("message.timestamp.type", "")
                ),
                "for": purposes.get(name) or _subscription_of(name),
            }
        )
    remember(app, "topic", [str(row["topic"]) for row in rows])
    app.screen.rows("topics", rows, LIST_COLUMNS, empty="The cluster has no topics yet.")


@topic.command()
@screen_options
@click.pass_obj
def plan(app: App) -> None:
    """How the cluster's topics differ from what contracts and subscriptions want; exit 3 if they do."""
    from ops import topics
    from schemas.errors import CheckFailedError

    plans = [*topics.wanted_by_the_backbone(app), *topics.wanted(app, app.contracts)]
    there = topics.existing(app)
    for name, attached in app.control().subscriptions.items():
        assert attached.definition is not None
        counts = [there[source].partitions for source in attached.definition.topics if source in there]
        if counts:
            plans += topics.wanted_for_subscription(app, name, max(counts))
    rows = [_plan_row(one, there.get(one.name)) for one in plans]
    app.screen.rows("topic.plan", rows, PLAN_COLUMNS)
    wrong = [row for row in rows if row["state"] != "as wanted"]
    if wrong:
        missing = sum(1 for row in wrong if row["state"] == "missing")
        advice = " Make what is missing: backbone schema register" if missing else ""
        raise CheckFailedError(f"{missing} topics are missing and {len(wrong) - missing} differ.{advice}")


@topic.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]..")
@click.option(
    "--principal", metavar="User:NAME", help="Write kafka-acls.sh's lines that give this principal the one ROLE."
)
@screen_options
@click.pass_obj
def acls(app: App, roles: tuple[str, ...], principal: str | None) -> None:
    """What each ROLE needs of Kafka, by this project's contracts and subscription files; asks nobody.

    Roles: publisher, worker, ledger, monitor, operator, analyst. Nothing more is needed, and with less a command ends
    with exit code 4 and says what is not permitted.
    """
    from ops.permissions import ROLES, permissions
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    for role in roles:
        if role not in ROLES:
            raise NotFoundError(f"There is no role '{role}'.{did_you_mean(role, ROLES)} There are: {', '.join(ROLES)}.")
    if principal is not None and (len(roles) != 1 or ":" not in principal):
        raise click.UsageError("--principal is written User:NAME and wants one ROLE.", click.get_current_context())
    readers = {name: found.topics for name, found in app.subscriptions().items()}
    chosen = [role for role in ROLES if not roles or role in roles]
    found = [one for role in chosen for one in permissions(role, app.contracts.topics(), readers)]
    if principal is None:
        app.screen.rows("topic.acls", [asdict(one) for one in found], ACL_COLUMNS)
        return
    servers = app.project.context(app.screen.context).kafka_address
    lines = ({"line": one.command(principal, servers)} for one in found)
    app.screen.stream("topic.acls.lines", lines, [Column("line")], line=lambda row: str(row["line"]))


def _plan_row(wanted: TopicPlan, state: TopicState | None) -> dict[str, Any]:
    from ops.topics import differences

    found = [] if state is None else differences(wanted, state)
    return {
        "topic": wanted.name,
        "state": "missing" if state is None else "different" if found else "as wanted",
        "partitions": wanted.partitions,
        "difference": "; ".join(found) or None,
        "config": dict(wanted.config),
    }


def _purposes(app: App) -> dict[str, str]:
    from schemas.errors import BackboneError

    try:
        found = {name: ", ".join(one.name for one in sharing) for name, sharing in app.contracts.topics().items()}
    except BackboneError as error:
        app.screen.warn(f"The contracts cannot be read: {error}")
        found = {}
    return {
        **found,
        "backbone.control": "what is attached",
        "backbone.audit": "who changed what",
        "backbone.deliveries": "receipts",
        "backbone.heartbeat": "what each process does now",
    }


def _subscription_of(topic: str) -> str | None:
    name, _, kind = topic.rpartition(".")
    return {"inbox": f"inbox of {name}", "dead": f"dead letters of {name}"}.get(kind) if name else None


def _retention(state: TopicState) -> str | None:
    from datetime import timedelta

    from ops.screen import duration

    kept = state.config.get("retention.ms", "")
    if state.config.get("cleanup.policy") == "compact" or kept == "-1":
        return "for ever"
    return duration(timedelta(milliseconds=int(kept))) if kept.isdigit() else None
