"""librdkafka's settings for the producer: the user's own with ours pinned over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from producers.settled import RECORD_BYTES_MAX
from schemas.errors import InputError

_LOSES = "it can lose or reorder acknowledged events"
PINNED: Final[Mapping[str, tuple[str | int | bool, str]]] = {
    "enable.idempotence": (True, "without it a retry inside the client duplicates and reorders records"),
    "acks": ("all", "an acknowledgement must mean that every in-sync replica has the record"),
    "message.timeout.ms": (120_000, "every send is settled within 120 s; a caller that wants less waits less"),
    "queue.buffering.max.messages": (100_000, "it bounds memory, and Backpressure is raised at the bound"),
    "queue.buffering.max.kbytes": (65_536, "it bounds memory, and Backpressure is raised at the bound"),
    "partitioner": ("murmur2_random", "every producer in every language must put a key into the same partition"),
    "topic.metadata.propagation.max.ms": (5_000, "a topic that does not exist must be named quickly"),
    "linger.ms": (5, "it is measured together with the batch sizes"),
    "compression.type": ("lz4", "one codec that every client of the topics reads"),
}
"""What delivery needs, with the reason shown to whoever tries to change it (delivery.md section 8)."""

_SAME_AS: Final = {
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "queue.buffering.max.ms": "linger.ms",
    "compression.codec": "compression.type",
}
_REFUSED: Final[Mapping[str, str]] = {
    "transactional.id": "events are published one by one and settled one by one; transactions are not used",
    "message.send.max.retries": _LOSES,
    "retries": _LOSES,
    "max.in.flight": _LOSES,
    "max.in.flight.requests.per.connection": _LOSES,
    "enable.gapless.guarantee": "one failed record would stop all others",
    "delivery.report.only.error": "an acknowledgement would never arrive",
    "dr_cb": "every send has its own settlement",
    "on_delivery": "every send has its own settlement",
    "stats_cb": "an exception in a callback of the client loses delivery reports",
    "throttle_cb": "an exception in a callback of the client loses delivery reports",
    "logger": "the client's log goes to the logger 'backbone.kafka.client'",
}


def producer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The user's librdkafka settings with ours; InputError names a setting that is pinned and why."""
    merged: dict[str, Any] = {}
    for name, value in settings.items():
        pinned = _SAME_AS.get(name, name)
        if pinned in PINNED:
            fixed, why = PINNED[pinned]
            raise InputError(f"The Kafka setting '{name}' cannot be changed (it is {_text(fixed)}): {why}.")
        if name in _REFUSED:
            raise InputError(f"The Kafka setting '{name}' cannot be used: {_REFUSED[name]}.")
        merged[name] = value
    if not merged.get("bootstrap.servers") and not merged.get("metadata.broker.list"):
        raise InputError("The Kafka setting 'bootstrap.servers' is missing: host:port of one or more brokers.")
    # The topics take events of 1 MiB and their dead letters; the client's own default would refuse those.
    merged.setdefault("message.max.bytes", RECORD_BYTES_MAX)
    merged.update({name: fixed for name, (fixed, _) in PINNED.items()})
    return merged


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
