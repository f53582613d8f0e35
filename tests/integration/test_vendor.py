"""What a vendor can do to us, through the real runtime: the settle table from end to end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Stack
from tests.integration.world import World, new_world
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Iterator[World]:
    """One company for the whole file, its worker running; every test begins with a vendor that behaves."""
    world = new_world(tmp_path_factory.mktemp("vendor"), stack, "vendortests")
    try:
        world.write_project(vendor_timeout_s=2)
        world.prepare()
        world.start_worker()
        yield world
    finally:
        world.close()


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.wait_until_caught_up()
    world.vendor.reset()
    world.published = {}


def delivered(world: World) -> None:
    world.wait_until_caught_up()
    assert world.contacts() == world.final_numbers()


def test_a_refused_batch_is_halved_until_only_the_delivery_at_fault_is_set_aside(world: World) -> None:
    """The fake refuses the call as a whole twice; the halves go through with the same keys."""
    letters = len(world.letters())
    world.vendor.misbehave({"kind": "status", "status": 400, "times": 2})
    world.publish(40, keys=40)
    delivered(world)
    assert len(world.letters()) == letters
    assert world.vendor.report()["by_status"]["400"] == 2


def test_only_the_refused_items_of_a_batch_become_dead_letters(world: World) -> None:
    before = len(world.letters())
    world.vendor.misbehave({"kind": "partial", "fail": 2, "category": "VALIDATION_ERROR"})
    world.publish(30, keys=30)
    world.wait_until_caught_up()
    letters = world.letters()
    assert len(letters) == before + 2
    assert {letter.outcome for letter in letters} == {"rejected"}
    assert len(world.contacts()) == 28


def test_items_that_may_succeed_later_are_asked_again_alone(world: World) -> None:
    before = len(world.letters())
    world.vendor.misbehave({"kind": "partial", "fail": 3, "category": "CONFLICT"})
    world.publish(30, keys=30)
    delivered(world)
    assert len(world.letters()) == before
    assert world.vendor.report()["duplicates"] == 0


def test_a_429_waits_as_long_as_it_was_told_and_uses_no_attempt(world: World) -> None:
    before = len(world.letters())
    world.vendor.misbehave({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "times": 8})
    world.publish(20, keys=20)
    delivered(world)
    assert world.vendor.report()["by_status"]["429"] == 8, "more refusals than a delivery has attempts"
    assert len(world.letters()) == before


def test_an_outage_makes_no_dead_letter(world: World) -> None:
    before = len(world.letters())
    world.vendor.misbehave({"kind": "away", "seconds": 4})
    world.publish(20, keys=20)
    delivered(world)
    assert len(world.letters()) == before


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(world: World) -> None:
    world.vendor.misbehave({"kind": "cut_after_effect", "at": "start"})
    world.publish(1)
    world.wait_until_caught_up()
    report = world.vendor.report()
    assert (report["applied"], report["duplicates"]) == (2, 1), (
        "the same key twice: one effect at a vendor that upserts"
    )
    assert world.contacts() == world.final_numbers()


def test_an_answer_that_never_comes_is_given_up_and_asked_for_again(world: World) -> None:
    world.vendor.misbehave({"kind": "stall_after_effect"})
    world.publish(1)
    delivered(world)
    assert world.vendor.report()["duplicates"] == 1


def test_credentials_that_are_refused_stop_the_connection_and_set_nothing_aside(world: World) -> None:
    """Last in this file: the connection is probed once a minute from here on."""
    before = len(world.letters())
    world.vendor.misbehave({"kind": "status", "status": 401, "times": 1_000})
    world.publish(20, keys=20)
    worker = world.workers[0]
    eventually(lambda: worker.said("connection_stopped"), 30, about="the connection to stop")
    assert world.vendor.report()["calls"] <= 4, "no storm"
    assert len(world.letters()) == before
    assert not world.caught_up()
    assert worker.stop() == 0
