"""A worker: one process that runs every attached subscription, or the named ones, and follows ``backbone.control``.

Each subscription is kept by a task of its own, so that one that cannot start, or takes long to leave, holds up no
other. What a subscription needs is made by ``Make``: the composition root (``ops``) knows files, credentials and
vendors; this knows when.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from connectors.connection import Connection
from consumers import facts
from consumers.assignment import Place
from consumers.control import (
    TOPIC,
    AttachedSubscription,
    Begin,
    ControlRecord,
    ControlSnapshot,
    NoPosition,
    Start,
    State,
    begin_at,
    start_record,
    state_record,
    timestamp,
)
from consumers.erased import Erased
from consumers.erasure import Erasure
from consumers.heartbeat import EVERY_S, Heartbeat, SubscriptionView, farewell_record, heartbeat_record
from consumers.heartbeat import TOPIC as HEARTBEAT
from consumers.open_letters import read_open_letters
from consumers.pipeline import Pipeline
from consumers.receipt_writer import ReceiptWriter
from consumers.runtime import Runtime
from consumers.sender import Producer
from consumers.subscription import Subscription
from consumers.tail import ControlTail
from consumers.work import Limits
from producers.kafka import Acknowledged, Backpressure, SendFailed
from schemas.codec import SchemaWanted
from schemas.errors import BackboneError

RETRY_S = 15.0
"""How long until a subscription that could not start is tried again, and a control record that was not written."""
CONTROL_WAIT_S = 20.0


class Make(Protocol):
    """What the composition root gives. ``erased`` is kept current by the worker, and what ``pipeline`` makes looks into
    it; ``unseal`` opens erasures. ``subscription`` and ``load_schema`` block and are called in threads; all but
    ``load_schema`` raise BackboneError with the reason why a subscription cannot run here."""

    @property
    def erased(self) -> Erased: ...
    def unseal(self, text: str) -> Erasure | None: ...
    def subscription(self, attached: AttachedSubscription) -> Subscription: ...
    def pipeline(self, subscription: Subscription) -> Pipeline: ...
    def connection(self, name: str) -> Connection: ...
    def receipts(self, subscription: Subscription) -> ReceiptWriter | None: ...
    def load_schema(self, wanted: SchemaWanted) -> None: ...


@dataclass(slots=True)
class _Running:
    runtime: Runtime
    definition: object
    state: State


class Worker:
    """Runs until ``run`` is cancelled or its ``leaving`` event is set; made and used on the event loop.

    ``names``: only these (empty: all attached). ``builtin``: subscriptions of the backbone itself, which nobody
    attaches; they are read from the beginning where they have no position, for what they keep can be made again.
    ``kafka`` are librdkafka's settings of a connection, ``membership`` the same with those of group membership.
    ``observer`` hears the facts; ``follow`` is told of every runtime that starts, for gauges. ``version`` of the
    backbone, for the heartbeat, and ``credentials``, what is to be said there of credentials that were replaced and
    could not be taken."""

    def __init__(
        self,
        *,
        names: Sequence[str],
        who: str,
        kafka: Mapping[str, Any],
        membership: Mapping[str, Any],
        producer: Producer,
        make: Make,
        observer: facts.Observer,
        follow: Callable[[str, Runtime], None],
        limits: Limits | None = None,
        builtin: Mapping[str, AttachedSubscription] | None = None,
        version: str = "",
        credentials: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._kafka, self._builtin, self._version = kafka, dict(builtin or {}), version
        self._credentials = credentials
        self._only, self._who, self._membership = frozenset(names), who, membership
        self._producer, self._make, self._observe, self._follow = producer, make, observer, follow
        self._limits = limits or Limits()
        self._loop = asyncio.get_running_loop()
        self._tail = ControlTail(kafka, changed=self._changed_soon, log=logging.getLogger("kafka"), erased=make.erased)
        self._running: dict[str, _Running] = {}
        self._stopped_under: dict[str, State] = {}
        self._events: dict[str, asyncio.Event] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._leaving = asyncio.Event()
        self._connections: dict[str, Connection] = {}
        self._heartbeat_error = ""
        self.ready = False
        """the control topic has been read: everything attached is being started"""

    @property
    def drain_s(self) -> float:
        """How long leaving waits for what is in flight."""
        return self._limits.drain_s

    def renew(self, username: str, password: str) -> None:
        """Kafka's credentials from the next connection on (SASL PLAIN and SCRAM), of all its readers. The producer is
        its maker's. On the event loop; does not block."""
        new = {"sasl.username": username, "sasl.password": password}
        self._kafka, self._membership = {**self._kafka, **new}, {**self._membership, **new}
        self._tail.renew(username, password)
        for running in self._running.values():
            running.runtime.renew(username, password)

    def leave(self) -> None:
        """Drain everything and end ``run``; may be called more than once."""
        self._leaving.set()

    async def run(self) -> bool:
        """Run until ``leave``; answers whether everything in flight ended in time. Raises UnreachableError when the
        control topic cannot be read at the start."""
        self._tail.start()
        beat: asyncio.Task[None] | None = None
        try:
            snapshot = await asyncio.to_thread(self._tail.snapshot, CONTROL_WAIT_S)
            self.ready = True
            for name in (*snapshot.subscriptions, *self._builtin):
                self._changed(name)
            beat = self._loop.create_task(self._beat())
            await self._leaving.wait()
        finally:
            self.ready = False
            if beat is not None:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)
            for keeper in self._keepers.values():
                keeper.cancel()
            await asyncio.gather(*self._keepers.values(), return_exceptions=True)
            in_time = await asyncio.gather(*(self._end(name, "the worker leaves") for name in list(self._running)))
            for connection in self._connections.values():
                await connection.close()
            self._send_quietly(*farewell_record(self._who))
            await asyncio.to_thread(self._tail.close)
        return all(in_time)

    # ---- following the control topic

    def _changed_soon(self, names: frozenset[str]) -> None:
        for name in names:
            try:
                self._loop.call_soon_threadsafe(self._changed, name)
            except RuntimeError:
                return  # the loop is closed: the worker has left

    def _changed(self, name: str) -> None:
        if (connection := self._connections.get(name)) is not None:
            self._tell_connection(name, connection)
        if not self.ready or (self._only and name not in self._only):
            return
        if name not in self._keepers:
            self._events[name] = asyncio.Event()
            self._keepers[name] = self._loop.create_task(self._keep(name))
        self._events[name].set()

    async def _keep(self, name: str) -> None:
        """Bring one subscription to what the control topic says of it, again and again."""
        changed = self._events[name]
        while True:
            changed.clear()
            try:
                again_in = await self._bring(name)
            except BackboneError as error:
                self._observe(facts.SubscriptionNotStarted(name, str(error)))
                again_in = RETRY_S
            except Exception as error:
                logging.getLogger("backbone").error("%s could not be started", name, exc_info=True)
                self._observe(facts.SubscriptionNotStarted(name, f"an error of the backbone: {type(error).__name__}"))
                again_in = RETRY_S
            try:
                async with asyncio.timeout(again_in):
                    await changed.wait()
            except TimeoutError:
                pass

    async def _bring(self, name: str) -> float | None:
        """One step; answers after how many seconds to look again by itself (None: when something changes)."""
        attached = self._attached(self._tail.current(), name)
        running = self._running.get(name)
        now = datetime.now(UTC)
        if attached is None:
            await self._end(name, "detached")
            return None
        if attached.leave is not None and attached.away_at(now):
            await self._end(name, f"asked to by the change {attached.leave.change}")
            return max(0.1, (datetime.fromisoformat(attached.leave.until) - now).total_seconds())
        if attached.state.state != "running":
            if running is not None and not running.runtime.stop_reason:
                running.runtime.hold(attached.state.reason or attached.state.state)
            return None
        if self._stopped_under.get(name) == attached.state:
            return None  # stopped here; the topic has not heard of it yet, or nobody has resumed it
        if running is not None:
            if running.definition == attached.definition and not running.runtime.stop_reason:
                return None
            await self._end(name, "a new version" if running.definition != attached.definition else "resumed")
        await self._start(attached)
        return None

    def _attached(self, snapshot: ControlSnapshot, name: str) -> AttachedSubscription | None:
        built_in = self._builtin.get(name)
        if built_in is None:
            return snapshot.subscriptions.get(name)
        known = snapshot.detached.get(name)  # nobody attaches it, but it may have been stopped or paused
        return built_in if known is None else replace(built_in, state=known.state, leave=known.leave)

    async def _start(self, attached: AttachedSubscription) -> None:
        name = attached.name
        self._stopped_under.pop(name, None)
        subscription = await asyncio.to_thread(self._make.subscription, attached)
        connection = self._connections.get(subscription.connection)
        if connection is None:
            connection = self._connections[subscription.connection] = self._make.connection(subscription.connection)
            self._tell_connection(subscription.connection, connection)
        runtime = Runtime(
            subscription=subscription,
            pipeline=self._make.pipeline(subscription),
            connection=connection,
            producer=self._producer,
            receipts=self._make.receipts(subscription),
            kafka=self._membership,
            resolve=lambda committed: self._resolve(name, committed),
            started=lambda positions: self._started(name, positions),
            load_schema=self._make.load_schema,
            stopped=lambda reason: self._stopped(name, reason),
            caught_up=lambda places: self._caught_up(name, places),
            observer=self._observe,
            open_letters=lambda places: read_open_letters(self._kafka, subscription.dead_topic, places),
            accept=attached.state.accept,
            erased=self._make.erased,
            unseal=self._make.unseal,
            limits=self._limits,
        )
        self._running[name] = _Running(runtime, attached.definition, attached.state)
        self._follow(name, runtime)
        runtime.start()

    async def _end(self, name: str, reason: str) -> bool:
        running = self._running.pop(name, None)
        return True if running is None else await running.runtime.close(reason)

    # ---- once in a while

    async def _beat(self) -> None:
        """Say what this process does, and divide the connections' quotas among its subscriptions."""
        next_beat = 0.0
        while True:
            self._divide()
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + EVERY_S
                self._send_quietly(*heartbeat_record(self.heartbeat()))
            await asyncio.sleep(1.0)

    def heartbeat(self) -> Heartbeat:
        """What this process does now."""
        return Heartbeat(
            process=self._who,
            at=time.time(),
            version=self._version,
            pid=os.getpid(),
            host=socket.gethostname(),
            subscriptions=tuple(self._view(name, running) for name, running in self._running.items()),
            connections=tuple(connection.view() for connection in self._connections.values()),
            credentials=tuple(self._credentials()),
        )

    def _view(self, name: str, running: _Running) -> SubscriptionView:
        view = running.runtime.view()
        attached = self._attached(self._tail.current(), name)
        return replace(view, state="paused") if attached is not None and attached.state.state == "paused" else view

    def _divide(self) -> None:
        attached = self._tail.current().subscriptions
        owned = {
            name: sum(place[0] in definition.topics for place in running.runtime.places)
            for name, running in self._running.items()
            if name in attached and (definition := attached[name].definition) is not None
        }
        for name, share in shares(attached, owned).items():
            self._running[name].runtime.share(share)

    def _tell_connection(self, name: str, connection: Connection) -> None:
        """What a person has said of a connection (``backbone connection pause | resume``)."""
        state = self._tail.current().connections.get(name)
        if state is None or state.state == "running":
            connection.release()
        else:
            connection.hold(state.reason or state.state)

    def _send_quietly(self, key: bytes, value: bytes | None) -> None:
        """A heartbeat that is not written is missed by people, and by nothing else."""

        def settled(answer: Acknowledged | SendFailed) -> None:
            if isinstance(answer, SendFailed) and answer.error != self._heartbeat_error:
                self._heartbeat_error = answer.error
                logging.getLogger("backbone").warning("%s could not be written: %s", HEARTBEAT, answer.error)

        try:
            self._producer.send(HEARTBEAT, key, value, [], partition=0, on_settled=settled)
        except Backpressure:
            logging.getLogger("backbone").info("no heartbeat: the producer is full")

    # ---- on the Kafka threads

    def _resolve(self, name: str, committed: Mapping[Place, int | None]) -> Mapping[Place, Begin | NoPosition]:
        """Where partitions begin, by a view of the control topic that is as new as the assignment."""
        if name in self._builtin:
            return {place: Begin(offset, first=False) for place, offset in committed.items()}
        attached = self._tail.snapshot(CONTROL_WAIT_S).subscriptions.get(name)
        if attached is None:
            return {place: NoPosition(f"{name} is not attached any more") for place in committed}
        return {place: begin_at(attached, *place, offset) for place, offset in committed.items()}

    def _started(self, name: str, positions: Mapping[Place, int]) -> None:
        attached = self._tail.current().subscriptions.get(name)
        starts = {} if attached is None else attached.starts
        for (topic, partition), offset in positions.items():
            start = starts.get((topic, partition), Start(offset=offset, state="pending"))
            start = replace(start, offset=offset, state="started", at=timestamp())  # what the attach has marked stays
            self._write(start_record(name, topic, partition, start))

    # ---- writing the control topic

    def _caught_up(self, name: str, places: Sequence[Place]) -> None:
        """Record when an attach was handed over to live; a partition that comes back later was handed over then."""
        attached = self._tail.current().subscriptions.get(name)
        for place in places:
            start = None if attached is None else attached.starts.get(place)
            if start is None or start.until is None or start.caught_up_at:
                continue
            # started, whatever the view says that has not read this worker's own record of it yet
            over = replace(start, state="started", caught_up_at=timestamp())
            self._write(start_record(name, *place, over))
            self._observe(facts.CaughtUp(name, place, start.until))

    def _stopped(self, name: str, reason: str) -> None:
        """A runtime stopped itself: tell every other member, so that none runs into the same wall."""
        running = self._running.get(name)
        if running is not None:
            self._stopped_under[name] = running.state
        self._write(state_record(name, State(state="stopped", reason=reason, by=self._who, at=timestamp())))

    def _write(self, record: ControlRecord) -> None:
        """Write a record, again until it is acked; from any thread. A start that stayed pending would be begun at
        again if the group's commits expired, a stop that is not told would be run into by the others."""
        key, value = record

        def again() -> None:
            self._loop.call_soon_threadsafe(self._loop.call_later, RETRY_S / 5, lambda: self._write(record))

        def settled(answer: Acknowledged | SendFailed) -> None:
            if isinstance(answer, SendFailed) and not self._leaving.is_set():
                logging.getLogger("backbone").warning("%s could not be written: %s", TOPIC, answer.error)
                again()

        try:
            self._producer.send(TOPIC, key, value, [], partition=0, on_settled=settled)
        except Backpressure:
            again()


def shares(attached: Mapping[str, AttachedSubscription], owned: Mapping[str, int]) -> dict[str, float]:
    """The part (0..1) of its connection's quota that each subscription has in this process: its weight among all that
    run on the connection, times the source partitions it owns here (``owned``) among all of its. Over all processes
    the parts of a connection add up to 1 at most."""
    weights: dict[str, int] = {}
    for one in attached.values():
        if one.definition is not None and one.state.state == "running":
            weights[one.definition.connection] = weights.get(one.definition.connection, 0) + one.definition.weight
    found: dict[str, float] = {}
    for name, partitions in owned.items():
        definition = attached[name].definition
        assert definition is not None
        of_all = max(weights.get(definition.connection, 0), definition.weight)
        # a topic that has grown since it was attached has more partitions than are recorded
        total = max(sum(definition.topics.values()), partitions, 1)
        found[name] = definition.weight / of_all * partitions / total
    return found
