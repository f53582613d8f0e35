"""How a part of an expression is refused: with a sentence and its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from jinja2 import nodes


class RefusedHere(Exception):
    """Something in the expression is not allowed; ``offset`` counts characters from 0."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def refuse(node: nodes.Node, message: str) -> NoReturn:
    raise RefusedHere(capital(message), offset_of(node))


def offset_of(node: nodes.Node) -> int:
    """The place of a node: expression.py numbers characters where Jinja2 numbers lines. Some nodes (the
    operands of a comparison) have none; the first one inside them has."""
    place: int | None = node.lineno
    if place is None:
        return next((found - 1 for found in (inner.lineno for inner in node.iter_child_nodes()) if found), 0)
    return place - 1


def capital(words: str) -> str:
    """A sentence begins with a capital, but for the name of an event: ``accounts.UserSignedUp has no …``."""
    return words if "." in words.partition(" ")[0] else words[:1].upper() + words[1:]


def listed(names: Iterable[Any]) -> str:
    known = [str(name) for name in names]
    if not known:
        return ""
    shown = ", ".join(known[:12])
    return f" There is: {shown}{', …' if len(known) > 12 else ''}."


def count(number: int, noun: str) -> str:
    return "no arguments" if number == 0 else f"{number} {noun}{'s' if number != 1 else ''}"
