"""What watches a worker: its metrics and log lines always; spans and kept calls where somebody wants them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.settings import spans_wanted
from ops.watch.observe import Observation, told_to
from ops.watch.tracing import open_tracing
from schemas.duration import parse_duration
from schemas.errors import InputError

if TYPE_CHECKING:
    from consumers.facts import Observer
    from ops.app import App
    from ops.watch.call_log import CallLog


@dataclass(frozen=True, slots=True)
class Watching:
    """``tell`` takes every fact of the process. ``close`` lets everything be written and sent that waits; it blocks,
    10 s at most."""

    observation: Observation
    tell: Observer
    close: Callable[[], None]


def open_watching(app: App, *, who: str, version: str) -> Watching:
    """The watchers that the environment and backbone.toml want. Connects to nothing, opens no file."""
    observation = Observation()
    tracing = open_tracing(wanted=spans_wanted(), who=who, version=version)
    calls = open_call_log(app, observation)

    def close() -> None:
        if calls is not None:
            calls.close()
        if tracing is not None:
            tracing.close()

    observers: list[Observer] = [observation]
    if tracing is not None:
        observers.append(tracing.observe)
    if calls is not None:
        observers.append(calls)
    return Watching(observation, told_to(*observers), close)


def open_call_log(app: App, observation: Observation) -> CallLog | None:
    """The call log of this context's connections that have one; None where none has."""
    context = app.context
    connections = [name for name, one in context.connections.items() if one.call_log]
    if not connections:
        return None
    from ops.watch.call_log import CallLog
    from ops.watch.call_store import CallStore

    bounds = context.table.call_log
    store = CallStore.at(
        context.calls_file,
        keep_s=parse_duration(bounds.keep).total_seconds(),
        bytes_max=bounds.megabytes << 20,
    )
    try:
        key = context.installation_key
    except InputError:
        key = None  # then personal entities are not kept
    return CallLog(store, connections=connections, key=key, lost=observation.calls_not_kept)
