"""Receipts: what is recorded of every settled delivery, and of every range of offsets that is committed. Pure.

Names of fields and their personal-data classes stand in a receipt, never values. What is made of personal data and
must be found again (entity, record key, subject, reference) is a keyed hash: whoever asks hashes the question.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from consumers.assignment import Place
from consumers.offsets import Ended
from schemas.event import Event, Record
from schemas.traceparent import trace_id_of

if TYPE_CHECKING:
    from connectors.connector import Action, Delivery
    from consumers.inbox import InboxOrder
    from consumers.subscription import Route, Subscription

TOPIC = "backbone.deliveries"
SETTLED = "backbone.DeliverySettled"
RANGE = "backbone.RangeSettled"
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode

ReceiptOutcome: TypeAlias = Literal[
    "delivered", "skipped", "rejected", "undecodable", "exhausted", "unknown", "parked"
]  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What came of one event for one subscription (not frozen: it is made per event). ``event``, ``route`` and
    ``delivery`` are None where it did not come that far. Times are seconds since the epoch."""

    record: Record
    outcome: ReceiptOutcome
    at: float
    first_at: float
    attempts: int = 0
    reason: str | None = None
    event: Event | None = None
    event_type: str = ""
    route: Route | None = None
    carried: Sequence[Route] = ()
    """the routes of the older events that ``delivery`` carries too"""
    delivery: Delivery | None = None
    reference: str | None = None
    order: InboxOrder | None = None
    merged_into: str | None = None
    sent: bool = False
    """the vendor was asked for ``delivery``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSettled:
    """The committed offset of a partition is about to move from ``start`` to ``end``; how the records in between
    ended."""

    place: Place
    start: int
    end: int
    counts: Mapping[Ended, int] = field(default_factory=dict)


class ReceiptForm:
    """Makes the payloads of receipts for one subscription. ``key`` is the installation's key of HMAC-SHA-256; None:
    there is none, and what would have to be hashed with it is hashed with nobody's key, so that it is never found
    and never told."""

    def __init__(self, subscription: Subscription, key: bytes | None) -> None:
        self._subscription = subscription
        self._actions = subscription.connector.actions
        self._key = key or hashlib.sha256(datetime.now(UTC).isoformat().encode()).digest()
        self._known: dict[int, tuple[Route, tuple[list[str], list[str], bool]]] = {}
        self._personal_keys = {
            name: (_is_personal(contract, contract.key), _is_personal(contract, contract.entity))
            for name, contract in subscription.contracts.items()
        }

    def settled(self, receipt: Receipt) -> dict[str, Any]:
        """The fields of ``backbone.DeliverySettled``. Pure; about 15 µs."""
        event, delivery, record, order = receipt.event, receipt.delivery, receipt.record, receipt.order
        event_id, source, event_type, time = identity(record, event, receipt.event_type)
        routes = () if receipt.route is None else (receipt.route, *receipt.carried)
        fields, classes, entity_personal = self._of_routes(routes)
        key_personal, subject_personal = self._personal_keys.get(event_type, (True, True))
        key = None if record.key is None else record.key.decode("utf-8", "replace")
        subject = None if event is None else event.subject
        return {
            "event_id": event_id,
            "event_source": source,
            "event_type": event_type,
            "event_time": time,
            "origin_topic": record.topic,
            "origin_partition": record.partition,
            "origin_offset": record.offset,
            "subscription": self._subscription.name,
            "subscription_version": self._subscription.version,
            "connection": self._subscription.connection,
            "action": "" if delivery is None else delivery.action,
            "entity": "" if delivery is None else self._maybe(delivery.entity, entity_personal),
            "entity_hashed": entity_personal and delivery is not None,
            "idempotency_key": "" if delivery is None else delivery.idempotency_key,
            "revision": "" if order is None else order.revision,
            "outcome": receipt.outcome,
            "reason": receipt.reason,
            "reference": None if receipt.reference is None else self._maybe(receipt.reference, entity_personal),
            "reference_hashed": entity_personal and receipt.reference is not None,
            "attempts": receipt.attempts,
            "first_at": datetime.fromtimestamp(receipt.first_at, UTC),
            "last_at": datetime.fromtimestamp(receipt.at, UTC),
            "change_id": None if order is None else order.change,
            "change_kind": None if order is None else order.kind,
            "redrives": 0 if order is None else order.redrives + (order.kind == "redrive"),
            "trace_id": None if event is None else trace_id_of(event.traceparent),
            "fields_sent": fields if receipt.sent else [],
            "personal_data_sent": classes if receipt.sent else [],
            "body_sha256": body_hash(delivery.body) if receipt.sent and delivery is not None else None,
            "body_fields": self._body_fields(delivery) if receipt.sent and delivery is not None else [],
            "about": "" if delivery is None else self._about(delivery, entity_personal),
            "merged_into": receipt.merged_into,
            "record_key": None if key is None else self._maybe(key, key_personal),
            "record_key_hashed": key_personal and key is not None,
            "event_subject": None if subject is None else self._maybe(subject, subject_personal),
            "event_subject_hashed": subject_personal and subject is not None,
        }

    def settled_range(self, settled: RangeSettled, at: float) -> dict[str, Any]:
        """The fields of ``backbone.RangeSettled``."""
        topic, partition = settled.place
        name = self._subscription.name
        return {
            "range": f"{name} {topic}/{partition}/{settled.start}",
            "subscription": name,
            "subscription_version": self._subscription.version,
            "topic": topic,
            "partition": partition,
            "from_offset": settled.start,
            "to_offset": settled.end,
            "at": datetime.fromtimestamp(at, UTC),
            **{str(ended): count for ended, count in settled.counts.items()},
        }

    def _maybe(self, text: str, personal: bool) -> str:
        return hashed(text, self._key) if personal else text

    def _of_routes(self, routes: Sequence[Route]) -> tuple[list[str], list[str], bool]:
        """The fields that were read, the classes that were sent, whether the entity is personal: of all of them."""
        found = [self._of_route(route) for route in {id(route): route for route in routes}.values()]
        if len(found) == 1:
            return found[0]
        return (
            sorted({name for fields, _, _ in found for name in fields}),
            sorted({one for _, classes, _ in found for one in classes}),
            any(personal for _, _, personal in found),
        )

    def _of_route(self, route: Route) -> tuple[list[str], list[str], bool]:
        known = self._known.get(id(route))
        if known is None:
            classes = sorted({
                one for place, carried in route.carried.items() if place != "entity" for one in carried if one != "none"
            })  # fmt: skip
            entity_personal = any(one != "none" for one in route.carried.get("entity", ()))
            made = (sorted(route.fields_read or ()), classes, entity_personal)
            known = self._known[id(route)] = (route, made)  # the route is held, so its id stays its own
        return known[1]

    def _body_fields(self, delivery: Delivery) -> list[str]:
        inner = self._actions[delivery.action].fields_in
        fields = delivery.body if inner is None else delivery.body.get(inner)
        return sorted(fields) if isinstance(fields, Mapping) else []

    def _about(self, delivery: Delivery, personal: bool) -> str:
        text = about_text(delivery, self._actions[delivery.action])
        return self._maybe(text, personal) if text else ""


def about_text(delivery: Delivery, action: Action) -> str:
    """What a delivery is about beside its entity (sql: the table), as receipts say it; empty where there is nothing."""
    return " ".join(str(delivery.body.get(name, "")) for name in action.about)


def needs_key(subscription: Subscription) -> bool:
    """Whether receipts of this subscription hold what is made of personal data, and so is hashed with the
    installation's key."""
    contracts = subscription.contracts.values()
    routes = [route for routes in subscription.routes.values() for route in routes]
    return any(_is_personal(one, one.key) or _is_personal(one, one.entity) for one in contracts) or any(
        one != "none" for route in routes for one in route.carried.get("entity", ())
    )


def hashed(text: str, key: bytes) -> str:
    """64 hex digits: HMAC-SHA-256 of the text with the installation's key."""
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def body_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 in hex of the body as canonical JSON: sorted names, no spaces; what JSON has no word for as its text."""
    return hashlib.sha256(_canonical(body).encode("utf-8", "surrogatepass")).hexdigest()


def identity(record: Record, event: Event | None, event_type: str) -> tuple[str, str, str, datetime]:
    """Id, source, type and time: of the event, or where it could not be decoded what its envelope says, else where the
    record stands."""
    if event is not None:
        return event.id, event.source, event.type, event.time
    headers = dict(record.headers)

    def text(name: str, otherwise: str) -> str:
        found = headers.get(name)
        try:
            return found.decode() if found else otherwise
        except UnicodeDecodeError:
            return otherwise

    time = record.time if record.timestamp >= 0 else datetime.fromtimestamp(0, UTC)
    return text("ce_id", str(record.origin)), text("ce_source", record.topic), event_type, time


def _is_personal(contract: Any, name: str) -> bool:
    found = contract.fields.get(name)
    return found is None or found.personal_data not in (None, "none")
