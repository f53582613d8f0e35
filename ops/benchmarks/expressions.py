"""What an expression costs, in nanoseconds a call."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from consumers.expressions import compile_expression
from schemas.event import Event

CALLS, REPEATS = 100_000, 7


def lines() -> Iterator[str]:
    data = {"email": "Ana@Example.org", "plan": "team", "total_minor": 1_250_000, "currency": "EUR"}
    event = Event(
        id="1", type="billing.InvoiceCreated", source="billing", time=datetime(2026, 5, 1, tzinfo=UTC), subject=None,
        key="a", data=data,
    )  # fmt: skip
    for text in (
        "data.total_minor",
        "data.email | lower",
        "data.total_minor | money(data.currency)",
        "data.total_minor >= 1_000_000 and data.currency in ['EUR', 'USD']",
    ):
        evaluate = compile_expression(text).evaluate
        times = [timeit.timeit(partial(evaluate, event), number=CALLS) / CALLS * 1e9 for _ in range(REPEATS)]
        print_time = f"{statistics.median(times):>8,.0f} ({min(times):,.0f} to {max(times):,.0f})"
        yield f"  {text:<70}{print_time}"
