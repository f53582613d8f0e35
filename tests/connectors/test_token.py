"""Tokens that expire: one refresh for all who need it, ahead of the expiry, and none too many."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr, ValidationError

from connectors.connector import Connector, Delivered, Delivery, Outcome, Unavailable
from connectors.hubspot import CONNECTOR, FAKE_OAUTH
from connectors.hubspot.settings import HubSpotSettings
from connectors.token import AGAIN_AFTER_S, AHEAD, Fresh, Tokens
from tests.connectors.conftest import OpenFaked
from tests.connectors.samples import FakeControl, ask, delivery
from tests.connectors.simulated_time import now, simulate

LIFE_S = 1800.0


class Issuer:
    """Issues t1, t2 ... after a second each, or refuses."""

    def __init__(self) -> None:
        self.asked = 0
        self.refuses: Unavailable | None = None
        self.tokens = Tokens(self.fetch, clock=now)

    async def fetch(self) -> Fresh | Unavailable:
        self.asked += 1
        await asyncio.sleep(1)
        return self.refuses or Fresh(f"t{self.asked}", LIFE_S)


def test_all_who_meet_an_expired_token_wait_for_one_refresh() -> None:
    async def story() -> None:
        issuer = Issuer()
        for round_ in ("t1", "t2"):
            assert set(await asyncio.gather(*(issuer.tokens.current() for _ in range(100)))) == {round_}
            await asyncio.sleep(LIFE_S + 1)
        assert issuer.asked == 2

    simulate(story())


def test_a_token_near_its_end_is_renewed_while_calls_go_on_with_it() -> None:
    async def story() -> None:
        issuer = Issuer()
        await issuer.tokens.current()
        await asyncio.sleep(LIFE_S * (1 - AHEAD) + 1)
        began = now()
        assert {await issuer.tokens.current() for _ in range(50)} == {"t1"}
        assert now() == began, "nobody waited"
        await asyncio.sleep(2)
        assert await issuer.tokens.current() == "t2"
        assert issuer.asked == 2

    simulate(story())


def test_a_refresh_ahead_that_fails_is_not_asked_for_with_every_call_and_the_token_is_used_to_its_end() -> None:
    async def story() -> None:
        issuer = Issuer()
        await issuer.tokens.current()
        issuer.refuses = Unavailable("token_unavailable")
        await asyncio.sleep(LIFE_S * (1 - AHEAD))
        for _ in range(100):
            assert await issuer.tokens.current() == "t1"
            await asyncio.sleep(1)
        assert issuer.asked - 1 <= 100 / AGAIN_AFTER_S
        await asyncio.sleep(LIFE_S * AHEAD)
        assert await issuer.tokens.current() == Unavailable("token_unavailable")

    simulate(story())


def test_calls_that_were_refused_with_the_same_token_cause_one_refresh_also_one_after_the_other() -> None:
    async def story() -> None:
        issuer = Issuer()
        token = await issuer.tokens.current()
        assert isinstance(token, str)
        renewed = await asyncio.gather(*(issuer.tokens.renew(token) for _ in range(50)))
        assert set(renewed) == {"t2"}
        assert await issuer.tokens.renew(token) == "t2", "its 401 came late: somebody has renewed it meanwhile"
        assert issuer.asked == 2

    simulate(story())


def test_who_gives_up_waiting_does_not_take_the_refresh_from_the_others() -> None:
    async def story() -> None:
        issuer = Issuer()
        first, second = (asyncio.ensure_future(issuer.tokens.current()) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == "t1"
        assert issuer.asked == 1
        await asyncio.sleep(LIFE_S)
        waiting = asyncio.ensure_future(issuer.tokens.current())
        await asyncio.sleep(0.5)
        await issuer.tokens.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    simulate(story())


def test_a_token_is_not_shown() -> None:
    assert "t0ken" not in repr(Fresh("t0ken", 1.0))


# -- HubSpot --------------------------------------------------------------------------------------------------------


def contacts(count: int) -> list[Delivery]:
    return [delivery("contact.upsert", f"u{number}", {"firstname": "Ana"}) for number in range(count)]


async def opened(open_faked: OpenFaked, **oauth: str) -> tuple[Connector, FakeControl]:
    secrets = {name: SecretStr(value) if name != "client_id" else value for name, value in (FAKE_OAUTH | oauth).items()}
    return await open_faked(CONNECTOR, token=None, **secrets)


async def report(control: FakeControl) -> tuple[int, int, int]:
    found = await control.report()
    return found["refreshes"], found["by_status"].get("401", 0), found["effects"]


async def test_a_hundred_calls_that_meet_an_expired_token_cause_one_refresh(open_faked: OpenFaked) -> None:
    connector, control = await opened(open_faked)
    assert await ask(connector, *contacts(1)) == [Delivered("101")]
    assert await report(control) == (1, 0, 1)
    await control.misbehave({"kind": "tokens", "seconds": 1800})  # HubSpot no longer takes the one that we hold
    outcomes = await asyncio.gather(*(ask(connector, one) for one in contacts(100)))
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    refreshes, refused, effects = await report(control)
    assert (refreshes, effects) == (2, 100)
    assert 1 <= refused <= 100


async def test_a_call_that_is_refused_again_with_a_new_token_is_not_repeated_a_second_time(
    open_faked: OpenFaked,
) -> None:
    connector, control = await opened(open_faked)
    await ask(connector, *contacts(1))
    refused = {"kind": "status", "status": 401}
    await control.misbehave(refused, {"kind": "late", "seconds": 0}, refused)  # the call, the refresh, the call
    calls = (await control.report())["calls"]
    assert await ask(connector, *contacts(1)) == [Unavailable("unauthorized", needs_operator=True)]
    assert (await control.report())["calls"] == calls + 3


async def test_a_refresh_whose_answer_is_lost_leaves_nothing_unknown(open_faked: OpenFaked) -> None:
    connector, control = await opened(open_faked)
    await control.misbehave({"kind": "cut_after_effect"})
    assert await ask(connector, *contacts(1)) == [Unavailable("token_cut")]
    assert await ask(connector, *contacts(1)) == [Delivered("101")]


@pytest.mark.parametrize("wrong", ["client_id", "client_secret", "refresh_token"])
async def test_a_refresh_that_is_refused_needs_an_operator(open_faked: OpenFaked, wrong: str) -> None:
    connector, control = await opened(open_faked, **{wrong: "revoked"})
    refused: Outcome = Unavailable("refresh_refused", needs_operator=True)
    assert await ask(connector, *contacts(2)) == [refused, refused]
    assert await connector.check() == refused  # type: ignore[attr-defined]
    assert await report(control) == (0, 0, 0)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (429, {}, "rate_limited"),
        (500, {}, "token_unavailable"),
        (503, {}, "token_unavailable"),
        (200, {}, "token_not_understood"),
        (200, "<html>", "token_not_understood"),
        (200, {"access_token": "a b", "expires_in": 5}, "token_not_understood"),
        (200, {"access_token": "abc", "expires_in": "soon"}, "token_not_understood"),
        (200, {"access_token": "abc", "expires_in": -1}, "token_not_understood"),
    ],
)
async def test_a_refresh_that_does_not_come_makes_the_vendor_unavailable_and_is_tried_again(
    open_faked: OpenFaked, status: int, body: object, outcome: str
) -> None:
    connector, control = await opened(open_faked)
    await control.misbehave({"kind": "status", "status": status, "body": body})
    (found,) = await ask(connector, *contacts(1))
    assert isinstance(found, Unavailable)
    assert (found.reason, found.needs_operator) == (outcome, False)
    assert await ask(connector, *contacts(1)) == [Delivered("101")]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"token": "a", "refresh_token": "b"},
        {"client_id": "a", "client_secret": "b"},
        {"token": "a", "client_id": "a", "client_secret": "b", "refresh_token": "c"},
    ],
)
def test_a_connection_has_one_kind_of_credential_and_all_of_it(table: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either token, or client_id, client_secret and refresh_token"):
        HubSpotSettings(**table)  # type: ignore[arg-type]
