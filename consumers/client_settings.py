"""librdkafka's settings for the consumer of a subscription: the user's own with ours pinned over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import InputError

DEFAULTS = {"fetch.message.max.bytes": 262_144, "retry.backoff.ms": 700}
"""A user may change these.

What one fetch brings comes on top of ``queued.max.messages.kbytes``, unpacked and for every partition at once: with
librdkafka's 1 MiB a stalled process of 12 partitions stood at 255 MiB, so at 172.

When the connection to the coordinator is cut under a commit, the client looks for the coordinator anew. That question
may wait behind a fetch, for ``fetch.wait.max.ms`` (500). With librdkafka's 100 ms the commit is tried again before the
answer, fails for want of a connection, declares the coordinator dead, and so on until the session is over: one cut
connection cost the membership. So a retry waits longer than a fetch."""

PINNED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 16_384,
    "max.poll.interval.ms": 300_000,
    "allow.auto.create.topics": False,
    "socket.keepalive.enable": True,
}
"""Delivery stands on these; a user's other librdkafka settings pass through."""


def consumer_settings(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """librdkafka's settings for a subscription: the user's own with ours pinned over them.

    The newer group protocol is used unless ``group.protocol`` says ``classic``; both with the range assignor, so that
    one process gets the same partition numbers of all topics. Raises InputError for a pinned setting that says
    something else."""
    for name, pinned in PINNED.items():
        if name in settings and str(settings[name]).lower() != str(pinned).lower():
            raise InputError(f"The Kafka setting {name} cannot be changed: delivery stands on {name}={pinned}.")
    protocol = str(settings.get("group.protocol", "consumer"))
    if protocol == "consumer":
        group_settings = {"group.protocol": "consumer", "group.remote.assignor": "range"}
    else:
        group_settings = {"group.protocol": "classic", "partition.assignment.strategy": "range"}
    return {**DEFAULTS, **settings, **PINNED, **group_settings, "group.id": group}
