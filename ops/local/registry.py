"""One Apicurio registry with its schemas in a file, so that schema ids survive a restart."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.local.artifacts import Artifacts
from ops.local.java import Java
from schemas.errors import UnreachableError

API = "/apis/ccompat/v7"
ANSWER_MAX_S = 10.0
COMPATIBILITY = "FULL_TRANSITIVE"
"""Apicurio's own default is NONE: it would take every schema."""


@dataclass(frozen=True, slots=True)
class Registry:
    """Where this registry keeps its file (``folder``) and listens (127.0.0.1 only)."""

    java: Java
    artifacts: Artifacts
    folder: Path
    port: int
    management_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{API}"

    @property
    def cache(self) -> Path:
        return self.artifacts.folder / f"registry-{self.java.version}.aot"

    def command(self, *jvm: str) -> list[str]:
        """The command that runs it, in its ``folder``."""
        return [
            self.java.program,
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xms32m",
            "-Xmx256m",
            *jvm,
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.http.access-log.enabled=false",
            "-Dquarkus.management.host=127.0.0.1",
            f"-Dquarkus.management.port={self.management_port}",
            "-Dquarkus.log.level=WARN",
            "-Dquarkus.banner.enabled=false",
            "-Dapicurio.datasource.url=jdbc:h2:file:./schemas",
            "-jar",
            str(self.artifacts.registry_jar),
        ]

    def prepare(self, _say: Callable[[str], None]) -> None:
        """Nothing to format: the database file is made by the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def ready(self) -> bool:
        """Whether it answers questions about schemas."""
        try:
            return self._ask("GET", "/subjects")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def set_compatibility(self) -> None:
        """Make it refuse incompatible schemas, once: what a person has set since then stays."""
        mark = self.folder / "compatibility-set"
        if mark.exists():
            return
        try:
            status, _ = self._ask("PUT", "/config", {"compatibility": COMPATIBILITY})
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"The registry did not take its compatibility setting ({type(error).__name__})."
            ) from None
        if status != 200:
            raise UnreachableError(f"The registry did not take its compatibility setting (HTTP {status}).")
        mark.touch()

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_MAX_S)
        try:
            headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"} if body else {}
            connection.request(method, API + path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
