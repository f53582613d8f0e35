"""Act 3: what brokers and networks do. The rows fault the one broker, so they run in turn, each with a topic of its own
and a group of each protocol."""

from __future__ import annotations

from collections import Counter

from tests.faults.checker import Finding
from tests.faults.company import GroupPlan, Topic
from tests.faults.history import facts
from tests.faults.process_rows import again, all_members
from tests.faults.row import Evidence, Row
from tests.faults.scene import Scene
from tests.faults.vendor_rows import converge
from tests.waiting import eventually

FROZEN_S = 60


def plans(name: str, rate: float = 150, **changed: object) -> tuple[GroupPlan, ...]:
    topic = Topic(name=f"broker{name}.things", rate=rate)
    return tuple(
        GroupPlan(**{"name": f"b-{name}-{context}", "topic": topic, "context": context, **changed})  # type: ignore[arg-type]
        for context in ("consumer", "classic")
    )


def complaints(scene: Scene) -> int:
    """How often the workers said that the cluster does not answer, or did not take a commit."""
    lines = [line for group in scene.groups for member in group.members for line in member.worker.lines()]
    clients = sum(str(line.get("logger", "")).startswith(("kafka", "backbone.kafka")) for line in lines)
    return clients + sum(line.get("event") == "commit_failed" for line in lines)


def frozen(scene: Scene) -> Evidence:
    all_members(scene)
    let_go_on = scene.broker.freeze()
    try:
        scene.hold(FROZEN_S)
    finally:
        let_go_on()
    converge(scene)
    unknown = sum(line["kind"] == "unknown" for line in facts(scene.group.publishing.ledger))
    copies = Counter(one.event for one in scene.group.history().stored)
    doubled = [f"{event} is in the log {n} times" for event, n in copies.items() if n > 1]
    return Evidence(
        seen={"samples unanswered": scene.group.unanswered(), "workers' complaints": complaints(scene)},
        findings=[
            Finding("I1", (f"{unknown} publishes failed",) if unknown else ()),
            Finding("I1", tuple(doubled[:3]), count=len(doubled)),
        ],
    )


def killed(scene: Scene) -> Evidence:
    all_members(scene)
    for _ in range(2):
        scene.hold(3 + 2 * scene.chance.random())
        scene.broker.kill()
        scene.broker.start_kafka()
        all_members(scene)
    converge(scene)
    unknown = sum(line["kind"] == "unknown" for line in facts(scene.group.publishing.ledger))
    return Evidence(
        seen={"workers' complaints": complaints(scene)},
        allowed=[f"{unknown} publishes unknown, sent again"] if unknown else [],
        findings=[again(group, 256 * 4) for group in scene.groups],
    )


def restarted(scene: Scene) -> Evidence:
    all_members(scene)
    before = sum(group.said("partitions_assigned") for group in scene.groups)
    joining = [group.start_worker() for group in scene.groups]
    for member in joining:  # a start without a cluster is refused: they must have begun to join
        eventually(lambda: member.worker.said("subscription_started"), 60, poll_s=0.02, about="a start")  # noqa: B023
    scene.broker.stop()
    scene.broker.start_kafka()
    for group, member in zip(scene.groups, joining, strict=True):
        group.wait_until_member(member)
    converge(scene)
    after = sum(group.said("partitions_assigned") for group in scene.groups)
    return Evidence(seen={"rebalances": after - before, "workers' complaints": complaints(scene)})


def weather(scene: Scene) -> Evidence:
    all_members(scene)
    scene.broker.weather(latency_ms=150, jitter_ms=100, cut=0.05)
    scene.hold(20)
    scene.broker.weather(blocked="down")
    scene.hold(10)
    done = scene.broker.weather()
    converge(scene)
    return Evidence(seen={**{f"proxy {name}": count for name, count in done.items() if name != "cuts"},
                          "workers' complaints": complaints(scene)},
                    allowed=[f"{done['cuts']} connections cut"])  # fmt: skip


ROWS = (
    Row(
        name="broker-frozen", act=3, fault=f"SIGSTOP of the broker for {FROZEN_S} s",
        expected="publishing waits and nothing fails; not one duplicate in the log; members join again",
        decisive="I1 log-dup = 0 I5", plans=plans("frozen"), run=frozen,
    ),
    Row(
        name="broker-killed", act=3, fault="kill -9 of the broker and a start on its data, twice",
        expected="what was acknowledged survives; unknown is sent again", decisive="I1",
        plans=plans("killed"), run=killed,
    ),
    Row(
        name="broker-restart", act=3, fault="a clean restart of the broker while members join",
        expected="converges", decisive="I10", plans=plans("restart"), run=restarted,
    ),
    Row(
        name="network", act=3, fault="300 ms ± 200 ms there and back, 5 % of connections cut; then no answers for 10 s",
        expected="no loss, no stuck fetch", decisive="I10",
        plans=(GroupPlan(name="b-network", topic=Topic(name="brokernet.things", rate=100), context="far"),),
        run=weather,
    ),
)  # fmt: skip
