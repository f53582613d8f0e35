"""Following ``backbone.control`` on a cluster that fails as it is told: a worker is never deaf without knowing."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from consumers.control import TOPIC, State, state_record, timestamp
from consumers.tail import ControlTail
from producers.kafka import RecordProducer
from schemas.errors import UnreachableError
from tests.kafka_faults.mock_cluster import CUT, Api, MockCluster
from tests.waiting import eventually


def settings(cluster: MockCluster) -> dict[str, object]:
    return {"bootstrap.servers": cluster.bootstrap, "reconnect.backoff.max.ms": 100}


def write(producer: RecordProducer, key: bytes | None, value: bytes | None) -> None:
    producer.send(TOPIC, key, value, None, partition=0, on_settled=lambda _: None)
    assert producer.flush(15) == 0


def pause(producer: RecordProducer, name: str) -> None:
    write(producer, *state_record(name, State(state="paused", reason="", by="test", at=timestamp())))


@pytest.fixture
def tail(cluster: MockCluster, closing: Callable[[Callable[[], object]], None]) -> Callable[..., ControlTail]:
    cluster.make_topic(TOPIC)

    def make(changed: Callable[[frozenset[str]], None]) -> ControlTail:
        made = ControlTail(settings(cluster), changed=changed, log=logging.getLogger("kafka"))
        made.start()
        closing(made.close)
        return made

    return make


def test_a_cluster_that_is_away_is_said_and_afterwards_the_tail_is_as_new_as_ever(
    cluster: MockCluster, producer: RecordProducer, tail: Callable[..., ControlTail]
) -> None:
    told: set[str] = set()
    follows = tail(told.update)
    pause(producer, "first")
    assert set(follows.snapshot(15).detached) == {"first"}
    cluster.down()
    with pytest.raises(UnreachableError, match="could not be read to its end in 0 s"):
        follows.snapshot(0.2)
    cluster.up()
    cluster.fail_next(Api.FETCH, CUT, 6, 29)
    pause(producer, "second")
    assert set(follows.snapshot(15).detached) == {"first", "second"}
    eventually(lambda: told == {"first", "second"})


def test_what_nobody_can_read_and_a_listener_that_fails_do_not_end_it(
    producer: RecordProducer, tail: Callable[..., ControlTail]
) -> None:
    """Its thread died of either, and the worker followed nothing from then on."""
    told: list[str] = []

    def changed(names: frozenset[str]) -> None:
        told.extend(names)
        raise ZeroDivisionError

    follows = tail(changed)
    for key, value in ((None, None), (b"\xff", b"{}"), (b"subscription|x|state", b"[" * 100_000), (b"a|b", b"1")):
        write(producer, key, value)
    pause(producer, "first")
    assert set(follows.snapshot(15).detached) == {"first"}
    pause(producer, "second")
    assert set(follows.snapshot(15).detached) == {"first", "second"}
    assert told == ["first", "second"]
