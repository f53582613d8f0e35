"""The regular expressions of contracts, run by an engine that never backtracks.

A pattern of somebody's file meets values of somebody else: with Python's own engine ``^(a+)+$`` and forty letters keep
a process busy for good. pydantic's engine (the ``regex`` crate of Rust) takes time in proportion to the value, is the
one that the generated models use, and leaves out what no such engine can do: looking around and referring back.
What is left, counted repetitions of large classes, is bounded by ``weight``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

TEXT_MAX: Final = 1_000
WEIGHT_MAX: Final = 5_000
"""About what ``\\w{100}`` or ``.{1000}`` weigh; matching 1,000 characters against it takes some 20 ms at most."""

_PIECE = re.compile(r"\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{[0-9]*(?:,[0-9]*)?\}|.", re.DOTALL)
_COUNT = re.compile(r"\{([0-9]*)(?:,([0-9]*))?\}\Z")
_WIDE = re.compile(r"\\[pPwWdDsS]")
"""Classes that mean hundreds of ranges of Unicode."""


@lru_cache(maxsize=1_000)
def compiled(text: str) -> Callable[[str], bool]:
    """Whether the pattern is found in a value. Raises ValueError for what is no pattern."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex")).isinstance_python
    except SchemaError as error:
        raise ValueError("no regular expression") from error


def weight(text: str) -> int:
    """How much has to be looked at for one character of a value, at most: its pieces with repetitions written out.
    An upper bound and quick, also for what is no pattern."""
    stack: list[int] = []
    total = last = 0
    for piece in _PIECE.findall(text):
        if piece == "(":
            stack.append(total)
            total = last = 0
        elif piece == ")":
            last = total
            total += stack.pop() if stack else 0
        elif count := _COUNT.match(piece):
            times = max((int(number) for number in count.groups() if number), default=1)
            total += last * (min(times, WEIGHT_MAX) - 1) if times > 1 else 0
            last *= max(1, min(times, WEIGHT_MAX))
        else:
            last = 50 if _WIDE.search(piece) else 5 if piece == "." or piece.startswith("[") else 1
            total += last
        if total > 1_000 * WEIGHT_MAX:
            break
    return total + sum(stack)
