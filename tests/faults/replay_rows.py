"""Act 6: replay during live traffic."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from consumers.inbox import parse_inbox
from tests.faults import checker
from tests.faults.broker import now_ns
from tests.faults.checker import Finding
from tests.faults.cluster import read_topic
from tests.faults.company import GroupPlan, Topic
from tests.faults.history import facts
from tests.faults.process_rows import all_members
from tests.faults.row import Evidence, Row
from tests.faults.scene import Group, Scene
from tests.faults.vendor_rows import converge
from tests.faults.writer import Writer
from tests.waiting import eventually

EVENTS = 5_000
MINE = "data.thing_id[:7] == 'backlog'"
"""Of the live keys newer events are delivered meanwhile: sent again without a ledger their older ones would win."""


def replayed(scene: Scene) -> Evidence:
    """Twice, by offset and by time; a worker is killed during the first."""
    group = scene.group
    all_members(scene)
    begun_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 2))
    Writer(group).backlog(EVENTS, EVENTS)
    converge(scene)  # all of it is delivered live before it is replayed
    quiet = now_ns()
    scene.hold(10)
    during = now_ns()
    places = [f"{group.plan.topic.name}:{partition}" for _, partition in sorted(group.ends())]
    _replay(scene, "--from", "0", *places, kill=True)
    second = now_ns()
    _replay(scene, "--from", f"@{begun_at}", "--to", "@-0s", kill=False)
    ended = now_ns()
    converge(scene)
    orders = _orders(group)
    times = Counter(one.event for one in group.applied())
    few = [event for event, count in times.items() if event.startswith("backlog-") and count < 3]
    before, killed, meanwhile = (
        f"{_p99_ms(group, begin, end):,.0f} ms" for begin, end in ((quiet, during), (during, second), (second, ended))
    )
    return Evidence(
        seen={"replayed": sum(orders.values()), "a worker killed": 1},
        findings=[
            Finding("I8", () if sum(orders.values()) == 2 * EVENTS else (f"{sum(orders.values())} were sent",)),
            Finding("I6", tuple(f"{one} was sent {n} times" for one, n in orders.items() if n > 1)[:3]),
            Finding("I1", tuple(f"{event} was not delivered by both" for event in few)[:3], count=len(few)),
            checker.letters_exactly(len(group.letters()), 0),
        ],
        allowed=[f"live p99 {before} before, {meanwhile} during a replay, {killed} during one with a worker killed"],
    )


def _replay(scene: Scene, *words: str, kill: bool) -> None:
    group = scene.group
    sent = len(read_topic(scene.broker.bootstrap, f"{group.name}.inbox"))
    running = group.company.begin(
        "replay", group.name, *words, "--where", MINE, "--allow-stale", "--apply", "--yes", "--reason", "make faults"
    )
    try:
        if kill:
            inbox = f"{group.name}.inbox"
            eventually(
                lambda: len(read_topic(scene.broker.bootstrap, inbox)) > sent + EVENTS / 10, 90, poll_s=0.2,
                about="the first replayed events",
            )  # fmt: skip
            group.members[0].worker.kill()
            group.wait_until_member(group.start_worker())
        said, _ = running.communicate(timeout=180)
    finally:
        running.kill()
        running.wait(10)
    assert running.returncode == 0, f"replay ended with {running.returncode}: {said[-500:]}"


def _orders(group: Group) -> Mapping[tuple[str, str], int]:
    """How often each change has written each origin to the inbox."""
    found: Counter[tuple[str, str]] = Counter()
    for record in read_topic(group.company.broker.bootstrap, f"{group.name}.inbox"):
        parsed = parse_inbox(record)
        assert parsed is not None, "the inbox holds what is no order"
        assert parsed[0].kind == "replay", f"a {parsed[0].kind} is in the inbox"
        found[parsed[0].change, str(parsed[0].origin)] += 1
    return found


def _p99_ms(group: Group, begin: int, end: int) -> float:
    """From publish to the vendor, of live events that were published between two moments."""
    first: dict[str, int] = {}
    for one in group.applied():
        first.setdefault(one.event, one.at)
    planned = {line["event"]: line["at"] for line in facts(group.publishing.ledger) if line["kind"] == "planned"}
    took = sorted(first[event] - at for event, at in planned.items() if begin <= at < end and event in first)
    return took[int(len(took) * 0.99)] / 1e6 if took else 0.0


ROWS = (
    Row(
        name="replay", act=6,
        fault=f"{EVENTS:,} events replayed by offset and by time while live traffic runs and a worker is killed",
        expected="live offsets unchanged; the same keys; each written to the inbox once and delivered",
        decisive="I8 I6", plans=(GroupPlan(name="r-replay", topic=Topic(name="replayed.things", rate=100)),),
        run=replayed,
    ),
)  # fmt: skip
