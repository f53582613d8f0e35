"""``backbone apply ID`` as a process of its own, to be interrupted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.conftest import ROOT
from tests.ops.projects import TestProject


class Applying:
    """``backbone apply ID`` as a process of its own."""

    def __init__(self, project: TestProject, change_id: str) -> None:
        here = {"PATH": os.environ["PATH"], "BACKBONE_PROJECT": str(project.folder), "PYTHONPATH": str(ROOT)}
        self.change = change_id
        self.log = project.folder / f"{change_id}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "apply", change_id], cwd=project.folder, env=here, stdout=log,
                stderr=log,
            )  # fmt: skip

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def end(self, signal_: int | None = None) -> int:
        if signal_ is not None:
            self.process.send_signal(signal_)
        return self.process.wait(60)


@contextmanager
def applications(project: TestProject) -> Iterator[Callable[[str], Applying]]:
    """Starts them; ends what still runs."""
    started: list[Applying] = []

    def start(change_id: str) -> Applying:
        started.append(Applying(project, change_id))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            if one.process.poll() is None:
                one.end(signal.SIGKILL)
