"""Filling a subscription's inbox from a long change (a replay, a repair): no faster than people want and the workers
take, nothing twice after a cut, and in the end what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ops.changes.letters import CHUNK, CHUNK_S
from ops.changes.orders import BEGAN, inbox_ends, orders_of, outgoing, waiting_before
from ops.changes.redrive_plan import is_run
from ops.changes.staleness import LEDGER_WAIT_S
from ops.changes.steering import Cancelled
from ops.ledger.query import read_to_end
from ops.sending import Outgoing, send_acked
from ops.wording import counted
from schemas.errors import BackboneError, PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from consumers.inbox import InboxOrder
    from ops.app import App
    from ops.changes.plan import JsonValue, Plan
    from ops.changes.steering import Pace
    from ops.changes.store import Journal
    from ops.lag.cluster import Place
    from schemas.event import Origin, Record

INBOX_MAX: Final = 1_000
"""So many events of a change wait in the inbox at most: what is there can neither be cancelled nor judged again."""
SEND, OUTCOME = "send the events", "see what came of them"
"""The steps of such a change."""
CHECKPOINT: Final = "read to"
"""The note of how far everything was read (``at``) and where the inbox ended then."""
POLL_S: Final = 0.3
TELL_AFTER_S: Final = 5.0
CLOCKS: Final = timedelta(minutes=10)
"""So far the clocks of machines may differ, at most."""


class Feeding:
    """The inbox's side of one change. Its plan has ``rate``, ``wait_s``, ``inbox_partitions`` and ``grown`` among its
    details. Blocks; one thread. ``chunk_size`` events are to be sent at once."""

    def __init__(self, app: App, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._app, self._plan, self._journal, self._name = app, plan, journal, plan.subject
        self.pace, rate = pace, plan.details["rate"]
        self.chunk_size = CHUNK if not rate else max(1, min(CHUNK, int(rate * CHUNK_S)))
        self._told_waiting = False
        self._since: Mapping[str, int] = {}
        self.before: set[Origin] = set()
        """what an earlier, cut try has sent and this one has not come to yet"""

    def begin(self) -> None:
        """Note where the inbox ends; or if an earlier try has done so, find out what it has sent beyond its last
        checkpoint: the inbox itself says it."""
        notes = self._journal.notes
        if BEGAN not in notes:
            self._journal.note(BEGAN, self.ends())
            return
        checkpoint = notes.get(CHECKPOINT, {})
        at = {(topic, partition): offset for topic, partition, offset in checkpoint.get("at", [])}
        self._since = checkpoint.get("inbox", notes[BEGAN])
        sent = {order.origin for order, _ in orders_of(self._app, self._plan, self._since)}
        self.before = {origin for origin in sent if origin.offset >= at.get(origin[:2], 0)}

    def carry_out(self, send_all: Callable[[], None], sent: Callable[[], int]) -> None:
        """The steps of the change: send all, then wait for what comes of it. ``sent``: how many events were, by now.
        Raises PartlyDoneError where something was sent before it was refused, as that stands; Cancelled."""
        try:
            with self._journal.step(SEND) as todo:
                if todo:
                    send_all()
            with self._journal.step(OUTCOME):
                self.wait_for_outcomes(self._journal.notes[CHECKPOINT]["inbox"])
        except RefusedError as error:
            if sent():
                raise PartlyDoneError(str(error)) from error
            raise

    def take_sent(self, origin: Origin) -> bool:
        """Whether an earlier try has sent this event; it has been come to by that."""
        if origin not in self.before:
            return False
        self.before.remove(origin)
        return True

    def ends(self) -> dict[str, int]:
        """Where the inbox ends now."""
        return inbox_ends(self._app, self._plan)

    def checkpoint(self, at: Mapping[Place, int], *, last: bool) -> dict[str, JsonValue]:
        """What to note once everything before ``at`` is done with. Partitions are not read in the same order twice: as
        long as there is something that an earlier try had sent from farther on, the inbox must be asked from where it
        was asked for that."""
        if last or not self.before:
            self._since = self.ends()
        return {"at": [[*place, offset] for place, offset in sorted(at.items())], "inbox": dict(self._since)}

    def send(self, orders: Iterable[tuple[InboxOrder, Record]]) -> tuple[int, bool]:
        """Write orders and wait until all are acknowledged; how many of the first they were, and whether a person
        cancelled after those. Raises RefusedError where none was written, PartlyDoneError where some may stand."""
        sent, cancelled = 0, False

        def paced() -> Iterator[Outgoing]:
            nonlocal sent, cancelled
            for order, record in orders:
                try:
                    self.pace.wait()
                except Cancelled:  # what was sent so far is acknowledged first
                    cancelled = True
                    return
                yield outgoing(self._plan, order, record)
                sent += 1

        try:
            send_acked(self._app, paced())
        except RefusedError as error:
            if sent:
                raise PartlyDoneError(str(error)) from error  # some of it may stand: the inbox says what
            raise
        return sent, cancelled

    def wait_for_room(self) -> None:
        """Until the workers have taken enough of what was sent; that may be long, and a person is told."""
        tell_at = time.monotonic() + TELL_AFTER_S
        while True:
            self.pace.look()
            waiting = self.waiting(self.ends())
            if waiting + self.chunk_size <= INBOX_MAX:
                return
            if not self._told_waiting and time.monotonic() > tell_at:
                self._told_waiting = True
                look = f"backbone status {self._name}" if is_run(self._app, self._name) else "backbone run"
                self._app.screen.say(
                    f"{waiting:,} events wait in {self._name}.inbox; the rest is sent as its workers take them: {look}"
                )
            time.sleep(POLL_S)  # a group tells nobody when it commits

    def waiting(self, ends: Mapping[str, int]) -> int:
        """How many offsets of the inbox its workers have not come to the end of, from where the change began."""
        return waiting_before(self._app, self._name, self._journal.notes[BEGAN], ends)

    def wait_for_outcomes(self, ends: Mapping[str, int]) -> None:
        """Until the workers have come to the end of what was sent, or of nothing for so long as the plan waits; not at
        all where nobody runs the subscription."""
        if not is_run(self._app, self._name):
            return
        wait_s = self._plan.details["wait_s"]
        deadline, last = time.monotonic() + wait_s, -1
        while waiting := self.waiting(ends):
            self.pace.look()
            if waiting != last:
                deadline, last = time.monotonic() + wait_s, waiting
            elif time.monotonic() > deadline:
                return
            time.sleep(POLL_S)  # a group tells nobody when it commits; the deadline bounds it

    def outcomes(self) -> dict[str, int] | None:
        """How the deliveries ended, as the ledger has it; None where there is none, or it does not read on."""
        try:
            ledger = self._app.ledger()
            read_to_end(self._app, wait_s=LEDGER_WAIT_S if is_run(self._app, self._name) else 0.0)
        except BackboneError as error:
            self._app.screen.detail(f"how they ended is not known: {error}")
            return None
        return ledger.outcomes(self._name, self._plan.id, self._plan.created - CLOCKS)

    def report(self, sent: int, ends: Mapping[str, int]) -> tuple[int, dict[str, int] | None]:
        """Say what was sent and what came of it; how much still waits, and the outcomes."""
        say, waiting, outcomes = self._app.screen, self.waiting(ends), self.outcomes()
        if waiting:
            say.warn(
                f"{waiting:,} events wait in {self._name}.inbox; they are delivered by themselves: "
                f"backbone status {self._name}"
            )
        came = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted((outcomes or {}).items()))
        say.say(f"{counted(sent, 'event')} sent again{f': {came}' if came else ''}.")
        if outcomes and set(outcomes) - {"delivered", "skipped"}:
            say.warn(f"Some failed: backbone deadletter list {self._name}")
        return waiting, outcomes
