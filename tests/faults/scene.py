"""What a row acts on: its groups with their workers and vendors, the broker, and what can be counted of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers.deadletter import parse_letter
from consumers.pipeline import idempotency_key
from consumers.receipts import SETTLED
from consumers.receipts import TOPIC as DELIVERIES
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import engine_contracts
from schemas.event import Event, Record
from schemas.registry import open_registry
from tests.faults.broker import ROOT, Broker, now_ns
from tests.faults.company import ACTIONS, Company, GroupPlan, Topic
from tests.faults.history import Applied, Call, History, Letter, Place, Sample, Stored, facts
from tests.faults.publisher import CANARY_EMAIL, SOURCE
from tests.faults.vendors import CANARY_TOKEN
from tests.integration.world import Worker
from tests.waiting import eventually

WATCH_S = 1.0
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Member:
    """A worker that is watched: the last metrics it published and the most memory it held."""

    worker: Worker
    metrics: str = ""
    peak_mib: float = 0.0
    health: str = ""
    leaving: bool = False

    def look(self) -> None:
        """One look from outside; a process that has ended, is frozen or busy keeps what was seen last."""
        with contextlib.suppress(psutil.Error):
            self.peak_mib = max(self.peak_mib, psutil.Process(self.worker.process.pid).memory_info().rss / (1 << 20))
        if not self.health:
            self.health = next((str(line["health"]) for line in self.worker.said("worker_started")), "")
        if self.health:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.health}/metrics", timeout=1) as answer:
                self.metrics = answer.read().decode()

    def series(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for line in self.metrics.splitlines():
            if found := _SERIES.match(line):
                yield found[1], dict(_LABEL.findall(found[2] or "")), float(found[3])


class Members:
    """Every worker of a run, watched once a second until it is closed."""

    def __init__(self) -> None:
        self.all: list[Member] = []
        self.numbers = itertools.count()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_S):
            for member in list(self.all):
                if member.worker.process.poll() is None:
                    member.look()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10)
        for member in self.all:
            if member.worker.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.worker.process.pid, signal.SIGCONT)
                member.worker.kill()


@dataclass
class Publishing:
    """A topic and the process that publishes into it."""

    topic: Topic
    ledger: Path
    process: subprocess.Popen[bytes] | None = None
    poison: set[Place] = field(default_factory=set)
    """records that nobody can read, written by a row"""

    def start(self, company: Company) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.publisher", "--bootstrap", company.broker.bootstrap,
             "--registry", company.broker.registry.url, "--events", str(company.events), "--ledger", str(self.ledger),
             "--event", self.topic.event, "--rate", str(self.topic.rate), "--keys", str(self.topic.keys),
             "--times", str(self.topic.times)],
            cwd=ROOT,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop publishing and wait until every open publish has its answer."""
        if self.process is not None:
            self.process.terminate()
            code = self.process.wait(160)
            assert code == 0, f"the publisher of {self.topic.name} ended with {code}"
            self.process = None


class Group:
    """A subscription of a row, with what was written down of it."""

    def __init__(self, plan: GroupPlan, company: Company, members: Members, publishing: Publishing, journals: Path,
                 vendor_url: str) -> None:  # fmt: skip
        self.plan, self.company, self.publishing = plan, company, publishing
        self.members: list[Member] = []
        self.gone: set[str] = set()
        """events that a row has deleted from the log: nobody can ask for them any more"""
        self.only_stored = False
        """judge by the log alone: a row's compaction or aborted transactions took acknowledged records out of it"""
        self.healed_at = 0.0
        self.converged_s: float | None = None
        self.closed: set[Place] = set()
        """origins of dead letters that were closed, as ``letters`` saw it last"""
        self._dead: list[Record] = []
        self._all, self._journals, self._url = members, journals, vendor_url

    @property
    def name(self) -> str:
        return self.plan.name

    # ---- workers

    def start_worker(self, *others: str) -> Member:
        """A ``backbone run`` of this group alone, or with ``others``."""
        member = start_worker(self.company, [self.name, *others], self.plan.context, self._journals, self._all)
        self.members.append(member)
        return member

    def wait_until_member(self, member: Member, deadline_s: float = 60.0) -> None:
        def assigned() -> bool:
            return any(line.get("subscription") == self.name for line in member.worker.said("partitions_assigned"))

        eventually(assigned, deadline_s, poll_s=0.1, about=f"{self.name} has partitions")

    def seen(self, metric: str, **labels: str) -> float:
        """A counter of the system itself, summed over the group's workers; labels may be regular expressions. Series
        of a subscription or a connection are taken of this one only."""
        total = 0.0
        for member in self.members:
            for name, found, value in member.series():
                mine = found.get("subscription", self.name) == self.name
                mine = mine and found.get("connection", self.name) == self.name
                fits = all(re.fullmatch(wanted, found.get(label, "")) for label, wanted in labels.items())
                if name == metric and mine and fits:
                    total += value
        return total

    def said(self, event: str, **fields: str) -> int:
        """How many log lines the group's workers wrote of an event, of this subscription or connection."""
        count = 0
        for member in self.members:
            for line in member.worker.said(event):
                mine = (
                    line.get("subscription", self.name) == self.name and line.get("connection", self.name) == self.name
                )
                fits = all(re.fullmatch(wanted, str(line.get(name, ""))) for name, wanted in fields.items())
                count += mine and fits
        return count

    def reasons(self) -> list[str]:
        """Why it stopped, each time it did."""
        lines = [line for member in self.members for line in member.worker.said("subscription_stopped")]
        return [str(line["reason"]) for line in lines if line.get("subscription") == self.name]

    # ---- the vendor

    def misbehave(self, *orders: Mapping[str, Any]) -> None:
        self._post("misbehave", json.dumps(orders).encode())

    def behave(self) -> None:
        """End every order."""
        self._post("behave", b"")

    def _post(self, path: str, body: bytes) -> None:
        request = urllib.request.Request(f"{self._url}/__fake__/{path}", body, method="POST")
        urllib.request.urlopen(request, timeout=20).read()

    def calls(self) -> list[Call]:
        return [
            Call(line["at"], tuple((event, trace) for event, trace in line["asked"]), line["behaviour"])
            for line in facts(self._journals / f"{self.name}.vendor")
            if line["kind"] == "call"
        ]

    def misbehaved(self) -> int:
        """How many calls the vendor has done something wrong with."""
        return sum(call.behaviour is not None for call in self.calls())

    def applied(self) -> list[Applied]:
        if self.plan.connector == "sql":
            return self._applied_rows()
        return [
            Applied(line["at"], line["event"], line["entity"], line["trace"])
            for line in facts(self._journals / f"{self.name}.vendor")
            if line["kind"] == "applied"
        ]

    def _applied_rows(self) -> list[Applied]:
        """What the database's own triggers wrote down (``Company``); their clock is the wall's."""
        with contextlib.closing(sqlite3.connect(self.company.database)) as database:
            rows = database.execute("select at_ms, entity, plan from journal order by rowid").fetchall()
        offset = time.monotonic_ns() - time.time_ns()
        return [Applied(int(at * 1e6) + offset, f"{key}/{plan}", key, "") for at, key, plan in rows]

    def final(self) -> dict[str, str]:
        """Entity to the event whose state the vendor holds."""
        if self.plan.connector == "hubspot":
            with urllib.request.urlopen(f"{self._url}/__fake__/report", timeout=20) as answer:
                contacts = json.load(answer)["contacts"]
            return {entity: f"{entity}/{contact['plan']}" for entity, contact in contacts.items()}
        if self.plan.connector == "sql":
            with contextlib.closing(sqlite3.connect(self.company.database)) as database:
                rows = database.execute("select backbone_key, plan from things").fetchall()
            return {key: f"{key}/{plan}" for key, plan in rows}
        return {}

    # ---- the cluster

    def ends(self) -> dict[tuple[str, int], int]:
        return ends(self.company.broker.bootstrap, self.plan.topic.name)

    def committed(self) -> dict[tuple[str, int], int]:
        """As the sampler saw them last."""
        found: dict[tuple[str, int], int] = {}
        for sample in self.samples():
            found[sample.partition] = sample.offset
        return found

    def samples(self) -> list[Sample]:
        # stamped after the answer: what was done before the stamp may have been committed in it
        return [
            Sample(line["at"], line["wall"], (line["topic"], line["partition"]), line["offset"])
            for line in facts(self._journals / f"{self.name}.commits")
            if line["kind"] == "committed"
        ]

    def unanswered(self) -> int:
        return sum(line["kind"] == "unanswered" for line in facts(self._journals / f"{self.name}.commits"))

    def healed(self) -> None:
        """The fault is over: from now on it has 60 s to catch up with what is in the log by now."""
        self.healed_at = time.monotonic()
        self._target = self.ends()

    def wait_until_converged(self, deadline_s: float = 60.0) -> None:
        """Until it has committed everything that was in the log at ``healed``, and its connection takes calls."""
        if not self.healed_at:
            self.healed()

        def done() -> bool:
            committed = self.committed()
            behind = any(committed.get(place, 0) < end for place, end in self._target.items())
            return not behind and not self._connection_shut()

        left = deadline_s - (time.monotonic() - self.healed_at)
        with contextlib.suppress(AssertionError):  # the verdict says that it did not
            eventually(done, max(0.0, left), poll_s=0.25, about=f"{self.name} to catch up")
            self.converged_s = time.monotonic() - self.healed_at

    def _connection_shut(self) -> bool:
        states = [
            found
            for member in self.members
            if member.worker.process.poll() is None
            for name, found, value in member.series()
            if name == "backbone_connection_state" and found.get("connection") == self.name and value == 1
        ]
        return any(found["backbone_connection_state"] in ("open", "half_open", "stopped", "paused") for found in states)

    def lag(self) -> int:
        committed = self.committed()
        return sum(max(0, end - committed.get(place, 0)) for place, end in self.ends().items())

    def open_letters(self) -> set[Place]:
        """Origins of the dead letters that nobody has closed."""
        return {letter.origin for letter in self.letters()} - self.closed

    def letters(self) -> list[Letter]:
        """Every incarnation of a letter that stands in the dead topic now, closed ones too (``closed``)."""
        found = []
        self.closed = set()
        self._dead = read_topic(self.company.broker.bootstrap, f"{self.name}.dead")
        for record in self._dead:
            letter = parse_letter(record)
            topic, partition, offset = (record.key or b"").decode().rsplit("/", 2)
            origin = (topic, int(partition), int(offset))
            if letter is None:
                self.closed.add(origin)
                continue
            self.closed.discard(origin)
            raw = (letter.key, letter.value, letter.headers)
            found.append(Letter(record.timestamp, origin, letter.outcome, raw, letter.omitted is not None))
        return found

    def history(self, receipts: Mapping[Place, int] | None = None) -> History:
        """All of it; whole when everything has ended. ``receipts`` are those of ``read_receipts``."""
        letters = self.letters()
        log = read_topic(self.company.broker.bootstrap, self.plan.topic.name)
        stored = [stored_of(record, self.publishing.poison) for record in log]
        ledger, extra = facts(self.publishing.ledger), facts(self.publishing.ledger.with_suffix(".extra"))
        acked = {x["event"]: (x["topic"], x["partition"], x["offset"]) for x in ledger + extra if x["kind"] == "acked"}
        in_log = {one.event for one in stored}
        left_out = self.gone | (set(acked) - in_log if self.only_stored else set())
        return History(
            acked={event: place for event, place in acked.items() if event not in left_out},
            planned=len({x["event"] for x in ledger if x["kind"] == "planned"} | {x["event"] for x in extra})
            - len(left_out),
            stored=stored,
            keys={event: self.key_of(event) for event in {one.event for one in stored if one.readable} | self.gone},
            applied=self.applied(),
            calls=self.calls(),
            samples=self.samples(),
            letters=letters,
            closed=frozenset(self.closed),
            receipts=receipts or {},
            final=self.final(),
        )

    def key_of(self, event: str) -> str:
        """The idempotency key of an event of this group, worked out anew; "" for a database, which has none."""
        if self.plan.connector == "sql":
            return ""
        parts = [self.name, ACTIONS[self.plan.connector], ""]
        anew = Event(id=event, type=self.plan.topic.event, source=SOURCE, time=None, subject=None,  # type: ignore[arg-type]
                     key=event, data={})  # fmt: skip
        return idempotency_key(anew, "".join(f"{len(part)}:{part}" for part in parts))

    def texts(self) -> dict[str, bytes]:
        """Everything that people and monitoring may read of this group; letters as they were last read."""
        found = {member.worker.log.name: member.worker.log.read_bytes() for member in self.members}
        found |= {f"metrics {member.worker.log.name}": member.metrics.encode() for member in self.members}
        for record in self._dead:
            ours = [
                content or b"" for name, content in record.headers if name.startswith("dead-") and name != "dead-key"
            ]
            found[f"the letter at {record.partition}/{record.offset}"] = b"\n".join(ours)
        return found


CANARIES = (CANARY_TOKEN.encode(), CANARY_EMAIL.encode())


@dataclass
class Scene:
    """What a row's function is given. ``notes`` are sentences for the table; ``marks`` are moments by name."""

    groups: Sequence[Group]
    broker: Broker
    company: Company
    chance: random.Random
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        return self.groups[0]

    def mark(self, name: str) -> int:
        self.marks[name] = now_ns()
        return self.marks[name]

    def hold(self, seconds: float) -> None:
        """The fault is kept up for so long: the length of a fault is its definition, not a wait for something."""
        time.sleep(seconds)

    def flowing(self, deadline_s: float = 60.0) -> None:
        """Until every group of the row delivers: a fault before that would meet nobody."""
        for group in self.groups:
            eventually(lambda: len(group.applied()) >= 20, deadline_s, poll_s=0.2, about=f"{group.name} delivers")  # noqa: B023


def start_worker(company: Company, names: Sequence[str], context: str, journals: Path, members: Members) -> Member:
    number = next(members.numbers)
    log = journals / f"worker-{number}-{names[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "run", *names, "--log", "json"],
            env=company.environment(context), cwd=company.folder, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    member = Member(Worker(process, log))
    members.all.append(member)
    return member


def ends(bootstrap: str, topic: str) -> dict[tuple[str, int], int]:
    """The ends of a topic's partitions; a broker that has just come back is asked again for 60 s."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "faults-ends", "log_level": 0})

    def ask() -> dict[tuple[str, int], int] | None:
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            places = [TopicPartition(topic, partition) for partition in partitions]
            return {(topic, tp.partition): consumer.get_watermark_offsets(tp, timeout=10)[1] for tp in places}
        except KafkaException:
            return None  # not there yet: asked again until the deadline

    try:
        return eventually(ask, 60, poll_s=0.2, about=f"the ends of {topic}") or {}
    finally:
        consumer.close()


def lag_of(bootstrap: str, group: str, topic: str) -> int:
    """How many offsets a group is behind in a topic; asked by a consumer that never joins."""
    last = ends(bootstrap, topic)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    try:
        committed = consumer.committed([TopicPartition(*place) for place in last], 20)
        return sum(last[tp.topic, tp.partition] - max(0, tp.offset) for tp in committed)
    finally:
        consumer.close()


def read_receipts(broker: Broker, begin: Mapping[tuple[str, int], int]) -> dict[str, dict[Place, int]]:
    """By subscription, when the broker took the first receipt of each record: of the receipts from ``begin`` on."""
    decoder = Decoder(open_registry(broker.registry.url), contracts=engine_contracts())
    found: dict[str, dict[Place, int]] = defaultdict(dict)
    for record in read_topic(broker.bootstrap, DELIVERIES, begin):
        event = decoder.decode(record)
        if isinstance(event, SchemaWanted):
            decoder.load(event)
            event = decoder.decode(record)
        assert isinstance(event, Event), f"a receipt cannot be read: {event}"
        if event.type == SETTLED:
            data = event.data
            place = (data["origin_topic"], data["origin_partition"], data["origin_offset"])
            found[data["subscription"]].setdefault(place, record.timestamp)
    return found


def read_topic(bootstrap: str, topic: str, begin: Mapping[tuple[str, int], int] | None = None) -> list[Record]:
    """Every record that stands in a topic now (from ``begin`` on), in the order of each partition. Empty if it does not
    exist."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "faults-reader",
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    found: list[Record] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        if not partitions:
            return []
        consumer.assign([TopicPartition(topic, p, (begin or {}).get((topic, p), 0)) for p in partitions])
        left = set(partitions)
        until = time.monotonic() + 60
        while left:
            if time.monotonic() > until:
                raise AssertionError(f"{topic} could not be read to its end")
            for message in consumer.consume(1000, 1.0):
                error = message.error()
                if error is None:
                    headers = tuple(message.headers() or ())
                    found.append(Record(topic, message.partition(), message.offset(), message.key(), message.value(),
                                        headers, message.timestamp()[1]))  # fmt: skip
                elif error.name() == "_PARTITION_EOF":
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return found


def stored_of(record: Record, poison: set[Place]) -> Stored:
    headers = dict(record.headers)
    event = (headers.get("ce_id") or b"").decode(errors="replace")
    place = (record.topic, record.partition, record.offset)
    if place in poison or not event:
        event = f"poison at {record.partition}/{record.offset}"
    key = (record.key or b"").decode(errors="replace")
    return Stored(place, event, key, place not in poison, (record.key, record.value, record.headers))
