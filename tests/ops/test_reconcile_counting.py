"""Counting what became of records, against a model: random workers that are killed between recording a range and
committing it, on a log with holes. The ranges come from the runtime's own tracker."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.offsets import Ended, Entry, Tracker, decode_runs
from ops.reconcile.chain import Link, Settled, follow
from ops.reconcile.counting import Account, Accounting, Finding, Seen, Stage, Wants, stage_of
from schemas.event import Origin

ENDS: list[Ended] = ["delivered", "merged", "expired", "superseded", "dead", "not_ours"]


@dataclass
class History:
    """A partition's log and what workers made of it. ``records`` are offsets (the others are holes); ``ended`` what
    became of each for good; ``receipts`` those with one; ``ranges`` as the ledger keeps them: by their beginning."""

    records: list[int]
    ended: dict[int, Ended] = field(default_factory=dict)
    receipts: set[int] = field(default_factory=set)
    ranges: dict[int, Settled] = field(default_factory=dict)
    committed: int = 0
    metadata: str = ""

    @property
    def high(self) -> int:
        return self.records[-1] + 1 if self.records else 0

    def behind(self, offset: int) -> bool:
        runs = [(0, self.committed), *decode_runs(self.committed, self.metadata)]
        return any(start <= offset < end for start, end in runs)

    def work(self, random: Random) -> None:
        """One worker, from where the group has committed until it is killed."""
        tracker = Tracker(self.committed, decode_runs(self.committed, self.metadata))
        ranged = self.committed
        open_: list[tuple[int, Entry]] = []
        left = [offset for offset in self.records if offset >= self.committed]
        for _ in range(random.randrange(1, 40)):
            step = random.randrange(3)
            if step == 0 and left:
                offset = left.pop(0)
                entry = tracker.fetched(offset)
                tracker.read_to(offset + 1)
                if entry is not None:
                    open_.append((offset, entry))
            elif step == 1 and open_:
                offset, entry = open_.pop(random.randrange(len(open_)))
                ended = self.ended.setdefault(offset, random.choice(ENDS))
                if ended != "not_ours":
                    self.receipts.add(offset)
                tracker.finish(entry, ended)
            elif step == 2:
                end = tracker.committable()
                metadata = tracker.metadata()
                if end > ranged:
                    self.ranges[ranged] = Settled(ranged, end, dict(tracker.take_counts()))
                    ranged = end
                    if random.randrange(3) == 0:
                        return  # killed before the commit
                self.committed, self.metadata = end, metadata


def history(random: Random) -> History:
    made = History([offset for offset in range(random.randrange(1, 60)) if random.randrange(5)])
    for _ in range(random.randrange(1, 8)):
        made.work(random)
    return made


def receipt(offset: int, ended: Ended) -> Any:
    outcome = {"delivered": "delivered", "dead": "rejected"}.get(ended, "skipped")
    return SimpleNamespace(origin=Origin("t", 0, offset), outcome=outcome, reason=ended)


def seen(made: History, offset: int, *, receipts: set[int] | None = None) -> Seen:
    ended = made.ended.get(offset, "not_ours")
    known = made.receipts if receipts is None else receipts
    return Seen(
        Origin("t", 0, offset),
        behind=made.behind(offset),
        wants="no" if ended == "not_ours" else "yes",
        told=[receipt(offset, ended)] if offset in known else [],
        letter=ended == "dead" and offset in made.receipts,
    )


def links(made: History, low: int, high: int) -> list[Link]:
    return list(follow([made.ranges[start] for start in sorted(made.ranges)], low, high))


def account(made: History, receipts: set[int] | None = None, records: list[int] | None = None) -> Account:
    accounting = Accounting(0, made.high, links(made, 0, min(made.committed, made.high)))
    for offset in made.records if records is None else records:
        accounting.add(seen(made, offset, receipts=receipts))
    return accounting.end()


@given(st.randoms(use_true_random=False))
def test_whatever_was_killed_what_is_counted_is_what_happened(random: Random) -> None:
    made = history(random)
    found = account(made)
    expected: dict[str, int] = {}
    for offset in made.records:
        stage = made.ended[offset] if made.behind(offset) else "waiting"
        expected[stage] = expected.get(stage, 0) + 1
    assert {stage: count for stage, count in found.stages.items() if count} == expected
    assert found.published == len(made.records) == sum(found.stages.values())
    assert found.holes == made.high - len(made.records)
    assert found.findings == []
    assert found.uncounted == 0  # the chain of ranges reaches to the commit, whoever was killed
    assert found.proved == sum(offset < made.committed for offset in made.records)


@given(st.randoms(use_true_random=False))
def test_a_lost_receipt_is_named_with_its_offset(random: Random) -> None:
    made = history(random)
    lost = {offset for offset in made.receipts if made.behind(offset) and random.randrange(4) == 0}
    found = account(made, receipts=made.receipts - lost)
    named = {one.start for one in found.findings if one.kind == "receipt_missing"}
    # what has an open letter is accounted for by that
    assert named == {offset for offset in lost if made.ended[offset] != "dead"} | {
        one.start for one in found.findings if one.end - one.start > 1 or made.ended.get(one.start) == "dead"
    }
    by_record = {one.start for one in found.findings if one.count == 1 and one.end == one.start + 1}
    assert {offset for offset in lost if made.ended[offset] != "dead"} <= by_record
    assert {one.kind for one in found.findings} <= {"receipt_missing"}


@given(st.randoms(use_true_random=False))
def test_a_record_that_a_commit_passed_uncounted_is_found_in_its_range(random: Random) -> None:
    made = history(random)
    counted = [link for link in links(made, 0, made.committed) if link.kind == "counted" and sum(link.counts.values())]
    if not counted:
        return
    hit = random.choice(counted)
    name = next(name for name, count in hit.counts.items() if count)
    made.ranges[hit.start] = Settled(hit.start, hit.end, {**hit.counts, name: hit.counts[name] - 1})
    assert Finding("unaccounted", hit.start, hit.end, 1) in account(made).findings
    made.ranges[hit.start] = Settled(hit.start, hit.end, {**hit.counts, name: hit.counts[name] + 1})
    assert Finding("overcounted", hit.start, hit.end, 1) in account(made).findings


def test_a_receipt_lost_of_what_no_route_wants_any_more_is_counted_in_its_range() -> None:
    accounting = Accounting(0, 3, [Link("counted", 0, 3, {"delivered": 2, "not_ours": 1})])
    for offset in range(3):
        told = [receipt(offset, "delivered")] if offset == 0 else []
        accounting.add(Seen(Origin("t", 0, offset), behind=True, wants="no", told=told))
    found = accounting.end()
    assert found.findings == [Finding("receipt_missing", 0, 3, 1)]
    assert (found.unwanted, found.stages["delivered"], found.stages["not_ours"]) == (1, 1, 2)


def test_what_is_lost_by_the_thousands_is_named_by_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.reconcile.counting.NAMED_MAX", 3)
    accounting = Accounting(0, 9, [])
    for offset in range(9):
        accounting.add(Seen(Origin("t", 0, offset), behind=True, wants="yes"))
    found = accounting.end().findings
    assert [(one.start, one.end, one.count) for one in found] == [(0, 1, 1), (1, 2, 1), (2, 9, 7)]


def test_after_a_rewind_a_range_that_lies_over_another_is_not_added_to_it() -> None:
    found = list(follow([Settled(0, 10, {}), Settled(5, 12, {}), Settled(12, 20, {})], 0, 25))
    assert [(one.kind, one.start, one.end) for one in found] == [
        ("counted", 0, 10), ("part", 10, 12), ("counted", 12, 20), ("gap", 20, 25),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=12), st.integers(0, 20), st.integers(0, 30))
def test_links_lie_end_to_end_over_what_is_asked_for(pairs: list[tuple[int, int]], low: int, size: int) -> None:
    ranges = [Settled(start, start + length, {}) for start, length in sorted(dict(pairs).items())]
    high = low + size
    found = list(follow(ranges, low, high))
    at = low
    for one in found:
        assert one.start == at < one.end
        at = one.end
        if one.kind == "counted":
            assert Settled(one.start, one.end, {}) in ranges
        covered = any(r.start <= one.start < r.end for r in ranges)
        assert covered == (one.kind != "gap")
    assert at == high or not found


def stage(*told: Any, behind: bool = True, wants: Wants = "yes", letter: bool = False, knows: bool = True) -> Stage:
    return stage_of(Seen(Origin("t", 0, 7), behind=behind, wants=wants, told=told, letter=letter, knows=knows))


def test_every_record_is_in_one_stage() -> None:
    rejected, other = receipt(7, "dead"), receipt(3, "delivered")
    assert stage() == "receipt_missing"
    assert stage(wants="no") == "not_ours"
    assert stage(wants="erased") == "erased"
    assert stage(knows=False) == "not_known"
    assert stage(wants="no", knows=False) == "not_ours"
    assert stage(behind=False) == "waiting"
    assert stage(rejected, letter=True) == "dead"
    assert stage(rejected) == "letter_missing"
    assert stage(rejected, receipt(7, "delivered")) == "delivered"
    assert stage(other) == "twice"
    assert stage(receipt(7, "expired")) == "expired"
    assert stage(receipt(7, cast(Any, "of another version"))) == "superseded"
