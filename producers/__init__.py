"""How events are said: ``Publisher.from_env()`` or ``KafkaPublisher(settings)`` in services, ``MemoryPublisher()`` in
their tests. Names are loaded when they are first used: Kafka's client is not imported for its own sake."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.errors import Backpressure, EventRejected, PublishUnknown
    from producers.facts import Published
    from producers.memory import MemoryPublisher
    from producers.publisher import Acknowledgement, KafkaPublisher, Publisher
    from producers.settings import PublisherSettings

__all__ = [
    "Acknowledgement", "Backpressure", "EventRejected", "KafkaPublisher", "MemoryPublisher", "PublishUnknown",
    "Published", "Publisher", "PublisherSettings",
]  # fmt: skip

_MODULES = {
    "Acknowledgement": "publisher",
    "Backpressure": "errors",
    "EventRejected": "errors",
    "KafkaPublisher": "publisher",
    "MemoryPublisher": "memory",
    "PublishUnknown": "errors",
    "Published": "facts",
    "Publisher": "publisher",
    "PublisherSettings": "settings",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"producers.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'producers' has no attribute '{name}'")
