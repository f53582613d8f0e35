"""``backbone status``: what is wrong now, worst first. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import CLUSTER_TIMEOUT_S, App, screen_options
from ops.commands.lag import age_text, partition_row
from ops.screen import Column, shown
from ops.wording import in_context
from schemas.errors import NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from consumers.control import ControlSnapshot
    from ops.diagnosis import Case, Problem

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
MEMBERS = [Column("client_id", "MEMBER"), Column("host"), Column("partitions", "PARTITIONS", str)]


@click.command()
@click.argument("name", required=False)
@screen_options
@click.pass_obj
def status(app: App, name: str | None) -> None:
    """What is wrong now, worst first, with the command to type next; or everything about the subscription NAME.

    Exit code 0 whatever it finds; to be told by an exit code: backbone lag --fail-over 60s, backbone deadletter list
    --fail-on.
    """
    control = app.control()
    if name is not None and name not in control.subscriptions:
        raise _unknown(control, name)
    names = [name] if name is not None else list(control.subscriptions)
    now = datetime.now(UTC)
    cases, problems = _look(app, control, names, now, everything=name is None)
    if name is not None:
        app.screen.document("subscription_status", _in_full(cases[0], problems, control), _full_text(app), title=name)
        return
    from ops import diagnosis

    data: dict[str, list[dict[str, Any]]] = {
        "problems": [asdict(problem) for problem in problems],
        "subscriptions": [
            diagnosis.summary(case, [p for p in problems if p.subject == case.attached.name]) for case in cases
        ],
    }

    def render(_: Any) -> list[Any]:
        text = "\n\n".join(_problem_text(problem) for problem in problems) or "Nothing is wrong."
        parts: list[Any] = [text]
        if cases:
            parts += ["", app.screen.table(data["subscriptions"], SUBSCRIPTIONS)]
        return parts

    app.screen.document("status", data, render)
    if not control.subscriptions:
        app.screen.say("Nothing is attached. Attach: backbone subscription attach FILE --from earliest")


def _look(
    app: App, control: ControlSnapshot, names: Sequence[str], now: datetime, *, everything: bool
) -> tuple[list[Case], list[Problem]]:
    """Cases in the order of ``names``, problems worst first. ``everything``: topics of contracts too."""
    from ops import deadletters, diagnosis
    from ops.lag import attached
    from ops.lag.cluster import Cluster
    from ops.lag.measure import LagReader

    contracts = attached.contracts_if_readable(app)
    there = app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).topics
    chosen = [control.subscriptions[name] for name in names]
    groups = LagReader(Cluster(app.admin(), app.consumer)).measure(
        [attached.subject_of(subscription, contracts) for subscription in chosen]
    )
    dead = deadletters.open_letters(app, [name for name in names if f"{name}.dead" in there])
    cases, problems = [], []
    for subscription, group in zip(chosen, groups, strict=True):
        assert subscription.definition is not None
        head = attached.header(subscription.definition, contracts)
        case = diagnosis.Case(
            attached=subscription,
            header=head,
            group=group,
            dead=dead.get(subscription.name),
            not_read_yet=diagnosis.not_read_yet(subscription, head, contracts),
        )
        cases.append(case)
        problems += diagnosis.problems_of(case, now)
    if everything:
        problems += diagnosis.missing_topics(contracts, there)
    here = app.screen.context
    typed = [replace(one, cause=in_context(one.cause, here), command=in_context(one.command, here)) for one in problems]
    return cases, diagnosis.worst_first(typed)


def _problem_text(problem: Problem) -> str:
    age = "" if problem.age_s is None else f"  {age_text(problem.age_s)}"
    owner = f"  {problem.owner}" if problem.owner else ""
    title = problem.kind.replace("_", " ").upper()
    return f"{title}  {problem.subject}{age}{owner}\n    {problem.cause}\n    -> {problem.command}"


def _in_full(case: Case, problems: Sequence[Problem], control: ControlSnapshot) -> dict[str, Any]:
    from consumers.offsets import decode_runs

    attached, group, definition = case.attached, case.group, case.attached.definition
    assert definition is not None
    connection = control.connections.get(definition.connection)
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
            "state": "running" if connection is None else connection.state,
            "reason": "" if connection is None else connection.reason,
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
        "members": [
            {"client_id": m.client_id, "host": m.host, "partitions": [f"{t}/{p}" for t, p in m.places]}
            for m in group.members
        ],
        "partitions": partitions,
        "problems": [asdict(problem) for problem in problems],
    }


def _full_text(app: App) -> Any:
    def render(data: Mapping[str, Any]) -> list[Any]:
        from ops.diagnosis import Problem

        state = data["state"]
        members = len(data["members"])
        by = ", ".join(part for part in (state["by"], state["at"]) if part)
        lines = {
            "description": data["description"],
            "owner": data["owner"],
            "version": f"{data['version']}, attached {data['attached_at']} by {data['attached_by']}",
            "state": state["state"] + (f" ({by})" if by else ""),
            "connection": f"{data['connection']['name']}, {data['connection']['state']}",
            "events": data["events"],
            "group": "nobody has joined it yet"
            if data["group"] == "dead"
            else f"{data['group']}, {members} member{'' if members == 1 else 's'}",
            "lag": f"{data['lag']:,} offsets, the oldest waits {_age(data['lag_seconds'])}" if data["lag"] else "none",
            "promised": f"at most {_age(data['slo_seconds'])}",
            "dead letters": data["dead_letters"]["open"],
        }
        width = max(len(label) for label in lines)
        parts: list[Any] = ["\n".join(f"{label:<{width}}  {shown(value)}" for label, value in lines.items())]
        for problem in data["problems"]:
            parts += ["", _problem_text(Problem(**problem))]
        if data["members"]:
            rows = [row | {"partitions": len(row["partitions"])} for row in data["members"]]
            parts += ["", app.screen.table(rows, MEMBERS)]
        if data["partitions"]:
            parts += ["", app.screen.table(data["partitions"], PARTITIONS)]
        return parts

    return render


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
