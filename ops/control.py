"""Reading and writing ``backbone.control`` from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from consumers.control import TOPIC, Control, ControlRecord, ControlSnapshot
from consumers.erased import Erased
from ops.reading import partition_count, read_to_end
from ops.sending import Outgoing, send_acked
from schemas.errors import InputError, NotFoundError, RefusedError

if TYPE_CHECKING:
    from ops.app import App


def read_control(app: App) -> ControlSnapshot:
    """What the topic says now, read to the end that was current when the call began; empty if it does not exist."""
    control = Control()
    try:
        for message in read_to_end(app, TOPIC):
            control.apply(message.key(), message.value())
    except NotFoundError:
        return control.snapshot()
    if control.unreadable:
        app.screen.detail(f"{control.unreadable} records of {TOPIC} cannot be read by this version.")
    return control.snapshot()


def require_control(app: App) -> None:
    """Raises RefusedError when the topic does not exist: nothing can be attached then, and workers follow nothing.
    NotAllowedError where it may not be seen, UnreachableError."""
    try:
        partition_count(app, TOPIC)
    except NotFoundError:
        raise RefusedError(
            f"The topic {TOPIC} does not exist, so nothing can be attached or run. Make it: backbone schema register"
        ) from None


def write_control(app: App, records: Iterable[ControlRecord], *, timeout_s: float = 15.0) -> None:
    """Write records in order and wait until every one is acknowledged. Raises RefusedError for the first that was
    not, UnreachableError when the cluster does not answer in time; earlier ones may stand."""
    send_acked(app, (Outgoing(TOPIC, -1, key, value, []) for key, value in records), within_s=timeout_s)


def erased_people(app: App) -> Erased:
    """Who was erased in this context, as its workers know it."""
    try:
        erased = Erased(app.installation_key)
    except InputError:
        erased = Erased()  # without a key nobody can be told from others
    for mark, person in app.control().erased.items():
        erased.put(mark, person)
    return erased
