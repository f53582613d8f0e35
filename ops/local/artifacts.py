"""The programs of the stack, fetched once by Maven with the checked-in ``pom.xml``; nothing here names a server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.local.java import Java
from schemas.errors import UnreachableError

POM = Path(__file__).with_name("pom.xml")
FETCH_MAX_S = 900
INSTEAD = "Or use containers instead: docker compose up -d, then backbone -c compose COMMAND."


@dataclass(frozen=True, slots=True)
class Artifacts:
    """``folder/kafka`` holds Kafka's jars, ``folder/registry`` the unpacked Apicurio; start-up caches lie beside."""

    folder: Path

    @property
    def kafka_class_path(self) -> str:
        # explicit and sorted: an AOT cache is only valid for the very same class path, and knows no wildcards
        return os.pathsep.join(sorted(str(jar) for jar in (self.folder / "kafka").glob("*.jar")))

    @property
    def registry_jar(self) -> Path:
        return self.folder / "registry" / "quarkus-run.jar"


def artifacts(folder: Path, java: Java, say: Callable[[str], None]) -> Artifacts:
    """The programs under ``folder``, fetched when they are not there yet (some 200 MB, about 10 s).

    The caller is alone on ``folder``. A fetch that breaks off leaves nothing that looks complete.
    Raises UnreachableError when Maven is missing or reaches no repository.
    """
    version = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    target = folder / version
    if not target.is_dir():
        _fetch(target, java, say)
    return Artifacts(target)


def _fetch(target: Path, java: Java, say: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise UnreachableError(
            "The local stack fetches Kafka and the registry with Maven, and there is no mvn on this machine."
            f" Install Maven (package 'maven') and try again. {INSTEAD}"
        )
    say("fetching Kafka and the registry with Maven (once, about 200 MB)")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _run_maven(maven, partial, java)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _has_java() -> bool:
    """Whether Maven finds a Java of the machine: that one trusts the certificates that the machine's owner has added
    (a company's proxy), the packaged one does not. The stack itself speaks to nobody outside."""
    return bool(os.environ.get("JAVA_HOME")) or shutil.which("java") is not None


def _run_maven(maven: str, folder: Path, java: Java) -> None:
    command = [
        maven, "-q", "-B", "-Dstyle.color=never", "-f", str(POM), "generate-resources",
        f"-Dbackbone.artifacts={folder}",
    ]  # fmt: skip
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=FETCH_MAX_S,
            stdin=subprocess.DEVNULL,
            env=os.environ if _has_java() else {**os.environ, "JAVA_HOME": str(java.home)},
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(
            f"Maven did not fetch Kafka and the registry within {FETCH_MAX_S // 60} minutes. Try again. {INSTEAD}"
        ) from None
    complete = (folder / "registry" / "quarkus-run.jar").is_file() and any((folder / "kafka").glob("kafka_2.13-*.jar"))
    if answer.returncode == 0 and complete:
        return
    errors = [line.removeprefix("[ERROR] ") for line in answer.stdout.splitlines() if line.startswith("[ERROR] ")]
    reason = (errors or ["no reason given"])[0][:400]
    raise UnreachableError(
        f"Maven could not fetch Kafka and the registry: {reason.rstrip('.')}."
        f" Give Maven a repository it can reach (settings.xml) and try again. {INSTEAD}"
    )
