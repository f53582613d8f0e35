"""The JSON Schema of subscription files, for editors: the form, and what this project has to fill it with.

Event types, connections and the bodies of their actions are completed and checked while typing. The meaning of
expressions is beyond JSON Schema: any text that holds ``{{`` is accepted, and ``backbone subscription check`` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.connector import Action, ConnectorType
from consumers.subscription_file import SubscriptionForm
from schemas.contract import Contracts
from schemas.contract_form import PERSONAL_DATA_CLASSES

FILE = "subscription.schema.json"
"""Its name, beside the subscription files."""

_EXPRESSION = {"type": "string", "pattern": "\\{\\{"}


def subscription_schema(contracts: Contracts, connections: Mapping[str, ConnectorType]) -> dict[str, Any]:
    """The schema; the same for the same project."""
    schema = SubscriptionForm.model_json_schema()
    definitions = schema["$defs"]
    business = [name for name in contracts if not name.startswith("backbone.")]
    domains = sorted({name.rpartition(".")[0] + ".*" for name in business})
    definitions["Event"] = {
        "oneOf": [{"const": name, "description": contracts[name].doc} for name in business]
        + [{"const": domain, "description": f"Every event of {domain[:-2]}."} for domain in domains]
        + [{"type": "string", "pattern": "^backbone\\.", "description": "One of the backbone's own events."}],
    }
    event = {"$ref": "#/$defs/Event"}
    route = definitions["RouteForm"]["properties"]
    route["event"] |= {"anyOf": [event, {"type": "array", "items": event, "minItems": 1}]}
    definitions["GivenForm"]["properties"]["event"] |= event
    classes = [one for one in PERSONAL_DATA_CLASSES if one != "none"]
    definitions["PersonalDataForm"]["properties"]["allow"]["items"] = {"enum": classes}
    schema["properties"]["connection"] |= {"enum": sorted(connections)}
    schema["allOf"] = [_for_connection(name, connector, definitions) for name, connector in sorted(connections.items())]
    return schema


def _for_connection(name: str, connector: ConnectorType, definitions: dict[str, Any]) -> dict[str, Any]:
    """What the routes of a subscription on this connection may ask."""
    actions = sorted(connector.actions)
    bodies = []
    for action in actions:
        defined = f"{name}:{action}"
        definitions[defined] = _body(connector.actions[action], definitions, defined)
        bodies.append(
            {
                "if": {"properties": {"action": {"const": action}}, "required": ["action"]},
                "then": {"properties": {"body": {"$ref": f"#/$defs/{defined}"}}},
            }
        )
    routes = {"items": {"properties": {"action": {"enum": actions}}, "allOf": bodies}}
    return {
        "if": {"properties": {"connection": {"const": name}}, "required": ["connection"]},
        "then": {"properties": {"routes": routes}},
    }


def _body(action: Action, definitions: dict[str, Any], name: str) -> dict[str, Any]:
    schema = action.body.model_json_schema(ref_template=f"#/$defs/{name}:{{model}}")
    for inner, definition in schema.pop("$defs", {}).items():
        definitions[f"{name}:{inner}"] = definition
    for field, known in schema.get("properties", {}).items():
        described = {key: known[key] for key in ("description", "title") if key in known}
        rest = {key: value for key, value in known.items() if key not in ("description", "title", "default")}
        schema["properties"][field] = {**described, "anyOf": [_EXPRESSION, rest]}
    schema.pop("title", None)
    return schema
