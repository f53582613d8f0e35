"""What Kafka can do to a member of a group, with both group protocols: nothing is passed over, nothing is committed
twice or for somebody else, and what cannot heal by itself stops the subscription with a sentence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import cast

import pytest

from consumers.assignment import Commit, Handover, Place
from consumers.control import Begin, NoPosition
from producers.kafka import Acknowledged, RecordProducer
from schemas.errors import UnreachableError
from tests.kafka_faults.member import GROUP, Member, Reader, committed, from_the_beginning
from tests.kafka_faults.mock_cluster import CUT, Api, MockCluster
from tests.waiting import eventually

COORDINATOR_LOADING = 14
STALE = {
    "ILLEGAL_GENERATION": 22,
    "UNKNOWN_MEMBER_ID": 25,
    "REBALANCE_IN_PROGRESS": 27,
    "FENCED_MEMBER_EPOCH": 110,
    "STALE_MEMBER_EPOCH": 113,
}
PROTOCOLS = ["consumer", "classic"]
Join = Callable[..., Member]
with_one_protocol = pytest.mark.parametrize("protocol", ["consumer"])


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def topic(cluster: MockCluster) -> str:
    return cluster.make_topic("things")


@pytest.fixture
def place(topic: str) -> Place:
    return topic, 0


@pytest.fixture
def join(cluster: MockCluster, protocol: str) -> Iterator[Join]:
    members: list[Member] = []

    def make(*topics: str, **settings: object) -> Member:
        members.append(Member(cluster, *topics, **{"protocol": protocol, **settings}))  # type: ignore[arg-type]
        return members[-1]

    yield make
    assert {member.close() for member in members} <= {True}


@pytest.fixture
def write(producer: RecordProducer, topic: str) -> Callable[[int], None]:
    def send(count: int) -> None:
        settled: list[object] = []
        for _ in range(count):
            producer.send(topic, b"k", b"v", None, partition=0, on_settled=settled.append)
        assert producer.flush(15) == 0
        assert {type(one) for one in settled} == {Acknowledged}

    return send


Write = Callable[[int], None]


# ---- commits


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        ("classic", "ILLEGAL_GENERATION"),
        ("classic", "UNKNOWN_MEMBER_ID"),
        ("classic", "REBALANCE_IN_PROGRESS"),
        ("consumer", "UNKNOWN_MEMBER_ID"),
        ("consumer", "FENCED_MEMBER_EPOCH"),
        ("consumer", "STALE_MEMBER_EPOCH"),
    ],
)
def test_a_commit_refused_in_a_rebalance_is_told_and_forgotten_and_never_sent_again(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place, name: str
) -> None:
    write(3)
    member = join(topic)
    member.has_read(3)
    eventually(lambda: place in member.started)
    sent = cluster.requests(Api.OFFSET_COMMIT)
    cluster.fail_next(Api.OFFSET_COMMIT, STALE[name])
    refused = member.reader.commit_of(place)
    member.owner.commit([refused])
    eventually(lambda: member.reader.failed_commits == [name], about="being told")
    if place in member.reader.held:  # the client has not given the partition up: the next commit is a new one
        write(1)
        member.has_read(4)
        assert committed(cluster, place) == {place: 0}
        assert cluster.requests(Api.OFFSET_COMMIT) == sent + 1
        member.commit()
        eventually(lambda: committed(cluster, place) == {place: 4})
    else:  # it has, and whoever has the partition now commits: an old completion is nobody's
        member.owner.commit([refused])
        assert member.owner.prove().result(15) is False
        assert committed(cluster, place) == {place: 0}
        assert cluster.requests(Api.OFFSET_COMMIT) == sent + 1
    assert member.reader.stops == []


@with_one_protocol
def test_partitions_lost_to_a_refused_commit_are_read_again_from_what_was_committed(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    write(3)
    member = join(topic)
    member.has_read(3)
    cluster.fail_next(Api.OFFSET_COMMIT, STALE["UNKNOWN_MEMBER_ID"])
    assert member.owner.prove().result(15) is False, "the zombie guard"
    eventually(lambda: member.reader.losses[:1] == [place])
    member.has_read(6)
    first, second = member.reader.assignments
    assert (second.offset, second.epoch > first.epoch) == (0, True)
    assert [record.offset for record in member.reader.records] == [0, 1, 2, 0, 1, 2]


@with_one_protocol
def test_the_first_poll_after_a_long_pause_proves_no_membership_a_commit_does(
    join: Join, write: Write, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zombie guard asks how old the last poll is. Frozen with its process, the Kafka thread could be the first to
    run again: its poll was new, and calls were made for partitions that were lost."""
    write(3)
    member = join(topic)
    member.has_read(3)
    monkeypatch.setattr("consumers.kafka.DOUBT_S", 0.2)
    frozen = threading.Event()
    member.owner._command(lambda _: frozen.wait(15) and None)
    before = member.owner.last_poll
    eventually(lambda: time.monotonic() - member.owner.last_poll > 0.3, about="a long pause")
    frozen.set()
    write(3)
    member.has_read(6)
    assert member.owner.last_poll - before < 0.3, "it has polled since, and nobody may rely on it"
    assert member.owner.prove().result(15)
    assert time.monotonic() - member.owner.last_poll < 5
    assert member.owner.last_poll - before > 0.3


@pytest.mark.parametrize("answer", [COORDINATOR_LOADING, CUT], ids=["loading", "cut"])
def test_a_coordinator_that_is_not_ready_delays_a_commit(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place, answer: int
) -> None:
    """A cut connection used to keep commits from being made until the session was over:
    the client tried again before it could have found the coordinator, and took that for its death."""
    write(3)
    member = join(topic)
    member.has_read(3)
    eventually(lambda: place in member.started)
    cluster.fail_next(Api.OFFSET_COMMIT, answer)
    member.commit()
    eventually(lambda: committed(cluster, place) == {place: 3}, about="the commit")
    assert member.reader.failed_commits == []
    assert member.reader.losses == []


def test_a_commit_that_is_tried_again_does_not_overtake_a_newer_one(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    """Two commits used to be under way at once; the client tried the first again behind the second when a coordinator
    that was loading refused it, and the committed offset stepped back (seen at a broker's restart)."""
    write(3)
    member = join(topic)
    member.has_read(3)
    eventually(lambda: place in member.started)
    held = member.reader.held[place]
    cluster.fail_next(Api.OFFSET_COMMIT, COORDINATOR_LOADING, COORDINATOR_LOADING)
    sent = cluster.requests(Api.OFFSET_COMMIT)
    for offset in (1, 2, 3):
        member.owner.commit([Commit(place, held.epoch, offset, "")])
    eventually(lambda: cluster.requests(Api.OFFSET_COMMIT) >= sent + 4, about="the first three times, then the newest")
    eventually(lambda: committed(cluster, place) == {place: 3}, about="the newest commit")
    assert cluster.requests(Api.OFFSET_COMMIT) == sent + 4, "of those that waited only the newest was sent"
    assert member.reader.failed_commits == []


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_coordinator_that_moves_takes_the_commits_with_it(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    cluster.coordinate(GROUP, 1)
    write(3)
    member = join(topic)
    member.has_read(3)
    eventually(lambda: place in member.started)
    cluster.coordinate(GROUP, 2)
    write(3)
    member.has_read(6)

    def caught_up() -> bool:  # as the runtime does: again and again, also after a session that was too short for it
        member.commit()
        return committed(cluster, place) == {place: 6}

    eventually(caught_up, poll_s=0.1, about="the commit")
    assert member.reader.stops == []


@with_one_protocol
def test_a_commit_refused_when_leaving_costs_only_a_repetition(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    write(3)
    member = join(topic)
    member.has_read(3)
    eventually(lambda: place in member.started)
    sent = cluster.requests(Api.OFFSET_COMMIT)
    cluster.fail_next(Api.OFFSET_COMMIT, STALE["REBALANCE_IN_PROGRESS"])
    assert member.close()
    assert member.reader.revocations == [place]
    assert cluster.requests(Api.OFFSET_COMMIT) == sent + 1
    after = join(topic)
    after.has_read(3)
    assert [record.offset for record in after.reader.records] == [0, 1, 2]


class Draining(Reader):
    """What is in flight when it is told to leave ends only after a rebalance has taken its partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving: list[tuple[Sequence[Place], Future[Sequence[Commit]]]] = []

    def revoke(self, places: Sequence[Place], reply: Future[Sequence[Commit]]) -> None:
        self.leaving.append((places, reply))
        if len(self.leaving) == 2:  # as the flow does: who asked first is told what may be committed
            for asked, first in self.leaving:
                super().revoke(asked, first)


@pytest.mark.parametrize("protocol", ["classic"])
def test_a_rebalance_while_it_leaves_does_not_cost_its_last_commit(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    """It did: the rebalance took the partition away before the drain's answer was looked at, so nothing was committed.
    What was delivered in the last second was delivered again by the next member. (This cluster refuses every commit
    while it rebalances; a real one takes it: ``tests/integration/test_delivery.py``.)"""
    write(3)
    member = join(topic, reader=Draining())
    member.has_read(3)
    eventually(lambda: place in member.started)
    leaving = threading.Thread(target=member.close)
    sent = cluster.requests(Api.OFFSET_COMMIT)
    leaving.start()
    eventually(lambda: cast(Draining, member.reader).leaving, about="its drain")
    other = join(topic)
    leaving.join(15)
    eventually(lambda: place in other.reader.held, about="the partition at the other one")
    assert member.reader.revocations == [place, place]
    assert cluster.requests(Api.OFFSET_COMMIT) > sent
    assert set(member.reader.failed_commits) <= {"REBALANCE_IN_PROGRESS"}


@pytest.mark.parametrize("protocol", ["classic"])
def test_a_partition_that_was_paused_when_it_was_taken_away_is_read_when_it_comes_back(
    cluster: MockCluster, join: Join, producer: RecordProducer
) -> None:
    """The client keeps a pause over a rebalance. A member that was full of a backlog when others came and went held its
    partitions ever after without reading one record (seen in a storm of rebalances)."""
    topic = cluster.make_topic("pair", 2)
    member = join(topic)
    eventually(lambda: len(member.reader.held) == 2, about="both partitions")
    for partition in (0, 1):
        member.owner.pause((topic, partition), True)
    other = join(topic)
    eventually(lambda: [len(one.reader.held) for one in (member, other)] == [1, 1], about="one partition each")
    settled: list[object] = []
    for partition in (0, 1):
        producer.send(topic, b"k", b"v", None, partition=partition, on_settled=settled.append)
    assert producer.flush(15) == 0
    eventually(lambda: len(member.reader.records) == len(other.reader.records) == 1, about="a record each")


@with_one_protocol
def test_a_start_that_cannot_be_committed_stays_pending(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    write(3)
    cluster.fail_next(Api.OFFSET_COMMIT, STALE["REBALANCE_IN_PROGRESS"])
    member = join(topic)
    member.has_read(3)
    assert member.owner.prove().result(15)
    assert member.started == {}


# ---- joining and reading


@with_one_protocol
def test_a_cluster_that_is_away_and_slow_delays_reading_and_skips_nothing(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    write(3)
    cluster.slow(30)
    member = join(topic)
    member.has_read(3)
    cluster.down()
    eventually(lambda: member.owner.last_poll and not member.reader.stops)
    cluster.up()
    cluster.slow(0)
    write(3)
    member.has_read(6)
    member.commit()
    eventually(lambda: committed(cluster, place) == {place: 6})
    assert [record.offset for record in member.reader.records] == list(range(6))
    assert member.reader.stops == []


@with_one_protocol
def test_positions_that_cannot_be_asked_for_make_it_join_again(
    cluster: MockCluster, join: Join, write: Write, topic: str
) -> None:
    write(3)
    cluster.fail_next(Api.OFFSET_FETCH, 30)
    member = join(topic)
    member.has_read(3)
    assert [record.offset for record in member.reader.records] == [0, 1, 2]
    assert member.reader.stops == []


def test_a_topic_that_is_missing_is_named_at_the_start(join: Join, topic: str) -> None:
    """With the newer protocol a missing topic was simply not read, and nobody was told."""
    member = join(topic, "nowhere")
    eventually(lambda: member.reader.stops, about="a stop")
    assert member.reader.stops[0] == "the topic nowhere does not exist (any more)"


@with_one_protocol
def test_a_topic_that_is_deleted_while_it_is_read_is_named(
    cluster: MockCluster, join: Join, write: Write, topic: str
) -> None:
    """The client warned without a name, and the subscription stood still."""
    write(3)
    quick = {"topic.metadata.refresh.interval.ms": 100, "topic.metadata.propagation.max.ms": 100}
    member = join(topic, **quick)
    member.has_read(3)
    cluster.delete_topic(topic)
    eventually(lambda: member.reader.stops, about="a stop")
    assert member.reader.stops[0] == f"the topic {topic} does not exist (any more)"


def test_a_topic_that_may_not_be_read_is_named_at_the_start(
    cluster: MockCluster, join: Join, write: Write, topic: str
) -> None:
    cluster.topic_answers(topic, 29)
    member = join(topic)
    eventually(lambda: member.reader.stops, about="a stop")
    assert member.reader.stops[0] == f"not allowed to read {topic} (TOPIC_AUTHORIZATION_FAILED)"


@with_one_protocol
def test_a_topic_that_may_not_be_read_any_more_is_named(
    cluster: MockCluster, join: Join, write: Write, topic: str
) -> None:
    write(3)
    member = join(topic)
    member.has_read(3)
    cluster.fail_next(Api.FETCH, 29)
    eventually(lambda: member.reader.stops, about="a stop")
    assert member.reader.stops[0] == f"not allowed to read {topic} (TOPIC_AUTHORIZATION_FAILED)"


def test_a_group_that_may_not_be_joined_is_told(cluster: MockCluster, join: Join, topic: str, protocol: str) -> None:
    """With the newer protocol this ends the client for good: it went on polling one that would never read again."""
    api = Api.CONSUMER_GROUP_HEARTBEAT if protocol == "consumer" else Api.JOIN_GROUP
    cluster.fail_next(api, 30)
    member = join(topic)
    eventually(lambda: member.reader.stops, about="a stop")
    assert member.reader.stops[0] == "not allowed to read as this group (GROUP_AUTHORIZATION_FAILED)"


def test_a_client_that_breaks_for_good_is_built_anew_and_reads_on(
    cluster: MockCluster, write: Write, topic: str
) -> None:
    write(3)
    member = Member(cluster, topic)
    try:
        member.has_read(3)
        cluster.fail_next(Api.CONSUMER_GROUP_HEARTBEAT, 42)  # INVALID_REQUEST
        member.has_read(6)
        assert member.reader.stops == []
        assert len(member.reader.assignments) == 2
    finally:
        assert member.close()


@with_one_protocol
def test_an_offset_out_of_range_stops_it_and_says_how_many_events_are_gone(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    write(20)

    def from_three(committed: Mapping[Place, int | None]) -> Mapping[Place, Begin | NoPosition]:
        return {place: Begin(3, first=False) for place in committed}

    cluster.delete_records(topic, 0, 15)
    member = join(topic, resolve=from_three)
    eventually(lambda: member.reader.stops, about="a stop")
    assert "the position 3 of things/0 is out of range" in member.reader.stops[0]
    assert "12 events were deleted before they were read" in member.reader.stops[0]
    assert "backbone rewind readers --to POSITION" in member.reader.stops[0]
    assert member.reader.records == []


# ---- callbacks that fail


class Broken(logging.Logger):
    """A log whose every line fails, as a filter or a handler of a user may."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.lines = 0

    def _log(self, *_: object, **__: object) -> None:
        self.lines += 1
        raise RuntimeError("the log is full")


@with_one_protocol
def test_what_callbacks_raise_loses_no_record(
    cluster: MockCluster, join: Join, write: Write, topic: str, place: Place
) -> None:
    """The log inside the error callback, and whoever is asked for the beginning inside the assignment."""
    asked: list[Mapping[Place, int | None]] = []

    def resolve(committed: Mapping[Place, int | None]) -> Mapping[Place, Begin | NoPosition]:
        asked.append(committed)
        if len(asked) == 1:
            raise UnreachableError("the control topic is away")
        return from_the_beginning(committed)

    write(100)
    log = Broken()
    member = join(topic, resolve=resolve, log=log, debug="consumer")
    member.has_read(100)
    lines = log.lines
    cluster.down()
    eventually(lambda: log.lines > lines, about="the client to complain")
    cluster.up()
    write(100)
    member.has_read(200)
    assert len(asked) == 2
    assert [record.offset for record in member.reader.records] == list(range(200))
    assert member.reader.stops == []


class Forgetful(Reader):
    """Fails when it is told for the first time that partitions are lost."""

    failures = 0

    @property
    def lost(self) -> Callable[[Sequence[Place]], None]:  # type: ignore[override]
        if not self.failures:
            self.failures += 1
            raise ZeroDivisionError
        return super().lost


@with_one_protocol
def test_a_callback_with_a_fault_of_its_own_costs_a_rejoin_and_no_record(
    cluster: MockCluster, join: Join, write: Write, topic: str
) -> None:
    write(3)
    member = join(topic, reader=Forgetful())
    member.has_read(3)
    cluster.fail_next(Api.OFFSET_COMMIT, STALE["ILLEGAL_GENERATION"])
    member.commit()
    member.has_read(6)
    assert [record.offset for record in member.reader.records] == [0, 1, 2, 0, 1, 2]
    assert member.reader.stops == []


class Unsettled(Reader):
    """Takes records in and settles none of them until it is told."""

    def receive(self, handover: Handover) -> None:
        super().receive(handover)
        self.settled_records = self.settled_bytes = 0


@pytest.mark.parametrize("protocol", ["classic"])
def test_a_partition_that_may_go_on_while_there_is_no_room_goes_on_once_there_is(
    cluster: MockCluster, join: Join, producer: RecordProducer
) -> None:
    """It stood still for ever: without room the member does not pause but only stops consuming, and took it for paused.
    Nine of twelve partitions of a long past were never read again."""
    topic = cluster.make_topic("pair", 2)
    member = join(topic, reader=Unsettled())
    eventually(lambda: len(member.reader.held) == 2, about="both partitions")
    member.owner.pause((topic, 1), True)
    settled: list[object] = []
    for partition, count in ((1, 1), (0, 5_000)):
        for _ in range(count):
            producer.send(topic, b"k", b"v", None, partition=partition, on_settled=settled.append)
    assert producer.flush(15) == 0
    member.has_read(5_000)  # as many as there may be
    member.owner.pause((topic, 1), False)
    member.owner.prove().result(15)  # it has heard of it
    member.reader.settled_records, member.reader.settled_bytes = 5_000, 10_000
    eventually(lambda: len(member.reader.records) > 5_000, 20, about="the other partition's record")
