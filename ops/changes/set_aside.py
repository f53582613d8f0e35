"""The kind ``set_aside``: one record that a subscription is stuck on becomes a dead letter, and its partition moves on.

The letter is acknowledged before the position moves, so the event is nowhere lost; taking it back is redriving it.
Our workers are asked to leave meanwhile, as for a rewind: positions can be set only while nobody is in the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumers.control import AttachedSubscription, NoPosition, begin_at, start_record
from consumers.deadletter import DeadLetter, letter_of, letter_record
from consumers.offsets import decode_runs, encode_runs
from ops.changes.attach_plan import attached_named
from ops.changes.group_positions import committed, described, set_positions
from ops.changes.kinds import ChangeKind
from ops.changes.leaving import ask_to_leave, coming_back_on, let_back, write
from ops.changes.letters import Choice
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.redrive_plan import Redriving, redrive_plan
from ops.changes.store import Journal, Store
from ops.dead_topic import DeadTopic
from ops.event_log import read_one
from ops.lag.cluster import Commit, Place
from ops.sending import Outgoing, send_acked
from ops.wording import counted
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.event import Origin, Record
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App

ASK, LETTER, SET, RETURN = (
    "ask the workers to leave", "write the dead letter", "move the position", "let the workers come back",
)  # fmt: skip
STEPS = (ASK, LETTER, SET, RETURN)
REASON = "set_aside"
BEFORE = "before"


def set_aside_plan(app: App, name: str, origin: Origin) -> Plan:
    """The plan that skips one record of a subscription's sources. Blocks; changes nothing. Raises NotFoundError for
    what is not there, RefusedError for a record that the subscription has behind it."""
    attached = attached_named(app.control(), name)
    assert attached.definition is not None
    if origin.topic not in attached.definition.topics:
        hint = did_you_mean(origin.topic, attached.definition.topics)
        raise NotFoundError(f"{name} does not read {origin.topic}.{hint}")
    record = read_one(app, *origin)
    dead = DeadTopic(app, name)
    dead.refresh()
    if origin in dead.open:
        raise RefusedError(f"{origin} is a dead letter already: backbone deadletter show {name} {origin}")
    before = _position(app, attached, origin[:2])
    after = skipped(before, origin.offset, name)
    members = len(described(app, name).members)
    event = dict(record.headers).get("ce_type")
    stops = f"stops and restarts {counted(members, 'worker')}, about 4 s" if members else "nobody runs it now"
    return new_plan(
        app,
        kind="set_aside",
        subject=name,
        title=f"set aside {origin} of {name}",
        rows=[
            {
                "topic": origin.topic,
                "partition": origin.partition,
                "offset": origin.offset,
                "event": None if event is None else event.decode(errors="replace"),
                "bytes": None if record.value is None else len(record.value),
                "committed": before.offset,
                "after": after.offset,
            }
        ],
        summary=[f"it becomes a dead letter (rejected, {REASON}); {stops}"],
        steps=STEPS,
        preconditions={"committed": before.offset},
        before={f"{origin.topic}/{origin.partition}": before.offset},
        after={f"{origin.topic}/{origin.partition}": after.offset},
        details={"origin": list(origin), "version": attached.definition.version},
    )


def parse_place(topic_and_partition: str, offset: int) -> Origin:
    """``TOPIC:P`` and an offset as an origin. Raises InputError."""
    topic, _, partition = topic_and_partition.rpartition(":")
    if not topic or not partition.isdigit():
        raise InputError(f"'{topic_and_partition[:100]}' is no partition: say it as TOPIC:PARTITION, like things:3.")
    return Origin(topic, int(partition), offset)


def skipped(before: Commit, offset: int, name: str) -> Commit:
    """The position without the record at ``offset``: behind it when it is the head, else with it in the map of what is
    finished. Pure. Raises RefusedError where there is nothing to skip."""
    runs = decode_runs(before.offset, before.metadata)
    if offset < before.offset or any(start <= offset < end for start, end in runs):
        raise RefusedError(
            f"{name} has this record behind it: it was delivered, skipped or is a dead letter. Nothing was changed."
        )
    at = before.offset
    kept: list[tuple[int, int]] = []
    for start, end in sorted([*runs, (offset, offset + 1)]):
        if start == at:
            at = end  # what is finished from the position on is passed
        elif kept and kept[-1][1] == start:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((start, end))
    metadata = encode_runs(at, kept)
    if decode_runs(at, metadata) != kept:
        raise RefusedError(
            f"{name} has so much finished beyond its position in this partition that the map is full: set aside the "
            f"record at {before.offset:,} first. Nothing was changed."
        )
    return Commit(at, metadata)


def _position(app: App, attached: AttachedSubscription, place: Place) -> Commit:
    """Where the subscription stands in a partition: its commit, or the start that waits for it."""
    found = committed(app, attached.name).get(place)
    if found is not None:
        return found
    begin = begin_at(attached, *place, None)
    if isinstance(begin, NoPosition):
        raise RefusedError(f"{attached.name} has no position in {place[0]}/{place[1]}: {begin.reason}")
    return Commit(begin.offset or 0)


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached = attached_named(app.control(), plan.subject)
    origin = _origin(plan)
    if LETTER in done or BEFORE in Store.of(app).progressed(plan.id).notes:
        return  # it goes on
    skipped(_position(app, attached, origin[:2]), origin.offset, plan.subject)
    read_one(app, *origin)


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    origin, name = _origin(plan), plan.subject
    place = origin[:2]
    if SET not in journal.done:
        # also after a cut: the workers may have come back meanwhile
        with journal.step(ASK):
            ask_to_leave(app, name, plan.id)
        with journal.step(LETTER) as todo, coming_back_on(RefusedError, app, name):
            if todo:
                _write_letter(app, plan, journal, origin)
        with journal.step(SET), coming_back_on(RefusedError, app, name):
            attached = attached_named(app.control(), name)
            before = _position(app, attached, place)
            if _is_ahead(before, origin.offset):
                set_positions(app, name, {place: skipped(before, origin.offset, name)})
            else:
                app.screen.warn(
                    f"{name} has got past {origin} before the position was moved: it may have been delivered. Its dead "
                    f"letter is open all the same: backbone trace {origin}"
                )
            _mark_started(app, attached, place)
    with journal.step(RETURN) as todo:
        if todo:
            let_back(app, name)
    now = committed(app, name).get(place)
    return {f"{place[0]}/{place[1]}": None if now is None else now.offset, "letter": str(origin)}


def _is_ahead(position: Commit, offset: int) -> bool:
    done = decode_runs(position.offset, position.metadata)
    return offset >= position.offset and not any(start <= offset < end for start, end in done)


def _write_letter(app: App, plan: Plan, journal: Journal, origin: Origin) -> None:
    """The workers may have got past the record while they left: then there is nothing to set aside."""
    attached = attached_named(app.control(), plan.subject)
    skipped(_position(app, attached, origin[:2]), origin.offset, plan.subject)
    journal.note(BEFORE, True)
    letter = _letter(read_one(app, *origin), plan)
    made = letter_record(letter)
    topic = f"{plan.subject}.dead"
    try:
        send_acked(app, [Outgoing(topic, made.partition, made.key, made.value, made.headers)])
    except RefusedError as error:
        if "MSG_SIZE_TOO_LARGE" not in str(error):
            raise
        made = letter_record(letter, omit_value=True)
        send_acked(app, [Outgoing(topic, made.partition, made.key, made.value, made.headers)])


def _letter(record: Record, plan: Plan) -> DeadLetter:
    return letter_of(
        record, outcome="rejected", reason=REASON, detail=f"by a person, {plan.id}", attempts=0, seconds_tried=0.0,
        version=plan.details["version"], now=datetime.now(UTC),
    )  # fmt: skip


def _mark_started(app: App, attached: AttachedSubscription, place: Place) -> None:
    """A start that waited for its first commit has it now."""
    start = attached.starts.get(place)
    if start is not None and start.state == "pending":
        write(app, [start_record(attached.name, *place, replace(start, state="started"))])


def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
    if LETTER not in done:
        raise RefusedError(f"{plan.id} did not come to write the letter: there is nothing to take back.")
    if RETURN not in done:
        raise RefusedError(f"{plan.id} was cut in the middle. Go on first: backbone apply {plan.id}")
    return redrive_plan(app, plan.subject, Choice(ids=(str(_origin(plan)),)), Redriving(), undoes=plan.id)


def _origin(plan: Plan) -> Origin:
    topic, partition, offset = plan.details["origin"]
    return Origin(topic, partition, offset)


KIND = ChangeKind(name="set_aside", precheck=precheck, act=act, undo=undo)
