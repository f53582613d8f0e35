"""One Apicurio registry with its schemas in a file, so that schema ids survive a restart."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.local.artifacts import Artifacts
from ops.local.java import Java

API = "/apis/ccompat/v7"
ANSWER_MAX_S = 10.0
COMPATIBILITY = "FULL_TRANSITIVE"
"""What holds until somebody sets another; Apicurio's own default is NONE: it would take every schema."""


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
            f"-Dapicurio.rules.global.compatibility={COMPATIBILITY}",
            "-Dapicurio.datasource.url=jdbc:h2:file:./schemas",
            "-jar",
            str(self.artifacts.registry_jar),
        ]

    def prepare(self, _say: Callable[[str], None]) -> None:
        """Nothing to format: the database file is made by the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def ready(self) -> bool:
        """Whether it answers questions about schemas."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_MAX_S)
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
