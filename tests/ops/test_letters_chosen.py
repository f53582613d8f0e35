"""Which letters a change is about, how fast it goes, and what a position without one record is: the pure parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.control import Steering
from consumers.deadletter import DeadLetter
from consumers.inbox import InboxOrder, murmur2
from consumers.offsets import decode_runs, encode_runs
from ops.changes import letters
from ops.changes.letters import Choice
from ops.changes.orders import outgoing
from ops.changes.set_aside import parse_place, skipped
from ops.changes.steering import Cancelled, Pace, parse_rate
from ops.dead_topic import Standing, in_order
from ops.lag.cluster import Commit
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.event import Origin, Record


def standing(
    offset: int,
    key: bytes | None = b"k",
    *,
    partition: int = 0,
    outcome: str = "rejected",
    reason: str = "",
    at: int = 0,
    redrives: int = 0,
) -> Standing:
    letter = DeadLetter(
        origin=Origin("things", partition, offset), outcome=outcome, reason=reason or outcome, detail="", key=key,
        value=None, headers=(("ce_type", b"shop.Ordered"),), timestamp=at or offset, timestamp_type="append",
        attempts=1, first_at="2026-05-01T12:00:00+00:00", last_at="2026-05-01T12:00:00+00:00", redrives=redrives,
        version="s@3f9a2c",
    )  # fmt: skip
    return Standing(letter, partition, 100 + offset)


def opened(*standings: Standing) -> dict[Origin, Standing]:
    return {one.letter.origin: one for one in standings}


def offsets(found: list[Standing]) -> list[int]:
    return [one.letter.origin.offset for one in found]


def test_letters_are_chosen_by_id_cause_key_or_all_in_the_order_in_which_they_happened() -> None:
    there = opened(standing(7), standing(3, b"other", reason="http_400"), standing(5, outcome="unknown"))
    assert offsets(letters.choose(there, Choice(all=True), "s")) == [3, 5, 7]
    assert offsets(letters.choose(there, Choice(ids=("things/0/7", "things/0/3", "things/0/7")), "s")) == [3, 7]
    assert offsets(letters.choose(there, Choice(cause="http_400"), "s")) == [3]
    assert offsets(letters.choose(there, Choice(cause="unknown"), "s")) == [5]
    assert offsets(letters.choose(there, Choice(key="k"), "s")) == [5, 7]
    assert offsets(letters.choose(there, Choice(key="k", cause="unknown"), "s")) == [5]


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        (Choice(), InputError, "Say which letters"),
        (Choice(all=True, cause="x"), InputError, "--all stands alone"),
        (Choice(ids=("things/0/3",), key="k"), InputError, "IDs name letters one by one"),
        (Choice(ids=("things/0/33", "things/9/9")), NotFoundError, "(and 1 other). Did you mean 'things/0/3'?"),
        (Choice(cause="rejectd"), NotFoundError, "Did you mean 'rejected'?"),
        (Choice(key="nobody"), NotFoundError, "no open dead letter of that key"),
    ],
)
def test_what_cannot_be_chosen_is_said(choice: Choice, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        letters.choose(opened(standing(3)), choice, "s")
    assert words in str(raised.value)
    assert "nobody" not in str(raised.value)  # a key may be personal data


def test_what_is_parked_behind_the_chosen_comes_along_unless_something_else_is_in_its_way() -> None:
    poison, parked, later = standing(1), standing(2, outcome="parked"), standing(3, outcome="parked")
    other = standing(4, b"other", outcome="parked")
    there = opened(poison, parked, later, other)
    assert offsets(letters.with_parked([poison], there)) == [1, 2, 3]
    second = standing(2)
    blocked = opened(poison, second, later)
    assert offsets(letters.with_parked([poison], blocked)) == [1]
    assert offsets(letters.with_parked([poison, second], blocked)) == [1, 2, 3]
    alone = standing(5, None), standing(6, None, outcome="parked")
    assert offsets(letters.with_parked(alone[:1], opened(*alone))) == [5]


def test_letters_behind_an_older_open_one_of_their_key_are_counted() -> None:
    there = opened(standing(1), standing(2), standing(3), standing(4, b"other"))
    chosen = [there[Origin("things", 0, offset)] for offset in (2, 3, 4)]
    assert letters.overtaking(chosen, there) == 2
    assert letters.overtaking(list(there.values()), there) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 20)),
        max_size=30, unique_by=lambda one: one[:2],
    )
)  # fmt: skip
def test_order_within_a_partition_is_its_logs_whatever_the_clocks_said(drawn: list[tuple[int, int, int]]) -> None:
    there = [standing(offset, partition=partition, at=at) for partition, offset, at in drawn]
    found = in_order(there)
    assert sorted(map(id, found)) == sorted(map(id, there))
    for partition in range(4):
        log = [one.letter.origin.offset for one in found if one.partition == partition]
        assert log == sorted(log)


@given(st.integers(0, 5_000), st.one_of(st.just(0.0), st.floats(0.001, 10_000)))
def test_chunks_cover_every_letter_once_and_a_slow_rate_makes_them_short(count: int, rate: float) -> None:
    found = letters.chunks(count, rate)
    assert [at for start, end in found for at in range(start, end)] == list(range(count))
    for start, end in found:
        assert 1 <= end - start <= letters.CHUNK
        assert not rate or end - start == 1 or (end - start) / rate <= letters.CHUNK_S


def test_a_plan_counts_by_cause_and_event() -> None:
    rows = letters.causes([standing(1), standing(2, redrives=2), standing(3, outcome="unknown")])
    assert [(row["count"], row["outcome"], row["redrives"]) for row in rows] == [(2, "rejected", 2), (1, "unknown", 0)]
    assert rows[0]["event"] == "shop.Ordered"


# ---- the pace -------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.at: dict[int, Any] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for due in [due for due in self.at if due <= self.now]:
            self.at.pop(due)()


class Now:
    """What people want, as the thread beside the change would hear it."""

    def __init__(self) -> None:
        self.wanted = Steering()
        self.rested: list[bool] = []

    def rests(self, resting: bool) -> None:
        if self.rested[-1:] != [resting]:
            self.rested.append(resting)

    def becomes(self, **steering: Any) -> None:
        self.wanted = Steering(**steering)


@pytest.fixture
def pace() -> Any:
    said: list[str] = []
    app: Any = SimpleNamespace(screen=SimpleNamespace(say=said.append))
    plan: Any = SimpleNamespace(id="ch-7f3a")

    def make(rate: float) -> tuple[Pace, Clock, Now, list[str]]:
        clock, now = Clock(), Now()
        given: Any = now
        return Pace(app, plan, given, rate=rate, clock=clock, sleep=clock.sleep), clock, now, said

    return make


def test_a_rate_is_kept_and_what_was_not_used_does_not_come_in_a_burst(pace: Any) -> None:
    made, clock, _, _ = pace(4.0)
    began = clock.now
    for _ in range(9):
        made.wait()
    assert clock.now - began == pytest.approx(2.0)
    clock.now += 60
    began = clock.now
    for _ in range(5):
        made.wait()
    assert clock.now - began == pytest.approx(1.0)


def test_a_throttle_takes_the_place_of_the_plans_rate(pace: Any) -> None:
    made, clock, now, _ = pace(0.01)
    made.wait()
    clock.at[101] = lambda: now.becomes(rate=0.0)
    began = clock.now
    for _ in range(100):
        made.wait()
    assert clock.now - began < 2  # not the 100 s of the old rate


def test_paused_it_stays_where_it_is_until_somebody_lets_it_go_on(pace: Any) -> None:
    made, clock, now, said = pace(0.0)
    made.wait()
    now.becomes(state="paused", by="ana")
    clock.at[500] = lambda: now.becomes()
    clock.now += 1
    made.wait()
    assert clock.now >= 500
    assert said == ["ch-7f3a is paused, by ana. Go on: backbone change resume ch-7f3a"]
    assert now.rested == [False, True, False]  # others see it at once


def test_cancelled_it_ends_between_two_sends_also_while_paused(pace: Any) -> None:
    made, clock, now, _ = pace(0.0)
    now.becomes(state="paused")
    clock.at[110] = lambda: now.becomes(state="cancelled")
    with pytest.raises(Cancelled):
        made.wait()


@pytest.mark.parametrize(("text", "rate"), [("50/s", 50), ("50", 50), ("0.5/s", 0.5), (" 7/s ", 7), ("none", 0)])
def test_a_rate_is_a_number_a_second(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1/s", "0", "nan", "inf", "5/m", "5/s/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_rate(text)


# ---- a position without one record ----------------------------------------------------------------------------------


@given(st.integers(0, 1_000), st.sets(st.integers(0, 60), max_size=25), st.integers(0, 60))
def test_a_position_without_a_record_passes_exactly_what_is_finished(base: int, ahead: set[int], at: int) -> None:
    finished = {base + 1 + one for one in ahead}  # the record at the position itself is never finished
    offset = base + at
    runs: list[tuple[int, int]] = []
    for one in sorted(finished):
        runs[-1:] = [(runs[-1][0], one + 1)] if runs and runs[-1][1] == one else [*runs[-1:], (one, one + 1)]
    before = Commit(base, encode_runs(base, runs))
    if offset in finished:
        with pytest.raises(RefusedError, match="has this record behind it"):
            skipped(before, offset, "s")
        return
    after = skipped(before, offset, "s")
    done = {one for start, end in decode_runs(after.offset, after.metadata) for one in range(start, end)}
    passed = finished | {offset}
    expected = next(one for one in range(base, base + 100) if one not in passed)
    assert after.offset == expected
    assert done == {one for one in passed if one > expected}


def test_a_record_before_the_position_is_not_set_aside() -> None:
    with pytest.raises(RefusedError, match="has this record behind it"):
        skipped(Commit(10), 9, "s")


def test_a_full_map_is_said_and_never_cut() -> None:
    """A map that is cut forgets what is finished; the record that was set aside would be delivered all the same."""
    runs = [(at, at + 1) for at in range(1_000, 20_000, 2)]
    text = encode_runs(0, runs)
    kept = decode_runs(0, text)
    with pytest.raises(RefusedError, match="map is full"):
        skipped(Commit(0, text), kept[-1][1] + 1_000_000, "s")


@pytest.mark.parametrize("text", ["things", "things:", ":3", "things:x", "things:-1"])
def test_what_is_no_partition_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="TOPIC:PARTITION"):
        parse_place(text, 3)


def test_a_place_is_an_origin() -> None:
    assert parse_place("shop.things:3", 7) == Origin("shop.things", 3, 7)


# ---- where an order goes ------------------------------------------------------------------------------------------


@given(st.one_of(st.none(), st.binary(max_size=10)), st.integers(0, 20), st.integers(1, 12), st.booleans())
def test_an_order_goes_where_the_events_of_its_key_go_and_always_to_a_partition_that_is_there(
    key: bytes | None, partition: int, partitions: int, has_grown: bool
) -> None:
    plan: Any = SimpleNamespace(
        subject="s", details={"inbox_partitions": partitions, "grown": ["things"] if has_grown else []}
    )
    record = Record("things", partition, 7, key, b"v", (), 5)
    order = InboxOrder(kind="redrive", change="ch-7f3a", origin=record.origin, timestamp=5, timestamp_type="append")
    made = outgoing(plan, order, record)
    assert (made.topic, made.key, made.value) == ("s.inbox", key, b"v")
    expected = murmur2(key) if has_grown and key is not None else partition
    assert made.partition == expected % partitions
