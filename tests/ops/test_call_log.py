"""The call log: what is kept, for how long, and that it is in nobody's way."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.connector import Delivered, Delivery, Outcome, Rejected, RetryLater
from connectors.exchanges import Exchange
from connectors.transport import Answer
from consumers import facts
from consumers.calls import Asked
from consumers.receipts import hashed
from ops.watch import call_log, logs
from ops.watch.call_log import CallLog, kept_call
from ops.watch.call_store import CallStore, CallsWanted, find_calls
from ops.watch.observe import Observation
from schemas.contract_form import PERSONAL_DATA_CLASSES
from schemas.event import Event, Origin
from tests.waiting import eventually

KEY = b"an installation's key"
DAY_S = 86_400.0
NOON = 1_700_000_000.0
CANARIES = {
    one: f"Canary-{one.title()}@Example.org 4711" for one in PERSONAL_DATA_CLASSES if one != "none"
}  # fmt: skip


def asked(
    event: str = "e-1",
    *,
    entity: str = "u-1",
    body: Mapping[str, Any] | None = None,
    carried: Mapping[str, frozenset[str]] | None = None,
    outcome: Outcome | None = Delivered("v-1"),  # noqa: B008 - frozen
    merged: tuple[Event, ...] = (),
) -> Asked:
    origin = Origin("accounts.users", 3, 17)
    return Asked(
        origin=origin, place=("accounts.users", 3), is_ours=True, attempt=1, outcome=outcome, change=None,
        carried=carried or {}, event=an_event(event), merged=merged,
        delivery=Delivery(
            action="contact.upsert", entity=entity, idempotency_key="ab" * 32, sequence=origin,
            body={"plan": "team"} if body is None else body,
        ),
    )  # fmt: skip


def an_event(id_: str) -> Event:
    return Event(
        id=id_, type="accounts.UserSignedUp", source="accounts", time=datetime.now(UTC), subject=CANARIES["email"],
        key=CANARIES["email"], data=dict(CANARIES),
    )  # fmt: skip


def call(
    *deliveries: Asked, outcome: str = "Delivered", connection: str = "hubspot", answer: Any = None, status: int = 200
) -> facts.CallMade:
    body = json.dumps(answer).encode()
    given = {"Retry-After": "7", "Set-Cookie": "canary-secret"}
    post = Exchange(
        "POST", "/contacts/upsert", "https://a.example", 120, 0.4, status, "", len(body), Answer(status, given, body)
    )
    return facts.CallMade(
        subscription="crm", connection=connection, action="contact.upsert", deliveries=len(deliveries), seconds=0.5,
        outcome=outcome, idempotency_key="ab" * 32, attempt=1, exchanges=(post,), is_look_up=False,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", asked=lambda: deliveries,
    )  # fmt: skip


class Rig:
    def __init__(self, folder: Path, *, bytes_max: int = 64 << 20) -> None:
        self.file = folder / "calls" / "test.db"
        self.now = NOON
        self.observation = Observation()
        store = CallStore.at(self.file, keep_s=7 * DAY_S, bytes_max=bytes_max)
        self.log = CallLog(
            store, connections=["hubspot"], key=KEY, lost=self.observation.calls_not_kept, wall=lambda: self.now
        )

    def lost(self, reason: str) -> float:
        labels = {"connection": "hubspot", "reason": reason}
        return self.observation.registry.get_sample_value("backbone_calls_not_kept_total", labels) or 0.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "BATCH_S", 0.0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.log.close()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    logs.configure(json=True, stream=out)
    yield out
    logs.configure(json=True)


def test_a_call_is_found_by_its_event_its_entity_and_its_outcome(rig: Rig) -> None:
    refused = {"status": "error", "category": "CONFLICT", "message": "said of canary"}
    older = (an_event("e-0"),)
    rig.log(call(asked("e-1", outcome=RetryLater("conflict"), merged=older), outcome="RetryLater", answer=refused,
                 status=409))  # fmt: skip
    rig.now += 60
    rig.log(call(asked("e-1"), asked("e-2", entity="u-2"), answer={"ok": True}))
    rig.log(call(asked("e-9"), connection="slack"))  # which has no call log
    rig.log.close()
    first, second = reversed(find_calls(rig.file, CallsWanted(connection="hubspot"), limit=10))
    assert (first.at, second.at, first.outcome, second.outcome) == (NOON, NOON + 60, "retry_later", "delivered")
    (exchange,) = first.exchanges
    assert exchange == {
        "method": "POST", "endpoint": "/contacts/upsert", "status": 409, "failed": None, "seconds": 0.4,
        "sent_bytes": 120, "received_bytes": exchange["received_bytes"], "headers": {"retry-after": "7"},
        "answer": {"status": "error", "category": "CONFLICT", "message": "‹text, 14 characters›"},
    }  # fmt: skip
    (delivery, merged) = first.deliveries
    assert (delivery.entity, delivery.reason, delivery.body) == ("u-1", "conflict", {"plan": "team"})
    assert (merged.event, merged.outcome, merged.body) == ("e-0", "merged", None)
    assert first.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"

    def ids(**wanted: Any) -> list[int]:
        return [one.id for one in find_calls(rig.file, CallsWanted(**wanted), limit=10)]

    assert ids(event="e-1") == [second.id, first.id]
    assert ids(event="e-0") == [first.id]
    assert ids(event="e-2") == ids(entities=["u-2"]) == ids(outcome="delivered") == ids(since=NOON + 1) == [second.id]
    assert ids(until=NOON + 1) == [first.id]
    assert ids(event="e-9") == ids(connection="slack") == []


def test_a_value_of_every_personal_data_class_is_nowhere_in_the_file(rig: Rig) -> None:
    """The vendor quotes each in many ways, and answers with what it knew before."""
    carried = {f"body.f_{one}": frozenset({one}) for one in CANARIES} | {"entity": frozenset({"email"})}
    body = {f"f_{one}": value for one, value in CANARIES.items()} | {"plan": "team", "copy": CANARIES["name"]}
    answer = {
        "results": [{"id": value, "properties": {"email": value.lower(), value: value}} for value in CANARIES.values()],
        "message": " ".join(CANARIES.values()), "code": CANARIES["name"], "category": "Canary", "error": "canary-email",
        "requestId": CANARIES["phone"].replace("@", "-").replace(" ", "-"), "phone_known_before": "+49 170 5550199",
    }  # fmt: skip
    rig.log(call(asked("e-1", entity=CANARIES["email"], body=body, carried=carried), answer=answer))
    rig.log(call(asked("e-2", entity=CANARIES["email"], body=body, carried={"entity": frozenset({"email"}),
                                                                           "body": frozenset({"other"})})))  # fmt: skip
    rig.log(call(asked("e-3", body=body, carried=carried, outcome=Rejected(CANARIES["address"], CANARIES["bank"]))))
    eventually(lambda: len(find_calls(rig.file, CallsWanted(), limit=10)) == 3, about="three calls")
    written = b"".join(one.read_bytes() for one in rig.file.parent.iterdir()).lower()
    assert b"canary" not in written
    assert b"4711" not in written
    assert b"5550199" not in written
    found = find_calls(rig.file, CallsWanted(entities=[hashed(CANARIES["email"], KEY)]), limit=10)
    assert [one.deliveries[0].event for one in found] == ["e-2", "e-1"]
    assert found[1].deliveries[0].body["f_email"] == "‹email›"
    assert found[1].deliveries[0].body["copy"] == "‹personal›"
    assert found[0].deliveries[0].body == "‹other›"


def test_without_a_key_personal_entities_are_not_kept() -> None:
    one = asked("e-1", entity=CANARIES["email"], carried={"entity": frozenset({"email"})})
    (delivery,) = kept_call(call(one), [one], NOON, None).deliveries
    assert (delivery.entity, delivery.entity_hashed) == ("", True)


def test_the_file_is_for_its_owner_alone(rig: Rig) -> None:
    rig.log(call(asked()))
    eventually(lambda: rig.file.exists() and find_calls(rig.file, CallsWanted(), limit=1))
    assert {stat.S_IMODE(one.stat().st_mode) for one in rig.file.parent.iterdir()} == {0o600}


def test_after_a_week_a_call_is_gone_also_where_no_other_came(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.log(call(asked("e-1")))
    eventually(lambda: find_calls(rig.file, CallsWanted(event="e-1"), limit=1), about="it is kept")
    rig.now = NOON + 7 * DAY_S - 1
    rig.log(call(asked("e-2")))
    eventually(lambda: find_calls(rig.file, CallsWanted(event="e-2"), limit=1), about="another one")
    assert find_calls(rig.file, CallsWanted(event="e-1"), limit=1)
    rig.now = NOON + 7 * DAY_S + 1
    monkeypatch.setattr(call_log, "TIDY_S", 0.01)
    rig.log(call(asked("e-3"), connection="slack"))
    rig.log._some.set()  # the minute is over
    eventually(lambda: not find_calls(rig.file, CallsWanted(event="e-1"), limit=1), about="it is let go of")
    assert find_calls(rig.file, CallsWanted(event="e-2"), limit=1)


def test_what_is_too_much_leaves_the_oldest_first_and_the_disk_gets_its_room_back(tmp_path: Path) -> None:
    store = CallStore.at(tmp_path / "c.db", keep_s=7 * DAY_S, bytes_max=1 << 20)
    one = asked(body={f"field_{n}": "y" * 250 for n in range(40)})
    for batch in range(12):
        calls = [kept_call(call(one), [one], NOON + batch, KEY) for _ in range(20)]
        store.add(calls, NOON + batch)
    kept = find_calls(tmp_path / "c.db", CallsWanted(), limit=1_000)
    assert 40 < len(kept) < 120
    assert kept[0].at == NOON + 11
    assert [one.id for one in kept] == list(range(240, 240 - len(kept), -1))
    store.close()
    assert (tmp_path / "c.db").stat().st_size <= (1 << 20) + 400_000  # and one batch


def test_a_file_that_cannot_be_written_costs_calls_and_is_said_once(
    tmp_path: Path, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calls").write_text("in the way of the folder")
    rig = Rig(tmp_path)
    for number in range(3):
        rig.log(call(asked(f"e-{number}")))
        eventually(lambda seen=number + 1: rig.lost("not_written") == seen, about="it is counted")
    (tmp_path / "calls").unlink()
    rig.log(call(asked("e-9")))
    eventually(lambda: find_calls(rig.file, CallsWanted(event="e-9"), limit=1), about="it is written again")
    rig.log.close()
    said = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert said == ["call_log_not_written", "call_log_written_again"]


def test_a_full_disk_and_a_broken_file_stop_nothing(tmp_path: Path, lines: io.StringIO) -> None:
    file = tmp_path / "c.db"
    file.write_bytes(b"no database at all" * 1_000)
    store = CallStore.at(file, keep_s=DAY_S, bytes_max=64 << 20)
    one = asked(body={f"field_{n}": "y" * 250 for n in range(40)})
    store.add([kept_call(call(one), [one], NOON, KEY)], NOON)  # made anew
    with store.kept.opened() as connection:
        connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add([kept_call(call(one), [one], NOON, KEY)] * 50, NOON)
    store.add([kept_call(call(one), [one], NOON, KEY)], NOON)
    assert len(find_calls(file, CallsWanted(), limit=100)) == 2
    store.close()


def test_more_than_can_be_written_is_not_kept_and_the_loop_does_not_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    keep = rig.log._keep
    monkeypatch.setattr(rig.log, "_keep", lambda taken: (goes_on.wait(30), keep(taken)))
    monkeypatch.setattr(call_log, "WAITING_MAX", 10_000)
    for number in range(50):
        rig.log(call(asked(f"e-{number}")))
    assert rig.lost("behind") > 30
    goes_on.set()
    rig.log.close()
    assert len(find_calls(rig.file, CallsWanted(), limit=100)) == 50 - rig.lost("behind")


def test_what_cannot_be_kept_for_a_fault_of_ours_is_counted_and_named_by_its_type(rig: Rig, lines: io.StringIO) -> None:
    rig.log(call(asked(body={"plan": object()})))
    eventually(lambda: rig.lost("not_written") == 1)
    (said,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert said["reason"] == "ExpressionFailed"


def test_reading_makes_no_file(tmp_path: Path) -> None:
    assert find_calls(tmp_path / "none.db", CallsWanted(), limit=1) == []
    assert os.listdir(tmp_path) == []
