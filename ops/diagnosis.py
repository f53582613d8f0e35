"""What is wrong with the attached subscriptions, worst first: each with its cause, its age, its owner and what to do.

Pure: everything it looks at is handed in. What cannot be seen from the cluster is not claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from consumers.control import TOPIC as CONTROL
from consumers.control import AttachedSubscription, NoPosition, begin_at
from consumers.heartbeat import TOPIC as HEARTBEAT
from ops import holding
from ops.connections import UNUSED
from ops.problems import HOLDING, Case, Kind, Problem, problem, since_s, worst_first
from ops.topics import LEDGER
from ops.wording import counted, duration

if TYPE_CHECKING:
    from consumers.control import ControlSnapshot
    from ops.connections import ConnectionStatus
    from ops.lag.attached import Header
    from ops.lag.measure import PartitionLag
    from ops.lag.rules import Status
    from schemas.contract import Contract, Contracts


def not_read_yet(attached: AttachedSubscription, header: Header, contracts: Contracts | None) -> tuple[str, ...]:
    """Event types that a wildcard of the attached text stands for today and did not when it was attached."""
    if attached.definition is None or contracts is None:
        return ()
    prefixes = tuple(event[:-1] for event in header.reads if event.endswith(".*"))
    fitting = {name for name in contracts if prefixes and name.startswith(prefixes)}
    return tuple(sorted(fitting - set(attached.definition.events)))


def ending(attached: AttachedSubscription, contracts: Contracts | None) -> tuple[Contract, ...]:
    """Deprecated events among those it was attached for, the first to end first."""
    if attached.definition is None or contracts is None:
        return ()
    found = [contracts[event] for event in attached.definition.events if event in contracts]
    deprecated = [one for one in found if one.status == "deprecated"]
    return tuple(sorted(deprecated, key=lambda one: (one.sunset or date.max, one.name)))


NEEDED = {
    CONTROL: "What is attached stands there: without it nothing can be attached or run.",
    HEARTBEAT: "Workers say there what they do: without it nobody sees what holds a subscription.",
}
"""Topics of the backbone that nothing works, or nothing is seen, without."""


def missing_topics(contracts: Contracts | None, there: Iterable[str]) -> list[Problem]:
    """Topics that the backbone needs or contracts promise, and the cluster does not have."""
    known = set(there)
    problems = [
        Problem(
            kind="topic_missing", subject=topic, cause=why, age_s=None, owner="", command="backbone schema register"
        )
        for topic, why in NEEDED.items()
        if topic not in known
    ]
    for topic, promised in (contracts.topics() if contracts is not None else {}).items():
        if topic not in known:
            names = ", ".join(contract.name for contract in promised)
            problems.append(
                Problem(
                    kind="topic_missing",
                    subject=topic,
                    cause=f"The topic of {names} does not exist: nothing can be published to it.",
                    age_s=None,
                    owner=promised[0].owner,
                    command="backbone schema register",
                )
            )
    return problems


LEDGER_KEEPS = "It keeps the receipts for trace and receipt list; the other subscriptions go on."


def built_in_problems(control: ControlSnapshot, ledger: ConnectionStatus, now: datetime) -> list[Problem]:
    """What is wrong with the backbone's own subscription, the ledger: nobody attaches it, so it is no case. ``ledger``
    is its database, over all workers."""
    found = control.detached.get(LEDGER)
    if found is None or found.state.state == "running":
        return _ledger_problems(ledger)
    by = f" By {found.state.by}." if found.state.by else ""
    return [
        Problem(
            kind="stopped" if found.state.state == "stopped" else "paused",
            subject=LEDGER,
            cause=f"{_sentence(found.state.reason or f'It is {found.state.state}')}{by} {LEDGER_KEEPS}",
            age_s=since_s(found.state.at, now),
            owner="",
            command=f"backbone subscription resume {LEDGER}",
        )
    ]


def _ledger_problems(ledger: ConnectionStatus) -> list[Problem]:
    """Its database does not take receipts: they wait, and nobody else does."""
    if ledger.state in ("running", UNUSED):
        return []
    reasons = {
        "disk_full": "the disk is full: make room",
        "no_ledger": "its tables are gone: delete what is left of it, and it is made again from the receipts",
        "forbidden": "this user may not write it",
    }
    because = reasons.get(ledger.reason, ledger.reason or ledger.state)
    where = f" {ledger.where}" if ledger.where else ""
    tried = "It is tried once a minute. " if ledger.state == "stopped" else ""
    return [
        Problem(
            kind="connection_stopped" if ledger.state == "stopped" else "connection_paused",
            subject=LEDGER,
            cause=f"The ledger cannot be written{where}: {because}. {tried}{LEDGER_KEEPS}",
            age_s=None,
            owner="",
            command=f"backbone lag {LEDGER}",
        )
    ]


def problems_of(case: Case, now: datetime) -> list[Problem]:
    """What is wrong with one subscription at ``now``; empty if nothing is."""
    found = [
        *_state(case, now),
        *_ending(case, now),
        *_positions(case),
        *_topics(case),
        *_reading(case, now),
        *_dead(case, now),
        *holding.holds(case, now),
    ]
    return [*found, *_standing(case, is_explained=any(one.kind in HOLDING for one in found))]


def _state(case: Case, now: datetime) -> Iterator[Problem]:
    state, name = case.attached.state, case.attached.name
    if state.state != "running":
        kind: Kind = "stopped" if state.state == "stopped" else "paused"
        cause = _sentence(state.reason or f"It is {state.state}")
        by = f" By {state.by}." if state.by else ""
        yield problem(case, kind, f"{cause}{by}", f"backbone subscription resume {name}", since_s(state.at, now))
    if case.not_read_yet:
        events = ", ".join(case.not_read_yet)
        cause = f"Events of its wildcard that it was not attached for: {events}."
        yield problem(case, "not_read_yet", cause, f"backbone subscription attach {name}")


def _ending(case: Case, now: datetime) -> Iterator[Problem]:
    for contract in case.ending:
        if contract.sunset is None:
            cause = f"It reads {contract.name}, which is deprecated."
        elif contract.sunset < now.date():
            cause = f"It reads {contract.name}, whose last day was {contract.sunset}: nothing may come any more."
        else:
            cause = f"It reads {contract.name}, which is published until {contract.sunset}."
        if contract.replaced_by:
            cause = f"{cause} Read {contract.replaced_by} instead."
        yield problem(case, "reads_ending", cause, f"backbone catalog show {contract.replaced_by or contract.name}")


def _positions(case: Case) -> Iterator[Problem]:
    name, group = case.attached.name, case.group
    if group.lost:
        cause = f"{group.lost:,} records were deleted before it read them."
        yield problem(case, "records_lost", cause, f"backbone lag {name} -v")
    wanted = case.attached.definition.topics if case.attached.definition is not None else {}
    nowhere = [
        partition
        for partition in group.partitions
        if partition.topic in wanted
        and isinstance(begin_at(case.attached, partition.topic, partition.partition, partition.committed), NoPosition)
    ]
    if nowhere:
        cause = (
            f"Where to go on in {_several(nowhere)} is not known: the committed position is gone. "
            "Nothing restarts by itself."
        )
        yield problem(case, "no_position", cause, f"backbone rewind {name} --to POSITION")


STANDING: Mapping[Status, Kind] = {
    "STALLED": "stalled",
    "AT_RISK": "at_risk",
    "BLOCKED_TXN": "transaction_open",
}


def _standing(case: Case, *, is_explained: bool) -> Iterator[Problem]:
    """What only time shows of its partitions. That one stands still says nothing new where it is known what holds it
    (``is_explained``)."""
    name = case.attached.name
    for status, kind in STANDING.items():
        parts = [partition for partition in case.group.partitions if partition.status == status]
        if not parts or (kind == "stalled" and is_explained):
            continue
        worst = max(parts, key=lambda partition: partition.age_s or 0.0)
        cause = f"{_several([worst, *(one for one in parts if one is not worst)])}: {worst.reason}"
        command = f"backbone status {name}" if kind == "stalled" else f"backbone lag {name} -v"
        yield problem(case, kind, cause, command, worst.age_s)


def _topics(case: Case) -> Iterator[Problem]:
    name = case.attached.name
    for topic in case.group.missing:
        yield problem(case, "topic_missing", f"It reads {topic}, which does not exist.", "backbone schema register")
    if case.dead is None:
        cause = f"{name}.dead does not exist: it would stop at the first event that it has to set aside."
        yield problem(case, "dead_topic_missing", cause, f"backbone subscription attach {name}")


def _reading(case: Case, now: datetime) -> Iterator[Problem]:
    name, group = case.attached.name, case.group
    if group.problem is not None:
        cause = f"Its group could not be read ({group.problem.name()})."
        yield problem(case, "not_measured", cause, f"backbone lag {name}")
        return
    leave = case.attached.leave if case.attached.away_at(now) else None
    if leave is not None:
        cause = f"Its workers are asked to stay away until {leave.until} by the change {leave.change}."
        yield problem(case, "asked_to_leave", cause, f"backbone change show {leave.change}")
    resting = leave is not None or case.attached.state.state != "running"
    nobody = not group.members and not resting
    if nobody and group.lag:
        cause = f"No worker runs it, and {group.lag:,} offsets wait."
        yield problem(case, "nobody_reads", cause, f"backbone run {name}", group.age_s)
    elif nobody:
        yield problem(case, "no_worker", "It is attached, but no worker runs it.", f"backbone run {name}")
    unread = [p for p in group.partitions if p.member is None and p.offsets.lag]
    if unread and group.members and group.state == "stable":
        age_s = max(p.age_s or 0 for p in unread)
        cause = f"No member reads {_several(unread)}."
        yield problem(case, "partitions_unread", cause, f"backbone lag {name} -v", age_s)
    if group.age_s is None:
        cause = "It has lag, and how old it is could not be found out."
        yield problem(case, "age_unknown", cause, f"backbone lag {name} -v")
    elif group.slo_s is not None and group.age_s > group.slo_s and not nobody:
        cause = (
            f"Its oldest undelivered event is {_span(group.age_s)} old; it promises {_span(group.slo_s)}. "
            f"{group.lag:,} offsets wait."
        )
        eta_s = case.eta_s
        left, catch_up_s = case.catch_up_left, case.catch_up_s
        if folding := case.sight.folding:
            cause = f"{cause} It is {folding}; then it catches up to the hand-over position of its attach."
            yield problem(case, "catching_up", cause, f"backbone status {name}", group.age_s)
            return
        if left and (catch_up_s is not None or not case.sight.views):
            about = "" if catch_up_s is None else f", in about {_span(catch_up_s)}"
            cause = f"{cause} It is catching up to the hand-over position of its attach: {left:,} offsets to go{about}."
            eta = {} if catch_up_s is None else {"eta_s": round(catch_up_s, 1)}
            yield problem(case, "catching_up", cause, f"backbone lag {name} --watch", group.age_s, **eta)
            return
        if eta_s is not None:
            cause = f"{cause} It is catching up: level in about {_span(eta_s)}."
            yield problem(
                case, "catching_up", cause, f"backbone lag {name} --watch", group.age_s, eta_s=round(eta_s, 1)
            )
            return
        if case.produced_per_s is not None and case.sight.views:
            cause = f"{cause} It does not get closer."
        yield problem(case, "behind", cause, f"backbone lag {name} -v", group.age_s)


def _dead(case: Case, now: datetime) -> Iterator[Problem]:
    letters = case.dead.letters if case.dead is not None else ()
    if letters:
        causes = sorted({(found.letter.outcome, found.letter.reason) for found in letters})
        what = ", ".join(causes[0]) if len(causes) == 1 else f"of {len(causes)} causes"
        cause = f"{counted(len(letters), 'open dead letter')} ({what})."
        command = f"backbone deadletter list {case.attached.name}"
        yield problem(case, "dead_letters", cause, command, oldest_s(letters[0].since, now))


def _several(partitions: Sequence[PartitionLag]) -> str:
    first = partitions[0]
    more = f" and {len(partitions) - 1} more partitions" if len(partitions) > 1 else ""
    return f"{first.topic}/{first.partition}{more}"


def oldest_s(since: datetime | None, now: datetime) -> float | None:
    """Seconds from then to now, never negative."""
    return None if since is None else max(0.0, (now - since).total_seconds())


def summary(case: Case, problems: Sequence[Problem]) -> dict[str, Any]:
    """One subscription as a row."""
    definition, group = case.attached.definition, case.group
    letters = case.dead.letters if case.dead is not None else ()
    return {
        "name": case.attached.name,
        "state": case.attached.state.state,
        "version": definition.version if definition is not None else None,
        "owner": case.header.owner,
        "connection": definition.connection if definition is not None else None,
        "members": len(group.members),
        "lag": group.lag,
        "lag_seconds": None if group.age_s is None else round(group.age_s, 3),
        "slo_seconds": group.slo_s,
        "dead_letters": len(letters),
        "held_keys": case.sight.held_total,
        "parked_keys": case.sight.parked_keys,
        "records_per_second": None if case.sight.records_per_s is None else round(case.sight.records_per_s, 1),
        "eta_seconds": None if case.eta_s is None or not group.lag else round(case.eta_s, 1),
        "catch_up_left": case.catch_up_left,
        "held_by": held_by(problems),
        "problems": [problem.kind for problem in worst_first(problems)],
    }


def held_by(problems: Iterable[Problem]) -> list[str]:
    """What keeps its events from being delivered now, the worst first, in the words of ``HOLDING``."""
    return list(dict.fromkeys(HOLDING[one.kind] for one in worst_first(problems) if one.kind in HOLDING))


def _span(seconds: float) -> str:
    return duration(timedelta(seconds=seconds))


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
