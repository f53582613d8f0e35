"""Which topics there should be, with how many partitions and which settings. Pure: what to create is decided here,
who creates it is ``ops``.

``LogAppendTime``, because time lag, ``--from @14:00`` and retention mean arrival and must be ordered. One partition
count for all, because a subscription's sources and its inbox are read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from schemas.contract import Contracts

PARTITIONS = 12
REPLICATION = -1
"""The cluster's own default."""

MESSAGE_MAX = (1 << 20) + (64 << 10)
"""A value of 1 MiB, its key and its headers; a dead letter's own headers come on top."""

_DEAD_MESSAGE_MAX = MESSAGE_MAX + (64 << 10)
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """A topic as it should be; ``config`` has Kafka's own names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def topics_for(
    contracts: Contracts, *, partitions: int = PARTITIONS, replication: int = REPLICATION
) -> list[TopicPlan]:
    """The topics that the contracts name, by name. Events that share a topic keep it for the longest of their
    retentions."""
    return [
        TopicPlan(
            name=topic,
            partitions=partitions,
            replication=replication,
            config=_kept_for(max(contract.retention for contract in sharing)),
        )
        for topic, sharing in sorted(contracts.topics().items())
    ]


def subscription_topics(name: str, *, partitions: int = PARTITIONS, replication: int = REPLICATION) -> list[TopicPlan]:
    """A subscription's own topics: its dead letters (compacted: the live keys are the open ones) and its inbox. Both
    have the partition count of its sources."""
    return [
        TopicPlan(
            name=f"{name}.dead",
            partitions=partitions,
            replication=replication,
            config=_compacted(_DEAD_MESSAGE_MAX),
        ),
        TopicPlan(
            name=f"{name}.inbox",
            partitions=partitions,
            replication=replication,
            # not compacted: two waiting records of one key are both due
            config=_kept_for(timedelta(days=30), _DEAD_MESSAGE_MAX),
        ),
    ]


def control_topic(*, replication: int = REPLICATION) -> TopicPlan:
    """``backbone.control``: one partition, so that all read the same order; compacted, because it is state."""
    return TopicPlan(name="backbone.control", partitions=1, replication=replication, config=_compacted(MESSAGE_MAX))


def audit_topic(*, partitions: int = PARTITIONS, replication: int = REPLICATION) -> TopicPlan:
    """``backbone.audit``: every change a person made, kept for as long as its contract says."""
    return _engine_topic("backbone.audit", partitions, replication)


def deliveries_topic(*, partitions: int = PARTITIONS, replication: int = REPLICATION) -> TopicPlan:
    """``backbone.deliveries``: the receipts."""
    return _engine_topic("backbone.deliveries", partitions, replication)


def heartbeat_topic(*, replication: int = REPLICATION) -> TopicPlan:
    """``backbone.heartbeat``: what each process does now."""
    config = _kept_for(timedelta(hours=1)) | {"segment.ms": _ms(timedelta(hours=1))}
    return TopicPlan(name="backbone.heartbeat", partitions=1, replication=replication, config=config)


def _engine_topic(name: str, partitions: int, replication: int) -> TopicPlan:
    from schemas.contract import engine_contracts

    plans = topics_for(engine_contracts(), partitions=partitions, replication=replication)
    return next(plan for plan in plans if plan.name == name)


def _kept_for(retention: timedelta, message_max: int = MESSAGE_MAX) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(message_max),
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": _ms(retention),
        # a segment is deleted whole: it must not span much more than the retention
        "segment.ms": _ms(min(max(retention / 10, timedelta(hours=1)), _WEEK)),
    }


def _compacted(message_max: int) -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "max.message.bytes": str(message_max),
        "message.timestamp.type": "LogAppendTime",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": _ms(timedelta(days=1)),
    }


def _ms(span: timedelta) -> str:
    return str(span // timedelta(milliseconds=1))
