"""Which open dead letters a change is about: chosen by a person, completed and thinned out by what order demands.
Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ops.dead_topic import Standing, in_order
from ops.wording import counted
from schemas.errors import InputError, NotFoundError
from schemas.event import Origin
from schemas.findings import did_you_mean

CHUNK: Final = 500
LETTERS_MAX: Final = 100_000
"""Letters in one change; the rest is for the next one."""
REDRIVES_MAX: Final = 3
"""A letter that failed so often after a redrive is left out, unless a person insists."""
CHUNK_S: Final = 10.0
"""With a slow rate a chunk is not longer than this, because what it found out (staleness) grows old."""

Lane: TypeAlias = tuple[str, int, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a person named: ids, or every letter with a cause or of a key (both: that fit both), or all."""

    ids: tuple[str, ...] = ()
    cause: str | None = None
    key: str | None = None
    all: bool = False

    @property
    def said(self) -> bool:
        return bool(self.ids or self.cause is not None or self.key is not None or self.all)


def choose(open_letters: Mapping[Origin, Standing], choice: Choice, name: str) -> list[Standing]:
    """The letters that were named, in the order in which they happened. Raises InputError where nothing or too much
    was said, NotFoundError (with a suggestion) for an id, a cause or a key that no open letter has."""
    if not choice.said:
        raise InputError("Say which letters: their IDs, --cause CAUSE, --key KEY or --all.")
    if choice.all and (choice.ids or choice.cause is not None or choice.key is not None):
        raise InputError("--all stands alone: leave it out, or the others.")
    if choice.ids and (choice.cause is not None or choice.key is not None):
        raise InputError("IDs name letters one by one: leave out --cause and --key.")
    see = f"See them: backbone deadletter show {name}"
    if choice.ids:
        by_id = {str(origin): standing for origin, standing in open_letters.items()}
        missing = [one for one in choice.ids if one not in by_id]
        if missing:
            more = f" (and {counted(len(missing) - 1, 'other')})" if len(missing) > 1 else ""
            raise NotFoundError(
                f"{name} has no open dead letter '{missing[0]}'{more}.{did_you_mean(missing[0], by_id)} {see}"
            )
        return in_order([by_id[one] for one in dict.fromkeys(choice.ids)])
    found = list(open_letters.values())
    if choice.cause is not None:
        causes = {one: None for standing in found for one in _causes(standing)}
        if choice.cause not in causes:
            hint = did_you_mean(choice.cause, causes)
            raise NotFoundError(f"{name} has no open dead letter with the cause '{choice.cause}'.{hint} {see}")
        found = [standing for standing in found if choice.cause in _causes(standing)]
    if choice.key is not None:
        wanted = choice.key.encode()
        found = [standing for standing in found if standing.letter.key == wanted]
    if not found:
        what = "of that key" if choice.key is not None else "at all"
        raise NotFoundError(f"{name} has no open dead letter {what}. {see}")
    return in_order(found)


def _causes(standing: Standing) -> tuple[str, str, str]:
    return standing.letter.fingerprint, standing.letter.reason, standing.letter.outcome


def with_parked(chosen: Sequence[Standing], open_letters: Mapping[Origin, Standing]) -> list[Standing]:
    """The chosen letters and those that are parked behind them and behind nothing else, in order: without them their
    keys would not go live again."""
    taken = {standing.letter.origin for standing in chosen}
    lanes = {lane for standing in chosen if (lane := standing.lane) is not None}
    more = []
    blocked: set[Lane] = set()
    for standing in in_order([one for one in open_letters.values() if one.lane in lanes]):
        lane, origin = standing.lane, standing.letter.origin
        if lane is None or origin in taken or lane in blocked:
            continue
        if standing.letter.outcome == "parked":
            more.append(standing)
        else:
            blocked.add(lane)  # what is parked behind a letter that is left where it is stays parked
    return in_order([*chosen, *more])


def overtaking(chosen: Collection[Standing], open_letters: Mapping[Origin, Standing]) -> int:
    """How many of the chosen have an older open letter of their key that is not among them."""
    taken = {standing.letter.origin for standing in chosen}
    first_left: dict[Lane, int] = {}
    for standing in open_letters.values():
        lane, origin = standing.lane, standing.letter.origin
        if lane is not None and origin not in taken:
            first_left[lane] = min(first_left.get(lane, origin.offset), origin.offset)
    return sum(
        lane is not None and lane in first_left and first_left[lane] < standing.letter.origin.offset
        for standing in chosen
        for lane in (standing.lane,)
    )


def chunks(count: int, rate: float) -> list[tuple[int, int]]:
    """Ranges ``[from, to)`` of letters that are dealt with at a time; ``rate`` a second, 0: no limit."""
    size = CHUNK if not rate else max(1, min(CHUNK, int(rate * CHUNK_S)))
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def chunk_name(start: int, end: int) -> str:
    """The step of a chunk, as people read it."""
    return f"letters {start + 1:,} to {end:,}"


def causes(standings: Sequence[Standing]) -> list[dict[str, object]]:
    """The letters as the rows of a plan: by cause and event type, the most first."""
    groups: dict[tuple[str, str], list[Standing]] = {}
    for standing in standings:
        stated = dict(standing.letter.headers).get("ce_type") or b"?"
        groups.setdefault((standing.letter.fingerprint, stated.decode(errors="replace")), []).append(standing)
    rows: list[dict[str, object]] = []
    for (fingerprint, event), found in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        newest = max(found, key=lambda one: one.letter.last_at).letter
        rows.append(
            {
                "event": event,
                "count": len(found),
                "outcome": newest.outcome,
                "reason": newest.reason,
                "fingerprint": fingerprint,
                "redrives": max(one.letter.redrives for one in found),
                "oldest": min(one.letter.first_at for one in found),
            }
        )
    return rows
