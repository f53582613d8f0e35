"""How a connection's quota is divided over subscriptions and processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.control import AttachedSubscription, Definition, State
from consumers.worker import shares


def attached(name: str, *, connection: str = "crm", weight: int = 1, state: str = "running") -> AttachedSubscription:
    definition = Definition(
        text="", version="", author="", at="", connection=connection, events=(), topics={"a": 6, "b": 6}, weight=weight
    )
    return AttachedSubscription(name=name, definition=definition, state=State(state=state))  # type: ignore[arg-type]


def test_alone_with_all_partitions_a_subscription_has_all_of_the_quota() -> None:
    assert shares({"x": attached("x")}, {"x": 12}) == {"x": 1.0}


def test_weights_and_partitions_divide_it() -> None:
    everybody = {"x": attached("x", weight=3), "y": attached("y"), "z": attached("z", connection="chat")}
    assert shares(everybody, {"x": 6, "y": 12, "z": 3}) == {"x": 0.375, "y": 0.25, "z": 0.25}


def test_who_is_paused_leaves_its_part_to_the_others() -> None:
    assert shares({"x": attached("x"), "y": attached("y", state="paused")}, {"x": 12}) == {"x": 1.0}


def test_a_process_without_partitions_has_nothing() -> None:
    assert shares({"x": attached("x")}, {"x": 0}) == {"x": 0.0}


@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 100), st.integers(0, 12)), min_size=1))
def test_over_two_processes_the_parts_never_add_up_to_more_than_the_quota(
    subscriptions: dict[str, tuple[int, int]],
) -> None:
    everybody = {name: attached(name, weight=weight) for name, (weight, _) in subscriptions.items()}
    here = shares(everybody, {name: owned for name, (_, owned) in subscriptions.items()})
    there = shares(everybody, {name: 12 - owned for name, (_, owned) in subscriptions.items()})
    assert sum(here.values()) + sum(there.values()) == pytest.approx(1.0)
