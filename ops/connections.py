"""A connection over all processes: what people said of it, and what every worker that uses it says.

Pure. A worker knows only its own part: its circuit may be open while another's is closed, so the state of the whole
is the worst of them, and how many say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ops.wording import counted

if TYPE_CHECKING:
    from connectors.connection import ConnectionView
    from consumers.control import AttachedSubscription, State
    from ops.watch.heartbeats import Beat

WORST_FIRST = ("stopped", "held", "open", "half_open", "paused", "running")
UNUSED = "unused"
"""No living worker has opened it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """``state``: the worst of ``views`` (process and what it says), a person's pause and a recorded stop; ``agreeing``
    processes are in it. ``until`` is the latest of them, seconds since the epoch. ``quota_used`` is the highest part
    of a process's own share. ``control`` is what ``backbone.control`` says, None: nothing."""

    name: str
    state: str
    reason: str = ""
    until: float | None = None
    agreeing: int = 0
    views: tuple[tuple[str, ConnectionView], ...] = ()
    control: State | None = None
    subscriptions: tuple[str, ...] = ()

    @property
    def quota_used(self) -> float | None:
        return max((view.quota_used for _, view in self.views if view.quota_used is not None), default=None)

    @property
    def in_flight(self) -> int:
        return sum(view.in_flight for _, view in self.views)

    @property
    def waiting(self) -> int:
        return sum(view.waiting for _, view in self.views)

    @property
    def where(self) -> str:
        """In how many workers it is so; empty where it is in all of them."""
        if self.agreeing in (0, len(self.views)):
            return ""
        return f"in {self.agreeing} of {counted(len(self.views), 'worker')}"


def connection_status(
    name: str, *, control: State | None, beats: Sequence[Beat], subscriptions: Iterable[str] = ()
) -> ConnectionStatus:
    """The whole of a connection. ``beats``: of living processes."""
    said_at = _seconds(control.at) if control is not None else None
    views = []
    for beat in beats:
        for view in beat.heartbeat.connections:
            if view.name == name:
                is_older = said_at is not None and beat.heartbeat.at < said_at
                views.append((beat.heartbeat.process, _caught_up(view, control) if is_older else view))
    worst = min((view for _, view in views), key=_rank, default=None)
    state, reason = (UNUSED, "") if worst is None else (worst.state, worst.reason)
    if control is not None and control.state != "running":
        said = "held" if control.state == "paused" else "stopped"
        if worst is None or WORST_FIRST.index(said) <= _rank(worst):
            state, reason = said, control.reason
    agreeing = [view for _, view in views if view.state == state]
    return ConnectionStatus(
        name=name,
        state=state,
        reason=reason,
        until=max((view.until for view in agreeing if view.until is not None), default=None),
        agreeing=len(agreeing),
        views=tuple(views),
        control=control,
        subscriptions=tuple(sorted(subscriptions)),
    )


def users_of(connection: str, attached: Mapping[str, AttachedSubscription]) -> list[str]:
    """The attached subscriptions that use a connection."""
    return [
        name for name, one in attached.items() if one.definition is not None and one.definition.connection == connection
    ]


def as_row(status: ConnectionStatus) -> dict[str, Any]:
    """A connection as a row: its state over all processes."""
    return {
        "name": status.name,
        "state": status.state,
        "reason": status.reason,
        "until": None if status.until is None else round(status.until, 3),
        "workers": len(status.views),
        "workers_in_state": status.agreeing,
        "quota_used": None if status.quota_used is None else round(status.quota_used, 4),
        "in_flight": status.in_flight,
        "waiting": status.waiting,
        "subscriptions": list(status.subscriptions),
    }


def _caught_up(view: ConnectionView, control: State | None) -> ConnectionView:
    """A heartbeat from before a person spoke: it still says what that person has ended."""
    ended = control is not None and control.state == "running" and view.state in ("held", "stopped")
    if not ended:
        return view
    return replace(view, state="running", reason="", until=None)


def _rank(view: ConnectionView) -> int:
    # a word that a newer version has is worth being seen
    return WORST_FIRST.index(view.state) if view.state in WORST_FIRST else 0


def _seconds(at: str) -> float | None:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return None
