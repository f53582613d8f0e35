"""How what one version of a subscription asks of the vendor differs from what another one asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from consumers.expressions.values import ExpressionFailed, plain
from consumers.pipeline import Projection, Refused, ToDeliver
from consumers.receipts import body_hash
from ops.preview import masked

if TYPE_CHECKING:
    from connectors.connector import Action
    from consumers.subscription import Subscription
    from ops.ledger.query import StoredReceipt

Cause: TypeAlias = Literal[
    "event", "condition", "refused", "route", "action", "entity", "added", "removed", "changed", "values", "unknown"
]
CAUSES: Final[Mapping[Cause, str]] = {
    "event": "one version does not read it",
    "condition": "where decides otherwise",
    "refused": "the map fails in one version",
    "route": "another route takes it",
    "action": "another action",
    "entity": "another entity",
    "added": "the field is new",
    "removed": "the field is gone",
    "changed": "another value",
    "values": "values differ; which is not known",
    "unknown": "nothing was asked; why is not known",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One place that differs (``body.row.total``, ``entity``, ``routes``) and why. ``was`` and ``now`` are its
    values as a person may see them (what carries a personal-data class is replaced by it); None where there is none."""

    place: str
    cause: Cause
    was: Any = None
    now: Any = None


def between(was: ToDeliver, now: ToDeliver) -> list[Difference]:
    """Every place where two deliveries of one event differ; none if the vendor would be asked the same."""
    old, new = was.delivery, now.delivery
    found: list[Difference] = []
    if old.action != new.action:
        found.append(Difference("action", "action", old.action, new.action))
    if old.entity != new.entity:
        found.append(
            Difference("entity", "entity", _shown(was, "entity", old.entity), _shown(now, "entity", new.entity))
        )
    if body_hash(old.body) != body_hash(new.body):
        found += _fields("body", old.body, new.body, _shown_body(was), _shown_body(now))
    moved = was.route.place != now.route.place
    if found and moved and was.route.source.get("where") != now.route.source.get("where"):
        found.insert(0, Difference("route", "route", was.route.place, now.route.place))
    return found


def from_receipt(sent: StoredReceipt, is_entity: bool, now: ToDeliver, action: Action) -> list[Difference]:
    """The same against what a receipt says, where nobody can make the old delivery again: the names of fields are
    known, of values only whether all are the same. ``is_entity``: the receipt is about the delivery's entity."""
    new = now.delivery
    found: list[Difference] = []
    if sent.action != new.action:
        found.append(Difference("action", "action", sent.action, new.action))
    if not is_entity:
        found.append(Difference("entity", "entity"))
    if sent.body_sha256 == body_hash(new.body):
        return found
    inner = new.body if action.fields_in is None else new.body.get(action.fields_in)
    names = set(inner) if isinstance(inner, Mapping) else set()
    place = "body" if action.fields_in is None else f"body.{action.fields_in}"
    by_name = [Difference(f"{place}.{name}", "added") for name in sorted(names - set(sent.body_fields))]
    by_name += [Difference(f"{place}.{name}", "removed") for name in sorted(set(sent.body_fields) - names)]
    return found + (by_name or [Difference("body", "values")])


def without_delivery(made: Projection | None, subscription: Subscription | None, event_type: str) -> Difference:
    """Why a version (``subscription``; None: nobody can make it again) asks nothing of the vendor for an event of this
    type. ``made`` is what it makes of it."""
    if isinstance(made, Refused):
        return Difference(made.rejected.detail or made.rejected.reason, "refused")
    if subscription is None:
        return Difference("routes", "unknown")
    return Difference("routes", "condition" if event_type in subscription.routes else "event")


def _shown(made: ToDeliver, place: str, value: Any) -> Any:
    return masked(place, value, made.route.carried)


def _shown_body(made: ToDeliver) -> Any:
    try:
        return _shown(made, "body", plain(dict(made.delivery.body)))
    except ExpressionFailed:
        return "‹too large to be shown›"


def _fields(place: str, old: Any, new: Any, shown_old: Any, shown_new: Any) -> Iterator[Difference]:
    """Down to the fields, but not into what is masked: below it even names may be somebody's."""
    both = (old, new, shown_old, shown_new)
    if not all(isinstance(one, Mapping) for one in both):
        yield Difference(place, "changed", shown_old, shown_new)
        return
    for name in sorted({*old, *new}):
        at = f"{place}.{name}"
        if name not in old:
            yield Difference(at, "added", None, shown_new.get(name))
        elif name not in new:
            yield Difference(at, "removed", shown_old.get(name), None)
        elif body_hash({"": old[name]}) != body_hash({"": new[name]}):
            yield from _fields(at, old[name], new[name], shown_old.get(name), shown_new.get(name))
