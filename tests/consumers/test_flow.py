"""The flow of one subscription: what is sent when, what is recorded, and how far may be committed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from connectors.connector import Delivered, Rejected, RetryLater, Unavailable, Unknown
from consumers import facts
from consumers.offsets import decode_runs
from consumers.receipts import ReceiptForm
from consumers.settlement import PauseConnection
from consumers.work import Limits
from schemas.event import Origin
from tests.consumers.flow_rig import NOW, ROUTE, Rig, redrive, subscription

T, INBOX = ("t", 0), ("orders.inbox", 0)


def rig(**policies: object) -> Rig:
    made = Rig(sub=subscription(**policies))
    made.assign(T, INBOX)
    return made


# ---- commits come last


def test_an_offset_is_committed_only_when_receipt_and_range_are_acked() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "a"})
    flow.answer(flow.batch(), Delivered("7"))
    flow.flow.commit_due()
    assert (flow.commits, flow.ranges) == ([], [])
    flow.ack("receipt")
    flow.flow.commit_due()
    assert [(one.start, one.end, one.counts) for one in flow.ranges] == [(0, 1, {"delivered": 1})]
    assert flow.commits == []
    flow.ack("range")
    assert [one.offset for one in flow.commits] == [1]
    assert flow.receipts[0].reference == "7"


def test_a_lane_goes_on_without_waiting_for_its_receipt() -> None:
    flow = rig()
    flow.give({"entity": "a", "n": 1}, {"entity": "a", "n": 2})
    flow.answer(flow.batch(), Delivered())
    batch = flow.batch()
    assert batch is not None
    assert batch.deliveries[0].body == {"n": 2}


def test_receipts_that_are_acked_out_of_order_finish_their_offsets_in_the_order_of_the_lane() -> None:
    """The second used to be finished at once: a process that died then left a commit whose metadata said so, the next
    one sent the first again and not the second, and the vendor ended with the older state (simulation, seed 457)."""
    flow = rig()
    flow.give({"entity": "a", "n": 1}, {"entity": "a", "n": 2})
    flow.give({"entity": "b"}, key=b"other")
    for _ in range(3):
        flow.answer(flow.batch(), Delivered())
    first, second, third = flow.unacked
    flow.unacked.clear()
    second[1](None)
    third[1](None)
    assert flow.committed() == 0
    assert [decode_runs(one.offset, one.metadata) for one in flow.commits] == [[(2, 3)]]
    first[1](None)
    assert flow.committed() == 3


def test_what_is_behind_a_receipt_that_failed_is_not_finished_either_and_leaving_does_not_wait_for_it() -> None:
    flow = rig()
    flow.give({"entity": "a", "n": 1}, {"entity": "a", "n": 2}, {"entity": "a", "n": 3})
    for _ in range(3):
        flow.answer(flow.batch(), Delivered())
    first, second, third = flow.unacked
    flow.unacked.clear()
    second[1](None)
    first[1]("TOPIC_AUTHORIZATION_FAILED")
    third[1](None)
    answers: list[object] = []
    flow.flow.revoke([T], answers.append)
    assert [[(one.offset, one.metadata) for one in answer] for answer in answers] == [[(0, "")]]  # type: ignore[attr-defined]


def test_a_partition_that_comes_back_does_not_wait_for_what_its_earlier_assignment_left_open() -> None:
    flow = rig()
    flow.give({"entity": "a", "n": 1})
    frozen = flow.batch()
    flow.flow.lost([T])
    flow.assign(T)
    flow.give({"entity": "a", "n": 1}, {"entity": "a", "n": 2})
    assert flow.deliver() == [{"entity": "a", "n": 1}, {"entity": "a", "n": 2}]
    assert flow.committed() == 2
    flow.answer(frozen, Delivered())
    assert flow.unacked == []


def test_a_pause_of_an_earlier_assignment_does_not_outlive_it() -> None:
    """A pause that the owner runs only after the partition has left and come back used to hold it for ever: nobody
    knew of it any more (simulation, seed 58)."""
    flow = Rig(limits=Limits(lane_records_max=2))
    flow.assign(T)
    flow.give({"entity": "a"}, {"entity": "a"})
    assert flow.paused == {T: True}
    flow.flow.lost([T])
    flow.assign(T)
    assert flow.paused == {T: False}


def test_a_range_that_moved_on_while_it_was_written_is_committed_as_it_was_written() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "b"})
    flow.answer(flow.batch(), Delivered())
    flow.ack("receipt")
    flow.flow.commit_due()
    flow.answer(flow.batch(), Delivered())
    flow.ack("receipt")
    flow.ack("range")
    assert [one.offset for one in flow.commits] == [1]
    assert flow.committed() == 2
    assert [(one.start, one.end) for one in flow.ranges] == [(0, 1), (1, 2)]


def test_a_receipt_that_cannot_be_written_stops_the_subscription_and_moves_nothing() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "b"})
    flow.answer(flow.batch(), Delivered())
    flow.ack("receipt", "TOPIC_AUTHORIZATION_FAILED")
    assert "a receipt cannot be written" in flow.stops[0]
    assert flow.batch() is None
    assert flow.committed() is None
    assert flow.flow.settled_records == 2


def test_a_subscription_without_receipts_commits_what_is_delivered() -> None:
    flow = Rig(receipts_on=False)
    flow.assign(T)
    flow.give({"entity": "a"}, b"no")
    flow.answer(flow.batch(), Delivered())
    flow.flow.commit_due()
    assert [one.offset for one in flow.commits] == [2]
    assert flow.unacked == []


def test_ranges_count_how_every_record_ended() -> None:
    flow = rig(expire_after=timedelta(hours=1))
    flow.give({"entity": "old"}, age_s=3_601)
    flow.give({"entity": "a"}, b"no", b"where", b"bad", key=None)
    assert flow.deliver() == [{"entity": "a"}]
    assert flow.committed() == 5
    counts = [one.counts for one in flow.ranges]
    assert counts == [{"expired": 1, "delivered": 1, "not_ours": 2, "dead": 1}]
    assert sorted(one.outcome for one in flow.receipts) == ["delivered", "rejected", "skipped"]


# ---- leaving


def test_leaving_waits_for_the_call_its_receipt_and_the_range() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "b"}, key=None)
    batch = flow.batch()
    answers: list[object] = []
    flow.flow.revoke([T], answers.append)
    assert flow.batch() is None
    flow.answer(batch, Delivered())
    assert answers == []
    flow.ack("receipt")
    assert answers == []
    flow.ack("range")
    assert [[one.offset for one in commits] for commits in answers] == [[1]]  # type: ignore[attr-defined]
    assert flow.flow.settled_records == 2


def test_leaving_that_takes_too_long_commits_nothing_that_is_not_recorded() -> None:
    flow = rig()
    flow.give({"entity": "a"})
    flow.answer(flow.batch(), Delivered())
    answers: list[object] = []
    token = flow.flow.revoke([T], answers.append)
    flow.flow.end_drain(token)
    assert [[one.offset for one in commits] for commits in answers] == [[0]]  # type: ignore[attr-defined]
    flow.ack()
    assert (flow.commits, len(answers)) == ([], 1)


def test_what_comes_back_after_a_partition_was_lost_is_nobodys_business() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "a"})
    batch = flow.batch()
    flow.flow.lost([T])
    flow.answer(batch, Delivered())
    flow.ack()
    assert (flow.receipts, flow.committed()) == ([], None)
    assert flow.flow.settled_records == 2


def test_what_waited_for_the_receipt_before_it_is_let_go_of_when_its_partition_is_lost() -> None:
    """It was counted as unfinished for ever, and after enough losses the owner believed itself full."""
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "a"})
    flow.answer(flow.batch(), Delivered())
    flow.answer(flow.batch(), Delivered())
    (_, first), (_, second) = flow.unacked
    flow.unacked.clear()
    second(None)
    flow.flow.lost([T])
    first(None)
    assert flow.flow.settled_records == 2


# ---- send: latest


def test_waiting_upserts_of_one_entity_go_as_one_and_end_with_it() -> None:
    flow = rig(send="latest")
    flow.give({"entity": "a", "x": 1, "y": 1}, {"entity": "a", "x": 2}, {"entity": "a", "z": 3}, {"entity": "b"})
    batch = flow.batch()
    assert batch is not None
    assert [one.body for one in batch.deliveries] == [{"x": 2, "y": 1, "z": 3}]
    assert flow.committed() is None
    flow.answer(batch, Delivered())
    assert [(one.outcome, one.reason, one.merged_into) for one in flow.receipts] == [
        ("skipped", "merged", "t/0/2"),
        ("skipped", "merged", "t/0/2"),
        ("delivered", None, None),
    ]
    flow.ack()
    assert flow.committed() == 3
    assert flow.deliver() == [{"entity": "b"}]


def test_the_receipt_of_a_merged_delivery_says_all_that_was_sent_with_it() -> None:
    """It named the newest event's fields alone, so of the others' personal data nobody could say who had got it."""
    ways = {
        "x": replace(ROUTE, reads={"body.x": frozenset({"email"})}, carried={"body.x": frozenset({"email"})}),
        "y": replace(ROUTE, reads={"body.y": frozenset({"name"})}, carried={"body.y": frozenset({"name"})}),
    }
    flow = rig(send="latest")
    flow.pipeline.routed = lambda content: ways[next(iter(content))]
    flow.give({"entity": "a", "x": 1}, {"entity": "a", "y": 2}, {"entity": "a", "y": 3})
    flow.answer(flow.batch(), Delivered())
    *older, carrier = map(ReceiptForm(flow.sub, b"key").settled, flow.receipts)
    assert (carrier["fields_sent"], carrier["personal_data_sent"]) == (["email", "name"], ["email", "name"])
    assert [one["personal_data_sent"] for one in older] == [[], []]


def test_what_was_refused_as_one_is_sent_one_by_one() -> None:
    flow = rig(send="latest")
    flow.give({"entity": "a", "x": 1}, {"entity": "a", "x": "wrong"}, {"entity": "a", "x": 3})

    merged = flow.batch()
    flow.answer(merged, Rejected("invalid"))
    sent = flow.deliver(outcome=lambda one: Rejected("invalid") if one.body["x"] == "wrong" else Delivered())
    assert sent == [{"entity": "a", "x": 1}, {"entity": "a", "x": "wrong"}, {"entity": "a", "x": 3}]
    assert [str(one.origin) for one in flow.letters] == ["t/0/1"]
    assert flow.committed() == 3


def test_a_merged_delivery_is_tried_again_as_it_is_with_the_same_key() -> None:
    flow = rig(send="latest")
    flow.give({"entity": "a", "x": 1}, {"entity": "a", "x": 2})
    first = flow.batch()
    assert first is not None
    flow.answer(first, RetryLater("busy"))
    flow.give({"entity": "a", "x": 3})
    flow.now += 10
    again = flow.batch()
    assert again is not None
    assert again.deliveries == first.deliveries
    flow.answer(again, Delivered())
    assert flow.deliver() == [{"entity": "a", "x": 3}]


def test_a_merged_delivery_that_is_given_up_leaves_a_letter_for_each_event() -> None:
    flow = rig(send="latest", on_unknown="hold")
    flow.give({"entity": "a", "x": 1}, {"entity": "a", "x": 2}, {"entity": "b"})
    flow.answer(flow.batch(), Unknown("timeout"))
    assert flow.batch() is None
    flow.ack()
    assert [(str(one.origin), one.outcome) for one in flow.letters] == [("t/0/0", "unknown"), ("t/0/1", "unknown")]
    assert flow.deliver() == [{"entity": "b"}]
    assert flow.committed() == 3


# ---- parked keys


def park() -> Rig:
    flow = rig(on_dead_letter="park_key")
    flow.give({"entity": "a", "n": 1}, {"entity": "a", "n": 2}, {"entity": "a", "n": 3})
    flow.answer(flow.batch(), Rejected("invalid"))
    return flow


def test_while_a_key_has_an_open_letter_its_later_events_are_set_aside_in_order() -> None:
    flow = park()
    flow.give({"entity": "b"}, key=b"other")
    assert flow.deliver() == [{"entity": "b"}]
    assert [(one.origin.offset, one.outcome) for one in flow.letters] == [(0, "rejected"), (1, "parked"), (2, "parked")]
    assert flow.committed() == 4
    assert len(flow.told_of(facts.KeyParked)) == 1


def test_a_key_goes_on_when_the_tombstone_of_its_last_letter_is_acked_and_not_before() -> None:
    flow = park()
    flow.deliver()
    for offset in range(3):
        flow.give_again(redrive(offset), {"entity": "a", "n": offset + 1})
    flow.give({"entity": "a", "n": 4})
    for _ in range(2):
        flow.answer(flow.batch(), Delivered())
        assert flow.batch() is None
        flow.ack("tombstone")
    flow.answer(flow.batch(), Delivered())
    assert flow.batch() is None
    flow.ack("tombstone")
    batch = flow.batch()
    assert batch is not None
    assert batch.deliveries[0].body == {"n": 4}
    assert [one.offset for one in flow.closed] == [0, 1, 2]
    assert len(flow.told_of(facts.KeyUnparked)) == 1


def test_a_redriven_letter_that_fails_again_is_replaced_and_counts() -> None:
    flow = park()
    flow.deliver()
    flow.give_again(redrive(0, redrives=1), {"entity": "a", "n": 1})
    flow.answer(flow.batch(background=True), Rejected("invalid"))
    flow.ack()
    assert (flow.letters[-1].origin.offset, flow.letters[-1].redrives) == (0, 2)
    assert flow.closed == []
    flow.give({"entity": "a", "n": 4})
    assert flow.deliver() == []


def test_what_is_redriven_behind_a_letter_that_failed_again_stays_parked_and_does_not_overtake_it() -> None:
    flow = park()
    flow.deliver()
    for offset in range(3):
        flow.give_again(redrive(offset, redrives=1), {"entity": "a", "n": offset + 1})
    flow.answer(flow.batch(background=True), Rejected("invalid"))
    assert flow.deliver(background=True) == []
    assert [(one.origin.offset, one.outcome, one.redrives) for one in flow.letters[-3:]] == [
        (0, "rejected", 2), (1, "parked", 1), (2, "parked", 1)
    ]  # fmt: skip
    assert flow.closed == []
    for offset in range(3):
        flow.give_again(redrive(offset, redrives=2), {"entity": "a", "n": offset + 1})
    assert flow.deliver(background=True) == [{"entity": "a", "n": n} for n in (1, 2, 3)]
    assert [one.offset for one in flow.closed] == [0, 1, 2]


def test_a_letter_that_a_person_discards_parks_its_key_no_more() -> None:
    flow = rig(on_dead_letter="park_key")
    flow.give({"entity": "a", "n": 1})
    flow.answer(flow.batch(), Rejected("invalid"))
    flow.ack()
    flow.give_again(redrive(0, kind="discarded"), {"entity": "a", "n": 1})
    flow.give({"entity": "a", "n": 2})
    assert flow.deliver() == [{"entity": "a", "n": 2}]
    assert [one.reason for one in flow.receipts if one.outcome == "skipped"] == ["discarded"]


def test_a_letter_that_a_redrive_wrote_anew_after_it_was_discarded_is_closed_for_good() -> None:
    """It used to stay open, with its key not parked (simulation, seed 2354)."""
    flow = rig(on_dead_letter="park_key")
    flow.give_again(redrive(0), {"entity": "a"})
    flow.give_again(redrive(0, kind="discarded"), {"entity": "a"})
    flow.deliver(background=True, outcome=lambda _: Rejected("invalid"))
    assert [one.origin.offset for one in flow.letters] == [0]
    assert [one.offset for one in flow.closed] == [0]
    flow.give({"entity": "a"})
    assert flow.deliver() == [{"entity": "a"}]


def test_a_letter_that_nobody_can_read_can_be_discarded() -> None:
    """It used to be read first, and set aside anew (simulation, seed 13)."""
    flow = rig()
    flow.give_again(redrive(0, kind="discarded"), b"bad")
    assert flow.deliver(background=True) == []
    assert [(one.outcome, one.reason) for one in flow.receipts] == [("skipped", "discarded")]
    assert flow.letters == []


def test_the_letters_that_are_open_at_the_start_park_their_keys() -> None:
    flow = Rig(sub=subscription(on_dead_letter="park_key"))
    flow.assign(T, at=5, letters=[(b"k", 3)])
    flow.give({"entity": "a"})
    flow.give({"entity": "b"}, key=b"other")
    assert flow.deliver() == [{"entity": "b"}]
    assert [one.outcome for one in flow.letters] == ["parked"]


def test_too_many_parked_keys_stop_the_subscription() -> None:
    flow = Rig(sub=subscription(on_dead_letter="park_key"))
    flow.assign(T, at=5_000, letters=[(str(n).encode(), n) for n in range(1_001)])
    assert "more than 1,000 keys are parked" in flow.stops[0]


# ---- the inbox


def test_a_redriven_event_is_the_same_delivery_and_closes_its_letter_before_its_offset_is_committed() -> None:
    flow = rig()
    flow.give_again(redrive(3), {"entity": "a"})
    assert flow.batch() is None
    batch = flow.batch(background=True)
    assert batch is not None
    assert batch.deliveries[0].idempotency_key == "t/0/3"
    flow.answer(batch, Delivered())
    flow.ack("receipt")
    assert flow.committed(INBOX) is None
    flow.ack("tombstone")
    assert flow.committed(INBOX) == 1
    assert flow.receipts[0].order == redrive(3)


def test_fields_that_newer_deliveries_have_sent_since_are_left_out_and_with_none_left_it_is_superseded() -> None:
    flow = rig()
    flow.give_again(redrive(3, omit=("x",)), {"entity": "a", "x": 1, "y": 2})
    flow.give_again(redrive(4, omit=("x", "y")), {"entity": "a", "x": 1, "y": 2})
    assert flow.deliver(background=True) == [{"entity": "a", "y": 2}]
    # not the key that the whole of it may have been sent under: to the vendor this is something else
    assert flow.receipts[0].delivery is not None
    assert flow.receipts[0].delivery.idempotency_key != "t/0/3"
    assert [(one.outcome, one.reason) for one in flow.receipts] == [("delivered", None), ("skipped", "superseded")]
    assert [one.offset for one in flow.closed] == [3, 4]


def test_a_repair_is_delivered_as_of_the_newest_event_about_its_entity_under_a_key_of_its_own() -> None:
    flow = rig()
    newest = Origin("t", 0, 9)
    flow.give_again(
        redrive(3, kind="repair", revision="ch-1", omit=("x",), as_of=newest), {"entity": "a", "x": 1, "y": 2}
    )
    assert flow.batch() is None
    batch = flow.batch(background=True)
    assert batch is not None
    (delivery,) = batch.deliveries
    assert (delivery.sequence, dict(delivery.body)) == (newest, {"y": 2})
    assert delivery.idempotency_key != "t/0/3"
    flow.answer(batch, Delivered())
    flow.ack("receipt")
    assert flow.committed(INBOX) == 1
    assert flow.closed == []  # it was no dead letter
    assert flow.receipts[0].record.origin == Origin("t", 0, 3)


def test_a_live_event_behind_one_of_the_background_pulls_it_forward() -> None:
    flow = Rig(sub=subscription(batch_max=10))
    flow.assign(T, INBOX)
    flow.give_again(redrive(3), {"entity": "a", "n": 1})
    assert flow.batch(background=True) is None  # it lingers for others
    flow.give({"entity": "a", "n": 2})
    flow.now += 1
    assert flow.batch(background=True) is None
    flow.flow.next_batch(flow.now)
    flow.now += 1
    batch = flow.batch()
    assert batch is not None
    assert [one.body for one in batch.deliveries] == [{"n": 1}]


def test_the_inbox_takes_at_most_its_share_of_what_may_be_unfinished() -> None:
    flow = Rig(limits=Limits(records_max=8))
    flow.assign(T, INBOX)
    for offset in range(2):
        flow.give_again(redrive(offset), {"entity": "a"})
    assert flow.paused[INBOX]
    flow.deliver(background=True)
    assert not flow.paused[INBOX]


def test_records_in_the_inbox_that_are_no_orders_are_not_ours() -> None:
    flow = rig()
    flow.give({"entity": "a"}, place=INBOX)
    assert flow.batch(background=True) is None
    assert flow.committed(INBOX) == 1


# ---- doubts, pauses, batches


def test_what_may_have_happened_is_looked_up_before_it_is_sent_again() -> None:
    flow = rig(on_unknown="look_up")
    flow.give({"entity": "a"}, {"entity": "a"})
    flow.answer(flow.batch(), Unknown("timeout"))
    flow.now += 200
    asked = flow.batch()
    assert asked is not None
    assert asked.look_up
    flow.flow.look_up_settled(asked, None, flow.now)
    again = flow.batch()
    assert again is not None
    assert (again.look_up, again.deliveries) == (False, asked.deliveries)
    flow.answer(again, Unknown("timeout"))
    flow.now += 200
    asked = flow.batch()
    assert asked is not None
    flow.flow.look_up_settled(asked, Delivered("9"), flow.now)
    flow.ack()
    assert flow.receipts[0].reference == "9"
    assert flow.committed() == 1


def test_after_a_vendor_went_away_another_lane_goes_first() -> None:
    flow = rig()
    flow.give({"entity": "a"}, key=b"a")
    flow.give({"entity": "b"}, key=b"b")
    decisions = flow.answer(flow.batch(), Unavailable("refused"))
    assert decisions == [PauseConnection(None, "refused")]
    batch = flow.batch()
    assert batch is not None
    assert batch.deliveries[0].entity == "b"


def test_a_call_that_fails_as_a_whole_is_one_batch_again() -> None:
    flow = Rig(sub=subscription(batch_max=3))
    flow.assign(T)
    for name in "abc":
        flow.give({"entity": name}, key=name.encode())
    flow.answer(flow.batch(), *[RetryLater("busy")] * 3)
    assert flow.batch() is None
    due = flow.flow.next_due()
    assert due is not None
    flow.now = due
    batch = flow.batch()
    assert batch is not None
    assert len(batch.deliveries) == 3


def test_an_event_that_is_too_old_is_not_sent_unless_a_person_allows_it() -> None:
    flow = rig(expire_after=timedelta(seconds=60))
    flow.give({"entity": "old"}, age_s=61)
    flow.wall = NOW + 100
    flow.give_again(redrive(3), {"entity": "older"})
    flow.give_again(redrive(4, allow_stale=True), {"entity": "allowed"})
    assert flow.deliver() == []
    assert flow.deliver(background=True) == [{"entity": "allowed"}]
    assert [one.reason for one in flow.receipts] == ["expired", "expired", None]


def test_rejections_of_redriven_events_do_not_stop_the_subscription() -> None:
    flow = rig()
    for offset in range(6):
        flow.give_again(redrive(offset), {"entity": str(offset)}, key=str(offset).encode())
    flow.deliver(background=True, outcome=lambda _: Rejected("invalid"))
    assert (flow.stops, len(flow.letters)) == ([], 6)
    for number in range(5):
        flow.give({"entity": "x"}, key=str(number).encode())
    flow.deliver(outcome=lambda _: Rejected("invalid"))
    assert "5 events in a row were rejected" in flow.stops[0]


def test_what_holds_a_key_is_told_by_where_its_record_stands() -> None:
    flow = rig()
    flow.give({"entity": "a"}, {"entity": "a"}, {"entity": "a"})
    flow.answer(flow.batch(), RetryLater("locked"))
    (held,) = flow.flow.view(flow.now).held
    assert (held.origin, held.why, held.waiting, held.reason, held.since) == ("t/0/0", "retry", 2, "locked", NOW)
    assert held.due is not None
    assert held.due > NOW
