"""``send: latest``: waiting deliveries about one thing become one that carries them all. Pure.

Field by field the newest value wins, so the vendor ends where it would have ended, with one call instead of many. The
older events are over only when the merged delivery is Delivered (``consumers/flow.py``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from connectors.connector import Action, Delivery

MERGED_MAX = 100
"""Deliveries in one, at most: what is read of a lane at once is bounded."""


def can_merge(older: Delivery, newer: Delivery, action: Action) -> bool:
    """Whether both are about the same thing: action, entity, and what the action's body says it is about."""
    return (
        older.action == newer.action
        and older.entity == newer.entity
        and all(older.body.get(name) == newer.body.get(name) for name in action.about)
    )


def merged(deliveries: Sequence[Delivery], action: Action) -> Delivery:
    """One delivery for several, in log order (``can_merge`` holds between neighbours). It stands where the newest
    stands. Its idempotency key is made of all of theirs: the same set has the same key and body whenever it is formed
    again, another set has another key (one key with two bodies is an error at some vendors, a silent drop at others).
    What is merged may be merged again: one after the other gives the same as all at once (``consumers/folding.py``)."""
    newest = deliveries[-1]
    if len(deliveries) == 1:
        return newest
    body: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for delivery in deliveries:
        body |= delivery.body
        if action.fields_in is not None:
            inner = delivery.body.get(action.fields_in)
            fields |= dict(inner) if isinstance(inner, Mapping) else {}
    if action.fields_in is not None:
        body[action.fields_in] = fields
    return replace(newest, body=body, idempotency_key=merged_key([one.idempotency_key for one in deliveries]))


def merged_key(keys: Sequence[str]) -> str:
    """The idempotency key of one delivery for those that have these, in log order: that of the first two, then that
    with the third, and so on, so that what is merged may be merged again."""
    return reduce(lambda merged, key: hashlib.sha256(f"{merged}\n{key}".encode()).hexdigest(), keys)


def fields_of(delivery: Delivery, action: Action) -> frozenset[str]:
    """The names of the fields that are merged and left out one by one."""
    inner = delivery.body if action.fields_in is None else delivery.body.get(action.fields_in)
    return frozenset(inner) - frozenset(action.about) if isinstance(inner, Mapping) else frozenset()


def without(delivery: Delivery, omit: Sequence[str], action: Action) -> Delivery | None:
    """The delivery without those fields; None when nothing is left of it. What is left is another delivery, so it has
    another idempotency key: the whole one may have been sent under its own."""
    within = delivery.body if action.fields_in is None else delivery.body.get(action.fields_in)
    fields = within if isinstance(within, Mapping) else {}
    gone = sorted(name for name in omit if name in fields)
    if not gone and fields:
        return delivery
    left = {name: value for name, value in fields.items() if name not in gone}
    if not set(left) - set(action.about if action.fields_in is None else ()):
        return None
    key = hashlib.sha256("\n".join((delivery.idempotency_key, "without", *gone)).encode()).hexdigest()
    body = left if action.fields_in is None else {**delivery.body, action.fields_in: left}
    return replace(delivery, body=body, idempotency_key=key)
