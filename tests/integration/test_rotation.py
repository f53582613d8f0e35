"""A vendor's token in a file and in a vault changes under a running worker, which is not restarted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.fake_server import FakeServer
from connectors.hubspot.fake import HubSpotFake
from tests.conftest import Stack
from tests.integration.world import Vendor, World
from tests.ops.vaults import FakeVault
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def account() -> HubSpotFake:
    """A real account's stand-in: it refuses every token but its own."""
    return HubSpotFake("token-of-monday")


@pytest.fixture
def world(tmp_path: Path, stack: Stack, prefix: str, account: HubSpotFake) -> Iterator[World]:
    world = World(prefix.replace("-", ""), tmp_path, stack, Vendor(FakeServer(account)))
    world.write()
    yield world
    world.close()


def connect(world: World, token: str, more: str = "") -> None:
    """The context has a real connection, whose token is this reference."""
    file = world.folder / "backbone.toml"
    (world.folder / "key").write_text("0123456789abcdef0123456789abcdef")
    text, _, kafka = file.read_text().partition('[contexts.test]\nconnections = "fake"\n')
    kafka = kafka.replace(f'[contexts.test.fakes]\nhubspot = "{world.vendor.url}"\n', "")
    file.write_text(
        f'{text}[contexts.test]\ninstallation_key = "file:key"\n{kafka}'
        f'[contexts.test.connections.hubspot]\ntoken = "{token}"\nbase_url = "{world.vendor.url}"\n{more}'
    )


def problems(world: World) -> dict[str, str]:
    """What status says, by kind."""
    found: list[dict[str, Any]] = json.loads(world.backbone("status", "--output", "json"))["data"]["problems"]
    return {one["kind"]: one["cause"] for one in found if one["kind"] in ("connection_stopped", "credentials")}


def test_a_token_in_a_file_is_taken_by_the_next_call_and_a_wrong_one_waits_for_the_right_one(
    world: World, account: HubSpotFake
) -> None:
    secrets = world.folder / "secrets"
    for version, text in (("monday", "token-of-monday"), ("wrong", "no-token"), ("tuesday", "token-of-tuesday")):
        (secrets / version).mkdir(parents=True)
        (secrets / version / "token").write_text(f"{text}\n")

    def swap(version: str) -> None:
        """As Kubernetes replaces a mounted secret."""
        (secrets / "..data_tmp").symlink_to(version)
        (secrets / "..data_tmp").rename(secrets / "..data")

    swap("monday")
    (secrets / "token").symlink_to("..data/token")
    connect(world, "file:secrets/token")
    world.prepare()
    worker = world.start_worker()
    world.publish(20)
    world.wait_until_applied()

    account._token = "token-of-tuesday"
    swap("wrong")
    eventually(lambda: worker.said("credential_taken"), 30, about="the wrong token to be taken")
    world.publish(20)
    eventually(lambda: "connection_stopped" in problems(world), 60, poll_s=0.5, about="the connection to stop")
    swap("tuesday")
    world.wait_until_applied(50)  # sooner than the next look at credentials that failed, a minute later
    assert world.contacts() == world.final_numbers()

    (secrets / "token").unlink()
    eventually(lambda: "cannot be read" in problems(world).get("credentials", ""), 30, poll_s=0.5, about="status")
    world.publish(10)
    world.wait_until_applied()
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert not [text for text in ("token-of-monday", "no-token", "token-of-tuesday") if text in log]


def test_a_token_of_the_vault_is_taken_when_its_lease_ends_for_good(world: World, account: HubSpotFake) -> None:
    vault = FakeVault()
    # each reading makes another token, which may live 6 s and no longer
    vault.dynamic("hubspot/creds/crm", lambda number: {"token": f"leased-{number}"}, 4, 6)
    role, secret = vault.approle("hubspot/creds/crm")
    (world.folder / "secret-id").write_text(secret)
    connect(
        world,
        "vault:hubspot/creds/crm#token",
        f'[contexts.test.vault]\naddress = "{vault.address}"\n'
        f'approle = {{role_id = "{role}", secret_id = "file:secret-id"}}\n',
    )
    world.prepare()
    worker = world.start_worker()
    eventually(lambda: worker.said("partitions_assigned"), 60, about="the worker")
    eventually(lambda: worker.said("credential_taken"), 60, about="the next lease")
    world.publish(20)

    def applied() -> bool:
        account._token = f"leased-{vault._made['hubspot/creds/crm']}"  # the vendor knows the newest
        report = world.vendor.report()
        return bool(report["applied"] - report["duplicates"] >= 20)

    eventually(applied, 60, poll_s=0.2, about="every event applied")
    assert worker.stop() == 0
    assert "leased-" not in worker.log.read_text()
    assert [call.path for call in vault.calls].count("sys/leases/renew") >= 1
    vault.close()
