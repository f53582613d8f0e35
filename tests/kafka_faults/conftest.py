"""Clusters that fail as they are told, one for each test; no JVM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from producers.kafka import RecordProducer
from tests.kafka_faults.mock_cluster import MockCluster


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[MockCluster]:
    """Of one broker, or of as many as the test says (``parametrize("cluster", [2], indirect=True)``)."""
    with MockCluster(getattr(request, "param", 1)) as made:
        yield made


@pytest.fixture
def producer(cluster: MockCluster) -> Iterator[RecordProducer]:
    made = RecordProducer({"bootstrap.servers": cluster.bootstrap, "reconnect.backoff.max.ms": 100})
    yield made
    made.close(0)


@pytest.fixture
def closing() -> Iterator[Callable[[Callable[[], object]], None]]:
    """``closing(thing.close)``: called when the test is over, before the cluster goes."""
    with ExitStack() as stack:
        yield stack.callback
