"""The kind ``redrive``: dead letters are delivered again, to this subscription alone, in the order of their keys.

Each chunk is checked anew (still open, not stale), written to the inbox and acknowledged before the next. What was
written is known from the inbox itself, so a change that was cut sends nothing twice; the letters' idempotency keys
would make even that harmless.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from consumers.inbox import InboxOrder
from ops.changes import letters
from ops.changes.attach_plan import attached_named
from ops.changes.kinds import ChangeKind
from ops.changes.orders import (
    BEGAN,
    check_unchanged,
    erasure_of,
    inbox_ends,
    orders_of,
    origin_of,
    outgoing,
    sent_before,
    waiting_in_inbox,
)
from ops.changes.plan import JsonValue, Plan
from ops.changes.redrive_plan import FOLLOW, OUTCOME, is_run
from ops.changes.staleness import FRESH, Guard, Verdict, attached_subscription
from ops.changes.steering import Cancelled, ChangeCancelledError, Pace, paced
from ops.changes.store import Journal, Store
from ops.dead_topic import DeadTopic, Standing, in_order
from ops.sending import Outgoing, send_acked
from ops.wording import counted
from schemas.errors import NotFoundError, PartlyDoneError, RefusedError
from schemas.event import Origin

if TYPE_CHECKING:
    from consumers.deadletter import DeadLetter
    from ops.app import App
    from ops.progress import Progress

ROUNDS_MAX = 20
"""Rounds of letters that were parked while the change ran; a key that fills faster than it empties is left then."""
POLL_S = 0.3


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached = attached_named(app.control(), plan.subject)
    assert attached.definition is not None
    if BEGAN in Store.of(app).progressed(plan.id).notes:
        return  # it goes on: every letter is looked at again before it is sent
    if attached.definition.version != plan.preconditions["version"]:
        raise RefusedError(
            f"{plan.subject} is another version by now ({attached.definition.version}), which may do something else "
            "with these events. Nothing was changed. Plan it again."
        )
    dead = DeadTopic(app, plan.subject)
    dead.refresh()
    check_unchanged(plan, dead.open)
    if not plan.details["again"]:
        waiting = waiting_in_inbox(app, plan.subject, dead.open)
        sent = [one for one, _, _, _ in plan.details["letters"] if origin_of(one) in waiting]
        if sent:
            raise RefusedError(
                f"{len(sent):,} of {len(plan.details['letters']):,} letters were sent to the inbox since this was "
                f"planned, by {waiting[origin_of(sent[0])]}. Nothing was changed. Plan it again."
            )
    if not plan.details["allow_stale"]:
        Guard(app, attached_subscription(app, attached)).check()


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    with paced(app, plan, journal, rate=plan.details["rate"]) as pace:
        return _Redrive(app, plan, journal, pace).run()


@dataclass(slots=True)
class _Counts:
    closed_before: int = 0
    stale: int = 0
    superseded: int = 0
    gone: int = 0
    followed: int = 0

    def note(self) -> dict[str, JsonValue]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Came:
    """What came of the letters that were sent: closed, failed once more (then another stands in its place), or nothing
    so far. ``open`` has where each stood."""

    open: dict[Origin, tuple[int, int]]
    closed: set[Origin] = field(default_factory=set)
    failed: set[Origin] = field(default_factory=set)

    def look(self, open_letters: Mapping[Origin, Standing]) -> int:
        """Take in what is known now; how many are settled that were not."""
        before = len(self.open)
        for origin, stood in list(self.open.items()):
            standing = open_letters.get(origin)
            if standing is None:
                self.closed.add(origin)
            elif (standing.partition, standing.offset) != stood:
                self.failed.add(origin)
            else:
                continue
            del self.open[origin]
        return before - len(self.open)


class _Redrive:
    def __init__(self, app: App, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._app, self._plan, self._journal = app, plan, journal
        self._name = plan.subject
        self._dead = DeadTopic(app, self._name)
        self._pace = pace
        self._counts = _Counts(**journal.notes.get("counts", {}))
        self._guard = None if plan.details["allow_stale"] else self._open_guard()
        self._sent: set[Origin] = set()
        self._came = _Came({})
        self._watched = False

    def _open_guard(self) -> Guard:
        attached = attached_named(self._app.control(), self._name)
        return Guard(self._app, attached_subscription(self._app, attached))

    def run(self) -> dict[str, JsonValue]:
        plan, journal = self._plan, self._journal
        if BEGAN not in journal.notes:
            journal.note(BEGAN, inbox_ends(self._app, plan))
        else:
            self._sent = set(sent_before(self._app, plan, journal.notes[BEGAN]))
        wanted = {origin_of(one): (partition, offset) for one, partition, offset, _ in plan.details["letters"]}
        order = list(wanted)
        self._dead.refresh()
        now = {origin: (one.partition, one.offset) for origin, one in self._dead.open.items()}
        self._came = _Came({origin: wanted.get(origin) or now.get(origin, (-1, -1)) for origin in self._sent})
        self._watched = is_run(self._app, self._name)
        self._note()
        try:
            with self._app.screen.progress(len(order), "letters") as progress:
                for start, end in plan.details["chunks"]:
                    with journal.step(letters.chunk_name(start, end)) as todo:
                        if todo:
                            self._chunk([(origin, wanted[origin]) for origin in order[start:end]], progress)
                        else:
                            progress.advance(end - start)  # an earlier try has sent them
            if plan.details["parking"]:
                with journal.step(FOLLOW) as todo:
                    if todo:
                        self._follow(set(wanted))
            with journal.step(OUTCOME):
                self._wait_for_outcomes()
        except Cancelled:
            self._dead.refresh()
            self._came.look(self._dead.open)
            left = len(order) - sum(origin in self._sent for origin in order)
            sentence = (
                f"{counted(len(self._sent), 'letter')} were sent again, {left:,} were not and stay open. "
                "What was sent cannot be unsent."
            )
            raise ChangeCancelledError(plan.id, self._result(), sentence) from None
        return self._result()

    # ---- one chunk --------------------------------------------------------------------------------------------------

    def _chunk(self, wanted: Sequence[tuple[Origin, tuple[int, int]]], progress: Progress | None) -> None:
        """Send those letters of a chunk that still stand where they stood, and were not sent by this change before."""
        self._dead.refresh()
        due: list[Standing] = []
        for origin, stood in wanted:
            standing = self._dead.open.get(origin)
            if origin in self._sent:
                continue
            if standing is None or (standing.partition, standing.offset) != stood:
                self._counts.closed_before += 1  # somebody else has dealt with it since
            else:
                due.append(standing)
        full = self._in_full(due)
        verdicts = self._judged(full)
        stood_at = dict(wanted)
        cancelled = False

        def orders() -> Iterator[Outgoing]:
            nonlocal cancelled
            for letter in full:
                try:
                    self._pace.wait()
                except Cancelled:  # what was sent so far is acknowledged first
                    cancelled = True
                    return
                yield self._outgoing(letter, verdicts[letter.origin])
                self._sent.add(letter.origin)
                self._came.open[letter.origin] = stood_at[letter.origin]
                if progress is not None:
                    progress.advance()

        try:
            send_acked(self._app, orders())
        except RefusedError as error:
            if self._sent:
                raise PartlyDoneError(str(error)) from None  # some of it may stand: what was sent is in the inbox
            raise
        self._count_stale(full, verdicts)
        if progress is not None:
            progress.advance(len(wanted) - len(full))
        self._note()
        if cancelled:
            raise Cancelled

    def _in_full(self, standings: Sequence[Standing]) -> list[DeadLetter]:
        """The letters with their bytes, in order; bytes that were too large are read at their origin."""
        from ops.event_log import read_one

        full = self._dead.full(standings)
        found = []
        for standing in standings:
            letter = full.get(standing.letter.origin)
            if letter is None:
                self._counts.closed_before += 1
                continue
            if letter.omitted is not None:
                try:
                    letter = replace(letter, value=read_one(self._app, *letter.origin).value, omitted=None)
                except NotFoundError:
                    self._counts.gone += 1
                    continue
            found.append(letter)
        return found

    def _judged(self, found: Sequence[DeadLetter]) -> Mapping[Origin, Verdict]:
        if self._guard is None:
            return dict.fromkeys((letter.origin for letter in found), FRESH)
        return self._guard.judge(found)

    def _count_stale(self, found: Sequence[DeadLetter], verdicts: Mapping[Origin, Verdict]) -> None:
        kinds = [verdicts[letter.origin].kind for letter in found if letter.origin in self._sent]
        self._counts.stale += kinds.count("stale")
        self._counts.superseded += kinds.count("superseded")

    def _outgoing(self, letter: DeadLetter, verdict: Verdict) -> Outgoing:
        erasure = erasure_of(letter)
        if erasure is not None:
            again = replace(erasure[0], change=self._plan.id, letter=letter.origin, redrives=letter.redrives)
            return outgoing(self._plan, again, erasure[1])
        order = InboxOrder(
            kind="redrive",
            change=self._plan.id,
            origin=letter.origin,
            timestamp=letter.timestamp,
            timestamp_type=letter.timestamp_type,
            omit=verdict.omit,
            redrives=letter.redrives,
            allow_stale=self._plan.details["allow_stale"],
        )
        return outgoing(self._plan, order, letter.record)

    # ---- letters that were parked while it ran ----------------------------------------------------------------------

    def _follow(self, chosen: Collection[Origin]) -> None:
        """Rounds: what was parked behind the chosen letters meanwhile is sent too, until nothing is: so a key goes live
        again. A key whose letter failed once more is left parked."""
        if not self._watched:
            return
        lanes = self._lanes(chosen)
        for _ in range(ROUNDS_MAX):
            self._wait_for_outcomes()
            failed = {s.lane for o in self._came.failed if (s := self._dead.open.get(o)) is not None}
            waiting = {s.lane for o in self._came.open if (s := self._dead.open.get(o)) is not None}
            due = [
                standing
                for standing in in_order(list(self._dead.open.values()))
                if standing.lane in lanes - failed - waiting
                and standing.letter.outcome == "parked"
                and standing.letter.origin not in self._sent
            ]
            if not due:
                return
            before = len(self._sent)
            for start in range(0, len(due), letters.CHUNK):
                part = due[start : start + letters.CHUNK]
                self._chunk([(one.letter.origin, (one.partition, one.offset)) for one in part], None)
            self._counts.followed += len(self._sent) - before
            self._note()

    def _lanes(self, origins: Collection[Origin]) -> set[letters.Lane | None]:
        """The lanes of what was sent. Some of the letters are closed by now, but their keys are in the inbox."""
        return {
            (record.topic, record.partition, record.key)
            for _, record in orders_of(self._app, self._plan, self._journal.notes[BEGAN])
            if record.origin in origins and record.key is not None
        }

    # ---- what came of it --------------------------------------------------------------------------------------------

    def _wait_for_outcomes(self) -> None:
        """Read the dead topic until every letter that was sent is closed or has failed again, or nothing has come of
        any for so long as the plan waits. Not at all where nobody runs the subscription."""
        self._dead.refresh()
        self._came.look(self._dead.open)
        if not self._watched:
            return
        deadline = time.monotonic() + self._plan.details["wait_s"]
        with self._app.screen.progress(len(self._came.open), "outcomes") as progress:
            while self._came.open and time.monotonic() < deadline:
                self._pace.look()
                self._dead.refresh()
                settled = self._came.look(self._dead.open)
                if settled:
                    progress.advance(settled)
                    deadline = time.monotonic() + self._plan.details["wait_s"]
                elif self._came.open:
                    time.sleep(POLL_S)  # nobody says when a letter is closed; the deadline bounds it

    def _result(self) -> dict[str, JsonValue]:
        came, counts, say = self._came, self._counts, self._app.screen
        if came.failed:
            say.warn(f"{counted(len(came.failed), 'letter')} failed again: backbone deadletter list {self._name}")
        if came.open:
            why = (
                "nobody runs it" if not self._watched else f"nothing came of them in {self._plan.details['wait_s']:g} s"
            )
            say.warn(
                f"{counted(len(came.open), 'letter')} are in {self._name}.inbox and still open ({why}); they are "
                f"delivered by themselves: backbone status {self._name}"
            )
        if counts.gone:
            say.warn(
                f"{counted(counts.gone, 'letter')} could not be read at their origin any more and stay open: "
                f"backbone deadletter discard {self._name}"
            )
        say.say(
            f"{counted(len(self._sent), 'letter')} sent again: {len(came.closed):,} delivered or no longer due, "
            f"{len(came.failed):,} failed again, {len(came.open):,} still open."
        )
        return {
            "sent": len(self._sent),
            "closed": len(came.closed),
            "superseded": counts.superseded,
            "sent_in_part": counts.stale,
            "failed_again": len(came.failed),
            "still_open": len(came.open),
            "parked_meanwhile": counts.followed,
            "closed_before": counts.closed_before,
            "gone": counts.gone,
        }

    # ---- what this change has written -------------------------------------------------------------------------------

    def _note(self) -> None:
        self._journal.note("counts", self._counts.note())
        self._journal.note(
            "progress", {"done": len(self._sent), "total": len(self._plan.details["letters"]), "unit": "letters"}
        )


KIND = ChangeKind(
    name="redrive",
    precheck=precheck,
    act=act,
    not_undoable="what was delivered cannot be unsent; what is still to come can be stopped: backbone change cancel",
    long=True,
)
