"""What an expression costs, in nanoseconds a call."""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from consumers.expressions import compile_expression
from ops.benchmarks.measure import Line
from schemas.event import Event

CALLS, REPEATS = 100_000, 7
FIELD_NS, FILTER_NS = 300, 1_000


def lines() -> Iterator[Line]:
    data = {"email": "Ana@Example.org", "plan": "team", "total_minor": 1_250_000, "currency": "EUR"}
    event = Event(
        id="1", type="billing.InvoiceCreated", source="billing", time=datetime(2026, 5, 1, tzinfo=UTC), subject=None,
        key="a", data=data,
    )  # fmt: skip
    for text, target in (
        ("data.total_minor", FIELD_NS),
        ("data.total_minor > 1_000_000 and data.currency in ['EUR']", FIELD_NS),
        ("data.email | lower", FILTER_NS),
        ("data.total_minor | money(data.currency)", FILTER_NS),
    ):
        evaluate = compile_expression(text).evaluate
        times = [timeit.timeit(partial(evaluate, event), number=CALLS) / CALLS * 1e9 for _ in range(REPEATS)]
        yield Line(text, "ns a call", times, target=target, at_most=True)
