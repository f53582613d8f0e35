"""The committable prefix and its map."""

from __future__ import annotations

import base64
import itertools

from hypothesis import given
from hypothesis import strategies as st

from consumers.offsets import METADATA_BYTES_MAX, Tracker, decode_runs, encode_runs


def fetch(tracker: Tracker, *offsets: int):
    return [tracker.fetched(offset) for offset in offsets]


def test_nothing_is_committable_while_the_first_event_is_unfinished() -> None:
    tracker = Tracker(10)
    first, second, third = fetch(tracker, 10, 11, 12)
    tracker.read_to(13)
    tracker.finish(second, "delivered")
    tracker.finish(third, "delivered")
    assert tracker.committable() == 10
    tracker.finish(first, "delivered")
    assert tracker.committable() == 13


def test_holes_in_the_log_do_not_hold_the_prefix() -> None:
    tracker = Tracker(0)
    entries = fetch(tracker, 3, 9, 40)
    tracker.read_to(41)
    tracker.finish(entries[0], "delivered")
    assert tracker.committable() == 9
    tracker.finish(entries[1], "delivered")
    tracker.finish(entries[2], "delivered")
    assert tracker.committable() == 41


def test_the_position_behind_a_transaction_marker_is_committable_so_lag_reaches_zero() -> None:
    tracker = Tracker(830)
    (entry,) = fetch(tracker, 830)
    tracker.finish(entry, "delivered")
    tracker.read_to(832)
    assert tracker.committable() == 832


def test_a_position_never_steps_over_an_unfinished_event() -> None:
    tracker = Tracker(0)
    fetch(tracker, 5)
    tracker.read_to(100)
    assert tracker.committable() == 5


def test_negative_positions_and_steps_back_are_ignored() -> None:
    tracker = Tracker(7)
    tracker.read_to(-1001)
    tracker.read_to(3)
    assert tracker.committable() == 7


def test_what_was_finished_beyond_the_prefix_is_not_fetched_again_after_a_restart() -> None:
    tracker = Tracker(0)
    entries = fetch(tracker, *range(10))
    tracker.read_to(10)
    for offset in (2, 3, 4, 8):
        tracker.finish(entries[offset], "delivered")
    restarted = Tracker(tracker.committable(), decode_runs(tracker.committable(), tracker.metadata()))
    again = [offset for offset in range(10) if restarted.fetched(offset) is not None]
    assert again == [0, 1, 5, 6, 7, 9]


def test_the_map_of_an_earlier_assignment_survives_a_commit_before_it_was_fetched_again() -> None:
    """A restart that commits before it has read as far as the map reaches used to forget the rest of the map."""
    tracker = Tracker(0, [(5, 7), (20, 30)])
    fetch(tracker, 0, 1)
    assert decode_runs(0, tracker.metadata()) == [(5, 7), (20, 30)]


def test_a_stuck_event_costs_one_run_however_much_is_finished_behind_it() -> None:
    tracker = Tracker(0)
    entries = fetch(tracker, *range(4000))
    for entry in entries[1:]:
        tracker.finish(entry, "delivered")
    assert tracker.runs() == [(1, 4000)]
    assert len(tracker.metadata()) < 20


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_a_restart_at_any_moment_sends_again_exactly_what_is_unfinished(gaps: list[int], data: st.DataObject) -> None:
    offsets: list[int] = []
    at = 0
    for gap in gaps:
        at += gap
        offsets.append(at)
        at += 1
    done = data.draw(st.sets(st.sampled_from(offsets)))
    tracker = Tracker(0)
    entries = dict(zip(offsets, fetch(tracker, *offsets), strict=True))
    tracker.read_to(at)
    for offset in done:
        tracker.finish(entries[offset], "delivered")
    committed = tracker.committable()
    assert all(offset in done for offset in offsets if offset < committed)
    restarted = Tracker(committed, decode_runs(committed, tracker.metadata()))
    again = {offset for offset in offsets if offset >= committed and restarted.fetched(offset) is not None}
    assert again == set(offsets) - done


@given(st.integers(0, 1 << 40), st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 9999)), max_size=3000))
def test_encoded_runs_fit_the_metadata_and_read_back_as_a_prefix(base: int, steps: list[tuple[int, int]]) -> None:
    runs, at = [], base
    for gap, length in steps:
        runs.append((at + gap, at + gap + length))
        at += gap + length
    text = encode_runs(base, runs)
    assert len(text) <= METADATA_BYTES_MAX
    read = decode_runs(base, text)
    assert read == runs[: len(read)]
    if len(steps) <= 400:
        assert read == runs


@given(st.one_of(st.text(), st.binary().map(lambda b: "r1:" + base64.b64encode(b).decode())))
def test_metadata_of_anybody_else_is_no_runs_and_no_error(text: str) -> None:
    runs = decode_runs(100, text)
    assert all(100 <= a < b for a, b in runs)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(runs))
