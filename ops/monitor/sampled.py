"""What a running monitor has measured, asked for by the commands that would have to measure it themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ops.lag.measure import GroupLag, PartitionLag
from ops.lag.rows import by_name
from ops.lag.rules import SEVERITY
from ops.monitor.address import address
from ops.monitor.snapshot import GROUP, HISTORY, SNAPSHOT
from ops.wording import duration

if TYPE_CHECKING:
    from ops.app import App
    from ops.monitor.history import Point

ASK_S = 3.0
"""A monitor that answers later is not waited for: measuring takes no longer."""
BYTES_MAX = 64 * 1024 * 1024
OLD_ROUNDS = 3
"""What is older than so many rounds is not shown as what is."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Groups as a monitor measured them at ``at`` (seconds since the epoch), ``age_s`` ago."""

    groups: dict[str, GroupLag]
    at: float
    age_s: float

    @property
    def words(self) -> str:
        return f"Sampled {self.ago} by the monitor."

    @property
    def ago(self) -> str:
        return f"{duration(timedelta(seconds=round(self.age_s)))} ago"


def sampled(app: App, names: Sequence[str] = ()) -> Sampled | None:
    """These groups (all of them without a name) from the monitor of this context; None where none answers, knows them
    all, or is up to date. Blocks at most ``ASK_S``."""
    one = len(names) == 1
    found = _ask(
        app, *((f"/api/v1/groups/{quote(names[0], safe='')}", GROUP) if one else ("/api/v1/snapshot", SNAPSHOT))
    )
    if found is None:
        return None
    try:
        groups = by_name([found] if one else found["groups"])
        pace_s = max(float(found["every_seconds"]), float(found["round_seconds"]))
        at = min((group.at for group in groups.values()), default=None)
        if at is None:
            at = datetime.fromisoformat(found["sampled_at"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        app.screen.detail("The monitor answers in a way that this version does not know, so this is measured now.")
        return None
    age_s = max(0.0, time.time() - at)
    if age_s > OLD_ROUNDS * pace_s + ASK_S:
        old = duration(timedelta(seconds=round(age_s)))
        app.screen.detail(f"The monitor's last round is {old} old, so this is measured now.")
        return None
    wanted = names or list(groups)
    if not groups.keys() >= set(wanted):
        return None
    return Sampled({name: groups[name] for name in wanted}, at, age_s)


def remembered(fresh: GroupLag, sampled: GroupLag) -> GroupLag:
    """A group measured now, with what only time shows from a monitor's measure of it: the trend, and the status of
    partitions that stand where they stood then."""
    before = {(partition.topic, partition.partition): partition for partition in sampled.partitions}
    partitions = tuple(
        _remembered(partition, before.get((partition.topic, partition.partition)), is_read=bool(fresh.members))
        for partition in fresh.partitions
    )
    return replace(fresh, partitions=partitions, trend=sampled.trend)


def _remembered(now: PartitionLag, before: PartitionLag | None, *, is_read: bool) -> PartitionLag:
    if before is None or before.committed != now.committed or SEVERITY[before.status] <= SEVERITY[now.status]:
        return now
    if before.status == "BLOCKED_TXN":
        holds = now.uncommitted > 0 and now.last_stable == before.last_stable
    else:
        holds = now.offsets.lag > 0 and not (before.status == "NO_MEMBERS" and is_read)
    return replace(now, status=before.status, reason=before.reason) if holds else now


def day(app: App, name: str) -> list[Point] | None:
    """The last 24 hours of a group; None where no monitor answers or keeps them."""
    from ops.monitor.history import Point

    found = _ask(app, f"/api/v1/history?group={quote(name, safe='')}&hours=24", HISTORY)
    if found is None:
        return None
    try:
        return [
            Point(
                topic=one["topic"],
                minute=int(datetime.fromisoformat(one["at"]).timestamp() // 60),
                lag=int(one["lag"]),
                age_s=one["lag_seconds"],
                status=one["status"],
                position=int(one["position"]),
                end=int(one["end"]),
            )
            for one in found["points"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _ask(app: App, path: str, schema: str) -> Any:
    """The data of an answer; None where there is none."""
    url = address(app.context)
    if url is None:
        app.screen.detail("No monitor runs here, so this is measured now. Start one: backbone monitor")
        return None
    import http.client

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=ASK_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        document = json.loads(answer.read(BYTES_MAX))
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        app.screen.detail(f"The monitor at {url} does not answer ({why}), so this is measured now.")
        return None
    finally:
        connection.close()
    if not isinstance(document, dict) or document.get("schema") != schema:
        return None  # it does not know the group, or has measured nothing yet
    if document.get("context") != app.screen.context:
        app.screen.detail(f"The monitor at {url} is not one of this context, so this is measured now.")
        return None
    for warning in document.get("warnings") or ():
        if warning not in app.screen.warnings:
            app.screen.warn(str(warning))
    return document.get("data")
