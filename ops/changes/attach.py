"""The kinds ``attach`` and ``detach``: what ``backbone.control`` says of subscriptions, and the topics they need.

Both are one thing, a definition that becomes another one or none, so that undo of either is a plan of the same form.
What a plan holds of each subscription is ``Wanted``; ``ops.changes.attach_plan`` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from consumers.control import (
    AttachedSubscription,
    ControlRecord,
    Definition,
    Start,
    State,
    definition_record,
    start_record,
    state_record,
    timestamp,
)
from ops.changes.kinds import ChangeKind
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.store import Journal, Store
from schemas.errors import PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from ops.app import App
    from schemas.topics import TopicPlan


POSITIONS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What becomes of one subscription. ``definition`` None: detached. ``previous`` is what the control topic had;
    ``starts`` and ``state`` are written where they are not None; ``create`` are topics that were missing, ``grow``
    the partition counts of those whose sources have grown; ``forget_group``: the group's positions from an earlier
    life are deleted first."""

    name: str
    definition: Definition | None
    previous: Definition | None
    previous_starts: Mapping[tuple[str, int], Start] = field(default_factory=dict)
    previous_state: State = field(default_factory=lambda: State(state="running"))
    starts: Mapping[tuple[str, int], Start | None] = field(default_factory=dict)
    state: State | None = None
    create: tuple[TopicPlan, ...] = ()
    grow: Mapping[str, int] = field(default_factory=dict)
    forget_group: bool = False

    def dump(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "definition": _definition_json(self.definition),
            "previous": _definition_json(self.previous),
            "previous_starts": [[t, p, asdict(start)] for (t, p), start in sorted(self.previous_starts.items())],
            "previous_state": asdict(self.previous_state),
            "starts": [[t, p, asdict(start) if start else None] for (t, p), start in sorted(self.starts.items())],
            "state": asdict(self.state) if self.state else None,
            "create": [
                {"name": plan.name, "partitions": plan.partitions, "replication": plan.replication,
                 "config": dict(plan.config)} for plan in self.create
            ],
            "grow": dict(self.grow),
            "forget_group": self.forget_group,
        }  # fmt: skip

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Wanted:
        from schemas.topics import TopicPlan

        return cls(
            name=content["name"],
            definition=_definition(content["definition"]),
            previous=_definition(content["previous"]),
            previous_starts={(t, p): Start(**start) for t, p, start in content["previous_starts"]},
            previous_state=State(**content["previous_state"]),
            starts={(t, p): Start(**start) if start else None for t, p, start in content["starts"]},
            state=State(**content["state"]) if content["state"] else None,
            create=tuple(TopicPlan(**plan) for plan in content["create"]),
            grow=content["grow"],
            forget_group=content["forget_group"],
        )


def wanted_of(plan: Plan) -> list[Wanted]:
    """Raises RefusedError for a plan that another version made."""
    try:
        return [Wanted.load(content) for content in plan.details["subscriptions"]]
    except (KeyError, TypeError, ValueError):
        raise RefusedError(f"{plan.id} was made by another version. Nothing was changed. Plan it again.") from None


def steps_of(wanted: list[Wanted]) -> list[str]:
    """The names of the steps, in the order of ``act``."""
    steps = []
    for one in wanted:
        if one.create or one.grow:
            steps.append(f"make the topics of {one.name}")
        if one.forget_group:
            steps.append(f"forget the old positions of {one.name}")
        steps.append(f"{'attach' if one.definition else 'detach'} {one.name}")
    return steps


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    from ops.control import require_control

    require_control(app)
    snapshot = app.control()
    known = {**snapshot.detached, **snapshot.subscriptions}
    cut_in = Store.of(app).progressed(plan.id).doing
    for one in wanted_of(plan):
        step = f"{'attach' if one.definition else 'detach'} {one.name}"
        if step in done:
            continue
        now = known.get(one.name, AttachedSubscription(name=one.name))
        written = cut_in == step and _same(now.definition, one.definition)  # by a try that was cut in this step
        if not written and not _same(now.definition, one.previous):
            raise RefusedError(
                f"{one.name} has changed since {plan.id} was planned. Nothing was changed. Plan it again."
            )
        if one.definition is not None:
            _check_partitions(app, one)
        if one.forget_group:
            if f"forget the old positions of {one.name}" not in done:
                _check_empty(app, one.name)
        elif one.definition is not None and one.previous is None and not written and not plan.undoes:
            _check_no_positions(app, one.name, plan.id)


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    from ops import topics
    from ops.control import write_control

    wanted = wanted_of(plan)
    for one in wanted:
        if one.create or one.grow:
            with journal.step(f"make the topics of {one.name}") as todo:
                if todo:
                    topics.create(app, one.create)
                    topics.grow(app, one.grow)
        if one.forget_group:
            with journal.step(f"forget the old positions of {one.name}") as todo:
                if todo:
                    _forget_group(app, one.name)
        with journal.step(f"{'attach' if one.definition else 'detach'} {one.name}") as todo:
            if todo:
                marked = one if plan.undoes else _handed_over(app, one)
                write_control(app, _records(marked))
                if (said := _said(marked)) and not plan.undoes:
                    app.screen.say(said)
    return _read_back(app, wanted, starts=not plan.undoes)


def _handed_over(app: App, one: Wanted) -> Wanted:
    """With the hand-over position of every partition that begins: its end now, read after everything else, so that
    what is below it was there before the attach."""
    from ops.lag.cluster import Cluster

    pending = {place: start for place, start in one.starts.items() if start is not None and start.state == "pending"}
    if one.definition is None or not pending:
        return one
    ends = Cluster(app.admin(), app.consumer).ends(list(pending), "committed")
    marked = {
        place: replace(start, until=ends[place] if ends[place] > start.offset else None)
        for place, start in pending.items()
    }
    return replace(one, starts={**one.starts, **marked})


def _said(one: Wanted) -> str:
    """What is caught up with, and where it is handed over."""
    from ops.wording import counted

    begun = {
        f"{topic}/{partition}": (start.offset, start.until)
        for (topic, partition), start in sorted(one.starts.items())
        if start is not None and start.state == "pending" and start.until is not None
    }
    if not begun:
        return ""
    offsets = sum(until - at for at, until in begun.values())
    shown = [f"{place} {until:,}" for place, (_, until) in begun.items()]
    more = f" and {len(shown) - POSITIONS_SHOWN} more" if len(shown) > POSITIONS_SHOWN else ""
    return (
        f"{one.name} catches up with {counted(offsets, 'offset')} in the background, then it is live: handed over at "
        f"{', '.join(shown[:POSITIONS_SHOWN])}{more}. See how far it is: backbone status {one.name}"
    )


def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
    """Restores every definition, start and state that the change has written; topics it created stay (they are empty
    or hold what happened since)."""
    snapshot = app.control()
    known = {**snapshot.detached, **snapshot.subscriptions}
    back = []
    for one in wanted_of(plan):
        now = known.get(one.name, AttachedSubscription(name=one.name))
        if _same(now.definition, one.previous) and not one.starts:
            continue
        if not _same(now.definition, one.definition) and not _same(now.definition, one.previous):
            raise RefusedError(
                f"{plan.id} cannot be taken back: {one.name} was changed again since. Attach the file that you want."
            )
        starts: dict[tuple[str, int], Start | None] = dict.fromkeys(now.starts, None)
        if one.previous is not None:
            # a partition that has begun stays begun
            starts = {place: now.starts.get(place, start) for place, start in one.previous_starts.items()}
            starts |= {place: None for place in now.starts if place not in starts}
        back.append(
            Wanted(
                name=one.name,
                definition=one.previous,
                previous=now.definition,
                previous_starts=now.starts,
                previous_state=now.state,
                starts=starts,
                state=one.previous_state if one.previous is not None and one.definition is None else None,
            )
        )
    if not back:
        raise RefusedError(f"There is nothing of {plan.id} to take back: everything is as it was before.")
    summary = []
    for one in back:
        if one.definition is None:
            summary.append(f"{one.name} is detached; what it has sent stays sent, its topics and positions stay")
        else:
            summary.append(f"{one.name} is {one.name}@{one.definition.version} again, and goes on where it stands")
    names = ", ".join(one.name for one in back)
    kind = "attach" if any(one.definition for one in back) else "detach"
    return new_plan(
        app,
        kind=kind,
        subject=",".join(one.name for one in back),
        title=f"take back {plan.id}: {names}",
        summary=summary,
        steps=steps_of(back),
        before={one.name: version_of(one.previous) for one in back},
        after={one.name: version_of(one.definition) for one in back},
        details={"subscriptions": [one.dump() for one in back]},
        undoes=plan.id,
    )


def version_of(definition: Definition | None) -> str | None:
    return None if definition is None else definition.version


def _records(one: Wanted) -> list[ControlRecord]:
    """The records in the order that a worker may read them one by one: where it starts, whether it runs, then what it
    is; a detach the other way round."""
    now = timestamp()
    starts = [
        start_record(one.name, topic, partition, None if start is None else replace(start, at=start.at or now))
        for (topic, partition), start in sorted(one.starts.items())
    ]
    if one.definition is None:
        return [definition_record(one.name, None), *starts, *_state_records(one, now)]
    definition = replace(one.definition, at=now)
    return [*starts, *_state_records(one, now), definition_record(one.name, definition)]


def _state_records(one: Wanted, now: str) -> list[ControlRecord]:
    return [] if one.state is None else [state_record(one.name, replace(one.state, at=now))]


def _read_back(app: App, wanted: list[Wanted], *, starts: bool) -> dict[str, JsonValue]:
    """The versions as they are now; with ``starts`` also the hand-over positions that were recorded."""
    snapshot = app.control()
    after: dict[str, JsonValue] = {}
    hand_over: dict[str, JsonValue] = {}
    for one in wanted:
        found = snapshot.subscriptions.get(one.name)
        definition = None if found is None else found.definition
        if not _same(definition, one.definition):
            raise PartlyDoneError(f"{one.name} was written, but reads back as {version_of(definition) or 'detached'}.")
        after[one.name] = version_of(definition)
        if starts and found is not None:
            begun = sorted((place, start) for place, start in found.starts.items() if place in one.starts)
            hand_over |= {
                f"{one.name} {topic}/{partition}": start.until
                for (topic, partition), start in begun
                if start.until is not None
            }
    return after | ({"hand_over": hand_over} if hand_over else {})


def _check_partitions(app: App, one: Wanted) -> None:
    from ops import topics

    assert one.definition is not None
    now = topics.existing(app, one.definition.topics)
    for topic, partitions in one.definition.topics.items():
        # one that has grown is fine: what was added is read from its beginning
        if topic not in now or now[topic].partitions < partitions:
            raise RefusedError(
                f"The topic {topic} that {one.name} reads is not what it was. Nothing was changed. Plan it again."
            )


def _check_empty(app: App, name: str) -> None:
    from ops.lag.cluster import Cluster

    group = Cluster(app.admin(), app.consumer).groups([name]).found.get(name)
    if group is not None and group.members:
        members = ", ".join(sorted({f"{member.client_id} on {member.host}" for member in group.members}))
        raise RefusedError(
            f"The group {name} has members, so its old positions cannot be forgotten: {members}. Stop them first. "
            "Nothing was changed."
        )


def _check_no_positions(app: App, name: str, change_id: str) -> None:
    """A committed position goes before a recorded start, so the start would be ignored."""
    from ops.lag.cluster import Cluster

    if Cluster(app.admin(), app.consumer).commits([name]).found.get(name):
        raise RefusedError(
            f"The group {name} has positions since {change_id} was planned. Nothing was changed. Plan it again."
        )


def _forget_group(app: App, name: str) -> None:
    from confluent_kafka import KafkaError, KafkaException

    future = app.admin().delete_consumer_groups([name], request_timeout=10.0)[name]
    try:
        future.result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError.GROUP_ID_NOT_FOUND:
            return
        if reason.code() == KafkaError.NON_EMPTY_GROUP:
            raise RefusedError(f"The group {name} has members again. Stop them first.") from None
        raise app.kafka_error(reason, f"deleting the group {name}") from None


def _same(left: Definition | None, right: Definition | None) -> bool:
    """Whether two definitions are the same thing, whoever attached it whenever."""
    if left is None or right is None:
        return left is right
    return replace(left, author="", at="") == replace(right, author="", at="")


def _definition_json(definition: Definition | None) -> JsonValue:
    return None if definition is None else asdict(definition) | {"events": list(definition.events)}


def _definition(content: Any) -> Definition | None:
    return None if content is None else Definition(**(content | {"events": tuple(content["events"])}))


KIND_ATTACH = ChangeKind(name="attach", precheck=precheck, act=act, undo=undo)
KIND_DETACH = ChangeKind(name="detach", precheck=precheck, act=act, undo=undo)
