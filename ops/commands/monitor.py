"""``backbone monitor``: watch every group of the cluster, in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import click

from ops.app import CLUSTER_TIMEOUT_S, App, screen_options
from ops.commands.lag import span
from ops.commands.run import LOG, LOG_LEVEL, credential_told, listening
from schemas.errors import InputError
from schemas.findings import did_you_mean


@click.command()
@click.option("--health", default="127.0.0.1:0", metavar="HOST:PORT", show_default=True, callback=listening,
              help="Where /live, /ready, /metrics and the snapshot listen; port 0 takes a free one.")  # fmt: skip
@click.option("--every", default="15s", show_default=True, callback=span, metavar="DURATION",
              help="Time between two rounds, at least 1s.")  # fmt: skip
@click.option("--compat", metavar="NAME,NAME",
              help="Metrics under the names of other exporters too: kafka-exporter, kafka-lag-exporter.")  # fmt: skip
@LOG
@LOG_LEVEL
@screen_options
@click.pass_obj
def monitor(
    app: App, health: tuple[str, int], every: timedelta, compat: str | None, log: str, log_level: str
) -> None:  # fmt: skip
    """Watch every group of the cluster, ours and foreign ones: lag in offsets and in time, who is stuck or unread, what
    retention is about to delete, open dead letters, connections. It only reads. backbone run does it too, where it
    runs everything; one for a cluster is enough, more do no harm.

    status and lag read what it has measured: then they know at once what takes time to be seen (trend, ETA, STALLED,
    NO_MEMBERS) and show the last 24 hours, which it keeps in .backbone/monitor/CONTEXT.db. On another machine they
    find it by monitor = "http://host:port" in the context of backbone.toml.

    /metrics is for Prometheus. GET /api/v1/snapshot answers {"schema": "backbone.monitor/v1", "context", "at", "data",
    "warnings"}; data has sampled_at, round_seconds, every_seconds, workers, deadletters (subscription, open, oldest_at,
    oldest_seconds), connections (as connection list) and groups: the rows of lag, each with at, trend_over
    (consumed_per_second, produced_per_second, seconds), member_list (id, client_id, host, partitions) and partitions
    (the rows of lag -v, with next_offset, metadata, lost_total, high_watermark, last_stable). GET
    /api/v1/groups/NAME answers one of the groups, with round_seconds and every_seconds. GET
    /api/v1/history?group=NAME&hours=24 answers points, a minute each: topic, at, lag, lag_seconds (both the greatest of
    the minute), status, position and end (sums over partitions). A refusal has error: code (an exit code) and message.
    """
    from ops.watch import logs

    if every < timedelta(seconds=1):
        raise InputError("--every must be at least 1s.")
    names = _exporters(compat)
    app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S)  # who cannot reach the cluster is told at once
    logs.configure(None if log == "auto" else log == "json", level=log_level)
    with asyncio.Runner() as runner:
        runner.run(watch(app, *health, every_s=every.total_seconds(), compat=names))


def _exporters(compat: str | None) -> tuple[str, ...]:
    from ops.watch.compat import EXPORTERS

    names = tuple(part.strip() for part in (compat or "").split(",") if part.strip())
    for name in names:
        if name not in EXPORTERS:
            raise InputError(
                f"--compat: there is no exporter '{name}'.{did_you_mean(name, EXPORTERS)} "
                f"There are: {', '.join(EXPORTERS)}."
            )
    return tuple(dict.fromkeys(names))


async def watch(app: App, host: str, port: int, *, every_s: float, compat: tuple[str, ...] = ()) -> None:
    """Run a monitor until SIGINT or SIGTERM."""
    from prometheus_client import CollectorRegistry

    from ops.monitor import api
    from ops.monitor.address import claim, withdraw
    from ops.monitor.opening import open_monitor
    from ops.secrets import uses
    from ops.secrets.rotation import Rotation
    from ops.watch import health
    from ops.watch.compat import exporters
    from ops.watch.expiry_metrics import Expiries
    from ops.watch.group_metrics import GroupMetrics
    from ops.watch.logs import logger

    leaving = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    monitor = open_monitor(app, every_s=every_s)
    registry = CollectorRegistry()
    names = exporters(app.context.name)
    registry.register(GroupMetrics(monitor, also=[names[name] for name in compat]))
    server = await health.serve(
        host,
        port,
        live=lambda: monitor.live,
        ready=lambda: monitor.ready,
        registry=registry,
        more=api.routes(monitor, context=app.context.name),
    )

    def renew(username: str, password: str) -> None:
        app.renew(username, password)
        monitor.renew(app.admin(), username, password)

    rotation = Rotation(app.context.secrets, credential_told)
    rotation.watch(uses.of_kafka(app.context, renew))
    registry.register(Expiries(rotation.expiries))
    rotating = asyncio.get_running_loop().create_task(rotation.run())
    try:
        monitor.start(rests=lambda: not claim(app.context, host, server.port, over=True))
        where = f"http://{host}:{server.port}"
        logger().info("monitor_started", health=where, context=app.context.name, pid=os.getpid())
        await leaving.wait()
    finally:
        rotating.cancel()
        withdraw(app.context, host, server.port)
        await server.stop()
        await asyncio.to_thread(monitor.close)
        logger().info("monitor_left", pid=os.getpid())
