"""The demo's last table, and whether it is right. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One subscription in the end. ``applied`` are distinct deliveries the vendor itself counts; ``duplicates`` what it
    was asked once more (absorbed by upserts; a repeated message at Slack; None where the vendor cannot know);
    ``differing`` how many of its objects are not as the story says."""

    subscription: str
    vendor: str
    expected: int
    applied: int
    duplicates: int | None
    dead_letters: int
    lag: int | None
    differing: int

    @property
    def lost(self) -> int:
        return max(0, self.expected - self.applied)


def render(acked: int, rows: Sequence[Row]) -> str:
    lines = [
        f"{acked:,} events published and acknowledged, and one record that nobody can read",
        "",
        f"{'SUBSCRIPTION':<16}{'VENDOR':<9}{'EXPECTED':>9}{'APPLIED':>9}{'DUPLICATES':>12}{'DEAD':>6}{'LAG':>5}"
        f"{'LOST':>6}{'WRONG':>7}",
    ]
    lines += [
        f"{r.subscription:<16}{r.vendor:<9}{r.expected:>9,}{r.applied:>9,}{_number(r.duplicates):>12}{r.dead_letters:>6}"
        f"{_number(r.lag):>5}{r.lost:>6}{r.differing:>7}"
        for r in rows
    ]
    return "\n".join(lines)


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def judge(published: int, acked: int, rows: Sequence[Row]) -> list[str]:
    """A sentence for everything that is not as it must be; empty when the table is right."""
    wrong = []
    if acked != published:
        wrong.append(f"{acked} of {published} events were acknowledged")
    for row in rows:
        if row.applied != row.expected:
            wrong.append(f"{row.vendor} applied {row.applied} of {row.expected} deliveries of {row.subscription}")
        if row.differing:
            wrong.append(f"{row.differing} objects at {row.vendor} are not as the story says ({row.subscription})")
        if row.lag != 0:
            wrong.append(f"{row.subscription} has not caught up (lag {row.lag})")
    poison_readers = {"crm-contacts": 1, "billing-alerts": 1, "warehouse": 1}
    wrong += [
        f"{row.subscription} has {row.dead_letters} dead letters, not {poison_readers.get(row.subscription, 0)}"
        for row in rows
        if row.dead_letters != poison_readers.get(row.subscription, 0)
    ]
    return wrong
