"""A child process that outlives its parent, known by pid *and* start time: a reused pid is never taken for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

STOP_POLL_S = 0.02

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes this very process has started: they are reaped here, or they would stay as zombies until we end."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """``started`` is the kernel's start time of the pid, as text; two processes never share both."""

    pid: int
    started: str


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None when there is none, or only its zombie."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
        return None
    if sys.platform.startswith("linux"):
        return _identify_by_proc(pid)
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    ).stdout.split(maxsplit=1)
    if len(answer) != 2 or answer[0].startswith("Z"):
        return None
    return ProcessId(pid, answer[1].strip())


def _identify_by_proc(pid: int) -> ProcessId | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name in brackets may hold spaces and brackets itself: fields count from the last bracket
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    # start times count from boot, so the boot is part of the identity
    return ProcessId(pid, f"{boot[:8]}-{fields[19]}")


def running(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def spawn(command: Sequence[str], *, log: Path, folder: Path) -> ProcessId:
    """Start ``command`` in a session of its own (Ctrl-C here does not reach it), its output appended to ``log``.

    Raises OSError when the program cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    _children[child.pid] = child
    # a process that ended at once has no start time any more: its pid alone must do, it matches nothing that runs
    return identify(child.pid) or ProcessId(child.pid, "ended")


def stop(process: ProcessId, *, grace_s: float) -> Literal["gone", "stopped", "killed"]:
    """SIGTERM, then SIGKILL after ``grace_s``; blocks until the process has ended. Safe on a pid that is reused."""
    if not running(process):
        return "gone"
    _signal(process, signal.SIGTERM)
    if _ended(process, grace_s):
        return "stopped"
    _signal(process, signal.SIGKILL)
    _ended(process, grace_s)
    return "killed"


def _signal(process: ProcessId, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended in between: that is what we want
        os.kill(process.pid, number)


def _ended(process: ProcessId, deadline_s: float) -> bool:
    until = time.monotonic() + deadline_s
    while running(process):
        if time.monotonic() >= until:
            return False
        time.sleep(STOP_POLL_S)
    return True


def resident_mib(process: ProcessId) -> int | None:
    """Memory the process holds now, in MiB; None when it does not run."""
    if not running(process):
        return None
    answer = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=False, timeout=10
    ).stdout.strip()
    return int(answer) // 1024 if answer.isdigit() else None
