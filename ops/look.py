"""One look at the attached subscriptions: the cluster, the heartbeats and the dead letters put together as cases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from ops import deadletters, diagnosis, holding
from ops.app import CLUSTER_TIMEOUT_S
from ops.connections import ConnectionStatus, connection_status, users_of
from ops.lag import attached
from ops.lag.cluster import Cluster
from ops.lag.measure import GroupLag, LagReader
from ops.monitor.sampled import Sampled, remembered, sampled
from ops.origins import standing
from ops.problems import Case, Problem, Sight, worst_first
from ops.topics import LEDGER
from ops.watch.heartbeats import Beats, read_heartbeats
from ops.wording import in_context

if TYPE_CHECKING:
    from consumers.control import ControlSnapshot
    from ops.app import App
    from schemas.contract import Contracts

PRODUCED_OVER_S = 60
"""Over so long it is counted how fast a late subscription's topics grow."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: cases in the order asked for, problems worst first, heartbeats, and the contracts if they can be
    read."""

    cases: list[Case]
    problems: list[Problem]
    beats: Beats
    contracts: Contracts | None
    sampled: Sampled | None = None


def take(app: App, control: ControlSnapshot, names: Sequence[str], now: datetime, *, everything: bool) -> Look:
    """Look at these subscriptions. ``everything``: at topics of contracts and of the backbone too. What only time shows
    of them is a monitor's, where one answers.

    Blocks on a few requests; reads heartbeats, open dead letters and the records that are named, without a group.
    Raises UnreachableError and what Kafka's errors mean."""
    contracts = attached.contracts_if_readable(app)
    there = app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).topics
    beats = read_heartbeats(app)
    chosen = [control.subscriptions[name] for name in names]
    cluster = Cluster(app.admin(), app.consumer)
    groups = LagReader(cluster).measure([attached.subject_of(subscription, contracts) for subscription in chosen])
    found = sampled(app, names) if names else None
    if found is not None:
        groups = [remembered(group, found.groups[group.name]) for group in groups]
    dead = deadletters.open_letters(app, [name for name in names if f"{name}.dead" in there])
    connections = _connections(control, beats, names)
    cases = []
    for subscription, group in zip(chosen, groups, strict=True):
        definition = subscription.definition
        assert definition is not None
        head = attached.header(definition, contracts)
        cases.append(
            Case(
                attached=subscription,
                header=head,
                group=group,
                dead=dead.get(subscription.name),
                not_read_yet=diagnosis.not_read_yet(subscription, head, contracts),
                ending=diagnosis.ending(subscription, contracts),
                sight=_sight(beats, subscription.name, group),
                connection=connections.get(definition.connection),
                produced_per_s=_produced(cluster, group),
            )
        )
    # the records that are named: of every subscription the oldest, of the one that is asked for all of them
    each = 1 if everything else None
    origins = [
        held.origin for case in cases for group_ in (case.sight.held, case.sight.parked) for held in group_[:each]
    ]
    if origins:
        records = standing(app, origins, contracts)
        cases = [replace(case, standing=records) for case in cases]
    problems = [problem for case in cases for problem in diagnosis.problems_of(case, now)]
    for status_ in connections.values():
        problems += holding.connection_problems(status_, now)
    if everything:
        problems += holding.credential_problems(beats.fresh)
        problems += diagnosis.missing_topics(contracts, there)
        ledger = connection_status(LEDGER, control=None, beats=beats.fresh)
        problems += diagnosis.built_in_problems(control, ledger, now)
    here = app.screen.context
    typed = [replace(one, cause=in_context(one.cause, here), command=in_context(one.command, here)) for one in problems]
    return Look(cases, worst_first(typed), beats, contracts, found)


def _connections(control: ControlSnapshot, beats: Beats, names: Sequence[str]) -> dict[str, ConnectionStatus]:
    """The connections that these subscriptions use, over all processes."""
    definitions = (control.subscriptions[name].definition for name in names)
    used = sorted({definition.connection for definition in definitions if definition is not None})
    return {
        name: connection_status(
            name,
            control=control.connections.get(name),
            beats=beats.fresh,
            subscriptions=users_of(name, control.subscriptions),
        )
        for name in used
    }


def _sight(beats: Beats, name: str, group: GroupLag) -> Sight:
    views = beats.of_subscription(name)
    heard = {client_id(beat.heartbeat.process) for beat in beats.fresh}
    # without the topic that is said once, not of every subscription
    blind = (
        beats.topic_exists
        and not views
        and bool(group.members)
        and not any(m.client_id in heard for m in group.members)
    )
    return Sight(views=views, is_blind=blind, silent_s=None if beats.fresh else beats.silent_s)


def client_id(process: str) -> str:
    """What a worker calls itself in its groups (``backbone run``)."""
    return f"backbone-{process.replace('/', '-')}"


def _produced(cluster: Cluster, group: GroupLag) -> float | None:
    """Offsets a second written of late to what a late group reads: how fast it must be to catch up. One request, and
    only where it is late."""
    if group.slo_s is None or group.age_s is None or group.age_s <= group.slo_s:
        return None
    if group.trend is not None:
        return group.trend.produced_per_s
    places = {(p.topic, p.partition): p.end for p in group.partitions}
    then = int((time.time() - PRODUCED_OVER_S) * 1000)
    found = cluster.at_times(dict.fromkeys(places, then), "committed")
    written = sum(max(0, places[place] - offset) for place, (offset, _) in found.items() if offset >= 0)
    return written / PRODUCED_OVER_S
