"""The company of a fault run: one project directory with a contract a topic, a connection and a subscription a group,
and contexts that differ in how the cluster and the registry are reached."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from connectors.sql.tables import create_ddl, new_table
from tests.faults.broker import ROOT, Broker
from tests.faults.vendors import CANARY_TOKEN

PARTITIONS = 6
BODY = '{plan: "{{ data.number }}"}'
ROUTES = {
    "hubspot": f"    action: contact.upsert\n    body: {BODY}\n",
    "slack": '    action: message.post\n    entity: "{{ data.thing_id }}"\n'
    '    body: {channel: "#faults", text: "{{ data.thing_id }}/{{ data.number }}"}\n',
    "sql": '    action: row.upsert\n    entity: "{{ data.thing_id }}"\n'
    '    body: {table: things, row: {plan: "{{ data.number }}"}}\n',
}
JOURNAL = """
create table journal (at_ms real, entity text, plan integer);
create trigger made after insert on things begin
  insert into journal values ((julianday('now') - 2440587.5) * 86400000.0, new.backbone_key, new.plan);
end;
create trigger changed after update on things when old.backbone_offset is not new.backbone_offset begin
  insert into journal values ((julianday('now') - 2440587.5) * 86400000.0, new.backbone_key, new.plan);
end;
"""
"""The witness of a database: its own triggers write down what took effect."""
ACTIONS = {"hubspot": "contact.upsert", "slack": "message.post", "sql": "row.upsert"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A source topic with its publisher: ``rate`` events a second over ``keys`` keys; 0: nobody publishes by itself."""

    name: str
    rate: float = 200.0
    keys: int = 60
    times: int = 1
    """every event is published so often under the same id"""

    @property
    def domain(self) -> str:
        return self.name.partition(".")[0]

    @property
    def event(self) -> str:
        return f"{self.domain}.ThingChanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """A subscription of a row. ``workers``: how many processes of its own its act starts; ``shared``: the act's two
    processes run it instead, beside others."""

    name: str
    topic: Topic
    connector: str = "hubspot"
    context: str = "consumer"
    workers: int = 2
    shared: bool = False
    timeout_s: float = 20.0
    policies: str = "{}"
    settings: str = ""
    """more lines of the connection's table in backbone.toml"""
    projection: str = ""
    """the text of a Python projection ``project`` in place of the route's body"""


class Company:
    """Writes the project and runs its commands, each in a process of its own as a person would."""

    def __init__(self, folder: Path, broker: Broker, groups: Sequence[GroupPlan]) -> None:
        self.folder, self.broker, self.groups = folder, broker, groups

    @property
    def events(self) -> Path:
        return self.folder / "events"

    def write(self, urls: dict[str, str]) -> None:
        """The project's files; ``urls`` are the vendors' addresses by group."""
        (self.folder / "subscriptions").mkdir(parents=True)
        for topic in {group.topic for group in self.groups}:
            (self.events / topic.domain).mkdir(parents=True)
            path = self.events / topic.domain / "ThingChanged.avsc"
            path.write_text(json.dumps(contract(topic), indent=2), encoding="utf-8")
        for group in self.groups:
            route = ROUTES[group.connector]
            if group.projection:
                file = group.name.replace("-", "_")
                (self.folder / "subscriptions" / f"{file}.py").write_text(group.projection, encoding="utf-8")
                route = f"    projection: {file}.py:project\n"
            (self.folder / "subscriptions" / f"{group.name}.yaml").write_text(
                f"description: A group of the fault matrix.\nowner: team-x\nconnection: {group.name}\n"
                f"policies: {group.policies}\nroutes:\n  - event: {group.topic.event}\n{route}",
                encoding="utf-8",
            )
        (self.folder / "backbone.toml").write_text(self._toml(urls), encoding="utf-8")
        if any(group.connector == "sql" for group in self.groups):
            self._make_database()

    def _make_database(self) -> None:
        """The table as the connector would make it, with the journal, before the first row."""
        table = new_table(sa.MetaData(), "things", {"plan": "integer"}, sqlite=True)
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            database.execute("pragma journal_mode = wal")
            database.executescript(create_ddl(table, sqlite.dialect()) + ";" + JOURNAL)
            database.commit()

    def _toml(self, urls: dict[str, str]) -> str:
        lines = ["[project]", 'name = "faults"', 'schemas = "events"', 'subscriptions = "subscriptions"']
        for group in self.groups:
            lines += [f"[connections.{group.name}]", f'connector = "{group.connector}"']
            lines.append(f"timeout_s = {group.timeout_s}")
            if group.connector == "hubspot":
                lines.append('custom_properties = ["plan"]')
            lines += group.settings.splitlines()
        classic = {"group.protocol": "classic", "session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
        new = {"group.protocol": "consumer"}
        near, far = self.broker.bootstrap, self.broker.proxied
        for name, bootstrap, registry, kafka in (
            ("consumer", near, self.broker.registry.url, new),
            ("classic", near, self.broker.registry.url, classic),
            ("far", far, self.broker.registry.url, new),
            ("other-registry", near, self.broker.registry_proxied, new),
            ("ledgered", near, self.broker.registry.url, new),
        ):
            lines += [f"[contexts.{name}]", f'registry.url = "{registry}"', f"topics.partitions = {PARTITIONS}"]
            if name == "ledgered":
                lines.append(f'ledger = "sqlite:///{self.ledger}"')
            lines += [f"[contexts.{name}.kafka]", f'"bootstrap.servers" = "{bootstrap}"']
            lines += [f'"{key}" = "{value}"' for key, value in kafka.items()]
            for group in self.groups:
                lines.append(f"[contexts.{name}.connections.{group.name}]")
                if group.connector == "sql":
                    lines.append('url = "env:FAULTS_DATABASE"')
                    continue
                suffix = "/api" if group.connector == "slack" else ""
                lines += ['token = "env:FAULTS_TOKEN"', f'base_url = "{urls[group.name]}{suffix}"']
        return "\n".join(lines) + "\n"

    @property
    def database(self) -> Path:
        """The database of groups with the connector ``sql``."""
        return self.folder / "faults.sqlite"

    @property
    def ledger(self) -> Path:
        """The ledger of the context ``ledgered``, in a folder of its own."""
        return self.folder / "ledger" / "ledger.db"

    def environment(self, context: str = "consumer") -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BACKBONE_PROJECT": str(self.folder),
            "BACKBONE_CONTEXT": context,
            "FAULTS_TOKEN": CANARY_TOKEN,
            "FAULTS_DATABASE": f"sqlite:///{self.database}",
            "NO_COLOR": "1",
            "PYTHONFAULTHANDLER": "1",
        }

    def backbone(self, *words: str, code: int = 0, context: str = "consumer") -> str:
        """Run the command line; its standard output. Raises AssertionError with what it said for another exit."""
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *words], env=self.environment(context), cwd=self.folder,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command that takes a while; its words come together, from both streams."""
        return subprocess.Popen(
            [sys.executable, "-m", "ops.cli", *words], env=self.environment(), cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def prepare(self) -> None:
        """Register the contracts with their topics and attach every subscription from the earliest record."""
        from tests.ops.broker import backbone  # the same commands without a start of Python for each

        os.environ.update(self.environment())
        self.backbone("schema", "register", "--apply", "--yes")
        for group in self.groups:
            answer = backbone("subscription", "attach", group.name, "--from", "earliest", "--apply", "--yes")
            assert answer.code == 0, f"attach {group.name}: exit {answer.code}\n{answer.out}\n{answer.err}"


def contract(topic: Topic) -> dict[str, object]:
    """The Avro schema of a topic's events: a key, a number that grows, and personal data that nobody sends on."""
    return {
        "type": "record", "name": "ThingChanged", "namespace": topic.domain, "doc": "A thing was changed.",
        "backbone": {
            "topic": topic.name, "key": "thing_id", "entity": "thing_id", "owner": "team-x", "contact": "#x",
            "status": "live", "freshness_slo": "60s", "retention": "7d",
        },
        "fields": [
            {"name": "thing_id", "type": "string", "doc": "Which thing.", "examples": ["t1"]},
            {"name": "number", "type": "long", "doc": "Grows with every change of a thing.", "examples": [1]},
            {"name": "email", "type": "string", "doc": "Whose it is.", "examples": ["ana@example.org"],
             "personal_data": "email"},
        ],
    }  # fmt: skip
