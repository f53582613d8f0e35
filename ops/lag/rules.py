"""What lag means: offsets, status, trend. Pure; the definitions are the design's (operations.md 4.1 and 4.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from ops.lag.cluster import TopicSettings

Status: TypeAlias = Literal[
    "OK",
    "NO_COMMIT",
    "DATA_LOSS",
    "BLOCKED_TXN",
    "NO_MEMBERS",
    "REWOUND",
    "STALLED",
    "AT_RISK",
    "CATCHING_UP",
    "BEHIND",
]

SEVERITY: dict[Status, int] = {
    "DATA_LOSS": 5,
    "BLOCKED_TXN": 5,
    "NO_MEMBERS": 5,
    "STALLED": 5,
    "AT_RISK": 4,
    "BEHIND": 3,
    "NO_COMMIT": 2,
    "REWOUND": 2,
    "CATCHING_UP": 1,
    "OK": 0,
}
"""Higher is worse; a group is as bad as its worst partition."""

STALL_S = 600.0
"""Committed offset unchanged for so long, with members and with lag throughout: it is stuck."""

ABSENT_S = 300.0
"""No members in every sample for so long: nobody reads."""

MARGIN_S = 4 * 3600.0
"""Retention deletes unread records in less than this: at risk."""


ADVANCE_S = 3600.0
"""Over so long it is measured how fast the beginning of a log advances."""


@dataclass(frozen=True, slots=True)
class OffsetLag:
    """How far behind a partition is, in offsets. Offsets are not messages: transaction markers, aborted and
    compacted records occupy offsets too.

    ``counted_from`` is where reading will go on; ``basis`` says how that is known: ``commit``, ``start`` (recorded at
    attach, nothing committed yet) or ``log`` (no commit and no record of a start: the whole log, a guess to be marked
    ``~``). ``lost`` records were deleted before they were read."""

    lag: int
    lost: int
    counted_from: int
    basis: Literal["commit", "start", "log"]


def offset_lag(*, committed: int | None, start: int | None, log_start: int, end: int) -> OffsetLag:
    """``max(0, end - max(committed, log_start))``, never negative.

    ``committed`` must have been fetched before ``end``: the other way round a busy consumer looks ahead of the log.
    ``end`` is the last stable offset for a reader of committed records, the high watermark otherwise. ``start`` is
    the position recorded at attach; it counts while there is no commit."""
    basis: Literal["commit", "start", "log"] = "commit"
    position = committed
    if position is None:
        basis, position = ("start", start) if start is not None else ("log", log_start)
    counted_from = max(position, log_start)
    return OffsetLag(max(0, end - counted_from), max(0, log_start - position), counted_from, basis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One partition of one group at one moment; ``at`` in seconds of any clock that does not jump.

    ``age_s``: age of the first record not yet processed, 0 if there is none, None if it could not be found out."""

    at: float
    committed: int | None
    end: int
    log_start: int
    high_watermark: int
    members: int
    age_s: float | None

    @property
    def lag(self) -> int:
        return offset_lag(committed=self.committed, start=None, log_start=self.log_start, end=self.end).lag


def evaluate(
    window: Sequence[Sample], *, slo_s: float | None, grace: int = 0, retention_margin_s: float | None = None
) -> Status:
    """The status of a partition from its samples of the last 10 minutes, oldest first (one is enough: what needs
    time to be seen is then not claimed). The first rule that matches wins."""
    now = window[-1]
    watched = now.at - window[0].at
    if now.committed is None:
        return "NO_COMMIT" if now.members and now.end > now.log_start else "OK"
    if now.committed < now.log_start:
        return "DATA_LOSS"
    back = [sample for sample in window if now.at - sample.at <= STALL_S]
    if (
        watched >= STALL_S
        and now.high_watermark > now.end
        and all(sample.end == now.end for sample in back)
        and back[0].high_watermark < now.high_watermark
    ):
        return "BLOCKED_TXN"
    if now.lag <= grace or now.age_s == 0:
        return "OK"
    if watched >= ABSENT_S and all(not sample.members for sample in window if now.at - sample.at <= ABSENT_S):
        return "NO_MEMBERS"
    if now.committed < max(sample.committed for sample in window if sample.committed is not None):
        return "REWOUND"
    if (
        watched >= STALL_S
        and now.members
        and all(sample.committed == now.committed and sample.lag > grace for sample in back)
    ):
        return "STALLED"
    if retention_margin_s is not None and retention_margin_s < MARGIN_S:
        return "AT_RISK"
    if slo_s is not None and now.age_s is not None and now.age_s > slo_s:
        return "CATCHING_UP" if now.lag < window[0].lag else "BEHIND"
    return "OK"


def margin_s(
    *, position: int, log_start: int, age_s: float | None, settings: TopicSettings, start_per_s: float | None
) -> float | None:
    """Seconds until retention deletes the record at ``position``, at the earliest; None: nothing says when.

    A record is kept for the topic's time: time retention - age. A limit on size deletes what is old when new records
    come: (position - log start) / how fast the log start advances (``start_per_s``; None: not watched long enough).
    Where only time limits a topic its start says nothing: it jumps by whole segments, and some clients delete what
    they have read."""
    if not settings.deletes:
        return None
    found = []
    if settings.retention_s is not None and age_s is not None:
        found.append(settings.retention_s - age_s)
    if settings.by_size and start_per_s:
        found.append((position - log_start) / start_per_s)
    return max(0.0, min(found)) if found else None


class LogStart:
    """How fast the beginning of a log advances, from when it was seen where."""

    __slots__ = ("_points",)

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def saw(self, at: float, offset: int) -> None:
        if not self._points or self._points[-1][1] != offset:
            self._points.append((at, offset))
        # the newest of those older than the span stays: it says where the span began
        while len(self._points) > 1 and at - self._points[1][0] >= ADVANCE_S:
            self._points.popleft()

    def per_s(self, at: float) -> float | None:
        """Offsets a second; None below 10 minutes: a log's start moves in jumps."""
        if not self._points:
            return None
        begin, first = self._points[0]
        seconds = min(at - begin, ADVANCE_S)
        return max(0, self._points[-1][1] - first) / seconds if seconds >= STALL_S else None


def worst(statuses: Sequence[Status]) -> Status:
    """The worst of them; OK for none."""
    return max(statuses, key=SEVERITY.__getitem__, default="OK")


@dataclass(frozen=True, slots=True)
class Trend:
    """How fast a group works off its backlog: offsets a second committed and written, over ``seconds``."""

    consumed_per_s: float
    produced_per_s: float
    seconds: float

    def eta_s(self, lag: int) -> float | None:
        """Seconds until level at this pace; 0 with no lag, None if it is not getting closer."""
        if lag == 0:
            return 0.0
        pace = self.consumed_per_s - self.produced_per_s
        return lag / pace if pace > 0 else None


def trend(points: Sequence[tuple[float, int, int]]) -> Trend | None:
    """The trend from points ``(at, summed position, summed end)``, oldest first; None below two moments."""
    if len(points) < 2:
        return None
    (at, position, end), (now, position_now, end_now) = points[0], points[-1]
    seconds = now - at
    if seconds <= 0:
        return None
    return Trend((position_now - position) / seconds, (end_now - end) / seconds, seconds)
