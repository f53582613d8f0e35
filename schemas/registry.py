"""The schema registry, seen as any Confluent-compatible one (Confluent, Apicurio's ccompat, Karapace, Redpanda).

A schema's id never changes its meaning, so schemas by id are kept in memory and on disk for ever. Everything blocks
and may be called from any thread. ``memory://NAME`` and ``file://DIR`` do the same without a server
(``schemas/registry_local.py``).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from schemas import avsc
from schemas.avsc import shown
from schemas.compatibility import MODES
from schemas.errors import InputError, NotAllowedError, NotFoundError, RefusedError, UnreachableError
from schemas.schema_cache import SchemaCache

ANSWER_MAX = 4 << 20
TIMEOUT_S = 2.0
ANSWER_S = 10.0
"""How long one answer may take in all, however slowly it trickles."""
TRIES = 3
UNKNOWN_FOR_S = 30.0
OPEN_AFTER = 3
OPEN_FOR_S = 5.0
CONNECTIONS = 8
PAGE = 100
"""Schemas asked for at once: of 40 kB each they are an answer that is read."""
SUBJECTS_MAX = 20_000
LISTING = "/schemas?"
OPTIONAL = ("/schemas/guids/", LISTING)
"""Paths that not every registry has: a 404 there means no more than that."""


class SchemaNotFoundError(NotFoundError):
    """The registry knows no schema of that id or subject."""


class RegistryUnavailableError(UnreachableError):
    """The registry cannot be reached, or what answers does not behave like one; it may heal."""


class IncompatibleSchemaError(RefusedError):
    """The registry's compatibility mode does not let this schema follow the versions before."""


class RegistryNotAllowedError(NotAllowedError):
    """The registry refuses these credentials, or they may not do this."""


class NotAvroError(InputError):
    """What is registered there is not Avro (or is broken): it can never be read as an event."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as it stands in the registry. ``schema`` is its text."""

    subject: str
    version: int
    id: int
    schema: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a schema may follow; ``reasons`` are the registry's own words, often none."""

    compatible: bool
    reasons: tuple[str, ...] = ()


class Registry(Protocol):
    """Every method blocks, may be called from any thread, and may raise RegistryUnavailableError or
    RegistryNotAllowedError beside what it says."""

    def schema(self, id: int) -> str:
        """The text of the schema with this id, references written out. SchemaNotFoundError, NotAvroError."""
        ...

    def schema_by_guid(self, guid: str) -> str:
        """The same by global id (a UUID), where the registry has those."""
        ...

    def lookup(self, subject: str, schema: str) -> Registered | None:
        """The version of the subject that is this schema, if there is one. Changes nothing."""
        ...

    def register(self, subject: str, schema: str) -> Registered:
        """Make it the subject's newest version, or find it there. IncompatibleSchemaError; InputError: no schema."""
        ...

    def latest(self, subject: str) -> Registered | None:
        """The newest version, or None where there is no such subject."""
        ...

    def versions(self, subject: str) -> list[int]:
        """All versions, oldest first; empty where there is no such subject."""
        ...

    def version(self, subject: str, version: int) -> Registered:
        """One version. SchemaNotFoundError."""
        ...

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        ...

    def listed_schemas(self) -> list[str]:
        """The texts of the newest versions of all subjects, without saying which is whose; sorted, each once. What is
        not Avro, and older versions (Apicurio lists them too), may be among them."""
        ...

    def check_compatibility(self, subject: str, schema: str) -> Verdict:
        """Whether ``register`` would be accepted by the mode in force. Changes nothing."""
        ...

    def compatibility(self, subject: str | None = None) -> str:
        """The mode in force for the subject (its own, else the global one), or the global one."""
        ...

    def set_compatibility(self, level: str, subject: str | None = None) -> None:
        """Set the global mode, or one subject's own. InputError: no such mode."""
        ...


def open_registry(
    url: str,
    *,
    cache: Path | None = None,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> Registry:
    """The registry at ``url``: ``http(s)://``, ``memory://NAME`` (one per process and name) or ``file://DIR``.

    ``cache`` is a folder for schemas by id. Nothing is asked of the registry yet. Raises InputError for an address or
    a file of a certificate that cannot be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("memory", "file") and rest:
        from schemas.registry_local import file_registry, memory_registry

        return memory_registry(rest) if scheme == "memory" else file_registry(Path(rest))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("the registry's address must be http(s)://HOST..., memory://NAME or file://DIR.")
    if parts.username or parts.password:
        raise InputError("the registry's address holds a user or password; give them as settings of their own.")
    if token and (username or password):
        raise InputError("the registry is given a token and a user as well; give one of them.")
    for name, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        if file and not Path(file).is_file():
            raise InputError(f"the registry's {name} is no file.")
    headers = _authorization(username, password, token)
    tls = {"ca_certs": ca_file, "cert_file": cert_file, "key_file": key_file}
    return HttpRegistry(url, cache=cache, headers=headers, tls={name: file for name, file in tls.items() if file})


def _authorization(username: str | None, password: str | None, token: str | None) -> dict[str, str]:
    if token:
        return {"authorization": f"Bearer {token}"}
    if username:
        from urllib3.util import make_headers

        return dict(make_headers(basic_auth=f"{username}:{password or ''}"))
    return {}


class HttpRegistry:
    """A registry over HTTP. Bounded: 2 s to connect and for each read, 10 s and 4 MiB an answer, 3 tries with full
    jitter; after 3 failed calls in a row it fails at once for 5 s. Never follows a redirect, never asks the
    environment for a proxy."""

    def __init__(
        self,
        url: str,
        *,
        cache: Path | None = None,
        headers: Mapping[str, str] | None = None,
        tls: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        import urllib3

        self._url = url.rstrip("/")
        self._headers = {
            "accept": "application/vnd.schemaregistry.v1+json, application/json",
            "accept-encoding": "identity",
            "user-agent": "event-backbone",
            **(headers or {}),
        }
        timeout = urllib3.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S)
        trust: Mapping[str, Any] = tls or {}
        self._pool = urllib3.PoolManager(num_pools=2, maxsize=CONNECTIONS, timeout=timeout, retries=False, **trust)
        self._clock, self._wait = clock, wait
        self._lock = threading.Lock()
        self._known: dict[int | str, str] = {}
        self._unknown: dict[int | str, float] = {}
        self._failures, self._open_until = 0, 0.0
        self._disk = SchemaCache(cache, self._url) if cache else None

    def renew(self, *, username: str | None = None, password: str | None = None, token: str | None = None) -> None:
        """Be let in with these from the next call on; a registry that had not answered is asked at once. Files of TLS
        are read at every new connection anyway. Does not block."""
        self._headers = {**self._headers, **_authorization(username, password, token)}
        with self._lock:
            self._open_until = 0.0

    # --- schemas by id: immutable, so kept for ever

    def schema(self, id: int) -> str:
        return self._immutable(id, f"/schemas/ids/{id}")

    def schema_by_guid(self, guid: str) -> str:
        return self._immutable(guid, f"/schemas/guids/{quote(guid, safe='')}")

    def _immutable(self, key: int | str, path: str) -> str:
        with self._lock:
            if key in self._known:
                return self._known[key]
            unknown_until = self._unknown.get(key, 0.0)
        if self._clock() < unknown_until:
            raise SchemaNotFoundError(f"the registry knows no schema {key}.")
        text = self._disk.read(key) if self._disk else None
        if text is None:
            answer = self._ask("GET", path)
            if answer is None:
                with self._lock:
                    if len(self._unknown) > 10_000:  # ids out of garbage bytes: forget the oldest knowledge
                        self._unknown.clear()
                    self._unknown[key] = self._clock() + UNKNOWN_FOR_S
                raise SchemaNotFoundError(f"the registry knows no schema {key}.")
            text = self._avro(answer, f"schema {key}")
            if self._disk:
                self._disk.write(key, text)
        with self._lock:
            self._known[key] = text
            self._unknown.pop(key, None)
        return text

    def _avro(self, answer: Any, what: str) -> str:
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise self._strange("an answer without 'schema'")
        kind = answer.get("schemaType") or "AVRO"
        if kind != "AVRO":
            raise NotAvroError(f"{what} in the registry is {shown(kind)}, not Avro.")
        references = answer.get("references")
        if not references:
            return str(answer["schema"])
        from schemas.references import written_out

        return written_out(answer["schema"], references, self._referenced, what)

    def _referenced(self, subject: str, version: int) -> tuple[str, Any]:
        answer = self._ask("GET", f"{_subject(subject)}/versions/{version}")
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise SchemaNotFoundError(
                f"the registry lacks version {version} of {shown(subject)}, which a schema needs."
            )
        return answer["schema"], answer.get("references")

    # --- subjects

    def lookup(self, subject: str, schema: str) -> Registered | None:
        try:
            answer = self._ask("POST", _subject(subject), {"schema": schema, "schemaType": "AVRO"})
        except RegistryUnavailableError:
            # what it answered once holds: a worker starts, and writes its receipts, with the registry away
            known = None if self._disk is None else self._disk.read(_asked(subject, schema))
            if known is None:
                raise
            return self._registered(json.loads(known), subject)
        if answer is None:
            return None
        found = self._registered(answer, subject)
        if self._disk is not None:
            self._disk.write(_asked(subject, schema), json.dumps(answer))
        return found

    def register(self, subject: str, schema: str) -> Registered:
        check_schema(schema)  # what is no schema is not sent: some registries take it
        answer = self._ask("POST", f"{_subject(subject)}/versions", {"schema": schema, "schemaType": "AVRO"})
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), int):
            raise self._strange("an answer without 'id'")
        # Apicurio gives the id of the version before for a schema that differs only in doc: the lookup tells which.
        found = self.lookup(subject, schema) or self.latest(subject)
        if found is None:
            raise self._strange("no version after it accepted one")
        return found

    def latest(self, subject: str) -> Registered | None:
        answer = self._ask("GET", f"{_subject(subject)}/versions/latest")
        return None if answer is None else self._registered(answer, subject)

    def version(self, subject: str, version: int) -> Registered:
        answer = self._ask("GET", f"{_subject(subject)}/versions/{version}")
        if answer is None:
            raise SchemaNotFoundError(f"the registry knows no version {version} of {shown(subject)}.")
        return self._registered(answer, subject)

    def versions(self, subject: str) -> list[int]:
        answer = self._ask("GET", f"{_subject(subject)}/versions")
        return sorted(int(one) for one in self._list(answer or [], int))

    def subjects(self) -> list[str]:
        return sorted(str(one) for one in self._list(self._ask("GET", "/subjects") or [], str))

    def listed_schemas(self) -> list[str]:
        # In pages: 1,000 subjects asked one by one take Apicurio 20 s. It answers with the texts alone.
        found: dict[str, None] = {}
        before: Any = None
        for offset in range(0, SUBJECTS_MAX, PAGE):
            page = self._ask("GET", f"{LISTING}latestOnly=true&offset={offset}&limit={PAGE}")
            if page is None:  # a registry without this list
                return self._latest_one_by_one()
            if not isinstance(page, list) or not all(
                isinstance(one, dict) and isinstance(one.get("schema"), str) for one in page
            ):
                raise self._strange("a list of something other than schemas")
            found |= {self._written_out(one): None for one in page}
            # some ignore the page and answer with everything each time: then the same comes again
            # a page may hold less than asked for and not be the last: what is no Avro is missing in it
            if not page or page == before:
                break
            before = page
        return sorted(found)

    def _latest_one_by_one(self) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        def text(subject: str) -> str:
            try:
                found = self.latest(subject)
            except NotAvroError:
                found = None
            return "" if found is None else found.schema

        with ThreadPoolExecutor(CONNECTIONS) as threads:
            return sorted(set(threads.map(text, self.subjects())) - {""})

    def _written_out(self, answer: Mapping[str, Any]) -> str:
        """The text of one of a list, its references written out where it is Avro and names them."""
        if (answer.get("schemaType") or "AVRO") != "AVRO" or not answer.get("references"):
            return str(answer["schema"])
        return self._avro(answer, "a schema")

    def check_compatibility(self, subject: str, schema: str) -> Verdict:
        # Asked twice: verbose for the reasons, plain for the answer; some registries ignore or mistake "verbose".
        # Against all versions only where the mode says so: Apicurio takes the path by its word, whatever the mode.
        versions = "versions" if self.compatibility(subject).endswith("_TRANSITIVE") else "versions/latest"
        path = f"/compatibility{_subject(subject)}/{versions}"
        plain = self._ask("POST", path, {"schema": schema, "schemaType": "AVRO"})
        if plain is None:
            return Verdict(True)  # no such subject yet: the first version may be anything
        if not isinstance(plain, dict) or not isinstance(plain.get("is_compatible"), bool):
            raise self._strange("an answer without 'is_compatible'")
        if plain["is_compatible"]:
            return Verdict(True)
        verbose = self._ask("POST", f"{path}?verbose=true", {"schema": schema, "schemaType": "AVRO"})
        messages = verbose.get("messages") if isinstance(verbose, dict) else None
        return Verdict(False, tuple(str(one)[:500] for one in messages or ()))

    def compatibility(self, subject: str | None = None) -> str:
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}?defaultToGlobal=true"
        answer = self._ask("GET", path)
        if answer is None and subject is not None:
            return self.compatibility()
        level = answer.get("compatibilityLevel") or answer.get("compatibility") if isinstance(answer, dict) else None
        if level not in MODES:
            raise self._strange("an answer without a compatibility mode")
        return str(level)

    def set_compatibility(self, level: str, subject: str | None = None) -> None:
        if level not in MODES:
            raise InputError(f"the compatibility mode is one of {', '.join(MODES)}, not {shown(level)}.")
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}"
        self._ask("PUT", path, {"compatibility": level})

    def _registered(self, answer: Any, subject: str) -> Registered:
        if not isinstance(answer, dict) or not all(isinstance(answer.get(key), int) for key in ("id", "version")):
            raise self._strange("an answer without 'id' and 'version'")
        return Registered(subject, answer["version"], answer["id"], self._avro(answer, f"subject {shown(subject)}"))

    def _list(self, answer: Any, kind: type) -> list[Any]:
        if not isinstance(answer, list) or not all(isinstance(one, kind) for one in answer):
            raise self._strange("something other than a list")
        return answer

    # --- one call

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answered, or None for "not found". Raises what the class says."""
        with self._lock:
            if self._clock() < self._open_until:
                raise RegistryUnavailableError("the registry did not answer just now; trying again in a few seconds.")
        try:
            status, answer = self._tries(method, path, body)
        except RegistryUnavailableError:
            with self._lock:
                self._failures += 1
                if self._failures >= OPEN_AFTER:
                    self._open_until = self._clock() + OPEN_FOR_S
            raise
        with self._lock:
            self._failures = 0
        if status == 404:
            return None
        if status == 409:
            raise IncompatibleSchemaError(f"the registry refuses the schema: {_words(answer)}")
        if status in (401, 403):
            raise RegistryNotAllowedError(f"the registry does not allow it with these credentials ({status}).")
        if status in (400, 422):
            if method == "GET":  # nothing of ours was in it that could be wrong
                raise self._strange(str(status))
            raise InputError(f"the registry does not understand the request: {_words(answer)}")
        return answer

    def _tries(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        for again in range(TRIES):
            try:
                return self._once(method, path, body)
            except RegistryUnavailableError:
                if again == TRIES - 1:
                    raise
                self._wait(random.uniform(0, 0.2 * 2**again))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        import urllib3

        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/vnd.schemaregistry.v1+json"
        try:
            response = self._pool.request(
                method,
                self._url + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                redirect=False,
                preload_content=False,
                retries=False,
            )
            try:
                text = self._read(response)
            finally:
                response.close()  # a no-op for a connection that was read to the end and went back to the pool
        except urllib3.exceptions.SSLError:
            raise RegistryUnavailableError(
                "the registry's certificate is not trusted here (settings: ca_file)."
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RegistryUnavailableError(f"the registry cannot be reached ({type(error).__name__}).") from None
        status = response.status
        if 300 <= status < 400:
            raise self._strange("a redirect, which is not followed; use the final address")
        if status == 429 or status >= 500:
            raise RegistryUnavailableError(f"the registry answered {status}.")
        try:
            answer = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            if status in (401, 403) or (status == 404 and path.startswith(OPTIONAL)):
                return status, {}
            raise self._strange(f"{status} and something other than JSON; is this the registry's address?") from None
        known = isinstance(answer, dict) and _code(answer) // 100 == 404
        if status == 404 and not known and not path.startswith(OPTIONAL):
            raise self._strange("404 without a registry's error code; is this the registry's address?")
        return status, answer

    def _read(self, response: Any) -> bytes:
        parts: list[bytes] = []
        until, size = self._clock() + ANSWER_S, 0
        while True:
            part = response.read1(65_536)
            if not part:
                return b"".join(parts)
            size += len(part)
            parts.append(part)
            if size > ANSWER_MAX:
                raise self._strange(f"more than {ANSWER_MAX >> 20} MiB")
            if self._clock() > until:
                raise RegistryUnavailableError(f"the registry's answer took more than {ANSWER_S:.0f} s.")

    def _strange(self, what: str) -> RegistryUnavailableError:
        return RegistryUnavailableError(f"what should be the registry answered {what}.")


def check_schema(text: str) -> Any:
    """The parsed JSON of a schema's text. Raises InputError for what no reader should be asked to read."""
    schema = avsc.parse(text)
    found = avsc.undecodable(schema)
    if found:
        raise InputError(f"not a schema to register: {found[0].path} {found[0].message}".replace("  ", " "))
    return schema


def _asked(subject: str, schema: str) -> str:
    """The cache's name of a look-up."""
    return f"{subject}\n{schema}"


def _subject(subject: str) -> str:
    return f"/subjects/{quote(subject, safe='')}"


def _code(answer: Mapping[str, Any]) -> int:
    code = answer.get("error_code")
    return code if isinstance(code, int) and code >= 1000 else (code or 0) * 100 if isinstance(code, int) else 0


def _words(answer: Any) -> str:
    message = answer.get("message") if isinstance(answer, dict) else None
    text = " ".join(str(message).split()) if message else "it gave no reason."
    return text if len(text) <= 500 else text[:497] + "..."
