"""The local stack as a whole: start it, find it running, stop it, look into it, throw its data away.

Everything lies in one folder (``.backbone`` of a project); programs may be shared between stacks.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ops.local.aot import jvm_options, make_caches
from ops.local.artifacts import artifacts as fetch_artifacts
from ops.local.fakes import read_fakes
from ops.local.java import find_java
from ops.local.kafka import Kafka
from ops.local.log import append_mark, since_mark
from ops.local.ports import choose
from ops.local.process import ProcessId, resident_mib, running, spawn, stop
from ops.local.registry import Registry
from ops.local.state import Address, State, alone
from schemas.errors import UnreachableError

__all__ = ["PARTS", "Address", "Part", "PartStatus", "Started", "down", "logs", "reset", "status", "up"]

Part = Literal["kafka", "registry", "vendors"]
PARTS: tuple[Part, ...] = ("kafka", "registry", "vendors")
STARTING_ORDER: tuple[Part, ...] = ("registry", "kafka", "vendors")
"""The slowest first: they start beside each other."""
READY_MAX_S = 60.0
PROGRAMS_MAX_S = 900.0
READY_POLL_S = 0.02
STOP_GRACE_S = 20.0
REMEMBERED = ("schemas/local", "fakes", "changes/local", "ledger.db", "ledger.db-wal", "ledger.db-shm")
"""What else in the folder speaks of the data: schema ids begin at 1 again, so cached ones would be wrong."""
LOG_MAX_BYTES = 10_000_000
LOG_LINES_SHOWN = 12
LOG_LINES_READ = 400
_FRAME = re.compile(r"\s+(at |\.\.\. \d)")
"""A line of a Java stack trace that names only a place."""
_TITLES: dict[Part, str] = {
    "kafka": "Kafka",
    "registry": "The registry",
    "vendors": "The process with the vendors' fakes",
}


@dataclass(frozen=True, slots=True)
class Started:
    """What ``up`` did: ``started`` is empty when everything was running already."""

    address: Address
    started: tuple[Part, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class PartStatus:
    """``state``: ``running``; ``ended`` (it was started and is gone, by itself or killed); ``down``."""

    part: Part
    state: Literal["running", "ended", "down"]
    pid: int | None
    address: str | None
    memory_mib: int | None
    log: Path


def _silent(_words: str) -> None:
    """For callers that do not want to hear about progress."""


def up(
    folder: Path,
    *,
    artifacts: Path | None = None,
    parts: Collection[Part] = PARTS,
    say: Callable[[str], None] = _silent,
    sustained: bool = False,
) -> Started:
    """Start what is not running yet and wait until it answers. Blocks; a second call finds the running stack.

    ``artifacts`` is where programs and their start-up caches are shared (``folder/artifacts``). ``say`` hears one
    sentence for each thing worth knowing. ``sustained`` lets Kafka's JVM optimise fully (benchmarks).
    On any failure, and on Ctrl-C, what this call started is stopped again. Data is kept between runs.
    Raises UnreachableError when a part does not start, with the end of its log; RefusedError when another ``up``
    holds the stack too long.
    """
    state = State(folder)
    begun = time.monotonic()
    with state.lock():
        start = _Start(state, artifacts or folder / "artifacts", _found_running(state, say), say, sustained)
        address, started = start.run(parts)
        return Started(address, started, time.monotonic() - begun)


def _found_running(state: State, say: Callable[[str], None]) -> dict[Part, ProcessId]:
    """What an earlier ``up`` has started and still runs; says what has ended since without ``down``."""
    written = state.processes()
    for name in written.keys() - set(PARTS):
        stop(written[name], grace_s=STOP_GRACE_S)  # an earlier start was killed while it prepared
    found: dict[Part, ProcessId] = {}
    for part in PARTS:
        process = written.get(part)
        if process is not None and running(process):
            found[part] = process
        elif process is not None:
            say(f"{part} (pid {process.pid}) ended without 'backbone local down': it is started again, with its data")
    return found


class _Start:
    """One start of some parts: remembers what it started, to take it back on failure."""

    def __init__(
        self, state: State, shared: Path, processes: dict[Part, ProcessId], say: Callable[[str], None], sustained: bool
    ) -> None:
        self.state = state
        self.say = say
        self.sustained = sustained
        self.processes = processes
        java = find_java()
        with alone(shared / "lock", wait_s=PROGRAMS_MAX_S):
            programs = fetch_artifacts(shared.absolute(), java, say)
            make_caches(java, programs, say, self._remember)
        ports = _ports(state, processes)
        inner = state.inner.absolute()
        self.kafka = Kafka(java, programs, inner / "kafka", ports["kafka"], ports["controller"])
        self.registry = Registry(java, programs, inner / "registry", ports["registry"], ports["registry-management"])

    def run(self, parts: Collection[Part]) -> tuple[Address, tuple[Part, ...]]:
        """Bring these parts up; answers what had to be started."""
        # one that runs is asked too: it may have been left in the middle of its start, or just have been killed
        lost = [part for part in self.processes if part in parts and not self._answers(part)]
        for part in lost:
            del self.processes[part]
        missing = [part for part in STARTING_ORDER if part in parts and part not in self.processes]
        if missing:
            # until all of it runs nobody should begin to talk to the rest
            self.state.put_address(None)
        started: list[Part] = []
        try:
            for part in missing:
                started.append(part)
                self._start(part)
            for part in missing:
                if not self._answers(part):
                    end = _end_of_log(self.state.folder, part)
                    raise UnreachableError(f"{_TITLES[part]} ended while starting. {end}")
        except BaseException:
            self._take_back(started)
            raise
        address = Address(self.kafka.bootstrap, self.registry.url, self._urls())
        if address != self.state.address():
            self.state.put_address(address)
        return address, tuple(part for part in PARTS if part in started)

    def _remember(self, others: Mapping[str, ProcessId]) -> None:
        self.state.put_processes({**{str(part): process for part, process in self.processes.items()}, **others})

    @property
    def _fakes(self) -> Path:
        return self.state.inner / "fakes.json"

    def _start(self, part: Part) -> None:
        log = logs(self.state.folder, part)
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            log.replace(log.with_suffix(".log.1"))
        append_mark(log)
        match part:
            case "kafka":
                self.kafka.prepare(self.say)
                folder = self.kafka.folder
                command = self.kafka.command(*jvm_options(self.kafka.cache), sustained=self.sustained)
            case "registry":
                self.registry.prepare(self.say)
                folder = self.registry.folder
                command = self.registry.command(*jvm_options(self.registry.cache))
            case "vendors":
                folder = self.state.inner
                command = [sys.executable, "-m", "ops.local.vendors", "--state", str(self._fakes.absolute())]
        self.processes[part] = spawn(command, log=log, folder=folder)
        self._remember({})

    def _answers(self, part: Part) -> bool:
        """Wait until the part answers (true) or has ended (false); raises when it does neither in time."""
        probe = {"kafka": self.kafka.ready, "registry": self.registry.ready, "vendors": self._fakes_written}[part]
        process = self.processes[part]
        until = time.monotonic() + READY_MAX_S
        while running(process):
            if probe():
                return True
            if time.monotonic() >= until:
                end = _end_of_log(self.state.folder, part)
                raise UnreachableError(f"{_TITLES[part]} did not answer within {READY_MAX_S:.0f} s. {end}")
            time.sleep(READY_POLL_S)
        return False

    def _urls(self) -> dict[str, str]:
        vendors = self.processes.get("vendors")
        return (read_fakes(self._fakes, pid=vendors.pid) or {}) if vendors else {}

    def _fakes_written(self) -> bool:
        return read_fakes(self._fakes, pid=self.processes["vendors"].pid) is not None

    def _take_back(self, started: list[Part]) -> None:
        for part in started:
            if process := self.processes.pop(part, None):
                stop(process, grace_s=STOP_GRACE_S)
        self._remember({})


def down(folder: Path) -> list[Part]:
    """Stop all that was started here; answers what was still running. Blocks until it has ended (20 s a part at most)
    and never touches a process that merely got a pid of ours."""
    state = State(folder)
    if not state.inner.is_dir():
        return []
    with state.lock():
        return _stop_all(state)


def _stop_all(state: State) -> list[Part]:
    # first the address: nobody should begin to talk to what is ending
    state.put_address(None)
    processes = state.processes()
    ended = {name for name, process in processes.items() if stop(process, grace_s=STOP_GRACE_S) != "gone"}
    state.put_processes({})
    return [part for part in PARTS if part in ended]


def status(folder: Path) -> list[PartStatus]:
    """What is true of each part now. Changes nothing, waits for nobody."""
    state = State(folder)
    processes, address = state.processes(), state.address()
    found = []
    for part in PARTS:
        process = processes.get(part)
        alive = process is not None and running(process)
        where = {
            "kafka": address.kafka if address else None,
            "registry": address.registry if address else None,
            "vendors": ", ".join(f"{name} {url}" for name, url in address.fakes.items()) if address else None,
        }[part]
        found.append(
            PartStatus(
                part,
                "running" if alive else "ended" if process else "down",
                process.pid if process and alive else None,
                where if alive else None,
                resident_mib(process) if process and alive else None,
                logs(folder, part),
            )
        )
    return found


def logs(folder: Path, part: Part) -> Path:
    """The file with everything the part has said; it may not exist yet."""
    return State(folder).logs / f"{part}.log"


def reset(folder: Path) -> list[Part]:
    """Stop the stack and throw its data away: topics, schemas, positions, and what the project remembers of them
    (cached schemas, the fakes' databases, plans). Ports, logs and programs stay. Answers what was running."""
    state = State(folder)
    if not state.inner.is_dir():
        return []
    with state.lock():
        stopped = _stop_all(state)
        for data in ("local/kafka", "local/registry", "local/fakes.json", *REMEMBERED):
            path = folder / data
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return stopped


def _ports(state: State, running_now: Collection[Part]) -> dict[str, int]:
    """The ports of Kafka and the registry: those of a running one as they are, others as kept if they are free."""
    names: dict[Part, tuple[str, str]] = {
        "kafka": ("kafka", "controller"),
        "registry": ("registry", "registry-management"),
    }
    kept = state.ports()
    held = {name: kept[name] for part, own in names.items() if part in running_now for name in own if name in kept}
    free = [name for own in names.values() for name in own if name not in held]
    ports = {**choose(free, kept), **held}
    state.put_ports(ports)
    return ports


def _end_of_log(folder: Path, part: Part) -> str:
    """What to look at, for the end of a sentence: the log's last lines without the frames of stack traces."""
    path = logs(folder, part)
    lines = [line for line in since_mark(path, LOG_LINES_READ) if line.strip() and not _FRAME.match(line)]
    if not lines:
        return f"Its log is empty: {path}"
    shown = "\n".join(f"  {line[:300]}" for line in lines[-LOG_LINES_SHOWN:])
    return f"If its data is damaged, 'backbone local reset' begins anew. The end of {path}:\n{shown}"
