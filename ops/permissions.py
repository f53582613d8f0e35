"""What each role needs of Kafka, and nothing more: one table, from which ACLs.md and ``backbone topic acls`` come.

Pure. The names of groups and topics follow from the contracts and the subscriptions; ``tests/integration`` gives each
role exactly these at a broker that permits nothing else, and runs its commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ops.app import READER
from ops.topics import LEDGER

Role: TypeAlias = Literal["publisher", "worker", "ledger", "monitor", "operator", "analyst"]
Resource: TypeAlias = Literal["topic", "group", "cluster"]

ROLES: Mapping[Role, str] = {
    "publisher": "a service that publishes events; `backbone event publish`",
    "worker": "`backbone run NAME`: the subscriptions",
    "ledger": "`backbone run ledger`: the receipts as a database",
    "monitor": "`backbone monitor`, `lag`, `status`, `doctor`, `catalog`: looks at everything, changes nothing",
    "operator": "attaches, rewinds, redrives, replays, repairs, erases, pauses, registers; everything the monitor does",
    "analyst": "`backbone subscription preview`, `event tail`, `get`, `find`: reads events, changes nothing",
}
CLUSTER = "kafka-cluster"
"""Kafka's name of the cluster as a resource."""
ALL = "*"
READ, WRITE, DESCRIBE = "Read", "Write", "Describe"


@dataclass(frozen=True, slots=True)
class Permission:
    """``operations`` on a resource of that name, in Kafka's words; ``name`` ``*`` is every one. ``why``: what is done
    with it. Reading and writing a topic includes describing it, as Kafka has it."""

    role: Role
    resource: Resource
    name: str
    operations: tuple[str, ...]
    why: str

    def bindings(self) -> list[tuple[str, str, str, str]]:
        """(resource, name, pattern, operation), one each."""
        return [(self.resource, self.name, "literal", operation) for operation in self.operations]

    def command(self, principal: str, bootstrap: str) -> str:
        """The line for Kafka's own tool that gives it to a principal (``User:NAME``)."""
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add", "--allow-principal", principal]
        words += [word for operation in self.operations for word in ("--operation", operation)]
        words += ["--cluster"] if self.resource == "cluster" else [f"--{self.resource}", self.name]
        return shlex.join(words)


def permissions(role: Role, topics: Iterable[str], readers: Mapping[str, Iterable[str]]) -> list[Permission]:
    """What a role needs where the contracts name these ``topics`` and subscriptions (``readers``, by name) read so
    many of them."""
    makers: Mapping[Role, Callable[[], Iterator[Permission]]] = {
        "publisher": lambda: _publisher(topics),
        "worker": lambda: _worker("worker", readers),
        "ledger": _ledger,
        "monitor": lambda: _monitor("monitor", topics, readers),
        "operator": lambda: _operator(topics, readers),
        "analyst": lambda: _analyst(topics),
    }
    return _merged(makers[role]())


def _reads(role: Role, group: str = READER) -> Permission:
    return Permission(role, "group", group, (DESCRIBE,), "read outside any group: the client asks for a coordinator")


def _publisher(topics: Iterable[str]) -> Iterator[Permission]:
    for topic in sorted(set(topics)):
        yield Permission("publisher", "topic", topic, (WRITE,), "publish")


def _worker(role: Role, readers: Mapping[str, Iterable[str]]) -> Iterator[Permission]:
    yield Permission(role, "topic", "backbone.control", (READ, WRITE), "follow what is attached; say what stopped")
    yield _reads(role)
    yield _reads(role, "backbone.control-tail")
    yield _reads(role, "backbone.open-letters")
    yield Permission(role, "topic", "backbone.heartbeat", (WRITE,), "say what it does")
    yield Permission(role, "topic", "backbone.deliveries", (WRITE,), "leave receipts")
    for name, topics in sorted(readers.items()):
        yield Permission(role, "group", name, (READ,), "be a member and commit")
        for topic in sorted(set(topics)):
            yield Permission(role, "topic", topic, (READ,), "read events")
        yield Permission(role, "topic", f"{name}.inbox", (READ,), "read what is redriven, replayed and repaired")
        yield Permission(role, "topic", f"{name}.dead", (READ, WRITE), "set aside; know what is parked")


def _ledger() -> Iterator[Permission]:
    for one in _worker("ledger", {LEDGER: ["backbone.deliveries"]}):
        # it leaves no receipts of its own
        if (one.name, one.operations) != ("backbone.deliveries", (WRITE,)):
            yield one
    yield Permission("ledger", "group", LEDGER, ("Delete",), "begin anew where the database was lost")


def _monitor(role: Role, topics: Iterable[str], readers: Mapping[str, Iterable[str]]) -> Iterator[Permission]:
    yield Permission(role, "cluster", CLUSTER, (DESCRIBE,), "know the groups")
    yield Permission(role, "group", ALL, (DESCRIBE,), "members and committed positions")
    yield Permission(role, "topic", ALL, (DESCRIBE, "DescribeConfigs"), "ends, times, retention")
    for topic in ("backbone.control", "backbone.heartbeat"):
        yield Permission(role, "topic", topic, (READ,), "what is attached, and what workers do")
    for topic in sorted(set(topics)):
        yield Permission(
            role,
            "topic",
            topic,
            (READ,),
            "name the record that is held; the age of producers' times; the catalogue's sample",
        )
    for name in sorted(readers):
        yield Permission(role, "topic", f"{name}.dead", (READ,), "open dead letters")


def _operator(topics: Iterable[str], readers: Mapping[str, Iterable[str]]) -> Iterator[Permission]:
    yield from _monitor("operator", topics, readers)
    yield Permission("operator", "group", ALL, (READ, "Delete"), "rewind, and its undo")
    yield Permission("operator", "cluster", CLUSTER, ("Create",), "schema register, attach: topics that are missing")
    yield Permission(
        "operator", "topic", "backbone.control", (WRITE,), "attach, detach, pause, resume, erase; steer a change"
    )
    yield Permission(
        "operator", "topic", "backbone.heartbeat", (WRITE,), "say that a long change runs, and how far it is"
    )
    yield Permission("operator", "topic", "backbone.audit", (READ, WRITE), "the record of every change")
    for name in sorted(readers):
        # a change that was cut asks the inbox what it has sent
        inbox = "redrive, replay, repair, erase, and what of it still waits; more partitions"
        yield Permission("operator", "topic", f"{name}.inbox", (READ, WRITE, "Alter"), inbox)
        yield Permission(
            "operator", "topic", f"{name}.dead", (WRITE, "Alter"), "discard, set aside, erase; more partitions"
        )


def _analyst(topics: Iterable[str]) -> Iterator[Permission]:
    yield _reads("analyst")
    yield Permission("analyst", "topic", "backbone.control", (READ,), "what is attached")
    for topic in sorted(set(topics)):
        yield Permission("analyst", "topic", topic, (READ,), "preview, tail, find")


def _merged(found: Iterable[Permission]) -> list[Permission]:
    """One permission a resource."""
    merged: dict[tuple[Resource, str], Permission] = {}
    for one in found:
        before = merged.get((one.resource, one.name))
        if before is None:
            merged[one.resource, one.name] = one
            continue
        operations = (*before.operations, *(more for more in one.operations if more not in before.operations))
        why = before.why if one.why in before.why else f"{before.why}; {one.why}"
        merged[one.resource, one.name] = Permission(one.role, one.resource, one.name, operations, why)
    return list(merged.values())
