"""A real PostgreSQL as a child process, where the machine has one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACES = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/postgresql")


def programs() -> Path | None:
    """The folder with ``postgres`` and ``initdb``, the newest one found; None when there is none."""
    found = [
        folder
        for place in PLACES
        for folder in Path(place).glob("*/bin")
        if (folder / "postgres").exists() and (folder / "initdb").exists()
    ]
    on_path = shutil.which("initdb")
    if on_path and (Path(on_path).parent / "postgres").exists():
        found.append(Path(on_path).parent)
    return max(found, default=None)


@dataclass(slots=True)
class PostgreSql:
    """A running server; ``stop`` and ``start`` are what an outage is."""

    programs: Path
    folder: Path
    port: int
    user: Mapping[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres:canary-password@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start and wait until it takes connections."""
        arguments = ["-D", str(self.folder / "data"), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        arguments += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=20"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [str(self.programs / "postgres"), *arguments], stdout=log, stderr=log, cwd=self.folder, **self.user
        )
        log.close()
        import psycopg

        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once: connections break."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: immediate shutdown
            self.process.wait(30)
            self.process = None


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSql]:
    """A server of our own in ``folder`` (one that others can reach: not pytest's), with password authentication.
    RuntimeError when none is installed."""
    found = programs()
    if found is None:
        raise RuntimeError("no PostgreSQL server is installed here")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    password = folder / "password"
    password.write_text("canary-password")
    password.chmod(0o644)
    arguments = ["-D", str(folder / "data"), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(password)]
    subprocess.run(
        [str(found / "initdb"), *arguments, "--no-sync", "-E", "UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=folder,
        timeout=60,
        **user,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = PostgreSql(found, folder, port, user)
    try:
        server.start()
        yield server
    finally:
        server.stop()
