"""Why a partition has its status, in one sentence. Pure."""

from __future__ import annotations

from datetime import timedelta

from ops.lag.rules import Sample, Status
from ops.wording import counted, duration


def reason(
    status: Status, now: Sample, *, unchanged_s: float, slo_s: float | None, margin_s: float | None, watched_s: float
) -> str:
    """The sentence for ``status``; empty for OK. ``unchanged_s``: since when the commit stands, as far as it was
    watched (``watched_s``)."""
    waiting = f"{counted(now.lag, 'offset')} wait{'s' if now.lag == 1 else ''}"
    age = "" if not now.age_s else f", the oldest for {_span(now.age_s)}"
    match status:
        case "OK":
            return ""
        case "NO_COMMIT":
            return f"{counted(now.members, 'member')} and no commit yet, with {counted(now.end, 'offset')} in the log."
        case "DATA_LOSS":
            lost = now.log_start - (now.committed or 0)
            return f"Retention deleted {counted(lost, 'record')} before it read them."
        case "BLOCKED_TXN":
            hidden = now.high_watermark - now.end
            return f"A transaction that does not end keeps back {counted(hidden, 'offset')} for at least 10m."
        case "NO_MEMBERS":
            return f"Nobody has read it for at least {_span(min(watched_s, 600))}; {waiting}{age}."
        case "REWOUND":
            return f"Its committed position was set back in the last 10m, to {now.committed:,}; {waiting}{age}."
        case "STALLED":
            stands = f"It stands at {now.committed:,} for {_span(unchanged_s)}"
            return f"{stands}, with {counted(now.members, 'member')}; {waiting}{age}."
        case "AT_RISK":
            return f"Retention deletes its next record in {_span(margin_s or 0.0)}; {waiting}{age}."
        case "CATCHING_UP":
            return f"It is late and its lag falls; {waiting}{age}, promised {_span(slo_s or 0.0)}."
        case "BEHIND":
            return f"It is late and its lag does not fall; {waiting}{age}, promised {_span(slo_s or 0.0)}."


def _span(seconds: float) -> str:
    return duration(timedelta(seconds=seconds))
