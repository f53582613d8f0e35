"""Every metric of the monitor, in one table: of groups, their topics and dead letters; and the monitor itself.

Groups that went away have no series, and what is not known has none either: NaN and -1 spoil sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.registry import Collector

from ops.lag.rules import SEVERITY, Status
from ops.watch.metrics import Metric as Row

if TYPE_CHECKING:
    from ops.lag.measure import GroupLag
    from ops.monitor.monitor import Monitor
    from ops.monitor.snapshot import Snapshot

_WORST_FIRST: tuple[Status, ...] = tuple(sorted(SEVERITY, key=SEVERITY.__getitem__, reverse=True))
PARTITION = ("group", "topic", "partition")
LAG = Row(
    name="backbone_group_lag",
    kind="gauge",
    labels=PARTITION,
    meaning="Offsets between a group's position and the end of the log, as the group reads it (offsets, not messages).",
)
LAG_SECONDS = Row(
    name="backbone_group_lag_seconds",
    kind="gauge",
    labels=PARTITION,
    meaning="Age of the first record that the group has not processed; 0: there is none, absent: it is not known.",
)
COMMITTED = Row(
    name="backbone_group_committed_offset",
    kind="gauge",
    labels=PARTITION,
    meaning="The committed position; absent: nothing is committed.",
)
LOST = Row(
    name="backbone_group_lost_records_total",
    kind="counter",
    labels=PARTITION,
    meaning="Records that retention deleted before the group read them, since the monitor started.",
)
MARGIN = Row(
    name="backbone_group_retention_margin_seconds",
    kind="gauge",
    labels=PARTITION,
    meaning="Time until retention deletes the group's next record, at the earliest; absent: nothing says when.",
)
STATUS = Row(
    name="backbone_group_status",
    kind="states",
    labels=("group",),
    meaning="What the worst of its partitions is: late, stuck, unread, at risk, losing records (`backbone lag`).",
    states=_WORST_FIRST,
)
MEMBERS = Row(name="backbone_group_members", kind="gauge", labels=("group",), meaning="Members of the group.")
SLO = Row(
    name="backbone_group_slo_seconds",
    kind="gauge",
    labels=("group", "topic"),
    meaning="The age of its oldest undelivered event that a subscription promises; absent for foreign groups.",
)
TOPIC_END = Row(
    name="backbone_topic_end_offset",
    kind="gauge",
    labels=("topic", "partition", "kind"),
    meaning="The end of the log (of topics that a group reads): `high_watermark`, and `last_stable`, before the first "
    "open transaction.",
)
TOPIC_START = Row(
    name="backbone_topic_start_offset",
    kind="gauge",
    labels=("topic", "partition"),
    meaning="The first offset that retention has left.",
)
DEAD_OPEN = Row(
    name="backbone_deadletter_open",
    kind="gauge",
    labels=("subscription",),
    meaning="Open dead letters.",
)
DEAD_OLDEST = Row(
    name="backbone_deadletter_oldest_seconds",
    kind="gauge",
    labels=("subscription",),
    meaning="Age of the oldest open dead letter; 0 without any.",
)
SUBSCRIPTION_INFO = Row(
    name="backbone_subscription_info",
    kind="gauge",
    labels=("subscription", "owner", "connection", "version"),
    meaning="1 for each attached subscription: who owns it and where it delivers to.",
)
LAST_SUCCESS = Row(
    name="backbone_monitor_last_success_timestamp_seconds",
    kind="gauge",
    labels=(),
    meaning="When the monitor last read the whole cluster; absent before it first did.",
)
ROUND_SECONDS = Row(
    name="backbone_monitor_round_seconds",
    kind="gauge",
    labels=(),
    meaning="How long its last round took.",
)

METRICS: tuple[Row, ...] = (
    LAG, LAG_SECONDS, COMMITTED, LOST, MARGIN, STATUS, MEMBERS, SLO, TOPIC_END, TOPIC_START, DEAD_OPEN, DEAD_OLDEST,
    SUBSCRIPTION_INFO, LAST_SUCCESS, ROUND_SECONDS,
)  # fmt: skip


class GroupMetrics(Collector):
    """The last snapshot of a monitor as metrics; nothing before there is one. ``also`` adds other exporters' names."""

    def __init__(self, monitor: Monitor, *, also: Iterable[Callable[[Snapshot], Iterable[Metric]]] = ()) -> None:
        self._monitor, self._also = monitor, tuple(also)

    def describe(self) -> Iterable[Metric]:
        return [family(row) for row in METRICS]

    def collect(self) -> Iterable[Metric]:
        snapshot = self._monitor.snapshot
        if snapshot is None:
            return []
        return [*_families(snapshot), *(one for names in self._also for one in names(snapshot))]


def family(row: Row) -> Any:
    """An empty family for a row of a table, to be filled by ``add_metric``."""
    kind = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "states": StateSetMetricFamily}[row.kind]
    return kind(row.name, row.meaning, labels=row.labels)


def _families(snapshot: Snapshot) -> list[Metric]:
    families = {row.name: family(row) for row in METRICS}

    def add(row: Row, labels: Iterable[str], value: float | dict[str, bool] | None) -> None:
        if value is not None:
            families[row.name].add_metric(list(labels), value)

    measured = [group for group in snapshot.groups if group.problem is None]
    for group in measured:
        status = group.status
        add(STATUS, (group.name,), {state: state == status for state in STATUS.states})
        add(MEMBERS, (group.name,), len(group.members))
        for topic in dict.fromkeys(partition.topic for partition in group.partitions):
            add(SLO, (group.name, topic), group.slo_s)
        for partition in group.partitions:
            labels = (group.name, partition.topic, str(partition.partition))
            add(LAG, labels, partition.offsets.lag)
            add(LAG_SECONDS, labels, partition.age_s)
            add(COMMITTED, labels, partition.committed)
            add(LOST, labels, partition.lost_total)
            add(MARGIN, labels, partition.margin_s)
    for (topic, number), (start, high, stable) in places(measured).items():
        add(TOPIC_END, (topic, number, "high_watermark"), high)
        add(TOPIC_END, (topic, number, "last_stable"), stable)
        add(TOPIC_START, (topic, number), start)
    for name, letters in snapshot.letters.items():
        add(DEAD_OPEN, (name,), letters.open)
        add(DEAD_OLDEST, (name,), 0.0 if letters.oldest_at is None else max(0.0, snapshot.at - letters.oldest_at))
    for name, one in snapshot.attached.items():
        add(SUBSCRIPTION_INFO, (name, one.owner, one.connection, one.version), 1)
    add(LAST_SUCCESS, (), snapshot.at)
    add(ROUND_SECONDS, (), snapshot.round_s)
    return list(families.values())


def places(groups: Iterable[GroupLag]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Start, high watermark and last stable offset of every partition that a group reads."""
    return {
        (p.topic, str(p.partition)): (p.log_start, p.high_watermark, p.last_stable)
        for group in groups
        for p in group.partitions
    }
