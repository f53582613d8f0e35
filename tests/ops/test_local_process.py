"""Processes of the local stack are known by pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.process import ProcessId, identify, resident_mib, running, spawn, stop
from tests.waiting import eventually

STUBBORN = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
)


def spawn_python(code: str, tmp_path: Path) -> ProcessId:
    return spawn([sys.executable, "-c", code], log=tmp_path / "logs" / "log", folder=tmp_path)


def test_a_running_process_is_found_and_stopped(tmp_path: Path) -> None:
    process = spawn_python("import time; time.sleep(60)", tmp_path)
    assert running(process)
    assert (resident_mib(process) or 0) >= 1
    assert stop(process, grace_s=10) == "stopped"
    assert not running(process)
    assert stop(process, grace_s=10) == "gone"
    assert resident_mib(process) is None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = spawn_python(STUBBORN, tmp_path)
    eventually(lambda: "deaf" in (tmp_path / "logs" / "log").read_text())
    assert stop(process, grace_s=0.2) == "killed"
    assert not running(process)


def test_another_process_with_the_same_pid_is_not_ours_and_is_left_alone() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert identify(bystander.pid) is not None
        ours = ProcessId(bystander.pid, "an earlier start")
        assert not running(ours)
        assert stop(ours, grace_s=1) == "gone"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(10)


def test_a_killed_process_counts_as_ended_before_anybody_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = identify(child.pid)
    assert process is not None
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: not running(process), about="a zombie counts as ended")
    child.wait(10)


def test_ctrl_c_in_the_terminal_does_not_reach_the_stack(tmp_path: Path) -> None:
    process = spawn_python("import time; time.sleep(60)", tmp_path)
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        stop(process, grace_s=10)


def test_what_a_process_says_is_appended_to_its_log(tmp_path: Path) -> None:
    for words in ("first", "second"):
        process = spawn_python(f"import os; os.write(1, b'out {words} '); os.write(2, b'err {words} ')", tmp_path)
        eventually(lambda ended=process: not running(ended))  # type: ignore[misc]
    assert (tmp_path / "logs" / "log").read_text() == "out first err first out second err second "


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        spawn(["/no/such/program"], log=tmp_path / "log", folder=tmp_path)
