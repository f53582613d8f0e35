"""A monitor's snapshot as its metrics (``MONITOR_METRICS`` of ``ops/watch/metrics.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.registry import Collector

from ops.watch import metrics
from ops.watch.metrics import Metric as Row

if TYPE_CHECKING:
    from ops.lag.measure import GroupLag
    from ops.monitor.monitor import Monitor
    from ops.monitor.snapshot import Snapshot


class GroupMetrics(Collector):
    """The last snapshot of a monitor as metrics; nothing before there is one. ``also`` adds other exporters' names."""

    def __init__(self, monitor: Monitor, *, also: Iterable[Callable[[Snapshot], Iterable[Metric]]] = ()) -> None:
        self._monitor, self._also = monitor, tuple(also)

    def describe(self) -> Iterable[Metric]:
        return [family(row) for row in metrics.MONITOR_METRICS]

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
    families = {row.name: family(row) for row in metrics.MONITOR_METRICS}

    def add(row: Row, labels: Iterable[str], value: float | dict[str, bool] | None) -> None:
        if value is not None:
            families[row.name].add_metric(list(labels), value)

    measured = [group for group in snapshot.groups if group.problem is None]
    for group in measured:
        status = group.status
        add(metrics.GROUP_STATUS, (group.name,), {state: state == status for state in metrics.GROUP_STATUS.states})
        add(metrics.GROUP_MEMBERS, (group.name,), len(group.members))
        for topic in dict.fromkeys(partition.topic for partition in group.partitions):
            add(metrics.GROUP_SLO, (group.name, topic), group.slo_s)
        for partition in group.partitions:
            labels = (group.name, partition.topic, str(partition.partition))
            add(metrics.GROUP_LAG, labels, partition.offsets.lag)
            add(metrics.GROUP_LAG_SECONDS, labels, partition.age_s)
            add(metrics.GROUP_COMMITTED, labels, partition.committed)
            add(metrics.GROUP_LOST, labels, partition.lost_total)
            add(metrics.GROUP_MARGIN, labels, partition.margin_s)
    for (topic, number), (start, high, stable) in places(measured).items():
        add(metrics.TOPIC_END, (topic, number, "high_watermark"), high)
        add(metrics.TOPIC_END, (topic, number, "last_stable"), stable)
        add(metrics.TOPIC_START, (topic, number), start)
    for name, letters in snapshot.letters.items():
        add(metrics.DEAD_OPEN, (name,), letters.open)
        oldest_s = 0.0 if letters.oldest_at is None else max(0.0, snapshot.at - letters.oldest_at)
        add(metrics.DEAD_OLDEST, (name,), oldest_s)
    for name, one in snapshot.attached.items():
        add(metrics.SUBSCRIPTION_INFO, (name, one.owner, one.connection, one.version), 1)
    for name, counts in snapshot.reconciled.items():
        for kind, count in counts.items():
            add(metrics.RECONCILE_DIFFERENCE, (name, kind), count)
    add(metrics.MONITOR_SUCCESS, (), snapshot.at)
    add(metrics.MONITOR_ROUND, (), snapshot.round_s)
    return list(families.values())


def places(groups: Iterable[GroupLag]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Start, high watermark and last stable offset of every partition that a group reads."""
    return {
        (p.topic, str(p.partition)): (p.log_start, p.high_watermark, p.last_stable)
        for group in groups
        for p in group.partitions
    }
