"""``traceparent`` of W3C Trace Context: which trace an event belongs to, and the span that published it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")


class TraceParent(NamedTuple):
    """``flags`` bit 1: the trace is recorded."""

    trace_id: int
    span_id: int
    flags: int

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def parse_traceparent(text: str | None) -> TraceParent | None:
    """The parts of a ``traceparent``; None for none, and for what is none by the standard (a trace id of zeros, capital
    letters, a version ``ff``). A newer version may say more behind the flags."""
    found = _FORM.match(text) if text else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    parent = TraceParent(int(trace, 16), int(span, 16), int(flags, 16))
    return parent if parent.trace_id and parent.span_id else None


def trace_id_of(text: str | None) -> str | None:
    """The trace id in a ``traceparent``, 32 hex digits; None where there is none."""
    parent = parse_traceparent(text)
    return None if parent is None else f"{parent.trace_id:032x}"
