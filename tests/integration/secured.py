"""A broker that lets nobody in without TLS, a login and a permission: for the tests of security.

Listeners: ``secured`` (SASL_SSL: SCRAM-SHA-512 and OAUTHBEARER), ``mutual`` (SSL with client certificates) and
``elsewhere`` (SASL_SSL with a certificate for another host). Certificates are made with the program openssl. Tokens of
OAUTHBEARER are RS256, signed here and checked by the broker against a JWKS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from ops.local.aot import jvm_options
from ops.local.artifacts import artifacts
from ops.local.java import find_java
from ops.local.kafka import PROPERTIES, SETTINGS, Kafka
from ops.local.ports import choose
from ops.local.process import ProcessId, spawn, stop
from tests.conftest import ROOT
from tests.waiting import eventually

ADMIN_PASSWORD = "admin-7f2c1e"
AUDIENCE = "kafka"
REAUTHENTICATE_S = 3
"""After so long the broker wants a connection's login anew."""
ISSUER = "https://issuer.test"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
"""Keys that are made at once."""


class Certificates:
    """A CA, and keys with certificates that it has signed, as PEM files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._openssl("req", "-x509", *EC, "-nodes", "-days", "2", "-subj", "/CN=test-ca",
                      "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        self._openssl("req", "-x509", *EC, "-nodes", "-days", "2", "-subj", "/CN=other-ca",
                      "-keyout", "other-ca.key", "-out", "other-ca.pem")  # fmt: skip

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def other_ca(self) -> Path:
        """One that has signed nothing."""
        return self.folder / "other-ca.pem"

    def issue(self, name: str, *hosts: str, ca: str = "ca") -> tuple[Path, Path]:
        """Key and certificate of CN=name; ``hosts`` are those it stands for."""
        self._openssl("req", *EC, "-nodes", "-subj", f"/CN={name}",
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        extensions = self.folder / f"{name}.ext"
        names = [f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts]
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
                      "-CAcreateserial", "-days", "2", "-extfile", extensions.name, "-out", f"{name}.pem")  # fmt: skip
        return self.folder / f"{name}.key", self.folder / f"{name}.pem"

    def keystore(self, name: str, *hosts: str) -> Path:
        """Both in one file, as a broker wants it."""
        key, certificate = self.issue(name, *hosts)
        path = self.folder / f"{name}.keystore.pem"
        path.write_text(key.read_text() + certificate.read_text())
        return path

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class Issuer:
    """Issues tokens by the client-credentials grant, as an identity provider does; what it signs is checked by its
    JWKS. ``clients`` are the secrets by client id; the token's subject is the client id."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._key = folder / "issuer.key"
        subprocess.run(["openssl", "genrsa", "-out", self._key, "2048"], capture_output=True, check=True)
        asked = ["openssl", "rsa", "-in", self._key, "-noout", "-modulus"]
        modulus = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().partition("=")[2]
        key = {"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256", "n": _b64(bytes.fromhex(modulus)), "e": "AQAB"}
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key]}))
        self.clients: dict[str, str] = {}
        self.issued = 0
        issuer = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                given = self.headers.get("authorization", "").removeprefix("Basic ")
                client, _, secret = base64.b64decode(given).decode().partition(":")
                client, secret = urllib.parse.unquote(client), urllib.parse.unquote(secret)
                known = issuer.clients.get(client) == secret and form.get("grant_type") == ["client_credentials"]
                body: dict[str, Any] = {"error": "invalid_client"}
                if known:
                    body = {"access_token": issuer.token(client), "token_type": "Bearer", "expires_in": 300}
                text = json.dumps(body).encode()
                self.send_response(200 if known else 401)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def token(self, subject: str) -> str:
        self.issued += 1
        now = int(time.time())
        claims = {"sub": subject, "aud": AUDIENCE, "iss": ISSUER, "iat": now, "exp": now + 300}
        head = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        return f"{signed}.{_b64(subprocess.run(sign, input=signed.encode(), capture_output=True, check=True).stdout)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class SecuredBroker:
    """Blocks some 3 s to start. ``admin`` is its superuser, by SCRAM."""

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder / "certificates")
        self.issuer = Issuer(folder / "issuer")
        java = find_java()
        programs = artifacts((ROOT / ".backbone" / "artifacts").absolute(), java, lambda _: None)
        self._ports = choose(("secured", "mutual", "elsewhere", "controller"), {})
        self._kafka = Kafka(java, programs, folder / "kafka", self._ports["secured"], self._ports["controller"])
        self._kafka.folder.mkdir()
        self._write_settings()
        cluster = _b64(hashlib.md5(str(folder).encode()).digest())
        command = self._kafka.command()
        done = subprocess.run(
            [*command[:-2], "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", SETTINGS,
             "--add-scram", f"SCRAM-SHA-512=[name=admin,password={ADMIN_PASSWORD}]"],
            cwd=self._kafka.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.jwks.as_uri()}"
        allowed_file = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files={self.issuer.jwks}"
        self._process: ProcessId = spawn(
            self._kafka.command(*jvm_options(self._kafka.cache), allowed, allowed_file),
            log=folder / "kafka.log",
            folder=self._kafka.folder,
        )
        self.log = folder / "kafka.log"
        try:
            eventually(self._answers, 60, about="the secured broker")
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        return f"localhost:{self._ports['secured']}"

    @property
    def mutual(self) -> str:
        return f"localhost:{self._ports['mutual']}"

    @property
    def elsewhere(self) -> str:
        """Its certificate is another host's."""
        return f"localhost:{self._ports['elsewhere']}"

    def scram(self, user: str, password: str) -> dict[str, str]:
        """librdkafka's settings to be let in by SCRAM."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self.certificates.ca),
        }

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({**self.scram("admin", ADMIN_PASSWORD), "log_level": 0})

    def user(self, name: str, password: str) -> None:
        """Let a user in by SCRAM with this password from now on."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(name, info, password.encode()))

    def forget(self, name: str) -> None:
        self._alter(UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512))

    def _alter(self, change: Any) -> None:
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(20)

    def allow(self, user: str, permissions: Iterable[tuple[str, str, str, str]]) -> None:
        """``permissions``: (resource, name, pattern, operation), in Kafka's words."""
        for future in self.admin.create_acls([_binding(user, *one) for one in permissions]).values():
            future.result(20)

    def deny_all(self, user: str) -> None:
        """Take back whatever the user was allowed."""
        wanted = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{user}", None, AclOperation.ANY,
            AclPermissionType.ANY,
        )  # fmt: skip
        for future in self.admin.delete_acls([wanted]).values():
            future.result(20)

    def close(self) -> None:
        stop(self._process, grace_s=20)
        self.issuer.close()

    def _answers(self) -> bool:
        try:
            return bool(self.admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _write_settings(self) -> None:
        ports, made = self._ports, self.certificates
        broker = made.keystore("broker", "localhost", "127.0.0.1")
        elsewhere = made.keystore("elsewhere", "kafka.elsewhere.example")
        names = ("secured", "mutual", "elsewhere")
        addresses = {name: f"{name.upper()}://localhost:{ports[name]}" for name in names}
        settings: dict[str, Any] = dict(line.split("=", 1) for line in PROPERTIES.splitlines() if line)
        settings |= {
            "log.dirs": "data",
            "listeners": ",".join([*addresses.values(), f"CONTROLLER://localhost:{ports['controller']}"]),
            "advertised.listeners": ",".join(addresses.values()),
            "listener.security.protocol.map": "SECURED:SASL_SSL,MUTUAL:SSL,ELSEWHERE:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "MUTUAL",
            "controller.quorum.voters": f"1@localhost:{ports['controller']}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            # the controller's listener is the only one that lets somebody in without a name
            "super.users": "User:admin;User:broker;User:ANONYMOUS",
            "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": broker,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": made.ca,
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.elsewhere.ssl.keystore.type": "PEM",
            "listener.name.elsewhere.ssl.keystore.location": elsewhere,
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.elsewhere.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.oauthbearer.jwks.endpoint.url": self.issuer.jwks.as_uri(),
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "sasl.oauthbearer.expected.issuer": ISSUER,
            "connections.max.reauth.ms": REAUTHENTICATE_S * 1000,
        }
        security = "org.apache.kafka.common.security"
        for name in ("secured", "elsewhere"):
            settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = (
                f"{security}.scram.ScramLoginModule required;"
            )
        bearer = "listener.name.secured.oauthbearer.sasl"
        settings[f"{bearer}.jaas.config"] = f"{security}.oauthbearer.OAuthBearerLoginModule required;"
        settings[f"{bearer}.server.callback.handler.class"] = (
            f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        )
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self._kafka.folder / SETTINGS).write_text(text)


def _binding(user: str, resource: str, name: str, pattern: str, operation: str) -> AclBinding:
    kind = ResourceType.BROKER if resource == "cluster" else ResourceType[resource.upper()]
    wanted = AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()]
    on = ResourcePatternType[pattern.upper()]
    return AclBinding(kind, name, on, f"User:{user}", "*", wanted, AclPermissionType.ALLOW)


def as_toml(settings: Mapping[str, Any]) -> str:
    return "".join(f'"{name}" = "{value}"\n' for name, value in settings.items())
