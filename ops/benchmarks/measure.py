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
class Result:
    """A line of the report; ``target`` is events a second at least."""

    name: str
    rounds: Sequence[Round]
    target: float | None = None

    def line(self) -> str:
        rates = sorted(one.rate for one in self.rounds)
        target = "" if self.target is None else f"{self.target:>9,.0f}"
        return (
            f"{self.name:<58}{statistics.median(rates):>10,.0f}{rates[0]:>10,.0f}{rates[-1]:>10,.0f}"
            f"{statistics.median(one.cpu_us for one in self.rounds):>10.1f}{target:>9}"
        )


HEADING = f"{'':<58}{'MEDIAN/S':>10}{'MIN':>10}{'MAX':>10}{'CPU µs':>10}{'TARGET':>9}"


def interleaved(rounds: int, subjects: Sequence[tuple[str, Callable[[], Round], float | None]]) -> list[Result]:
    """Every subject in turn, so many times, so that a machine that drifts does so for all; one warm-up each."""
    for _, run, _ in subjects:
        run()
    found: list[list[Round]] = [[] for _ in subjects]
    for _ in range(rounds):
        for place, (_, run, _) in zip(found, subjects, strict=True):
            gc.collect()
            place.append(run())
    return [Result(name, place, target) for (name, _, target), place in zip(subjects, found, strict=True)]


def timed(events: int, work: Callable[[], object]) -> Round:
    """One round of a plain function."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Round(events, time.perf_counter() - wall, time.process_time() - cpu)
