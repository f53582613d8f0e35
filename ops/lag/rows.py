"""Measured groups as rows of plain values, for people, programs and the monitor's API; and back from the API's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError

from ops.lag.cluster import Member
from ops.lag.measure import GroupLag, PartitionLag
from ops.lag.rules import OffsetLag, Trend


def group_row(group: GroupLag) -> dict[str, Any]:
    """One group, as documented in the help of ``backbone lag``."""
    pace, worst = group.trend, group.worst
    return {
        "group": group.name,
        "ours": group.ours,
        "status": group.status if group.problem is None else None,
        "reason": worst.reason if worst is not None else "",
        "state": group.state,
        "members": len(group.members),
        "lag": group.lag,
        "lag_max": group.lag_max,
        "lag_is_guess": group.is_guess,
        "lag_seconds": rounded(group.age_s),
        "lag_seconds_is_bound": group.age_is_bound,
        "slo_seconds": group.slo_s,
        "eta_seconds": rounded(group.eta_s),
        "trend": None if pace is None else f"+{pace.produced_per_s:,.0f} -{pace.consumed_per_s:,.0f} /s",
        "retention_margin_seconds": rounded(group.margin_s),
        "lost": group.lost,
        "no_commit": group.no_commit,
        "uncommitted": group.uncommitted,
        "missing_topics": list(group.missing),
        "problem": None if group.problem is None else group.problem.name(),
        "sampled_at": at_text(group.at),
    }


def partition_row(name: str, partition: PartitionLag) -> dict[str, Any]:
    """One partition of one group, as documented in the help of ``backbone lag``."""
    member = partition.member
    return {
        "group": name,
        "topic": partition.topic,
        "partition": partition.partition,
        "committed": partition.committed,
        "start": partition.log_start,
        "end": partition.end,
        "lag": partition.offsets.lag,
        "lag_from": partition.offsets.basis,
        "lag_is_guess": partition.offsets.basis == "log" and partition.offsets.lag > 0,
        "lost": partition.offsets.lost,
        "uncommitted": partition.uncommitted,
        "lag_seconds": rounded(partition.age_s),
        "lag_seconds_is_bound": partition.age_is_bound,
        "status": partition.status,
        "reason": partition.reason,
        "retention_margin_seconds": rounded(partition.margin_s),
        "member": None if member is None else f"{member.client_id} {member.host}",
    }


def group_document(group: GroupLag) -> dict[str, Any]:
    """A group with everything that is known of it: its row, and under names of their own its partitions and members.
    ``group_from`` reads it."""
    pace = group.trend
    return group_row(group) | {
        "at": round(group.at, 3),
        "trend_over": None
        if pace is None
        else {
            "consumed_per_second": pace.consumed_per_s,
            "produced_per_second": pace.produced_per_s,
            "seconds": pace.seconds,
        },
        "problem_code": None if group.problem is None else group.problem.code(),
        "member_list": [
            {
                "id": member.id,
                "client_id": member.client_id,
                "host": member.host,
                "partitions": [[topic, number] for topic, number in member.places],
            }
            for member in group.members
        ],
        "partitions": [
            partition_row(group.name, partition)
            | {
                "next_offset": partition.offsets.counted_from,
                "metadata": partition.metadata,
                "lost_total": partition.lost_total,
                "high_watermark": partition.high_watermark,
                "last_stable": partition.last_stable,
            }
            for partition in group.partitions
        ],
    }


def group_from(document: Mapping[str, Any]) -> GroupLag:
    """The group in a document of ``group_document``, ages as they were then. What a newer version has added is left
    out. Raises KeyError, TypeError or ValueError for what is none."""
    members = tuple(
        Member(one["client_id"], one["host"], tuple((topic, int(p)) for topic, p in one["partitions"]), one["id"])
        for one in document["member_list"]
    )
    owners = {place: member for member in members for place in member.places}
    pace, code = document["trend_over"], document["problem_code"]
    return GroupLag(
        name=str(document["group"]),
        ours=bool(document["ours"]),
        state=str(document["state"]),
        members=members,
        partitions=tuple(_partition_from(one, owners) for one in document["partitions"]),
        at=float(document["at"]),
        slo_s=document["slo_seconds"],
        missing=tuple(document["missing_topics"]),
        trend=None
        if pace is None
        else Trend(pace["consumed_per_second"], pace["produced_per_second"], pace["seconds"]),
        problem=None if code is None else KafkaError(int(code)),
    )


def _partition_from(one: Mapping[str, Any], owners: Mapping[tuple[str, int], Member]) -> PartitionLag:
    return PartitionLag(
        topic=str(one["topic"]),
        partition=int(one["partition"]),
        committed=one["committed"],
        metadata=str(one["metadata"]),
        log_start=int(one["start"]),
        end=int(one["end"]),
        uncommitted=int(one["uncommitted"]),
        offsets=OffsetLag(int(one["lag"]), int(one["lost"]), int(one["next_offset"]), one["lag_from"]),
        age_s=one["lag_seconds"],
        age_is_bound=bool(one["lag_seconds_is_bound"]),
        status=one["status"],
        member=owners.get((one["topic"], one["partition"])),
        reason=str(one["reason"]),
        margin_s=one["retention_margin_seconds"],
        lost_total=int(one["lost_total"]),
        high_watermark=int(one["high_watermark"]),
        last_stable=int(one["last_stable"]),
    )


def by_name(documents: Iterable[Mapping[str, Any]]) -> dict[str, GroupLag]:
    """Groups of several documents by their names. Raises as ``group_from``."""
    return {group.name: group for group in map(group_from, documents)}


def at_text(seconds: float) -> str:
    """A moment in seconds since the epoch as UTC text, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rounded(seconds: float | None) -> float | None:
    """Seconds to the millisecond; more would be noise."""
    return None if seconds is None else round(seconds, 3)
