"""The kind ``rewind``: moves committed positions. Our workers are asked to leave first, and come back by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from consumers.control import Start, start_record
from ops.changes.group_positions import committed, described, remove_positions, set_positions
from ops.changes.kinds import ChangeKind
from ops.changes.leaving import ask_to_leave, coming_back_on, let_back, write
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.rewind_plan import ASK, RETURN, SET, STEPS_FOREIGN, STEPS_OURS, members_in_words
from ops.changes.store import Journal
from ops.lag.cluster import Cluster, Commit, Place
from ops.wording import counted
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from ops.app import App

GONE_AGAIN = "Nothing was changed. Plan it again."


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached = _attached(app, plan)
    if SET in done:
        return
    if attached is None:
        group = described(app, plan.subject)
        if group.members:
            raise RefusedError(
                f"{plan.subject} has members by now: {members_in_words(group.members)}. Stop them first. "
                "Nothing was changed."
            )
    if "before" in _noted(app, plan):
        return  # an earlier try was cut while it set them: what stands there now is its own doing
    _check_places(app, plan)
    _check_stood(plan, committed(app, plan.subject), attached is not None)


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    if not plan.preconditions["ours"]:
        _set(app, plan, journal)
    else:
        if SET not in journal.done:
            _ask_to_leave(app, plan, journal)
            _set(app, plan, journal)
        with journal.step(RETURN) as todo:
            if todo:
                let_back(app, plan.subject)
    now = committed(app, plan.subject)
    return {key: now[place].offset if place in now else None for key, place in _places(plan).items()}


def undo(app: App, plan: Plan, notes: Mapping[str, JsonValue], done: frozenset[str]) -> Plan:
    if "before" not in notes:
        raise RefusedError(f"{plan.id} did not come to set a position: there is nothing to take back.")
    attached = _attached(app, plan)
    before = _read(notes["before"])
    every = {(topic, partition): offset for topic, partition, offset, _ in plan.details["set"]}
    # a position in a topic that was deleted cannot be set again; it must not keep the others from being restored
    there = Cluster(app.admin(), app.consumer).starts(every)
    targets = {place: offset for place, offset in every.items() if place in there}
    gone = sorted(_key(place) for place in every if place not in there)
    if not targets:
        raise RefusedError(f"{plan.id} cannot be taken back: {gone[0]} does not exist any more. Nothing was changed.")
    starts = {(topic, partition): offset for topic, partition, offset, _ in plan.details["starts"]}
    now = committed(app, plan.subject)
    limits = {}
    for place, target in targets.items():
        old = before[place].offset if place in before else starts.get(place, target)
        # a rewind: what stood before the old position has been read twice and is not read again from it; a skip: what
        # was read behind the target would be read again from the old position
        limits[place] = max(old, target)
        at = now[place].offset if place in now else None
        if at is not None and at < min(old, target):
            raise RefusedError(
                f"{plan.id} cannot be taken back: {_key(place)} was moved to {at:,} since, by somebody else."
            )
    once_more = sum(max(0, now[place].offset - limit) for place, limit in limits.items() if place in now)
    if once_more:
        raise RefusedError(
            f"{plan.id} cannot be taken back: {plan.subject} has gone on since, and about {once_more:,} events would "
            "be processed once more."
        )
    restored = {place: before[place] for place in targets if place in before}
    removed = sorted(place for place in targets if place not in before)
    stands = {place: now[place].offset if place in now else None for place in sorted(targets)}
    backs = {place: before[place].offset if place in before else None for place in sorted(targets)}
    return new_plan(
        app,
        kind="rewind",
        subject=plan.subject,
        title=f"take back {plan.id}: {plan.title}",
        rows=[_row_back(place, stands[place], backs[place]) for place in stands],
        summary=[
            f"{counted(len(restored), 'position')} restored, {len(removed):,} removed",
            *([f"left out: {', '.join(gone)}, which does not exist any more"] if gone else []),
        ],
        steps=STEPS_OURS if attached is not None else STEPS_FOREIGN,
        preconditions=plan.preconditions,
        before={_key(place): at for place, at in stands.items()},
        after={_key(place): back for place, back in backs.items()},
        details={
            "set": _written(restored),
            "remove": [list(place) for place in removed],
            "stood": [[*place, at, backs[place]] for place, at in stands.items()],
            "limits": [[*place, limit] for place, limit in sorted(limits.items())],
            "starts": [one for one in plan.details["starts"] if (one[0], one[1]) in targets],
            "undo": True,
        },
        undoes=plan.id,
    )


def _row_back(place: Place, at: int | None, back: int | None) -> dict[str, JsonValue]:
    known = at is not None and back is not None
    return {
        "topic": place[0],
        "partition": place[1],
        "committed": at,
        "target": back,
        "again": max(0, (at or 0) - (back or 0)) if known else 0,
        "skipped": max(0, (back or 0) - (at or 0)) if known else 0,
        "first_record": None,
        "note": "the position is removed" if back is None else "",
    }


# ---- the steps ------------------------------------------------------------------------------------------------------


def _ask_to_leave(app: App, plan: Plan, journal: Journal) -> None:
    """Also after a cut: the workers may have come back meanwhile, so it is asked again whatever the journal says."""
    with journal.step(ASK), coming_back_on(BaseException, app, plan.subject):
        ask_to_leave(app, plan.subject, plan.id)
        if "before" not in journal.notes:
            _check_stood(plan, committed(app, plan.subject), ours=True)


def _set(app: App, plan: Plan, journal: Journal) -> None:
    name = plan.subject
    with journal.step(SET) as todo:
        if not todo:
            return
        if "before" not in journal.notes:
            # what undo restores, and what a second try must not take for the state before
            journal.note("before", _written(committed(app, name)))
        before = _read(journal.notes["before"])
        wanted = {(t, p): Commit(offset, metadata) for t, p, offset, metadata in plan.details["set"]}
        removed = {(topic, partition) for topic, partition in plan.details["remove"]}
        with coming_back_on(RefusedError, app, name) if plan.preconditions["ours"] else contextlib.nullcontext():
            if removed:
                kept = {place: commit for place, commit in before.items() if place not in removed} | wanted
                # a position in a topic that was deleted cannot be set again, and is of no use to anybody
                there = Cluster(app.admin(), app.consumer).starts(kept)
                remove_positions(app, name, {place: commit for place, commit in kept.items() if place in there})
            else:
                set_positions(app, name, wanted)
        # A start that waited for its first commit has it now; taken back, it waits again.
        state: Literal["pending", "started"] = "pending" if plan.details["undo"] else "started"
        attached = app.control().subscriptions.get(name)
        starts = {} if attached is None else attached.starts
        write(
            app,
            [
                # what the attach has marked in them (``until``, ``fold``) stays
                start_record(
                    name,
                    topic,
                    p,
                    replace(
                        starts.get((topic, p), Start(offset=offset, state=state)), offset=offset, state=state, at=at
                    ),
                )
                for topic, p, offset, at in plan.details["starts"]
            ],
        )


# ---- whether it still holds -----------------------------------------------------------------------------------------


def _attached(app: App, plan: Plan) -> AttachedSubscription | None:
    attached = app.control().subscriptions.get(plan.subject)
    if (attached is not None) != plan.preconditions["ours"]:
        now = "attached" if attached is not None else "not attached any more"
        raise RefusedError(f"{plan.subject} is {now}, so {plan.id} does not hold. {GONE_AGAIN}")
    return attached


def _noted(app: App, plan: Plan) -> Mapping[str, JsonValue]:
    from ops.changes.store import Store

    return Store.of(app).progressed(plan.id).notes


def _check_places(app: App, plan: Plan) -> None:
    """Every target still stands in its log."""
    cluster = Cluster(app.admin(), app.consumer)
    wanted = {(topic, partition): offset for topic, partition, offset, _ in plan.details["set"]}
    starts, ends = cluster.starts(wanted), cluster.ends(wanted, "uncommitted")
    for place, offset in sorted(wanted.items()):
        if place not in starts:
            raise RefusedError(f"{_key(place)} does not exist any more. {GONE_AGAIN}")
        if offset > ends[place]:
            raise RefusedError(f"{_key(place)} ends at {ends[place]:,} now, before {offset:,}. {GONE_AGAIN}")
        if offset < starts[place] and not plan.details["undo"]:
            raise RefusedError(
                f"The records of {_key(place)} from {offset:,} to {starts[place]:,} are deleted by now. {GONE_AGAIN}"
            )


def _check_stood(plan: Plan, now: Mapping[Place, Commit], ours: bool) -> None:
    """A foreign group stands where it stood. One of ours may have gone on meanwhile, but not come back, and not passed
    the place that it was to be moved forward to, or that its old position can still be restored behind."""
    limits = {(topic, partition): limit for topic, partition, limit in plan.details["limits"]}
    for topic, partition, stood, target in plan.details["stood"]:
        commit = now.get((topic, partition))
        at = None if commit is None else commit.offset
        if at == stood or (at is None and ours and not plan.details["undo"]):
            continue
        moved = f"{topic}/{partition} of {plan.subject} moved from {_or_none(stood)} to {_or_none(at)} meanwhile"
        if plan.details["undo"]:
            if ours and at is not None and at <= limits[topic, partition]:
                continue
            raise RefusedError(f"{moved}: {plan.undoes} cannot be taken back any more. Nothing was changed.")
        if not ours or at is None or (stood is not None and (at < stood or stood < target < at)):
            raise RefusedError(f"{moved}. {GONE_AGAIN}")


# ---- positions as JSON ----------------------------------------------------------------------------------------------


def _written(positions: Mapping[Place, Commit]) -> list[JsonValue]:
    return [[*place, commit.offset, commit.metadata] for place, commit in sorted(positions.items())]


def _read(written: JsonValue) -> dict[Place, Commit]:
    return {(topic, partition): Commit(offset, metadata) for topic, partition, offset, metadata in written}


def _places(plan: Plan) -> dict[str, Place]:
    changed = [(t, p) for t, p, _, _ in plan.details["set"]] + [(t, p) for t, p in plan.details["remove"]]
    return {_key(place): place for place in changed}


def _key(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _or_none(offset: int | None) -> str:
    return "no commit" if offset is None else f"{offset:,}"


KIND = ChangeKind(name="rewind", precheck=precheck, act=act, undo=undo)
