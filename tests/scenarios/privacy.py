"""A company whose one event has a field of every class of personal data, three vendors, and real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from connectors.connector import connector_types
from ops.cli import cli
from schemas.contract import PERSONAL_DATA_CLASSES
from tests.conftest import Stack
from tests.integration.world import PARTITIONS, Vendor, World

CLASSES = tuple(one for one in PERSONAL_DATA_CLASSES if one != "none")


class Company(World):
    """``crm`` keeps HubSpot in step by person, ``chat`` tells Slack, ``store`` writes rows whose key is the e-mail
    address, ``odd`` has a Python projection that fails for some."""

    chat: Vendor
    told: list[str]
    """everything that the commands have said, on either stream"""

    @property
    def names(self) -> dict[str, str]:
        return {short: f"{self.name}-{short}" for short in ("crm", "chat", "store", "odd")}

    @property
    def warehouse(self) -> Path:
        return self.folder / ".backbone" / "fakes" / "sql.sqlite"

    def write(self) -> None:
        (self.folder / "events" / self.name).mkdir(parents=True)
        (self.folder / "subscriptions").mkdir()
        nested = {
            "type": "record", "name": "Home", "doc": "A home.", "fields": [
                {"name": "street", "type": "string", "doc": "Street.", "personal_data": "address"},
                {"name": "floor", "type": "int", "doc": "Floor.", "examples": [1]},
            ],
        }  # fmt: skip
        schema = {
            "type": "record", "name": "ThingChanged", "namespace": self.name, "doc": "A person changed something.",
            "backbone": {
                "topic": self.topic, "key": "person_id", "entity": "person_id", "owner": "team-x", "contact": "#x",
                "status": "live", "freshness_slo": "60s", "retention": "7d",
            },
            "fields": [
                {"name": "person_id", "type": "string", "doc": "Who.", "examples": ["p1"]},
                {"name": "number", "type": "long", "doc": "Grows.", "examples": [1]},
                *(
                    {"name": f"the_{one}", "type": "string", "doc": f"A {one}.", "personal_data": one}
                    for one in CLASSES
                ),
                {"name": "home", "type": nested, "doc": "Where they live."},
                {"name": "notes", "type": {"type": "array", "items": "string"}, "doc": "Notes.",
                 "personal_data": "free_text"},
            ],
        }  # fmt: skip
        (self.folder / "events" / self.name / "ThingChanged.avsc").write_text(json.dumps(schema, indent=2))
        self.write_files()
        self.write_project()

    def write_files(self) -> None:
        names = self.names
        self._file(names["crm"], "hubspot", f"""
  - event: {self.event}
    action: contact.upsert
    body: {{plan: "{{{{ data.number }}}}", email: "{{{{ data.the_email }}}}", city: "{{{{ data.home.street }}}}"}}
""")  # fmt: skip
        self._file(names["chat"], "slack", f"""
  - event: {self.event}
    action: message.post
    body: {{channel: "#people", text: "{{{{ data.the_name }}}} changed {{{{ data.number }}}}"}}
""")  # fmt: skip
        self._file(names["store"], "warehouse", f"""
  - event: {self.event}
    action: row.upsert
    entity: "{{{{ data.the_email }}}}"
    body: {{table: people, row: "{{{{ data | allowed }}}}"}}
""")  # fmt: skip
        self._file(names["odd"], "hubspot", f"""
  - event: {self.event}
    projection: odd.py:odd
""")  # fmt: skip
        (self.folder / "subscriptions" / "odd.py").write_text(
            "def odd(event):\n    raise ValueError(event.data['the_email'] + event.data['the_phone'])\n"
        )

    def _file(self, name: str, connection: str, routes: str) -> None:
        (self.folder / "subscriptions" / f"{name}.yaml").write_text(
            f"description: Of people.\nowner: team-x\nconnection: {connection}\n"
            f"personal_data: {{purpose: To test., allow: [{', '.join(CLASSES)}]}}\nroutes:{routes}"
        )

    def write_project(self, *, vendor_timeout_s: float = 20, **kafka: str) -> None:
        (self.folder / "backbone.toml").write_text(
            '[project]\nname = "test"\nschemas = "events"\nsubscriptions = "subscriptions"\n'
            '[connections.hubspot]\nconnector = "hubspot"\ncustom_properties = ["plan"]\nregion = "EU"\n'
            'sub_processor = "HubSpot Ireland Ltd"\ncircuit_open = "1s"\n'
            '[connections.slack]\nconnector = "slack"\n[connections.warehouse]\nconnector = "sql"\n'
            f'[contexts.test]\nconnections = "fake"\nledger = "sqlite:///ledger.db"\n'
            f'registry.url = "{self.stack.registry_url}"\ntopics.partitions = {PARTITIONS}\n'
            f'[contexts.test.fakes]\nhubspot = "{self.vendor.url}"\nslack = "{self.chat.url}"\n'
            f'[contexts.test.kafka]\n"bootstrap.servers" = "{self.stack.bootstrap}"\n'
        )

    def invoke(self, *words: str) -> Result:
        environment = {"BACKBONE_PROJECT": str(self.folder), "BACKBONE_CONTEXT": "test", "NO_COLOR": "1"}
        result = CliRunner(env=environment).invoke(cli, list(words))
        self.told.append(result.stdout + result.stderr)
        return result

    def backbone(self, *words: str, code: int = 0) -> str:
        """As a user would, in this process: a new one for each of so many commands takes long."""
        result = self.invoke(*words)
        assert result.exit_code == code, f"{words}: exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def said(self, *words: str, code: int = 0) -> Any:
        """The data of a command in JSON mode."""
        return json.loads(self.backbone(*words, "--output", "json", code=code))["data"]

    def person(self, number: int, **values: Any) -> dict[str, Any]:
        """An event's data about one person; every personal value is theirs alone and says its class."""
        canary = f"canary{self.name}p{number}"
        return {
            "person_id": f"{self.name}-p{number}",
            "number": 1,
            **{f"the_{one}": f"{canary}-{one}" for one in CLASSES},
            "the_email": f"{canary}-email@example.org",
            "home": {"street": f"{canary}-nested", "floor": 3},
            "notes": [f"{canary}-listed"],
            **values,
        }

    def send(self, *people: dict[str, Any]) -> None:
        with self.publisher() as publisher:
            futures = [publisher.publish_data(self.contract, one, source="test") for one in people]
            for future in futures:
                future.result(30)


@contextmanager
def company(folder: Path, stack: Stack, prefix: str) -> Iterator[Company]:
    hubspot, slack = connector_types()["hubspot"].fake, connector_types()["slack"].fake
    assert hubspot is not None
    assert slack is not None
    made = Company(prefix.replace("-", ""), folder, stack, Vendor(hubspot()))
    made.chat, made.told = Vendor(slack()), []
    try:
        made.write()
        yield made
        for worker in made.workers:
            worker.stop()  # the ledger's group is shared: who was killed would stay in it for a while
    finally:
        made.close()
        made.chat.close()
