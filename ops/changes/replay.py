"""The kind ``replay``: past events are delivered again, to one subscription alone, through its inbox.

Its topics are read once more without a group, so the live positions never move. Chunk by chunk what is due is judged
anew, written to the inbox and acknowledged; then it is noted how far the topics were read. Of a chunk that was cut, the
inbox itself says what stands there, so nothing is sent twice or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from consumers.inbox import InboxOrder
from ops.changes.attach_plan import attached_named
from ops.changes.feeding import CHECKPOINT, Feeding
from ops.changes.kinds import ChangeKind
from ops.changes.orders import BEGAN
from ops.changes.past import Judge, Judged, Past, Selection, Sieve, selection_of
from ops.changes.plan import JsonValue, Plan
from ops.changes.replay_plan import NOT_SENT, behind_of, cut
from ops.changes.staleness import attached_subscription
from ops.changes.steering import Cancelled, ChangeCancelledError, paced
from ops.changes.store import Journal, Store
from ops.lag.cluster import Cluster, Place
from ops.reading import Spans, read_spans
from ops.wording import counted
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from ops.app import App
    from ops.progress import Progress

READ_MAX: Final = 20_000
"""Records read until it is noted how far, also where nothing of them is due."""
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
        return _Replay(app, plan, journal, Feeding(app, plan, journal, pace)).run()


class _Replay:
    def __init__(self, app: App, plan: Plan, journal: Journal, feed: Feeding) -> None:
        self._app, self._plan, self._journal, self._name = app, plan, journal, plan.subject
        self._feed, self._pace = feed, feed.pace
        attached = attached_named(app.control(), self._name)
        subscription = attached_subscription(app, attached)
        selection = _selection(plan)
        self._revision = plan.id if selection.only == "changed" else ""
        self._sieve = Sieve(app, subscription, selection)
        self._judge = Judge(
            app, attached, subscription, selection, allow_stale=plan.details["allow_stale"], change=plan.id
        )
        self._counts: Counter[str] = Counter(journal.notes.get("counts", {}))
        self._chunk_size = self._feed.chunk_size
        assert attached.definition is not None
        if attached.definition.version != plan.preconditions["version"]:
            app.screen.warn(
                f"{self._name} is another version by now ({attached.definition.version}): what is left is sent as "
                "that one makes it."
            )

    def run(self) -> dict[str, JsonValue]:
        self._feed.begin()
        self._journal.note("progress", self._progress())
        try:
            self._feed.carry_out(self._send_all, lambda: self._sent)
        except Cancelled:
            left = self._plan.details["offsets"] - self._read()
            sentence = (
                f"{counted(self._sent, 'event')} were sent, {left:,} offsets were not read. What was sent "
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
                    if past is not None and self._feed.take_sent(record.origin):
                        self._counts[SENT] += 1
                    elif past is not None:
                        meant.append(past)
                    if len(meant) >= self._chunk_size:
                        self._chunk(meant, at, progress)
                        meant, read = [], 0
                if read >= READ_MAX:
                    self._chunk(meant, at, progress)
                    meant, read = [], 0
                self._pace.look()
            ends = {place: found[-1][1] for place, found in spans.items()}
            self._chunk(meant, ends, progress, last=True)

    def _pass_deleted(self, at: dict[Place, int]) -> None:
        """Go on where the logs begin now; what retention has taken since the change began is said."""
        for place, start in Cluster(self._app.admin(), self._app.consumer).starts(at).items():
            if start > at[place]:
                gone = start - at[place]
                self._app.screen.warn(f"{gone:,} offsets of {_name(place)} were deleted before they were read.")
                self._counts["deleted"] += gone
                at[place] = start

    def _chunk(self, meant: Sequence[Past], at: Mapping[Place, int], progress: Progress, *, last: bool = False) -> None:
        """Judge and send what was read, and note that everything before ``at`` is done with."""
        judged: list[Judged] = []
        if meant:
            self._feed.wait_for_room()
            self._judge.check()
            judged = self._judge.judge(meant)
        due = [one for one in judged if one.send]
        count, cancelled = self._feed.send((self._order(one), one.past.record) for one in due)
        sent = due[:count]
        self._counts[SENT] += len(sent)
        self._counts[STALE] += sum(one.due == "due" and bool(one.omit) for one in sent)
        self._counts[LETTERS] += sum(one.letter is not None for one in sent)
        if cancelled:
            self._journal.note("counts", dict(self._counts))
            raise Cancelled
        self._counts.update(one.due for one in judged if one.due in NOT_SENT)
        self._note(at, last=last)
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

    def _note(self, at: Mapping[Place, int], *, last: bool) -> None:
        """In one write, so that a kill leaves the state before the chunk or after it."""
        self._counts["read"] = sum(
            to - begin for place, found in _spans(self._plan).items() for begin, to in cut(found, 0, at[place])
        )
        self._journal.note_all(
            {
                CHECKPOINT: self._feed.checkpoint(at, last=last),
                "counts": dict(self._counts),
                "progress": self._progress(),
            }
        )

    @property
    def _sent(self) -> int:
        """How many events were sent, an earlier try's with them."""
        return self._counts[SENT] + len(self._feed.before)

    def _progress(self) -> JsonValue:
        return {"done": self._read(), "total": self._plan.details["offsets"], "unit": "offsets"}

    def _read(self) -> int:
        return self._counts["read"]

    # ---- what came of it --------------------------------------------------------------------------------------------

    def _result(self) -> dict[str, JsonValue]:
        say, notes = self._app.screen, self._journal.notes
        ends = notes.get(CHECKPOINT, {}).get("inbox", notes[BEGAN])
        for due, words in NOT_SENT.items():
            if self._counts[due]:
                say.say(f"{counted(self._counts[due], 'event')} {words}.")
        waiting, outcomes = self._feed.report(self._sent, ends)
        return {
            "sent": self._sent,
            "sent_in_part": self._counts[STALE],
            "redriven": self._counts[LETTERS],
            "waiting": waiting,
            "deleted": self._counts["deleted"],
            "left_out": {due: self._counts[due] for due in NOT_SENT if self._counts[due]},
            "outcomes": outcomes,
        }


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
