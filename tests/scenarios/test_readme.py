"""A newcomer types what the README shows: the examples in Python, then every transcript after ``make demo KEEP=1``."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops import local
from producers import KafkaPublisher, PublisherSettings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = ("schemas", "producers", "connectors", "consumers", "ops")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def examples() -> dict[str, Any]:
    """The names that the README's Python defines, one block after the other."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_examples_for_service_developers_run() -> None:
    names = examples()
    tests = [name for name in names if name.startswith("test_")]
    assert tests
    for name in tests:
        names[name]()


@dataclass(frozen=True, slots=True)
class Demo:
    """The clone, and what the demo has said."""

    clone: Path
    told: str


@pytest.fixture(scope="module")
def shown(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A clone in which ``make demo KEEP=1`` has run."""
    clone = tmp_path_factory.mktemp("clone")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "backbone.toml", clone)
    (clone / ".backbone").mkdir()
    (clone / ".backbone" / "artifacts").symlink_to(ROOT / ".backbone" / "artifacts")
    try:
        done = python(clone, "ops.demo", "--keep", timeout_s=280)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Demo(clone, done.stdout)
    finally:
        python(clone, "ops.demo", "--stop")
        local.down(clone / ".backbone")


@pytest.fixture
def demo(shown: Demo) -> Path:
    return shown.clone


@pytest.mark.timeout(600)
def test_the_demo_tells_its_story_and_every_vendor_agrees(shown: Demo) -> None:
    rows = re.findall(r"^(\S+) +(HubSpot|Slack|SQLite) +([\d,]+) +([\d,]+) +\S+ +(\d+) +(\d+) +(\d+) +(\d+)$",
                      shown.told, re.MULTILINE)  # fmt: skip
    assert [row[0] for row in rows] == ["crm-contacts", "billing-alerts", "warehouse", "finance-feed"]
    for _, _, expected, applied, dead, lag, lost, wrong in rows:
        assert expected == applied
        assert (lag, lost, wrong) == ("0", "0", "0")
        assert int(dead) <= 1


def python(clone: Path, module: str, *words: str, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKBONE_")}
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=clone, env={**environment, "PYTHONPATH": str(clone), "COLUMNS": "160"}, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


def transcripts() -> list[tuple[str, list[str]]]:
    """What is typed, in the README's order, each with what it shows."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(typed, shown) for typed, shown in found if typed.startswith("backbone ")]


@pytest.mark.timeout(600)
def test_every_transcript_can_be_typed_after_the_demo(demo: Path) -> None:
    subscription = blocks("yaml")[0]
    (demo / subscription.splitlines()[0].removeprefix("# ")).write_text(subscription)
    change, letter = "", ""
    for typed, shown in transcripts():
        words = shlex.split(re.sub(r"\bch-\w+", change, typed), comments=True)[1:]
        words = [letter if re.fullmatch(r"[\w.]+/\d+/\d+", word) else word for word in words]
        if words[0] in ("apply", "undo"):
            words.append("--yes") if words[0] == "undo" else None
        said = typed_until_shown(demo, typed, words, shown)
        if planned := re.search(r"backbone apply (ch-\w+)", said):
            change = planned[1]
        if words[:2] == ["deadletter", "list"]:
            rows = json.loads(python(demo, "ops.cli", *words, "--output", "json").stdout)["data"]
            letter = rows[0]["newest_id"]
    assert change
    assert letter


def typed_until_shown(demo: Path, typed: str, words: list[str], lines: list[str]) -> str:
    """What the command says. One that only looks is typed again for a while: what the worker that the demo killed said
    last is shown until it has been silent for 40 s."""
    until = time.monotonic() + (60 if words[0] in ("status", "connection") else 0)
    while True:
        done = python(demo, "ops.cli", *words)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{typed}\n{said}"
        missing = [line for line in lines if not pattern(line).search(said)]
        if not missing:
            return said
        assert time.monotonic() < until, f"{typed} does not show\n{missing[0]}\nbut\n{said}"


def pattern(line: str) -> re.Pattern[str]:
    """A line of a transcript: words as they are, numbers, times, ids and the width of columns as they come."""
    words = re.sub(r"ch-\w+|\d{4}-\d\d-\d\dT[\d:.]+Z|\b[0-9a-f]{6,8}\b|\b[\d.,]+[smhd]?\b", "\0", line).split()
    return re.compile(
        r"\s+".join(re.escape(word).replace("\0", r"[\w.,:-]+").replace("\\\0", r"[\w.,:-]+") for word in words)
    )


def test_the_example_publishes_to_a_real_kafka(demo: Path) -> None:
    address = json.loads((demo / ".backbone" / "local.json").read_text())
    settings = PublisherSettings.from_env(
        {"BACKBONE_KAFKA__BOOTSTRAP_SERVERS": address["kafka"], "BACKBONE_REGISTRY__URL": address["registry"]}
    )
    with KafkaPublisher(settings) as publisher:
        examples()["upgrade"](publisher, "u-readme", "r-readme")
    shown = python(demo, "ops.cli", "event", "tail", "accounts.UserUpgraded", "--from", "earliest", "--no-follow",
                   "--key", "u-readme", "--output", "ndjson")  # fmt: skip
    assert [json.loads(line)["data"]["id"] for line in shown.stdout.splitlines()] == ["r-readme"], shown.stdout
