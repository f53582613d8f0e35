"""The monitor's answers over HTTP: read only, JSON in the envelope of the command line, from its last snapshot.

No request asks Kafka anything. ``GET /api/v1/snapshot``, ``/api/v1/groups/NAME``,
``/api/v1/history?group=NAME&hours=24``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from ops.lag.rows import at_text, group_document, rounded
from ops.monitor.history import KEPT_MIN
from ops.monitor.monitor import Monitor
from ops.monitor.snapshot import GROUP, HISTORY, SNAPSHOT, Snapshot, envelope, refusal
from ops.wording import plain_json
from schemas.findings import did_you_mean

Handler = Callable[[web.Request], Awaitable[web.Response]]
_STATUS = {2: 400, 5: 404, 6: 409, 8: 503}


def routes(monitor: Monitor, *, context: str) -> Mapping[str, Handler]:
    """What ``ops.watch.health.serve`` serves besides its own. Errors have the exit codes of the command line."""

    def answer(schema: str, data: str) -> web.Response:
        warnings = (f"The monitor's last round failed: {monitor.problem}",) if monitor.problem else ()
        return _json(200, envelope(schema, context, data, warnings=warnings))

    def refuse(code: int, message: str) -> web.Response:
        return _json(_STATUS[code], refusal(context, code, message))

    def not_yet() -> web.Response:
        if monitor.is_resting:
            return refuse(8, "Another monitor of this project does the work; this one rests. backbone status finds it.")
        return refuse(8, monitor.problem or "The monitor has not finished its first round yet. Ask again in a moment.")

    async def snapshot(_request: web.Request) -> web.Response:
        found = monitor.snapshot
        return not_yet() if found is None else answer(SNAPSHOT, await asyncio.to_thread(_whole, found))

    async def group(request: web.Request) -> web.Response:
        found, name = monitor.snapshot, request.match_info["name"]
        if found is None:
            return not_yet()
        if name not in found.by_name:
            return refuse(5, f"There is no group '{name}' in the cluster.{did_you_mean(name, found.by_name)}")
        pace = {"every_seconds": found.every_s, "round_seconds": rounded(found.round_s)}
        return answer(GROUP, plain_json(group_document(found.by_name[name]) | pace))

    async def history(request: web.Request) -> web.Response:
        name, hours = request.query.get("group", ""), _hours(request.query.get("hours", "24"))
        if not name:
            return refuse(2, "Say which group: /api/v1/history?group=NAME&hours=24")
        if hours is None:
            return refuse(2, f"hours is a number above 0, at most {KEPT_MIN // 60}.")
        if monitor.history is None:
            return refuse(6, "No history is kept here.")
        try:
            points = await asyncio.to_thread(monitor.history.of, name, now=time.time(), hours=hours)
        except (sqlite3.Error, OSError) as error:
            return refuse(8, f"The history cannot be read: {error}.")
        known = monitor.snapshot.by_name if monitor.snapshot is not None else {}
        if not points and name not in known:
            return refuse(5, f"There is no group '{name}' in the cluster.{did_you_mean(name, known)}")
        data = {
            "group": name,
            "hours": hours,
            "points": [
                {
                    "topic": point.topic,
                    "at": at_text(point.minute * 60),
                    "lag": point.lag,
                    "lag_seconds": rounded(point.age_s),
                    "status": point.status,
                    "position": point.position,
                    "end": point.end,
                }
                for point in points
            ],
        }
        return answer(HISTORY, plain_json(data))

    return {"/api/v1/snapshot": snapshot, "/api/v1/groups/{name}": group, "/api/v1/history": history}


def _whole(snapshot: Snapshot) -> str:
    return f'{plain_json(snapshot.head())[:-1]}, "groups": {snapshot.groups_json}}}'


def _hours(text: str) -> float | None:
    try:
        hours = float(text)
    except ValueError:
        return None
    return hours if 0 < hours <= KEPT_MIN / 60 else None


def _json(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", content_type="application/json")
