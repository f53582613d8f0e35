"""Setting and removing committed positions of a group that nobody is in. What Kafka's client cannot do in one step is
repeatable: killed in the middle, the same call again ends the same."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ops.lag.cluster import Cluster, Commit, Group, Place
from schemas.errors import PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from ops.app import App

TIMEOUT_S = 15.0


def committed(app: App, name: str) -> dict[Place, Commit]:
    """The positions of a group now. Raises what the cluster's refusal means."""
    answers = Cluster(app.admin(), app.consumer).commits([name])
    if name in answers.failed:
        raise app.kafka_error(answers.failed[name], f"describing the group {name}")
    return answers.found[name]


def described(app: App, name: str) -> Group:
    """The group now. Raises what the cluster's refusal means."""
    answers = Cluster(app.admin(), app.consumer).groups([name])
    if name in answers.failed:
        raise app.kafka_error(answers.failed[name], f"describing the group {name}")
    return answers.found[name]


def set_positions(app: App, name: str, positions: Mapping[Place, Commit]) -> None:
    """Commit positions for a group without members, and read them back.

    Every partition's own error is read: the client reports success for the whole. Raises RefusedError if none was
    set, PartlyDoneError naming those that were not if only some were, or if they read back differently.
    """
    from confluent_kafka import KafkaError

    if not positions:
        return
    deadline = time.monotonic() + TIMEOUT_S
    waiting = dict(positions)
    refused: dict[Place, KafkaError] = {}
    while waiting:
        errors = _alter(app, name, waiting)
        moving = {
            place: error
            for place, error in errors.items()
            if error.code()
            in (
                KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
                KafkaError.COORDINATOR_NOT_AVAILABLE,
                KafkaError.NOT_COORDINATOR,
            )
        }
        refused |= {place: error for place, error in errors.items() if place not in moving}
        if moving and time.monotonic() > deadline:
            refused |= moving
            moving = {}
        waiting = {place: waiting[place] for place in moving}
        if waiting:
            time.sleep(0.1)  # nobody says when a coordinator is ready; the deadline bounds it
    if refused:
        place = min(refused)
        sentence = f"{len(refused)} of {len(positions)} positions of {name} were not set"
        because = f"{place[0]}/{place[1]}: {_in_words(refused[place])}"
        if len(refused) == len(positions):
            raise RefusedError(f"{sentence} ({because}). Nothing was changed.")
        raise PartlyDoneError(f"{sentence} ({because}).")
    now = committed(app, name)
    different = [place for place, wanted in positions.items() if now.get(place) != wanted]
    if different:
        raise PartlyDoneError(
            f"{len(different)} of {len(positions)} positions of {name} read back differently, the first is "
            f"{different[0][0]}/{different[0][1]}: somebody else sets them too."
        )


def remove_positions(app: App, name: str, keep: Mapping[Place, Commit]) -> None:
    """Leave the group with exactly these positions: it is deleted and they are set again, because the client cannot
    remove single ones. ``keep`` must be known to the caller before (a kill in between loses it from the cluster).

    Raises RefusedError if the group has members."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        app.admin().delete_consumer_groups([name], request_timeout=TIMEOUT_S)[name].result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == KafkaError.NON_EMPTY_GROUP:
            raise RefusedError(f"The group {name} has members again. Nothing was changed.") from None
        if reason.code() != KafkaError.GROUP_ID_NOT_FOUND:  # an earlier try has deleted it
            raise app.kafka_error(reason, f"deleting the group {name}") from None
    set_positions(app, name, keep)


def _alter(app: App, name: str, positions: Mapping[Place, Commit]) -> dict[Place, KafkaError]:
    """One request; the errors of the partitions that have one."""
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

    wanted = [TopicPartition(*place, commit.offset, commit.metadata) for place, commit in positions.items()]
    (future,) = (
        app.admin()
        .alter_consumer_group_offsets([ConsumerGroupTopicPartitions(name, wanted)], request_timeout=TIMEOUT_S)
        .values()
    )
    try:
        answered: Iterable[TopicPartition] = future.result().topic_partitions or ()
    except KafkaException as error:
        return dict.fromkeys(positions, error.args[0])
    return {(tp.topic, tp.partition): tp.error for tp in answered if tp.error is not None}


def _in_words(error: KafkaError) -> str:
    return "the group has members" if error.name() == "UNKNOWN_MEMBER_ID" else error.name()
