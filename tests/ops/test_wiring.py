"""What a worker is given: connections as backbone.toml describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.connection import Connection
from connectors.connector import Unavailable
from connectors.pacing import Quota, Rate
from consumers import facts
from consumers.control import AttachedSubscription, Definition
from ops.app import App
from ops.wiring import Wiring
from schemas.codec import Decoder
from schemas.errors import InputError
from tests.connectors.samples import delivery

Connect = Callable[[str], tuple[Connection, list[facts.Fact]]]


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Opens the connection ``crm`` of a project with these settings of it; nothing answers at its address."""
    apps: list[App] = []
    (tmp_path / "schemas").mkdir()
    (tmp_path / "subscriptions").mkdir()
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))

    def opened(settings: str) -> tuple[Connection, list[facts.Fact]]:
        (tmp_path / "backbone.toml").write_text(
            '[project]\nname = "acme"\nschemas = "schemas"\nsubscriptions = "subscriptions"\n'
            f'[connections.crm]\nconnector = "hubspot"\n{settings}\n'
            '[contexts.test]\nconnections = "fake"\nregistry.url = "http://127.0.0.1:1"\n'
            '[contexts.test.kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n'
            '[contexts.test.fakes]\nhubspot = "http://127.0.0.1:1"\n'
        )
        app, seen = App(), cast("list[facts.Fact]", [])
        apps.append(app)
        app.choose_context("test")
        wiring = Wiring(app, cast(Decoder, None), cast(Any, None), seen.append)
        return wiring.connection("crm"), seen

    yield opened
    for app in apps:
        app.close()


async def test_a_call_is_given_up_only_after_the_connectors_own_bound(
    connection: Connect,
) -> None:
    """A connector that was given 30 seconds was cut off after 25: what HubSpot answered in time was taken as
    Unknown, and sent again."""
    for timeout_s in (0.5, 30.0):
        made, _ = connection(f"timeout_s = {timeout_s}")
        assert made._deadlines._seconds == timeout_s + 5
        assert made._gate._breaker._circuit.slow_s == timeout_s / 2
        await made.close()


async def test_what_protects_the_vendor_is_what_the_project_says_and_facts_tell_what_it_does(
    connection: Connect,
) -> None:
    made, seen = connection('rate = "80/10s"\nconcurrency = 5\nbackground = 0.5\ncircuit_open = "2s"')
    assert made._pacing._quota == Quota(rate=Rate(80, 10.0), concurrency=5, background=0.5)
    seat = made.join("s", wake=lambda: None)
    assert made.calls_max == 5
    for _ in range(5):
        assert seat.try_enter()
        (outcome,) = await seat.call([delivery("contact.upsert", "u1", {"firstname": "Ana"})])
        seat.leave()
        assert outcome == Unavailable("refused")
    made.hold("the contract ended")
    made.release()
    opened = seen[0]
    assert isinstance(opened, facts.ConnectionOpened)
    assert (opened.connection, opened.reason) == ("crm", "refused")
    assert 1.8 <= opened.seconds <= 2.2
    assert seen[1] == facts.ConnectionHeld("crm", "the contract ended")
    assert made.state == "open"
    await made.close()


def test_a_worker_of_a_registrys_contracts_asks_to_be_started_again_for_an_event_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    (tmp_path / "backbone.toml").write_text(
        '[project]\nname = "acme"\nschemas = "registry"\nsubscriptions = "subscriptions"\n'
        '[contexts.test]\nconnections = "fake"\nregistry.url = "memory://no-contracts"\n'
        '[contexts.test.kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n'
    )
    app = App()
    app.choose_context("test")
    wiring = Wiring(app, cast(Decoder, None), cast(Any, None), lambda _: None)
    definition = Definition(
        text="", version="3f9a2c", author="ana", at="", connection="slack", topics={},
        events=("shop.OrderPlaced", "backbone.ChangeApplied"),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"before shop\.OrderPlaced was in the registry: start it again"):
        wiring.subscription(AttachedSubscription(name="orders", definition=definition))
    app.close()
