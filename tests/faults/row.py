"""A row of the fault matrix, and its verdict: inject, hold, heal, converge within 60 s, judge."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.faults import checker
from tests.faults.checker import Finding
from tests.faults.company import GroupPlan
from tests.faults.history import History
from tests.faults.scene import CANARIES, Group, Scene

ACTS: Mapping[int, str] = {
    1: "vendor",
    2: "processes",
    3: "broker",
    4: "data and registry",
    5: "machine",
    6: "replay during live traffic",
}


@dataclass(kw_only=True)
class Evidence:
    """What a row's function brings back. ``seen`` are counters of the system itself: each must be above 0 (I12).
    ``findings`` are the row's own; ``allowed`` sentences of what happened and may happen."""

    seen: Mapping[str, float]
    findings: Sequence[Finding] = ()
    allowed: Sequence[str] = ()
    stale_allowed: int = 0
    """entities that may be stale in the end: calls in flight when a process froze, at a vendor without a version
    guard; a database has one, and none may be stale there"""
    limit_s: float = 60.0
    """how soon after the heal it must have converged"""
    effects_once: bool = False
    unordered: bool = False
    """the row breaks the order of a key on purpose (an event published again later)"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """``run`` injects, holds, heals and waits until it has converged. ``missing`` says why it cannot run here ("" if it
    can). ``plans`` are its groups; the first is the scene's ``group``."""

    name: str
    act: int
    fault: str
    expected: str
    decisive: str
    run: Callable[[Scene], Evidence] | None = None
    plans: tuple[GroupPlan, ...] = ()
    missing: Callable[[], str] = lambda: ""


@dataclass(kw_only=True)
class Verdict:
    """What became of a row. ``broken`` says each violation, ``allowed`` each anomaly that the contract permits."""

    row: Row
    verdict: Literal["holds", "broken", "not run"]
    broken: Sequence[str] = ()
    allowed: Sequence[str] = ()
    duplicates: int = 0
    letters: int = 0
    events: int = 0
    seconds: float = 0.0


@dataclass
class Running:
    """A row while its act runs."""

    row: Row
    scene: Scene
    evidence: Evidence | None = None
    failure: str = ""
    seconds: float = 0.0
    histories: dict[str, History] = field(default_factory=dict)

    def run(self, start: Callable[[], None]) -> None:
        """``start`` its workers, then its function; an exception is a broken row, not a broken run."""
        assert self.row.run is not None
        try:
            start()
            begun = time.monotonic()
            self.evidence = self.row.run(self.scene)
            self.seconds = time.monotonic() - begun
        except Exception as error:
            self.failure = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:300] if str(error) else ''}"
            self.scene.say(f"{self.row.name} FAILED: {self.failure}")
            self.scene.say(traceback.format_exc())


def judge(running: Running) -> Verdict:
    """The default invariants on every group of the row, and the row's own findings."""
    row, scene = running.row, running.scene
    evidence = running.evidence or Evidence(seen={})
    broken = [running.failure] if running.failure else [] if running.evidence else ["it did not come to its end"]
    allowed = list(evidence.allowed) + scene.notes
    duplicates = letters = events = 0
    for group in scene.groups:
        history = running.histories[group.name]
        for finding in _findings(group, history, evidence, wholly=running.evidence is not None):
            prefix = f"{group.name}: " if len(scene.groups) > 1 else ""
            broken += [f"{finding.invariant} {prefix}{one}" for one in finding.broken]
            if finding.count > len(finding.broken):
                broken.append(f"{finding.invariant} {prefix}and {finding.count - len(finding.broken)} more")
            if finding.allowed:
                allowed.append(f"{prefix}{finding.allowed}")
        duplicates += len(history.applied) - len({one.event for one in history.applied})
        letters += len({letter.origin for letter in history.letters})
        events += len(history.stored)
    for finding in evidence.findings:
        broken += [f"{finding.invariant} {one}" for one in finding.broken]
        if finding.allowed:
            allowed.append(finding.allowed)
    return Verdict(
        row=row, verdict="broken" if broken else "holds", broken=broken, allowed=allowed, duplicates=duplicates,
        letters=letters, events=events, seconds=running.seconds,
    )  # fmt: skip


def _findings(group: Group, history: History, evidence: Evidence, *, wholly: bool) -> list[Finding]:
    found = [
        checker.no_loss(history),
        checker.exclusive(history),
        checker.commit_safety(history),
        checker.commit_monotone(history),
        checker.one_key(history, effects_once=evidence.effects_once),
        checker.letters_complete(history),
        checker.receipts_first(history),
        checker.converged(group.converged_s, limit_s=evidence.limit_s, left=f"lag {group.lag()}"),
        checker.no_leak(CANARIES, group.texts()),
    ]
    if not evidence.unordered:
        found.append(checker.order(history))
    if group.plan.connector != "slack" and not evidence.unordered:  # a message is no state
        found.append(
            checker.no_stale_state(history, allowed=0 if group.plan.connector == "sql" else evidence.stale_allowed)
        )
    if wholly:
        found.append(checker.not_vacuous(planned=history.planned, acked=len(history.acked), seen=evidence.seen))
    return found
