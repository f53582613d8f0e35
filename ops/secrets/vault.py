"""HashiCorp Vault and OpenBao over their HTTP API: log in, read a secret, renew its lease. The only door to them.

Bounded: 3 s to connect and for each read, 10 s and 1 MiB an answer, 3 tries with full jitter where the vault does not
answer, is sealed or is starting. Never follows a redirect, never asks the environment for an address, a token or a
proxy. No error and no repr shows a token or a field of a secret: what the server says is not repeated either.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import InputError, NotAllowedError, NotFoundError, UnreachableError

TIMEOUT_S: Final = 3.0
ANSWER_S: Final = 10.0
ANSWER_MAX: Final = 1 << 20
TRIES: Final = 3
RENEW_AT: Final = 2 / 3
"""The part of a lease's life after which it is renewed: a vault that is away then may be away for the other third."""
_LATER: Final = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
"""Not yet replicated, too many calls, a standby, sealed or starting: asking again may help."""


class VaultUnavailableError(UnreachableError):
    """The vault cannot be reached, is sealed, or what answers does not behave like one; it may heal."""


class VaultNotAllowedError(NotAllowedError):
    """The vault refuses the login, or its policy does not let us read this."""


class VaultNotFoundError(NotFoundError):
    """There is no such secret, or no such field in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How we are let in: ``POST auth/<mount>/login`` with ``form()``, or a token as it is. ``form`` and ``token`` look
    the credentials up anew each time, for they are replaced too; they raise InputError."""

    mount: str = ""
    form: Callable[[], Mapping[str, str]] | None = None
    token: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """What the vault holds at a path. ``seconds``: how long the lease lives, 0 where there is none (a static secret).
    Its repr shows no field."""

    fields: Mapping[str, str] = field(repr=False)
    lease: str = field(default="", repr=False)
    seconds: float = 0.0
    renewable: bool = False


@dataclass(frozen=True, slots=True)
class _Token:
    """``renew_at``: when it is to be renewed (monotonic clock), None for one that we were given."""

    text: str = field(repr=False)
    renew_at: float | None = None
    renewable: bool = False


class Vault:
    """One vault. Everything blocks and may be called from any thread. Nothing is asked before the first ``read``.

    Every method raises VaultUnavailableError and VaultNotAllowedError beside what it says."""

    def __init__(
        self,
        address: str,
        login: Login,
        *,
        namespace: str | None = None,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        import urllib3

        self._address, self._login = address.rstrip("/"), login
        self._headers = {"x-vault-request": "true", "accept": "application/json", "user-agent": "event-backbone"}
        if namespace:
            self._headers["x-vault-namespace"] = namespace
        timeout = urllib3.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, timeout=timeout, retries=False, ca_certs=ca_file)
        self._clock, self._wait = clock, wait
        self._lock = threading.RLock()
        self._token: _Token | None = None

    def read(self, path: str) -> Secret:
        """The secret at ``path`` (of a key-value engine of version 2: ``MOUNT/data/NAME``); a dynamic one is made by
        this. Raises VaultNotFoundError."""
        status, answer = self._authorised("GET", path)
        if status == 404:
            raise VaultNotFoundError(f"the vault has no secret at {path}{_hint(path, answer)}")
        if status != 200:
            raise self._strange(f"{status} for {path}")
        content = answer.get("data")
        if not isinstance(content, dict):
            raise self._strange(f"no data for {path}")
        if content.keys() >= {"data", "metadata"} and isinstance(content["metadata"], dict):
            content = content["data"]  # version 2 of the key-value engine wraps what it holds
            if not isinstance(content, dict):
                raise VaultNotFoundError(f"the secret at {path} has been deleted in the vault")
        fields = {str(name): _text(value) for name, value in content.items()}
        lease = answer.get("lease_id")
        if not isinstance(lease, str) or not lease:
            return Secret(fields)
        return Secret(
            fields,
            lease=lease,
            seconds=_seconds(answer.get("lease_duration")),
            renewable=answer.get("renewable") is True,
        )

    def renew(self, secret: Secret) -> Secret | None:
        """The same secret with its lease renewed; None where that cannot be (it has ended, was revoked, or may not
        live longer): then it is to be read again."""
        if not secret.renewable:
            return None
        body = {"lease_id": secret.lease, "increment": int(secret.seconds)}
        try:
            status, answer = self._authorised("PUT", "sys/leases/renew", body)
        except VaultNotAllowedError:
            return None  # a lease of a token that is gone, or a policy that lets us read and not renew
        if status != 200:
            return None
        seconds = _seconds(answer.get("lease_duration"))
        if seconds < secret.seconds / 2:
            return None  # it nears the longest it may live
        return Secret(secret.fields, lease=secret.lease, seconds=secret.seconds, renewable=True)

    # ---- who we are

    def _authorised(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """One call with a token, which is made anew once where the vault does not know it any more."""
        with self._lock:
            token = self._current()
            status, answer = self._ask(method, path, body, token)
            if status in (401, 403):
                self._token = None
                again = self._current()
                if again.text != token.text:
                    status, answer = self._ask(method, path, body, again)
            if status in (401, 403):
                raise VaultNotAllowedError(f"the vault does not allow us to {_verb(method)} {path} ({status})")
            return status, answer

    def _current(self) -> _Token:
        if self._login.token is not None:
            return _Token(self._login.token())  # a file of an agent's may hold another one by now
        token = self._token
        if token is None:
            token = self._token = self._log_in()
        elif token.renew_at is not None and self._clock() >= token.renew_at:
            token = self._token = self._renewed(token) or self._log_in()
        return token

    def _log_in(self) -> _Token:
        assert self._login.form is not None
        path = f"auth/{self._login.mount}/login"
        status, answer = self._ask("POST", path, dict(self._login.form()), None)
        if status != 200:
            raise VaultNotAllowedError(f"the vault refuses the login at {path} ({status})")
        return self._issued(answer)

    def _renewed(self, token: _Token) -> _Token | None:
        """None where it cannot be renewed: then we log in anew, and what the old one has leased ends with it."""
        if not token.renewable:
            return None
        status, answer = self._ask("POST", "auth/token/renew-self", {}, token)
        return self._issued(answer) if status == 200 else None

    def _issued(self, answer: Mapping[str, Any]) -> _Token:
        auth = answer.get("auth")
        if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
            raise self._strange("a login without a token")
        seconds = _seconds(auth.get("lease_duration"))
        renew_at = self._clock() + seconds * RENEW_AT if seconds else None  # 0: it never ends
        return _Token(auth["client_token"], renew_at, auth.get("renewable") is True)

    # ---- one call

    def _ask(self, method: str, path: str, body: Any, token: _Token | None) -> tuple[int, dict[str, Any]]:
        for again in range(TRIES):
            try:
                return self._once(method, path, body, token)
            except VaultUnavailableError:
                if again == TRIES - 1:
                    raise
                self._wait(random.uniform(0, 0.2 * 2**again))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Any, token: _Token | None) -> tuple[int, dict[str, Any]]:
        import urllib3

        headers = dict(self._headers)
        if token is not None:
            headers["x-vault-token"] = token.text
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            response = self._pool.request(
                method, f"{self._address}/v1/{path}", body=None if body is None else json.dumps(body).encode(),
                headers=headers, redirect=False, preload_content=False, retries=False,
            )  # fmt: skip
            try:
                text = self._text_of(response)
            finally:
                response.close()
        except urllib3.exceptions.SSLError:
            raise VaultUnavailableError(
                f"the certificate of the vault at {self._address} is not trusted here (vault.ca_file)"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # a ValueError: a token that fits into no header; its words would show it
            raise VaultUnavailableError(
                f"the vault at {self._address} cannot be reached ({type(error).__name__})"
            ) from None
        status = response.status
        if status == 503:
            raise VaultUnavailableError(f"the vault at {self._address} is sealed or starting (503)")
        if status in _LATER:
            raise VaultUnavailableError(f"the vault at {self._address} answered {status}")
        if 300 <= status < 400:
            raise self._strange("a redirect, which is not followed: write the address of the active node")
        try:
            answer = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            raise self._strange(f"{status} and something other than JSON") from None
        if not isinstance(answer, dict):
            raise self._strange(f"{status} and JSON that is no object")
        return status, answer

    def _text_of(self, response: Any) -> bytes:
        parts: list[bytes] = []
        until, size = self._clock() + ANSWER_S, 0
        while part := response.read1(65_536):
            size += len(part)
            parts.append(part)
            if size > ANSWER_MAX:
                raise self._strange(f"more than {ANSWER_MAX >> 20} MiB")
            if self._clock() > until:
                raise VaultUnavailableError(f"the answer of the vault at {self._address} took over {ANSWER_S:.0f} s")
        return b"".join(parts)

    def _strange(self, what: str) -> VaultUnavailableError:
        return VaultUnavailableError(f"what should be the vault at {self._address} answered {what}")


def field_of(secret: Secret, path: str, name: str) -> str:
    """One field of a secret. Raises VaultNotFoundError naming those there are, never a value; InputError where it is
    empty."""
    if name not in secret.fields:
        there = ", ".join(sorted(secret.fields)) or "none"
        raise VaultNotFoundError(f"the secret at {path} has no field '{name}' (there are: {there})")
    if not secret.fields[name]:
        raise InputError(f"the field '{name}' of the secret at {path} is empty")
    return secret.fields[name]


def _verb(method: str) -> str:
    return "read" if method == "GET" else "write"


def _hint(path: str, answer: Mapping[str, Any]) -> str:
    """Version 2 of the key-value engine, asked as if it were version 1, answers 404 with a warning."""
    mount, _, rest = path.partition("/")
    if answer.get("warnings") and not rest.startswith("data/"):
        return f"; a key-value engine of version 2 has it at {mount}/data/{rest}"
    return ""


def _seconds(found: Any) -> float:
    return max(0.0, float(found)) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
