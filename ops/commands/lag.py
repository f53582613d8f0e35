"""``backbone lag``: how far any Kafka group is behind, in offsets and in time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column, duration
from schemas.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from ops.lag.cluster import Isolation
    from ops.lag.measure import GroupLag, LagReader, Subject
    from ops.monitor.sampled import Sampled


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
@click.option("--watch", is_flag=True, help="Look again and again, with trend and ETA; Ctrl-C ends it.")
@click.option("--every", callback=span, metavar="DURATION",
              help="Measure so often with --watch; default: 2s, or what the monitor measures.")  # fmt: skip
@click.option("--fail-over", callback=span, metavar="DURATION",
              help="Exit 3 if a record older than this waits, or records were lost. Measures now.")  # fmt: skip
@click.option("--isolation", type=click.Choice(["committed", "uncommitted"]),
              help="How foreign groups read; ours: committed; default: uncommitted, like Kafka's tool.")  # fmt: skip
@click.option("--now", is_flag=True, help="Measure now, also where a monitor has.")
@screen_options
@click.pass_obj
def lag(
    app: App,
    names: tuple[str, ...],
    watch: bool,
    every: timedelta | None,
    fail_over: timedelta | None,
    isolation: Isolation | None,
    now: bool,
) -> None:
    """How far groups are behind: ours and foreign ones, all of them without a NAME.

    LAG counts offsets, not messages: transaction markers and deleted records occupy offsets too. OLDEST is the age of
    the first record not yet processed. ~ marks a value that is a bound or a guess: a foreign group without a commit
    counts its whole log. -v shows every partition.

    Where a monitor runs its last round is shown, with trend, ETA and, with -v, the last 24 hours; else it is measured
    now. STALLED and NO_MEMBERS need time to be seen, so only a monitor or --watch tells them.

    JSON: one row a group with group, ours, status, reason, state, members, lag, lag_max, lag_is_guess, lag_seconds
    (null: unknown), lag_seconds_is_bound, slo_seconds, eta_seconds, trend, retention_margin_seconds, lost, no_commit,
    uncommitted, missing_topics, problem, sampled_at; with -v one row a partition with group, topic, partition,
    committed, start, end, lag, lag_from (commit, start, log), lag_is_guess, lost, uncommitted, lag_seconds,
    lag_seconds_is_bound, status, reason, retention_margin_seconds, member.
    """
    if watch and app.screen.output == "json":
        raise InputError("--watch has no end, so it cannot be one JSON document: use --output ndjson.")
    if every is not None and every < timedelta(milliseconds=200):
        raise InputError("--every must be at least 200ms.")
    # a check must not be answered with what was so a moment ago
    looks = _Looks(app, tuple(dict.fromkeys(names)), isolation, may_sample=not (now or every or fail_over or isolation))
    if watch:
        _watch(app, looks, every or timedelta(seconds=2), fail_over)
        return
    look = looks.take()
    if look.sampled is not None:
        app.screen.say(look.sampled.words)
    _show(app, look)
    if app.screen.verbose and app.screen.output == "table" and look.sampled is not None:
        _show_days(app, look)
    _judge(look.groups, fail_over)


@dataclass(frozen=True, slots=True)
class _Look:
    """Groups as they were found; ``sampled`` None: measured just now."""

    groups: Sequence[GroupLag]
    sampled: Sampled | None = None

    @property
    def has_trend(self) -> bool:
        return any(group.trend is not None for group in self.groups)


class _Looks:
    """Look after look at the same groups: the monitor's, where one answers and that is wanted, else measured here."""

    def __init__(self, app: App, names: tuple[str, ...], isolation: Isolation | None, *, may_sample: bool) -> None:
        self._app, self._names, self._isolation, self._may_sample = app, names, isolation, may_sample
        self._measuring: tuple[LagReader, list[Subject]] | None = None

    def take(self) -> _Look:
        from ops.monitor.sampled import sampled

        found = sampled(self._app, self._names) if self._may_sample else None
        if found is not None:
            return _Look(list(found.groups.values()), found)
        if self._measuring is None:
            self._measuring = self._begin()
        reader, subjects = self._measuring
        return _Look(reader.measure(subjects))

    def _begin(self) -> tuple[LagReader, list[Subject]]:
        # what is attached while we watch is not picked up: the groups are those of the first look
        from ops.lag import attached
        from ops.lag.cluster import Cluster
        from ops.lag.measure import LagReader

        app = self._app
        cluster = Cluster(app.admin(), app.consumer)
        wanted = attached.subjects(
            self._names,
            control=app.control(),
            contracts=attached.contracts_if_readable(app),
            cluster=cluster,
            isolation=self._isolation,
        )
        return LagReader(cluster), wanted


def _show(app: App, look: _Look, *, watched: bool = False) -> None:
    from ops.completing import remember

    _warn(app, look.groups)
    remember(app, "group", [group.name for group in look.groups])
    rows, columns = _table(look.groups, verbose=app.screen.verbose, trend=watched or look.has_trend)
    app.screen.rows("lag", rows, columns, empty="There are no groups.")


DAYS_MAX = 10
"""So many groups are shown with their last 24 hours, the worst ones."""


def _show_days(app: App, look: _Look) -> None:
    """A line for each topic of a group: its oldest ages over the last 24 hours."""
    from ops.lag.rules import SEVERITY

    worst = sorted(look.groups, key=lambda group: (-SEVERITY[group.status], -(group.age_s or 0.0)))
    rows = [{"group": group.name, **row} for group in worst[:DAYS_MAX] for row in day_rows(app, group.name) or ()]
    if rows:
        app.screen.rows("lag_day", rows, [Column("group"), *DAY])


DAY = [Column("topic"), Column("bars", "LAST 24 H"), Column("lag_seconds_max", "OLDEST OF IT", lambda s: age_text(s))]


def day_rows(app: App, name: str) -> list[dict[str, Any]] | None:
    """The last 24 hours of a group by topic; None where no monitor has them."""
    from ops.monitor.history import sparkline
    from ops.monitor.sampled import day

    points = day(app, name)
    if points is None:
        return None
    rows = []
    for topic in dict.fromkeys(point.topic for point in points):
        of_topic = [point for point in points if point.topic == topic]
        ages = [point.age_s for point in of_topic if point.age_s is not None]
        bars = sparkline(of_topic, now=time.time())
        rows.append({"topic": topic, "bars": bars, "lag_seconds_max": max(ages, default=None)})
    return rows


def _watch(app: App, looks: _Looks, every: timedelta, fail_over: timedelta | None) -> None:
    from rich.console import Console
    from rich.live import Live

    app.interrupted = "Stopped watching."

    def rounds() -> Iterator[_Look]:
        due = time.monotonic()
        while True:
            yield looks.take()
            due = max(due + every.total_seconds(), time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)

    console = Console()
    if app.screen.output == "ndjson" or not console.is_terminal:
        shown_at: float | None = None
        for look in rounds():
            at = max((group.at for group in look.groups), default=None)
            if look.sampled is not None and at == shown_at:
                continue  # the monitor has measured nothing new
            shown_at = at
            _show(app, look, watched=True)
            _judge(look.groups, fail_over)
        return
    # redrawn in place, so that the last look stays on the screen when it ends
    with Live(console=console, auto_refresh=False) as live:
        for look in rounds():
            rows, columns = _table(look.groups, verbose=app.screen.verbose, trend=True)
            where = "" if app.screen.context == "local" else f"{app.screen.context} · "
            how = f"every {duration(every)}" if look.sampled is None else look.sampled.words
            title = f"{where}{time.strftime('%H:%M:%S', time.gmtime())}Z, {how}"
            live.update(app.screen.table(rows, columns, title=title), refresh=True)
            _judge(look.groups, fail_over)


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
        if group.worst is not None and group.worst.reason:
            worst = group.worst
            app.screen.detail(f"{group.name}: {worst.topic}/{worst.partition} is {worst.status}. {worst.reason}")
        if group.uncommitted and not group.lag:
            app.screen.detail(f"{group.name}: {group.uncommitted:,} offsets belong to open transactions.")


def _table(groups: Sequence[GroupLag], *, verbose: bool, trend: bool) -> tuple[list[dict[str, Any]], list[Column]]:
    from ops.lag.rows import group_row, partition_row

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
        if trend:
            columns += [Column("trend", "TREND"), Column("eta_seconds", "ETA", age_text)]
    # a mark that marks nothing, and a loss where nothing is lost, are no columns
    empty = {name for name in ("lag_is_guess", "lag_seconds_is_bound", "lost") if not any(row[name] for row in rows)}
    return rows, [column for column in columns if column.field not in empty]


def mark(is_rough: bool) -> str:
    """``~`` for a value that is a bound or a guess."""
    return "~" if is_rough else ""


def age_text(seconds: float) -> str:
    """An age or a time to go, for people."""
    return duration(timedelta(seconds=seconds))
