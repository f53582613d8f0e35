"""What a person asks about: an event's id, a record's place, or ``FIELD=VALUE``, one business key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.origins import parse_origin
from schemas.errors import NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from schemas.contract import Contract
    from schemas.event import Origin

_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AboutEvent:
    """The event with this id, and if it reads as ``topic/partition/offset`` the record there."""

    id: str
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class AboutValue:
    """Every event that has ``field``, whose entity, key or subject is ``value``. ``types``: the events that have it."""

    field: str
    value: str
    types: frozenset[str]


def parse_question(text: str, contracts: Mapping[str, Contract]) -> AboutEvent | AboutValue:
    """What ``text`` asks. Raises NotFoundError, with a suggestion, for a field that no event has; the message does
    not repeat the value."""
    written = _FIELD.fullmatch(text)
    if written is None:
        return AboutEvent(text, parse_origin(text))
    field, value = written.groups()
    types = frozenset(name for name, contract in contracts.items() if field in contract.fields)
    if not types:
        known = {path for contract in contracts.values() for path in contract.fields}
        raise NotFoundError(f"No event has a field '{field}'.{did_you_mean(field, known)}")
    return AboutValue(field, value, types)
