"""The monitor's numbers under the names and labels of other exporters, so that boards made for those go on working.

``kafka-exporter`` (danielqsj/kafka_exporter) and ``kafka-lag-exporter`` (seglo/kafka-lag-exporter). The values are
ours: lag is never negative, nothing is -1 or NaN (what is not known is left out), and time lag is measured, not
interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily, Metric

from ops.watch.group_metrics import places

if TYPE_CHECKING:
    from ops.lag.measure import GroupLag, PartitionLag
    from ops.monitor.snapshot import Snapshot

Names = Callable[["Snapshot"], Iterable[Metric]]


def kafka_exporter(snapshot: Snapshot) -> Iterator[Metric]:
    """The metrics of kafka_exporter that are about groups and the topics they read."""
    labels = ["consumergroup", "topic", "partition"]
    lag = _gauge("kafka_consumergroup_lag", "Current Approximate Lag of a ConsumerGroup at Topic/Partition", labels)
    lag_sum = _gauge("kafka_consumergroup_lag_sum", "The same for all partitions of a topic", labels[:2])
    offset = _gauge("kafka_consumergroup_current_offset", "Committed offset at Topic/Partition", labels)
    offset_sum = _gauge("kafka_consumergroup_current_offset_sum", "The same for all partitions of a topic", labels[:2])
    members = _gauge("kafka_consumergroup_members", "Amount of members in a consumer group", labels[:1])
    for group in _measured(snapshot):
        members.add_metric([group.name], len(group.members))
        for topic, parts in _by_topic(group).items():
            committed = [p for p in parts if p.committed is not None]
            for p in committed:
                lag.add_metric([group.name, topic, str(p.partition)], p.offsets.lag)
                offset.add_metric([group.name, topic, str(p.partition)], p.committed)
            lag_sum.add_metric([group.name, topic], sum(p.offsets.lag for p in committed))
            offset_sum.add_metric([group.name, topic], sum(p.committed or 0 for p in committed))
    yield from (lag, lag_sum, offset, offset_sum, members)
    newest = _gauge("kafka_topic_partition_current_offset", "Current Offset of a Broker at Topic/Partition", labels[1:])
    oldest = _gauge("kafka_topic_partition_oldest_offset", "Oldest Offset of a Broker at Topic/Partition", labels[1:])
    count = _gauge("kafka_topic_partitions", "Number of partitions for this Topic", labels[1:2])
    counts: dict[str, int] = {}
    for (topic, number), (start, high, _) in places(_measured(snapshot)).items():
        newest.add_metric([topic, number], high)
        oldest.add_metric([topic, number], start)
        counts[topic] = counts.get(topic, 0) + 1
    for topic, partitions in counts.items():
        count.add_metric([topic], partitions)
    yield from (newest, oldest, count)


def kafka_lag_exporter(cluster: str) -> Names:
    """The metrics of kafka-lag-exporter, its ``cluster_name`` being ``cluster``."""

    def names(snapshot: Snapshot) -> Iterator[Metric]:
        of_partition = ["cluster_name", "group", "topic", "partition", "member_host", "consumer_id", "client_id"]
        of_place = ["cluster_name", "topic", "partition"]
        prefix = "kafka_consumergroup_group"
        offset = _gauge(f"{prefix}_offset", "Last group consumed offset of a partition", of_partition)
        lag = _gauge(f"{prefix}_lag", "Group offset lag of a partition", of_partition)
        seconds = _gauge(f"{prefix}_lag_seconds", "Group time lag of a partition", of_partition)
        lag_max = _gauge(f"{prefix}_max_lag", "Max group offset lag", of_partition[:2])
        seconds_max = _gauge(f"{prefix}_max_lag_seconds", "Max group time lag", of_partition[:2])
        lag_sum = _gauge(f"{prefix}_sum_lag", "Sum of group offset lag", of_partition[:2])
        topic_sum = _gauge(
            f"{prefix}_topic_sum_lag", "Sum of group offset lag across topic partitions", of_partition[:3]
        )
        for group in _measured(snapshot):
            for topic, parts in _by_topic(group).items():
                topic_sum.add_metric([cluster, group.name, topic], sum(p.offsets.lag for p in parts))
                for p in parts:
                    member = p.member
                    who = ["", "", ""] if member is None else [member.host, member.id, member.client_id]
                    labels = [cluster, group.name, topic, str(p.partition), *who]
                    lag.add_metric(labels, p.offsets.lag)
                    if p.committed is not None:
                        offset.add_metric(labels, p.committed)
                    if p.age_s is not None:
                        seconds.add_metric(labels, p.age_s)
            lag_max.add_metric([cluster, group.name], group.lag_max)
            lag_sum.add_metric([cluster, group.name], group.lag)
            if group.age_s is not None:
                seconds_max.add_metric([cluster, group.name], group.age_s)
        yield from (offset, lag, seconds, lag_max, seconds_max, lag_sum, topic_sum)
        latest = _gauge("kafka_partition_latest_offset", "Latest offset of a partition", of_place)
        earliest = _gauge("kafka_partition_earliest_offset", "Earliest offset of a partition", of_place)
        for (topic, number), (start, high, _) in places(_measured(snapshot)).items():
            latest.add_metric([cluster, topic, number], high)
            earliest.add_metric([cluster, topic, number], start)
        poll = _gauge("kafka_consumergroup_poll_time_ms", "Group time poll time", ["cluster_name"])
        poll.add_metric([cluster], snapshot.round_s * 1000)
        yield from (latest, earliest, poll)

    return names


def exporters(cluster: str) -> Mapping[str, Names]:
    """What can be asked for by name."""
    return {"kafka-exporter": kafka_exporter, "kafka-lag-exporter": kafka_lag_exporter(cluster)}


EXPORTERS = ("kafka-exporter", "kafka-lag-exporter")


def _gauge(name: str, meaning: str, labels: list[str]) -> Any:
    return GaugeMetricFamily(name, meaning, labels=labels)


def _measured(snapshot: Snapshot) -> list[GroupLag]:
    return [group for group in snapshot.groups if group.problem is None]


def _by_topic(group: GroupLag) -> dict[str, list[PartitionLag]]:
    found: dict[str, list[PartitionLag]] = {}
    for partition in group.partitions:
        found.setdefault(partition.topic, []).append(partition)
    return found
