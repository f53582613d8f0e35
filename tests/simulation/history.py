"""A run as text: its plan, what happened, and how to run it again."""

from __future__ import annotations

from typing import Any

from schemas.event import Origin
from tests.simulation.checker import Violation
from tests.simulation.schedule import Simulation


def told(seed: int, simulation: Simulation, violation: Violation | None, *, whole: bool, mutant: str = "") -> str:
    lines = [f"seed {seed}: {simulation.plan}"]
    if whole:
        lines += [
            f"{number:4} {at:8.2f}  {kind:<14} {' '.join(map(_short, what))}".rstrip()
            for number, (at, kind, what) in enumerate(simulation.checker.history)
        ]
    lines.append("nothing was violated" if violation is None else f"{violation.args[0]}: {violation.args[1]}")
    again = f" --mutant {mutant!r}" if mutant else ""
    lines.append(f"again: .venv/bin/python -m tests.simulation --seed {seed}{again}")
    return "\n".join(lines)


def _short(what: Any) -> str:
    if isinstance(what, Origin):
        return f"{what.partition}@{what.offset}"
    if isinstance(what, tuple) and len(what) == 2 and isinstance(what[0], str) and isinstance(what[1], int):
        return f"{what[0].partition('.')[2]}/{what[1]}"
    if isinstance(what, list):
        return "[" + ", ".join(_short(one) for one in what) + "]"
    if isinstance(what, tuple):
        return "(" + " ".join(_short(one) for one in what) + ")"
    return str(what)
