"""A project directory of its own for a test: contracts on topics of its own, one SQLite connection, a subscription."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ops.cli import cli
from tests.conftest import ROOT

FILE = """
[project]
name = "acme"
schemas = "schemas/events"
subscriptions = "consumers/subscriptions"

[connections.rows]
connector = "sql"

[contexts.local]
connections = "fake"
topics.partitions = 3

[contexts.prod]
production = true
connections = "fake"
topics.partitions = 3
registry.url = "REGISTRY"
kafka."bootstrap.servers" = "KAFKA"
"""

SUBSCRIPTION = """
description: Every event as a row.
owner: team-data
connection: rows
routes:
  - event: EVENTS
    action: row.upsert
    entity: "{{ event.id }}"
    body: {table: "{{ event.name | snake }}", row: "{{ data | allowed }}"}
"""


@dataclass(frozen=True, slots=True)
class TestProject:
    """``run("status", "--output", "json")`` is ``backbone status --output json`` in this project."""

    __test__ = False

    folder: Path
    prefix: str

    @property
    def users(self) -> str:
        return f"{self.prefix}.users"

    @property
    def invoices(self) -> str:
        return f"{self.prefix}.invoices"

    @property
    def subscription(self) -> str:
        return f"{self.prefix}-rows"

    def run(self, *arguments: str, **environment: str) -> Result:
        runner = CliRunner(env={"BACKBONE_PROJECT": str(self.folder), "BACKBONE_AUTHOR": "tester", **environment})
        return runner.invoke(cli, list(arguments))

    def document(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The one JSON document of a command that must end with ``code``."""
        result = self.run(*arguments, "--output", "json")
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def write_subscription(self, events: str = '["accounts.*"]', name: str | None = None, extra: str = "") -> Path:
        path = self.folder / "consumers" / "subscriptions" / f"{name or self.subscription}.yaml"
        path.write_text(SUBSCRIPTION.replace("EVENTS", events) + extra)
        return path


def make_project(folder: Path, prefix: str, *, kafka: str = "127.0.0.1:1", registry: str = "memory://x") -> TestProject:
    """Write it below ``folder``; the context ``local`` (and ``prod``) has these addresses."""
    for source in sorted((ROOT / "schemas" / "events").rglob("*.avsc")):
        schema = json.loads(source.read_text())
        schema["backbone"]["topic"] = f"{prefix}.{schema['backbone']['topic'].rpartition('.')[2]}"
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(schema))
    (folder / "consumers" / "subscriptions").mkdir(parents=True)
    (folder / ".backbone").mkdir()
    (folder / "backbone.toml").write_text(FILE.replace("KAFKA", kafka).replace("REGISTRY", registry))
    (folder / ".backbone" / "local.json").write_text(json.dumps({"kafka": kafka, "registry": registry, "fakes": {}}))
    project = TestProject(folder, prefix)
    project.write_subscription()
    return project
