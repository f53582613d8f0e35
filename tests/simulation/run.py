"""Many seeds in one go, as the tests and the command line run them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.simulation.checker import Violation
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Simulation, simulate

SEEDS = 5_000
"""In each half of what every test run simulates."""


@contextmanager
def fewer_collections() -> Iterator[None]:
    """A run leaves a few thousand objects that know each other; looking for them after each costs a tenth."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def run(seeds: Iterable[int]) -> tuple[Counter[str], list[tuple[int, Violation, Simulation]]]:
    """How often what happened in all of them, and those in which something was violated (at most ten are run to)."""
    counts: Counter[str] = Counter()
    violated: list[tuple[int, Violation, Simulation]] = []
    with fewer_collections():
        for seed in seeds:
            violation, simulation = simulate(seed)
            counts.update(simulation.checker.counts)
            if violation is not None:
                violated.append((seed, violation, simulation))
                if len(violated) == 10:
                    break
    return counts, violated


def first_caught(name: str, seeds_max: int) -> tuple[int | None, Counter[str]]:
    """The first seed in which a mutant is caught by one of the invariants it should be caught by; and what else was
    violated before."""
    mutant = MUTANTS[name]
    others: Counter[str] = Counter()
    with mutant.switch():
        for seed in range(seeds_max):
            violation, _ = simulate(seed)
            if violation is not None:
                if violation.args[0] in mutant.caught:
                    return seed, others
                others[violation.args[0]] += 1
    return None, others
