"""An attach that catches up does not hold up what is live beside it on its connection."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from consumers import flow as flows
from consumers.work import Work
from tests.simulation import neighbour

SEEDS = range(20)


def test_what_is_live_waits_for_no_more_than_its_share_while_a_neighbour_catches_up() -> None:
    for seed in SEEDS:
        found = neighbour.simulate(seed)
        assert found.waited_s <= found.bound_s, seed
        assert found.caught_up > 0, seed


class Live(Work):
    """The mistake that the background class is there for."""

    __slots__ = ()

    def __init__(self, partition: Any, entry: Any, record: Any, order: Any = None) -> None:
        super().__init__(partition, entry, record, order)
        self.background = order is not None


def test_a_catch_up_that_takes_the_turns_of_what_is_live_is_caught() -> None:
    with patch.object(flows, "Work", Live):
        late = [seed for seed in SEEDS if (found := neighbour.simulate(seed)).waited_s > found.bound_s]
    assert late == list(SEEDS)
