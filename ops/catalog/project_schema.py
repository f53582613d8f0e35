"""The JSON Schema of backbone.toml, for editors: the form, the settings of the installed connectors, and the names that
this project has given.

What a reference stands for is beyond JSON Schema, as is whether a broker takes a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from connectors.connector import ConnectorType
from ops.project_file import CREDENTIAL_KEY, PER_CONTEXT, PINNED_KAFKA_KEYS, SECRET_KAFKA_KEYS, File
from ops.secrets.reference import FORMS, PATTERN
from ops.settings import secret_fields

_REFERENCE = {"type": "string", "pattern": PATTERN, "description": f"A reference: {FORMS}."}
_KAFKA_VALUE = {
    "description": "A setting by librdkafka's name, or the rest of names that begin so.",
    "type": ["string", "number", "boolean", "object"],
    "additionalProperties": {"$ref": "#/$defs/KafkaValue"},
}
_NO_PASSWORD = {
    "not": {"pattern": "^[A-Za-z][A-Za-z0-9+.-]*://([^/@\\s]*:[^/@\\s]+@|\\S*[?&](ssl)?password=)"},
}
"""An address with a password in it is refused; the loader's own expressions say the same without regard to case."""


def project_schema(installed: Mapping[str, ConnectorType], connections: Mapping[str, str]) -> dict[str, Any]:
    """``connections``: the connector of each connection that the project has now, for what contexts say of them."""
    schema = File.model_json_schema()
    definitions = schema["$defs"]
    for name, definition in definitions.items():
        definitions[name] = _without_nulls(definition)
    connection, context = definitions["ConnectionTable"], definitions["ContextTable"]
    ours = connection["properties"]
    connectors = {name: _settings(kind) for name, kind in sorted(installed.items())}
    for name, settings in connectors.items():
        definitions[f"connector:{name}"] = {"properties": settings["properties"]}
    ours["connector"] |= {"enum": sorted(installed)}
    del connection["additionalProperties"]
    connection["allOf"] = [
        {
            "if": {"properties": {"connector": {"const": name}}, "required": ["connector"]},
            "then": _closed(definitions, f"connector:{name}", ours, is_open=settings["is_open"]),
        }
        for name, settings in connectors.items()
    ]
    schema["properties"]["connections"]["propertyNames"] = {"not": {"const": "ledger"}}
    context["properties"]["kafka"] |= _kafka()
    definitions["KafkaValue"] = _KAFKA_VALUE
    context["properties"]["ledger"] |= _NO_PASSWORD
    definitions["RegistryTable"]["properties"]["url"] |= _NO_PASSWORD
    protection = {key: ours[key] for key in sorted(PER_CONTEXT)}
    context["properties"]["connections"] = {
        "description": context["properties"]["connections"]["description"],
        "anyOf": [
            {"const": "fake"},
            {
                "type": "object",
                "properties": {
                    name: {
                        "type": "object",
                        "description": f"What is different here for the connection {name}: its credentials.",
                        **_closed(definitions, f"connector:{kind}", protection, is_open=connectors[kind]["is_open"]),
                    }
                    for name, kind in sorted(connections.items())
                    if kind in connectors
                },
                "additionalProperties": {"type": "object"},
            },
        ],
    }
    return schema


def _closed(definitions: Mapping[str, Any], name: str, ours: Mapping[str, Any], *, is_open: bool) -> dict[str, Any]:
    """A table of our keys and a connector's: ``properties`` stand here again, because only then nothing else may."""
    table: dict[str, Any] = {"properties": {**ours, **definitions[name]["properties"]}}
    if is_open:
        return {**table, "patternProperties": {CREDENTIAL_KEY.pattern: _REFERENCE}}
    return {**table, "additionalProperties": False}


def _settings(kind: ConnectorType) -> dict[str, Any]:
    """The settings of a connector as a table may have them: none is needed in every table, each may be a reference,
    a secret must be one."""
    schema = kind.settings.model_json_schema()
    secrets = secret_fields(kind.settings)
    properties = {}
    for name, known in schema.get("properties", {}).items():
        known = _without_nulls(known)
        described = {key: known.pop(key) for key in ("description", "default") if key in known}
        known.pop("title", None)
        described.setdefault("description", f"A setting of the connector {kind.name}.")
        if name in secrets:
            properties[name] = {**described, **{key: _REFERENCE[key] for key in ("type", "pattern")}}
        else:
            properties[name] = {**described, "anyOf": [known, _REFERENCE]}
    return {"properties": properties, "is_open": kind.settings.model_config.get("extra") == "allow"}


def _kafka() -> dict[str, Any]:
    """librdkafka's settings, written as one name or as TOML's tables in tables; what is pinned may not stand there."""
    table: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": {"$ref": "#/$defs/KafkaValue"}}
    known: dict[str, Any] = {
        "bootstrap.servers": {"type": "string", "description": "host:port of one or more brokers."},
        **{key: {**_REFERENCE, "description": "A credential, as a reference."} for key in sorted(SECRET_KAFKA_KEYS)},
        **{key: {"not": {}, "description": f"Cannot be set: {why}."} for key, why in sorted(PINNED_KAFKA_KEYS.items())},
    }
    for key, meaning in known.items():
        table["properties"][key] = meaning
        _nest(table, key.split("."), meaning)
    return table


def _nest(table: dict[str, Any], parts: Iterable[str], meaning: Mapping[str, Any]) -> None:
    *above, last = parts
    for part in above:
        properties = table.setdefault("properties", {})
        one = properties.setdefault(part, {"description": f"The settings that begin with {part}."})
        table = one
    table.setdefault("properties", {}).setdefault(last, {}).update(meaning)


def _without_nulls(node: Any) -> Any:
    """TOML has no null: what is optional is left out."""
    if isinstance(node, list):
        return [_without_nulls(one) for one in node]
    if not isinstance(node, dict):
        return node
    out = {key: _without_nulls(value) for key, value in node.items() if not (key == "default" and value is None)}
    if {"type": "null"} in out.get("anyOf", ()):
        branches = [one for one in out.pop("anyOf") if one != {"type": "null"}]
        return {**(branches[0] if len(branches) == 1 else {"anyOf": branches}), **out}
    return out
