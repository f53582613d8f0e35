"""The verdict table: on the screen, and as RESULTS.json beside this file, which the README shows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from ops.benchmarks.report import machine
from tests.faults.broker import ROOT
from tests.faults.row import ACTS, Verdict

FILE = Path(__file__).parent / "RESULTS.json"
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole run, with what makes it possible to run it again."""

    at: datetime
    seed: int
    commit: str
    seconds: float
    load: float
    """the highest load average (1 min) after an act: above the number of cores others were at work too"""
    verdicts: Sequence[Verdict]


def commit() -> str:
    """The commit that runs; with a ``+`` if files of the project differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{git('rev-parse', '--short=10', 'HEAD') or 'unknown'}{'+' if changed else ''}"


def document(result: Result) -> dict[str, Any]:
    """The result as it is kept."""
    return {
        "at": f"{result.at:%Y-%m-%d}",
        "commit": result.commit,
        "seed": result.seed,
        "seconds": round(result.seconds),
        "machine": machine(),
        "load": round(result.load, 1),
        "rows": [
            {
                "act": verdict.row.act,
                "subject": ACTS[verdict.row.act],
                "name": verdict.row.name,
                "fault": verdict.row.fault,
                "expected": verdict.row.expected,
                "decisive": verdict.row.decisive,
                "verdict": verdict.verdict,
                "broken": list(verdict.broken),
                "allowed": list(verdict.allowed),
                "events": verdict.events,
                "duplicates": verdict.duplicates,
                "letters": verdict.letters,
                "seconds": round(verdict.seconds),
            }
            for verdict in result.verdicts
        ],
    }


def write(result: Result) -> None:
    FILE.write_text(json.dumps(document(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(result: Result) -> str:
    """For the screen: a row a fault, then what was broken and what was allowed, by row."""
    head = ("ACT", "ROW", "VERDICT", "EVENTS", "AGAIN", "DEAD", "SECONDS", "DECISIVE")
    rows = [
        (str(v.row.act), v.row.name, v.verdict, str(v.events), str(v.duplicates), str(v.letters), f"{v.seconds:.0f}",
         v.row.decisive)
        for v in result.verdicts
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    lines.append("")
    for verdict in result.verdicts:
        lines += [f"{verdict.row.name}: {verdict.verdict}: {one}" for one in verdict.broken]
    for verdict in result.verdicts:
        lines += [f"{verdict.row.name}: allowed: {one}" for one in verdict.allowed]
    counts = {kind: sum(v.verdict == kind for v in result.verdicts) for kind in ("holds", "broken", "not run")}
    lines += [
        "",
        f"{counts['holds']} rows hold, {counts['broken']} are broken, {counts['not run']} did not run. "
        f"Seed {result.seed}, commit {result.commit}, {result.seconds:.0f} s, load {result.load:.1f}, "
        f"{machine()}.",
    ]
    return "\n".join(lines)
