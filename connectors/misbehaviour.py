"""Misbehaviour: what a fake can be told to do wrong, and for how many calls.

Orders are a JSON list. Each item has a ``kind`` and applies to the next ``times`` (1) calls, in order; "acts" says
whether the vendor did what was asked:

===================  ==========  ===============================================================================
kind                 acts        what the caller sees (parameters with their defaults)
===================  ==========  ===============================================================================
status               no          an answer of ``status`` (503), ``headers`` ({}), ``body`` (text or JSON, {})
stall                no          no answer, the connection stays open
stall_after_effect   yes         the same
cut                  no          the connection closed ``at`` "half" of an answer or at its "start" ("half")
cut_after_effect     yes         the same
slow_body            yes         the answer, one byte every ``interval_s`` (0.3)
bomb                 yes         an answer that is ``bytes`` (300 MB) when decompressed, 300 kB on the wire
late                 yes, now    the answer after ``seconds`` (1)
partial              in part     the first ``fail`` (1) items refused with ``category``; vendors with batches only
away                 no          at once, not queued: connections reset and refused for ``seconds`` (1)
well                 –           at once: what is queued is forgotten, answers take no time; what the vendor has stays
latency              –           from now on every answer takes ``ms``
quota                –           from now on at most ``max`` calls per ``per_ms`` (10000); vendors with quotas only
tokens               –           access tokens issued so far are refused, new ones live ``seconds`` (1800); vendors that
                                 issue them only
===================  ==========  ===============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TIMES_MAX = 1_000_000
BOMB_MAX = 1 << 30

KINDS: Mapping[str, Mapping[str, Any]] = {
    "status": {"status": 503, "headers": {}, "body": {}},
    "stall": {},
    "stall_after_effect": {},
    "cut": {"at": "half"},
    "cut_after_effect": {"at": "half"},
    "slow_body": {"interval_s": 0.3},
    "bomb": {"bytes": 300_000_000},
    "late": {"seconds": 1.0},
    "partial": {"fail": 1, "category": "VALIDATION_ERROR", "named": "trace"},
    "away": {"seconds": 1.0},
    "well": {},
    "latency": {"ms": 0.0},
    "quota": {"max": 100, "per_ms": 10_000},
    "tokens": {"seconds": 1800},
}
"""Every kind of misbehaviour with its parameters and their defaults."""

LASTING = frozenset({"quota", "tokens"})
"""What a vendor keeps to from now on, where it knows such a thing."""

WITHOUT_EFFECT = frozenset({"status", "stall", "cut"})


@dataclass(slots=True)
class Misbehaviour:
    """One order of the queue, with its parameters filled in; ``times`` counts down."""

    kind: str
    times: int
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_misbehaviours(document: Any) -> list[Misbehaviour]:
    """The orders of a parsed JSON list. Raises ValueError with one sentence that says which item is wrong."""
    if not isinstance(document, list):
        raise ValueError("a JSON list of misbehaviours is expected")
    orders = []
    for index, item in enumerate(document):
        kind = item.get("kind") if isinstance(item, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"[{index}].kind is not one of {', '.join(KINDS)}")
        parameters = dict(KINDS[kind])
        times = item.get("times", 1)
        for name, value in item.items():
            if name in ("kind", "times"):
                continue
            if name not in parameters:
                raise ValueError(f"[{index}].{name} is not a parameter of {kind}")
            default = parameters[name]
            number = isinstance(default, (int, float))
            right = (
                isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
                if number
                else isinstance(value, (str, dict)) or name == "body"
            )
            if not right:
                raise ValueError(f"[{index}].{name} is not a {'number >= 0' if number else 'text or object'}")
            parameters[name] = value
        if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= TIMES_MAX:
            raise ValueError(f"[{index}].times is not a whole number from 1 to {TIMES_MAX}")
        if kind == "status" and not (isinstance(parameters["status"], int) and 100 <= parameters["status"] <= 599):
            raise ValueError(f"[{index}].status is not an HTTP status")
        if kind == "status" and not isinstance(parameters["headers"], dict):
            raise ValueError(f"[{index}].headers is not an object")
        if kind == "bomb" and parameters["bytes"] > BOMB_MAX:
            raise ValueError(f"[{index}].bytes is over {BOMB_MAX}")
        orders.append(Misbehaviour(kind, times, parameters))
    return orders
