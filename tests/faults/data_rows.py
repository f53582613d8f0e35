"""Act 4: what data, the registry and topics do. Each row has a topic and workers of its own."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Mapping

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from schemas.errors import BackboneError
from schemas.registry import Registry
from tests.faults import checker
from tests.faults.checker import Finding
from tests.faults.cluster import ends, read_topic
from tests.faults.company import PARTITIONS, GroupPlan, Topic
from tests.faults.process_rows import all_members
from tests.faults.row import Evidence, Row
from tests.faults.scene import Group, Scene
from tests.faults.vendor_rows import converge
from tests.faults.writer import Writer, evolved, incompatible
from tests.waiting import eventually

RATE = 50.0
ASKED_EVERY_S = 30
"""How often the registry is asked for an id that it did not know."""
REGISTERING = threading.Lock()
"""Rows beside each other register schemas, and one of them foretells the id that the next one gets."""


def plan(name: str, rate: float = RATE, **changed: object) -> GroupPlan:
    topic = Topic(name=f"{name.replace('-', '')}.things", rate=rate)
    return GroupPlan(**{"name": name, "topic": topic, "workers": 1, **changed})  # type: ignore[arg-type]


def poisons(scene: Scene, writer: Writer) -> Mapping[str, bytes]:
    _, encoded = writer.encoded("malformed")
    good = encoded.value
    odd = {
        "recursive": {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]},
        "nulls": {"type": "record", "name": "Nulls", "fields": [
            {"name": "all", "type": {"type": "array", "items": "null"}}]},
        "huge": {"type": "record", "name": "Huge", "fields": [
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}]},
    }  # fmt: skip
    ids = {}
    with REGISTERING:
        for name, schema in odd.items():
            ids[name] = _register_as_others_do(scene, f"poison-{name}", schema)

    def framed(name: str, body: bytes) -> bytes:
        return b"\x00" + ids[name].to_bytes(4, "big") + body

    return {
        "cut in the middle": good[:-1],
        "trailing bytes": good + b"\x00",
        "another magic byte": b"\x07" + good[1:],
        "too short for a schema id": b"\x00\x00",
        "a negative length": good[:5] + b"\x01",
        "recursive": framed("recursive", b"\x02" * 4600 + b"\x00"),
        "array of nulls": framed("nulls", b"\xfe\xff\xff\xff\xff\x0f\x00"),
        "a decimal of a mebibyte": framed("huge", b"\x80\x80\x80\x01" + b"\x01" * (1 << 20)),
        "empty": b"",
    }


def _register_as_others_do(scene: Scene, subject: str, schema: Mapping[str, object]) -> int:
    """Register without our checks (they refuse such schemas); answers the id."""
    body = json.dumps({"schema": json.dumps(schema), "schemaType": "AVRO"}).encode()
    url = f"{scene.broker.registry.url}/subjects/{subject}/versions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(json.load(answer)["id"])


def malformed(scene: Scene) -> Evidence:
    group = scene.group
    writer = Writer(group)
    all_members(scene)
    wanted = poisons(scene, writer)
    for value in wanted.values():
        writer.poison(value)
        scene.hold(1)
    converge(scene)
    outcomes = {letter.outcome for letter in group.letters()}
    strange = [f"outcome {name}" for name in sorted(outcomes - {"undecodable"})]
    return Evidence(
        seen={"undecodable": group.seen("backbone_deadletter_records_total", outcome="undecodable")},
        findings=[checker.letters_exactly(len(group.letters()), len(wanted)), Finding("I2", tuple(strange))],
    )


def evolution(scene: Scene) -> Evidence:
    """A schema id that appears 5 s after its first record; two versions in flight; one that nobody may register."""
    group = scene.group
    writer = Writer(group)
    all_members(scene)
    text = json.dumps(evolved(writer.contract))
    with REGISTERING:
        coming = writer.registry.register(f"marker-{uuid.uuid4().hex}", json.dumps(_marker())).id + 1
        writer.event("evolved", schema_id=coming, more=b"\x00")
        scene.hold(5)
        oldest = group.seen("backbone_oldest_unfinished_seconds")
        registered = writer.registry.register(writer.contract.subject, text)
    assert registered.id == coming, f"the registry gave {registered.id} where {coming} was foretold"
    begun = time.monotonic()
    for _ in range(10):
        writer.event("evolved")  # the version before, still in use beside it
        writer.event("evolved", schema_id=coming, more=b"\x02\x06red")
    eventually(lambda: any(one.event == "evolved/1" for one in group.applied()), 75, poll_s=0.2, about="the new schema")
    waited = time.monotonic() - begun
    refused = _refused(writer.registry, writer.contract.subject, json.dumps(incompatible(writer.contract)))
    converge(scene)
    return Evidence(
        seen={"oldest unfinished, seconds": int(oldest)},
        allowed=[f"delivered {waited:.0f} s after the schema was there"],
        findings=[
            checker.letters_exactly(len(group.letters()), 0),
            Finding("I3", () if refused else ("an incompatible version was registered",)),
            Finding(
                "I10", (f"it waited {waited:.0f} s for a schema that was there",) if waited > ASKED_EVERY_S + 5 else ()
            ),
        ],
    )


def _marker() -> Mapping[str, object]:
    name = f"Marker{uuid.uuid4().hex}"  # a content of its own: the same content would get the same id again
    return {"type": "record", "name": name, "fields": []}


def _refused(registry: Registry, subject: str, schema: str) -> bool:
    try:
        registry.register(subject, schema)
    except BackboneError:
        return True
    return False


def registry_away(scene: Scene) -> Evidence:
    """Gone for 10 s, then hanging for 10 s; a worker starts in between from what is on the disk."""
    group = scene.group
    writer = Writer(group)
    all_members(scene)
    scene.broker.weather(away=True)
    with REGISTERING:
        registered = writer.registry.register(writer.contract.subject, json.dumps(evolved(writer.contract)))
    writer.event("evolved", schema_id=registered.id, more=b"\x00")
    before = len(group.applied())
    late = group.start_worker()
    scene.hold(10)
    done = scene.broker.weather(blocked="down")
    scene.hold(10)
    meanwhile = len(group.applied()) - before
    early = any(one.event == "evolved/1" for one in group.applied())
    oldest = group.seen("backbone_oldest_unfinished_seconds")
    group.wait_until_member(late)
    done = scene.broker.weather()
    converge(scene)
    findings = [checker.letters_exactly(len(group.letters()), 0)]
    findings.append(Finding("I10", () if meanwhile > RATE * 20 / 2 else (f"only {meanwhile} events flowed meanwhile",)))
    findings.append(Finding("I12", ("the new schema's event was delivered without the registry",) if early else ()))
    return Evidence(
        seen={"oldest unfinished, seconds": int(oldest), "registry connections cut": done["cuts"]}, findings=findings,
        allowed=[f"{meanwhile} events of known schemas flowed meanwhile"],
    )  # fmt: skip


def until_stopped(group: Group, times: int, deadline_s: float = 60.0) -> str:
    eventually(lambda: len(group.reasons()) >= times, deadline_s, poll_s=0.2, about=f"{group.name} stops")
    return group.reasons()[-1]


def letters_unwritable(scene: Scene) -> Evidence:
    """The dead topic is missing for 20 s and made again; then a record larger than the dead topic takes."""
    group = scene.group
    writer = Writer(group)
    all_members(scene)
    dead, cluster = f"{group.name}.dead", scene.broker.admin
    cluster.delete_topics([dead])[dead].result(20)
    writer.poison(b"nobody can read this")
    reason = until_stopped(group, 1)
    scene.hold(10)
    left = group.lag()
    _make(cluster, NewTopic(dead, PARTITIONS, 1, config=_DEAD | {"max.message.bytes": "20000"}))
    group.company.backbone("subscription", "resume", group.name)
    eventually(lambda: group.letters(), 45, poll_s=0.5, about="the letter that could not be written")
    writer.poison(scene.chance.randbytes(50_000))  # not to be compressed
    eventually(lambda: len(group.letters()) == 2, 30, poll_s=0.5, about="the pointer to the large one")
    converge(scene)
    pointers = sum(letter.omitted for letter in group.letters())
    return Evidence(
        seen={"subscription_stopped": len(group.reasons()), "records waiting while it was stopped": left},
        findings=[
            Finding("I7", () if pointers == 1 else (f"{pointers} pointers, 1 is expected",)),
            Finding("I12", () if dead in reason else ("the stop does not name the dead topic",)),
        ],
        allowed=["an ACL was not tried: this broker has none"],
    )


_DEAD = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}


def _make(cluster: AdminClient, topic: NewTopic) -> None:
    def made() -> bool:
        try:
            cluster.create_topics([topic])[topic.topic].result(20)
        except KafkaException:
            return False  # the old one is still being deleted
        return True

    eventually(made, 30, poll_s=0.3, about=f"{topic.topic} to be made")


def redriven(scene: Scene) -> Evidence:
    """Keys parked behind letters; all of it redriven during live traffic, a worker killed in the middle."""
    group = scene.group
    all_members(scene)
    for _ in range(3):
        before = group.misbehaved()
        group.misbehave({"kind": "partial", "fail": 1, "category": "VALIDATION_ERROR"})
        eventually(lambda: group.misbehaved() > before, 30, poll_s=0.1, about="a refusal")  # noqa: B023
    eventually(lambda: len(group.open_letters()) >= 20, 60, poll_s=0.5, about="events parked behind the refused ones")
    parked = len(group.open_letters())
    words = ("deadletter", "redrive", group.name, "--all", "--allow-stale", "--rate", "20/s", "--apply", "--yes")
    redrive = group.company.begin(*words)
    try:
        eventually(lambda: len(group.open_letters()) < parked, 60, poll_s=0.2, about="the first letter to be closed")
        group.members[0].worker.kill()
        group.wait_until_member(group.start_worker())
        said, _ = redrive.communicate(timeout=120)
    finally:
        redrive.kill()
        redrive.wait(10)
    eventually(lambda: not group.open_letters(), 60, poll_s=0.5, about="every letter to be closed")
    converge(scene)
    return Evidence(
        seen={
            "letters at the redrive": parked,
            "parked": group.said("key_parked"),
            "unparked": group.said("key_unparked"),
        },
        findings=[
            Finding(
                "I1", () if redrive.returncode == 0 else (f"redrive ended with {redrive.returncode}: {said[-300:]}",)
            )
        ],
    )


def deleted(scene: Scene) -> Evidence:
    """Records below the end are deleted while the only worker is away, some of them never read."""
    group = scene.group
    all_members(scene)
    assert group.members[0].worker.stop() == 0
    committed = group.committed()
    eventually(
        lambda: sum(group.ends().values()) > sum(committed.values()) + 100, 30, poll_s=0.2, about="unread records"
    )
    now = group.ends()
    log = read_topic(scene.broker.bootstrap, group.plan.topic.name)
    group.gone = {
        (dict(record.headers).get("ce_id") or b"").decode()
        for record in log
        if record.offset < now[record.topic, record.partition]
    }
    unread = sum(committed.get((r.topic, r.partition), 0) <= r.offset < now[r.topic, r.partition] for r in log)
    places = [TopicPartition(*place, end) for place, end in now.items()]
    for done in scene.broker.admin.delete_records(places).values():
        done.result(20)
    member = group.start_worker()
    reason = until_stopped(group, 1)
    applied = len(group.applied())
    scene.hold(3)
    moved = len(group.applied()) - applied
    assert member.worker.process.poll() is None
    group.company.backbone("rewind", group.name, "--to", "earliest", "--confirm", group.name, "--apply", "--yes")
    group.company.backbone("subscription", "resume", group.name)
    converge(scene)
    return Evidence(
        seen={"subscription_stopped": len(group.reasons()), "records deleted unread": unread},
        findings=[
            Finding("I12", () if "deleted before they were read" in reason else (f"it stopped for: {reason}",)),
            Finding("I1", (f"{moved} events were delivered after the stop",) if moved else ()),
        ],
        allowed=[f"{unread} events were deleted unread, and said so"],
    )


def holes(scene: Scene) -> Evidence:
    """Holes by compaction before the worker starts, and by transactions, also aborted ones, while it runs."""
    group = scene.group
    topic = group.plan.topic.name
    _configure(scene, topic, {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01",
                              "max.compaction.lag.ms": "1000", "delete.retention.ms": "0"})  # fmt: skip
    writer = Writer(group)
    for _ in range(3):
        writer.backlog(600, 30)
        scene.hold(1.2)  # the next batch rolls a new segment; only closed ones are compacted

    def compacted() -> bool:
        return len(read_topic(scene.broker.bootstrap, topic)) < sum(ends(scene.broker.bootstrap, topic).values()) * 0.7

    eventually(compacted, 40, poll_s=0.5, about="holes in the log")
    _configure(scene, topic, {"cleanup.policy": "delete", "segment.ms": "604800000"})
    time.sleep(2)  # a cleaning under way ends
    log = read_topic(scene.broker.bootstrap, topic)
    missing = sum(ends(scene.broker.bootstrap, topic).values()) - len(log)
    group.only_stored = True
    group.wait_until_member(group.start_worker())
    transactions = Writer(group, **{"transactional.id": uuid.uuid4().hex})
    transactions.producer.init_transactions(20)
    for commit in (True, False, True, False, True):
        transactions.producer.begin_transaction()
        keys = [f"{'kept' if commit else 'aborted'}-{number}" for number in range(PARTITIONS * 3)]
        for key in keys:
            event, encoded = transactions.encoded(key)
            transactions.send(event, encoded.key, encoded.value, encoded.headers)
        if commit:
            transactions.producer.commit_transaction(20)
        else:
            transactions.producer.abort_transaction(20)
    converge(scene)
    aborted = [f"{one.event} was aborted and applied" for one in group.applied() if one.entity.startswith("aborted-")]
    return Evidence(
        seen={"records compacted away": missing, "transactions": 5,
              "delivered": group.seen("backbone_deliveries_total", outcome="delivered")},
        findings=[Finding("I1", tuple(aborted[:3]), count=len(aborted))],
    )  # fmt: skip


def _configure(scene: Scene, topic: str, config: Mapping[str, str]) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    for name, value in config.items():
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    for done in scene.broker.admin.incremental_alter_configs([resource]).values():
        done.result(20)


ROWS = (
    Row(
        name="malformed", act=4,
        fault="bytes nobody can read: cut, trailing, wrong magic, negative length, recursive, arrays of null, decimal",
        expected="a dead letter each, byte for byte; others unaffected", decisive="I2 I7 I10",
        plans=(plan("d-malformed"),), run=malformed,
    ),
    Row(
        name="evolution", act=4,
        fault="a schema id that appears 5 s later; two versions in flight; an incompatible one",
        expected="its lane waits, then is delivered in order; the incompatible one is refused", decisive="I3 I9",
        plans=(plan("d-evolution"),), run=evolution,
    ),
    Row(
        name="registry", act=4, fault="the registry away for 10 s, hanging for 10 s; a worker starts meanwhile",
        expected="known schemas flow; a new one holds its lane only; no dead letter", decisive="I1 I2",
        plans=(plan("d-registry", context="other-registry"),), run=registry_away,
    ),
    Row(
        name="letters", act=4, fault="the dead topic missing; then a dead letter larger than it takes",
        expected="stops, the offset holds; after resume it arrives; large: a pointer", decisive="I1 I4 I7",
        plans=(plan("d-letters"),), run=letters_unwritable,
    ),
    Row(
        name="redrive", act=4, fault="keys parked behind dead letters, all redriven in live traffic; kill -9 meanwhile",
        expected="each applied under its first key, in the order of its key; every letter closed", decisive="I3 I6",
        plans=(plan("d-redrive", rate=100, workers=2, policies="{on_dead_letter: park_key}"),), run=redriven,
    ),
    Row(
        name="deleted", act=4, fault="records deleted beyond the committed offset while it is stopped",
        expected="stops with the number of events; never passed over in silence", decisive="G12",
        plans=(plan("d-deleted"),), run=deleted,
    ),
    Row(
        name="holes", act=4, fault="holes in the log: compaction, transactions, aborted ones",
        expected="the offset steps over them; lag reaches 0", decisive="I10",
        plans=(plan("d-holes", rate=0, workers=0),), run=holes,
    ),
)  # fmt: skip
