"""What every connector must do, found by its entry point and run against its own fake (connectors.md rule 7).

A connector of another package is tested by installing it and running this file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from connectors.connector import (
    Connector,
    ConnectorType,
    Delivered,
    Delivery,
    Outcome,
    Rejected,
    RetryLater,
    Skipped,
    Unavailable,
    Unknown,
    connector_types,
)
from tests.connectors.samples import FakeControl, example

TYPES = connector_types()
SERVED = sorted(name for name, one in TYPES.items() if one.fake is not None)
OUTCOMES = (Delivered, Skipped, RetryLater, Unavailable, Rejected, Unknown)
DEADLINE_S = 0.5


@dataclass
class World:
    """One connector on its fake."""

    type: ConnectorType
    connector: Connector
    settings: Any
    control: FakeControl | None
    folder: Path

    async def ask(self, *deliveries: Delivery) -> list[Outcome]:
        outcomes = list(await self.connector.deliver(deliveries))
        assert len(outcomes) == len(deliveries)
        assert all(isinstance(outcome, OUTCOMES) for outcome in outcomes)
        return outcomes

    async def misbehave(self, *orders: dict[str, Any]) -> None:
        assert self.control is not None
        await self.control.misbehave(*orders)

    async def effects(self) -> int:
        """How many things stand at the vendor."""
        if self.control is not None:
            return int((await self.control.report())["effects"])
        if self.type.name != "sql":
            pytest.skip(f"{self.type.name} has no fake that reports its effects")
        with sqlite3.connect(self.folder / "sql.sqlite") as database:
            return int(database.execute("SELECT count(*) FROM invoice_created").fetchone()[0])


@pytest.fixture
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    connector_type = TYPES[request.param]
    fake = connector_type.fake() if connector_type.fake is not None else None
    url = await fake.start() if fake is not None else ""
    table = dict(connector_type.fake_settings(url, tmp_path))
    if fake is not None and "timeout_s" in connector_type.settings.model_fields:
        table["timeout_s"] = DEADLINE_S
    settings = connector_type.settings(**table)
    control = FakeControl(url) if fake is not None else None
    connector = connector_type.open(settings)
    yield World(connector_type, connector, settings, control, tmp_path)
    await connector.close()
    if control is not None:
        await control.close()
    if fake is not None:
        await fake.stop()


every_connector = pytest.mark.parametrize("world", sorted(TYPES), indirect=True)
every_served_connector = pytest.mark.parametrize("world", SERVED, indirect=True)


def credentials(world: World) -> list[str]:
    """The settings that are secret, of those that this connection has."""
    fields = world.type.settings.model_fields
    return [name for name in fields if isinstance(getattr(world.settings, name), SecretStr)]


def batch(world: World, count: int) -> list[Delivery]:
    return [example(world.type, number) for number in range(count)]


def test_ours_are_found_by_their_entry_points() -> None:
    assert {"hubspot", "slack", "sql"} <= set(TYPES)
    assert all(name == one.name for name, one in TYPES.items())


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_connector_type_says_what_people_need_to_know(name: str) -> None:
    one = TYPES[name]
    assert one.doc
    assert one.batch_max >= 1
    assert one.actions
    for action in one.actions.values():
        schema = action.body.model_json_schema()
        assert schema.get("description"), action.name
        assert schema.get("examples"), action.name
        assert all(field.get("description") for field in schema["properties"].values()), action.name
        assert action.body.model_config.get("extra") == "forbid"
    assert one.settings.model_config.get("extra") == "forbid"
    assert one.settings.model_config.get("hide_input_in_errors") is True
    assert {"vendor", "api", "version", "docs", "quota", "sla", "criticality", "fallback", "owner"} <= set(
        one.dependency
    )
    if one.idempotency.kind in ("replay_key", "dedupe_id"):
        assert one.idempotency.ttl
    else:
        assert one.idempotency.ttl is None


@every_connector
async def test_a_full_batch_is_delivered_item_by_item(world: World) -> None:
    size = world.type.batch_max
    outcomes = await world.ask(*batch(world, size))
    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert await world.effects() == size


@every_connector
async def test_the_same_delivery_twice_is_one_effect_where_the_connector_says_so(world: World) -> None:
    one = example(world.type)
    assert isinstance((await world.ask(one))[0], Delivered)
    assert isinstance((await world.ask(one))[0], Delivered)
    assert await world.effects() == (2 if world.type.idempotency.kind == "none" else 1)
    if world.control is not None:
        assert (await world.control.report())["duplicates"] == 1, "the key must be on the wire"


@every_connector
async def test_many_calls_at_once_each_get_their_own_outcome(world: World) -> None:
    outcomes = await asyncio.gather(*(world.ask(one) for one in batch(world, 64)))
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    assert await world.effects() == 64


@every_connector
async def test_closing_twice_is_fine_and_delivering_afterwards_says_unavailable(world: World) -> None:
    await world.ask(example(world.type))
    await world.connector.close()
    await world.connector.close()
    (outcome,) = await world.ask(example(world.type))
    assert isinstance(outcome, Unavailable)


@every_connector
async def test_closing_an_unused_connector_is_fine(world: World) -> None:
    await world.connector.close()


JUNK: Sequence[Any] = (
    None, 0, -1.5, float("nan"), "", "x" * 100_000, "\0", "\ud800", b"\xff", [], [[[]]], {}, {"a": {"b": object()}},
    10**400, datetime(1, 1, 1), datetime.max, object(), True,
)  # fmt: skip


@every_connector
async def test_whatever_the_body_it_never_raises(world: World) -> None:
    good = example(world.type)
    for name in (*good.body, "unheard of", "", "unheardof"):
        for junk in JUNK:
            await world.ask(replace(good, body={**good.body, name: junk}))
    for wrong in (replace(good, body={}), replace(good, action="no.such"), replace(good, entity="\0")):
        (outcome,) = await world.ask(wrong)
        if wrong.action == "no.such":
            assert isinstance(outcome, Rejected)
    assert isinstance((await world.ask(replace(good, entity="after")))[0], Delivered)


# -- what the network and the vendor do -----------------------------------------------------------------------------

LOST: Sequence[dict[str, Any]] = (
    {"kind": "stall"},
    {"kind": "stall_after_effect"},
    {"kind": "late", "seconds": 30},
    {"kind": "slow_body"},
    {"kind": "cut"},
    {"kind": "cut", "at": "start"},
    {"kind": "cut_after_effect"},
    {"kind": "bomb"},
)


@every_served_connector
@pytest.mark.parametrize("order", LOST, ids=lambda order: "-".join(map(str, order.values())))
async def test_an_answer_that_is_lost_is_unknown_and_sending_again_heals_it(
    world: World, order: dict[str, Any]
) -> None:
    size = min(3, world.type.batch_max)
    await world.misbehave(order)
    outcomes = await world.ask(*batch(world, size))
    assert {type(outcome) for outcome in outcomes} == {Unknown}
    again = await world.ask(*batch(world, size))
    assert {type(outcome) for outcome in again} == {Delivered}
    if world.type.idempotency.kind != "none":
        assert await world.effects() == size


@every_served_connector
async def test_a_vendor_that_is_away_is_unavailable_and_nothing_was_sent(world: World) -> None:
    assert world.control is not None
    await world.misbehave({"kind": "away", "seconds": 0.5})
    until = time.monotonic() + 30
    while isinstance((await world.ask(example(world.type)))[0], Delivered):
        assert time.monotonic() < until  # it goes a moment after it was told to
    (outcome,) = await world.ask(example(world.type, 1))
    assert isinstance(outcome, Unavailable)
    assert (outcome.scope, outcome.needs_operator) == ("connection", False)
    while not isinstance((await world.ask(example(world.type, 2)))[0], Delivered):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


@every_served_connector
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_honoured_as_seconds_and_as_a_date(world: World, form: str) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    headers = {"Retry-After": "90" if form == "seconds" else soon}
    await world.misbehave({"kind": "status", "status": 429, "headers": headers})
    before = time.monotonic()
    outcomes = await world.ask(*batch(world, min(3, world.type.batch_max)))
    for outcome in outcomes:
        assert isinstance(outcome, Unavailable)
        assert outcome.after is not None
        assert timedelta(seconds=60) < outcome.after <= timedelta(seconds=91)
        if outcome.scope == "connection":
            assert world.connector.pause_until >= before + 60


@every_served_connector
async def test_503_is_unavailable_and_uses_no_attempt(world: World) -> None:
    await world.misbehave({"kind": "status", "status": 503, "body": "<html>away</html>"})
    outcomes = await world.ask(*batch(world, min(3, world.type.batch_max)))
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


@every_served_connector
@pytest.mark.parametrize("status", [401, 403, 410])
async def test_credentials_and_permissions_need_an_operator(world: World, status: int) -> None:
    await world.misbehave({"kind": "status", "status": status, "times": 2})
    for outcome in await world.ask(*batch(world, min(3, world.type.batch_max))):
        assert isinstance(outcome, Unavailable)
        assert outcome.needs_operator


@every_served_connector
async def test_a_redirect_is_not_followed_and_not_taken_for_success(world: World) -> None:
    for status in (301, 302, 307, 308):
        headers = {"Location": "http://127.0.0.1:1/"}
        await world.misbehave({"kind": "status", "status": status, "headers": headers})
        (outcome,) = await world.ask(example(world.type))
        assert not isinstance(outcome, (Delivered, Rejected))
    assert await world.effects() == 0


@every_served_connector
async def test_a_success_that_is_not_understood_is_unknown(world: World) -> None:
    for body in ("", "<html>captive portal</html>", "[]", "null", "{}", '"ok"', "[" * 10_000, '{"ok": 1}'):
        await world.misbehave({"kind": "status", "status": 200, "body": body})
        outcomes = await world.ask(*batch(world, min(3, world.type.batch_max)))
        assert {type(outcome) for outcome in outcomes} == {Unknown}, body
    await world.misbehave({"kind": "status", "status": 202, "body": {}})
    assert isinstance((await world.ask(example(world.type)))[0], Unknown)


@every_served_connector
async def test_a_refused_call_is_about_the_call_and_alone_about_the_delivery(world: World) -> None:
    size = min(3, world.type.batch_max)
    await world.misbehave({"kind": "status", "status": 400, "times": 2})
    for outcome in await world.ask(*batch(world, size)):
        assert isinstance(outcome, Rejected)
        assert outcome.scope == ("call" if size > 1 else "delivery")
    (alone,) = await world.ask(example(world.type))
    assert isinstance(alone, Rejected)
    assert alone.scope == "delivery"


@every_served_connector
async def test_partial_success_is_settled_item_by_item(world: World) -> None:
    if world.type.batch_max == 1:
        pytest.skip("one delivery a call")
    await world.misbehave({"kind": "partial", "fail": 2})
    outcomes = await world.ask(*batch(world, 5))
    assert [type(outcome) for outcome in outcomes] == [Rejected, Rejected, Delivered, Delivered, Delivered]
    assert await world.effects() == 3


@every_served_connector
async def test_any_status_with_any_body_gives_outcomes_and_never_a_delivered(world: World) -> None:
    bodies = ("", "{", {}, [], {"results": 3, "errors": [None]}, {"ok": False, "error": ["x"]}, {"errors": {"a": 1}})
    statuses = (201, 204, 206, 300, 304, 400, 402, 404, 405, 409, 413, 418, 422, 423, 451, 477, 499, 500, 501, 505, 599)
    for status in statuses:
        await world.misbehave(*({"kind": "status", "status": status, "body": body} for body in bodies))
        for _ in bodies:
            for outcome in await world.ask(*batch(world, min(2, world.type.batch_max))):
                assert not isinstance(outcome, Delivered), status


@every_served_connector
async def test_a_cancelled_call_leaves_the_connector_usable(world: World) -> None:
    """The runtime wraps ``deliver`` in a deadline of its own and cancels it."""
    await world.misbehave({"kind": "stall"})
    call = asyncio.ensure_future(world.ask(example(world.type)))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert isinstance((await world.ask(example(world.type)))[0], Delivered)


# -- checking, and looking up -----------------------------------------------------------------------------------------


@every_connector
async def test_a_check_says_delivered_when_the_credentials_work_and_applies_nothing(world: World) -> None:
    if not world.type.check:
        pytest.skip("has no check")
    await world.ask(example(world.type))
    before = await world.effects()
    assert isinstance(await checked(world.connector), Delivered)
    assert await world.effects() == before
    await world.connector.close()
    assert isinstance(await checked(world.connector), Unavailable)


@every_served_connector
async def test_a_check_with_a_wrong_credential_needs_an_operator_and_an_outage_does_not(world: World) -> None:
    if not world.type.check:
        pytest.skip("has no check")
    table = {name: getattr(world.settings, name) for name in type(world.settings).model_fields}
    wrong = dict.fromkeys(credentials(world), SecretStr("wrong"))
    connector = world.type.open(world.type.settings(**{**table, **wrong}))
    outcome = await checked(connector)
    assert isinstance(outcome, Unavailable)
    assert outcome.needs_operator
    await connector.close()
    # a GET whose connection ends before any answer is sent again by the HTTP client: that harms nobody
    lost = [order for order in LOST if order.get("at") != "start"]
    for order in (*lost, {"kind": "status", "status": 503}, {"kind": "status", "status": 200, "body": {}}):
        await world.misbehave(order)
        outcome = await checked(world.connector)
        assert isinstance(outcome, (Unavailable, Unknown)), order
        assert not getattr(outcome, "needs_operator", False), order


@every_connector
async def test_a_look_up_finds_what_is_there_and_only_that(world: World) -> None:
    if not world.type.look_up:
        pytest.skip("cannot look up")
    connector: Any = world.connector
    assert not isinstance(await connector.look_up(example(world.type)), Delivered), "before anything was sent"
    (sent,) = await world.ask(example(world.type))
    found = await connector.look_up(example(world.type))
    assert isinstance(found, Delivered)
    assert isinstance(sent, Delivered)
    assert found.reference == sent.reference
    assert await connector.look_up(example(world.type, 1)) is None
    await world.connector.close()
    assert isinstance(await connector.look_up(example(world.type, 1)), Unavailable), "not known is not: not there"


@every_served_connector
async def test_a_look_up_that_is_not_answered_never_says_that_it_is_not_there(world: World) -> None:
    if not world.type.look_up:
        pytest.skip("cannot look up")
    connector: Any = world.connector
    await world.ask(example(world.type))
    strange = ("", "[]", "{}", '{"ok": 1}', '{"ok": false, "error": "internal_error"}', '{"ok": false, "error": "new"}')
    orders = [
        *LOST,
        *({"kind": "status", "status": status} for status in (204, 302, 401, 404, 429, 500, 503)),
        *({"kind": "status", "status": 200, "body": body} for body in strange),
    ]
    for order in orders:
        await world.misbehave(order)
        assert isinstance(await connector.look_up(example(world.type, 1)), (Unavailable, Rejected)), order
    assert await connector.look_up(example(world.type, 1)) is None


async def checked(connector: Any) -> Outcome:
    outcome: Outcome = await connector.check()
    return outcome


# -- secrets and personal data --------------------------------------------------------------------------------------


@every_served_connector
async def test_neither_the_credential_nor_what_was_sent_shows_anywhere(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = credentials(world)
    assert secrets, "a vendor's connection has a credential"
    table = {name: getattr(world.settings, name) for name in type(world.settings).model_fields}
    settings = world.type.settings(**{**table, **{name: SecretStr("canary-secret") for name in secrets}})
    connector = world.type.open(settings)
    canary = example(world.type)
    body = {name: f"{value}-canary-body" if isinstance(value, str) else value for name, value in canary.body.items()}
    told: list[Any] = [settings, connector]
    echo = json.dumps({"message": "canary-body canary-secret", "category": "canary-body", "error": "canary-body"})
    orders: list[dict[str, Any]] = [
        *LOST,
        *({"kind": "status", "status": s, "body": echo} for s in (200, 400, 409, 500)),
    ]
    await world.misbehave(*orders)
    # the last call is answered by the fake itself: it does not know the token
    for number in range(len(orders) + 1):
        told.extend(await connector.deliver([replace(canary, entity=f"canary-body-{number}", body=body)]))
    assert isinstance(told[-1], (Unavailable, Rejected))
    await connector.close()
    shown = "".join(map(repr, told)) + caplog.text + "".join(capsys.readouterr())
    assert "canary" not in shown


@every_served_connector
async def test_a_wrong_credential_needs_an_operator_and_applies_nothing(world: World) -> None:
    secrets = credentials(world)
    table = {name: getattr(world.settings, name) for name in type(world.settings).model_fields}
    connector = world.type.open(world.type.settings(**{**table, **dict.fromkeys(secrets, SecretStr("wrong"))}))
    (outcome,) = await connector.deliver([example(world.type)])
    assert isinstance(outcome, Unavailable)
    assert outcome.needs_operator
    assert await world.effects() == 0
    await connector.close()
