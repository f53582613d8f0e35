"""The kind ``discard``: dead letters are closed without being delivered. It cannot be taken back.

The tombstone is acknowledged first, then the subscription is told by an order in its inbox: it leaves the receipt, and
lets a key go on that was parked behind the letter. What the inbox holds of this change is what was told, so a change
that was cut tells the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from consumers.inbox import InboxOrder
from ops.changes import letters
from ops.changes.attach_plan import attached_named
from ops.changes.kinds import ChangeKind
from ops.changes.letters import Choice, chunk_name, chunks
from ops.changes.orders import (
    BEGAN,
    check_unchanged,
    grown_topics,
    inbox_ends,
    inbox_partitions,
    origin_of,
    outgoing,
    sent_before,
    standing_json,
    waiting_in_inbox,
)  # fmt: skip
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.steering import Cancelled, ChangeCancelledError, Pace, paced
from ops.changes.store import Journal, Store
from ops.dead_topic import DeadTopic, Standing
from ops.sending import Outgoing, send_acked
from ops.wording import are, counted
from schemas.event import Origin

if TYPE_CHECKING:
    from ops.app import App
    from ops.progress import Progress

OPEN = "open before the chunk"


def discard_plan(app: App, name: str, choice: Choice, *, rate: float = 0.0) -> Plan:
    """Resolve what was named to letters by their origins. Blocks; changes nothing. Raises NotFoundError for what is
    not there."""
    attached = attached_named(app.control(), name)
    dead = DeadTopic(app, name)
    dead.refresh()
    chosen = letters.choose(dead.open, choice, name)[: letters.LETTERS_MAX]
    ranges = chunks(len(chosen), rate)
    summary = [f"{are(len(chosen), 'event')} never delivered to {name}; this cannot be taken back"]
    behind = len(letters.with_parked(chosen, dead.open)) - len(chosen)
    if behind:
        summary.append(
            f"{are(behind, 'letter')} parked behind them and stay{'s' if behind == 1 else ''} so: "
            f"backbone deadletter redrive {name}"
        )
    waiting = waiting_in_inbox(app, name, dead.open)
    on_their_way = sum(one.letter.origin in waiting for one in chosen)
    if on_their_way:
        summary.append(f"{are(on_their_way, 'letter')} in the inbox by a redrive and may be delivered all the same")
    return new_plan(
        app,
        kind="discard",
        subject=name,
        title=f"discard {counted(len(chosen), 'dead letter')} of {name}",
        rows=letters.causes(chosen),
        summary=summary,
        steps=[chunk_name(*one) for one in ranges],
        before={"open": len(dead.open)},
        after={"open": len(dead.open) - len(chosen)},
        details={
            "letters": [standing_json(one) for one in chosen],
            "chunks": [list(one) for one in ranges],
            "rate": rate,
            "inbox_partitions": inbox_partitions(app, name),
            "grown": grown_topics(app, attached),
        },
        severe="events are never delivered",
    )


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached_named(app.control(), plan.subject)
    if BEGAN in Store.of(app).progressed(plan.id).notes:
        return
    dead = DeadTopic(app, plan.subject)
    dead.refresh()
    check_unchanged(plan, dead.open)


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    with paced(app, plan, journal, rate=plan.details["rate"]) as pace:
        return _Discard(app, plan, journal, pace).run()


class _Discard:
    def __init__(self, app: App, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._app, self._plan, self._journal = app, plan, journal
        ids = [origin_of(one) for one, _, _, _ in plan.details["letters"]]
        self._dead = DeadTopic(app, plan.subject, remember=ids)
        self._pace = pace
        self._told: dict[Origin, int] = {}

    def run(self) -> dict[str, JsonValue]:
        plan, journal = self._plan, self._journal
        if BEGAN not in journal.notes:
            journal.note(BEGAN, inbox_ends(self._app, plan))
        else:
            self._told = sent_before(self._app, plan, journal.notes[BEGAN])
        ids = [origin_of(one) for one, _, _, _ in plan.details["letters"]]
        self._note()
        try:
            with self._app.screen.progress(len(ids), "letters") as progress:
                for start, end in plan.details["chunks"]:
                    with journal.step(chunk_name(start, end)) as todo:
                        if todo:
                            self._chunk(ids[start:end], progress)
        except Cancelled:
            left = len(ids) - len(self._told)
            sentence = f"{counted(len(self._told), 'letter')} were discarded, {left:,} were not and stay open."
            raise ChangeCancelledError(plan.id, self._result(), sentence) from None
        self._dead.refresh()
        return self._result()

    def _chunk(self, ids: Sequence[Origin], progress: Progress) -> None:
        self._dead.refresh()
        due = self._due(ids)
        cancelled = False
        closed: list[Standing] = []

        def tombstones() -> Iterator[Outgoing]:
            nonlocal cancelled
            for standing in due:
                try:
                    self._pace.wait()
                except Cancelled:  # what is closed by now is told to the subscription first
                    cancelled = True
                    return
                closed.append(standing)
                key = str(standing.letter.origin).encode()
                yield Outgoing(self._dead.topic, standing.partition, key, None, [])

        send_acked(self._app, tombstones())
        send_acked(self._app, (self._order(standing) for standing in closed))
        self._told |= {standing.letter.origin: standing.letter.redrives for standing in closed}
        progress.advance(len(ids))
        self._note()
        if cancelled:
            raise Cancelled

    def _note(self) -> None:
        total = len(self._plan.details["letters"])
        self._journal.note("progress", {"done": len(self._told), "total": total, "unit": "letters"})

    def _due(self, ids: Sequence[Origin]) -> list[Standing]:
        """The letters of the chunk that are to be closed and told. They are noted before the first is: after a cut in
        the middle a closed one cannot be told any more from one that somebody else has closed before."""
        noted = self._journal.notes.get(OPEN)
        if noted is not None and noted[:1] == [str(ids[0])]:
            again = [origin for one in noted[1:] if (origin := origin_of(one)) not in self._told]
            found = [self._dead.open.get(origin) or self._dead.closed.get(origin) for origin in again]
            return [standing for standing in found if standing is not None]
        due = [standing for one in ids if (standing := self._dead.open.get(one)) is not None]
        self._journal.note(OPEN, [str(ids[0]), *(str(one.letter.origin) for one in due)])
        return due

    def _order(self, standing: Standing) -> Outgoing:
        letter = standing.letter
        order = InboxOrder(
            kind="discarded",
            change=self._plan.id,
            origin=letter.origin,
            timestamp=letter.timestamp,
            timestamp_type=letter.timestamp_type,
            redrives=letter.redrives,
        )
        # without its bytes: nothing is to be delivered, and discarding may be how personal data are got rid of
        return outgoing(self._plan, order, letter.record)

    def _result(self) -> dict[str, JsonValue]:
        return {"discarded": len(self._told), "open": len(self._dead.open)}


KIND = ChangeKind(
    name="discard",
    precheck=precheck,
    act=act,
    not_undoable="the letters are gone; their events can be read again where they were published",
    long=True,
)
