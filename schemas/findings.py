"""A finding: what a check of a file has to say, with the place and what to do. Shared by lint and the loaders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "notice"]
"""An error is refused; a warning should be mended; a notice asks for nothing, it is good to know."""


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
    """`` Did you mean 'x'?`` for the known name nearest to ``name``, or an empty string; to append to a sentence."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
