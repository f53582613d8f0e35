"""When credentials and API versions end: read from real certificates and tokens, shown as metrics."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr

from connectors.hubspot import CONNECTOR as HUBSPOT
from connectors.slack import CONNECTOR as SLACK
from ops.secrets import expiry
from ops.secrets.lookup import Secrets
from ops.secrets.rotation import Rotation, Use
from ops.secrets.vault import Secret, VaultUnavailableError
from ops.watch.expiry_metrics import Expiries

SOON = datetime(2030, 1, 1, tzinfo=UTC)
LATER = datetime(2040, 1, 1, tzinfo=UTC)


def certificate(ends: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "worker")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(ends - timedelta(days=900))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return made, key


def pem(*ends: datetime) -> bytes:
    return b"".join(certificate(one)[0].public_bytes(Encoding.PEM) for one in ends)


def token(claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


def test_a_chain_ends_with_its_first_certificate_and_trust_with_its_last_authority() -> None:
    assert expiry.of_certificate(pem(LATER, SOON)) == SOON.timestamp()
    assert expiry.of_trusted(pem(LATER, SOON)) == LATER.timestamp()
    assert expiry.of_certificate(b"no certificate") is None


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": True}, {"exp": float("inf")}, [], 7])
def test_a_token_that_does_not_say_when_it_ends_says_nothing(claims: Any) -> None:
    assert expiry.of_token(token(claims)) is None


@given(st.one_of(st.text(max_size=60), st.builds("{}.{}.{}".format, st.text(max_size=9), st.text(), st.text())))
def test_any_text_is_a_token_without_an_end_at_most(text: str) -> None:
    expiry.of_token(text)
    expiry.of_settings(Settings(token=SecretStr(text)))


class Settings(BaseModel):
    token: SecretStr
    name: str = "x"


def test_the_settings_of_a_connection_end_with_a_token_or_the_certificate_that_its_url_names(tmp_path: Path) -> None:
    assert expiry.of_settings(Settings(token=SecretStr(token({"exp": SOON.timestamp()})))) == SOON.timestamp()
    (tmp_path / "client.pem").write_bytes(pem(SOON))
    url = f"postgresql://app@db/warehouse?sslmode=verify-full&sslcert={tmp_path}/client.pem"
    assert expiry.of_settings(Settings(token=SecretStr(url))) == SOON.timestamp()
    assert expiry.of_settings(Settings(token=SecretStr(url.replace("client", "gone")))) is None
    assert expiry.of_settings(Settings(token=SecretStr("xoxb-1-2-3"))) is None


def test_kafkas_login_ends_with_its_own_certificate_its_keystore_or_its_last_authority(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_bytes(pem(SOON))
    (tmp_path / "ca.pem").write_bytes(pem(LATER, SOON))
    made, key = certificate(SOON)
    store = pkcs12.serialize_key_and_certificates(b"w", key, made, None, BestAvailableEncryption(b"secret"))
    (tmp_path / "own.p12").write_bytes(store)
    ca = {"ssl.ca.location": f"{tmp_path}/ca.pem"}
    assert expiry.of_kafka(ca) == LATER.timestamp()
    assert expiry.of_kafka(ca | {"ssl.certificate.location": f"{tmp_path}/own.pem"}) == SOON.timestamp()
    kept = ca | {"ssl.keystore.location": f"{tmp_path}/own.p12"}
    assert expiry.of_kafka(kept | {"ssl.keystore.password": "secret"}) == SOON.timestamp()
    assert expiry.of_kafka(kept | {"ssl.keystore.password": "wrong"}) == LATER.timestamp()
    assert expiry.of_kafka({"ssl.ca.location": "probe", "sasl.password": "x"}) is None


def test_a_dated_version_of_hubspots_api_ends_after_18_months_and_unversioned_ones_do_not() -> None:
    assert HUBSPOT.api is not None
    ends = {
        version: HUBSPOT.api({} if version is None else {"api_version": version}).sunset
        for version in (None, "2026-03", "2026-09", "2025-09", "v3")
    }
    assert ends == {
        None: date(2027, 9, 1), "2026-03": date(2027, 9, 1), "2026-09": date(2028, 3, 1), "2025-09": date(2027, 3, 1),
        "v3": None,
    }  # fmt: skip
    assert HUBSPOT.api({}).version == "2026-03"
    assert SLACK.api is None


class Vault:
    """Of one lease, which is renewed as long as it is there."""

    is_away = False

    def read(self, path: str) -> Secret:
        return Secret({"username": "u", "password": "p"}, lease="l", seconds=3600.0, renewable=True)

    def renew(self, secret: Secret) -> Secret:
        if self.is_away:
            raise VaultUnavailableError("the vault does not answer")
        return secret


def test_a_lease_has_an_end_only_while_its_renewal_fails(tmp_path: Path) -> None:
    vault, now = Vault(), [1000.0]
    given: Any = vault
    secrets = Secrets(tmp_path / "backbone.toml", {}, lambda: given, clock=lambda: now[0])
    reference = "vault:database/creds/app#password"
    assert secrets.look_up(reference) == "p"
    assert secrets.ending([reference]) is None
    vault.is_away = True
    now[0] += 2500
    assert secrets.refresh()
    ends = secrets.ending([reference, "env:OTHER"])
    assert ends is not None
    assert ends - datetime.now(UTC).timestamp() == pytest.approx(1100, abs=60)
    assert secrets.ending(["vault:other/creds/app#password"]) is None
    vault.is_away = False
    now[0] += 20
    assert not secrets.refresh()
    assert secrets.ending([reference]) is None


def test_what_is_in_use_is_shown_by_connection_and_follows_what_is_taken() -> None:
    credential = {"exp": SOON.timestamp()}
    rotation = Rotation(Secrets(Path("backbone.toml"), {}, lambda: pytest.fail("no vault is asked")), lambda *_: None)

    def ends(now: Any) -> float | None:
        return now["exp"]

    rotation.watch(
        Use("hubspot", lambda: dict(credential), lambda *_: "", dict(credential), label="hubspot", expiry=ends)
    )
    rotation.watch(Use("silent", dict, lambda *_: "", {}, label="slack"))
    registry = CollectorRegistry()
    registry.register(Expiries(rotation.expiries, lambda: {"hubspot": LATER.timestamp()}))

    def shown(name: str) -> dict[str, float]:
        found = [one for family in registry.collect() for one in family.samples if one.name == name]
        return {one.labels["connection"]: one.value for one in found}

    assert shown("backbone_credential_expiry_timestamp_seconds") == {"hubspot": SOON.timestamp()}
    assert shown("backbone_vendor_api_sunset_timestamp_seconds") == {"hubspot": LATER.timestamp()}
    credential["exp"] = LATER.timestamp()
    asyncio.run(rotation.look())
    assert shown("backbone_credential_expiry_timestamp_seconds") == {"hubspot": LATER.timestamp()}
