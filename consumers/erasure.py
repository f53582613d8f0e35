"""Erasures: what a change asks a subscription's vendor to erase of one person, on its way through the inbox. Pure.

An erasure waits in the lane of the newest event that its vendor got of the person, behind what is on its way there. It
stands sealed in the inbox (``consumers.sealing``), because the entity may be personal data itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeAlias

from pydantic import ValidationError

from connectors.connector import Delivery, Rejected
from consumers.erased import ErasedPerson
from consumers.inbox import InboxOrder
from consumers.pipeline import Refused, ToDeliver, delivery_key
from consumers.receipts import identity
from consumers.sealing import seal, unseal
from consumers.subscription import Route, Subscription
from schemas.errors import InputError
from schemas.event import Event, Origin, Record

Unseal: TypeAlias = Callable[[str], "Erasure | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """``action`` is asked of the vendor about ``entity`` (``personal``: it is made of personal data, so receipts hold
    its hash), ``about`` and ``reference`` as the receipt of what is to be erased has them. ``key`` is the event's
    record key, whose lane it takes; None: a lane of its own. ``mark`` and ``person`` say who is erased."""

    action: str
    entity: str
    personal: bool
    about: str
    reference: str | None
    key: str | None
    mark: str
    person: ErasedPerson


def sealed(erasure: Erasure, key: bytes) -> str:
    """The erasure as the inbox holds it."""
    return seal(json.dumps(asdict(erasure)), key)


def unsealed(text: str, key: bytes) -> Erasure | None:
    """The erasure of a sealed text; None where the key is another one, or it is none."""
    found = unseal(text, key)
    if found is None:
        return None
    try:
        content = json.loads(found)
        person = content["person"]
        return Erasure(**{**content, "person": ErasedPerson(**{**person, "events": tuple(person["events"])})})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def asked(
    erasure: Erasure, subscription: Subscription, order: InboxOrder, record: Record, *, place: Origin
) -> ToDeliver | Refused:
    """What is asked of the vendor. ``record`` is the newest event's, without its bytes; ``place`` is where the order
    stands in the inbox: no row counts as newer than it."""
    event_id, source, event_type, time = identity(record, None, header(record, "ce_type"))
    event = Event(
        id=event_id, type=event_type, source=source, time=_time(header(record, "ce_time"), time), subject=None,
        key=erasure.key, data={},
    )  # fmt: skip
    action = subscription.connector.actions.get(erasure.action)
    if action is None:
        return Refused(Rejected("erasure", "action: unknown"), "rejected", event_type)
    body: dict[str, Any] = dict.fromkeys(action.about[:1], erasure.about)
    if action.by_reference:
        body[action.by_reference] = erasure.reference
    try:
        action.body.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place_in_body = ".".join(["body", *map(str, first["loc"])])
        return Refused(Rejected("erasure", f"{place_in_body}: {first['type']}"), "rejected", event_type)
    delivery = Delivery(
        action=erasure.action,
        entity=erasure.entity,
        idempotency_key=delivery_key(
            event.source, event.type, event.id, subscription.name, erasure.action, f"{order.revision}/{order.number}"
        ),
        sequence=place,
        body=body,
    )
    return ToDeliver(event, delivery, PERSONAL if erasure.personal else PLAIN)


def header(record: Record, name: str) -> str:
    """A header of the envelope as text; empty where there is none."""
    return (dict(record.headers).get(name) or b"").decode("utf-8", "replace")


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return found if found.tzinfo is not None else otherwise


def _route(carried: Mapping[str, frozenset[str]]) -> Route:
    """No route of the file: nothing of the event is read or sent."""
    return Route(
        events=(), fits=None, project=_nothing, action=None, reads={}, source={}, place="erasure", carried=carried
    )


def _nothing(event: Event) -> None:
    raise InputError("an erasure is not made of an event")


PLAIN = _route({})
PERSONAL = _route({"entity": frozenset({"other"})})
