"""``backbone run``: a worker in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from ops.app import App, screen_options
from schemas.errors import NotFoundError, PartlyDoneError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from connectors.connection import Connection
    from consumers.runtime import Runtime


MONITOR = "monitor"
"""The backbone's own watching of all groups, as a NAME to run."""

LOG = click.option("--log", type=click.Choice(["auto", "json", "human"]), default="auto", show_default=True,
                   help="Log lines as JSON, or for people; auto: for people on a terminal.")  # fmt: skip
LOG_LEVEL = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
                         show_default=True, help="The least severe lines to write.")  # fmt: skip


def listening(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, int]:
    """A click callback: where to listen, or a usage error in a sentence."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        raise click.BadParameter("write HOST:PORT, for example 0.0.0.0:9400")
    return host, int(port)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME..]")
@click.option("--health", default="127.0.0.1:0", metavar="HOST:PORT", show_default=True, callback=listening,
              help="Where /live, /ready and /metrics listen; port 0 takes a free one.")  # fmt: skip
@LOG
@LOG_LEVEL
@screen_options
@click.pass_obj
def run(app: App, names: tuple[str, ...], health: tuple[str, int], log: str, log_level: str) -> None:
    """Run every attached subscription, the ledger and the monitor, or those NAMEd (ledger and monitor too are NAMEs).

    Follows the control topic: what is attached, changed, paused or detached elsewhere takes effect here within
    seconds. Run more of these to share the work. Ctrl-C or SIGTERM finishes what is in flight, commits and leaves; a
    second one leaves at once; kill -9 loses nothing either.

    The monitor rests while another one of this project answers on this machine. See: backbone monitor --help
    """
    from ops.control import require_control
    from ops.topics import LEDGER
    from ops.watch import logs

    require_control(app)
    attached = app.control().subscriptions
    for name in names:
        if name == LEDGER:
            app.ledger()  # where none is kept that is said, with what to set
        elif name != MONITOR and name not in attached:
            raise NotFoundError(
                f"No subscription '{name}' is attached.{did_you_mean(name, attached)} "
                f"Attach it: backbone subscription attach {name} --from earliest"
            )
    logs.configure(None if log == "auto" else log == "json", level=log_level)
    if not attached:
        app.screen.say("Nothing is attached yet; waiting. Attach: backbone subscription attach FILE --from earliest")
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        if set(names) == {MONITOR}:
            from ops.commands.monitor import watch
            from ops.monitor.monitor import EVERY_S

            runner.run(watch(app, *health, every_s=EVERY_S))
            return
        in_time = runner.run(_work(app, names, *health))
    if not in_time:
        raise PartlyDoneError(
            "Some deliveries did not end in time; they were not committed and are made again, with the same "
            "idempotency keys, when a worker runs."
        )


def credential_told(name: str, sentence: str) -> None:
    """What a ``Rotation`` says, as a log line."""
    from ops.watch.logs import logger

    if sentence:
        logger().warning("credential_not_taken", of=name, why=sentence)
    else:
        logger().info("credential_taken", of=name)


def sunset_of(app: App, connection: str) -> float | None:
    """When the vendor ends the version of its API that this connection asks, in seconds since the epoch."""
    from ops.secrets.expiry import of_day

    resolved = app.context.connections.get(connection)  # None: the ledger is no connection of the project
    kind = None if resolved is None else app.connector_types.get(resolved.connector)
    found = None if resolved is None or kind is None else resolved.api(kind)
    return None if found is None else of_day(found.sunset)


def _leave_at_once(app: App) -> NoReturn:
    """Like kill -9, which the delivery is made for: nothing is lost, some may be delivered a second time."""
    app.screen.error(
        130,
        "Left at once: what was in flight is not committed and is made again, with the same idempotency keys, when a "
        "worker runs. Others take over when the cluster notices, after the session timeout.",
    )
    sys.stdout.flush()
    os._exit(130)


def _loop_factory() -> type | None:
    """uvloop's loop where it is installed (a third less CPU per request), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type = uvloop.Loop
    return loop


async def _work(app: App, names: tuple[str, ...], host: str, port: int) -> bool:
    from importlib.metadata import version

    from consumers.worker import Worker
    from ops.monitor import api
    from ops.monitor.address import claim, withdraw
    from ops.monitor.opening import open_monitor
    from ops.secrets import uses
    from ops.secrets.rotation import Rotation
    from ops.watch import health as health_server
    from ops.watch.expiry_metrics import Expiries
    from ops.watch.group_metrics import GroupMetrics
    from ops.watch.logs import logger
    from ops.watch.watching import open_watching
    from ops.wiring import Wiring, collect_less
    from producers.kafka import RecordProducer

    who = f"{socket.gethostname()}/{os.getpid()}"
    engine = version("event-backbone")
    watching = open_watching(app, who=who, version=engine)
    observe = watching.observation
    client = {"client.id": f"backbone-{who.replace('/', '-')}"}  # what `status` and the brokers' logs call this member
    kafka = client | app.context.kafka
    producer = RecordProducer(kafka, block_s=0, served=True)

    def follow(name: str, runtime: Runtime) -> None:
        def oldest_s() -> float:
            oldest_at = runtime.oldest_at
            return 0.0 if oldest_at is None else max(0.0, time.time() - oldest_at)

        observe.follow(
            name, lanes_held=lambda: runtime.lanes_held, oldest_s=oldest_s, keys_parked=lambda: runtime.keys_parked
        )

    def opened(connection: Connection) -> None:
        observe.follow_connection(connection.name, quota_used=lambda: connection.view().quota_used)
        if (sunset := sunset_of(app, connection.name)) is not None:
            sunsets[connection.name] = sunset

    def renew(username: str, password: str) -> None:
        producer.renew(username, password)
        app.renew(username, password)
        worker.renew(username, password)
        if monitor is not None:
            monitor.renew(app.admin(), username, password)

    rotation = Rotation(app.context.secrets, credential_told)
    sunsets: dict[str, float] = {}
    observe.registry.register(Expiries(rotation.expiries, lambda: dict(sunsets)))
    make = Wiring(app, app.decoder, producer, watching.tell, opened, rotation.watch)
    monitor = open_monitor(app) if not names or MONITOR in names else None
    worker = Worker(
        names=[name for name in names if name != MONITOR],
        who=who,
        kafka=kafka,
        membership=client | app.context.subscription_kafka,
        producer=producer,
        make=make,
        builtin=make.builtin,
        version=engine,
        observer=watching.tell,
        follow=follow,
        credentials=lambda: rotation.said,
    )
    rotation.watch(uses.of_kafka(app.context, renew))
    if (registry := uses.of_registry(app)) is not None:
        rotation.watch(registry)
    asked_before = False

    def leave() -> None:
        nonlocal asked_before
        if asked_before:
            _leave_at_once(app)
        asked_before = True
        app.screen.say(f"Leaving: what is in flight ends first, at most {worker.drain_s:g} s. Once more: at once.")
        worker.leave()

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, leave)
    if monitor is not None:
        observe.registry.register(GroupMetrics(monitor))
    server = await health_server.serve(
        host,
        port,
        live=lambda: True,
        ready=lambda: worker.ready,
        registry=observe.registry,
        more=api.routes(monitor, context=app.context.name) if monitor is not None else None,
    )
    logger().info("worker_started", health=f"http://{host}:{server.port}", context=app.context.name, pid=os.getpid())
    collect_less()
    rotating = loop.create_task(rotation.run())
    try:
        if monitor is not None:
            monitor.start(rests=lambda: not claim(app.context, host, server.port))
        return await worker.run()
    finally:
        rotating.cancel()
        await server.stop()
        if monitor is not None:
            await asyncio.to_thread(monitor.close)
            withdraw(app.context, host, server.port)
        await asyncio.to_thread(producer.close, 10.0)
        await asyncio.to_thread(watching.close)
        logger().info("worker_left", pid=os.getpid())
