"""What was sent against what would be sent now: one comparison for ``subscription shadow`` and ``replay --only
changed``, also of what was sent in part or as one with others."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Action, Delivery
from connectors.hubspot.actions import ACTIONS as HUBSPOT
from connectors.sql.actions import ACTIONS as SQL
from consumers.inbox import parse_inbox
from consumers.merging import fields_of, merged, without
from consumers.pipeline import NotOurs, Projection, ToDeliver, delivery_key
from consumers.receipts import ReceiptForm, body_hash
from consumers.routes import Route
from consumers.subscription import Projected
from ops.changes.asked import (
    Actions,
    Likeness,
    Together,
    asked_last,
    compare,
    has_reached,
    is_together,
    is_whole,
    own_key,
)
from ops.changes.past import Judge, Selection, Sieve, changed
from ops.ledger.query import StoredReceipt
from ops.ledger.store import receipt_row
from ops.reading import read_spans
from ops.shadow.comparison import Shadow, Versions, against
from schemas.event import Event, Origin, Record
from tests.conftest import Stack
from tests.consumers.flow_rig import JsonPipeline, Rig, subscription
from tests.ops.rows import TEXT, Rows, new_rows

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
CREATED, PAID = "billing.InvoiceCreated", "billing.InvoicePaid"
FIELDS = ("email", "firstname", "city")
Version = Mapping[int, tuple[str, Mapping[str, Any]]]
"""What a version asks for the event at each offset: entity and fields."""


def origin(offset: int) -> Origin:
    return Origin("t", 0, offset)


def made(action: Action, offset: int, entity: str, fields: Mapping[str, Any], revision: str = "") -> ToDeliver:
    body = dict(fields) if action.fields_in is None else {"table": "people", action.fields_in: dict(fields)}
    delivery = Delivery(
        action=action.name, entity=entity, idempotency_key=delivery_key("s", "T", str(offset), "sub", action.name,
        revision), sequence=origin(offset), body=body,
    )  # fmt: skip
    event = Event(id=str(offset), source="s", type="T", time=NOON, key="k", subject="k", data={})
    route = Route(
        events=("T",), fits=None, project=lambda _: Projected(action=action.name, entity=entity, body=body),
        action=action.name, reads=None, source={}, place="routes[0]", carried={},
    )  # fmt: skip
    return ToDeliver(event, delivery, route)


@dataclass
class Log:
    """Receipts as the runtime writes them, the ledger's questions about them, and the vendor that took it all."""

    action: Action
    receipts: list[StoredReceipt] = field(default_factory=list)
    vendor: dict[tuple[str, str], Any] = field(default_factory=dict)

    def write(self, delivery: Delivery, offset: int, *, sent: bool = True, **more: Any) -> None:
        at = NOON + timedelta(seconds=len(self.receipts))
        self.receipts.append(
            StoredReceipt(
                **{  # type: ignore[arg-type]
                    **dict.fromkeys(StoredReceipt.__slots__),
                    "idempotency_key": delivery.idempotency_key,
                    "event_source": "s",
                    "event_type": "T",
                    "event_id": str(offset),
                    "origin_topic": "t",
                    "origin_partition": 0,
                    "origin_offset": offset,
                    "subscription": "sub",
                    "action": delivery.action,
                    "entity": delivery.entity,
                    "entity_hashed": False,
                    "revision": "",
                    "outcome": "delivered",
                    "last_at": at,
                    "body_fields": sorted(fields_of(delivery, self.action)) if sent else [],
                    "body_sha256": body_hash(delivery.body) if sent else None,
                    "receipt_partition": 0,
                    "receipt_offset": len(self.receipts),
                    "is_earlier": False,
                }
                | more
            )
        )
        if sent and self.receipts[-1].outcome == "delivered":
            inner = delivery.body if self.action.fields_in is None else delivery.body[self.action.fields_in]
            assert isinstance(inner, Mapping)
            self.vendor |= {(delivery.entity, name): value for name, value in inner.items()}

    def send(self, version: Version, group: Sequence[int]) -> None:
        """Live, these events as one."""
        found = [made(self.action, offset, *version[offset]).delivery for offset in group]
        for delivery in found[:-1]:
            self.write(delivery, delivery.sequence.offset, sent=False, outcome="skipped", reason="merged",
                       merged_into=str(group[-1]))  # fmt: skip
        self.write(merged(found, self.action), group[-1])

    def told(self, offset: int) -> list[StoredReceipt]:
        last = {one.revision: one for one in self.receipts if one.origin_offset == offset}
        return sorted(last.values(), key=lambda one: one.last_at)

    def together(self, offset: int, version: Version) -> Together | None:
        for carrier in self.receipts:
            others = [one for one in self.receipts if one.merged_into == carrier.event_id and not carrier.revision]
            offsets = [one.origin_offset for one in (*others, carrier)]
            if offset in offsets and is_whole(carrier, others):
                now = {origin(one): made(self.action, one, *version[one]) for one in offsets}
                return Together(carrier, now)
        return None

    def likeness(self, offset: int, version: Version, actions: Actions) -> tuple[Any, Any]:
        """What the shadow and what the replay says."""
        told, now, together = self.told(offset), made(self.action, offset, *version[offset]), None
        together = self.together(offset, version)
        sent = asked_last(told)
        assert sent is not None
        return against(sent, now, is_of, actions, together), changed(told, now, is_of, actions, together)

    def replay(self, version: Version, change: str, actions: Actions) -> int:
        """``replay --only changed``, all of it, as ``Judge`` has it: how many were sent."""
        orders: list[tuple[int, tuple[str, ...]]] = []
        for offset in sorted(version):
            now, together = made(self.action, offset, *version[offset]), self.together(offset, version)
            if changed(self.told(offset), now, is_of, actions, together) != "due":
                continue
            omit = set() if together is None else {*together.said_anew(origin(offset), actions)}
            stands = offset if together is None else together.receipt.origin_offset
            omit |= {name for one in self.receipts if one.origin_offset > stands and one.entity == now.delivery.entity
                     for name in one.body_fields} & fields_of(now.delivery, self.action)  # fmt: skip
            orders.append((offset, tuple(sorted(omit))))
        count = 0
        for offset, omit in orders:
            whole = made(self.action, offset, *version[offset], change).delivery
            left = without(whole, omit, self.action) if omit else whole
            if left is not None:
                self.write(left, offset, revision=change, change_id=change)
                count += 1
        return count


def is_of(one: StoredReceipt, entity: str) -> bool:
    return one.entity == entity


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[int]], list[Version]]:
    """Events in groups that went as one, and versions of which each says what the one before does, or more."""
    count = draw(st.integers(1, 7))
    entities = draw(st.lists(st.sampled_from("xy"), min_size=count, max_size=count))
    names = [draw(st.sets(st.sampled_from(FIELDS), min_size=1)) for _ in range(count)]
    versions: list[Version] = []
    for _ in range(3):
        names = [one | draw(st.sets(st.sampled_from(FIELDS), max_size=1)) for one in names]
        fields = [{name: draw(st.integers(0, 1)) for name in sorted(one)} for one in names]
        versions.append({offset: (entities[offset], fields[offset]) for offset in range(count)})
    groups: list[list[int]] = []
    for offset in range(count):
        if groups and entities[groups[-1][-1]] == entities[offset] and draw(st.booleans()):
            groups[-1].append(offset)
        else:
            groups.append([offset])
    return groups, versions


@pytest.mark.parametrize(("actions", "name"), [(HUBSPOT, "contact.upsert"), (SQL, "row.upsert")])
@given(histories())
def test_a_replay_of_what_changed_leaves_the_vendor_as_the_new_version_would_have_and_then_nothing_differs(
    actions: Actions, name: str, history: tuple[list[list[int]], list[Version]]
) -> None:
    """Also where events were sent as one, a correction went out before, and newer deliveries have said it since."""
    groups, versions = history
    log = Log(actions[name])
    for group in groups:
        log.send(versions[0], group)
    for offset in versions[0]:
        assert log.likeness(offset, versions[0], actions) == ("same", "same")
    for change, version in enumerate(versions[1:]):
        for offset in version:
            shown, due = log.likeness(offset, version, actions)
            assert due == ("due" if shown == "different" else shown)
        log.replay(version, f"ch-{change}", actions)
        wanted: dict[tuple[str, str], Any] = {}
        for entity, fields in version.values():
            wanted |= {(entity, one): value for one, value in fields.items()}
        assert log.vendor == wanted
        assert log.replay(version, f"again-{change}", actions) == 0


likenesses = st.sampled_from(["whole", "part", "together", "lost"])


@given(
    st.lists(
        st.tuples(likenesses, st.sampled_from(["delivered", "unknown", "rejected", "exhausted"]), st.booleans()),
        max_size=4,
    ),
    st.sampled_from(["x", "y"]), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_shadow_and_a_replay_judge_any_history_alike(
    sendings: list[tuple[str, str, bool]], entity: str, is_as_sent: bool, is_knit: bool, is_taken: bool
) -> None:
    log, action = Log(HUBSPOT["contact.upsert"]), HUBSPOT["contact.upsert"]
    for number, (how, outcome, is_other) in enumerate(sendings):
        revision = f"ch-{number}" if how in ("whole", "part") and number else ""
        whole = made(action, 1, "x", {"email": int(is_other), "city": 1}, revision).delivery
        part = without(whole, ["city"], action)
        assert part is not None
        more = {"revision": revision, "change_id": revision or None, "outcome": outcome}
        match how:
            case "whole":
                log.write(whole, 1, **more)
            case "part":
                log.write(part, 1, **more)
            case "together":
                log.write(whole, 1, sent=False, outcome="skipped", merged_into="9")
            case _:
                log.write(replace(whole, idempotency_key="0" * 64), 1, **more)
    told, sent = log.told(1), asked_last(log.told(1))
    now = made(action, 1, entity, {"email": 0, "city": int(is_as_sent)})
    together = Together(log.receipts[0], {origin(1): now}) if is_knit and log.receipts else None
    due = changed(told, now if is_taken else None, is_of, HUBSPOT, together)
    if sent is None or not has_reached(sent):
        assert due == "not_asked_for"
        return
    shown = against(sent, now if is_taken else NotOurs(), is_of, HUBSPOT, together)
    expected: dict[str, Any] = {"different": "due", "would_not_send": "refused"}
    assert due == expected.get(shown, shown)
    assert (shown == "would_not_send") == (not is_taken)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, "same"),
        ({"entity": "y"}, "different"),
        ({"action": "contact.erase"}, "different"),
        ({"body_sha256": "0" * 64}, "different"),
        ({"idempotency_key": "0" * 64}, "merged"),
        ({"idempotency_key": "0" * 64, "change_id": "ch-1"}, "omitted"),
    ],
)
def test_another_action_entity_or_body_is_another_delivery(sent: dict[str, Any], expected: Likeness) -> None:
    action = HUBSPOT["contact.upsert"]
    log, now = Log(action), made(action, 1, "x", {"email": 1, "city": 2})
    log.write(now.delivery, 1)
    receipt = replace(log.receipts[0], **sent)
    if "action" in sent:  # the receipt of another action has the key of that one
        receipt = replace(receipt, idempotency_key=delivery_key("s", "T", "1", "sub", sent["action"], ""))
    assert compare(receipt, now, is_of, HUBSPOT) == expected


class Keyed(JsonPipeline):
    """With the keys of the real one."""

    def project(self, record: Record, revision: str = "") -> Projection:
        made = super().project(record, revision)
        assert isinstance(made, ToDeliver)
        event, action = made.event, made.delivery.action
        key = delivery_key(event.source, event.type, event.id, "orders", action, revision)
        return replace(made, delivery=replace(made.delivery, idempotency_key=key))


def test_the_receipts_of_the_runtime_prove_which_events_went_as_one() -> None:
    rig = Rig(sub=subscription(send="latest"))
    rig.flow._pipeline = Keyed()
    rig.assign(("t", 0))
    rig.give({"entity": "a", "x": 1}, {"entity": "a", "y": 2}, {"entity": "a", "x": 3}, {"entity": "b", "x": 1})
    rig.deliver()
    rig.deliver()
    form = ReceiptForm(rig.sub, b"k" * 32)
    written = [receipt_row(form.settled(one), origin(number)) for number, one in enumerate(rig.receipts)]
    *older, carrier, alone = (StoredReceipt(**row) for row in written)
    assert [is_together(one) for one in (*older, carrier, alone)] == [True, True, True, False]
    assert is_whole(carrier, older)
    assert not is_whole(carrier, older[1:])
    assert not is_whole(carrier, older[::-1])
    assert own_key(alone) == alone.idempotency_key


# ---- at a real broker, with a real ledger ---------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    with new_rows(tmp_path, stack, prefix) as made_rows:
        yield made_rows


def attach(rows: Rows, *replaced: tuple[str, str]) -> None:
    """Another version runs from here on."""
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    name = rows.subscription.name
    (rows.project.folder / "consumers" / "subscriptions" / f"{name}.yaml").write_text(text)
    assert rows.project.run("subscription", "attach", name, "--apply", "--yes").exit_code == 0


@pytest.mark.integration
def test_what_went_as_one_is_sent_again_field_by_field_by_the_events_that_say_it_last(rows: Rows) -> None:
    """Also where the first of them stands before what is looked at; of what the ledger does not know in full, it is
    told how many there are."""
    name = rows.subscription.name
    sets = [
        [rows.publish(CREATED, key="INV-1", total_minor=100), rows.publish(PAID, key="INV-1")],
        [rows.publish(CREATED, key="INV-2", total_minor=total) for total in (1, 2, 3)],
        [rows.publish(PAID, key="INV-3"), rows.publish(PAID, key="INV-3")],  # which no version says otherwise
        [rows.publish(CREATED, key="INV-4", total_minor=total) for total in (1, 2)],
    ]
    rows.broker.commit(name, rows.project.invoices, {1: 9})
    rows.known_from(0)
    for events in sets:
        rows.delivered_as_one(events, known=events is not sets[3])
    attach(rows, ('"{{ data.total_minor }}"', '"{{ data.total_minor * 2 }}"'))

    shown = rows.project.document("subscription", "shadow", name, "--from", "earliest")["data"]
    by_event = {one["event"]: one for one in shown["by_event"]}
    assert [by_event[CREATED][one] for one in ("same", "different", "not_compared")] == [0, 2, 4]
    assert [by_event[PAID][one] for one in ("same", "different", "not_compared")] == [2, 1, 0]
    assert shown["not_compared"] == {"carried": 2, "merged": 1, "no_receipt": 1}
    assert {(one["place"], one["cause"]) for one in shown["differences"]} == {("body", "values")}
    plan = rows.project.document("replay", name, "--from", "1", "--only", "changed")["data"]
    said = " | ".join(plan["summary"])
    assert "2 events delivered again" in said  # the very first stands before
    assert "2 events left out: sent merged into newer ones, which say all of it anew" in said
    assert "1 event left out: sent merged with others that are not all known any more" in said
    assert "2 events left out: the vendor would be asked what it was asked before" in said
    again = rows.project.document("replay", name, "--from", "earliest", "--only", "changed", "--apply", "--yes")["data"]
    assert again["after"]["left_out"] == {"same": 2, "carried": 2, "merged": 1}
    orders = [order for record in rows.inbox() if (order := parse_inbox(record)) is not None]
    assert [(order[0].origin, order[0].omit, order[0].revision) for order in orders] == [
        (sets[0][0].origin, ("state",), again["id"]),
        (sets[0][1].origin, (), again["id"]),
        (sets[1][2].origin, (), again["id"]),
    ]


@pytest.mark.integration
def test_a_shadow_and_a_replay_judge_a_random_history_alike_event_by_event(rows: Rows) -> None:
    """With what only a real ledger and a real topic can get wrong: places, sets, hashes, the order of receipts."""
    seed = random.randrange(1 << 32)
    chance, name = random.Random(seed), rows.subscription.name
    records: list[Record] = []
    while len(records) < 40:
        key, group = f"INV-{chance.randrange(4)}", []
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            is_paid = chance.random() < 0.5
            more = {} if is_paid else {"total_minor": chance.choice([1, 2])}
            group.append(rows.publish(PAID if is_paid else CREATED, key=key, **more))
        records += group
        rows.delivered_as_one(group, known=chance.random() > 0.2)
        for record in group:
            for number in range(chance.choice([0, 0, 1, 2])):
                ended = chance.choice(["delivered", "delivered", "rejected", "unknown"])
                otherwise: list[dict[str, Any]] = [
                    {}, {"entity": "INV-9"}, {"body_sha256": "0" * 64}, {"body_sha256": None},
                ]  # fmt: skip
                by = {"revision": f"ch-{number}", "change_id": f"ch-{number}"}
                rows.delivered(record, outcome=ended, **by, **chance.choice(otherwise))
    rows.broker.commit(name, rows.project.invoices, {1: len(records)})
    rows.known_from(0)
    attach(rows, ("data.total_minor != 13", "data.total_minor != 1"), ("state: paid", "state: settled"))
    app = rows.app
    attached = app.control().subscriptions[name]
    now = rows.compiled()
    sieve = Sieve(app, now, Selection(types=tuple(sorted(now.routes))))
    judge = Judge(app, attached, now, Selection(types=tuple(sorted(now.routes)), only="changed"), allow_stale=True)
    judge.check()
    standing = [one for found in read_spans(app, {(rows.project.invoices, 1): [(0, len(records))]}) for one in found]
    assert [one.origin for one in standing] == [one.origin for one in records]
    shadow = Shadow(app, Versions(attached, now, now), app.ledger())
    shown = {one.origin: one.why or one.result for one in shadow.compare(standing)}
    meant = [past for record in standing if (past := sieve.look(record)) is not None]
    due = {one.past.record.origin: one.due for one in judge.judge(meant)}
    told = {record.origin: app.ledger().of_origin(record.origin) for record in standing}
    seen: set[str] = set()
    for record in standing:
        what = shown.get(record.origin, "not_ours")
        seen.add(what)
        if record.origin not in due:
            assert what in ("would_not_send", "not_sent", "not_ours"), f"{record.origin}, seed {seed}"
        elif due[record.origin] == "not_asked_for":
            assert not any(has_reached(one) for one in told[record.origin]), f"{record.origin}, seed {seed}"
        else:
            expected = {"different": "due"}.get(what, what)
            assert due[record.origin] == expected, f"{record.origin}, seed {seed}"
    assert len(seen) >= 4, f"{seen}, seed {seed}"
