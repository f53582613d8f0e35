"""Half of the simulated runs of every test run; the other half is ``test_odd_seeds.py``, for the other core."""

from __future__ import annotations

import pytest

from tests.simulation.coverage import HAPPENED
from tests.simulation.history import told
from tests.simulation.run import SEEDS, run
from tests.simulation.schedule import simulate


@pytest.mark.timeout(900)  # seconds of CPU, minutes on a machine that is busy with something else
def test_no_invariant_is_violated_in_any_of_the_even_seeds() -> None:
    counts, violated = run(range(0, 2 * SEEDS, 2))
    for seed, violation, simulation in violated:
        pytest.fail(told(seed, simulation, violation, whole=True), pytrace=False)
    assert [name for name in HAPPENED if not counts[name]] == []


def test_a_seed_is_the_same_run_every_time() -> None:
    for seed in range(3):
        (_, first), (_, second) = simulate(seed), simulate(seed)
        assert first.checker.history == second.checker.history
        text = told(seed, first, None, whole=True)
        assert f"python -m tests.simulation --seed {seed}" in text
        assert len(text.splitlines()) > 50
