"""A monitor put together from a project and its context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.lag.attached import contracts_if_readable
from ops.lag.cluster import Cluster
from ops.monitor.address import folder
from ops.monitor.following import Following
from ops.monitor.history import History
from ops.monitor.monitor import EVERY_S, Monitor
from ops.reconcile.result import Differences
from ops.reconcile.result import folder as results
from schemas.errors import BackboneError

if TYPE_CHECKING:
    from ops.app import App


def open_monitor(app: App, *, every_s: float = EVERY_S) -> Monitor:
    """The monitor of this context, not yet started. Does not connect. The app must not be used for reading by others
    while it runs, and is closed after it."""
    cluster = Cluster(app.admin(), app.consumer)

    def sentence(error: Exception) -> str:
        translated = error if isinstance(error, BackboneError) else app.translated(error)
        return type(error).__name__ if translated is None else app.sentence(translated)

    return Monitor(
        cluster=cluster,
        following=Following(cluster, app.consumer),
        contracts=contracts_if_readable(app),
        history=History(folder(app.context) / f"{app.context.name}.db"),
        sentence=sentence,
        every_s=every_s,
        reconciled=Differences(results(app.context.project.root, app.context.name)).now,
    )
