"""The checker of the fault matrix, checked: for each invariant a good history passes and a doctored one does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults import checker
from tests.faults.checker import NS, Finding
from tests.faults.history import Applied, Call, History, Letter, Place, Sample, Stored

TOPIC = "t.things"
PARTITION = (TOPIC, 0)
RAW = (b"k", b"value", (("ce_type", b"t.ThingChanged"),))


def place(offset: int) -> Place:
    return (TOPIC, 0, offset)


def good() -> History:
    """Two keys of three events each in one partition, then a record nobody can read; delivered in two calls, one event
    twice under its key; committed behind each call."""
    events = ["a/1", "b/1", "a/2", "b/2", "a/3", "b/3"]
    stored = [Stored(place(offset), event, event[0], raw=RAW) for offset, event in enumerate(events)]
    stored.append(Stored(place(6), "poison at 0/6", "p", readable=False, raw=RAW))
    keys = {event: f"key of {event}" for event in events}
    batches = [(1 * NS, events[:3]), (2 * NS, events[2:4]), (3 * NS, events[4:])]
    return History(
        acked={one.event: one.place for one in stored if one.readable},
        planned=6,
        stored=stored,
        keys=keys,
        applied=[Applied(at, event, event[0], keys[event]) for at, batch in batches for event in batch],
        calls=[Call(at, tuple((event, keys[event]) for event in batch)) for at, batch in batches],
        samples=[
            Sample(int(1.5 * NS), 1_500, PARTITION, 3),
            Sample(int(2.5 * NS), 2_500, PARTITION, 4),
            Sample(int(4.5 * NS), 4_500, PARTITION, 7),
        ],
        letters=[Letter(4_000, place(6), "undecodable", RAW)],
        receipts={place(offset): 1_000 + 200 * offset for offset in range(7)},
        final={"a": "a/3", "b": "b/3"},
    )


def without(history: History, event: str) -> History:
    return replace(history, applied=[one for one in history.applied if one.event != event])


def swapped(history: History) -> History:
    """b/2 and b/3 change places at the vendor."""
    names = {"b/2": "b/3", "b/3": "b/2"}
    applied = [replace(one, event=names.get(one.event, one.event)) for one in history.applied]
    return replace(history, applied=applied)


def letter_for_applied(history: History) -> History:
    return replace(history, letters=[*history.letters, Letter(2_000, place(0), "rejected", RAW)])


def other_key(history: History) -> History:
    first = history.calls[0]
    event, _ = first.asked[0]
    return replace(
        history, calls=[replace(first, asked=((event, "made of the attempt"), *first.asked[1:])), *history.calls[1:]]
    )


DOCTORED: list[tuple[str, Callable[[History], Finding], Callable[[History], History]]] = [
    ("an event was never applied", checker.no_loss, lambda h: without(h, "a/2")),
    ("a dead letter was not written", checker.no_loss, lambda h: replace(h, letters=[])),
    (
        "an acknowledged event is not in the log",
        checker.no_loss,
        lambda h: replace(h, acked={**h.acked, "c/1": place(99)}),
    ),
    ("an event has two ends", checker.exclusive, letter_for_applied),
    ("two events of a key changed places", checker.order, swapped),
    ("the vendor holds an older state", checker.no_stale_state, lambda h: replace(h, final={"a": "a/2", "b": "b/3"})),
    ("the vendor holds nothing of a key", checker.no_stale_state, lambda h: replace(h, final={"a": "a/3"})),
    (
        "an offset was committed before its event was applied",
        checker.commit_safety,
        lambda h: replace(h, samples=[Sample(int(0.5 * NS), 500, PARTITION, 1), *h.samples]),
    ),
    (
        "an offset was committed before its dead letter was taken",
        checker.commit_safety,
        lambda h: replace(h, letters=[replace(h.letters[0], wall=4_600)]),
    ),
    (
        "a committed offset covers an event that was never applied",
        checker.commit_safety,
        lambda h: without(h, "b/2"),
    ),
    ("a receipt was not written", checker.receipts_first, lambda h: replace(h, receipts={place(0): 1_000})),
    (
        "an offset was committed before its receipt was taken",
        checker.receipts_first,
        lambda h: replace(h, receipts={**h.receipts, place(3): 2_501}),
    ),
    (
        "a commit stepped back",
        checker.commit_monotone,
        lambda h: replace(h, samples=[*h.samples, Sample(5 * NS, 5_000, PARTITION, 2)]),
    ),
    ("an attempt carried another key", checker.one_key, other_key),
    (
        "something was applied that nobody has published",
        checker.one_key,
        lambda h: replace(h, applied=[*h.applied, Applied(9 * NS, "z/1", "z", "key of z/1")]),
    ),
    ("an effect happened twice", lambda h: checker.one_key(h, effects_once=True), lambda h: h),
    (
        "a dead letter lost a header",
        checker.letters_complete,
        lambda h: replace(h, letters=[replace(h.letters[0], raw=(RAW[0], RAW[1], ()))]),
    ),
    (
        "a dead letter without its value is no pointer",
        checker.letters_complete,
        lambda h: replace(h, letters=[replace(h.letters[0], raw=(RAW[0], None, RAW[2]))]),
    ),
    (
        "two incarnations of a dead letter differ",
        checker.letters_complete,
        lambda h: replace(h, letters=[h.letters[0], replace(h.letters[0], raw=(b"x", None, ()), omitted=True)]),
    ),
    (
        "a dead letter of a record that does not exist",
        checker.letters_complete,
        lambda h: replace(h, letters=[replace(h.letters[0], origin=place(77))]),
    ),
    (
        "nothing was applied for a while",
        lambda h: checker.progress(h, begin=1 * NS, end=4 * NS, window_s=1.5),
        lambda h: replace(h, applied=h.applied[:3]),
    ),
]


@pytest.mark.parametrize(("what", "invariant", "doctor"), DOCTORED, ids=[what for what, _, _ in DOCTORED])
def test_a_doctored_history_is_caught(
    what: str, invariant: Callable[[History], Finding], doctor: Callable[[History], History]
) -> None:
    found = invariant(doctor(good()))
    assert not found.holds
    assert found.count >= 1


@pytest.mark.parametrize(
    "invariant",
    [
        checker.no_loss, checker.exclusive, checker.order, checker.no_stale_state, checker.commit_safety,
        checker.commit_monotone, checker.receipts_first, checker.one_key, checker.letters_complete,
        lambda h: checker.progress(h, begin=1 * NS, end=4 * NS, window_s=1.5),
    ],
)  # fmt: skip
def test_a_good_history_passes(invariant: Callable[[History], Finding]) -> None:
    assert invariant(good()) == replace(invariant(good()), broken=(), count=0)


def test_what_is_allowed_is_said() -> None:
    assert checker.one_key(good()).allowed == "1 applied again under the same key"
    stale = checker.no_stale_state(replace(good(), final={"a": "a/2", "b": "b/3"}), allowed=1)
    assert stale.holds
    assert "1 stale" in stale.allowed


def test_an_event_set_aside_may_be_passed_by_later_ones() -> None:
    history = without(good(), "b/2")
    history = replace(history, letters=[*history.letters, Letter(2_000, place(3), "exhausted", RAW)])
    assert checker.order(history).holds
    assert checker.no_loss(history).holds
    assert checker.commit_safety(history).holds


def test_a_letter_too_large_for_its_topic_points_to_its_record() -> None:
    pointer = Letter(4_000, place(6), "undecodable", (RAW[0], None, RAW[2]), omitted=True)
    assert checker.letters_complete(replace(good(), letters=[pointer])).holds


def test_calls_that_overdraw_a_bucket_are_caught_and_calls_within_it_are_not() -> None:
    calls = [Call(number * NS // 10) for number in range(50)]  # ten a second
    assert checker.rate_below(calls, per_s=10, burst=1).holds
    assert checker.rate_below(calls, per_s=5, burst=30).holds
    assert not checker.rate_below(calls, per_s=5, burst=20).holds


def test_a_call_before_the_time_that_a_429_named_is_caught() -> None:
    told = Call(10 * NS, behaviour={"status": 429})
    assert checker.quiet_after([told, Call(12 * NS + 1)], status=429, seconds=2, processes=1).holds
    assert not checker.quiet_after([told, Call(11 * NS)], status=429, seconds=2, processes=1).holds
    assert checker.quiet_after([told, Call(10 * NS + NS // 10)], status=429, seconds=2, processes=1).holds, "in flight"


def test_too_many_calls_memory_duplicates_rebalances_and_letters_are_caught() -> None:
    calls = [Call(second * NS) for second in range(10)]
    assert checker.calls_at_most(calls, 3, begin=2 * NS, end=4 * NS, about="here").holds
    assert not checker.calls_at_most(calls, 2, begin=2 * NS, end=4 * NS, about="here").holds
    assert checker.memory_below({"a": 200.0}, 300).holds
    assert not checker.memory_below({"a": 200.0, "b": 301.0}, 300).holds
    assert checker.duplicates_at_most(["a", "b", "a"], 1).holds
    assert not checker.duplicates_at_most(["a", "b", "a"], 0).holds
    assert not checker.rebalances_at_most(2, 1).holds
    assert checker.letters_exactly(2, 2).holds
    assert not checker.letters_exactly(1, 2).holds


def test_a_group_that_did_not_converge_in_time_is_caught() -> None:
    assert checker.converged(59.0).holds
    assert not checker.converged(61.0).holds
    assert not checker.converged(None, left="lag 7").holds


def test_a_canary_in_a_text_is_caught() -> None:
    assert checker.no_leak([b"canary"], {"the log": b"nothing of it"}).holds
    assert not checker.no_leak([b"canary"], {"the log": b"token canary-1"}).holds


def test_a_run_that_tests_nothing_is_caught() -> None:
    assert checker.not_vacuous(planned=100, acked=95, seen={"kills": 1}).holds
    assert not checker.not_vacuous(planned=100, acked=94, seen={"kills": 1}).holds
    assert not checker.not_vacuous(planned=100, acked=100, seen={"kills": 0}).holds
    assert not checker.not_vacuous(planned=100, acked=100, seen={}).holds
    assert not checker.not_vacuous(planned=0, acked=0, seen={"kills": 1}).holds
