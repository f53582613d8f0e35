"""What stands in the catalogue, as plain data: for people, and for programs that ask ``catalog show``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from connectors.connector import Action, ConnectorType
from consumers.expressions import shapes
from consumers.expressions.shapes import Shape
from consumers.routes import body_fields
from consumers.subscription import Subscription
from ops.catalog.catalog import Catalog
from ops.catalog.lineage import UNCLASSED, Flow, classes_sent, flows_of
from ops.catalog.readers import Reader
from ops.screen import duration
from schemas.contract import Contract, Field

if TYPE_CHECKING:
    from ops.catalog.seen import Seen

# ---- events and fields --------------------------------------------------------------------------------------------


def describe_event(contract: Contract, catalog: Catalog) -> dict[str, Any]:
    """Everything a contract promises, who reads what of it, and what is seen of it."""
    flows = catalog.flows_of(contract.name)
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
        "replaces": contract.replaces,
        "replaced_by": replaced_by(contract, catalog.events.values()),
        "sunset": None if contract.sunset is None else contract.sunset.isoformat(),
        "file": contract.file or None,
        "fields": [
            {**_field(field), "readers": field_readers(flows_of(flows, field, contract.name))}
            for field in contract.fields.values()
        ],
        "subscriptions": [
            {
                "subscription": reader.subscription,
                "owner": reader.owner,
                "connection": reader.connection,
                "fields": fields_read(reader),
                "how": how_known(reader),
            }
            for reader in catalog.readers_of(contract.name)
        ],
        "fresh": fresh(contract, catalog),
        "seen": None if catalog.seen is None else seen_of_event(contract, catalog.seen),
    }


def describe_field(contract: Contract, field: Field, catalog: Catalog) -> dict[str, Any]:
    """One field: what it means, and where it goes."""
    known = {reader.subscription: reader for reader in catalog.readers_of(contract.name)}
    return {
        "event": contract.name,
        "owner": contract.owner,
        **_field(field),
        "readers": [
            {
                **row,
                "owner": known[row["subscription"]].owner,
                "how": how_known(known[row["subscription"]]),
            }
            for row in field_readers(flows_of(catalog.flows_of(contract.name), field, contract.name))
        ],
    }


def replaced_by(contract: Contract, every: Iterable[Contract]) -> str | None:
    """The event that it says is read instead, or that says of itself that it replaces this one."""
    return contract.replaced_by or next((one.name for one in every if one.replaces == contract.name), None)


def personal_classes(contract: Contract) -> list[str]:
    """The personal-data classes that an event has, sorted."""
    return sorted({str(one.personal_data) for one in contract.fields.values() if one.personal_data not in UNCLASSED})


def _field(field: Field) -> dict[str, Any]:
    return {
        "field": field.path,
        "type": in_words(shapes.of_avro(field.type)),
        "required": not field.optional,
        "personal_data": None if field.personal_data in UNCLASSED else field.personal_data,
        "doc": field.doc,
        "examples": list(field.examples),
        "constraints": dict(field.constraints),
        "limits": _limits(field.constraints),
    }


def field_readers(flows: Iterable[Flow]) -> list[dict[str, Any]]:
    """Who reads a field, a row for each subscription and action, with the vendor's fields it fills."""
    found: dict[tuple[str, str, str], list[Flow]] = {}
    for flow in flows:
        found.setdefault((flow.subscription, flow.connection, flow.asked), []).append(flow)
    return [
        {
            "subscription": subscription,
            "connection": connection,
            "action": asked if ones[0].action else None,
            "projection": ones[0].projection,
            "vendor_fields": list(dict.fromkeys(one.vendor_field for one in ones)),
        }
        for (subscription, connection, asked), ones in found.items()
    ]


def fields_read(reader: Reader) -> list[str] | None:
    """The fields of an event that a subscription reads; None: a Python projection that nobody ran, which may read any
    that may leave."""
    if reader.how == "unseen":
        return None
    return ["(all)"] if "" in reader.fields else sorted(reader.fields)


def how_known(reader: Reader) -> str:
    """How it is known what a subscription reads."""
    match reader.how:
        case "parsed":
            return "from its file"
        case "recorded":
            return f"seen in {reader.events:,} event{'s' if reader.events != 1 else ''}, last on {reader.on}"
        case "unseen":
            return f"not known: nobody ran {', '.join(reader.projections)} yet"


def fresh(contract: Contract, catalog: Catalog) -> str | None:
    """``yes``, or who is late with its topic; None where nobody attached reads it, or it is not known."""
    if catalog.seen is None:
        return None
    seen = [
        (reader.subscription, catalog.seen.readers[reader.subscription])
        for reader in catalog.readers_of(contract.name)
        if reader.subscription in catalog.seen.readers
    ]
    if not seen:
        return None
    late = [name for name, one in seen if one.is_late_with(contract.topic)]
    if late:
        return f"late: {', '.join(late)}"
    return "yes" if all(one.by_topic.get(contract.topic) is not None for _, one in seen) else None


def seen_of_event(contract: Contract, seen: Seen) -> dict[str, Any]:
    """What the cluster shows of an event type. ``about_per_day`` is the topic's count by the event's part of the
    sample."""
    topic, event = seen.topics.get(contract.topic), seen.events.get(contract.name)
    return {
        "at": seen.at,
        "sample_is_whole": seen.whole,
        "topic": None
        if topic is None
        else {
            "partitions": topic.partitions,
            "kept": topic.kept,
            "last_hour": topic.last_hour,
            "last_day": topic.last_day,
            "last": newest(topic.last.values()),
            "last_by_partition": {str(number): time for number, time in topic.last.items()},
        },
        "about_per_day": seen.per_day(contract),
        "sampled": 0 if event is None else event.sampled,
        "last": None if event is None else event.last,
        "producers": {} if event is None else dict(event.producers),
        "versions": {} if event is None else dict(event.versions),
        "file_version": None if event is None else event.file_version,
    }


def newest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


# ---- subscriptions ------------------------------------------------------------------------------------------------


def describe_subscription(subscription: Subscription, catalog: Catalog) -> dict[str, Any]:
    """What a subscription does: what it reads, what it asks of whom, and how it stands."""
    reader = None if catalog.seen is None else catalog.seen.readers.get(subscription.name)
    policies = subscription.policies
    return {
        "subscription": subscription.name,
        "description": subscription.description,
        "owner": subscription.owner,
        "connection": subscription.connection,
        "connector": subscription.connector.name,
        "version": subscription.version,
        "file": subscription.file or None,
        "personal_data": sorted(subscription.personal_data_allowed),
        "purpose": subscription.purpose or None,
        "slo": duration(policies.slo),
        "send": policies.send,
        "on_unknown": policies.on_unknown,
        "on_dead_letter": policies.on_dead_letter,
        "expire_after": None if policies.expire_after is None else duration(policies.expire_after),
        "attempts": policies.retry.attempts,
        "routes": [
            {
                "event": event,
                "where": route.source.get("where"),
                "action": route.action,
                "projection": route.source.get("projection"),
                "place": route.place,
            }
            for event, routes in subscription.routes.items()
            for route in routes
        ],
        "flows": [flow_row(one, catalog) for one in catalog.flows_through(subscription.name)],
        "tests": [str(test.get("name", "")) for test in subscription.tests],
        "seen": None
        if catalog.seen is None
        else {
            "at": catalog.seen.at,
            "state": "detached" if reader is None else reader.state,
            "version": None if reader is None else reader.version,
            "members": None if reader is None else reader.members,
            "lag": None if reader is None else reader.lag,
            "oldest_seconds": None if reader is None else reader.oldest_s,
            "is_late": None if reader is None else reader.is_late,
            "problem": None if reader is None else reader.problem,
        },
    }


def flow_row(flow: Flow, catalog: Catalog) -> dict[str, Any]:
    """One line of the lineage. ``field`` ``(all)`` is the payload as a whole."""
    contract = catalog.events[flow.event]
    field = contract.fields.get(flow.field)
    is_whole = field is None or any(path.startswith(f"{flow.field}.") for path in contract.fields)
    own = [] if field is None or field.personal_data in UNCLASSED else [str(field.personal_data)]
    return {
        "event": flow.event,
        "field": flow.field or "(all)",
        "personal_data": list(flow.classes) if is_whole and not own else own,
        "subscription": flow.subscription,
        "connection": flow.connection,
        "action": flow.action,
        "projection": flow.projection,
        "vendor_field": flow.vendor_field,
        "how": flow.how,
    }


# ---- connections and actions --------------------------------------------------------------------------------------


def describe_connection(name: str, catalog: Catalog) -> dict[str, Any]:
    """What can be asked over a connection, what it promises, and which subscriptions use it."""
    connector, table = catalog.connections[name], catalog.tables[name]
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
            for subscription in catalog.users_of(name)
        ],
    }


def describe_used_action(connection: str, action: str, catalog: Catalog) -> dict[str, Any]:
    """An action as one connection has it, and who asks it with which fields."""
    flows = [one for one in catalog.flows if one.connection == connection and one.action == action]
    connector: ConnectorType = catalog.connections[connection]
    return {
        "connection": connection,
        "connector": connector.name,
        **describe_action(connector.actions[action]),
        "personal_data": classes_sent(flows, catalog.events),
        "flows": [flow_row(one, catalog) for one in flows],
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

_LIMITS_OF_ONE = {
    "maxLength": "at most 1 character", "minLength": "not empty", "maxItems": "at most 1 item", "minItems": "not empty",
    "maximum": "at most 1", "minimum": "at least 1",
}  # fmt: skip


def _limits(schema: Mapping[str, Any]) -> list[str]:
    found = []
    for part in (schema, *schema.get("anyOf", [])):
        if "enum" in part:
            found.append(f"one of {', '.join(map(str, part['enum']))}")
        found += [text.format(part[name]) for name, text in _LIMITS.items() if name in part and part[name] != 1]
        found += [words for name, words in _LIMITS_OF_ONE.items() if part.get(name) == 1]
    return found
