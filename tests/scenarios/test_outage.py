"""A vendor is away overnight: nothing is lost, nothing is set aside for it, and who is woken is told what it is. By
morning what the vendor itself refuses is mended and redriven. Real workers, a ledger, and a vendor that says what it
has.

The night is long by the subscription's own policy: what waits has its attempts used up many times over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.world import World, first_applications
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
POLICIES = "{retry: {attempts: 2, within: 1s}, slo: 1s, on_dead_letter: park_key}"
EMAIL = """"{{ data.thing_id if '@' in data.thing_id else data.thing_id ~ '@acme.example' }}\""""
MENDED = EMAIL.replace("data.thing_id if", "data.thing_id ~ '.example' if")
REFUSED_MIN = 7
"""Calls refused until it counts as a night: five open the circuit, the others are probes, seconds apart."""


def problems(world: World) -> list[dict[str, Any]]:
    """What ``status`` says is wrong with the subscription and its connection, in its order; others of the stack may
    have troubles of their own."""
    name = world.subscription
    found = world.answer("status")["problems"]
    return [one for one in found if one["subject"] == name or name in one["subscriptions"]]


def told(world: World, *kinds: str) -> list[dict[str, Any]]:
    """The same, once these kinds are among them, and the first is the worst; empty before."""
    found = problems(world)
    return found if found and found[0]["kind"] == kinds[0] and {one["kind"] for one in found} >= set(kinds) else []


def refused_calls(world: World) -> int:
    return int(world.vendor.report()["by_status"].get("503", 0))


def in_order(world: World) -> dict[str, list[str]]:
    """The idempotency key of every event that was published, by its entity and in its order."""
    return {key: [world.trace(key, number) for number in numbers] for key, numbers in world.published.items()}


def test_a_vendor_that_is_away_overnight_costs_time_alone_and_what_it_refuses_is_redriven(world: World) -> None:
    path, name = world.write_subscription(POLICIES), world.subscription
    path.write_text(path.read_text().replace("body: {", f"body: {{email: {EMAIL}, "))
    world.prepare()
    world.start_worker("ledger")
    world.publish(10, keys=10)
    world.wait_until_applied()
    world.wait_until_caught_up()
    world.answer("lag", name, "--fail-over", "60s")
    world.answer("connection", "check", "hubspot")

    # the night: some of what arrives is of people whose address this vendor will never take
    world.vendor.misbehave({"kind": "status", "status": 503, "times": 1_000_000})
    people = ["ana@localhost", "bob@localhost"]
    world.publish(40, keys=10)
    world.publish_of([*people, *people])
    world.publish(20, keys=10)
    place = world.committed()
    eventually(lambda: refused_calls(world) >= REFUSED_MIN, 90, poll_s=0.2, about="a long night")
    away = "status to say first that the vendor is away, and then that the subscription is late"
    worst, *others = eventually(lambda: told(world, "circuit_open", "behind"), 60, poll_s=1, about=away)
    assert (worst["subject"], worst["command"]) == ("hubspot", "backbone -c test connection check hubspot")
    assert "events wait, none is set aside for it" in worst["cause"] or "half open" in worst["cause"]
    assert name in worst["subscriptions"]
    late = next(one for one in others if one["kind"] == "behind")
    assert late["age_s"] > 1
    assert late["owner"] == "team-x"
    (check,) = world.answer(*worst["command"].split()[3:], code=3)
    assert (check["answer"], check["outcome"]) == ("no", "Unavailable")
    world.answer("lag", name, "--fail-over", "1s", code=3)
    assert world.answer("deadletter", "list", name, "--fail-on") == []  # 64 events, their attempts long used up
    assert world.letters() == []
    assert world.committed() == place
    assert len(world.applications()) == 10

    # the morning: it comes back by itself, and nobody has to say so
    world.vendor.misbehave({"kind": "well"})
    eventually(lambda: len(world.applications()) == 70, 60, poll_s=0.2, about="the night's events at the vendor")
    world.wait_until_caught_up()
    expected = in_order(world)
    assert first_applications(world) == {key: expected[key] for key in expected if key not in people}
    assert world.vendor.report()["duplicates"] == 0
    assert sorted((one.outcome, one.record.key) for one in world.letters()) == sorted(
        (outcome, key.encode()) for key in people for outcome in ("parked", "rejected")
    )
    (cause,) = world.answer("deadletter", "list", name, "--cause", "rejected", "--fail-on", code=3)
    assert (cause["count"], cause["parked"]) == (2, 2)
    parked, *_ = eventually(lambda: told(world, "keys_parked"), 60, poll_s=1, about="status to say what is left to do")
    assert parked["command"] == f"backbone -c test deadletter list {name}"
    assert f"backbone -c test deadletter redrive {name}" in parked["cause"]

    # the fix: their address is completed, and they are asked for again under the keys of their first attempts
    path.write_text(path.read_text().replace(EMAIL, MENDED))
    world.answer("subscription", "attach", name, "--apply", "--yes")
    plan = world.answer("deadletter", "redrive", name, "--all")
    done = world.answer("apply", plan["id"])["after"]
    assert (done["sent"], done["closed"], done["still_open"], done["failed_again"]) == (4, 4, 0, 0)
    assert world.letters() == []
    world.wait_until_caught_up()
    assert first_applications(world) == expected
    assert len(world.applications()) == 74
    assert world.vendor.report()["duplicates"] == 0
    assert world.contacts() == world.final_numbers()
    assert world.answer("deadletter", "list", name, "--fail-on") == []
    world.answer("lag", name, "--fail-over", "60s")
    eventually(lambda: problems(world) == [], 60, poll_s=1, about="status to find nothing wrong any more")
