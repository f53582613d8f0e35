"""The JSON Schemas that let editors complete and check the files people write: one beside each kind of file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.catalog.project_schema import project_schema
from ops.catalog.subscription_schema import FILE as SUBSCRIPTION_FILE
from ops.catalog.subscription_schema import subscription_schema
from schemas.contract_form import form_schema
from schemas.findings import Finding

if TYPE_CHECKING:
    from ops.app import App

PROJECT_FILE: Final = "backbone.schema.json"
EVENT_FILE: Final = "event.schema.json"

HOW_FOUND: Final = f"""\
backbone.toml and subscriptions name theirs in the first line:
  #:schema ./{PROJECT_FILE}                          (TOML: taplo, Even Better TOML)
  # yaml-language-server: $schema={SUBSCRIPTION_FILE}    (YAML)
Avro files cannot; in VS Code, .vscode/settings.json:
  {{"files.associations": {{"*.avsc": "json"}},
   "json.schemas": [{{"fileMatch": ["*.avsc"], "url": "EVENTS"}}]}}"""
"""What a person has to do once; ``EVENTS`` stands for the schema of event files."""


def editor_schemas(app: App) -> dict[Path, str]:
    """Every file with its text; the same for the same project. A project that reads its contracts from the registry
    has no event files to complete. Raises InputError for what is wrong in backbone.toml or in a contract."""
    from connectors.connector import connector_types

    project = app.project
    connections = {name: table.connector for name, table in project.connections.items()}
    found = {
        project.root / PROJECT_FILE: _text(project_schema(connector_types(), connections)),
        project.subscriptions / SUBSCRIPTION_FILE: _text(subscription_schema(app.contracts, app.connection_types)),
    }
    if isinstance(project.schemas, Path):
        found[project.schemas / EVENT_FILE] = _text(form_schema())
    return found


def stale(schemas: Mapping[Path, str]) -> list[Finding]:
    """A finding for every file that is not what would be written. Blocks for reading them."""
    message = "it is not current. Write it: backbone editor"
    return [
        Finding(file=str(path), path="", rule="stale", message=message)
        for path, text in schemas.items()
        if _current(path) != text
    ]


def _current(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):  # absent, or not ours: it differs
        return None


def _text(schema: Mapping[str, Any]) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": "Generated: backbone editor"}
    return json.dumps({**head, **schema}, indent=1, ensure_ascii=False) + "\n"
