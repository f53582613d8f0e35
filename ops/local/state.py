"""What is remembered of a local stack: what has been started, which ports it keeps, and where clients find it.

``local.json``           the address, only there while the stack is up: what the ``local`` context reads
``local/processes.json`` every process started, written the moment it is: what ``down`` stops
``local/ports.json``     the ports, kept for good
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.local.process import ProcessId
from schemas.errors import RefusedError

LOCK_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running stack is found; ``fakes`` are base URLs by connector."""

    kafka: str
    registry: str
    fakes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The files of one stack in ``folder`` (``.backbone`` of a project)."""

    folder: Path

    @property
    def inner(self) -> Path:
        return self.folder / "local"

    @property
    def logs(self) -> Path:
        return self.inner / "logs"

    def address(self) -> Address | None:
        """The address that is written down; it may be stale. None when there is none or it cannot be read."""
        found = read_json(self.folder / "local.json")
        if not isinstance(found.get("kafka"), str) or not isinstance(found.get("registry"), str):
            return None
        fakes = found.get("fakes")
        return Address(found["kafka"], found["registry"], fakes if isinstance(fakes, dict) else {})

    def put_address(self, address: Address | None) -> None:
        path = self.folder / "local.json"
        if address is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"kafka": address.kafka, "registry": address.registry, "fakes": dict(address.fakes)})

    def processes(self) -> dict[str, ProcessId]:
        """What has been started and not stopped since, by part; they may have ended."""
        found = {}
        for part, entry in read_json(self.inner / "processes.json").items():
            match entry:
                case {"pid": int(pid), "started": str(started)}:
                    found[part] = ProcessId(pid, started)
        return found

    def put_processes(self, processes: Mapping[str, ProcessId]) -> None:
        content = {part: {"pid": process.pid, "started": process.started} for part, process in processes.items()}
        write_json(self.inner / "processes.json", content)

    def ports(self) -> dict[str, int]:
        """Ports chosen earlier, by what listens there."""
        return {
            name: port
            for name, port in read_json(self.inner / "ports.json").items()
            if isinstance(port, int) and 0 < port < 65536
        }

    def put_ports(self, ports: Mapping[str, int]) -> None:
        write_json(self.inner / "ports.json", dict(ports))

    @contextlib.contextmanager
    def lock(self, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Alone on this stack. Waits for another ``up`` or ``down``; raises RefusedError after ``wait_s``.

        The kernel drops the lock with its process, so a crash leaves none behind.
        """
        with alone(self.inner / "lock", wait_s=wait_s):
            yield


@contextlib.contextmanager
def alone(path: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock ``path``; raises RefusedError when another process holds it for longer than ``wait_s``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _take(file.fileno(), wait_s)
        yield


def _take(descriptor: int, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise RefusedError(
                    f"Another 'backbone local' command has been at work on this stack for {wait_s:.0f} s;"
                    " nothing was changed. Try again when it has ended."
                ) from None
            time.sleep(0.05)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the whole file or none of it: a reader, or a crash, never sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """An object that we wrote; what is missing, half or not an object counts as not written: ``{}``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
