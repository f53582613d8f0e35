"""Checking the contracts of a large company: 1,000 events, five subscriptions, with and without changes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.benchmarks.measure import Line

COUNT, DOMAINS, CHANGED = 1_000, 50, 100
TARGET_S = 20
MODEL = Path(__file__).resolve().parents[2] / "schemas" / "events" / "billing" / "InvoiceCreated.avsc"
PROJECT = """
[project]
name = "large"
schemas = "schemas/events"
subscriptions = "consumers/subscriptions"
[connections.rows]
connector = "sql"
[contexts.local]
connections = "fake"
"""
SUBSCRIPTION = """
description: Events of six domains as rows.
owner: team-data
connection: rows
routes:
  - event: [EVENTS]
    action: row.upsert
    entity: "{{ event.id }}"
    body: {table: "{{ event.name | snake }}", row: "{{ data | allowed }}"}
"""


def lines(rounds: int) -> Iterator[Line]:
    with TemporaryDirectory(prefix="backbone-contracts-") as folder:
        root = Path(folder)
        _write(root)
        _git(root, "init", "-q")
        _git(root, "add", ".")
        _git(root, "commit", "-qm", "all")
        yield _line(f"check {COUNT:,} contracts", root, rounds)
        _change(root)
        yield _line(f"  with --base, {CHANGED} of them changed", root, rounds, "--base", "HEAD")


def _line(name: str, root: Path, rounds: int, *options: str) -> Line:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        command = [sys.executable, "-m", "ops.cli", "schema", "check", "--all", "--output", "json", *options]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise RuntimeError(f"the check ended with {done.returncode}")
    return Line(name, "s", times, target=TARGET_S, at_most=True)


def _write(root: Path) -> None:
    model = json.loads(MODEL.read_text(encoding="utf-8"))
    for number in range(COUNT):
        domain = f"domain{number % DOMAINS}"
        promise = {**model["backbone"], "topic": f"{domain}.things"}
        name = f"Thing{number}Created"
        file = root / "schemas" / "events" / domain / f"{name}.avsc"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**model, "name": name, "namespace": domain, "backbone": promise}, indent=1))
    folder = root / "consumers" / "subscriptions"
    folder.mkdir(parents=True)
    for number in range(5):
        events = ", ".join(f'"domain{number + 5 * step}.*"' for step in range(6))
        (folder / f"rows-{number}.yaml").write_text(SUBSCRIPTION.replace("EVENTS", events))
    (root / "backbone.toml").write_text(PROJECT)


def _change(root: Path) -> None:
    """One more optional field, and a limit that is looser than it was."""
    for file in sorted(root.rglob("*.avsc"))[:CHANGED]:
        schema = json.loads(file.read_text())
        more = {"name": "channel", "type": ["null", "string"], "default": None, "doc": "Where it was ordered."}
        schema["fields"] = [{**one, "maxLength": 900} if "maxLength" in one else one for one in schema["fields"]]
        file.write_text(json.dumps({**schema, "fields": [*schema["fields"], more]}, indent=1))


def _git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)
