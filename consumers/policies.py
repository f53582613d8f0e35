"""The policies of a subscription: what its file says, and for the rest what its connector and contracts suggest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from connectors.connector import Action, ConnectorType
from consumers.subscription import Policies, Retry
from consumers.subscription_file import PoliciesForm, RetryForm, RouteForm
from schemas.contract import Contract
from schemas.duration import parse_duration
from schemas.errors import InputError

SPAN_MAX: Final = timedelta(days=30)
SLO_WITHOUT_CONTRACT: Final = timedelta(minutes=5)

Place = tuple[str | int, ...]
Say = Callable[[Place, str, str], None]
"""Takes an error: where in the file, its rule, its sentence."""


def in_force(
    form: PoliciesForm | None,
    *,
    routes: Sequence[RouteForm],
    connector: ConnectorType | None,
    contracts: Iterable[Contract],
    error: Say,
) -> tuple[Policies, dict[str, str]]:
    """The policies with their defaults filled in, and for each where it comes from. ``contracts`` are those of the
    events read. What cannot be is told to ``error`` and left at its default."""
    said = form or PoliciesForm()
    retry = said.retry or RetryForm()
    sources: dict[str, str] = {}

    def stated(name: str, value: Any, default: Any, where_from: str = "default") -> Any:
        sources[name] = "this file" if value is not None else where_from
        return default if value is None else value

    def span(place: Place, text: str | None) -> timedelta | None:
        return _duration(place, text, error)

    asked = _asked(routes, connector)
    sending = said.send
    if sending == "latest":
        _check_latest(routes, connector, error)
    on_unknown = said.on_unknown
    if on_unknown == "look_up" and connector is not None and not connector.look_up:
        message = f"The connector {connector.name} cannot look up what it has sent: choose resend or hold."
        error(("policies", "on_unknown"), "policy", message)
        on_unknown = None
    never = said.expire_after == "never"
    expires = None if never else span(("policies", "expire_after"), said.expire_after)
    sources["expire_after"] = "default" if said.expire_after is None else "this file"
    ordered = sorted(action.name for action in asked if action.order_matters)
    parked: Literal["continue", "park_key"] = "park_key" if ordered else "continue"
    because = f"the order of {ordered[0]} matters" if ordered else "default"
    slos = [contract.freshness_slo for contract in contracts]
    usual = Retry()
    policies = Policies(
        send=stated("send", sending, "every"),
        slo=stated(
            "slo",
            span(("policies", "slo"), said.slo),
            min(slos, default=SLO_WITHOUT_CONTRACT),
            "the strictest contract",
        ),
        expire_after=expires,
        retry=Retry(
            attempts=stated("retry.attempts", retry.attempts, usual.attempts),
            within=stated("retry.within", span(("policies", "retry", "within"), retry.within), usual.within),
        ),
        on_unknown=stated(
            "on_unknown",
            on_unknown,
            connector.on_unknown if connector else "hold",
            f"the connector {connector.name}" if connector else "the connector",
        ),
        on_dead_letter=stated("on_dead_letter", said.on_dead_letter, parked, because),
        weight=stated("weight", said.weight, 1),
    )
    return policies, sources


def _asked(routes: Sequence[RouteForm], connector: ConnectorType | None) -> list[Action]:
    """The actions that the routes may ask for; a Python projection may ask for any of the connector's."""
    actions: Mapping[str, Action] = connector.actions if connector is not None else {}
    if any(route.projection is not None for route in routes):
        return list(actions.values())
    return [actions[name] for name in dict.fromkeys(route.action or "" for route in routes) if name in actions]


def _check_latest(routes: Sequence[RouteForm], connector: ConnectorType | None, error: Say) -> None:
    """Merging is for upserts: of other actions each says something of its own. And it is for vendors that write again
    what they are asked again: after a crash the same events may merge into other sets. One that remembers keys would
    write an older set, whose key is new to it, and drop the newest event, whose key is not."""
    if connector is None:
        return
    if connector.idempotency.kind in ("replay_key", "dedupe_id"):
        message = (
            f"'send: latest' is not possible with {connector.name}: it remembers what it was sent by its key, and "
            "what is merged has another key each time. Leave it out."
        )
        error(("policies", "send"), "policy", message)
        return
    for index, route in enumerate(routes):
        action = connector.actions.get(route.action or "")
        if action is not None and not action.upsert:
            message = (
                f"'send: latest' merges upserts, but routes[{index}] asks {action.name}, which is none: "
                "leave it out, or give that route a subscription of its own."
            )
            error(("policies", "send"), "policy", message)
            return
    if not any(action.upsert for action in _asked(routes, connector)) and any(r.projection for r in routes):
        error(("policies", "send"), "policy", f"'send: latest' merges upserts, and {connector.name} has none.")


def _duration(place: Place, text: str | None, error: Say) -> timedelta | None:
    if text is None:
        return None
    try:
        span = parse_duration(text)
    except InputError as wrong:
        sentence = str(wrong)
        error(place, "duration", f"{sentence[:1].upper()}{sentence[1:]}")
        return None
    if not timedelta() < span <= SPAN_MAX:
        error(place, "duration", "This must be more than nothing and at most 30d.")
        return None
    return span


def fed_from_several(
    routes: Sequence[RouteForm],
    read: Sequence[Iterable[str]],
    *,
    policies: Policies,
    connector: ConnectorType | None,
    contracts: Mapping[str, Contract],
) -> list[tuple[int, str]]:
    """A warning (index of the route, sentence) for every action whose entity is fed from several topics or keys:
    order, merging and parking are per key of a topic. ``read`` are the events of each route."""
    fed: dict[str, dict[tuple[str, str], int]] = {}
    for index, (route, events) in enumerate(zip(routes, read, strict=True)):
        action = connector.actions.get(route.action or "") if connector else None
        # what is about one event alone cannot be overtaken
        if action is None or "event.id" in (route.entity or ""):
            continue
        if action.upsert or action.order_matters or policies.on_dead_letter == "park_key":
            for event in events:
                contract = contracts[event]
                fed.setdefault(action.name, {}).setdefault((contract.topic, contract.key), index)
    found = []
    for name, sources in fed.items():
        if len(sources) < 2:
            continue
        listed = " and ".join(f"{topic} (by {key})" for topic, key in sorted(sources))
        message = f"{name} is fed from {listed}: order is per key of a topic, so an older value may win."
        if policies.send == "latest":
            message += " 'send: latest' merges within a key alone."
        if policies.on_dead_letter == "park_key":
            message += " 'park_key' holds back the one key alone."
        found.append((max(sources.values()), message))
    return found
