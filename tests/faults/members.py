"""The workers of a fault run: real ``backbone run`` processes, watched from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.company import Company
from tests.integration.world import Worker

WATCH_S = 1.0
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Member:
    """A worker that is watched: the last metrics it published and the most memory it held."""

    worker: Worker
    metrics: str = ""
    peak_mib: float = 0.0
    health: str = ""
    leaving: bool = False

    def look(self) -> None:
        """One look from outside; a process that has ended, is frozen or busy keeps what was seen last."""
        with contextlib.suppress(psutil.Error):
            self.peak_mib = max(self.peak_mib, psutil.Process(self.worker.process.pid).memory_info().rss / (1 << 20))
        if not self.health:
            self.health = next((str(line["health"]) for line in self.worker.said("worker_started")), "")
        if self.health:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.health}/metrics", timeout=1) as answer:
                self.metrics = answer.read().decode()

    def series(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for line in self.metrics.splitlines():
            if found := _SERIES.match(line):
                yield found[1], dict(_LABEL.findall(found[2] or "")), float(found[3])


class Members:
    """Every worker of a run, watched once a second until it is closed."""

    def __init__(self) -> None:
        self.all: list[Member] = []
        self.numbers = itertools.count()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_S):
            for member in list(self.all):
                if member.worker.process.poll() is None:
                    member.look()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10)
        for member in self.all:
            if member.worker.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.worker.process.pid, signal.SIGCONT)
                member.worker.kill()


def start_worker(company: Company, names: Sequence[str], context: str, journals: Path, members: Members) -> Member:
    number = next(members.numbers)
    log = journals / f"worker-{number}-{names[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "run", *names, "--log", "json"],
            env=company.environment(context), cwd=company.folder, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    member = Member(Worker(process, log))
    members.all.append(member)
    return member
