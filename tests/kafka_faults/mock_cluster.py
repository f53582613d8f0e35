"""librdkafka's own mock cluster: brokers in this process that speak Kafka's protocol and fail as they are told.

They keep real logs, groups and positions, answer real clients over TCP and start in milliseconds; what they answer
with, when, and whether at all is chosen request by request. The library is the one the client itself has loaded.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self


class Api(IntEnum):
    """The requests of Kafka's protocol that tests make fail, by their numbers."""

    PRODUCE = 0
    FETCH = 1
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    JOIN_GROUP = 11
    CONSUMER_GROUP_HEARTBEAT = 68


CUT = -195
"""In place of an error: the broker closes the connection instead of answering (librdkafka's ``_TRANSPORT``)."""


@cache
def library() -> ctypes.CDLL:
    """The librdkafka that ``confluent_kafka`` brings, with the types of the calls made here."""
    spec = find_spec("confluent_kafka")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.parent.glob("confluent_kafka.libs/librdkafka*.so*")
    loaded = ctypes.CDLL(str(path))
    handle, text, number, api = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int16
    types: dict[str, tuple[object, list[object]]] = {
        "conf_new": (handle, []),
        "new": (handle, [ctypes.c_int, handle, text, ctypes.c_size_t]),
        "destroy": (None, [handle]),
        "test_fatal_error": (ctypes.c_int, [handle, ctypes.c_int, text]),
        "mock_cluster_new": (handle, [handle, ctypes.c_int]),
        "mock_cluster_destroy": (None, [handle]),
        "mock_cluster_bootstraps": (text, [handle]),
        "mock_push_request_errors_array": (
            None,
            [handle, api, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
        "mock_broker_set_down": (ctypes.c_int, [handle, number]),
        "mock_broker_set_up": (ctypes.c_int, [handle, number]),
        "mock_broker_set_rtt": (ctypes.c_int, [handle, number, ctypes.c_int]),
        "mock_coordinator_set": (ctypes.c_int, [handle, text, text, number]),
        "mock_topic_create": (ctypes.c_int, [handle, text, ctypes.c_int, ctypes.c_int]),
        "mock_topic_delete": (ctypes.c_int, [handle, text]),
        "mock_topic_set_error": (None, [handle, text, ctypes.c_int]),
        "mock_partition_delete_records": (ctypes.c_int, [handle, text, number, ctypes.c_int64]),
        "mock_set_group_consumer_session_timeout_ms": (None, [handle, ctypes.c_int]),
        "mock_set_group_consumer_heartbeat_interval_ms": (None, [handle, ctypes.c_int]),
        "mock_group_initial_rebalance_delay_ms": (None, [handle, number]),
        "mock_start_request_tracking": (None, [handle]),
        "mock_get_requests": (ctypes.POINTER(handle), [handle, ctypes.POINTER(ctypes.c_size_t)]),
        "mock_request_api_key": (api, [handle]),
        "mock_request_destroy_array": (None, [ctypes.POINTER(handle), ctypes.c_size_t]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(loaded, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


class MockCluster:
    """Brokers numbered from 1, at ``bootstrap``. Every call takes effect before it returns; none blocks for long.
    Close it after the clients that use it."""

    def __init__(self, brokers: int = 1) -> None:
        self._kafka = library()
        reason = ctypes.create_string_buffer(512)
        self._client = self._kafka.rd_kafka_new(0, self._kafka.rd_kafka_conf_new(), reason, 512)
        assert self._client, reason.value
        self._cluster = self._kafka.rd_kafka_mock_cluster_new(self._client, brokers)
        assert self._cluster
        self.bootstrap: str = self._kafka.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._kafka.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, 100)
        self._kafka.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, 1_000)
        self._kafka.rd_kafka_mock_start_request_tracking(self._cluster)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kafka.rd_kafka_mock_cluster_destroy(self._cluster)
        self._kafka.rd_kafka_destroy(self._client)

    def make_topic(self, name: str, partitions: int = 1) -> str:
        assert self._kafka.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0
        return name

    def delete_topic(self, name: str) -> None:
        assert self._kafka.rd_kafka_mock_topic_delete(self._cluster, name.encode()) == 0

    def topic_answers(self, name: str, error: int) -> None:
        """Every question for the topic's metadata is answered with ``error`` from now on; 0 heals it."""
        self._kafka.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), error)

    def delete_records(self, topic: str, partition: int, below: int) -> None:
        assert self._kafka.rd_kafka_mock_partition_delete_records(self._cluster, topic.encode(), partition, below) == 0

    def fail_next(self, api: Api, *errors: int) -> None:
        """The next requests of this kind are answered with these errors, one each; 0 is no error, ``CUT`` a
        connection that is closed."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._kafka.rd_kafka_mock_push_request_errors_array(self._cluster, api, len(errors), array)

    def down(self, broker: int = -1) -> None:
        """Cut all connections of a broker (-1: of all) and take no new ones."""
        assert self._kafka.rd_kafka_mock_broker_set_down(self._cluster, broker) == 0

    def up(self, broker: int = -1) -> None:
        assert self._kafka.rd_kafka_mock_broker_set_up(self._cluster, broker) == 0

    def slow(self, milliseconds: int, broker: int = -1) -> None:
        """Every answer takes so long from now on."""
        assert self._kafka.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds) == 0

    def coordinate(self, group: str, broker: int) -> None:
        """Another broker coordinates the group from now on."""
        set_to = self._kafka.rd_kafka_mock_coordinator_set
        assert set_to(self._cluster, b"group", group.encode(), broker) == 0

    def requests(self, api: Api) -> int:
        """How many requests of this kind were made so far."""
        count = ctypes.c_size_t()
        found = self._kafka.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        try:
            return sum(self._kafka.rd_kafka_mock_request_api_key(found[n]) == api for n in range(count.value))
        finally:
            self._kafka.rd_kafka_mock_request_destroy_array(found, count)
