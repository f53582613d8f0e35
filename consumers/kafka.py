"""The one thread of a subscription that owns its Kafka consumer: it alone polls, pauses and commits.

Everything else talks to it through commands, and it talks to the event loop through ``Reader`` by
``call_soon_threadsafe``. Two rules that have bitten (facts: client behaviour): an exception in a librdkafka callback
throws fetched messages away, so every callback is wrapped and only sets a flag; and since 2.16 a second thread that
calls any method of a Consumer waits until the polling thread leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers import refusals
from consumers.assignment import Assigned, Assignment, Commit, Handover, Place
from consumers.client_settings import consumer_settings
from consumers.control import Begin, NoPosition
from consumers.offsets import decode_runs
from producers.client_log import ClientLog
from schemas.event import Record

FETCH_MAX = 500
POLL_S = 0.1
HELD_POLL_S = 0.2
NO_POLL_MAX_S = 1.0
"""Without a poll for longer nobody can join or leave the group."""
ANSWER_MAX_S = 2.0
"""How long leaving waits for the answer to a commit that is under way."""
DOUBT_S = 10.0
"""A pause between two polls after which it is not known whether this process is still a member."""
LOOK_AGAIN_S = 5.0
"""How long until the cluster is asked again for the topics when it could not answer."""

_TIMESTAMP_TYPES = ("none", "create", "append")
_STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        getattr(KafkaError, "STALE_MEMBER_EPOCH", 113),
        getattr(KafkaError, "FENCED_MEMBER_EPOCH", 110),
    }
)


class Reader(Protocol):
    """The event-loop side. Every method is called on the loop."""

    @property
    def settled_records(self) -> int: ...
    @property
    def settled_bytes(self) -> int: ...
    def assigned(self, partitions: Sequence[Assigned]) -> None: ...
    def receive(self, handover: Handover) -> None: ...
    def revoke(self, places: Sequence[Place], reply: Future[Sequence[Commit]]) -> None: ...
    def lost(self, places: Sequence[Place]) -> None: ...
    def stop(self, reason: str) -> None: ...
    def commit_failed(self, reason: str) -> None: ...


OpenLetters: TypeAlias = Callable[[Sequence[Place]], Mapping[Place, Sequence[tuple[bytes | None, int]]]]


class Owner:
    """Reads the topics as a member of the group until it is closed. Methods may be called from any thread and do
    not block, but for ``close``.

    ``resolve`` answers where partitions begin, given the committed offsets (None: none); it blocks, and raises when
    it cannot know now: then the group is left and joined again. ``open_letters``, where given, answers the key and
    offset of every open dead letter of newly assigned partitions; it blocks too."""

    def __init__(
        self,
        *,
        settings: Mapping[str, Any],
        group: str,
        topics: Sequence[str],
        reader: Reader,
        loop: asyncio.AbstractEventLoop,
        resolve: Callable[[Mapping[Place, int | None]], Mapping[Place, Begin | NoPosition]],
        started: Callable[[Mapping[Place, int]], None],
        drain_s: float,
        records_max: int,
        bytes_max: int,
        log: logging.Logger,
        open_letters: OpenLetters | None = None,
    ) -> None:
        self._group = group
        self._settings = consumer_settings(settings, group)
        self._settings |= {"on_commit": self._guarded(self._on_commit), "error_cb": self._guarded(self._on_error)}
        self._incremental = self._settings["group.protocol"] == "consumer"
        self._topics, self._reader, self._loop = list(topics), reader, loop
        self._resolve, self._started, self._open_letters = resolve, started, open_letters
        self._drain_s, self._records_max, self._bytes_max = drain_s, records_max, bytes_max
        self._log = ClientLog(log)
        self.last_poll = self._polled_at = time.monotonic()
        """until when this process is known to be a member; after a long pause it stands still until ``prove``"""
        self._commands: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._closing = False
        self._rejoin = ""
        self._look_at: float | None = None
        self._held = False
        self._paused_all = False
        self._paused: set[Place] = set()
        self._assignment = Assignment()
        self._first: list[TopicPartition] = []
        self._unanswered = False
        self._waiting: dict[Place, Commit] = {}
        self._draining: Future[Sequence[Commit]] | None = None
        """what may be committed once everything in flight has ended, as it leaves"""
        self._handed_records = self._handed_bytes = 0
        self._thread = threading.Thread(target=self._run, name=f"kafka-{group}", daemon=True)

    # ---- from any thread

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Leave the group: what is in flight is drained and committed first. Blocks; False when it took longer."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """The reader has settled something: there may be room again."""
        self._wake.set()

    def commit(self, commits: Sequence[Commit]) -> None:
        self._command(lambda consumer: self._commit(consumer, commits, asynchronous=True))

    def prove(self) -> Future[bool]:
        """One synchronous commit, which tells whether this process is still a member: False when it is not."""
        reply: Future[bool] = Future()
        self._command(lambda consumer: reply.set_result(self._prove(consumer)))
        return reply

    def hold(self, held: bool) -> None:
        """Stop consuming, or go on; either way it keeps polling and stays a member."""
        self._held = held
        self._wake.set()

    def pause(self, place: Place, paused: bool) -> None:
        """Stop consuming one partition, or go on."""
        self._command(lambda consumer: self._pause(consumer, place, paused))

    def renew(self, username: str, password: str) -> None:
        """Authenticate with these from the next connection on (SASL PLAIN and SCRAM); open connections stay."""
        self._settings |= {"sasl.username": username, "sasl.password": password}
        self._command(lambda consumer: consumer.set_sasl_credentials(username, password))

    def _command(self, command: Callable[[Consumer], None]) -> None:
        self._commands.put(command)
        self._wake.set()

    # ---- the thread

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            consumer: Consumer | None = None
            try:
                consumer = Consumer(self._settings, logger=self._log)
                consumer.subscribe(
                    self._topics,
                    on_assign=self._guarded(self._on_assign),
                    on_revoke=self._guarded(self._on_revoke),
                    on_lost=self._guarded(self._on_lost),
                )
                self._serve(consumer)
                failures = 0
            except KafkaException as error:
                self._broken(error.args[0])
            except Exception as error:  # noqa: BLE001 - the thread must not die silently: the subscription stops
                self._log.error("the consumer thread failed: %s", type(error).__name__, exc_info=True)
                self._tell(self._reader.stop, f"the consumer failed ({type(error).__name__}); see the log")
                self._held = True
            finally:
                if consumer is not None:
                    self._leave(consumer)
            if not self._closing:
                failures += 1
                self._wake.clear()
                self._wake.wait(min(30.0, 0.5 * (1 << min(failures, 6))))

    def _leave(self, consumer: Consumer) -> None:
        try:
            if self._closing and self._assignment:
                self._drain(consumer)
            consumer.close()
        except (KafkaException, RuntimeError) as error:
            self._log.warning("leaving the group failed: %s", error)
        if self._assignment:
            self._tell(self._reader.lost, self._assignment.places)
        self._forget(self._assignment.places)

    def _drain(self, consumer: Consumer) -> None:
        """Let what is in flight end and commit it while still polling: inside ``close()`` the client sends no more
        heartbeats, so a drain longer than the session would end with a commit that is refused."""
        places = self._assignment.places
        consumer.pause(consumer.assignment())
        reply = self._draining = Future()
        self._tell(self._reader.revoke, places, reply)
        until = time.monotonic() + self._drain_s + 5
        while not reply.done() and time.monotonic() < until:
            consumer.poll(POLL_S)
            self._polled()
        until = time.monotonic() + ANSWER_MAX_S
        while self._unanswered and time.monotonic() < until:
            consumer.poll(POLL_S)  # tried again by the client, the last commit would land behind the one below
        if reply.done():
            self._commit(consumer, reply.result(), asynchronous=False)
        self._forget(places)

    def _serve(self, consumer: Consumer) -> None:
        self._rejoin = ""
        self._unanswered = False  # a new client knows of no commit
        self._waiting.clear()
        self._look_at = time.monotonic()
        self._paused_all = False
        while not self._closing and not self._rejoin:
            self._run_commands(consumer)
            if self._look_at is not None and time.monotonic() >= self._look_at:
                self._look(consumer)
            if self._first:
                self._commit_first(consumer)
            if self._waiting and not self._unanswered:
                waiting, self._waiting = list(self._waiting.values()), {}
                self._commit(consumer, waiting, asynchronous=True)
            if self._held or self._is_full(1.0) or (self._paused_all and self._is_full(0.5)):
                if not self._paused_all and not self._held and time.monotonic() - self._polled_at < NO_POLL_MAX_S:
                    # Not consuming costs nothing; pausing throws the prefetched messages away.
                    self._wake.clear()
                    if self._is_full(0.5):
                        self._wake.wait(NO_POLL_MAX_S / 4)
                    continue
                if not self._paused_all:
                    consumer.pause(consumer.assignment())
                    self._paused_all = True
                assigned = self._assignment.epochs
                message = consumer.poll(HELD_POLL_S)
                self._take([] if message is None else [message], consumer)  # a tombstone is false as a Message
                if self._assignment.epochs != assigned:
                    consumer.pause(consumer.assignment())  # a rebalance has brought partitions that are not paused
                continue
            if self._paused_all:
                consumer.resume([tp for tp in consumer.assignment() if (tp.topic, tp.partition) not in self._paused])
                self._paused_all = False
            first = consumer.poll(POLL_S)
            messages = [] if first is None else [first, *consumer.consume(FETCH_MAX - 1, 0)]
            self._take(messages, consumer)

    def _polled(self) -> None:
        """A process that was frozen polls before it hears that it has lost its partitions. This thread may be the first
        to run again, so such a poll proves nothing to those who are about to call a vendor."""
        now = time.monotonic()
        if now - self.last_poll <= DOUBT_S or not self._assignment:
            self.last_poll = now
        self._polled_at = now

    def _is_full(self, share: float) -> bool:
        records = self._handed_records - self._reader.settled_records
        size = self._handed_bytes - self._reader.settled_bytes
        return records >= self._records_max * share or size >= self._bytes_max * share

    def _run_commands(self, consumer: Consumer) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command(consumer)

    def _take(self, messages: Sequence[Message], consumer: Consumer) -> None:
        """Turn messages into records and hand them over, with the position behind them (also when there are none:
        transaction markers move it)."""
        self._polled()
        records: list[Record] = []
        size = 0
        for message in messages:
            error = message.error()
            if error is not None:
                self._message_error(consumer, message, error)
                continue
            if (message.topic(), message.partition()) not in self._assignment:
                continue
            record = as_record(message)
            records.append(record)
            size += (len(record.value) if record.value else 0) + (len(record.key) if record.key else 0)
        positions: dict[Place, int] = {}
        if self._assignment:
            for at in consumer.position([TopicPartition(*place) for place in self._assignment.places]):
                if at.error is None and self._assignment.moved((at.topic, at.partition), at.offset):
                    positions[at.topic, at.partition] = at.offset
        if records or positions:
            self._handed_records += len(records)
            self._handed_bytes += size
            self._tell(self._reader.receive, Handover(records, positions, self._assignment.epochs))

    def _look(self, consumer: Consumer) -> None:
        """Ask the cluster whether the topics are there: at the start, and when the client hints that one is not."""
        self._look_at = None
        try:
            refused = refusals.topics_refused(consumer, self._topics, NO_POLL_MAX_S)
        except KafkaException:
            self._look_at = time.monotonic() + LOOK_AGAIN_S  # the cluster is away, and says so itself
            return
        if refused is not None:
            self._tell(self._reader.stop, refused)

    def _message_error(self, consumer: Consumer, message: Message, error: KafkaError) -> None:
        name, topic = error.name(), message.topic()
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._tell(self._reader.stop, self._out_of_range(consumer, str(topic), message.partition() or 0))
        elif topic and (refused := refusals.topic_refused(topic, name)) is not None:
            self._tell(self._reader.stop, refused)
        elif name == refusals.GROUP_CLOSED:
            self._tell(self._reader.stop, refusals.group_refused())
        elif error.fatal() or error.code() == KafkaError._FATAL:
            # This consumer will never read again. What it is says its text only, which begins with the cause's.
            self._log.warning("the consumer broke for good and is built anew: %s", name)
            self._rejoin = name
            if KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED).str() in error.str():
                self._tell(self._reader.stop, refusals.group_refused())
        elif error.code() != KafkaError._PARTITION_EOF:
            self._log.warning("reading %s/%s: %s", topic, message.partition(), name)

    def _out_of_range(self, consumer: Consumer, topic: str, partition: int) -> str:
        at = self._assignment.reached((topic, partition))
        try:
            ends = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        except KafkaException:
            ends = None
        return refusals.out_of_range(self._group, topic, partition, at, ends)

    def _broken(self, error: KafkaError) -> None:
        if self._incremental and error.code() in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
            self._log.warning("the brokers do not know the consumer group protocol; using the classic one")
            self._settings.pop("group.remote.assignor", None)
            self._settings |= {"group.protocol": "classic", "partition.assignment.strategy": "range"}
            self._incremental = False
        else:
            self._log.warning("the consumer broke and is built anew: %s", error.name())

    def _tell(self, method: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(method, *arguments)
        except RuntimeError:
            self._closing = True  # the loop is closed: nobody is left to deliver

    # ---- callbacks: they run inside poll() and close(), on this thread, and never raise

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback throws away what the client has fetched; after one the group is joined anew, so
        that everything is read again from the last commit."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # noqa: BLE001 - see above
                self._rejoin = f"a callback failed ({type(error).__name__})"
                self._log.error("a callback failed, joining again: %s", error_name(error))

        return call

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            if self._closing:
                self._take_assignment(consumer, [])  # it is leaving: nothing new is begun
            else:
                self._assign(consumer, partitions)
        except Exception as error:  # noqa: BLE001 - whatever it is, the assignment has to be answered
            self._rejoin = f"the assignment failed: {error_name(error)}"
            self._log.warning("the assignment failed, joining again: %s", error_name(error))
            self._take_assignment(consumer, [])

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        fresh = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        committed: dict[Place, tuple[int, str | None]] = {}
        for tp in consumer.committed(fresh, timeout=15) if fresh else []:
            if tp.error is not None:
                raise KafkaException(tp.error)
            if tp.offset >= 0:
                committed[tp.topic, tp.partition] = (tp.offset, tp.metadata)
        places = [(tp.topic, tp.partition) for tp in fresh]
        begins = self._resolve({p: committed[p][0] if p in committed else None for p in places})
        letters = {} if self._open_letters is None or not places else self._open_letters(places)
        assigned: list[Assigned] = []
        stops: list[str] = []
        first: list[TopicPartition] = []
        for place in places:
            begin = begins[place]
            if isinstance(begin, NoPosition):
                stops.append(begin.reason)
                continue
            offset = begin.offset
            if offset is None:
                low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=15)
                offset = high if begin.at_end else low
            metadata = (committed[place][1] if place in committed else None) or ""
            epoch = self._assignment.begin(place, offset, metadata)
            runs = decode_runs(offset, metadata)
            assigned.append(Assigned(place, epoch, offset, runs, letters.get(place, ()), begin.until, begin.fold))
            if begin.first:
                first.append(TopicPartition(*place, offset))
        self._take_assignment(consumer, [TopicPartition(*a.place, a.offset) for a in assigned])
        # The client keeps a pause over a rebalance: what was paused when it was taken away would never be read again.
        consumer.resume([TopicPartition(*a.place) for a in assigned])
        # What is folded first is read by somebody else until then; the reader says when it goes on.
        for one in assigned:
            if one.folds:
                self._pause(consumer, one.place, True)
        self._first += first
        self._tell(self._reader.assigned, assigned)
        if stops:
            self._held = True
            self._tell(self._reader.stop, stops[0])

    def _take_assignment(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._incremental:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(tp.topic, tp.partition) for tp in partitions if (tp.topic, tp.partition) in self._assignment]
        try:
            reply: Future[Sequence[Commit]] = Future()
            self._tell(self._reader.revoke, places, reply)
            if places and self._loop.is_running():
                # It may be leaving already: then what may be committed is told to the drain, which asked first.
                replies = [reply] if self._draining is None else [self._draining, reply]
                commits = {one.place: one for each in replies for one in each.result(self._drain_s + 5)}
                self._commit(consumer, list(commits.values()), asynchronous=False)
        except Exception as error:  # noqa: BLE001 - what is not committed is delivered again
            self._log.warning("the commit before leaving partitions failed: %s", error_name(error))
        self._forget(places)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(tp.topic, tp.partition) for tp in partitions]
        self._tell(self._reader.lost, places)
        self._forget(places)

    def _forget(self, places: Sequence[Place]) -> None:
        self._assignment.forget(places)
        self._paused.difference_update(places)
        for place in places:
            self._waiting.pop(place, None)
        self._first = [tp for tp in self._first if (tp.topic, tp.partition) in self._assignment]

    # ---- commands, on this thread

    def _commit_first(self, consumer: Consumer) -> None:
        """Commit recorded starts at once, so that from now on a missing commit is a loss and not a beginning."""
        first, self._first = self._first, []
        try:
            for tp in consumer.commit(offsets=first, asynchronous=False) or []:
                if tp.error is not None:
                    raise KafkaException(tp.error)
        except KafkaException as error:
            self._log.warning("committing the recorded start failed: %s", error.args[0].name())
            return  # the start stays pending: whoever gets the partition next begins there
        self._started({(tp.topic, tp.partition): tp.offset for tp in first})

    def _commit(self, consumer: Consumer, commits: Sequence[Commit], *, asynchronous: bool) -> None:
        """The line that moves offsets: what the guard admits, and nothing else.

        One asynchronous commit is under way at most, and the newest of each partition waits for its answer: the client
        sends a commit again by itself when the coordinator is loading, so an older one would land behind a newer one
        and the committed offset would step back."""
        if asynchronous and self._unanswered:
            self._waiting.update((commit.place, commit) for commit in commits)
            return
        admitted, beyond = self._assignment.admit(commits)
        for commit in beyond:
            self._log.error("refused to commit %s beyond what was handed over", commit.place)
        offsets = [TopicPartition(*commit.place, commit.offset, commit.metadata) for commit in admitted]
        if not offsets:
            return
        try:
            if asynchronous:
                consumer.commit(offsets=offsets, asynchronous=True)
                self._unanswered = True
            else:
                for tp in consumer.commit(offsets=offsets, asynchronous=False) or []:
                    if tp.error is not None:
                        raise KafkaException(tp.error)
        except KafkaException as error:
            # Never retried: after a rebalance the same offsets may belong to another member.
            self._tell(self._reader.commit_failed, error.args[0].name())

    def _prove(self, consumer: Consumer) -> bool:
        self._take([], consumer)
        offsets = [TopicPartition(*place, *committed) for place, committed in self._assignment.committed.items()]
        if not offsets:
            return False
        try:
            for tp in consumer.commit(offsets=offsets, asynchronous=False) or []:
                if tp.error is not None:
                    raise KafkaException(tp.error)
        except KafkaException as error:
            self._tell(self._reader.commit_failed, error.args[0].name())
            if error.args[0].code() in _STALE:
                places = self._assignment.places
                self._tell(self._reader.lost, places)
                self._forget(places)
                self._rejoin = "no longer a member"
            return False
        self.last_poll = time.monotonic()
        return True

    def _pause(self, consumer: Consumer, place: Place, paused: bool) -> None:
        if place not in self._assignment:
            return
        if paused:
            self._paused.add(place)
            consumer.pause([TopicPartition(*place)])
        elif place in self._paused:
            self._paused.discard(place)
            if not self._paused_all:  # then it is resumed with the others
                consumer.resume([TopicPartition(*place)])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._unanswered = False
        failed = error or next((tp.error for tp in partitions if tp.error is not None), None)
        if failed is not None and failed.code() != KafkaError._NO_OFFSET:
            self._tell(self._reader.commit_failed, failed.name())

    def _on_error(self, error: KafkaError) -> None:
        if error.name() in refusals.TOPIC_GONE or error.name() == refusals.TOPIC_CLOSED:
            self._look_at = time.monotonic()  # it does not say which topic it means
        self._log.warning("kafka: %s", error.name())


def as_record(message: Any) -> Record:  # Any: the stubs make every part of a Message optional
    """A message as a record; the Message object is let go of (12 x 10,000 of them held 321 MiB)."""
    kind, timestamp = message.timestamp()
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        timestamp,
        _TIMESTAMP_TYPES[kind],
    )


def error_name(error: Exception) -> str:
    """What may be said of an error: librdkafka's code, or the type; never its words, they may hold data."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        return str(error.args[0].name())
    return type(error).__name__
