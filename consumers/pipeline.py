"""One record on its way to a vendor: is it ours, what does it say, what is asked of the vendor. No I/O, no waiting."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal, Protocol, TypeAlias

from pydantic import ValidationError

from connectors.connector import Delivery, Rejected
from consumers.erased import Erased
from consumers.expressions import values
from consumers.expressions.values import ExpressionFailed
from consumers.subscription import Projected, Route, Subscription
from schemas.codec import SchemaWanted, Undecodable
from schemas.event import Event, Record

ENTITY_MAX: Final = 1_024


class Reader(Protocol):
    """What ``schemas.codec.Decoder`` does here. Neither call blocks or raises."""

    def event_type(self, record: Record) -> str | SchemaWanted | Undecodable: ...

    def decode(self, record: Record) -> Event | SchemaWanted | Undecodable: ...


@dataclass(frozen=True, slots=True)
class NotOurs:
    """No route fits: the offset moves, nothing else happens."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schema is not in memory yet; ask again once ``Decoder.load`` has it."""

    schema: SchemaWanted


@dataclass(slots=True)
class ToDeliver:
    """What is asked of the vendor (not frozen: it is made per record)."""

    event: Event
    delivery: Delivery
    route: Route


@dataclass(frozen=True, slots=True)
class Refused:
    """It becomes a dead letter: it cannot be decoded, or its projection failed."""

    rejected: Rejected
    kind: Literal["rejected", "undecodable"]
    event_type: str


@dataclass(frozen=True, slots=True)
class OfErased:
    """It is about a person who was erased after it had arrived: nothing is sent. ``event`` None: it was recognised by
    its key, its bytes cannot be decoded."""

    event: Event | None
    event_type: str


Projection: TypeAlias = NotOurs | Wanted | ToDeliver | Refused | OfErased

_NOT_OURS: Final = NotOurs()


class Pipeline:
    """Route, decode, project for one subscription. Pure but for the decoder's memory; one thread at a time.
    ``erased`` are the people of whom nothing is sent that arrived before they were erased."""

    def __init__(self, subscription: Subscription, decoder: Reader, erased: Erased | None = None) -> None:
        self._erased = erased or Erased()
        keys: dict[str, set[str]] = {}
        for contract in subscription.contracts.values():
            keys.setdefault(contract.topic, set()).add(contract.key)
        self._key_fields = keys
        self._name = subscription.name
        self._decoder = decoder
        self._routes = dict(subscription.routes)
        self._checks = {
            name: action.body.__pydantic_validator__.validate_python
            for name, action in subscription.connector.actions.items()
        }
        # the middle of every idempotency key of this subscription; the revision is the end
        self._middles = {name: f"{_part(subscription.name)}{_part(name)}" for name in self._checks}

    def route(self, record: Record) -> bool | SchemaWanted:
        """Whether this record may be ours, without decoding it. False: no route reads its type, or it is a tombstone.
        True: decode it at the head of its lane (also when it cannot be told: then it is a dead letter there)."""
        if record.value is None:
            return False
        event_type = self._decoder.event_type(record)
        if isinstance(event_type, str):
            return event_type in self._routes
        return event_type if isinstance(event_type, SchemaWanted) else True

    def project(self, record: Record, revision: str = "") -> Projection:
        """What this record asks of the vendor. Never raises: an exception in a projection makes it Refused, with a
        code and the place, never a value. Runs the subscription's Python projections, so it is as quick as they are.
        ``revision`` is the change that means to send something different from before, and so makes another key."""
        if record.value is None:
            return _NOT_OURS
        event = self._decoder.decode(record)
        if not isinstance(event, Event):
            if isinstance(event, SchemaWanted):
                return Wanted(event)
            event_type = self._decoder.event_type(record)
            known = event_type if isinstance(event_type, str) else ""
            if self._erased.fields and self._has_erased_key(record):
                return OfErased(None, known)
            return Refused(Rejected(event.code, event.detail), "undecodable", known)
        routes = self._routes.get(event.type)
        if routes is None:
            return _NOT_OURS
        if self._erased.fields and self._erased.holds(event.data, record.timestamp):
            return OfErased(event, event.type)
        for route in routes:
            try:
                if route.fits is not None and not route.fits(event):
                    continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the event is set aside with its place
                return _refused(event, route, f"where: {values.failed(error).code}")
            return self._projected(event, route, record, revision)
        return _NOT_OURS

    def _has_erased_key(self, record: Record) -> bool:
        if record.key is None:
            return False
        key = record.key.decode("utf-8", "replace")
        return self._erased.holds(dict.fromkeys(self._key_fields.get(record.topic, ()), key), record.timestamp)

    def _projected(self, event: Event, route: Route, record: Record, revision: str) -> Projection:
        try:
            projected = route.project(event)
        except ExpressionFailed as error:
            place = "" if route.explain is None else route.explain(event)
            return _refused(event, route, f"{place}: {error.code}" if place else error.code)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any exception in a projection
            return _refused(event, route, _python_detail(error))
        if projected is None:
            return _NOT_OURS
        if route.action is None:
            wrong = _wrong_projection(projected)
            if wrong is not None:
                return _refused(event, route, wrong)
        action, entity, body = projected.action, projected.entity, projected.body
        check = self._checks.get(action)
        if check is None:
            return _refused(event, route, "action: unknown")
        if not entity:
            return _refused(event, route, "entity: missing")
        if len(entity) > ENTITY_MAX:
            return _refused(event, route, "entity: too_large")
        for name, value in body.items():
            try:
                values.check_result(value)
            except ExpressionFailed as error:
                return _refused(event, route, f"body.{name}: {error.code}")
        try:
            check(body)
        except ValidationError as error:
            return _refused(event, route, _body_detail(error))
        except Exception as error:  # noqa: BLE001 - a validator of somebody's body model
            return _refused(event, route, f"body: {type(error).__name__}")
        delivery = Delivery(
            action=action,
            entity=entity,
            idempotency_key=idempotency_key(event, self._middles[action] + _part(revision)),
            sequence=record.origin,
            body=body,
        )
        return ToDeliver(event, delivery, route)


def idempotency_key(event: Event, end: str) -> str:
    """64 hex digits over event source, type and id, and ``end`` (subscription, action, revision). Every part has its
    length before it, so no two different sets of parts are written alike."""
    written = f"{_part(event.source)}{_part(event.type)}{_part(event.id)}{end}"
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()


def delivery_key(source: str, type_: str, id_: str, subscription: str, action: str, revision: str) -> str:
    """The idempotency key of one event's own delivery, from what a receipt says of it. What was sent together with
    others, or without some of its fields, went out under another one."""
    written = "".join(map(_part, (source, type_, id_, subscription, action, revision)))
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()


def _part(text: str) -> str:
    return f"{len(text)}:{text}"


def _refused(event: Event, route: Route, detail: str) -> Refused:
    place = f"{route.place} " if route.place else ""
    return Refused(Rejected("projection", f"{place}{detail}"[:1_000]), "rejected", event.type)


def _wrong_projection(projected: Projected) -> str | None:
    """What a Python projection gave that is no action."""
    if not isinstance(projected, Projected):
        return "projection: returned something else than Projected or None"
    if not isinstance(projected.action, str) or not isinstance(projected.entity, str):
        return "projection: action and entity must be text"
    if not isinstance(projected.body, Mapping) or not all(isinstance(name, str) for name in projected.body):
        return "projection: the body must be a mapping with names"
    return None


def _python_detail(error: BaseException) -> str:
    """The class of the exception and the innermost line of a projection file; its text may hold values."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_globals.get("__backbone_projection__")
        if file is not None:
            place = f" at {PurePath(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"


def _body_detail(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [f"{'.'.join(['body', *map(str, one['loc'])])}: {one['type']}" for one in found[:5]]
    return ", ".join(places)
