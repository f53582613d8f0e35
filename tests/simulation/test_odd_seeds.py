"""Half of the simulated runs of every test run; the other half is ``test_even_seeds.py``, for the other core."""

from __future__ import annotations

import pytest

from tests.simulation.coverage import HAPPENED
from tests.simulation.history import told
from tests.simulation.run import SEEDS, run


@pytest.mark.timeout(900)  # seconds of CPU, minutes on a machine that is busy with something else
def test_no_invariant_is_violated_in_any_of_the_odd_seeds() -> None:
    counts, violated = run(range(1, 2 * SEEDS, 2))
    for seed, violation, simulation in violated:
        pytest.fail(told(seed, simulation, violation, whole=True), pytrace=False)
    assert [name for name in HAPPENED if not counts[name]] == []
