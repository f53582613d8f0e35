"""Act 1: what vendors do. Nine rows beside each other in two processes, each with a vendor of its own, so that each
row's vendor also shows that it holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.faults import checker
from tests.faults.company import GroupPlan, Topic
from tests.faults.row import Evidence, Row
from tests.faults.scene import Scene
from tests.waiting import eventually

TOPIC = Topic(name="vendors.things", rate=150)
HELD = "backbone_deliveries_held_total"
MEMORY_MIB = 300.0
PROBED_S = 75.0
"""Credentials are tried once a minute; then what has waited is delivered."""
ENOUGH_CALLS = 200
"""Among so many calls a few failures are not a tenth, so that the circuit stays closed."""
RATE = 10
"""calls a second that the paced connection is allowed"""


def plan(name: str, **changed: object) -> GroupPlan:
    return GroupPlan(**{"name": name, "topic": TOPIC, "shared": True, **changed})  # type: ignore[arg-type]


def until_misbehaved(scene: Scene, calls: int, deadline_s: float = 30.0) -> None:
    """Until the vendors of the row have done wrong with so many calls each."""
    for group in scene.groups:
        eventually(lambda: group.misbehaved() >= calls, deadline_s, poll_s=0.2, about=f"{group.name} misbehaves")  # noqa: B023


def converge(scene: Scene) -> None:
    for group in scene.groups:
        group.healed()
    for group in scene.groups:
        group.wait_until_converged()


def quota(scene: Scene) -> Evidence:
    group = scene.group
    scene.flowing()
    for headers in ({"Retry-After": "2"}, {}, {}):
        wanted = headers
        if not headers and group.misbehaved() == 1:
            # an HTTP date has whole seconds and counts from the answer's own Date
            now = datetime.now(UTC).replace(microsecond=0)
            dates = (now, now + timedelta(seconds=2))
            wanted = dict(zip(("Date", "Retry-After"), (format_datetime(d, usegmt=True) for d in dates), strict=True))
        before = group.misbehaved()
        group.misbehave({"kind": "status", "status": 429, "headers": wanted, "body": {"category": "RATE_LIMITS"}})
        eventually(lambda: group.misbehaved() > before, 30, poll_s=0.1, about="a 429")  # noqa: B023
        applied = len(group.applied())
        eventually(lambda: len(group.applied()) > applied, 30, poll_s=0.1, about="deliveries after a 429")  # noqa: B023
    converge(scene)
    calls = [call for call in group.calls() if not call.behaviour or "Retry-After" in call.behaviour["headers"]]
    return Evidence(
        seen={"connection_paused": group.said("connection_paused", reason="rate_limited"), "429": group.misbehaved()},
        findings=[
            checker.quiet_after(calls, status=429, seconds=2, processes=1),
            checker.letters_exactly(len(group.letters()), 0),
        ],
    )


def errors(scene: Scene) -> Evidence:
    group = scene.group
    scene.flowing()
    group.misbehave({"kind": "status", "status": 500, "times": 1_000_000})
    until_misbehaved(scene, 2)
    scene.hold(5)
    begin = scene.mark("open")
    scene.hold(25)
    end = scene.mark("healed")
    group.behave()
    converge(scene)
    return Evidence(
        seen={"connection_opened": group.said("connection_opened"), "500": group.misbehaved()},
        findings=[
            checker.calls_at_most(group.calls(), 10, begin=begin, end=end, about="in 25 s of an open circuit"),
            checker.letters_exactly(len(group.letters()), 0),
        ],
    )


def ordered(*stages: Mapping[str, object], reason: str) -> Callable[[Scene], Evidence]:
    """A row whose fault ends by itself after so many calls. Its stages come one after the other, with deliveries in
    between: none alone opens the circuit. ``reason`` is what the system must have counted."""

    def run(scene: Scene) -> Evidence:
        group = scene.group
        scene.flowing()
        eventually(lambda: len(group.calls()) >= ENOUGH_CALLS, 60, poll_s=0.5, about="calls that went well")
        for stage in stages:
            before, applied = group.misbehaved(), len(group.applied())
            group.misbehave(stage)
            times = int(str(stage.get("times", 0)))
            eventually(lambda: group.misbehaved() >= before + times, 60, poll_s=0.1, about=str(stage["kind"]))  # noqa: B023
            eventually(lambda: len(group.applied()) > applied + 20, 60, poll_s=0.1, about="deliveries after it")  # noqa: B023
        converge(scene)
        assigned = max(
            sum(line.get("subscription") == group.name for line in member.worker.said("partitions_assigned"))
            for member in group.members
        )
        peaks = {member.worker.log.stem: member.peak_mib for member in group.members}
        return Evidence(
            seen={f"held {reason}": group.seen(HELD, reason=reason), "misbehaved": group.misbehaved()},
            findings=[checker.memory_below(peaks, MEMORY_MIB), checker.rebalances_at_most(assigned, 3)],
        )

    return run


def paced(scene: Scene) -> Evidence:
    """A rate of our own: the vendor's log, as it came, never overdraws the bucket that both processes share."""
    group = scene.group
    scene.flowing()
    scene.hold(15)
    converge(scene)
    return Evidence(
        seen={"calls": len(group.calls()), "delivered": group.seen("backbone_deliveries_total", outcome="delivered")},
        findings=[checker.rate_below(group.calls(), per_s=RATE, burst=RATE * 1.1 + 2)],
    )


def refusals(scene: Scene) -> Evidence:
    """Slack says no with 200: once in a way that heals, once for good."""
    group = scene.group
    scene.flowing()
    for error, times in (("internal_error", 3), ("channel_not_found", 1), ("request_timeout", 3), ("is_archived", 1)):
        before = group.misbehaved()
        group.misbehave({"kind": "status", "status": 200, "body": {"ok": False, "error": error}, "times": times})
        eventually(lambda: group.misbehaved() >= before + times, 30, poll_s=0.1, about=error)  # noqa: B023
    converge(scene)
    dead = len({letter.origin for letter in group.letters()})
    return Evidence(
        seen={
            "held": group.seen(HELD, reason="internal_error|request_timeout"),
            "dead letters": group.seen("backbone_deadletter_records_total"),
        },
        findings=[checker.letters_exactly(dead, 2)],
    )


def partial(scene: Scene) -> Evidence:
    group = scene.group
    scene.flowing()
    for fail, category, named, times in (
        (3, "CONFLICT", "trace", 5),
        (1, "VALIDATION_ERROR", "trace", 2),
        (3, "CONFLICT", "ids", 3),
    ):
        before = group.misbehaved()
        order = {"kind": "partial", "fail": fail, "category": category, "named": named, "times": times}
        group.misbehave(order)
        eventually(lambda: group.misbehaved() >= before + times, 30, poll_s=0.1, about=category)  # noqa: B023
    converge(scene)
    dead = len({letter.origin for letter in group.letters()})
    return Evidence(
        seen={
            "held conflict": group.seen(HELD, reason="conflict"),
            "rejected": group.seen("backbone_deadletter_records_total"),
        },
        findings=[checker.letters_exactly(dead, 2)],
    )


def credentials(scene: Scene) -> Evidence:
    scene.flowing()
    for group, status in zip(scene.groups, (401, 403, 410), strict=True):
        group.misbehave({"kind": "status", "status": status, "times": 1_000_000})
    until_misbehaved(scene, 1)
    scene.hold(3)
    begin = scene.mark("stopped")
    scene.hold(17)
    end = scene.mark("healed")
    for group in scene.groups:
        group.behave()
    for group in scene.groups:
        group.healed()
    for group in scene.groups:
        group.wait_until_converged(PROBED_S)
    stops = min(group.said("connection_stopped") for group in scene.groups)
    return Evidence(
        limit_s=PROBED_S,
        seen={"connection_stopped": stops, "refused calls": min(group.misbehaved() for group in scene.groups)},
        findings=[
            finding
            for group in scene.groups
            for finding in (
                checker.calls_at_most(group.calls(), 4, begin=begin, end=end, about=f"in 17 s of {group.name}"),
                checker.letters_exactly(len(group.letters()), 0),
            )
        ],
    )


ROWS = (
    Row(
        name="quota", act=1, fault="429 with Retry-After in seconds and as a date, and without",
        expected="not one call before the time; no dead letter", decisive="I9 times",
        plans=(plan("v-quota", shared=False, workers=1),), run=quota,
    ),
    Row(
        name="errors", act=1, fault="500 for 30 s",
        expected="the circuit opens, few probes, then drained in order; no dead letter", decisive="I3 I9 I10",
        plans=(plan("v-errors", settings='circuit_open = "5s"'),), run=errors,
    ),
    Row(
        name="timeout", act=1, fault="accepted, applied, never answered (6 calls)",
        expected="cut at the deadline; sent again under the same key", decisive="I6 I2",
        plans=(plan("v-timeout", timeout_s=3),),
        run=ordered(*[{"kind": "stall_after_effect", "times": 3}] * 2, reason="timeout"),
    ),
    Row(
        name="slow-loris", act=1, fault="the answer one byte every 0.3 s (6 calls)",
        expected="cut at the total deadline; membership stays", decisive="I10",
        plans=(plan("v-slow", timeout_s=3),),
        run=ordered(*[{"kind": "slow_body", "times": 3}] * 2, reason="timeout"),
    ),
    Row(
        name="refusals", act=1, fault="200 with an error body (Slack): passing, and for good",
        expected="tried again, or a dead letter, by its code", decisive="I1 I2",
        plans=(plan("v-refusals", connector="slack"),), run=refusals,
    ),
    Row(
        name="partial", act=1, fault="3 of a batch refused (207 and per-item errors), passing and for good",
        expected="only those again; order per key; the offset waits for all", decisive="I3 I4 I6",
        plans=(plan("v-partial"),), run=partial,
    ),
    Row(
        name="cuts", act=1, fault="reset before and after the effect, half an answer, refused for 3 s",
        expected="sent again under the same key; refused uses no attempt", decisive="I6",
        plans=(plan("v-cuts"),),
        run=ordered(
            {"kind": "cut", "at": "start", "times": 2}, {"kind": "cut", "at": "half", "times": 2},
            {"kind": "cut_after_effect", "at": "start", "times": 2},
            {"kind": "cut_after_effect", "at": "half", "times": 2}, {"kind": "away", "seconds": 3},
            reason="cut|refused",
        ),
    ),
    Row(
        name="bomb", act=1, fault="an answer of 300 MB in 300 kB of gzip (3 calls)",
        expected="cut at 1 MiB; memory stays", decisive="I9 RSS",
        plans=(plan("v-bomb"),), run=ordered({"kind": "bomb", "times": 3}, reason="too_large"),
    ),
    Row(
        name="rate", act=1, fault=f"a quota of {RATE} calls a second, two processes",
        expected="never more than that, by the vendor's own log", decisive="I9 rate",
        plans=(plan("v-rate", settings=f'rate = "{RATE}/1s"'),), run=paced,
    ),
    Row(
        name="credentials", act=1, fault="401, 403, 410 for 20 s",
        expected="the connection stops and says so; events wait; no dead letter", decisive="I1 I9",
        plans=(plan("v-unauthorized"), plan("v-forbidden"), plan("v-gone")), run=credentials,
    ),
)  # fmt: skip
