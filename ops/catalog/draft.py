"""The first text of a new subscription: a file with its words in comments that passes its own checks and test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from connectors.connector import Action, ConnectorType
from consumers.loader import check_text
from consumers.rehearsal import rehearse
from consumers.routes import body_fields
from ops.catalog.describe import describe_action
from ops.catalog.subscription_schema import FILE
from schemas.contract import Contract, Contracts
from schemas.errors import InputError
from schemas.findings import did_you_mean

_TRIES = 200


def draft(
    name: str,
    *,
    connection: str,
    connector: ConnectorType,
    contract: Contract,
    contracts: Contracts,
    folder: Path,
    owner: str,
    action: str | None = None,
) -> str:
    """The text of ``name.yaml``: one route from the event to the connection's action, with what fits by name.

    Raises InputError for an action that is not there, or a name that no subscription may have.
    """
    if action is not None and action not in connector.actions:
        raise InputError(f"{connector.name} has no action '{action}'.{did_you_mean(action, connector.actions)}")
    asked = connector.actions[action or next(iter(connector.actions))]
    reasons: list[str] = []
    for body in itertools.islice(_bodies(asked, contract), _TRIES):
        text = _text(name, connection, contract, asked, body, owner, folder)
        loaded, findings = check_text(
            name, text, contracts=contracts, connections={connection: connector}, folder=folder
        )
        # what is not known before (patterns, lengths) shows when the test runs
        differences = (
            [] if loaded is None else [one for verdict in rehearse(loaded, contracts) for one in verdict.differences]
        )
        if loaded is not None and not differences:
            return text
        reasons = reasons or [finding.message for finding in findings] or differences
    raise InputError(f"No first file can be written for this: {reasons[0] if reasons else 'the action has no body.'}")


def _bodies(action: Action, contract: Contract) -> Iterator[dict[str, Any]]:
    """Bodies worth trying, the most useful first; a wrong one is found by the checks and the next is tried."""
    fields = body_fields(action)
    examples = (action.body.model_config.get("json_schema_extra") or {}).get("examples") or [{}]  # type: ignore[union-attr]
    example: Mapping[str, Any] = examples[0] if isinstance(examples, list) and isinstance(examples[0], dict) else {}
    same = {name: _same_name(name, contract) for name in fields}
    chosen = [name for name, info in fields.items() if info.is_required() or same[name] is not None]
    choices = []
    for name in chosen:
        options = [same[name]] if same[name] is not None else []
        if fields[name].is_required():
            if isinstance(example.get(name), str) and example[name].startswith("#"):
                options.append(example[name])
            options += [
                "{{ data | allowed }}", "{{ event.name }}: {{ data." + contract.entity + " }}",
                "{{ event.name | snake }}", "{{ event.name }}", example.get(name),
            ]  # fmt: skip
        else:
            options.append(None)
        choices.append(options)
    for picked in itertools.product(*choices):
        yield {name: value for name, value in zip(chosen, picked, strict=True) if value is not None}
    yield {}


def _same_name(name: str, contract: Contract) -> str | None:
    """The event's field of this name, if it is not personal data."""
    field = contract.fields.get(name)
    if field is None or field.personal_data not in (None, "none"):
        return None
    return "{{ data." + name + (" | optional }}" if field.optional else " }}")


def _text(
    name: str, connection: str, contract: Contract, action: Action, body: Mapping[str, Any], owner: str, folder: Path
) -> str:
    lines = [
        *([f"# yaml-language-server: $schema={FILE}"] if (folder / FILE).is_file() else []),
        f"# Check it: backbone subscription check {name}     Try it: backbone subscription preview {name}",
        f"description: {_quoted(f'What {contract.name} means to {connection}.')}   # say what it does, in a sentence",
        f"owner: {owner}",
        f"connection: {connection}        # what it can do: backbone catalog show {connection}",
        "# Nothing that has a personal-data class leaves without this:",
        "# personal_data: {purpose: Why these data are sent., allow: [email]}",
        "# Policies are optional; `backbone subscription check -v` prints what is in force:",
        "# policies: {slo: 5m, retry: {attempts: 5, within: 15m}, on_unknown: hold}",
        "routes:                          # the first fitting route wins",
        f"  - event: {contract.name}        # its fields: backbone catalog show {contract.name}",
        "    # where: data.plan != 'internal'      (an expression, without braces)",
        f"    action: {action.name}",
        '    entity: "{{ data.' + contract.entity + ' }}"      # what it is about; this is the default',
        "    body:" if body else "    body: {}      # nothing is sent yet: choose from the fields below",
    ]
    lines += [f"      {field}: {_quoted(value)}" for field, value in body.items()]
    open_fields = [field for field in describe_action(action)["body"] if field["field"] not in body]
    if open_fields:
        lines.append("      # more fields of this action:")
        lines += [f"      # {field['field']}: {_short(field['doc'])}" for field in open_fields]
    lines += [
        "    # what the event has:",
        *[f"    #   data.{path}: {_short(field.doc)}{_class(field.personal_data)}" for path, field in _top(contract)],
        "tests:                           # run them: backbone subscription test " + name,
        f"  - name: {contract.name.rpartition('.')[2]} becomes {action.name}",
        f"    given: [{{event: {contract.name}}}]      # the rest: the contract's examples",
        f"    expect: [{{action: {action.name}, outcome: delivered}}]",
    ]
    return "\n".join(lines) + "\n"


def _top(contract: Contract) -> list[tuple[str, Any]]:
    return [(path, field) for path, field in contract.fields.items() if "." not in path]


def _class(personal_data: str | None) -> str:
    return f" (personal data: {personal_data})" if personal_data not in (None, "none") else ""


def _quoted(value: Any) -> str:
    """A value as YAML takes it; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 90 else f"{words[:90]}…"
