"""What attaching and detaching would do, resolved to versions, topics and absolute offsets. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.control import AttachedSubscription, ControlSnapshot, Definition, Start, State
from ops import topics
from ops.changes.attach import Wanted, _same, steps_of, version_of
from ops.changes.attach_fold import check_fold, fold_sentence
from ops.changes.plan import Plan, new_plan
from ops.files import named_file
from ops.lag.cluster import Cluster
from ops.positions import Position, Resolved, parse_position, resolve
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from consumers.subscription import Subscription
    from ops.app import App
    from ops.changes.attach_effects import Effects
    from schemas.topics import TopicPlan

SEVERE_EVENTS = 10_000


@dataclass(slots=True, kw_only=True)
class Attaching:
    """One subscription on its way: what is wanted, and what people are shown of it."""

    wanted: Wanted
    rows: list[dict[str, Any]] = field(default_factory=list)
    effects: Effects
    events: int = 0
    """events that are read first, as offsets"""


def subscription_path(app: App, written: str) -> Path:
    """The file of a name or path. Raises NotFoundError with a suggestion."""
    path = Path(written)
    if path.suffix in (".yaml", ".yml") or "/" in written:
        return named_file(path)
    return app.subscription_file(written)


def attach_plan(
    app: App, files: Sequence[Path], starting: str | None, *, fold: bool = False
) -> tuple[Plan | None, list[str], list[str]]:
    """The plan that attaches the files' subscriptions; None when all are attached as they are. Also the names that
    are unchanged, and warnings. ``starting`` is the position of ``--from``, for topics that are new; ``fold``: their
    past is folded to one delivery an entity.

    Raises SubscriptionError, InputError (no ``--from`` where one is needed), RefusedError, NotFoundError.
    """
    # everything is read before the cluster is asked: a wrong file is said first
    loaded = [_loaded(app, path) for path in files]
    position = None if starting is None else parse_position(starting, datetime.now(UTC))
    if position is not None and position.kind not in ("earliest", "latest", "time"):
        raise InputError(f"--from {starting}: a subscription begins at earliest, latest or @time.")
    snapshot = app.control()
    cluster = Cluster(app.admin(), app.consumer)
    found: list[Attaching] = []
    unchanged: list[str] = []
    for subscription, doubts in loaded:
        if fold:
            check_fold(subscription, position)
        attaching = _attaching(app, cluster, snapshot, subscription, position, fold)
        if attaching is None:
            unchanged.append(subscription.name)
        else:
            attaching.effects.warnings[:0] = doubts
            found.append(attaching)
    warnings = [warning for attaching in found for warning in attaching.effects.warnings]
    if not found:
        return None, unchanged, warnings
    wanted = [attaching.wanted for attaching in found]
    names = [one.name for one in wanted]
    plan = new_plan(
        app,
        kind="attach",
        subject=",".join(names),
        title=f"attach {', '.join(f'{one.name}@{version_of(one.definition)}' for one in wanted)}",
        rows=[row for attaching in found for row in attaching.rows],
        summary=[sentence for attaching in found for sentence in attaching.effects.sentences],
        steps=steps_of(wanted),
        before={one.name: version_of(one.previous) for one in wanted},
        after={one.name: version_of(one.definition) for one in wanted},
        details={
            "subscriptions": [one.dump() for one in wanted],
            # what is shown in JSON beside the rows
            "effects": [{"subscription": one.wanted.name} | one.effects.figures for one in found],
        },
        severe=_severe(found),
    )
    return plan, unchanged, warnings


def _severe(found: Sequence[Attaching]) -> str:
    events = sum(attaching.events for attaching in found)
    reasons = [f"{events:,} events are read and sent first"] if events > SEVERE_EVENTS else []
    return "; ".join([*reasons, *(one.effects.severe for one in found if one.effects.severe)])


def _loaded(app: App, path: Path) -> tuple[Subscription, list[str]]:
    """The subscription of a file, and what is doubtful in it (an entity that is fed by two keys, for example)."""
    from consumers.subscription import SubscriptionError, check_subscription

    subscription, findings = check_subscription(path, contracts=app.contracts, connections=app.connection_types)
    if subscription is None:
        raise SubscriptionError(findings)
    return subscription, [str(finding) for finding in findings if finding.severity == "warning"]


def detach_plan(app: App, name: str) -> Plan:
    """The plan that ends a subscription. Raises NotFoundError with a suggestion."""
    snapshot = app.control()
    attached = attached_named(snapshot, name)
    definition = attached.definition
    assert definition is not None
    cluster = Cluster(app.admin(), app.consumer)
    places = _places(definition.topics)
    ends = cluster.ends(places, "committed")
    commits = cluster.commits([name]).found.get(name, {})
    rows = []
    for topic in sorted(definition.topics):
        waiting = 0
        for place in places:
            if place[0] == topic and place in ends:
                commit, start = commits.get(place), attached.starts.get(place)
                begun = commit.offset if commit is not None else start.offset if start is not None else 0
                waiting += max(0, ends[place] - begun)
        rows.append({"subscription": name, "topic": topic, "partitions": definition.topics[topic], "not_read": waiting})
    wanted = Wanted(
        name=name,
        definition=None,
        previous=definition,
        previous_starts=attached.starts,
        previous_state=attached.state,
        starts=dict.fromkeys(attached.starts),
    )
    return new_plan(
        app,
        kind="detach",
        subject=name,
        title=f"detach {name}@{definition.version}",
        rows=rows,
        summary=[
            f"its workers stop reading within seconds; {name}.inbox, {name}.dead and its positions stay at the cluster",
            "undo brings it back where it was; attaching it again asks where to begin",
        ],
        steps=steps_of([wanted]),
        before={name: definition.version},
        after={name: None},
        details={"subscriptions": [wanted.dump()]},
    )


def attached_named(snapshot: ControlSnapshot, name: str) -> AttachedSubscription:
    """The attached subscription of that name. Raises NotFoundError with a suggestion."""
    if name not in snapshot.subscriptions:
        raise NotFoundError(
            f"No subscription '{name}' is attached.{did_you_mean(name, snapshot.subscriptions)} "
            "See: backbone subscription list"
        )
    return snapshot.subscriptions[name]


def _attaching(
    app: App,
    cluster: Cluster,
    snapshot: ControlSnapshot,
    subscription: Subscription,
    position: Position | None,
    fold: bool,
) -> Attaching | None:
    name = subscription.name
    now = snapshot.subscriptions.get(name) or snapshot.detached.get(name) or AttachedSubscription(name=name)
    sources = _sources(app, subscription)
    old_topics = {} if now.definition is None else now.definition.topics
    definition = Definition(
        text=subscription.text,
        version=subscription.version,
        author=_author(),
        at="",
        connection=subscription.connection,
        events=tuple(sorted(subscription.routes)),
        # of a topic that has grown since, what was added is read from its beginning: the count it began with stays
        topics={topic: old_topics.get(topic, state.partitions) for topic, state in sources.items()},
        projections=dict(subscription.projection_hashes),
        weight=subscription.policies.weight,
    )
    missing, growing = _own_topics(app, name, next(iter(sources.values())).partitions)
    if _same(definition, now.definition) and not missing and not growing:
        return None
    new_topics = [topic for topic in definition.topics if topic not in old_topics]
    if new_topics and position is None:
        raise InputError(
            f"Say where {name} begins to read {', '.join(new_topics)}: --from earliest, --from latest or --from @time."
        )
    commits = cluster.commits([name]).found.get(name, {})
    forget = now.definition is None and bool(commits)
    stale = sorted({topic for topic, _ in commits if topic in new_topics}) if not forget else []
    if stale:
        raise RefusedError(
            f"The group {name} still has positions in {', '.join(stale)} from when it read it before. "
            f"Detach {name} and attach it again with --from, so that it is clear where it begins."
        )
    resolved = _resolved(cluster, position, new_topics, definition)
    # what an earlier life has recorded of topics that are not read any more is forgotten with it
    starts: dict[tuple[str, int], Start | None] = {
        place: None for place in now.starts if place[0] not in definition.topics
    }
    starts |= {place: Start(offset=one.offset, state="pending", fold=fold) for place, one in resolved.items()}
    wanted = Wanted(
        name=name,
        definition=definition,
        previous=now.definition,
        previous_starts=now.starts,
        previous_state=now.state,
        starts=starts,
        state=State(state="running", by=_author()) if now.definition is None else None,
        create=tuple(missing),
        grow=growing,
        forget_group=forget,
    )
    from ops.changes.attach_effects import Effects

    attaching = Attaching(wanted=wanted, effects=Effects())
    _describe(app, cluster, attaching, subscription, now, resolved, position, sources)
    return attaching


def _sources(app: App, subscription: Subscription) -> dict[str, topics.TopicState]:
    found = topics.existing(app, subscription.topics)
    missing = [topic for topic in subscription.topics if topic not in found]
    if missing:
        raise RefusedError(
            f"{subscription.name} reads {', '.join(missing)}, which the cluster does not have yet. "
            "Create the topics of the contracts: backbone schema register"
        )
    counts = {state.partitions for state in found.values()}
    if len(counts) > 1:
        listed = ", ".join(f"{topic} {state.partitions}" for topic, state in found.items())
        raise RefusedError(
            f"The sources of {subscription.name} have different partition counts ({listed}); they are read side by "
            "side and need the same. Give the smaller ones more partitions, or make two subscriptions."
        )
    return found


def _own_topics(app: App, name: str, partitions: int) -> tuple[list[TopicPlan], dict[str, int]]:
    """The subscription's own topics that are missing, and those that must grow to its sources' partition count."""
    plans = topics.wanted_for_subscription(app, name, partitions)
    there = topics.existing(app, [plan.name for plan in plans])
    for state in there.values():
        if state.partitions > partitions:
            raise RefusedError(
                f"{state.name} exists with {state.partitions} partitions, but the sources of {name} have {partitions}; "
                "they are read side by side and need the same."
            )
    growing = {state.name: partitions for state in there.values() if state.partitions < partitions}
    return [plan for plan in plans if plan.name not in there], growing


def _resolved(
    cluster: Cluster, position: Position | None, new_topics: Sequence[str], definition: Definition
) -> dict[tuple[str, int], Resolved]:
    if position is None or not new_topics:
        return {}
    return resolve(cluster, position, _places({topic: definition.topics[topic] for topic in new_topics}))


def _describe(
    app: App,
    cluster: Cluster,
    attaching: Attaching,
    subscription: Subscription,
    now: AttachedSubscription,
    resolved: Mapping[tuple[str, int], Resolved],
    position: Position | None,
    sources: Mapping[str, topics.TopicState],
) -> None:
    from ops.changes import attach_effects

    one, effects = attaching.wanted, attaching.effects
    assert one.definition is not None
    ends = cluster.ends(list(resolved), "committed")
    firsts = cluster.starts(list(resolved))
    label = f"{one.previous.version} -> {subscription.version}" if one.previous else f"new {subscription.version}"
    for topic, state in sources.items():
        places = [place for place in resolved if place[0] == topic]
        events = sum(max(0, ends[place] - resolved[place].offset) for place in places)
        gone = sum(firsts[place] for place in places) if position is not None and position.kind == "earliest" else 0
        first = min((found for place in places if (found := resolved[place].first) is not None), default=None)
        empty = sum(1 for place in places if resolved[place].note)
        notes = []
        if not places:
            notes.append("goes on where it stands")
        elif empty:
            notes.append(f"no record since then in {empty} of {len(places)} partitions")
        if gone:
            notes.append(f"{gone:,} older events are no longer kept")
        attaching.events += events
        attaching.rows.append(
            {
                "subscription": one.name,
                "version": label,
                "topic": topic,
                "partitions": state.partitions,
                "from": str(position) if places else "kept",
                "first_record": first.isoformat() if first else None,
                "events": events if places else None,
                "note": "; ".join(notes),
            }
        )
    say = effects.sentences.append
    say(f"{one.name} reads {', '.join(one.definition.events)} and asks {subscription.connection} "
        f"({subscription.connector.name})")  # fmt: skip
    if one.previous is not None:
        added = sorted(set(one.definition.events) - set(one.previous.events))
        gone_events = sorted(set(one.previous.events) - set(one.definition.events))
        if added or gone_events:
            say("events: " + ", ".join([f"+{name}" for name in added] + [f"-{name}" for name in gone_events]))
    attach_effects.contracts(app, subscription, effects)
    attach_effects.personal_data(subscription, effects)
    if one.create:
        say("creates " + ", ".join(f"{plan.name} ({plan.partitions} partitions)" for plan in one.create))
    if one.grow:
        say("gives " + ", ".join(f"{topic} {count} partitions" for topic, count in sorted(one.grow.items())))
    attach_effects.side_by_side(subscription, sources, effects)
    attach_effects.permissions(app, subscription, effects)
    attach_effects.connection(app, subscription, effects)
    if one.forget_group:
        say(f"the group {one.name} has positions from before it was detached: they are forgotten")
    begin = {place: found.offset for place, found in resolved.items()}
    takes = attach_effects.catch_up(app, cluster, subscription, begin, effects)
    if attaching.events and any(start is not None and start.fold for start in one.starts.values()):
        say(fold_sentence(attaching.events))
    attach_effects.retention(cluster, subscription, sources, begin, takes, effects)
    if now.definition is not None and now.state.state != "running":
        say(f"it is {now.state.state} and stays so until: backbone subscription resume {one.name}")


def _places(partitions: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(topic, partition) for topic, count in sorted(partitions.items()) for partition in range(count)]


def _author() -> str:
    from ops.settings import user_name

    return user_name()
