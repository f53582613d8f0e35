"""A finding: what a check of a file has to say, with the place and what to do. Shared by lint and the loaders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Final, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "notice"]
"""An error is refused; a warning should be mended; a notice asks for nothing, it is good to know."""

FINDINGS_MAX: Final = 200
"""What is said of one file at most: enough for a person, and a hostile file has no end."""

_WORD_MAX: Final = 60
_KNOWN_MAX: Final = 1_000
_COMPARED_MAX: Final = 20
_NEAR: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about one place in one file.

    ``rule`` is a stable id (``no-owner``); ``path`` is the place inside the file (``routes[0].body.email``,
    ``/fields/1/type``); ``line`` counts from 1 and is None where the format knows no lines.
    """

    file: str
    path: str
    rule: str
    message: str
    line: int | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f" {self.path}" if self.path else ""
        return f"{place}{where}: {self.message} [{self.rule}]"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known name nearest to ``name``, or an empty string; to append to a sentence.

    Names come from anywhere, and comparing two takes the product of their lengths: long names, and known ones behind
    the first thousand, are left out, and only those with the most letters in common are compared letter by letter."""
    if len(name) > _WORD_MAX:
        return ""
    matcher = difflib.SequenceMatcher(b=name)
    likely = []
    for one in islice(known, _KNOWN_MAX):
        matcher.set_seq1(one)
        if len(one) <= _WORD_MAX and matcher.real_quick_ratio() >= _NEAR and matcher.quick_ratio() >= _NEAR:
            likely.append((matcher.quick_ratio(), one))
    near = []
    for _, one in nlargest(_COMPARED_MAX, likely):
        matcher.set_seq1(one)
        near.append((matcher.ratio(), one))
    score, nearest = max(near, default=(0.0, ""))
    return f" Did you mean '{nearest}'?" if score >= _NEAR else ""
