"""What vendors were given about one person, from the receipts: who, what, when, how often. Pure; no value, no payload.

One ``Given`` is one thing at one vendor: an entity (and what else it is about, a table), or where a vendor is asked by
its own ids (Slack: a message) each of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from connectors.connector import Action
from ops.ledger.query import StoredReceipt

SENT: Final = frozenset({"delivered", "unknown", "exhausted"})
"""Outcomes after which the vendor has it, or may have it."""
ERASE: Final = "erase"

Key: TypeAlias = tuple[str, str, str, str, str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """``receipt`` is the newest; ``classes`` the personal-data classes sent, ``first_at`` and ``last_at`` when, and
    ``count`` how often. ``erased_at``: the vendor has confirmed an erasure since, then."""

    receipt: StoredReceipt
    classes: tuple[str, ...]
    first_at: datetime
    last_at: datetime
    count: int
    erased_at: datetime | None = None

    @property
    def key(self) -> str:
        """What tells it from the others, for comparing two looks at the ledger; holds no plain personal value."""
        one = self.receipt
        return "|".join((one.subscription, one.connection, one.action, one.entity, one.about, one.reference or ""))


def given(found: Iterable[StoredReceipt], actions: Mapping[str, Mapping[str, Action]]) -> list[Given]:
    """What was given, by subscription and entity. ``found`` is in the order it happened; ``actions`` are those of each
    connection, by name (one that is not known any more has none)."""
    sent: dict[Key, list[StoredReceipt]] = {}
    erased: dict[Key, datetime] = {}
    for one in found:
        known = actions.get(one.connection, {})
        if one.change_kind == ERASE:
            if one.outcome == "delivered":
                for action in known.values():
                    if action.erased_by == one.action:
                        erased[_key(one, action, known)] = one.last_at
        elif one.outcome in SENT and one.body_sha256 is not None:
            sent.setdefault(_key(one, known.get(one.action), known), []).append(one)
    return [_together(receipts, erased.get(key)) for key, receipts in sent.items()]


def _together(receipts: list[StoredReceipt], erased_at: datetime | None) -> Given:
    last_at = max(one.last_at for one in receipts)
    return Given(
        receipt=receipts[-1],
        classes=tuple(sorted({name for one in receipts for name in one.personal_data_sent})),
        first_at=min(one.first_at for one in receipts),
        last_at=last_at,
        count=len({(one.event_source, one.event_type, one.event_id) for one in receipts}),
        erased_at=erased_at if erased_at is not None and erased_at >= last_at else None,
    )


def _key(one: StoredReceipt, action: Action | None, known: Mapping[str, Action]) -> Key:
    by = known.get(action.erased_by) if action is not None else None
    reference = one.reference if by is not None and by.by_reference else None
    name = one.action if action is None else action.name
    return one.subscription, one.connection, name, one.entity, one.about, reference
