"""Vaults for the tests: a fake that behaves as the HTTP API is documented, and a real OpenBao where there is one.

Both are prepared by the same methods. The fake can besides be away for a while, and hand out leases.
"""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ops.local.ports import choose
from tests.waiting import eventually


@dataclass
class _Token:
    paths: Sequence[str]
    namespace: str = ""
    ends_at: float | None = None
    max_at: float | None = None


@dataclass
class _Lease:
    path: str
    token: str
    seconds: float
    ends_at: float
    max_at: float


@dataclass
class Call:
    """What the fake was asked, without the token."""

    method: str
    path: str
    namespace: str
    body: dict[str, Any] = field(repr=False)


class FakeVault:
    """Status codes, wrapping, leases and namespaces as documented; ``clock`` may be moved on by a test. ``keystore``:
    a PEM file with key and certificate, and it is spoken to by TLS."""

    def __init__(self, keystore: Path | None = None) -> None:
        self.calls: list[Call] = []
        self.sealed = False
        self.fail_next: list[int] = []
        self.offset_s = 0.0
        self.login_seconds = 3600.0
        self._lock = threading.RLock()
        self._kv: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._dynamic: dict[str, tuple[Callable[[int], Mapping[str, Any]], float, float]] = {}
        self._made: dict[str, int] = {}
        self._tokens: dict[str, _Token] = {}
        self._leases: dict[str, _Lease] = {}
        self._roles: dict[str, tuple[str, Sequence[str]]] = {}
        self._pods: dict[str, tuple[str, Sequence[str]]] = {}
        vault = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                status, answer = vault._answer(self.command, self.path, self.headers, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                if status == 307:
                    self.send_header("location", "http://127.0.0.1:1/v1/other")
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        if keystore is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(keystore)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the test
        self.address = f"http{'s' if keystore else ''}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    # ---- preparing it

    def put(self, path: str, fields: Mapping[str, Any], namespace: str = "") -> None:
        """Write a secret of the key-value engine of version 2."""
        with self._lock:
            self._kv[namespace, path] = dict(fields)

    def delete(self, path: str) -> None:
        with self._lock:
            self._kv["", path] = None

    def token(self, *paths: str, namespace: str = "") -> str:
        """A token that may read these paths (and what is below one that ends in ``*``)."""
        with self._lock:
            text = f"hvs.{secrets.token_hex(12)}"
            self._tokens[text] = _Token(paths, namespace)
            return text

    def revoke(self, token: str) -> None:
        with self._lock:
            del self._tokens[token]

    def approle(self, *paths: str) -> tuple[str, str]:
        with self._lock:
            role, secret = secrets.token_hex(8), secrets.token_hex(16)
            self._roles[role] = (secret, paths)
            return role, secret

    def pod(self, role: str, jwt: str, *paths: str) -> None:
        """A service account that may log in by the Kubernetes method."""
        self._pods[role] = (jwt, paths)

    def dynamic(self, path: str, make: Callable[[int], Mapping[str, Any]], seconds: float, max_s: float) -> None:
        """A path that makes a secret each time it is read, leased for so long."""
        self._dynamic[path] = (make, seconds, max_s)

    def pass_time(self, seconds: float) -> None:
        self.offset_s += seconds

    @property
    def logins(self) -> int:
        return sum(call.path.endswith("/login") for call in self.calls)

    def revoke_logins(self) -> None:
        """What ``vault token revoke`` of every login does: their leases end with them."""
        with self._lock:
            gone = {text for text, token in self._tokens.items() if token.ends_at is not None}
            self._leases = {name: one for name, one in self._leases.items() if one.token not in gone}
            for text in gone:
                del self._tokens[text]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ---- answering

    def _now(self) -> float:
        return time.monotonic() + self.offset_s

    def _answer(self, method: str, path: str, headers: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            namespace = headers.get("x-vault-namespace") or ""
            path = path.removeprefix("/v1/")
            self.calls.append(Call(method, path, namespace, body))
            if self.fail_next:
                return self.fail_next.pop(0), {"errors": ["told to fail"]}
            if self.sealed:
                return 503, {"errors": ["Vault is sealed"]}
            if path.startswith("auth/") and path.endswith("/login"):
                return self._log_in(path.split("/")[1], body)
            now, text = self._now(), headers.get("x-vault-token") or ""
            token = self._tokens.get(text)
            if token is None or (token.ends_at is not None and token.ends_at <= now):
                return 403, {"errors": ["permission denied"]}
            if path == "auth/token/renew-self":
                assert token.ends_at is not None
                assert token.max_at is not None
                token.ends_at = min(now + self.login_seconds, token.max_at)
                return 200, {"auth": self._auth(text, token.ends_at - now)}
            if path == "sys/leases/renew":
                return self._renew(body)
            may = any(path == one or (one.endswith("*") and path.startswith(one[:-1])) for one in token.paths)
            if not may or namespace != token.namespace:
                return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
            if path in self._dynamic:
                return self._make(path, text)
            if (namespace, path) not in self._kv:
                mount, _, rest = path.partition("/")
                version_2 = any(known.startswith(f"{mount}/data/") for _, known in self._kv)
                wrong = version_2 and not rest.startswith("data/")
                return 404, {"errors": [], "warnings": ["Invalid path for a versioned K/V secrets engine"] * wrong}
            content = self._kv[namespace, path]
            meta = {"version": 1, "deletion_time": "" if content is not None else "2026-01-01T00:00:00Z"}
            answer = {"lease_id": "", "lease_duration": 0, "renewable": False}
            return (404 if content is None else 200), answer | {"data": {"data": content, "metadata": meta}}

    def _log_in(self, mount: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if mount == "kubernetes":
            known, given = self._pods.get(body.get("role", "")), body.get("jwt")
        else:
            known, given = self._roles.get(body.get("role_id", "")), body.get("secret_id")
        if known is None or known[0] != given:
            return 400, {"errors": ["invalid role or secret ID"]}
        text, now = f"hvs.{secrets.token_hex(12)}", self._now()
        self._tokens[text] = _Token(known[1], "", now + self.login_seconds, now + 3 * self.login_seconds)
        return 200, {"auth": self._auth(text, self.login_seconds)}

    def _auth(self, text: str, seconds: float) -> dict[str, Any]:
        return {"client_token": text, "lease_duration": int(seconds), "renewable": True}

    def _make(self, path: str, token: str) -> tuple[int, dict[str, Any]]:
        make, seconds, max_s = self._dynamic[path]
        number = self._made[path] = self._made.get(path, 0) + 1
        lease, now = f"{path}/{secrets.token_hex(6)}", self._now()
        self._leases[lease] = _Lease(path, token, seconds, now + seconds, now + max_s)
        data = dict(make(number))
        return 200, {"lease_id": lease, "lease_duration": int(seconds), "renewable": True, "data": data}

    def _renew(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        lease, now = self._leases.get(body.get("lease_id", "")), self._now()
        if lease is None or lease.ends_at <= now:
            return 400, {"errors": ["lease not found"]}
        lease.ends_at = min(now + float(body.get("increment") or lease.seconds), lease.max_at)
        return 200, {"lease_id": body["lease_id"], "lease_duration": int(lease.ends_at - now), "renewable": True}


class OpenBao:
    """A real server in its development mode, with a key-value engine of version 2 at ``secret/``."""

    def __init__(self, program: str, folder: Path) -> None:
        port = choose(("vault",), {})["vault"]
        self.address, self._root = f"http://127.0.0.1:{port}", secrets.token_hex(12)
        self._log = (folder / "openbao.log").open("wb")
        self._process = subprocess.Popen(
            [program, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={self._root}",
             f"-dev-listen-address=127.0.0.1:{port}"],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        eventually(self._answers, 30, about="OpenBao")
        self._admin("POST", "sys/auth/approle", {"type": "approle"})

    def put(self, path: str, fields: Mapping[str, Any], namespace: str = "") -> None:
        if namespace:
            self._admin("POST", f"sys/namespaces/{namespace}", {})
            self._admin("POST", f"sys/mounts/{path.partition('/')[0]}", {"type": "kv-v2"}, namespace)
        written = lambda: self._admin("POST", path, {"data": dict(fields)}, namespace, may_fail=True)  # noqa: E731
        eventually(written, about="the engine that has just been mounted")

    def delete(self, path: str) -> None:
        self._admin("DELETE", path)

    def token(self, *paths: str, namespace: str = "") -> str:
        answer = self._admin("POST", "auth/token/create", {"policies": [self._policy(paths, namespace)]}, namespace)
        return str(answer["auth"]["client_token"])

    def revoke(self, token: str) -> None:
        self._admin("POST", "auth/token/revoke", {"token": token})

    def approle(self, *paths: str) -> tuple[str, str]:
        name = secrets.token_hex(6)
        self._admin("POST", f"auth/approle/role/{name}", {"token_policies": [self._policy(paths, "")]})
        role = self._admin("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret = self._admin("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]
        return role, secret

    def database(self, postgresql: str, max_s: int) -> None:
        """Dynamic users of a PostgreSQL at ``database/creds/app``; ``postgresql`` is its URL for an owner."""
        self._admin("POST", "sys/mounts/database", {"type": "database"})
        self._admin("POST", "database/config/db", {
            "plugin_name": "postgresql-database-plugin", "connection_url": postgresql, "allowed_roles": "app",
        })  # fmt: skip
        self._admin("POST", "database/roles/app", {
            "db_name": "db", "default_ttl": f"{max_s // 2}s", "max_ttl": f"{max_s}s",
            "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL "
            "'{{expiration}}' IN ROLE pg_write_all_data",
        })  # fmt: skip

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(15)
        self._log.close()

    def _policy(self, paths: Sequence[str], namespace: str) -> str:
        name = secrets.token_hex(6)
        rules = "\n".join(f'path "{path}" {{ capabilities = ["read"] }}' for path in paths)
        rules += '\npath "sys/leases/renew" { capabilities = ["update"] }'
        self._admin("POST", f"sys/policies/acl/{name}", {"policy": rules}, namespace)
        return name

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/sys/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _admin(
        self, method: str, path: str, body: Any = None, namespace: str = "", *, may_fail: bool = False
    ) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("X-Vault-Token", self._root)
        if namespace:
            request.add_header("X-Vault-Namespace", namespace)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if may_fail:
                return {}
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
        return json.loads(text) if text else {"done": True}
