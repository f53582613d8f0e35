"""A bad version went out: the corrected file is shadowed, attached, and what was sent wrongly is sent again. Real
workers, a ledger, and a vendor that says what it has."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.world import World
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
BODY = 'body: {plan: "{{ data.number }}", company: ACME}'
WRONG = 'body: {plan: "v{{ data.number }}"}'


def test_a_bad_version_is_corrected_by_a_shadow_an_attach_and_a_replay_of_the_same_events(world: World) -> None:
    path, name = world.write_subscription(), world.subscription
    good = path.read_text().replace('body: {plan: "{{ data.number }}"}', BODY)
    path.write_text(good)
    world.prepare()
    world.start_worker("ledger")
    world.publish(10, keys=5)
    world.wait_until_applied()
    world.wait_until_caught_up()
    path.write_text(good.replace(BODY, WRONG))
    world.backbone("subscription", "attach", name, "--apply", "--yes")
    world.publish(20, keys=5)
    wrong = {key: f"v{number}" for key, number in world.final_numbers().items()}
    eventually(lambda: world.contacts() == wrong, 60, about="the bad version at the vendor")
    world.wait_until_caught_up()
    asked, place = world.applications(), world.committed()

    path.write_text(good)
    words = ("subscription", "shadow", str(path), "--days", "7", "--max-different")
    found = world.answer(*words, "0.1%", code=3)
    (by_event,) = found["by_event"]
    different = by_event["different"]
    assert 0 < different <= 20  # what the first version sent is as the corrected one would send it
    assert (by_event["same"], by_event["not_compared"]) == (30 - different, 0)
    assert {(one["place"], one["cause"], one["events"]) for one in found["differences"]} == {
        ("body.plan", "changed", different),
        ("body.company", "added", different),
    }
    plan_field = next(one for one in found["differences"] if one["place"] == "body.plan")
    assert plan_field["examples"][0]["was"] == f"v{plan_field['examples'][0]['now']}"
    world.answer(*words, "100%")
    assert (world.applications(), world.committed()) == (asked, place)  # the vendor was not asked, nothing moved

    world.answer("subscription", "attach", str(path), "--apply", "--yes")
    plan = world.answer("replay", name, "--from", "earliest", "--only", "changed", "--allow-stale")
    assert f"{different} events delivered again" in " ".join(plan["summary"])
    assert f"{30 - different} events left out: " in " ".join(plan["summary"])
    world.answer("apply", plan["id"])
    eventually(lambda: world.contacts() == world.final_numbers(), 60, about="the corrected values at the vendor")
    # exactly those that the bad version sent, each once, in the order of its key, under the revision of the change
    receipts = world.answer("receipt", "list", "--subscription", name, "--limit", "100")
    sent_wrongly = {one["event_id"] for one in receipts if one["subscription_version"] == found["attached"]}
    assert len(sent_wrongly) == different
    again = world.applications()[len(asked) :]
    expected = {
        key: [world.trace(key, n, revision=plan["id"]) for n in numbers if f"{key}/{n}" in sent_wrongly]
        for key, numbers in world.published.items()
    }
    order: dict[str, list[str]] = {}
    for entity, trace in again:
        order.setdefault(entity, []).append(trace)
    assert order == {key: traces for key, traces in expected.items() if traces}
    assert set(Counter(world.applications()).values()) == {1}
    assert {c["company"] for c in world.vendor.report()["contacts"].values()} == {"ACME"}
    assert world.committed() == place
    assert {one["revision"] for one in world.answer("receipt", "list", "--change", plan["id"])} == {plan["id"]}
    assert world.answer(*words, "0%")["compared"] == 30  # what was sent last is what this version sends
    world.backbone("replay", name, "--from", "earliest", "--only", "changed", "--allow-stale", code=6)
