"""Credentials that change while a worker runs: what is taken, what is said, and what stays in use."""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from connectors.connection import Connection
from connectors.connector import Delivered, Outcome
from consumers.control import AttachedSubscription
from consumers.heartbeat import Heartbeat, decode, encode
from ops.app import App
from ops.holding import credential_problems
from ops.ledger.connector import TYPE
from ops.ledger.database import Address, prepare
from ops.ledger.subscription import BuiltIn
from ops.secrets import uses
from ops.secrets.lookup import Secrets
from ops.secrets.rotation import Rotation, Use
from ops.settings import Context, load_project
from ops.topics import LEDGER
from ops.watch.heartbeats import Beat
from schemas.errors import InputError
from tests.connectors.postgresql import postgresql, programs
from tests.ops.ledgers import address_of
from tests.ops.projects import make_project
from tests.ops.test_ledger_connector import delivery
from tests.ops.vaults import FakeVault
from tests.schemas.test_registry_http import Server
from tests.waiting import eventually_async


def no_vault() -> Any:
    raise InputError("there is none")


class Rig:
    """One use whose credential is the file ``token``."""

    def __init__(self, folder: Path) -> None:
        self.taken: list[tuple[str, str]] = []
        self.said: list[tuple[str, str]] = []
        self.restart = ""
        self.secrets = Secrets(folder / "backbone.toml", {}, no_vault)
        self.rotation = Rotation(self.secrets, lambda name, text: self.said.append((name, text)), every_s=0.001)
        (folder / "token").write_text("first\n")
        self.rotation.watch(Use("the thing", self._read, self._take, "first"))

    def _read(self) -> str:
        return str(self.secrets.resolved("file:token", "here"))

    def _take(self, before: str, after: str) -> str:
        self.taken.append((before, after))
        return self.restart


async def test_a_file_that_was_written_anew_is_taken_once_and_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.rotation.look()
    assert rig.taken == []
    (tmp_path / "token").write_text("second\n")
    for _ in range(3):
        await rig.rotation.look()
    assert rig.taken == [("first", "second")]
    assert rig.said == [("the thing", "")]
    assert list(rig.rotation.said) == []


async def test_a_swapped_symbolic_link_is_a_new_secret_as_kubernetes_makes_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (tmp_path / "token").unlink()
    for version, text in (("v1", "first"), ("v2", "second")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(text)
        os.utime(tmp_path / version / "token", (1, 1))  # also where the times do not tell
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "token").symlink_to("..data/token")
    await rig.rotation.look()
    assert rig.taken == []
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await rig.rotation.look()
    assert rig.taken == [("first", "second")]


async def test_what_cannot_be_read_is_said_once_and_stays_in_use_until_it_can(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (tmp_path / "token").unlink()
    for _ in range(3):
        await rig.rotation.look()
    ((name, said),) = rig.said
    assert name == "the thing"
    assert "cannot be read (No such file or directory)" in said
    assert said.endswith("What it was opened with stays in use.")
    assert list(rig.rotation.said) == [f"The thing: {said}"]
    assert rig.taken == []
    (tmp_path / "token").write_text("third")
    await rig.rotation.look()
    assert rig.taken == [("first", "third")]
    assert list(rig.rotation.said) == []


async def test_a_restart_that_is_needed_is_said_until_what_changed_is_taken_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.restart = "Restart it."
    (tmp_path / "token").write_text("second")
    for _ in range(3):
        await rig.rotation.look()
    assert rig.said == [("the thing", "Restart it.")]
    (tmp_path / "token").unlink()
    await rig.rotation.look()
    assert len(rig.rotation.said) == 2
    rig.restart = ""
    (tmp_path / "token").write_text("first")
    await rig.rotation.look()
    assert list(rig.rotation.said) == []


async def test_a_look_that_fails_for_another_reason_is_logged_and_it_looks_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path)

    def broken(*_: Any) -> str:
        raise ZeroDivisionError

    rig.rotation.watch(Use("a broken one", lambda: 1, broken, 2))
    task = asyncio.create_task(rig.rotation.run())
    await eventually_async(lambda: "looking at credentials failed" in caplog.text)
    (tmp_path / "token").write_text("second")
    await eventually_async(lambda: rig.taken == [("first", "second")])
    task.cancel()


async def test_a_lease_that_could_not_be_renewed_is_said(tmp_path: Path) -> None:
    fake = FakeVault()
    from ops.secrets.vault import Login, Vault

    fake.put("secret/data/x", {"token": "a"})
    token, moment = fake.token("secret/data/x"), [0.0]
    vault = Vault(fake.address, Login(token=lambda: token), wait=lambda _: None)
    secrets = Secrets(tmp_path / "backbone.toml", {}, lambda: vault, clock=lambda: moment[0])
    secrets.look_up("vault:secret/data/x#token")
    said: list[tuple[str, str]] = []
    rotation = Rotation(secrets, lambda name, text: said.append((name, text)))
    fake.sealed, moment[0] = True, 100.0
    await rotation.look()
    (sentence,) = rotation.said
    assert sentence.startswith("The vault: the vault at http://127.0.0.1:")
    assert "sealed" in sentence
    assert token not in sentence
    fake.close()


# ---- Kafka


def context(folder: Path, kafka: str) -> Context:
    (folder / "backbone.toml").write_text(
        '[project]\nname = "a"\nschemas = "s"\nsubscriptions = "s"\n[contexts.prod.kafka]\n'
        f'"bootstrap.servers" = "k:9093"\n"security.protocol" = "SASL_SSL"\n{kafka}'
    )
    return load_project(folder).context("prod")


SCRAM = '"sasl.username" = "me"\n"sasl.password" = "file:password"\n"ssl.ca.location" = "ca.pem"\n'


async def test_kafkas_password_is_given_to_its_clients_and_a_certificate_asks_for_a_restart(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("one")
    (tmp_path / "ca.pem").write_text("CA")
    renewed: list[tuple[str, str]] = []
    found = context(tmp_path, SCRAM)
    rotation = Rotation(found.secrets, lambda *_: None)
    rotation.watch(uses.of_kafka(found, lambda user, password: renewed.append((user, password))))
    await rotation.look()
    assert renewed == []
    (tmp_path / "password").write_text("two")
    await rotation.look()
    assert renewed == [("me", "two")]
    assert list(rotation.said) == []
    (tmp_path / "ca.pem").write_text("another CA")
    await rotation.look()
    assert list(rotation.said) == [
        "Kafka: ssl.ca.location changed, which its client reads only when it starts. "
        "Restart this process: SIGTERM lets what is in flight end first."
    ]
    assert len(renewed) == 1
    (tmp_path / "ca.pem").write_text("CA")
    await rotation.look()
    assert list(rotation.said) == []


async def test_a_client_secret_of_oauthbearer_asks_for_a_restart_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    found = context(tmp_path, '"sasl.oauthbearer.client.secret" = "file:secret"\n')
    rotation = Rotation(found.secrets, lambda *_: None)
    rotation.watch(uses.of_kafka(found, lambda *_: None))
    (tmp_path / "secret").write_text("hunter3")
    await rotation.look()
    (sentence,) = rotation.said
    assert "sasl.oauthbearer.client.secret changed" in sentence
    assert "hunter" not in sentence


# ---- what people see


def test_what_could_not_be_taken_is_a_problem_over_all_workers() -> None:
    def beat(process: str, *sentences: str) -> Beat:
        return Beat(Heartbeat(process=process, at=1.0, credentials=sentences), 1.0)

    problems = credential_problems([beat("h/1", "Kafka: x."), beat("h/2", "Kafka: x.", "The vault: y."), beat("h/3")])
    assert [(one.kind, one.subject, one.cause) for one in problems] == [
        ("credentials", "h/1 and 1 more", "Kafka: x."),
        ("credentials", "h/2", "The vault: y."),
    ]


def test_a_heartbeat_carries_it_and_an_older_one_does_not() -> None:
    found = decode(encode(Heartbeat(process="h/1", at=1.0, credentials=("Kafka: x.",))))
    assert found is not None
    assert found.credentials == ("Kafka: x.",)
    assert decode(b'{"process": "h/1", "at": 1, "credentials": [5, null, "a"]}') == Heartbeat(
        process="h/1", at=1.0, credentials=("a",)
    )
    assert decode(b'{"process": "h/1", "at": 1}') == Heartbeat(process="h/1", at=1.0)


# ---- the registry and the ledger


async def test_the_registrys_new_password_is_used_from_the_next_call_on_and_its_old_one_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Server()
    project = make_project(tmp_path, "r", registry=registry.url)
    with (project.folder / "backbone.toml").open("a") as file:
        file.write('registry.username = "me"\nregistry.password = "file:password"\n')
    (project.folder / "password").write_text("monday")
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    app = App()
    app.choose_context("prod")
    try:
        use = uses.of_registry(app)
        assert use is not None
        said: list[tuple[str, str]] = []
        rotation = Rotation(app.context.secrets, lambda name, text: said.append((name, text)))
        rotation.watch(use)

        def shown() -> list[str]:
            """Which passwords the registry was shown, in order."""
            found = [headers["authorization"].removeprefix("Basic ") for _, _, headers, _ in registry.asked]
            return [base64.b64decode(one).decode().removeprefix("me:") for one in found]

        app.registry.schema(1)  # each is another one: what is known is not asked for again
        (project.folder / "password").write_text("tuesday\n")
        app.registry.schema(2)  # nobody has looked yet
        await rotation.look()
        app.registry.schema(3)
        assert shown() == ["monday", "monday", "tuesday"]
        assert said == [("the registry", "")]
        (project.folder / "password").unlink()
        await rotation.look()
        app.registry.schema(4)
        assert shown()[-1] == "tuesday"  # what it was opened with stays in use
        assert "cannot be read" in said[-1][1]
        assert not any("day" in sentence for _, sentence in said)
    finally:
        app.close()
        registry.stop()


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL server here")
async def test_the_ledgers_next_user_writes_on_where_the_last_one_may_not_any_more() -> None:
    """As a database engine of the vault leases them: another user each time, and the one before is dropped. It used to
    be taken for another database, so that each new password asked for a restart."""
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as server:
        owner = server.url

        def admin(*statements: str) -> None:
            with psycopg.connect(owner, autocommit=True) as connection:
                for statement in statements:
                    connection.execute(statement)

        def leased(user: str) -> Address:
            return address_of(Path("/"), owner.replace("postgres:canary-password", f"{user}:{user}-word"))

        prepare(address_of(Path("/"), owner), cluster="c", begin_anew=lambda: None)
        for user in ("first", "second"):
            admin(f"CREATE ROLE {user} LOGIN PASSWORD '{user}-word' IN ROLE pg_write_all_data, pg_read_all_data")
        current = [leased("first")]

        def ledger(address: Address) -> BuiltIn:
            return BuiltIn(LEDGER, AttachedSubscription(name=LEDGER), address, *cast(Any, (None, None)))

        began = ledger(current[0])
        connection = Connection(LEDGER, TYPE, began.connector(), observer=lambda *_: None)
        rotation = Rotation(Secrets(Path(folder) / "backbone.toml", {}, no_vault), lambda *_: None)
        rotation.watch(uses.of_ledger(connection, began, lambda: current[0], ledger))

        async def written(number: int) -> Outcome:
            (outcome,) = await connection._connector.deliver([delivery(number)])
            return cast("Outcome", outcome)

        assert await written(1) == Delivered()
        current[0] = leased("second")
        await rotation.look()
        admin(
            "ALTER ROLE first NOLOGIN",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'first'",
        )
        assert await written(2) == Delivered()
        assert list(rotation.said) == []
        current[0] = address_of(Path("/"), f"{owner.removesuffix('/postgres')}/template1")
        await rotation.look()
        (sentence,) = rotation.said
        assert "it is another database now" in sentence  # its receipts would be in two places: a person decides
        assert "word" not in sentence
        assert "canary" not in sentence
        assert await written(3) == Delivered()
        await connection.close()
        with psycopg.connect(owner) as looking:
            (count,) = looking.execute("SELECT count(*) FROM receipts").fetchone() or (0,)
        assert count == 3
