"""The invariants of the fault matrix: I1 to I12, and G13 of the contract. Each is a function from what was written down
to what is wrong with it.

Pure: no clock, no I/O. Every answer is a Finding: ``broken`` says each violation, ``allowed`` what happened that the
contract permits and a reader should see. ``tests/faults/test_checker.py`` shows for each that a good history passes
and a doctored one does not.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.history import Call, History, Letter, Place, spans

SHOWN_MAX = 3
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """``broken`` is empty when the invariant holds."""

    invariant: str
    broken: tuple[str, ...] = ()
    allowed: str = ""
    count: int = 0
    """how many violations there are; ``broken`` shows the first few"""

    @property
    def holds(self) -> bool:
        return not self.broken


def _finding(invariant: str, broken: Collection[str], allowed: str = "") -> Finding:
    return Finding(invariant, tuple(list(broken)[:SHOWN_MAX]), allowed, len(broken))


def no_loss(history: History) -> Finding:
    """I1: acknowledged is in the log, and everything in the log is applied, dead-lettered or not ours."""
    applied = {one.event for one in history.applied}
    letters = {letter.origin for letter in history.letters} - history.closed
    in_log = {one.event for one in history.stored}
    broken = [f"{event} was acknowledged and is not in the log" for event in history.acked if event not in in_log]
    for one in history.stored:
        done = one.event in applied or one.event in history.filtered
        if one.place not in letters and not (done and one.readable):
            broken.append(f"{one.event} at {_name(one.place)} was neither applied nor set aside")
    again = len(history.stored) - len(in_log)
    return _finding("I1", broken, f"{again} records published twice" if again else "")


def exclusive(history: History) -> Finding:
    """I2: what was refused for good was not applied."""
    applied = {one.event for one in history.applied}
    both = sorted(applied & history.dead("rejected", "undecodable"))
    return _finding("I2", [f"{event} was applied and has a dead letter" for event in both])


def order(history: History) -> Finding:
    """I3: per key, first applications come in the order of the log, leaving dead-lettered events out."""
    position: dict[str, tuple[str, int, int]] = {}
    for record in history.stored:
        position.setdefault(record.event, record.place)
    dead = history.dead()
    seen: set[str] = set()
    last: dict[str, str] = {}
    broken = []
    for one in history.applied:
        if one.event in seen or one.event in dead or one.event not in position:
            continue
        seen.add(one.event)
        before = last.get(one.entity)
        if before is not None and position[before] > position[one.event]:
            broken.append(f"{one.event} was first applied after {before}")
        last[one.entity] = one.event
    return _finding("I3", broken)


def no_stale_state(history: History, *, allowed: int = 0) -> Finding:
    """I3b: what the vendor holds in the end is what the last event of each entity says; ``allowed`` entities may
    differ (a call in flight when a process froze, at a vendor without a version guard)."""
    dead = history.dead()
    last: dict[str, str] = {}
    for one in history.stored:
        if one.readable and one.event not in dead and one.event not in history.filtered:
            last[one.key] = one.event
    stale = [f"{key} is {history.final.get(key)}, not {event}" for key, event in last.items()
             if history.final.get(key) != event]  # fmt: skip
    if len(stale) <= allowed:
        return Finding("I3b", allowed=f"{len(stale)} stale entities (a frozen call landed late)" if stale else "")
    return _finding("I3b", stale)


def commit_safety(history: History) -> Finding:
    """I4: at every sample, each event below the committed offset had come to its end before."""
    first_applied: dict[str, int] = {}
    for one in history.applied:
        first_applied.setdefault(one.event, one.at)
    letters: dict[Place, int] = {}
    for letter in history.letters:
        letters[letter.origin] = min(letter.wall, letters.get(letter.origin, letter.wall))
    samples = _samples(history)
    broken = []
    for record in history.stored:
        topic, partition, offset = record.place
        found = samples.get((topic, partition), [])
        index = bisect.bisect_right(found, offset, key=lambda row: row[0])  # the first sample that passed it
        if index == len(found) or record.event in history.filtered:
            continue
        _, at, wall = found[index]
        applied_at = first_applied.get(record.event) if record.readable else None
        letter_at = letters.get(record.place)
        if not (applied_at is not None and applied_at <= at) and not (letter_at is not None and letter_at <= wall):
            broken.append(f"{_name(record.place)} ({record.event}) was committed over before it came to an end")
    return _finding("I4", broken)


def _samples(history: History) -> dict[tuple[str, int], list[tuple[int, int, int]]]:
    """Per partition the samples in time, each with the highest offset so far and both its stamps."""
    found: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)
    for sample in history.samples:
        rows = found[sample.partition]
        rows.append((max(rows[-1][0], sample.offset) if rows else sample.offset, sample.at, sample.wall))
    return found


def commit_monotone(history: History) -> Finding:
    """I5: a committed offset never steps back."""
    highest: dict[tuple[str, int], int] = {}
    broken = []
    for sample in history.samples:
        before = highest.get(sample.partition, -1)
        if sample.offset < before:
            broken.append(f"{sample.partition[0]}/{sample.partition[1]} went from {before} back to {sample.offset}")
        highest[sample.partition] = sample.offset
    return _finding("I5", broken)


def receipts_first(history: History) -> Finding:
    """G13: at every sample, each event below the committed offset had its receipt in the log."""
    samples = _samples(history)
    broken = []
    for record in history.stored:
        topic, partition, offset = record.place
        found = samples.get((topic, partition), [])
        index = bisect.bisect_right(found, offset, key=lambda row: row[0])
        if index == len(found) or record.event in history.filtered:
            continue
        written = history.receipts.get(record.place)
        if written is None:
            broken.append(f"{_name(record.place)} ({record.event}) has no receipt")
        elif written > found[index][2]:
            broken.append(f"{_name(record.place)} ({record.event}) was committed over before its receipt")
    return _finding("G13", broken, f"{len(history.receipts)} receipts")


def one_key(history: History, *, effects_once: bool = False) -> Finding:
    """I6: every attempt of an event carried the one idempotency key it must have; with ``effects_once`` it was applied
    once as well."""
    carried: dict[str, set[str]] = defaultdict(set)
    for call in history.calls:
        for event, trace in call.asked:
            carried[event].add(trace)
    for one in history.applied:
        carried[one.event].add(one.trace)
    broken = [
        f"{event} went out under {len(traces)} keys, or another than its own"
        for event, traces in carried.items()
        if event in history.keys and traces != {history.keys[event]}
    ]
    broken += [f"{event} was asked for and was never published" for event in carried if event not in history.keys]
    twice = {event: n for event, n in Counter(one.event for one in history.applied).items() if n > 1}
    if effects_once:
        broken += [f"{event} took effect {n} times" for event, n in twice.items()]
    again = sum(twice.values()) - len(twice)
    return _finding("I6", broken, f"{again} applied again under the same key" if again else "")


def letters_complete(history: History) -> Finding:
    """I7: a dead letter holds its record byte for byte (or, too large for the topic, points to it), and no two
    incarnations differ."""
    stored = {one.place: one for one in history.stored}
    broken = []
    first: dict[Place, Letter] = {}
    for letter in history.letters:
        source = stored.get(letter.origin)
        if source is None:
            broken.append(f"the letter of {_name(letter.origin)} names no record of the log")
            continue
        key, value, headers = source.raw
        wanted = (key, None if letter.omitted else value, headers)
        if letter.raw != wanted:
            broken.append(f"the letter of {_name(letter.origin)} differs from its record")
        earlier = first.setdefault(letter.origin, letter)
        if earlier.raw != letter.raw:
            broken.append(f"two letters of {_name(letter.origin)} differ")
    return _finding("I7", broken)


# ---- I9: bounded


def memory_below(peaks_mib: Mapping[str, float], cap_mib: float) -> Finding:
    """I9: no process ever held more than ``cap_mib``."""
    broken = [f"{name} held {peak:.0f} MiB of {cap_mib:.0f}" for name, peak in peaks_mib.items() if peak > cap_mib]
    return _finding("I9", broken, f"peak {max(peaks_mib.values(), default=0):.0f} MiB")


def quiet_after(calls: Sequence[Call], *, status: int, seconds: float, processes: int, grace_s: float = 0.3) -> Finding:
    """I9: after an answer of ``status`` with Retry-After a process sends nothing for so long. Requests carry no name of
    their process, so what is judged is their sum: from ``grace_s`` after the ``processes``-th such answer of an
    episode until the time it named, nothing comes. An episode is a row of such answers, nearer to each other than
    ``seconds``."""
    told = [c.at for c in calls if c.behaviour and c.behaviour.get("status") == status]
    episodes: list[list[int]] = []
    for at in told:
        if not episodes or at - episodes[-1][0] > seconds * NS:
            episodes.append([])
        episodes[-1].append(at)
    broken = []
    for episode in episodes:
        if len(episode) < processes:
            continue  # not every process was told: the others may go on
        begin, end = episode[processes - 1] + int(grace_s * NS), episode[0] + int(seconds * NS)
        early = [c.at for c in calls if begin < c.at < end]
        if early:
            broken.append(f"{len(early)} calls within {seconds:g} s of a {status} that asked for quiet")
    return _finding("I9", broken, f"{len(episodes)} times asked for quiet")


def rate_below(calls: Sequence[Call], *, per_s: float, burst: float) -> Finding:
    """I9: a token bucket of ``burst`` tokens, filled by ``per_s``, is never overdrawn by the calls as they came."""
    level, last, worst = burst, None, 0.0
    for at in sorted(call.at for call in calls):
        if last is not None:
            level = min(burst, level + (at - last) / NS * per_s)
        last = at
        level -= 1
        worst = min(worst, level)
    broken = [f"the calls overdrew {per_s:g}/s (burst {burst:g}) by {-worst:.1f}"] if worst < -1e-6 else []
    return _finding("I9", broken)


def calls_at_most(calls: Sequence[Call], limit: int, *, begin: int, end: int, about: str) -> Finding:
    """I9: between two moments at most ``limit`` calls came."""
    found = sum(begin <= call.at <= end for call in calls)
    broken = [f"{found} calls {about}, at most {limit} are expected"] if found > limit else []
    return _finding("I9", broken, f"{found} calls {about}")


def duplicates_at_most(applied: Sequence[str], limit: int) -> Finding:
    """I9: at most so many events (by id, as applied) were applied again."""
    again = len(applied) - len(set(applied))
    broken = [f"{again} were applied again, at most {limit} are expected"] if again > limit else []
    return _finding("I9", broken)


def rebalances_at_most(assignments: int, limit: int) -> Finding:
    """I10: nobody fell out of its group: a member was given partitions at most so often."""
    broken = [f"{assignments} assignments to one member, at most {limit} are expected"] if assignments > limit else []
    return _finding("I10", broken)


def letters_exactly(found: int, wanted: int) -> Finding:
    """I2: so many events were given up, no more and no fewer."""
    return _finding("I2", [] if found == wanted else [f"{found} dead letters, {wanted} are expected"])


# ---- I10, I11, I12


def converged(seconds: float | None, *, limit_s: float = 60.0, left: str = "") -> Finding:
    """I10: within ``limit_s`` of the last heal nothing is behind and nothing is open; None: it never was."""
    if seconds is None or seconds > limit_s:
        return Finding("I10", (f"not within {limit_s:g} s: {left}",), count=1)
    return Finding("I10", allowed=f"after {seconds:.0f} s")


def progress(history: History, *, begin: int, end: int, window_s: float) -> Finding:
    """I10: in every window between two moments something was applied."""
    inside = [begin, *(one.at for one in history.applied if begin <= one.at <= end), end]
    longest = max(spans(inside), default=0) / NS
    broken = [f"nothing was applied for {longest:.1f} s"] if longest > window_s else []
    return _finding("I10", broken, f"longest pause {longest:.1f} s")


def no_leak(canaries: Sequence[bytes], texts: Mapping[str, bytes]) -> Finding:
    """I11: canary secrets and canary personal data stand in none of the texts (logs, metrics, dead-letter headers)."""
    return _finding(
        "I11", [f"{name} holds a canary" for name, text in texts.items() if any(c in text for c in canaries)]
    )


def not_vacuous(*, planned: int, acked: int, seen: Mapping[str, float]) -> Finding:
    """I12: at least 95 % of what was planned was published, and the system itself has counted every fault."""
    broken = [f"the system saw nothing of it: {name}" for name, count in seen.items() if count <= 0]
    if planned <= 0 or acked < 0.95 * planned:
        broken.append(f"only {acked} of {planned} planned events were acknowledged")
    if not seen:
        broken.append("nothing says that the fault happened")
    return _finding("I12", broken, ", ".join(f"{name} {count:g}" for name, count in seen.items()))


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}/{place[2]}"
