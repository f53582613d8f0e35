"""The kind ``repair``: events whose values a vendor has lost are delivered again, to one subscription alone, through
its inbox, with the change's id as their revision.

Before each chunk the topics are read on: what newer events are about is left out, for the vendor's state is theirs.
What is delivered between that look and the sending is the limit of it; a database's guard stands beyond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from consumers.inbox import InboxOrder
from consumers.pipeline import OfErased, ToDeliver
from consumers.receipts import about_text
from ops.changes.attach_plan import attached_named
from ops.changes.feeding import CHECKPOINT, Feeding
from ops.changes.kinds import ChangeKind
from ops.changes.orders import BEGAN, on_their_way
from ops.changes.past import Selection, Sieve
from ops.changes.plan import JsonValue, Plan
from ops.changes.repair_plan import Mend, mends_of, repairable
from ops.changes.staleness import attached_subscription
from ops.changes.steering import Cancelled, ChangeCancelledError, paced
from ops.changes.store import Journal, Store
from ops.dead_topic import DeadTopic
from ops.lag.cluster import Cluster, Place
from ops.reading import Spans, read_spans
from ops.reconcile.expected import fields_of
from ops.reconcile.reading import subject_of
from ops.reconcile.result import ResultStore
from ops.wording import counted
from schemas.errors import RefusedError
from schemas.event import Record

if TYPE_CHECKING:
    from ops.app import App
    from ops.progress import Progress

SENT: Final = "sent"
LEFT_OUT: Final[Mapping[str, str]] = {
    "newer": "left out: newer events are about the same by now (reconcile again)",
    "on_its_way": "left out: in the inbox already, by another change",
    "dead": "left out: a dead letter by now (redrive it)",
    "refused": "left out: the version attached now makes something else of it",
    "erased": "left out: about a person who was erased",
    "deleted": "left out: deleted by retention",
}
"""What is said of events that are not sent after all."""


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached = attached_named(app.control(), plan.subject)
    assert attached.definition is not None
    result = ResultStore.of(app).load(plan.details["result"])
    again = f"Nothing was changed. Look again: backbone reconcile run {plan.subject}"
    if result.rows_sha256 != plan.details["rows_sha256"]:
        raise RefusedError(f"{result.id} is not what this was planned by. {again}")
    if BEGAN not in Store.of(app).progressed(plan.id).notes and (
        attached.definition.version != plan.preconditions["version"]
    ):
        raise RefusedError(f"{plan.subject} is another version by now ({attached.definition.version}). {again}")


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    with paced(app, plan, journal, rate=plan.details["rate"]) as pace:
        return _Repair(app, plan, journal, Feeding(app, plan, journal, pace)).run()


class _Repair:
    def __init__(self, app: App, plan: Plan, journal: Journal, feed: Feeding) -> None:
        self._app, self._plan, self._journal, self._name = app, plan, journal, plan.subject
        self._feed = feed
        self._subscription = attached_subscription(app, attached_named(app.control(), self._name))
        self._actions = self._subscription.connector.actions
        self._sieve = Sieve(app, self._subscription, Selection(types=tuple(sorted(self._subscription.routes))))
        self._cluster = Cluster(app.admin(), app.consumer)
        self._dead = DeadTopic(app, self._name)
        self._result = ResultStore.of(app).load(plan.details["result"])
        self._read_to: dict[Place, int] = {(topic, part): to for topic, part, to in self._result.read_to}
        self._newer: set[str] = set()
        self._counts: Counter[str] = Counter(journal.notes.get("counts", {}))

    def run(self) -> dict[str, JsonValue]:
        self._feed.begin()
        self._journal.note("progress", self._progress())
        try:
            self._feed.carry_out(self._send_all, lambda: self._sent)
        except Cancelled:
            sentence = (
                f"{self._sent:,} of {counted(self._plan.details['events'], 'event')} were sent. What was sent "
                "cannot be unsent."
            )
            raise ChangeCancelledError(self._plan.id, self._report(), sentence) from None
        return self._report()

    # ---- reading and sending ----------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        mends: dict[Place, dict[int, Mend]] = {}
        for row in repairable(ResultStore.of(self._app), self._result):
            for mend in mends_of(row):
                mends.setdefault(mend.origin[:2], {})[mend.origin.offset] = mend
        at = dict.fromkeys(mends, 0)
        at |= {(topic, part): to for topic, part, to in self._journal.notes.get(CHECKPOINT, {}).get("at", [])}
        for place, start in self._cluster.starts(mends).items():
            self._counts["deleted"] += sum(at[place] <= offset < start for offset in mends[place])
            at[place] = max(at[place], start)
        spans: Spans = {
            place: _spans(sorted(offset for offset in found if offset >= at[place])) for place, found in mends.items()
        }
        found: list[tuple[Record, Mend]] = []
        with self._app.screen.progress(self._plan.details["events"], "events") as progress:
            progress.advance(self._done())
            for records in read_spans(self._app, spans):
                for record in records:
                    at[record.topic, record.partition] = record.offset + 1
                    if self._feed.take_sent(record.origin):
                        self._counts[SENT] += 1
                        continue
                    found.append((record, mends[record.topic, record.partition][record.offset]))
                    if len(found) >= self._feed.chunk_size:
                        self._chunk(found, at, progress)
                        found = []
                self._feed.pace.look()
            self._chunk(found, at, progress, last=True)

    def _chunk(
        self, found: Sequence[tuple[Record, Mend]], at: Mapping[Place, int], progress: Progress, *, last: bool = False
    ) -> None:
        """Send what still holds, and note that everything before ``at`` is done with."""
        due: list[tuple[InboxOrder, Record]] = []
        cancelled = False
        if found:
            self._feed.wait_for_room()
            self._look()
            due = list(self._due(found))
            count, cancelled = self._feed.send(due)
            self._counts[SENT] += count
        if cancelled:
            self._journal.note("counts", dict(self._counts))
            raise Cancelled
        self._journal.note_all(
            {
                CHECKPOINT: self._feed.checkpoint(at, last=last),
                "counts": dict(self._counts),
                "progress": self._progress(),
            }
        )
        progress.advance(self._done() - progress.done)

    def _look(self) -> None:
        """What has happened since the result: newer events, dead letters, other changes."""
        self._dead.refresh()
        self._moving = on_their_way(self._app, self._name, self._plan.id)
        ends = self._cluster.ends(list(self._read_to), "committed")
        spans: Spans = {place: [(at, ends[place])] for place, at in self._read_to.items() if at < ends.get(place, 0)}
        for records in read_spans(self._app, spans):
            for record in records:
                made = self._sieve.made(record)
                if isinstance(made, ToDeliver):
                    self._newer.add(self._subject(made))
        self._read_to |= ends

    def _due(self, found: Sequence[tuple[Record, Mend]]) -> Iterator[tuple[InboxOrder, Record]]:
        for record, mend in found:
            made = self._sieve.made(record)
            why = ""
            if isinstance(made, OfErased):
                why = "erased"
            elif not isinstance(made, ToDeliver) or self._subject(made) != mend.subject:
                why = "refused"
            elif mend.subject in self._newer:
                why = "newer"
            elif record.origin in self._moving:
                why = "on_its_way"
            elif record.origin in self._dead.open:
                why = "dead"
            else:
                fields = fields_of(made.delivery, self._actions[made.delivery.action])
                yield self._order(record, mend, tuple(sorted(set(fields) - mend.names))), record
            if why:
                self._counts[why] += 1

    def _subject(self, made: ToDeliver) -> str:
        """As results name it: of a deletion by what it deletes."""
        delivery = made.delivery
        action = self._actions[delivery.action]
        written = next((one for one in self._actions.values() if one.erased_by == action.name and one.upsert), action)
        return subject_of((written.name, about_text(delivery, action), delivery.entity), self._result.salt)

    def _order(self, record: Record, mend: Mend, omit: tuple[str, ...]) -> InboxOrder:
        return InboxOrder(
            kind="repair",
            change=self._plan.id,
            origin=record.origin,
            timestamp=record.timestamp,
            timestamp_type=record.timestamp_type,
            revision=self._plan.id,
            omit=omit,
            allow_stale=True,  # however old the event is, its values are the newest
            as_of=mend.as_of,
        )

    @property
    def _sent(self) -> int:
        """How many events were sent, an earlier try's with them."""
        return self._counts[SENT] + len(self._feed.before)

    def _progress(self) -> JsonValue:
        return {"done": self._done(), "total": self._plan.details["events"], "unit": "events"}

    def _done(self) -> int:
        return self._counts[SENT] + sum(self._counts[why] for why in LEFT_OUT)

    def _report(self) -> dict[str, JsonValue]:
        ends = self._journal.notes.get(CHECKPOINT, {}).get("inbox", self._journal.notes[BEGAN])
        for why, words in LEFT_OUT.items():
            if self._counts[why]:
                self._app.screen.say(f"{counted(self._counts[why], 'event')} {words}.")
        waiting, outcomes = self._feed.report(self._sent, ends)
        self._app.screen.say(f"See whether the vendor has it: backbone reconcile run {self._name}")
        return {
            "sent": self._sent,
            "waiting": waiting,
            "left_out": {why: self._counts[why] for why in LEFT_OUT if self._counts[why]},
            "outcomes": outcomes,
        }


def _spans(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Offsets in their order as ranges ``[from, to)``. Pure."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


KIND = ChangeKind(
    name="repair",
    precheck=precheck,
    act=act,
    not_undoable="what was delivered cannot be unsent; what is still to come can be stopped: backbone change cancel",
    long=True,
)
