"""The kind ``erase``: a person is marked as erased, their dead letters are closed, and vendors are asked to erase.

The order is the guarantee. First the mark in ``backbone.control``: from then on nothing of the person that has arrived
is sent. Then the dead letters. Then the erasures, through the subscriptions' inboxes, so that each stands in the lane
of the newest event behind what is on its way. What was written is known from the inbox, so a change that was cut asks
nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumers.control import erased_record
from consumers.erased import ErasedPerson
from consumers.erasure import Erasure, sealed
from consumers.inbox import InboxOrder, inbox_record
from consumers.sealing import unseal
from ops.changes.erase_plan import MARK, OUTCOME, Person, asking_step, letters_step, what_was_given
from ops.changes.kinds import ChangeKind
from ops.changes.orders import BEGAN, inbox_ends, orders_of, origin_of
from ops.changes.plan import JsonValue, Plan
from ops.changes.redrive_plan import is_run
from ops.changes.staleness import LEDGER_WAIT_S
from ops.changes.steering import Cancelled, ChangeCancelledError, Pace, paced
from ops.changes.store import Journal, Store
from ops.control import write_control
from ops.dead_topic import DeadTopic
from ops.ledger.query import StoredReceipt, Wanted, read_to_end
from ops.sending import Outgoing, send_acked
from ops.wording import are, counted
from schemas.errors import InputError, RefusedError
from schemas.event import Record

if TYPE_CHECKING:
    from ops.app import App

AT = "erased at"
POLL_S = 0.3


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    person = _person(app, plan)
    if AT in Store.of(app).progressed(plan.id).notes:
        return  # it goes on
    read_to_end(app, wait_s=LEDGER_WAIT_S)
    new = {one.key for one in what_was_given(app, app.ledger(), person)} - set(plan.preconditions["given"])
    if new:
        raise RefusedError(
            f"Vendors got {counted(len(new), 'more thing')} about {plan.subject} since this was planned. Nothing was "
            "changed. Plan it again."
        )


def _person(app: App, plan: Plan) -> Person:
    """Who is erased; the plan holds the value sealed."""
    value = unseal(plan.details["value"], app.installation_key)
    if value is None:
        raise InputError(
            "This change was planned with another installation key, so who it is about is not known here. "
            "Plan it again."
        )
    field = plan.details["field"]
    types = frozenset(name for name, contract in app.contracts.items() if field in contract.fields)
    return Person(field, value, types, plan.details["mark"])


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    with paced(app, plan, journal, rate=0.0) as pace:
        return _Erase(app, plan, journal, pace).run()


class _Erase:
    def __init__(self, app: App, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._app, self._plan, self._journal = app, plan, journal
        self._parts: Mapping[str, JsonValue] = plan.details["subscriptions"]
        self._pace = pace
        self._total = sum(len(part["erasures"]) for part in self._parts.values())
        self._asked = self._closed = 0

    def run(self) -> dict[str, JsonValue]:
        plan, journal, app = self._plan, self._journal, self._app
        if AT not in journal.notes:
            journal.note(AT, datetime.now(UTC).isoformat(timespec="milliseconds"))
        self._someone = ErasedPerson(
            field=plan.details["field"], events=tuple(plan.details["events"]), at=journal.notes[AT], change=plan.id,
            key_id=plan.details["key_id"],
        )  # fmt: skip
        with journal.step(MARK) as todo:
            if todo:
                write_control(app, [erased_record(plan.details["mark"], self._someone)])
        try:
            for name, part in self._parts.items():
                if part["letters"]:
                    with journal.step(letters_step(name)) as todo:
                        if todo:
                            self._close_letters(name)
                    self._closed += len(part["letters"])
            for name, part in self._parts.items():
                if part["erasures"]:
                    with journal.step(asking_step(name)) as todo:
                        if todo:
                            self._ask(name)
                    self._asked += len(part["erasures"])
            with journal.step(OUTCOME):
                found = self._outcomes()
        except Cancelled:
            left = self._total - self._asked
            sentence = f"{counted(self._asked, 'erasure')} were asked for, {left:,} were not. The person stays marked."
            raise ChangeCancelledError(plan.id, self._result({}), sentence) from None
        result = self._result(found)
        app.screen.say(
            f"{counted(result['erased'], 'erasure')} confirmed by vendors, {result['failed']:,} failed, "
            f"{result['waiting']:,} still to come; {counted(result['letters_closed'], 'dead letter')} closed."
        )
        return result

    # ---- dead letters -----------------------------------------------------------------------------------------------

    def _close_letters(self, name: str) -> None:
        """Tombstones first, then the subscription is told: it leaves the receipts, and keys go on that were parked."""
        ids = [origin_of(one) for one, _, _, _ in self._parts[name]["letters"]]
        dead = DeadTopic(self._app, name, remember=ids)
        dead.refresh()
        standings = [one for id_ in ids if (one := dead.open.get(id_) or dead.closed.get(id_)) is not None]
        told = {order.origin for order in self._orders(name, "erased")}

        def tombstones() -> Iterator[Outgoing]:
            for standing in standings:
                if standing.letter.origin in dead.open:
                    self._pace.wait()
                    yield Outgoing(dead.topic, standing.partition, str(standing.letter.origin).encode(), None, [])

        send_acked(self._app, tombstones())
        if not self._parts[name]["inbox_partitions"]:
            return  # nobody reads it
        orders = (
            self._outgoing(
                name,
                InboxOrder(
                    kind="erased",
                    change=self._plan.id,
                    origin=standing.letter.origin,
                    timestamp=standing.letter.timestamp,
                    timestamp_type=standing.letter.timestamp_type,
                    redrives=standing.letter.redrives,
                ),
                standing.letter.record,
            )
            for standing in standings
            if standing.letter.origin not in told
        )
        send_acked(self._app, orders)

    # ---- erasures ---------------------------------------------------------------------------------------------------

    def _ask(self, name: str) -> None:
        sent = {order.number for order in self._orders(name, "erase")}
        due = [one for one in self._parts[name]["erasures"] if one["number"] not in sent]

        def orders() -> Iterator[Outgoing]:
            for one in due:
                self._pace.wait()
                yield self._erasure(name, one)

        send_acked(self._app, orders())

    def _erasure(self, name: str, one: JsonValue) -> Outgoing:
        key, origin = self._app.installation_key, origin_of(one["origin"])
        record_key = None if one["key"] is None else self._open(one["key"])
        erasure = Erasure(
            action=one["action"],
            entity=self._open(one["entity"]),
            personal=one["personal"],
            about=self._open(one["about"]),
            reference=one["reference"],
            key=record_key,
            mark=self._plan.details["mark"],
            person=self._someone,
        )
        id_, type_, source, at = one["event"]
        order = InboxOrder(
            kind="erase",
            change=self._plan.id,
            origin=origin,
            timestamp=int(datetime.fromisoformat(self._someone.at).timestamp() * 1000),
            timestamp_type="create",
            revision=self._plan.id,
            number=one["number"],
            sealed=sealed(erasure, key),
        )
        headers = tuple(
            (f"ce_{field}", text.encode())
            for field, text in (("id", id_), ("type", type_), ("source", source), ("time", at))
        )
        encoded = None if record_key is None else record_key.encode("utf-8", "surrogateescape")
        record = Record(*origin, encoded, None, headers, order.timestamp, order.timestamp_type)
        return replace(self._outgoing(name, order, record), key=None)

    def _open(self, text: str) -> str:
        found = unseal(text, self._app.installation_key)
        assert found is not None  # precheck opened the value with the same key
        return found

    # ---- the inbox --------------------------------------------------------------------------------------------------

    def _outgoing(self, name: str, order: InboxOrder, record: Record) -> Outgoing:
        part = self._parts[name]
        partitions = part["inbox_partitions"]
        made = inbox_record(order, record, partitions=partitions, grown=record.topic in part["grown"])
        return Outgoing(f"{name}.inbox", made.partition % partitions, made.key, made.value, made.headers)

    def _orders(self, name: str, kind: str) -> list[InboxOrder]:
        """What this change has written to an inbox, also in an earlier try."""
        part = self._parts[name]
        if not part["inbox_partitions"]:
            return []
        here = replace(self._plan, subject=name, details=dict(part))
        note = f"{BEGAN}: {name}"
        if note not in self._journal.notes:
            self._journal.note(note, inbox_ends(self._app, here))
            return []
        return [order for order, _ in orders_of(self._app, here, self._journal.notes[note]) if order.kind == kind]

    # ---- what came of it --------------------------------------------------------------------------------------------

    def _outcomes(self) -> dict[str, list[StoredReceipt]]:
        """The receipts of the erasures, by subscription; waits until all are there, or nothing has come for so long as
        the plan waits. Not for a subscription that nobody runs."""
        wanted = {name: len(part["erasures"]) for name, part in self._parts.items() if part["erasures"]}
        awaited = {name for name in wanted if is_run(self._app, name)}
        deadline = time.monotonic() + self._plan.details["wait_s"]
        with self._app.screen.progress(self._total, "outcomes") as progress:
            while True:
                found = self._receipts()
                came = sum(map(len, found.values()))
                if came > progress.done:
                    progress.advance(came - progress.done)
                    deadline = time.monotonic() + self._plan.details["wait_s"]
                self._journal.note("progress", {"done": came, "total": self._total, "unit": "erasures"})
                if all(len(found.get(name, ())) >= wanted[name] for name in awaited) or time.monotonic() > deadline:
                    return found
                self._pace.look()
                time.sleep(POLL_S)  # nobody says when the ledger has a receipt; the deadline bounds it

    def _receipts(self) -> dict[str, list[StoredReceipt]]:
        found: dict[str, list[StoredReceipt]] = {}
        for one in self._app.ledger().find(Wanted(change=self._plan.id), limit=100_000):
            if one.change_kind == "erase":
                found.setdefault(one.subscription, []).append(one)
        return found

    def _result(self, found: Mapping[str, list[StoredReceipt]]) -> dict[str, JsonValue]:
        receipts = [one for of in found.values() for one in of]
        erased = sum(one.outcome == "delivered" for one in receipts)
        failed = [one for one in receipts if one.outcome != "delivered"]
        return {
            "erased": erased,
            "failed": len(failed),
            "failed_of": sorted({one.subscription for one in failed}),
            "waiting": max(0, self._asked - len(receipts)),
            "waiting_of": sorted(
                name for name, part in self._parts.items() if len(part["erasures"]) > len(found.get(name, ()))
            ),
            "letters_closed": self._closed,
            "by_hand": list(self._plan.details["by_hand"]),
        }


def left_over(after: Mapping[str, JsonValue]) -> str:
    """What a person has to do besides; empty where everything is erased."""
    said = []
    if after["by_hand"]:
        places = ", ".join(sorted({f"{one['connection']} ({one['action']})" for one in after["by_hand"]}))
        said.append(f"{counted(len(after['by_hand']), 'thing')} must be erased by hand: {places}.")
    if after["failed"]:
        what = "is a dead letter" if after["failed"] == 1 else "are dead letters"
        said.append(
            f"{counted(after['failed'], 'erasure')} failed and {what} of {', '.join(after['failed_of'])}: "
            f"backbone deadletter show {after['failed_of'][0]}."
        )
    if after["waiting"]:
        said.append(
            f"{are(after['waiting'], 'erasure')} still waiting in the inbox of {', '.join(after['waiting_of'])}, to be "
            f"done when it runs: backbone status {after['waiting_of'][0]}."
        )
    return " ".join(said)


KIND = ChangeKind(
    name="erase",
    precheck=precheck,
    act=act,
    not_undoable="what a vendor has deleted for good it cannot bring back, and the mark is what keeps it deleted",
    long=True,
    left_over=left_over,
)
