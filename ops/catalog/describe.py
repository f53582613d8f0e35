"""What an event or a connection is, as plain data: for people, and for programs that ask ``catalog show``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from connectors.connector import Action, ConnectorType
from consumers.expressions import shapes
from consumers.expressions.shapes import Shape
from consumers.routes import body_fields
from consumers.subscription import Subscription
from ops.screen import duration
from schemas.contract import Contract


def describe_event(contract: Contract, subscriptions: Iterable[Subscription]) -> dict[str, Any]:
    """Everything a contract promises, and who reads what of it."""
    return {
        "event": contract.name,
        "doc": contract.doc,
        "owner": contract.owner,
        "contact": contract.contact or None,
        "status": contract.status,
        "topic": contract.topic,
        "key": contract.key,
        "entity": contract.entity,
        "freshness_slo": duration(contract.freshness_slo),
        "retention": duration(contract.retention),
        "file": contract.file or None,
        "fields": [
            {
                "field": path,
                "type": in_words(shapes.of_avro(field.type)),
                "required": not field.optional,
                "personal_data": None if field.personal_data == "none" else field.personal_data,
                "doc": field.doc,
                "examples": list(field.examples),
                "constraints": dict(field.constraints),
            }
            for path, field in contract.fields.items()
        ],
        "subscriptions": [
            {
                "subscription": subscription.name,
                "owner": subscription.owner,
                "connection": subscription.connection,
                "fields": fields_read(subscription, contract.name),
            }
            for subscription in subscriptions
            if contract.name in subscription.routes
        ],
    }


def fields_read(subscription: Subscription, event: str) -> list[str] | None:
    """The fields of an event that a subscription reads; None: a Python projection, which may read any it is allowed."""
    read: set[str] = set()
    for route in subscription.routes.get(event, ()):
        if route.fields_read is None:
            return None
        read |= route.fields_read
    return ["(all)"] if "" in read else sorted(read)


def describe_connection(
    name: str, connector: ConnectorType, table: Mapping[str, Any], subscriptions: Iterable[Subscription]
) -> dict[str, Any]:
    """What can be asked over a connection, what it promises, and which subscriptions use it."""
    idempotency = connector.idempotency
    return {
        "connection": name,
        "connector": connector.name,
        "doc": connector.doc,
        "region": table.get("region"),
        "sub_processor": table.get("sub_processor"),
        "idempotency": idempotency.kind,
        "idempotency_ttl": None if idempotency.ttl is None else duration(idempotency.ttl),
        "on_unknown": connector.on_unknown,
        "batch_max": connector.batch_max,
        "actions": [describe_action(action) for action in connector.actions.values()],
        "dependency": dict(connector.dependency),
        "subscriptions": [
            {
                "subscription": subscription.name,
                "owner": subscription.owner,
                "personal_data": sorted(subscription.personal_data_allowed),
                "purpose": subscription.purpose or None,
            }
            for subscription in subscriptions
            if subscription.connection == name
        ],
    }


def describe_action(action: Action) -> dict[str, Any]:
    schema = action.body.model_json_schema()
    return {
        "action": action.name,
        "doc": _plain(action.body.__doc__ or ""),
        "upsert": action.upsert,
        "order_matters": action.order_matters,
        "open_ended": action.body.model_config.get("extra") == "allow",
        "body": [
            {
                "field": field,
                "type": _annotated(info.annotation),
                "required": info.is_required(),
                "doc": _plain(info.description or ""),
                "limits": _limits(schema.get("properties", {}).get(field, {})),
            }
            for field, info in body_fields(action).items()
        ],
    }


def in_words(shape: Shape) -> str:
    """``text``, ``list of records``, ``date or null``"""
    words = {"list": "list", "record": "record", "map": "map"}.get(shape.kind, shape.word)
    words = words.removeprefix("a ")
    if shape.kind in ("list", "map") and shape.item is not None:
        words += f" of {in_words(shape.item)}"
    return f"{words} or null" if shape.nullable and shape.kind not in ("null", "unknown") else words


def _annotated(annotation: Any) -> str:
    kinds = shapes.accepted(annotation)
    words = [in_words(Shape(kind)) for kind in shapes.shown(kinds)]
    return "anything" if "unknown" in kinds or not words else " or ".join(words)


def _plain(text: str) -> str:
    """A docstring as a paragraph for people."""
    return " ".join(text.replace("``", "'").split())


_LIMITS = {
    "maxLength": "at most {} characters", "minLength": "at least {} characters", "maxItems": "at most {} items",
    "minItems": "at least {} items", "pattern": "like {}", "maximum": "at most {}", "minimum": "at least {}",
}  # fmt: skip


def _limits(schema: Mapping[str, Any]) -> list[str]:
    found = []
    for part in (schema, *schema.get("anyOf", [])):
        if "enum" in part:
            found.append(f"one of {', '.join(map(str, part['enum']))}")
        found += [text.format(part[name]) for name, text in _LIMITS.items() if name in part]
    return found
