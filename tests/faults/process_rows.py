"""Act 2: what happens to processes. Each row has workers of its own."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict

from tests.faults import checker
from tests.faults.broker import now_ns
from tests.faults.checker import Finding
from tests.faults.company import GroupPlan, Topic
from tests.faults.members import Member
from tests.faults.row import Evidence, Row
from tests.faults.scene import Group, Scene
from tests.faults.vendor_rows import converge
from tests.waiting import eventually

TOPIC = Topic(name="processes.things", rate=150)
TWICE = Topic(name="again.things", rate=50, times=2)
IN_FLIGHT = 256
BLOCKED_S = 15
BLOCKING = f"""
import time

from consumers.subscription import Projected


def project(event):
    if event.data["thing_id"] == "{TOPIC.name}-7" and event.data["number"] == 40:
        time.sleep({BLOCKED_S})  # what somebody's projection may do to everybody in the process
    body = {{"plan": event.data["number"]}}
    return Projected(action="contact.upsert", entity=event.data["thing_id"], body=body)
"""


def plan(name: str, **changed: object) -> GroupPlan:
    return GroupPlan(**{"name": name, "topic": TOPIC, **changed})  # type: ignore[arg-type]


def all_members(scene: Scene) -> None:
    """Until every worker of the row has partitions and delivers."""
    for group in scene.groups:
        for member in group.members:
            group.wait_until_member(member)
    scene.flowing()


def again(group: Group, limit: int) -> Finding:
    return checker.duplicates_at_most([one.event for one in group.applied()], limit)


def killed(scene: Scene) -> Evidence:
    group = scene.group
    group.misbehave({"kind": "latency", "ms": 30})
    all_members(scene)
    for _ in range(5):
        scene.hold(0.5 + 1.5 * scene.chance.random())  # the random moment in the middle of its batches
        victim = scene.chance.choice([m for m in group.members if m.worker.process.poll() is None])
        victim.worker.kill()
        group.wait_until_member(group.start_worker())
    converge(scene)
    return Evidence(
        seen={"assignments after a kill": group.said("partitions_assigned") - 2},
        findings=[again(group, IN_FLIGHT * 5)],
    )


def frozen(scene: Scene) -> Evidence:
    for group in scene.groups:
        if group.plan.connector == "hubspot":
            group.misbehave({"kind": "latency", "ms": 50})
    all_members(scene)
    stopped = [group.members[0].worker.process.pid for group in scene.groups]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        scene.hold(15)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    converge(scene)

    def back(group: Group) -> int:
        """Times the frozen one was given partitions again: it had been put out, and knew it."""
        return len(group.members[0].worker.said("partitions_assigned")) - 1

    eventually(lambda: all(back(group) > 0 for group in scene.groups), 30, poll_s=0.2, about="the frozen are back")
    return Evidence(
        seen={"the frozen is given partitions again": min(map(back, scene.groups))},
        stale_allowed=IN_FLIGHT,
    )  # fmt: skip


def blocked(scene: Scene) -> Evidence:
    group = scene.group
    all_members(scene)
    before = group.said("partitions_assigned")
    eventually(lambda: group.said("slow_projection"), 90, poll_s=0.3, about="the projection that blocks")
    converge(scene)
    lost = group.said("partitions_assigned") - before
    refused = group.seen("backbone_commit_failures_total")
    return Evidence(
        seen={"slow projections": group.seen("backbone_slow_projections_total")},
        findings=[
            checker.rebalances_at_most(lost, 0),
            Finding("I10", (f"{refused:g} commits refused",) if refused else ()),
        ],
    )


def terminated(scene: Scene) -> Evidence:
    group = scene.group
    group.misbehave({"kind": "latency", "ms": 200})
    all_members(scene)
    codes = []
    for _ in range(4):
        scene.hold(0.5 + scene.chance.random())
        alive = [member for member in group.members if member.worker.process.poll() is None]
        codes.append(alive[0].worker.stop())
        group.wait_until_member(group.start_worker())
    converge(scene)
    wrong = [f"a worker left with exit code {code}" for code in codes if code]
    return Evidence(
        seen={"worker_left": sum(len(member.worker.said("worker_left")) for member in group.members)},
        findings=[again(group, 0), Finding("I9", tuple(wrong), count=len(wrong))],
    )


def _longest_there(group: Group) -> Member | None:
    """The member that was started first, has partitions and runs still."""
    there = (m for m in group.members if m.worker.process.poll() is None and m.worker.said("partitions_assigned"))
    return next((m for m in there if not m.leaving), None)


def storm(scene: Scene) -> Evidence:
    all_members(scene)
    begin = now_ns()
    until = time.monotonic() + 30
    joins = True
    while time.monotonic() < until:
        began = time.monotonic()
        for group in scene.groups:
            if joins:
                group.start_worker()
            elif (leaver := _longest_there(group)) is not None:
                leaver.leaving = True
                leaver.worker.process.send_signal(signal.SIGTERM)
        joins = not joins
        scene.hold(max(0.0, 3 - (time.monotonic() - began)))
    end = now_ns()
    converge(scene)
    findings = []
    for group in scene.groups:
        one = checker.progress(group.history(), begin=begin, end=end, window_s=10)
        findings.append(Finding("I10", tuple(f"{group.name}: {x}" for x in one.broken), f"{group.name}: {one.allowed}"))
    return Evidence(
        seen={f"rebalances {group.plan.context}": group.said("partitions_assigned") - 2 for group in scene.groups},
        findings=findings,
    )


def twice(scene: Scene) -> Evidence:
    group = scene.group
    all_members(scene)
    scene.hold(10)
    converge(scene)
    last: dict[str, int] = defaultdict(int)
    back = []
    for one in group.applied():
        number = int(one.event.rpartition("/")[2])
        if number < last[one.entity]:
            back.append(f"{one.entity} went from {last[one.entity]} back to {number}")
        last[one.entity] = max(last[one.entity], number)
    copies = len(group.applied()) - len({one.event for one in group.applied()})
    return Evidence(
        seen={"applied again": copies, "delivered": group.seen("backbone_deliveries_total", outcome="delivered")},
        findings=[Finding("I6", tuple(back[:3]), count=len(back))],
    )


ROWS = (
    Row(
        name="kill", act=2, fault="kill -9 of a worker in the middle of its batches, five times",
        expected="nothing lost; duplicates at most what was in flight", decisive="I1 I4 I6",
        plans=(plan("p-kill"),), run=killed,
    ),
    Row(
        name="zombie", act=2, fault="SIGSTOP of a worker for 15 s, longer than its session",
        expected="its commits are refused, its late calls do no harm, it comes back", decisive="I3b I5",
        plans=(plan("p-zombie"), plan("p-zombie-sql", connector="sql")), run=frozen,
    ),
    Row(
        name="blocked", act=2, fault=f"a projection that blocks the process for {BLOCKED_S} s",
        expected="membership stays: the thread that polls is another", decisive="I10",
        plans=(plan("p-blocked", projection=BLOCKING),), run=blocked,
    ),
    Row(
        name="terminate", act=2, fault="SIGTERM under load, four times",
        expected="drains, commits, leaves; not one duplicate", decisive="dup = 0",
        plans=(plan("p-term"),), run=terminated,
    ),
    Row(
        name="storm", act=2, fault="a member joins or leaves every 3 s for 30 s, both group protocols",
        expected="progress in every 10 s; no commit steps back", decisive="I5 I10",
        plans=(plan("p-storm"), plan("p-storm-classic", context="classic")), run=storm,
    ),
    Row(
        name="twice", act=2, fault="every event published twice under the same id",
        expected="one effect, under one key", decisive="I6",
        plans=(plan("p-twice", topic=TWICE),), run=twice,
    ),
    Row(
        name="relay", act=2, fault="kill -9 of the outbox relay; two relays at once",
        expected="no loss, commit order per key", decisive="I1 I3",
        missing=lambda: "the outbox does not exist yet",
    ),
)  # fmt: skip
