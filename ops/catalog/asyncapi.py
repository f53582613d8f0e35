"""The catalogue as an AsyncAPI 3.1 document: for portals, generators and people who know that format. Pure.

Payloads are the contracts' own Avro schemas (multi-format schema objects), headers are CloudEvents in binary mode.
Every event is sent by its owner and received by the subscriptions that read it. The same catalogue gives the same
document. Never in it: credentials, and what was seen on a cluster.

Specification: https://www.asyncapi.com/docs/reference/specification/v3.1.0, Kafka bindings 0.5.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.subscription import Subscription
from ops.catalog.catalog import Catalog
from ops.catalog.lineage import UNCLASSED
from schemas.contract import Contract
from schemas.topics import TopicPlan

ASYNCAPI = "3.1.0"
KAFKA_BINDING = "0.5.0"
AVRO = "application/vnd.apache.avro;version=1.9.0"
CLOUD_EVENTS = "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md"
SASL = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512", "GSSAPI": "gssapi"}
"""SASL mechanisms as the specification's security schemes name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The cluster of a context. ``hosts`` are ``host:port``; ``protocol`` and ``mechanism`` are librdkafka's
    ``security.protocol`` and ``sasl.mechanism``; ``registry`` is a URL without credentials, or empty."""

    name: str
    hosts: tuple[str, ...]
    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    registry: str = ""
    production: bool = False


def asyncapi(catalog: Catalog, topics: Iterable[TopicPlan], server: Server | None) -> dict[str, Any]:
    """The document. ``topics`` are the contracts' topics as a context wants them; ``server`` None: no server is
    named."""
    plans = {plan.name: plan for plan in topics}
    document: dict[str, Any] = {
        "asyncapi": ASYNCAPI,
        "id": f"urn:event-backbone:{_id(catalog.project)}",
        "info": {
            "title": f"Events of {catalog.project}",
            "version": f"1.0.0+{_fingerprint(catalog)}",
            "description": "Canonical business events in Avro over Kafka, and the subscriptions that bring them to "
            "vendors. Generated: backbone catalog export asyncapi",
            "tags": [{"name": domain} for domain in sorted({one.domain for one in catalog.contracts.values()})],
            "externalDocs": {"description": "The envelope: CloudEvents, Kafka binding", "url": CLOUD_EVENTS},
        },
        "defaultContentType": "application/avro",
    }
    if server is not None:
        document["servers"] = _servers(server)
    document["channels"] = {
        topic: _channel(topic, contracts, plans.get(topic)) for topic, contracts in catalog.contracts.topics().items()
    }
    document["operations"] = {
        **{f"send.{name}": _send(contract) for name, contract in catalog.contracts.items()},
        **{
            f"receive.{one.name}.{topic}": _receive(one, topic, events)
            for one in sorted(catalog.subscriptions.values(), key=lambda one: one.name)
            for topic, events in _by_topic(one, catalog).items()
        },
    }
    document["components"] = {
        "messages": {name: _message(contract) for name, contract in catalog.contracts.items()},
        "schemas": {"envelope": ENVELOPE},
    }
    return document


def as_text(document: Mapping[str, Any]) -> str:
    """The document as it is written to a file."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    # what a terminal would obey is spelled out, which is the same JSON
    return (text if text.replace("\n", "").isprintable() else json.dumps(document, indent=2)) + "\n"


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


ENVELOPE: Mapping[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 in binary mode. A record without it is read too: its identity is its place.",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"],
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": _text("With source and type the event's identity; the same three are one event."),
        "ce_type": _text("The event type, such as billing.InvoiceCreated."),
        "ce_source": _text("The service that published it."),
        "ce_time": {"type": "string", "format": "date-time", "description": "When it happened."},
        "ce_subject": _text("What it is about."),
        "ce_correlationid": _text("The business process it belongs to."),
        "ce_causationid": _text("The event that caused it."),
        "traceparent": _text("W3C trace context."),
        "content-type": {"type": "string", "const": "application/avro"},
    },
}


def _servers(server: Server) -> dict[str, Any]:
    secure = server.protocol.upper() in ("SSL", "SASL_SSL")
    kafka = {"bindingVersion": KAFKA_BINDING}
    if server.registry:
        kafka = {"schemaRegistryUrl": server.registry, "schemaRegistryVendor": "confluent", **kafka}
    found = {}
    for number, host in enumerate(server.hosts, 1):
        one: dict[str, Any] = {
            "host": host,
            "protocol": "kafka-secure" if secure else "kafka",
            "description": f"Kafka of the context {server.name}.",
            "tags": [{"name": "production" if server.production else "not production"}],
        }
        if server.protocol.upper().startswith("SASL") and server.mechanism.upper() in SASL:
            one["security"] = [{"type": SASL[server.mechanism.upper()]}]
        found[server.name if number == 1 else f"{server.name}-{number}"] = {**one, "bindings": {"kafka": kafka}}
    return found


def _channel(topic: str, contracts: list[Contract], plan: TopicPlan | None) -> dict[str, Any]:
    kafka: dict[str, Any] = {"topic": topic}
    if plan is not None:
        kafka["partitions"] = plan.partitions
        if plan.replication > 0:
            kafka["replicas"] = plan.replication
        configuration = {
            "cleanup.policy": plan.config.get("cleanup.policy", "delete").split(","),
            **{name: int(plan.config[name]) for name in ("retention.ms", "max.message.bytes") if name in plan.config},
        }
        kafka["topicConfiguration"] = configuration
    return {
        "address": topic,
        "title": topic,
        "description": f"Records keep their order per key ({', '.join(sorted({one.key for one in contracts}))}).",
        "messages": {one.name: {"$ref": f"#/components/messages/{one.name}"} for one in contracts},
        "tags": [{"name": domain} for domain in sorted({one.domain for one in contracts})],
        "bindings": {"kafka": {**kafka, "bindingVersion": KAFKA_BINDING}},
    }


def _message(contract: Contract) -> dict[str, Any]:
    key = contract.fields[contract.key]
    personal = {one.path: one.personal_data for one in contract.fields.values() if one.personal_data not in UNCLASSED}
    extra = {
        "x-status": contract.status,
        "x-owner": contract.owner,
        "x-contact": contract.contact,
        "x-entity": contract.entity,
        "x-freshness-slo-seconds": contract.freshness_slo.total_seconds(),
        "x-replaces": contract.replaces,
        "x-sunset": None if contract.sunset is None else contract.sunset.isoformat(),
        "x-personal-data": personal,
    }
    return {
        "name": contract.name,
        "title": contract.name.rpartition(".")[2],
        "summary": contract.doc,
        "contentType": "application/avro",
        "tags": [{"name": contract.domain}, {"name": contract.owner}],
        "headers": {"$ref": "#/components/schemas/envelope"},
        "payload": {"schemaFormat": AVRO, "schema": contract.schema},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"{contract.key}: {key.doc}"},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "schemaLookupStrategy": "TopicRecordNameStrategy",
                "bindingVersion": KAFKA_BINDING,
            }
        },
        **{name: value for name, value in extra.items() if value},
    }


def _send(contract: Contract) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{contract.topic}"},
        "title": f"{contract.owner} publishes {contract.name}",
        "summary": contract.doc,
        "tags": [{"name": contract.owner}],
        "messages": [_message_of(contract.topic, contract.name)],
    }


def _receive(subscription: Subscription, topic: str, events: list[str]) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{topic}"},
        "title": f"{subscription.name} reads {topic}",
        "summary": subscription.description,
        "tags": [{"name": subscription.owner}, {"name": subscription.connection}],
        "messages": [_message_of(topic, event) for event in events],
        "bindings": {
            "kafka": {"groupId": {"type": "string", "enum": [subscription.name]}, "bindingVersion": KAFKA_BINDING}
        },
        "x-connection": subscription.connection,
        "x-personal-data-allowed": sorted(subscription.personal_data_allowed),
    }


def _message_of(topic: str, event: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{topic}/messages/{event}"}


def _by_topic(subscription: Subscription, catalog: Catalog) -> dict[str, list[str]]:
    """The project's events that it reads, by their topic."""
    found: dict[str, list[str]] = {}
    for event in sorted(subscription.routes):
        if event in catalog.contracts:
            found.setdefault(catalog.contracts[event].topic, []).append(event)
    return dict(sorted(found.items()))


def _fingerprint(catalog: Catalog) -> str:
    """Changes when a contract or a subscription does."""
    texts = [one.text for one in catalog.contracts.values()]
    texts += [f"{one.name}@{one.version}" for one in sorted(catalog.subscriptions.values(), key=lambda one: one.name)]
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _id(text: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-._") else "-" for char in text)
