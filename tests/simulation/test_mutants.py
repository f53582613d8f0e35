"""Every known mistake is caught, by the invariant that is there for it."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import first_caught

SEEDS_MAX = 600


@pytest.mark.parametrize("name", MUTANTS)
def test_a_known_mistake_is_caught(name: str) -> None:
    seed, others = first_caught(name, SEEDS_MAX)
    assert seed is not None, f"in {SEEDS_MAX} seeds only {dict(others)} were seen"
