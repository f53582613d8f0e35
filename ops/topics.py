"""Topics of a cluster: what is there, how it differs from what is wanted, and making what is missing.

An existing topic is never altered here: a difference is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ops.app import CLUSTER_TIMEOUT_S
from schemas.errors import RefusedError
from schemas.topics import (
    TopicPlan,
    audit_topic,
    control_topic,
    deliveries_topic,
    heartbeat_topic,
    subscription_topics,
    topics_for,
)

if TYPE_CHECKING:
    from ops.app import App
    from schemas.contract import Contracts

REPLICATION = 3
LEDGER = "ledger"
"""The backbone's own subscription, which keeps the receipts in a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic as the cluster has it; ``config`` holds what was asked of it (all of it as text)."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


def replication(app: App) -> int:
    """How often a topic of this context is kept: as its settings say, else 3, or as many brokers as there are."""
    wanted = app.context.replication
    return wanted if wanted is not None else min(REPLICATION, broker_count(app))


def broker_count(app: App) -> int:
    return max(1, len(app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).brokers))


def existing(app: App, names: Iterable[str] | None = None) -> dict[str, TopicState]:
    """Topics by name (None: all but Kafka's own), with their configuration. Blocks; Kafka's errors pass through."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not named in its __all__
        ConfigResource,
    )

    listed = app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).topics
    wanted = set(listed) if names is None else set(names)
    found = {
        name: listed[name]
        for name in sorted(wanted)
        if name in listed and listed[name].error is None and not name.startswith("__")
    }
    if not found:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in found]
    configs: dict[str, dict[str, str]] = {}
    answers = app.admin().describe_configs(resources, request_timeout=CLUSTER_TIMEOUT_S)
    for resource, future in answers.items():
        try:
            configs[resource.name] = {name: str(entry.value) for name, entry in future.result().items()}
        except KafkaException as error:
            translated = app.kafka_error(error.args[0])
            if translated.exit_code == 8:
                raise translated from None
            configs[resource.name] = {}  # not allowed to see it: what is not known is not compared
    return {
        name: TopicState(
            name=name,
            partitions=len(topic.partitions),
            replication=min((len(part.replicas) for part in topic.partitions.values()), default=0),
            config=configs.get(name, {}),
        )
        for name, topic in found.items()
    }


def differences(plan: TopicPlan, state: TopicState) -> list[str]:
    """How a topic differs from its plan, one sentence each."""
    found = []
    if state.partitions != plan.partitions:
        found.append(f"it has {state.partitions} partitions, not {plan.partitions}")
    if state.replication < plan.replication:
        found.append(f"it is kept {state.replication} times, not {plan.replication}")
    for name, wanted in sorted(plan.config.items()):
        has = state.config.get(name)
        if has is not None and has != wanted:
            found.append(f"{name} is {has}, not {wanted}")
    return found


def create(app: App, plans: Sequence[TopicPlan]) -> None:
    """Create topics and wait until every partition has a leader. One that exists already is left as it is.

    Blocks; raises RefusedError naming the topic and Kafka's reason, UnreachableError.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # public, but not in its __all__

    if not plans:
        return
    new = [NewTopic(plan.name, plan.partitions, plan.replication, config=dict(plan.config)) for plan in plans]
    for name, future in app.admin().create_topics(new, operation_timeout=10.0, request_timeout=15.0).items():
        try:
            future.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            translated = app.kafka_error(reason, f"creating the topic {name}")
            if translated.exit_code in (4, 8):
                raise translated from None
            raise RefusedError(
                f"The cluster did not create the topic {name} ({reason.name()}): {reason.str()}"
            ) from None
    _await_leaders(app, {plan.name for plan in plans})


def grow(app: App, counts: Mapping[str, int]) -> None:
    """Give topics more partitions; one that has as many is left as it is. Blocks; raises like ``create``."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # public, but not in its __all__

    there = existing(app, counts)
    new = [NewPartitions(name, count) for name, count in counts.items() if there[name].partitions < count]
    if not new:
        return
    for name, future in app.admin().create_partitions(new, operation_timeout=10.0, request_timeout=15.0).items():
        try:
            future.result()
        except KafkaException as error:
            translated = app.kafka_error(error.args[0])
            if translated.exit_code in (4, 8):
                raise translated from None
            raise RefusedError(f"The cluster did not give {name} more partitions ({error.args[0].name()}).") from None
    _await_leaders(app, set(counts))


def _await_leaders(app: App, names: set[str]) -> None:
    import time

    deadline = time.monotonic() + CLUSTER_TIMEOUT_S
    while time.monotonic() < deadline:
        listed = app.admin().list_topics(timeout=CLUSTER_TIMEOUT_S).topics
        led = {
            name
            for name in names
            if name in listed
            and listed[name].error is None
            and listed[name].partitions
            and all(part.leader >= 0 for part in listed[name].partitions.values())
        }
        if led == names:
            return
        time.sleep(0.05)  # the cluster tells nobody when a leader is chosen
    raise app.unreachable()


def wanted(app: App, contracts: Contracts) -> list[TopicPlan]:
    """The topics of contracts as this context wants them."""
    return [_safe(plan) for plan in topics_for(contracts, **_shape(app))]


def wanted_for_subscription(app: App, name: str, partitions: int) -> list[TopicPlan]:
    """The topics of a subscription whose sources have so many partitions."""
    return [_safe(plan) for plan in subscription_topics(name, partitions=partitions, replication=replication(app))]


def wanted_by_the_backbone(app: App) -> list[TopicPlan]:
    """The backbone's own topics: the audit first, nothing is changed without it; those of the ledger, which reads the
    receipts, like any subscription's."""
    shape = _shape(app)
    plans = [
        audit_topic(**shape),
        control_topic(replication=shape["replication"]),
        deliveries_topic(**shape),
        heartbeat_topic(replication=shape["replication"]),
        *subscription_topics(LEDGER, **shape),
    ]
    return [_safe(plan) for plan in plans]


def _shape(app: App) -> dict[str, int]:
    return {"partitions": app.context.partitions, "replication": replication(app)}


def _safe(plan: TopicPlan) -> TopicPlan:
    # with three copies an acknowledgement means two of them: one broker may be away, and may be lost
    if plan.replication < REPLICATION:
        return plan
    return replace(plan, config={**plan.config, "min.insync.replicas": "2"})
