"""Dead letters from end to end: a poisoned key is parked, the vendor is mended, a person redrives; real workers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.world import World, first_applications
from tests.waiting import eventually

pytestmark = pytest.mark.integration
REFUSED = {"kind": "partial", "fail": 1, "category": "VALIDATION_ERROR", "named": "trace"}


def letters(world: World) -> list[tuple[int, str, int]]:
    """Which numbers of the one thing are open dead letters: number, outcome, redrives."""
    there = sorted(world.letters(), key=lambda one: one.origin.offset)
    ids = [(dict(one.headers)["ce_id"] or b"").decode() for one in there]
    return [(int(id_.split("/")[1]), one.outcome, one.redrives) for id_, one in zip(ids, there, strict=True)]


def steps(world: World, number: int, *, end: str = "delivered") -> list[dict[str, Any]]:
    """Everything that came of an event, oldest first; waits until the ledger has its end."""

    def traced() -> list[dict[str, Any]]:
        ((delivery,),) = [one["deliveries"] for one in world.answer("trace", f"{world.thing}-0/{number}")["events"]]
        found: list[dict[str, Any]] = delivery["steps"]
        return found if found[-1]["outcome"] == end else []

    return eventually(traced, 40, poll_s=0.5, about=f"the receipt of {number} in the ledger")


def test_a_parked_key_is_redriven_in_order_and_what_fails_again_holds_the_rest_back(world: World) -> None:
    world.write_subscription("{on_dead_letter: park_key}")
    world.prepare()
    name = world.subscription
    world.start_worker("ledger")
    world.vendor.misbehave(REFUSED)
    world.publish(1, keys=1)
    eventually(lambda: letters(world) == [(1, "rejected", 0)], 40, about="the poisoned event set aside")
    world.publish(2, keys=1)
    eventually(lambda: len(letters(world)) == 3, 40, about="the events behind it parked")
    assert letters(world)[1:] == [(2, "parked", 0), (3, "parked", 0)]
    assert world.contacts() == {}
    (row,) = [row for row in world.answer("deadletter", "list", name) if row["outcome"] == "rejected"]
    assert (row["count"], row["parked"]) == (1, 2)

    world.vendor.misbehave(REFUSED)  # not mended yet
    failed = world.answer("deadletter", "redrive", name, "--cause", row["fingerprint"], "--apply", "--yes")["after"]
    assert (failed["sent"], failed["closed"], failed["failed_again"]) == (3, 0, 3)
    assert letters(world) == [(1, "rejected", 1), (2, "parked", 0), (3, "parked", 0)]
    assert world.contacts() == {}

    plan = world.answer("deadletter", "redrive", name, "--all")
    world.publish(1, keys=1)
    eventually(lambda: len(letters(world)) == 4, 40, about="an event parked after the plan was made")
    done = world.answer("apply", plan["id"])["after"]
    assert (done["sent"], done["parked_meanwhile"], done["still_open"], done["failed_again"]) == (4, 1, 0, 0)
    assert letters(world) == []
    world.publish(1, keys=1)
    world.wait_until_caught_up()
    assert world.contacts() == {f"{world.thing}-0": "5"}
    (order,) = first_applications(world).values()
    assert len(order) == 5
    assert len(world.applications()) == 5  # nothing was applied twice
    for number, key in zip(range(1, 6), order, strict=True):
        found = steps(world, number)
        ended = [one["outcome"] for one in found]
        assert ended[:-1] == ["rejected", "rejected"] if number == 1 else set(ended[:-1]) <= {"parked"}
        assert len(ended) == (3, 3, 3, 2, 1)[number - 1]
        assert {one["idempotency_key"] for one in found} == {key}  # that of its first attempt, all the way
        assert found[-1]["change_id"] == (plan["id"] if number < 5 else None)

    world.vendor.misbehave(REFUSED)
    world.publish(1, keys=1)
    eventually(lambda: letters(world) == [(6, "rejected", 0)], 40, about="another event set aside")
    world.answer("deadletter", "discard", name, "--all", "--apply", "--yes", "--confirm", name)
    world.publish(1, keys=1)
    eventually(
        lambda: world.contacts() == {f"{world.thing}-0": "7"}, 40, about="the key goes on without what was discarded"
    )
    assert letters(world) == []
    assert steps(world, 6, end="skipped")[-1]["reason"] == "discarded"


def test_a_redrive_does_not_overwrite_what_was_sent_since(world: World) -> None:
    world.prepare()
    name = world.subscription
    world.start_worker("ledger")
    world.vendor.misbehave(REFUSED)
    world.publish(1, keys=1)
    eventually(lambda: len(letters(world)) == 1, 40, about="the event set aside")
    world.publish(1, keys=1)
    eventually(lambda: world.contacts() == {f"{world.thing}-0": "2"}, 40)
    plan = world.answer("deadletter", "redrive", name, "--all")
    assert "1 event is superseded" in " ".join(plan["summary"])
    done = world.answer("apply", plan["id"])["after"]
    assert (done["sent"], done["superseded"], done["closed"]) == (1, 1, 1)
    assert world.contacts() == {f"{world.thing}-0": "2"}
    assert len(world.applications()) == 1


def test_a_subscription_that_is_stuck_on_one_event_goes_on_when_it_is_set_aside(world: World) -> None:
    """Its worker runs all the while: it leaves for the change and comes back by itself."""
    world.write_subscription("{retry: {attempts: 100, within: 1h}}")
    world.prepare()
    name = world.subscription
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 40)
    world.vendor.misbehave({**REFUSED, "category": "INTERNAL_ERROR", "times": 1000})
    world.publish(1, keys=1)
    eventually(lambda: world.vendor.report()["calls"] >= 1, 40, about="the event asked of the vendor in vain")
    world.publish(1, keys=1)
    assert letters(world) == []
    (place,) = [place for place, end in world.ends().items() if end]
    done = world.answer("deadletter", "set-aside", name, f"{place[0]}:{place[1]}", "0", "--apply", "--yes")
    assert done["after"] == {f"{place[0]}/{place[1]}": 1, "letter": f"{place[0]}/{place[1]}/0"}
    assert letters(world) == [(1, "rejected", 0)]
    world.vendor.reset()
    eventually(lambda: world.contacts() == {f"{world.thing}-0": "2"}, 60, about="the event behind it delivered")
    world.wait_until_caught_up()
    assert worker.process.poll() is None
