"""A person's day with the local stack, through the command line, with the vendors' fakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import local
from ops.local.asks import answers
from ops.local.process import running
from ops.local.state import State
from tests.conftest import ROOT, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path, stack: Stack) -> Iterator[Path]:
    """A project of its own that shares the programs with ours (``stack`` has fetched them)."""
    (tmp_path / "backbone.toml").write_text('[project]\nname = "acme"\nschemas = "schemas"\nsubscriptions = "subs"\n')
    (tmp_path / ".backbone").mkdir()
    (tmp_path / ".backbone" / "artifacts").symlink_to(ROOT / ".backbone" / "artifacts")
    yield tmp_path
    local.down(tmp_path / ".backbone")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli", "local", *arguments]


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "BACKBONE_PROJECT": str(project)}


def backbone(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(project), cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def data(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return {row["part"]: row for row in json.loads(done.stdout)["data"]}


def test_up_status_up_again_logs_down(project: Path) -> None:
    first = data(backbone(project, "up", "--output", "json"))
    assert {row["state"] for row in first.values()} == {"running"}
    written = json.loads((project / ".backbone" / "local.json").read_text())
    assert written["kafka"] == first["kafka"]["address"]
    assert written["registry"] == first["registry"]["address"]
    assert {"hubspot", "slack"} <= set(written["fakes"])
    assert all(answers(f"{url}/__fake__/report") for url in written["fakes"].values())
    assert sum(row["memory_mib"] for row in first.values()) <= 700

    again = backbone(project, "up", "--output", "json")
    assert "running already" in again.stderr
    assert {part: row["pid"] for part, row in data(again).items()} == {part: r["pid"] for part, r in first.items()}
    assert "kafka" in backbone(project, "logs", "--lines", "3").stdout

    stopped = backbone(project, "down", "--output", "json")
    assert "stopped kafka, registry and vendors" in stopped.stderr
    assert {row["state"] for row in data(stopped).values()} == {"down"}
    assert not (project / ".backbone" / "local.json").exists()

    for part, row in data(backbone(project, "up", "--output", "json")).items():
        assert row["address"] == first[part]["address"], "ports are kept"
    gone = backbone(project, "reset", "--yes", "--output", "json")
    assert {row["state"] for row in data(gone).values()} == {"down"}


def test_ctrl_c_in_the_middle_of_up_leaves_nothing_running(project: Path) -> None:
    """It used to fail where the tests ran in the background of a shell: what starts there is deaf to Ctrl-C."""
    starting = subprocess.Popen(
        command("up"), env=environment(project), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    state = State(project / ".backbone")
    started = eventually(lambda: state.processes().get("registry"), 60)
    assert started is not None
    starting.send_signal(signal.SIGINT)
    _, words = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "Traceback" not in words
    assert not running(started)
    assert state.processes() == {}


def test_up_that_is_killed_is_taken_up_by_the_next_one(project: Path) -> None:
    starting = subprocess.Popen(command("up", "-q"), env=environment(project), cwd=ROOT, stdout=subprocess.DEVNULL)
    state = State(project / ".backbone")
    started = eventually(lambda: state.processes().get("registry"), 60)
    starting.kill()
    starting.wait(20)
    assert started is not None
    assert data(backbone(project, "up", "--output", "json"))["registry"]["pid"] == started.pid
