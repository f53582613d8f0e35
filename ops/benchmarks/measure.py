"""What every benchmark shares: rounds, medians with spread, and CPU beside each rate."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Round:
    """One counted round: so many events in so many seconds of wall clock and of CPU (all threads of the process)."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.events * 1e6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report. ``target``: at least so much, or at most where ``at_most``."""

    name: str
    unit: str
    values: Sequence[float]
    cpu_us: Sequence[float] = ()
    target: float | None = None
    at_most: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def cells(self) -> tuple[str, ...]:
        cpu = f"{statistics.median(self.cpu_us):,.0f}" if self.cpu_us else ""
        digits = 1 if self.unit in ("s", "%") else 0
        numbers = (f"{number:,.{digits}f}" for number in (self.median, min(self.values), max(self.values)))
        return (self.name, self.unit, *numbers, cpu, self._target(), self._verdict())

    def _target(self) -> str:
        return "" if self.target is None else f"{'<=' if self.at_most else '>='} {self.target:,.0f}"

    def _verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.median <= self.target if self.at_most else self.median >= self.target
        return "met" if met else "missed"


HEADINGS = ("", "unit", "median", "min", "max", "CPU µs/event", "target", "")
WIDTHS = (58, 9, 9, 9, 9, 14, 10, 8)


def row(cells: Sequence[str]) -> str:
    """A line of the table on a terminal: the first two columns to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(cells[:2], WIDTHS[:2], strict=True)]
    return "".join([*words, *(cell.rjust(width) for cell, width in zip(cells[2:], WIDTHS[2:], strict=True))]).rstrip()


def interleaved(rounds: int, subjects: Sequence[tuple[str, Callable[[], Round], float | None]]) -> list[Line]:
    """Every subject in turn, so many times, so that a machine that drifts does so for all; one warm-up each.
    ``target`` is events a second at least."""
    for _, run, _ in subjects:
        run()
    found: list[list[Round]] = [[] for _ in subjects]
    for _ in range(rounds):
        for place, (_, run, _) in zip(found, subjects, strict=True):
            gc.collect()
            place.append(run())
    return [
        Line(name, "events/s", [one.rate for one in place], [one.cpu_us for one in place], target)
        for (name, _, target), place in zip(subjects, found, strict=True)
    ]


def timed(events: int, work: Callable[[], object]) -> Round:
    """One round of a plain function. What was prepared for it is kept from the garbage collector meanwhile: no service
    holds so many events ready, and walking over them again and again would be counted."""
    gc.collect()
    gc.freeze()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return Round(events, time.perf_counter() - wall, time.process_time() - cpu)
    finally:
        gc.unfreeze()
