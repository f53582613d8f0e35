"""``backbone lag``: how far any Kafka group is behind, in offsets and in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column, duration
from schemas.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from ops.lag.cluster import Isolation
    from ops.lag.measure import GroupLag, LagReader, PartitionLag, Subject


def span(_ctx: click.Context, _param: click.Parameter, text: str | None) -> timedelta | None:
    """A click callback: a duration, or a usage error in a sentence."""
    from schemas.duration import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME..]")
@click.option("--watch", is_flag=True, help="Measure again and again, with trend and ETA; Ctrl-C ends it.")
@click.option("--every", default="2s", show_default=True, callback=span, metavar="DURATION",
              help="Time between two measurements of --watch.")  # fmt: skip
@click.option("--fail-over", callback=span, metavar="DURATION",
              help="Exit 3 if a record older than this waits, or records were lost.")  # fmt: skip
@click.option("--isolation", type=click.Choice(["committed", "uncommitted"]),
              help="How foreign groups read; ours: committed; default: uncommitted, like Kafka's tool.")  # fmt: skip
@screen_options
@click.pass_obj
def lag(
    app: App,
    names: tuple[str, ...],
    watch: bool,
    every: timedelta,
    fail_over: timedelta | None,
    isolation: Isolation | None,
) -> None:
    """How far groups are behind: ours and foreign ones, all of them without a NAME.

    LAG counts offsets, not messages: transaction markers and deleted records occupy offsets too. OLDEST is the age of
    the first record not yet processed. ~ marks a value that is a bound or a guess: a foreign group without a commit
    counts its whole log. -v shows every partition.

    JSON: one row a group with group, ours, status, state, members, lag, lag_max, lag_is_guess, lag_seconds (null:
    unknown), lag_seconds_is_bound, slo_seconds, eta_seconds, trend, lost, no_commit, uncommitted, missing_topics,
    problem; with -v one row a partition with group, topic, partition, committed, start, end, lag, lag_from (commit,
    start, log), lag_is_guess, lost, uncommitted, lag_seconds, lag_seconds_is_bound, status, member.
    """
    from ops.lag import attached
    from ops.lag.cluster import Cluster
    from ops.lag.measure import LagReader

    if watch and app.screen.output == "json":
        raise InputError("--watch has no end, so it cannot be one JSON document: use --output ndjson.")
    if watch and every < timedelta(milliseconds=200):
        raise InputError("--every must be at least 200ms.")
    cluster = Cluster(app.admin(), app.consumer)
    contracts = attached.contracts_if_readable(app)
    reader = LagReader(cluster)

    def subjects() -> list[Subject]:
        return attached.subjects(
            names, control=app.control(), contracts=contracts, cluster=cluster, isolation=isolation
        )

    if watch:
        _watch(app, reader, subjects, every, fail_over)
        return
    groups = reader.measure(subjects())
    _show(app, groups)
    _judge(groups, fail_over)


def _show(app: App, groups: Sequence[GroupLag], *, watched: bool = False) -> None:
    _warn(app, groups)
    rows, columns = _table(groups, verbose=app.screen.verbose, watched=watched)
    app.screen.rows("lag", rows, columns, empty="There are no groups.")


def _watch(
    app: App, reader: LagReader, subjects: Callable[[], list[Subject]], every: timedelta, fail_over: timedelta | None
) -> None:
    app.interrupted = "Stopped watching."
    wanted = subjects()

    def rounds() -> Iterator[list[GroupLag]]:
        # what is attached while we watch is not picked up: the groups are those of the first look
        due = time.monotonic()
        while True:
            yield reader.measure(wanted)
            due = max(due + every.total_seconds(), time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)

    from rich.console import Console
    from rich.live import Live

    console = Console()
    if app.screen.output == "ndjson" or not console.is_terminal:
        for groups in rounds():
            _show(app, groups, watched=True)
            _judge(groups, fail_over)
        return
    # redrawn in place, so that the last look stays on the screen when it ends
    with Live(console=console, auto_refresh=False) as live:
        for groups in rounds():
            rows, columns = _table(groups, verbose=app.screen.verbose, watched=True)
            where = "" if app.screen.context == "local" else f"{app.screen.context} · "
            title = f"{where}{time.strftime('%H:%M:%S', time.gmtime())}Z, every {duration(every)}"
            live.update(app.screen.table(rows, columns, title=title), refresh=True)
            _judge(groups, fail_over)


def _judge(groups: Sequence[GroupLag], fail_over: timedelta | None) -> None:
    if fail_over is None:
        return
    for group in groups:
        if group.problem is not None:
            raise CheckFailedError(f"{group.name} could not be measured ({group.problem.name()}).")
        if group.lost:
            raise CheckFailedError(f"{group.name}: {group.lost:,} records were deleted before it read them.")
        if group.age_s is None:
            raise CheckFailedError(f"{group.name} has lag, and how old it is could not be found out.")
        if group.age_s > fail_over.total_seconds():
            age = duration(timedelta(seconds=group.age_s))
            raise CheckFailedError(f"{group.name} is late: its oldest waiting record is {age} old.")


def _warn(app: App, groups: Sequence[GroupLag]) -> None:
    for group in groups:
        if group.problem is not None:
            app.screen.warn(f"{group.name} could not be measured: {app.kafka_error(group.problem)}")
        for topic in group.missing:
            app.screen.warn(f"{group.name}: the topic {topic} does not exist.")
        if group.lost:
            app.screen.warn(f"{group.name}: {group.lost:,} records were deleted before it read them.")
        if group.uncommitted and not group.lag:
            app.screen.detail(f"{group.name}: {group.uncommitted:,} offsets belong to open transactions.")


def _table(groups: Sequence[GroupLag], *, verbose: bool, watched: bool) -> tuple[list[dict[str, Any]], list[Column]]:
    if verbose:
        rows = [partition_row(group.name, partition) for group in groups for partition in group.partitions]
        columns = [
            Column("group"), Column("topic"), Column("partition", "PART", str), Column("committed"), Column("end"),
            Column("lag"), Column("lag_is_guess", "~", mark),
            Column("lag_seconds", "OLDEST", age_text), Column("lag_seconds_is_bound", "~", mark),
            Column("lost"), Column("status"), Column("member"),
        ]  # fmt: skip
    else:
        rows = [group_row(group) for group in groups]
        columns = [
            Column("group"), Column("status"), Column("members"), Column("lag"), Column("lag_is_guess", "~", mark),
            Column("lag_seconds", "OLDEST", age_text), Column("lag_seconds_is_bound", "~", mark),
            Column("slo_seconds", "SLO", age_text),
        ]  # fmt: skip
        if watched:
            columns += [Column("trend", "TREND"), Column("eta_seconds", "ETA", age_text)]
    # a mark that marks nothing, and a loss where nothing is lost, are no columns
    empty = {name for name in ("lag_is_guess", "lag_seconds_is_bound", "lost") if not any(row[name] for row in rows)}
    return rows, [column for column in columns if column.field not in empty]


def group_row(group: GroupLag) -> dict[str, Any]:
    """One group, as documented in the command's help."""
    pace = group.trend
    return {
        "group": group.name,
        "ours": group.ours,
        "status": group.status if group.problem is None else None,
        "state": group.state,
        "members": len(group.members),
        "lag": group.lag,
        "lag_max": group.lag_max,
        "lag_is_guess": group.is_guess,
        "lag_seconds": rounded(group.age_s),
        "lag_seconds_is_bound": group.age_is_bound,
        "slo_seconds": group.slo_s,
        "eta_seconds": rounded(group.eta_s),
        "trend": None if pace is None else f"+{pace.produced_per_s:,.0f} -{pace.consumed_per_s:,.0f} /s",
        "lost": group.lost,
        "no_commit": group.no_commit,
        "uncommitted": group.uncommitted,
        "missing_topics": list(group.missing),
        "problem": None if group.problem is None else group.problem.name(),
    }


def partition_row(name: str, partition: PartitionLag) -> dict[str, Any]:
    """One partition of one group, as documented in the command's help."""
    member = partition.member
    return {
        "group": name,
        "topic": partition.topic,
        "partition": partition.partition,
        "committed": partition.committed,
        "start": partition.log_start,
        "end": partition.end,
        "lag": partition.offsets.lag,
        "lag_from": partition.offsets.basis,
        "lag_is_guess": partition.offsets.basis == "log" and partition.offsets.lag > 0,
        "lost": partition.offsets.lost,
        "uncommitted": partition.uncommitted,
        "lag_seconds": rounded(partition.age_s),
        "lag_seconds_is_bound": partition.age_is_bound,
        "status": partition.status,
        "member": None if member is None else f"{member.client_id} {member.host}",
    }


def mark(is_rough: bool) -> str:
    """``~`` for a value that is a bound or a guess."""
    return "~" if is_rough else ""


def age_text(seconds: float) -> str:
    """An age or a time to go, for people."""
    return duration(timedelta(seconds=seconds))


def rounded(seconds: float | None) -> float | None:
    """Seconds to the millisecond; more would be noise."""
    return None if seconds is None else round(seconds, 3)
