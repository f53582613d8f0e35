"""What a row acts on: its groups with their workers and vendors, the broker, and what can be counted of them."""

from __future__ import annotations

import contextlib
import json
import random
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumers.deadletter import parse_letter
from consumers.pipeline import idempotency_key
from schemas.event import Event, Record
from tests.faults.broker import ROOT, Broker, now_ns
from tests.faults.cluster import ends, read_topic, stored_of
from tests.faults.company import ACTIONS, Company, GroupPlan, Topic
from tests.faults.history import Applied, Call, History, Letter, Place, Sample, facts
from tests.faults.members import Member, Members, start_worker
from tests.faults.publisher import CANARY_EMAIL, SOURCE
from tests.faults.vendors import CANARY_TOKEN
from tests.waiting import eventually

START_MAX_S = 150.0
"""A worker has started and has partitions: seconds alone, more where a machine is busy with others."""


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

    def wait_until_member(self, member: Member, deadline_s: float = START_MAX_S) -> None:
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

    def flowing(self, deadline_s: float = START_MAX_S) -> None:
        """Until every group of the row delivers: a fault before that would meet nobody."""
        for group in self.groups:
            eventually(lambda: len(group.applied()) >= 20, deadline_s, poll_s=0.2, about=f"{group.name} delivers")  # noqa: B023
