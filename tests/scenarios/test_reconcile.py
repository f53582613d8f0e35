"""Reconciling on a real broker with real workers, a ledger, the HubSpot fake and a database: all agrees; then somebody
changes and deletes things at the vendors, a receipt is lost, and a repair is killed half-way."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from typing import Any

import pytest

from connectors.hubspot import FAKE_TOKEN
from tests.integration.world import World
from tests.ops.broker import backbone
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
HUBSPOT = "/crm/objects/2026-03/contacts"


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that keeps a ledger, and a second subscription that writes the same things as rows."""
    monkeypatch.setenv("BACKBONE_PROJECT", str(world.folder))
    monkeypatch.setenv("BACKBONE_CONTEXT", "test")
    project = world.folder / "backbone.toml"
    # a connection of its own: what others who are attached write there, too, nobody can tell from too much
    text = project.read_text().replace("[connections.hubspot]", "[connections.people]")
    text = text.replace("\nhubspot = ", "\npeople = ")
    map_ = world.folder / "subscriptions" / f"{world.subscription}.yaml"
    map_.write_text(map_.read_text().replace("connection: hubspot", "connection: people"))
    project.write_text(text.replace("[contexts.test]\n", '[connections.rows]\nconnector = "sql"\n[contexts.test]\n', 1))
    (world.folder / "subscriptions" / f"{rows_name(world)}.yaml").write_text(
        f"description: Things as rows.\nowner: team-x\nconnection: rows\nroutes:\n  - event: {world.event}\n"
        "    action: row.upsert\n    body: {table: things, row: {number: '{{ data.number }}'}}\n"
    )
    return world


def rows_name(world: World) -> str:
    return f"{world.name}-rows"


def said(*words: str, code: int = 0) -> Any:
    """The data of a command, in this process: a process of its own for each takes longer than all the rest."""
    answer = backbone(*words, "--output", "json")
    assert answer.code == code, f"{words}: exit {answer.code}\n{answer.out}\n{answer.err}"
    return answer.data


def reconciled(name: str, *words: str, code: int = 0) -> Any:
    return said("reconcile", "run", name, *words, code=code)


def vendor(world: World, path: str, document: Any) -> None:
    """What a person does in HubSpot."""
    request = urllib.request.Request(
        f"{world.vendor.url}{path}", json.dumps(document).encode(), {"Authorization": f"Bearer {FAKE_TOKEN}"}
    )
    urllib.request.urlopen(request, timeout=20).read()


def database(world: World) -> sqlite3.Connection:
    return sqlite3.connect(world.folder / ".backbone" / "fakes" / "sql.sqlite")


def found(data: Any) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for row in data["rows"]:
        what = row["entity"] if row["entity"] is not None else f"{row['topic']}/{row['partition']}/{row['start']}"
        kinds.setdefault(row["kind"], set()).add(what)
    return kinds


def numbers(world: World) -> dict[str, int]:
    with database(world) as opened:
        return dict(opened.execute("SELECT backbone_key, number FROM things"))


def test_what_somebody_did_at_the_vendors_is_found_and_repaired_though_the_repair_is_killed(world: World) -> None:
    crm, rows = world.subscription, rows_name(world)
    world.prepare()
    world.backbone("subscription", "attach", rows, "--from", "earliest", "--apply", "--yes")
    world.start_worker(rows, "ledger")
    world.publish(60, keys=20)
    world.wait_until_applied()
    world.wait_until_caught_up()
    expected = {key: numbers_[-1] for key, numbers_ in world.published.items()}
    eventually(lambda: numbers(world) == expected, 60, about="every row written")

    # (1) all agrees
    for name, listed in ((crm, 20), (rows, 20)):
        data = eventually(lambda name=name: settled(name), 60, poll_s=0.5, about="nothing waiting any more")
        assert data["agrees"], data
        assert (data["published"], data["stages"]["delivered"], data["proved"]) == (60, 60, 60)
        vendor_said = data["vendor"]
        assert (vendor_said["entities"], vendor_said["equal"], vendor_said["listed"]) == (20, 20, listed)

    # (2) somebody was at the vendors
    key = {number: f"{world.thing}-{number}" for number in range(20)}
    changed = {key[0]: "999", key[1]: ""}
    for entity, plan in changed.items():
        one = {"id": entity, "idProperty": "backbone_id", "properties": {"plan": plan}}
        vendor(world, f"{HUBSPOT}/batch/upsert", {"inputs": [one]})
    deleted = {key[number] for number in range(2, 14)}
    for entity in deleted:
        number = next(c["hs_object_id"] for e, c in world.vendor.report()["contacts"].items() if e == entity)
        vendor(world, "/crm/v3/objects/contacts/gdpr-delete", {"objectId": number})
    by_hand = {"id": "by-hand", "idProperty": "backbone_id", "properties": {"plan": "1"}}
    vendor(world, f"{HUBSPOT}/batch/upsert", {"inputs": [by_hand]})
    with database(world) as opened:
        opened.execute("DELETE FROM things WHERE backbone_key = ?", (key[0],))
        opened.execute("UPDATE things SET number = 7000 WHERE backbone_key = ?", (key[1],))
        opened.execute("INSERT INTO things SELECT 'by-hand', number, '', 0, 0, backbone_written_at FROM things LIMIT 1")
    data = reconciled(crm, code=3)
    assert found(data) == {"different": set(changed), "missing": deleted, "extra": {"by-hand"}}
    different = {row["entity"]: row["fields"] for row in data["rows"] if row["kind"] == "different"}
    assert different[key[0]] == [{"name": "plan", "expected": str(expected[key[0]]), "found": "999"}]
    row_data = reconciled(rows, code=3)
    assert found(row_data) == {"missing": {key[0]}, "different": {key[1]}, "extra": {"by-hand"}}
    shown = said("reconcile", "show", crm, "--kind", "extra", code=3)
    assert (shown["id"], found(shown)) == (data["id"], {"extra": {"by-hand"}})

    asked, place = Counter(world.applications()), world.committed()
    plan = said("reconcile", "repair", crm, "--rate", "4/s")
    assert "14 events delivered again" in " ".join(plan["summary"])
    begun = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "apply", plan["id"]], env=world.environment, cwd=world.folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        eventually(lambda: len(world.applications()) - asked.total() >= 3, 60, poll_s=0.1, about="the first repairs")
    finally:
        begun.kill()
        begun.communicate(timeout=10)
    assert len(world.applications()) - asked.total() < 14
    said("apply", plan["id"])
    repaired = Counter(world.applications()) - asked
    assert len(repaired) == 14
    assert set(repaired.values()) == {1}  # no event twice, each under a key of its own
    assert {entity for entity, _ in repaired} == set(changed) | deleted
    assert world.committed() == place
    shown = said("change", "show", plan["id"])
    assert (shown["state"], shown["after"]["sent"], shown["after"]["outcomes"]) == ("applied", 14, {"delivered": 14})
    receipts = said("receipt", "list", "--change", plan["id"], "--limit", "100")
    assert {(one["change_kind"], one["revision"]) for one in receipts} == {("repair", plan["id"])}
    said("undo", plan["id"], "--yes", code=6)

    said("reconcile", "repair", row_data["id"], "--apply", "--yes")
    assert {one: number for one, number in numbers(world).items() if one != "by-hand"} == expected
    for name in (crm, rows):  # what is too much stays, and stays listed
        data = reconciled(name, code=3)
        assert found(data) == {"extra": {"by-hand"}}
        assert data["stages"]["delivered"] == 60
    said("reconcile", "repair", rows, code=6)  # there is nothing to repair

    # (3) a receipt is lost
    with sqlite3.connect(world.folder / "l.db") as ledger:
        (lost,) = ledger.execute(
            "DELETE FROM receipts WHERE id = (SELECT min(id) FROM receipts WHERE subscription = ?) "
            "RETURNING origin_topic || '/' || origin_partition || '/' || origin_offset", (rows,),
        ).fetchone()  # fmt: skip
    data = reconciled(rows, "--no-vendor", code=3)
    assert found(data) == {"receipt_missing": {lost}}
    assert (data["stages"]["delivered"], data["stages"]["receipt_missing"]) == (59, 1)


def settled(name: str) -> Any:
    data = reconciled(name)
    return data if data["stages"]["waiting"] == 0 and data["uncounted"] == 0 else None
