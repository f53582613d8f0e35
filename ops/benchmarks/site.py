"""Where a measured process finds things: addresses that can be handed on to a process of its own, and topics."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Site:
    """The broker and the registry of a benchmark. Blocking."""

    bootstrap: str
    registry: str

    def partitions(self, topic: str) -> int:
        """0: there is no such topic."""
        found = self._admin().list_topics(timeout=10).topics.get(topic)
        return 0 if found is None else len(found.partitions)

    def topic(self, name: str, partitions: int = 12) -> str:
        """A topic, new if there is none of that name yet."""
        admin = self._admin()
        if name not in admin.list_topics(timeout=10).topics:
            new = NewTopic(name, partitions, 1, config={"message.timestamp.type": "LogAppendTime"})
            admin.create_topics([new])[name].result(30)
        return name

    def _admin(self) -> AdminClient:
        # made for one question: what it says of its own end is of no interest
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})
