"""Why a consumer cannot go on, in sentences that name the topic and what to do. Pure but for ``topics_refused``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

TOPIC_GONE: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
TOPIC_CLOSED: Final = "TOPIC_AUTHORIZATION_FAILED"
GROUP_CLOSED: Final = "GROUP_AUTHORIZATION_FAILED"


class Asks(Protocol):
    """The part of a Kafka client that answers what a topic is."""

    def list_topics(self, topic: str, timeout: float) -> Any: ...


def topics_refused(client: Asks, topics: Sequence[str], timeout_s: float) -> str | None:
    """The first topic that is not there or not open to us, by the cluster's own word; None when all are.

    A member of a group is not told: with the newer protocol a missing topic is simply not read. Blocks at most
    ``timeout_s`` for each topic; raises KafkaException when the cluster cannot be asked."""
    for topic in topics:
        error = client.list_topics(topic, timeout_s).topics[topic].error
        if error is not None and (refused := topic_refused(topic, error.name())) is not None:
            return refused
    return None


def topic_refused(topic: str, error: str) -> str | None:
    """What Kafka's name of an error says of a topic for good; None for what may pass."""
    if error in TOPIC_GONE:
        return f"the topic {topic} does not exist (any more)"
    if error == TOPIC_CLOSED:
        return f"not allowed to read {topic} ({error})"
    return None


def group_refused() -> str:
    return f"not allowed to read as this group ({GROUP_CLOSED})"


def out_of_range(group: str, topic: str, partition: int, at: int, ends: tuple[int, int] | None) -> str:
    """``at`` is where the group stands, ``ends`` what the log holds, when that is known."""
    where = f"the position {at} of {topic}/{partition} is out of range"
    if ends is None:
        return where
    low, high = ends
    gone = f"{low - at} events were deleted before they were read" if at < low else f"the log ends at {high}"
    return (
        f"{where}: it holds {low} to {high}, {gone}. Choose where to go on: backbone rewind {group} --to POSITION, "
        f"then: backbone subscription resume {group}"
    )
