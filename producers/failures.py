"""What Kafka's client says went wrong, in sentences, and what it means for the record: never written, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from producers.settled import SendFailed
from schemas.errors import InputError
from schemas.findings import did_you_mean

_NEVER_WRITTEN: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_RECORD", "INVALID_TIMESTAMP",
    "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART", "TOPIC_EXCEPTION",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT", "UNSUPPORTED_COMPRESSION_TYPE", "POLICY_VIOLATION", "_UNKNOWN_TOPIC",
    "_UNKNOWN_PARTITION", "_INVALID_ARG",
})  # fmt: skip
"""Answers after which the record is certainly not in the log. Everything else is unknown: never guess that it is not.
Two limits: the client does not tell whether an earlier attempt of the same record was written before a permission was
taken away between two attempts; such a record is called rejected. And where a topic takes less than the client puts
into a batch (``max.message.bytes`` below 1 MB; ours are created with more), the broker
refuses whole batches and small records with them; sending those again alone would pass later ones of their key."""
_MESSAGE_TIMEOUT_S: Final = 120
_COMMON_SETTINGS: Final = (
    "bootstrap.servers", "client.id", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password",
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "batch.size", "batch.num.messages",
    "message.max.bytes", "socket.timeout.ms", "client.rack",
)  # fmt: skip


def send_failed(name: str, topic: str, partition: int) -> SendFailed:
    """What Kafka's name of an error means for a record that was sent."""
    match name:
        case "UNKNOWN_TOPIC_OR_PART" | "_UNKNOWN_TOPIC":
            reason = f"The topic '{topic}' does not exist"
        case "_UNKNOWN_PARTITION":
            reason = f"The topic '{topic}' has no partition {partition}"
        case "TOPIC_AUTHORIZATION_FAILED" | "CLUSTER_AUTHORIZATION_FAILED":
            reason = f"Writing to the topic '{topic}' is not permitted"
        case "MSG_SIZE_TOO_LARGE" | "RECORD_LIST_TOO_LARGE" | "INVALID_MSG_SIZE":
            reason = f"The record, or the batch it travelled in, is larger than the topic '{topic}' or the client takes"
        case "_MSG_TIMED_OUT":
            reason = f"Kafka did not confirm a record for the topic '{topic}' within {_MESSAGE_TIMEOUT_S} s"
        case "_PURGE_QUEUE" | "_PURGE_INFLIGHT":
            reason = f"The producer was closed or rebuilt before Kafka confirmed a record for the topic '{topic}'"
        case _:
            reason = f"Kafka answered {name} for the topic '{topic}'"
    return SendFailed("rejected" if name in _NEVER_WRITTEN else "unknown", reason, name)


def not_taken(full: bool, wait_s: float, trouble: str) -> str:
    if full:
        stayed = f" and stayed full for {wait_s:g} s" if wait_s else ""
        return f"The queue to Kafka is full{stayed}{trouble}; nothing was sent, try again later."
    return f"Kafka's client failed{trouble} and is being rebuilt; nothing was sent, try again later."


def setting_refused(text: str, settings: Mapping[str, Any]) -> InputError:
    """librdkafka's refusal as a sentence that names the setting, never its value (it may be a secret)."""
    named = next((name for name in settings if f'"{name}"' in text or f"'{name}'" in text), "")
    if "No such configuration property" in text and named:
        return InputError(f"Kafka's client knows no setting '{named}'.{did_you_mean(named, _COMMON_SETTINGS)}")
    if named:
        return InputError(f"The Kafka setting '{named}' has a value that Kafka's client does not take.")
    return InputError("Kafka's client does not take these settings together; check the ones beside bootstrap.servers.")
