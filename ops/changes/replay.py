"""The kind ``replay``: past events are delivered again, to one subscription alone, through its inbox.

Its topics are read once more without a group, so the live positions never move. Chunk by chunk what is due is judged
anew, written to the inbox and acknowledged; then it is noted how far the topics were read. Of a chunk that was cut, the
inbox itself says what stands there, so nothing is sent twice or left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from consumers.inbox import InboxOrder
from ops.changes.attach_plan import attached_named
from ops.changes.kinds import ChangeKind
from ops.changes.letters import CHUNK, CHUNK_S
from ops.changes.orders import BEGAN, inbox_ends, orders_of, outgoing, waiting_before
from ops.changes.past import Judge, Judged, Past, Selection, Sieve, selection_of
from ops.changes.plan import JsonValue, Plan
from ops.changes.redrive_plan import is_run
from ops.changes.replay_plan import NOT_SENT, OUTCOME, SEND, behind_of, cut
from ops.changes.staleness import LEDGER_WAIT_S, attached_subscription
from ops.changes.steering import Cancelled, ChangeCancelledError, Pace, paced
from ops.changes.store import Journal, Store
from ops.lag.cluster import Cluster, Place
from ops.ledger.query import read_to_end
from ops.reading import Spans, read_spans
from ops.sending import Outgoing, send_acked
from ops.wording import counted
from schemas.errors import BackboneError, PartlyDoneError, RefusedError
from schemas.event import Origin

if TYPE_CHECKING:
    from ops.app import App
    from ops.progress import Progress

INBOX_MAX: Final = 1_000
"""So many events of a replay wait in the inbox at most: what is there can neither be cancelled nor judged again."""
READ_MAX: Final = 20_000
"""Records read until it is noted how far, also where nothing of them is due."""
POLL_S: Final = 0.3
TELL_AFTER_S: Final = 5.0
CLOCKS: Final = timedelta(minutes=10)
"""So far the clocks of machines may differ, at most."""
CHECKPOINT: Final = "read to"
SENT, STALE, LETTERS = "sent", "without newer fields", "redriven"


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    attached = attached_named(app.control(), plan.subject)
    assert attached.definition is not None
    if BEGAN in Store.of(app).progressed(plan.id).notes:
        return  # it goes on: every event is judged again before it is sent
    if attached.definition.version != plan.preconditions["version"]:
        raise RefusedError(
            f"{plan.subject} is another version by now ({attached.definition.version}), which may do something else "
            "with these events. Nothing was changed. Plan it again."
        )
    spans = _spans(plan)
    starts = Cluster(app.admin(), app.consumer).starts(spans)
    behind = behind_of(app, attached, list(spans))
    for place, found in spans.items():
        if place not in starts:
            raise RefusedError(f"{_name(place)} does not exist any more. Nothing was changed. Plan it again.")
        if found[0][0] < starts[place]:
            raise RefusedError(
                f"The records of {_name(place)} from {found[0][0]:,} to {starts[place]:,} are deleted by now. "
                "Nothing was changed. Plan it again."
            )
        if sum(to - at for one in found for at, to in cut(behind[place], *one)) < sum(to - at for at, to in found):
            raise RefusedError(
                f"{plan.subject} was rewound in {_name(place)} since, and reads some of these events again by itself. "
                "Nothing was changed. Plan it again."
            )
    Judge(
        app, attached, attached_subscription(app, attached), _selection(plan), allow_stale=plan.details["allow_stale"]
    ).check()


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    with paced(app, plan, journal, rate=plan.details["rate"]) as pace:
        return _Replay(app, plan, journal, pace).run()


class _Replay:
    def __init__(self, app: App, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._app, self._plan, self._journal, self._name = app, plan, journal, plan.subject
        self._pace = pace
        attached = attached_named(app.control(), self._name)
        subscription = attached_subscription(app, attached)
        selection = _selection(plan)
        self._revision = plan.id if selection.only == "changed" else ""
        self._sieve = Sieve(app, subscription, selection)
        self._judge = Judge(
            app, attached, subscription, selection, allow_stale=plan.details["allow_stale"], change=plan.id
        )
        self._counts: Counter[str] = Counter(journal.notes.get("counts", {}))
        self._before: set[Origin] = set()
        self._told_waiting = False
        rate = plan.details["rate"]
        self._chunk_size = CHUNK if not rate else max(1, min(CHUNK, int(rate * CHUNK_S)))
        assert attached.definition is not None
        if attached.definition.version != plan.preconditions["version"]:
            app.screen.warn(
                f"{self._name} is another version by now ({attached.definition.version}): what is left is sent as "
                "that one makes it."
            )

    def run(self) -> dict[str, JsonValue]:
        journal = self._journal
        if BEGAN not in journal.notes:
            journal.note(BEGAN, inbox_ends(self._app, self._plan))
        elif SEND not in journal.done:
            since = journal.notes.get(CHECKPOINT, {}).get("inbox", journal.notes[BEGAN])
            self._before = {order.origin for order, _ in orders_of(self._app, self._plan, since)}
            self._counts[SENT] += len(self._before)
        journal.note("progress", self._progress())
        try:
            with journal.step(SEND) as todo:
                if todo:
                    self._send_all()
            with journal.step(OUTCOME):
                self._wait_for_outcomes()
        except RefusedError as error:
            if self._counts[SENT]:
                raise PartlyDoneError(str(error)) from error  # what was sent stands
            raise
        except Cancelled:
            left = self._plan.details["offsets"] - self._read()
            sentence = (
                f"{counted(self._counts[SENT], 'event')} were sent, {left:,} offsets were not read. What was sent "
                "cannot be unsent."
            )
            raise ChangeCancelledError(self._plan.id, self._result(), sentence) from None
        return self._result()

    # ---- reading and sending ----------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        spans = _spans(self._plan)
        at = {place: found[0][0] for place, found in spans.items()}
        for topic, partition, offset in self._journal.notes.get(CHECKPOINT, {}).get("at", []):
            at[topic, partition] = offset
        self._pass_deleted(at)
        left = {place: cut(found, at[place], found[-1][1]) for place, found in spans.items()}
        meant: list[Past] = []
        read = 0
        with self._app.screen.progress(self._plan.details["offsets"], "offsets") as progress:
            progress.advance(self._read())
            for records in read_spans(self._app, left):
                for record in records:
                    read += 1
                    at[record.topic, record.partition] = record.offset + 1
                    past = self._sieve.look(record)
                    if past is not None and record.origin not in self._before:
                        meant.append(past)
                    if len(meant) >= self._chunk_size:
                        self._chunk(meant, at, progress)
                        meant, read = [], 0
                if read >= READ_MAX:
                    self._chunk(meant, at, progress)
                    meant, read = [], 0
                self._pace.look()
            self._chunk(meant, {place: found[-1][1] for place, found in spans.items()}, progress)

    def _pass_deleted(self, at: dict[Place, int]) -> None:
        """Go on where the logs begin now; what retention has taken since the change began is said."""
        for place, start in Cluster(self._app.admin(), self._app.consumer).starts(at).items():
            if start > at[place]:
                gone = start - at[place]
                self._app.screen.warn(f"{gone:,} offsets of {_name(place)} were deleted before they were read.")
                self._counts["deleted"] += gone
                at[place] = start

    def _chunk(self, meant: Sequence[Past], at: Mapping[Place, int], progress: Progress) -> None:
        """Judge and send what was read, and note that everything before ``at`` is done with."""
        judged: list[Judged] = []
        if meant:
            self._wait_for_room()
            self._judge.check()
            judged = self._judge.judge(meant)
        cancelled = False
        sent: list[Judged] = []

        def orders() -> Iterator[Outgoing]:
            nonlocal cancelled
            for one in judged:
                if not one.send:
                    continue
                try:
                    self._pace.wait()
                except Cancelled:  # what was sent so far is acknowledged first
                    cancelled = True
                    return
                yield outgoing(self._plan, self._order(one), one.past.record)
                sent.append(one)

        try:
            send_acked(self._app, orders())
        except RefusedError as error:
            if sent:
                raise PartlyDoneError(str(error)) from error  # some of it may stand: the inbox says what
            raise
        self._counts[SENT] += len(sent)
        self._counts[STALE] += sum(one.due == "due" and bool(one.omit) for one in sent)
        self._counts[LETTERS] += sum(one.letter is not None for one in sent)
        if cancelled:
            self._journal.note("counts", dict(self._counts))
            raise Cancelled
        self._counts.update(one.due for one in judged if one.due in NOT_SENT)
        self._note(at)
        progress.advance(self._read() - progress.done)

    def _order(self, one: Judged) -> InboxOrder:
        record, letter = one.past.record, one.letter
        return InboxOrder(
            kind="replay" if letter is None else "redrive",
            change=self._plan.id,
            origin=record.origin,
            timestamp=record.timestamp,
            timestamp_type=record.timestamp_type,
            revision=self._revision,
            omit=one.omit,
            redrives=0 if letter is None else letter.letter.redrives,
            allow_stale=self._plan.details["allow_stale"],
        )

    def _wait_for_room(self) -> None:
        """Until the workers have taken enough of what was sent; that may be long, and a person is told."""
        notes = self._journal.notes
        tell_at = time.monotonic() + TELL_AFTER_S
        while True:
            self._pace.look()
            ends = inbox_ends(self._app, self._plan)
            waiting = waiting_before(self._app, self._name, notes[BEGAN], ends)
            if waiting + self._chunk_size <= INBOX_MAX:
                return
            if not self._told_waiting and time.monotonic() > tell_at:
                self._told_waiting = True
                look = f"backbone status {self._name}" if is_run(self._app, self._name) else "backbone run"
                self._app.screen.say(
                    f"{waiting:,} events wait in {self._name}.inbox; the rest is sent as its workers take them: {look}"
                )
            time.sleep(POLL_S)  # a group tells nobody when it commits

    def _note(self, at: Mapping[Place, int]) -> None:
        """In one write, so that a kill leaves the state before the chunk or after it."""
        self._counts["read"] = sum(
            to - begin for place, found in _spans(self._plan).items() for begin, to in cut(found, 0, at[place])
        )
        checkpoint = {
            "at": [[*place, offset] for place, offset in sorted(at.items())],
            "inbox": inbox_ends(self._app, self._plan),
        }
        self._before = set()
        self._journal.note_all(
            {
                CHECKPOINT: checkpoint,
                "counts": dict(self._counts),
                "progress": self._progress(),
            }
        )

    def _progress(self) -> JsonValue:
        return {"done": self._read(), "total": self._plan.details["offsets"], "unit": "offsets"}

    def _read(self) -> int:
        return self._counts["read"]

    # ---- what came of it --------------------------------------------------------------------------------------------

    def _wait_for_outcomes(self) -> None:
        """Until the workers have come to the end of what was sent, or of nothing for so long as the plan waits; not at
        all where nobody runs the subscription."""
        if not is_run(self._app, self._name):
            return
        began, ends = self._journal.notes[BEGAN], self._journal.notes[CHECKPOINT]["inbox"]
        wait_s = self._plan.details["wait_s"]
        deadline, last = time.monotonic() + wait_s, -1
        while waiting := waiting_before(self._app, self._name, began, ends):
            self._pace.look()
            if waiting != last:
                deadline, last = time.monotonic() + wait_s, waiting
            elif time.monotonic() > deadline:
                return
            time.sleep(POLL_S)  # a group tells nobody when it commits; the deadline bounds it

    def _result(self) -> dict[str, JsonValue]:
        say, notes = self._app.screen, self._journal.notes
        ends = notes.get(CHECKPOINT, {}).get("inbox", notes[BEGAN])
        waiting = waiting_before(self._app, self._name, notes[BEGAN], ends)
        outcomes = self._outcomes()
        for due, words in NOT_SENT.items():
            if self._counts[due]:
                say.say(f"{counted(self._counts[due], 'event')} {words}.")
        if waiting:
            say.warn(
                f"{waiting:,} events wait in {self._name}.inbox; they are delivered by themselves: "
                f"backbone status {self._name}"
            )
        came = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted((outcomes or {}).items()))
        say.say(f"{counted(self._counts[SENT], 'event')} sent again{f': {came}' if came else ''}.")
        if outcomes and set(outcomes) - {"delivered", "skipped"}:
            say.warn(f"Some failed: backbone deadletter list {self._name}")
        return {
            "sent": self._counts[SENT],
            "sent_in_part": self._counts[STALE],
            "redriven": self._counts[LETTERS],
            "waiting": waiting,
            "deleted": self._counts["deleted"],
            "left_out": {due: self._counts[due] for due in NOT_SENT if self._counts[due]},
            "outcomes": outcomes,
        }

    def _outcomes(self) -> dict[str, int] | None:
        """How the deliveries ended, as the ledger has it; None where there is none, or it does not read on."""
        try:
            ledger = self._app.ledger()
            read_to_end(self._app, wait_s=LEDGER_WAIT_S if is_run(self._app, self._name) else 0.0)
        except BackboneError as error:
            self._app.screen.detail(f"how they ended is not known: {error}")
            return None
        return ledger.outcomes(self._name, self._plan.id, self._plan.created - CLOCKS)


def _spans(plan: Plan) -> Spans:
    return {
        (topic, partition): [(at, to) for at, to in found] for topic, partition, found in plan.details["spans"]
    }  # fmt: skip


def _selection(plan: Plan) -> Selection:
    return selection_of(plan.details["selection"])


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


KIND = ChangeKind(
    name="replay",
    precheck=precheck,
    act=act,
    not_undoable="what was delivered cannot be unsent; what is still to come can be stopped: backbone change cancel",
    long=True,
)
