"""Act 5: what machines do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ops.topics import LEDGER
from tests.faults import checker
from tests.faults.cluster import DELIVERIES, lag_of
from tests.faults.company import GroupPlan, Topic
from tests.faults.process_rows import all_members
from tests.faults.row import Evidence, Row
from tests.faults.scene import Scene
from tests.faults.vendor_rows import MEMORY_MIB, converge
from tests.faults.writer import Writer
from tests.waiting import eventually

BACKLOG = 100_000
DRAINED_S = 150.0
"""The backlog is delivered in this time: two processes on a machine that also runs the vendor, the broker and us."""
DISK_KIB = 512
LEDGER_KIB = 256 << 10
"""Room for the receipts of all acts before: the ledger of this row reads them first."""


@contextlib.contextmanager
def small_disk(folder: Path, *, kib: int = DISK_KIB) -> Iterator[None]:
    """A file system of so many KiB at ``folder``. Root only."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=755", "faults", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@lru_cache
def no_disks() -> str:
    """Why a full disk cannot be made here; "" if it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root, to mount a small file system"
    from tests.faults.broker import ROOT

    try:
        with small_disk(ROOT / ".backbone" / "faults-disk"):
            return ""
    except (OSError, subprocess.CalledProcessError):
        return "file systems cannot be mounted here"


def end_here(scene: Scene) -> None:
    """No more events, and everything delivered: the workers must leave before their disk does."""
    scene.group.publishing.stop()
    converge(scene)


def stalled(scene: Scene) -> Evidence:
    group = scene.group
    writer = Writer(group)
    group.misbehave({"kind": "stall", "times": 1_000_000})
    for member in group.members:
        group.wait_until_member(member)
    writer.backlog(BACKLOG, 2_000)
    eventually(group.misbehaved, 60, poll_s=0.2, about="a call that stalls")
    scene.hold(15)
    peaks = {member.worker.log.stem: member.peak_mib for member in group.members}
    behind = group.lag()
    group.behave()
    group.healed()
    group.wait_until_converged(DRAINED_S)
    return Evidence(
        limit_s=DRAINED_S,
        seen={"records behind a stalled vendor": behind, "stalled calls": group.misbehaved()},
        findings=[checker.memory_below(peaks, MEMORY_MIB)],
    )


def disk_full(scene: Scene) -> Evidence:
    """The project's own folder (schema cache, state) is on a disk that is full before the worker starts."""
    group = scene.group
    own = group.company.folder / ".backbone"
    with small_disk(own):
        filler = own / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass  # until nothing more fits: that is the fault
        free = os.statvfs(own).f_bavail
        group.start_worker()
        all_members(scene)
        scene.hold(5)
        end_here(scene)
        for member in group.members:
            assert member.worker.process.poll() is None, "a worker ended"
        warned = sum("not kept on disk" in str(line.get("event")) for m in group.members for line in m.worker.lines())
        for member in group.members:
            member.look()
            member.worker.stop()
    return Evidence(
        seen={"the disk is full": float(free == 0), "warnings of the cache": warned},
        findings=[checker.letters_exactly(len(group.letters()), 0)],
    )


def ledger_full(scene: Scene) -> Evidence:
    """The ledger's disk fills while receipts are written to it: the ledger waits or stops, deliveries go on."""
    group = scene.group
    with small_disk(group.company.ledger.parent, kib=LEDGER_KIB):
        group.start_worker(LEDGER)
        all_members(scene)
        eventually(group.company.ledger.exists, 30, poll_s=0.2, about="the ledger")
        scene.hold(3)
        filler = group.company.ledger.parent / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass  # until nothing more fits: that is the fault
        before = len(group.applied())
        scene.hold(15)
        meanwhile = len(group.applied()) - before
        behind = lag_of(scene.broker.bootstrap, LEDGER, DELIVERIES)
        complaints = sum(
            LEDGER in (line.get("subscription"), line.get("connection"))
            and line.get("level") in ("warning", "critical")
            for line in group.members[0].worker.lines()
        )
        filler.unlink()
        if any(line.get("subscription") == LEDGER for line in group.members[0].worker.said("subscription_stopped")):
            group.company.backbone("subscription", "resume", LEDGER, context="ledgered")
        begun = time.monotonic()
        eventually(lambda: lag_of(scene.broker.bootstrap, LEDGER, DELIVERIES) < behind / 2, 90, poll_s=0.5,
                   about="the ledger to catch up")  # fmt: skip
        caught_up = time.monotonic() - begun
        end_here(scene)
        for member in group.members:
            member.look()
            member.worker.stop()
    wanted = group.plan.topic.rate * 15 / 2
    return Evidence(
        seen={"complaints of the ledger": complaints, "receipts waiting": behind},
        findings=[checker.Finding("I10", () if meanwhile > wanted else (f"only {meanwhile} events flowed meanwhile",))],
        allowed=[f"the ledger goes on {caught_up:.0f} s after there is room"],
    )


ROWS = (
    Row(
        name="memory", act=5, fault=f"the vendor stalled and {BACKLOG:,} records behind it",
        expected=f"reading pauses; memory stays below {MEMORY_MIB:.0f} MiB; all of it is delivered afterwards",
        decisive="I9 RSS",
        plans=(GroupPlan(name="m-memory", topic=Topic(name="memory.things", rate=0), timeout_s=5,
                         settings='circuit_open = "5s"'),), run=stalled,
    ),
    Row(
        name="disk-cache", act=5, fault="the disk of the schema cache is full",
        expected="a warning; delivery goes on", decisive="no crash",
        plans=(GroupPlan(name="m-disk", topic=Topic(name="disk.things", rate=50), workers=0),), run=disk_full,
        missing=no_disks,
    ),
    Row(
        name="disk-ledger", act=5, fault="the disk of the ledger is full for 15 s",
        expected="the ledger waits or stops, and says so; deliveries go on; it catches up", decisive="G4",
        plans=(
            GroupPlan(name="m-ledger", topic=Topic(name="ledgered.things", rate=100), workers=0, context="ledgered"),
        ),
        run=ledger_full, missing=no_disks,
    ),
    Row(
        name="disk-outbox", act=5, fault="the outbox's database is full",
        expected="the publish is refused, the business transaction is rolled back", decisive="I1",
        missing=lambda: "the outbox does not exist yet",
    ),
    Row(
        name="clock", act=5, fault="the wall clock an hour ahead, an hour behind",
        expected="no burst, no stall", decisive="I9",
        missing=lambda: "no process can be given another wall clock here; the pure cores take time as an argument and "
        "are tested with it",
    ),
)  # fmt: skip
