"""The flow and erased people: what is held back, and how a vendor is asked to erase."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from connectors.connector import Action, Delivered, Rejected, RetryLater, Unknown
from consumers.erased import Erased, ErasedPerson, key_id, mark_of
from consumers.erasure import Erasure, sealed, unsealed
from consumers.inbox import InboxOrder, parse_inbox
from consumers.receipts import ReceiptForm
from consumers.subscription import Subscription
from schemas.event import Origin, Record
from tests.consumers.flow_rig import NOW, Rig, redrive, subscription

KEY = b"an installation key"
MARK = mark_of("who", "u1", KEY)
INBOX = ("orders.inbox", 0)


class NoteErase(BaseModel):
    """Erases a note."""

    model_config = ConfigDict(extra="forbid")
    book: str


ACTIONS = {
    "note.put": Action(name="note.put", body=NoteErase, upsert=True, about=("book",), erased_by="note.erase"),
    "note.erase": Action(name="note.erase", body=NoteErase, upsert=False, about=("book",)),
}


def person(at: float = NOW) -> ErasedPerson:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return ErasedPerson(field="who", events=("shop.Ordered",), at=moment, change="ch-9", key_id=key_id(KEY))


def notes(**policies: Any) -> Subscription:
    made = subscription(**policies)
    connector = replace(made.connector, actions=ACTIONS)
    return replace(made, connector=connector, routes={"shop.Ordered": ()})


def rig(key: bytes | None = KEY, **policies: Any) -> Rig:
    made = Rig(
        sub=notes(**policies), erased=Erased(key), unseal=lambda text: None if key is None else unsealed(text, key)
    )
    made.assign(("t", 0), INBOX)
    return made


def erasure(**changed: Any) -> Erasure:
    base = Erasure(
        action="note.erase", entity="e-secret", personal=True, about="b1", reference=None, key="k", mark=MARK,
        person=person(),
    )  # fmt: skip
    return replace(base, **changed)


def order(offset: int = 0, number: int = 1, what: Erasure | None = None, **more: Any) -> InboxOrder:
    return InboxOrder(
        kind="erase", change="ch-9", origin=Origin("t", 0, offset), timestamp=int(NOW * 1000), timestamp_type="create",
        revision="ch-9", number=number, sealed=sealed(what or erasure(), KEY), **more,
    )  # fmt: skip


def give_erasure(made: Rig, one: InboxOrder) -> None:
    """As the change writes it: no key, no bytes, the event's envelope."""
    from consumers.inbox import inbox_record

    envelope = (("ce_id", b"ev-1"), ("ce_type", b"shop.Ordered"), ("ce_source", b"shop"))
    written = inbox_record(one, Record(*one.origin, None, None, envelope, one.timestamp), partitions=1)
    at = made.ends[INBOX]
    made.ends[INBOX] += 1
    made.hand_over([Record(*INBOX, at, None, None, tuple(written.headers), int(NOW * 1000))])


def test_events_of_an_erased_person_are_settled_as_erased_with_a_receipt_and_later_ones_are_sent() -> None:
    made = rig()
    made.erased.put(MARK, person())
    made.give({"entity": "e1", "who": "u1"}, age_s=10)
    made.give({"entity": "e2", "who": "u2"}, age_s=10)
    made.give({"entity": "e3", "who": "u1"}, age_s=-10)
    assert [one["entity"] for one in made.deliver()] == ["e2", "e3"]
    assert (made.receipts[0].outcome, made.receipts[0].reason, made.receipts[0].sent) == ("skipped", "erased", False)
    assert made.committed() == 3
    assert sum(one.counts.get("erased", 0) for one in made.ranges) == 1


def test_what_waits_for_a_retry_is_not_sent_once_its_person_is_erased() -> None:
    made = rig()
    made.give({"entity": "e1", "who": "u1"}, age_s=10)
    made.answer(made.batch(), RetryLater("busy"))
    made.erased.put(MARK, person())
    made.now += 1000
    assert made.deliver() == []
    assert made.receipts[-1].reason == "erased"


def test_what_was_merged_goes_apart_when_one_of_it_is_of_an_erased_person() -> None:
    made = rig(send="latest")
    made.give({"entity": "e1", "who": "u1", "a": 1}, age_s=10)
    made.give({"entity": "e1", "who": "u1", "b": 2}, age_s=-10)
    made.answer(made.batch(), RetryLater("busy"))
    made.erased.put(MARK, person())
    made.now += 1000
    assert made.deliver() == [{"entity": "e1", "who": "u1", "b": 2}]


def test_a_redriven_event_of_an_erased_person_closes_its_letter_and_is_not_sent() -> None:
    made = rig()
    made.erased.put(MARK, person(NOW + 1))
    made.give_again(redrive(5), {"entity": "e1", "who": "u1"})
    assert made.deliver(background=True) == []
    assert made.closed == [Origin("t", 0, 5)]
    assert made.receipts[-1].reason == "erased"


def test_an_erasure_waits_behind_what_is_on_its_way_and_holds_back_what_was_not_yet_read() -> None:
    """The mark comes along with the order: ``backbone.control`` may be read later."""
    made = rig()
    made.give({"entity": "e1", "who": "u1"}, age_s=10)
    first = made.batch()
    give_erasure(made, order())
    assert made.batch(background=True) is None  # the lane is busy
    made.give({"entity": "e1", "who": "u1", "late": 1}, age_s=5)
    made.answer(first, Delivered("1"))
    sent = made.deliver() + made.deliver(background=True) + made.deliver()
    assert [{name: one[name] for name in one if name != "who"} for one in sent] == [
        {"entity": "e-secret", "book": "b1"}
    ]
    assert [one.reason for one in made.receipts] == [None, None, "erased"]


def test_the_receipt_of_an_erasure_names_its_change_and_holds_no_plain_value() -> None:
    made = rig()
    give_erasure(made, order(offset=7))
    made.deliver(background=True)
    (receipt,) = made.receipts
    form = ReceiptForm(made.sub, KEY).settled(receipt)
    assert (form["action"], form["outcome"], form["change_kind"], form["change_id"], form["revision"]) == (
        "note.erase", "delivered", "erase", "ch-9", "ch-9",
    )  # fmt: skip
    assert (form["event_id"], form["event_type"], form["origin_offset"]) == ("ev-1", "shop.Ordered", 7)
    assert form["entity_hashed"]
    assert "e-secret" not in str(form)
    assert form["fields_sent"] == form["personal_data_sent"] == []


def test_two_erasures_of_one_change_have_keys_of_their_own_and_the_same_one_keeps_its() -> None:
    keys = []
    for number in (1, 2, 1):
        made = rig()
        give_erasure(made, order(number=number))
        batch = made.batch(background=True)
        assert batch is not None
        keys.append(batch.deliveries[0].idempotency_key)
    assert keys[0] == keys[2] != keys[1]


def test_a_lost_answer_of_an_erasure_is_asked_again_whatever_the_policy() -> None:
    made = rig(on_unknown="hold")
    give_erasure(made, order())
    made.answer(made.batch(background=True), Unknown("timeout"))
    made.now += 1000
    assert len(made.deliver(background=True)) == 1
    assert made.letters == []


def test_a_refused_erasure_is_a_dead_letter_of_its_own_that_parks_nothing_and_can_be_redriven() -> None:
    made = rig(on_dead_letter="park_key")
    give_erasure(made, order(offset=7))
    made.deliver(background=True, outcome=lambda _: Rejected("refused"))
    (letter,) = made.letters
    assert letter.origin == Origin(*INBOX, 0)  # not the event's: that may have a letter itself
    assert letter.key is None
    assert "e-secret" not in str(letter)
    made.give({"entity": "e2", "who": "u2"})
    assert len(made.deliver()) == 1  # its key goes on

    parsed = parse_inbox(letter.record)
    assert parsed is not None
    give_erasure(made, replace(parsed[0], change="ch-10", letter=letter.origin))
    assert [one["entity"] for one in made.deliver(background=True)] == ["e-secret"]
    assert made.closed == [letter.origin]
    give_erasure(made, replace(parsed[0], change="ch-11", letter=letter.origin, redrives=1))
    made.deliver(background=True, outcome=lambda _: Rejected("refused"))
    assert (made.letters[-1].origin, made.letters[-1].redrives) == (letter.origin, 2)


def test_an_erasure_that_the_vendor_cannot_be_asked_is_a_dead_letter() -> None:
    made = rig()
    give_erasure(made, order(what=erasure(action="note.burn")))
    assert made.deliver(background=True) == []
    assert [(one.reason, one.detail) for one in made.letters] == [("erasure", "action: unknown")]


def test_an_erasure_sealed_with_another_key_stops_the_subscription_and_is_not_passed_over() -> None:
    made = rig(key=b"another installation")
    give_erasure(made, order())
    assert made.batch(background=True) is None
    assert "sealed with an installation key that this process does not have" in made.stops[0]
    assert made.committed(INBOX) is None


def test_a_process_that_cannot_recognise_erased_people_sends_nothing_more() -> None:
    made = rig(key=None)
    made.give({"entity": "e1"})
    assert len(made.deliver()) == 1
    made.erased.put(MARK, person())
    made.give({"entity": "e2"})
    assert made.batch() is None
    assert "somebody was erased" in made.stops[0]


def test_a_letter_closed_because_its_person_was_erased_leaves_a_receipt_that_says_so() -> None:
    made = rig(on_dead_letter="park_key")
    made.give_again(redrive(3, kind="erased"), b"")
    made.deliver(background=True)
    assert [(one.outcome, one.reason) for one in made.receipts] == [("skipped", "erased")]
    assert made.closed == [Origin("t", 0, 3)]
