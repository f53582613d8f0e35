"""Comparisons that can be judged before any event: what is never equal, and what has no order."""

from __future__ import annotations

from typing import Final

from jinja2 import nodes

from consumers.expressions.refusal import refuse
from consumers.expressions.shapes import NUMBERS, UNKNOWN, Shape

_SCALAR: Final = frozenset({"text", "integer", "number", "decimal", "boolean", "time", "date", "clock", "uuid"})


def check_comparison(node: nodes.Node, operator: str, left: Shape, right: Shape) -> None:
    kinds = (left.kind, right.kind)
    if "unknown" in kinds:
        return
    if operator in ("in", "notin"):
        if right.kind not in ("list", "text", "map", "record"):
            refuse(node, f"'in' looks into a list or a text, not into {right.word}.")
        if right.nullable:
            refuse(node, "'in' cannot look into null: put '| default([])' behind it.")
        if right.kind != "list":
            if left.kind != "text":
                refuse(node, f"'in' a text or record looks for text, not for {left.word}.")
            if left.nullable and right.kind == "text":
                refuse(node, "'in' a text cannot look for null: put '| default(…)' behind it.")
            return
        right = right.item or UNKNOWN
        if not _comparable(left, right):
            refuse(node, f"{left.word} is never in a list of {right.word}.")
        return
    if operator in ("eq", "ne"):
        if not _comparable(left, right):
            refuse(node, f"{left.word} and {right.word} are never equal.")
        return
    if left.kind not in _SCALAR or right.kind not in _SCALAR or not _comparable(left, right):
        refuse(node, f"{left.word} and {right.word} have no order.")
    if left.nullable or right.nullable:
        refuse(
            node,
            "One side can be null, which has no order: ask 'is not none and …' first, or put '| default(…)' behind it.",
        )


def _comparable(left: Shape, right: Shape) -> bool:
    kinds = {left.kind, right.kind}
    return len(kinds) == 1 or bool(kinds & {"unknown", "null"}) or kinds <= NUMBERS or kinds <= {"record", "map"}
