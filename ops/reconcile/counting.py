"""How the records of a partition ended, stage by stage, and what of it does not add up. Pure.

published = delivered + skipped (merged, expired, erased, superseded, discarded) + dead + not ours + waiting, and what
cannot be told or was lost. Offsets without a record (markers, compaction) are no events. What receipts and letters say
of each record is held against what the workers counted when they committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from ops.changes.past import ending

if TYPE_CHECKING:
    from ops.ledger.query import StoredReceipt
    from ops.reconcile.chain import Link
    from schemas.event import Origin

Stage: TypeAlias = Literal[
    "delivered", "merged", "expired", "erased", "superseded", "discarded", "dead", "not_ours", "waiting", "twice",
    "not_known", "receipt_missing", "letter_missing",
]  # fmt: skip
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""``waiting``: not behind the committed position. ``twice``: the same event was published again, and the receipt is
about the other place. ``not_known``: older than the ledger. ``receipt_missing``: a route wants it, it is behind, and
neither a receipt nor a letter says what became of it. ``letter_missing``: its receipt says that it became a dead
letter, and neither is that open nor was it closed by anything."""
Found: TypeAlias = Literal["receipt_missing", "letter_missing", "unaccounted", "overcounted"]
FOUND: Final[tuple[Found, ...]] = get_args(Found)
"""What does not add up. ``unaccounted``: a commit passed records that no worker has counted; ``overcounted``: more were
counted than there are."""
NAMED_MAX: Final = 10_000
"""So many records of a partition that do not add up are named one by one."""
Wants: TypeAlias = Literal["yes", "no", "erased"]
"""What the attached version makes of a record: a delivery (or it cannot: a letter), nothing, or it is about a person
who was erased."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One record. ``told``: the receipts about its event, the last one last; ``knows``: the ledger would have one."""

    origin: Origin
    behind: bool
    wants: Wants
    told: Sequence[StoredReceipt] = ()
    letter: bool = False
    knows: bool = True


_SKIPPED: Final[Mapping[str, Stage]] = {
    "merged": "merged", "expired": "expired", "erased": "erased", "discarded": "discarded",
}  # fmt: skip
_UNTOLD: Final[Mapping[Wants, Stage]] = {"yes": "receipt_missing", "no": "not_ours", "erased": "erased"}


def stage_of(one: Seen) -> Stage:
    """What became of a record. Pure."""
    if not one.behind:
        return "waiting"
    if one.letter:
        return "dead"
    here = [receipt for receipt in one.told if receipt.origin == one.origin]
    match ending(one.told, one.knows):
        case "done" if not here:
            return "twice"
        case "done" | "failed" if here:
            last = here[-1]
            if last.outcome == "delivered":
                return "delivered"
            if last.outcome != "skipped":
                return "letter_missing"
            return _SKIPPED.get(last.reason or "", "superseded")
        case "failed":
            return "twice"
        case "not_known" if one.wants == "yes":
            return "not_known"
        case _:
            return _UNTOLD[one.wants]


@dataclass(frozen=True, slots=True)
class Finding:
    """``count`` records in the offsets ``[start, end)`` of a partition that do not add up."""

    kind: Found
    start: int
    end: int
    count: int = 1


@dataclass(slots=True)
class Account:
    """One partition from ``low`` to ``high``. ``published`` counts records, ``stages`` what became of them; ``proved``
    those in ranges whose counts add up; ``uncounted`` those behind the committed position that no whole range counts
    (read again after a rewind, passed over by one, or older than the ledger); ``unwanted`` those with a receipt that
    the attached version asks nothing for."""

    low: int
    high: int
    published: int = 0
    stages: Counter[Stage] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    proved: int = 0
    uncounted: int = 0
    unwanted: int = 0

    @property
    def holes(self) -> int:
        """Offsets without a record."""
        return max(0, self.high - self.low) - self.published


@dataclass(slots=True)
class _Tally:
    """The records in one link."""

    published: int = 0
    told: int = 0
    twice: int = 0
    named: int = 0


class Accounting:
    """Takes the records of one partition in their order, and ends as its account. ``links``: the ranges followed up to
    the committed position (``ops.reconcile.chain``)."""

    def __init__(self, low: int, high: int, links: Iterable[Link]) -> None:
        self.account = Account(low, high)
        self._links: Iterator[Link] = iter(links)
        self._link: Link | None = next(self._links, None)
        self._tally = _Tally()

    def add(self, one: Seen) -> Stage:
        """The next record; what became of it."""
        account, offset, stage = self.account, one.origin.offset, stage_of(one)
        while self._link is not None and offset >= self._link.end:
            self._pass()
        account.published += 1
        account.stages[stage] += 1
        is_told = any(receipt.origin == one.origin for receipt in one.told)
        account.unwanted += is_told and one.wants == "no"
        if stage == "receipt_missing" or stage == "letter_missing":
            self._name(stage, offset)
        if self._link is not None and offset >= self._link.start:
            tally = self._tally
            tally.published += 1
            tally.told += is_told
            tally.twice += stage == "twice"
            tally.named += stage == "receipt_missing"
        return stage

    def _name(self, kind: Found, offset: int) -> None:
        """One by one, as long as that is bounded; of more, where they lie."""
        findings = self.account.findings
        last = findings[-1] if findings else None
        if len(findings) < NAMED_MAX or last is None or last.kind != kind:
            findings.append(Finding(kind, offset, offset + 1))
        else:
            findings[-1] = replace(last, end=offset + 1, count=last.count + 1)

    def amend(self, one: Seen, stage: Stage, again: Seen) -> None:
        """A record that was given, and had come to ``stage``, looked at once more before the end."""
        new, offset, account = stage_of(again), one.origin.offset, self.account
        if new != stage:
            account.stages[stage] -= 1
            account.stages[new] += 1
            account.findings = [
                found for found in account.findings
                if (found.kind, found.start, found.end) != (stage, offset, offset + 1)
            ]  # fmt: skip

    def end(self) -> Account:
        """All records were given."""
        while self._link is not None:
            self._pass()
        return self.account

    def _pass(self) -> None:
        link, tally, account = self._link, self._tally, self.account
        assert link is not None
        self._link, self._tally = next(self._links, None), _Tally()
        if link.kind != "counted":
            account.uncounted += tally.published
            return
        counted = sum(link.counts.values())
        if tally.published > counted:
            account.findings.append(Finding("unaccounted", link.start, link.end, tally.published - counted))
        elif tally.published < counted:
            account.findings.append(Finding("overcounted", link.start, link.end, counted - tally.published))
        else:
            account.proved += counted
        # of what an earlier assignment had finished nobody has counted whether it was ours
        settled = counted - link.counts.get("not_ours", 0) - link.counts.get("earlier", 0)
        lost = settled - tally.told - tally.twice - tally.named
        if lost > 0 and tally.published == counted:
            account.findings.append(Finding("receipt_missing", link.start, link.end, lost))
