"""What became of an event, asked as a person would: real workers, the ledger beside them, killed and made again."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from ops.ledger import tables
from ops.ledger.database import open_engine
from tests.integration.world import World
from tests.ops.broker import backbone
from tests.ops.ledgers import address_of
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REFUSED = {"kind": "partial", "fail": 1, "category": "VALIDATION_ERROR", "named": "trace"}


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that keeps a ledger, and whose things have an e-mail address for an entity."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(world.folder))
    monkeypatch.setenv("BACKBONE_CONTEXT", "test")
    contract = world.folder / "events" / world.name / "ThingChanged.avsc"
    schema = json.loads(contract.read_text())
    schema["fields"][0]["personal_data"] = "email"
    contract.write_text(json.dumps(schema))
    world.write_subscription()
    subscription = world.folder / "subscriptions" / f"{world.subscription}.yaml"
    subscription.write_text(
        subscription.read_text() + "personal_data: {allow: [email], purpose: to keep things in step}\n"
    )
    world.prepare()
    return world


def said(*words: str) -> Any:
    """The data of a command, in this process: a process of its own for each takes longer than all the rest."""
    answer = backbone(*words, "--output", "json")
    assert answer.code == 0, answer.err
    return answer.data


def delivery(question: str) -> dict[str, Any]:
    """The one subscription's part of the one event."""
    (event,) = said("trace", question)["events"]
    (found,) = event["deliveries"]
    return dict(found)


def contents(world: World) -> tuple[set[tuple[Any, ...]], dict[str, int]]:
    """How each event of this world ended, and what the ranges count together."""
    engine = open_engine(address_of(world.folder, "sqlite:///l.db"), writes=False)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("receipts"):
                return set(), {}
            mine = tables.receipts.c.subscription == world.subscription
            columns = [tables.receipts.c[name] for name in ("event_id", "outcome", "action", "origin_offset")]
            receipts = {tuple(row) for row in connection.execute(sa.select(*columns).where(mine))}
            query = sa.select(tables.ranges).where(
                tables.ranges.c.subscription == world.subscription, tables.ranges.c.topic == world.topic
            )
            return receipts, counted(list(connection.execute(query).mappings()))
    finally:
        engine.dispose()


def counted(ranges: list[Any]) -> dict[str, int]:
    """What the ranges count together. Each goes on where the one before it ended: one that begins within another was
    written by a process that was killed before it could commit, and does not count."""
    counts = Counter[str](dict.fromkeys(tables.COUNTS, 0))
    ends: dict[int, int] = {}
    for one in sorted(ranges, key=lambda row: (row["partition"], row["from_offset"])):
        if one["from_offset"] >= ends.get(one["partition"], 0):
            counts.update({name: one[name] for name in tables.COUNTS})
            ends[one["partition"]] = one["to_offset"]
    return dict(counts)


def has_more(world: World, some: int) -> bool:
    return len(contents(world)[0]) > some


def test_an_event_is_followed_from_the_topic_to_the_vendor_and_back(world: World) -> None:
    world.publish(3, keys=3)
    waiting = delivery(f"{world.thing}-1/1")
    assert (waiting["state"], waiting["steps"]) == ("waiting", [])
    world.vendor.misbehave(REFUSED)
    worker = world.start_worker("ledger")
    world.wait_until_caught_up(120)
    (letter,) = eventually(world.letters, 40, about="the refused event set aside")
    eventually(
        lambda: len(said("receipt", "list", "--subscription", world.subscription)) == 3,
        40,
        poll_s=0.5,
        about="three receipts in the ledger",
    )
    refused = (dict(letter.headers)["ce_id"] or b"").decode()
    found = delivery(refused)
    assert found["state"] == "rejected"
    assert found["dead_letter"]["id"] == str(letter.origin)
    (fine, other) = [one for one in (f"{world.thing}-{n}/1" for n in range(3)) if one != refused]
    found = delivery(fine)
    assert (found["state"], found["dead_letter"]) == ("delivered", None)
    (step,) = found["steps"]
    assert step["reference"] is not None
    assert (step["attempts"], step["action"], step["body_fields"]) == (1, "contact.upsert", ["plan"])

    # the key is an e-mail address: found by it, and nowhere to be read
    key = fine.partition("/")[0]
    by_key = said("trace", f"thing_id={key}")["events"]
    assert [one["id"] for one in by_key] == [fine]
    assert [one["event_id"] for one in said("receipt", "list", "--entity", key)] == [fine]
    for shown in (
        backbone("receipt", "list", "--subscription", world.subscription).out,
        json.dumps(said("receipt", "list", "--key", f"thing_id={key}")),
    ):
        assert f"{key}/1" in shown
        assert key not in shown.replace(f"{key}/1", "")
    assert key.encode() not in (world.folder / "l.db").read_bytes().replace(f"{key}/1".encode(), b"")

    (row,) = said("deadletter", "list", world.subscription)
    change = said("deadletter", "redrive", world.subscription, "--cause", row["fingerprint"], "--apply", "--yes")

    def redriven() -> dict[str, Any] | None:
        found = delivery(refused)
        return found if found["state"] == "delivered" else None

    found = eventually(redriven, 40, poll_s=0.5, about="the redrive's receipt in the ledger")
    assert [(one["outcome"], one["change_id"]) for one in found["steps"]] == [
        ("rejected", None), ("delivered", change["id"]),
    ]  # fmt: skip
    assert found["dead_letter"] is None
    assert [one["event_id"] for one in said("receipt", "list", "--change", change["id"])] == [refused]
    assert said("receipt", "list", "--subscription", world.subscription, "--outcome", "rejected") == []
    assert other in {
        one["event_id"]
        for one in said("receipt", "list", "--subscription", world.subscription, "--outcome", "delivered")
    }
    assert worker.stop() == 0


def test_whatever_is_killed_every_event_has_one_receipt_and_a_lost_ledger_is_made_again(world: World) -> None:
    world.publish(3000)
    total = sum(map(len, world.published.values()))
    for _ in range(2):
        some = len(contents(world)[0])
        worker = world.start_worker("ledger")
        eventually(partial(has_more, world, some), 90, poll_s=0.05, about="the ledger being written")
        worker.kill()
        assert len(contents(world)[0]) < total, "it was killed too late to be in the middle"
    worker = world.start_worker("ledger")
    world.wait_until_caught_up(120)
    expected = {f"{key}/{number}" for key, numbers in world.published.items() for number in numbers}

    def written() -> tuple[set[tuple[Any, ...]], dict[str, int]] | None:
        found = contents(world)
        return found if len(found[0]) == total and sum(found[1].values()) >= total else None

    receipts, counts = eventually(written, 90, poll_s=0.2, about="every receipt and range in the ledger")
    assert {event for event, *_ in receipts} == expected
    assert {outcome for _, outcome, *_ in receipts} == {"delivered"}
    # what was finished before a kill and not committed is counted as earlier: its receipt is there
    assert counts["delivered"] + counts["earlier"] == total
    assert worker.stop() == 0
    for suffix in ("", "-wal", "-shm"):
        (world.folder / f"l.db{suffix}").unlink(missing_ok=True)
    worker = world.start_worker("ledger")
    again, counted = eventually(written, 90, poll_s=0.2, about="the ledger made again from the receipts")
    assert again == receipts
    assert counted == counts
    assert worker.stop() == 0
