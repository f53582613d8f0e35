"""How old the first waiting records of many positions are: searched together, and again only where they moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from ops.lag.age import CLOSE_MS, Found, Search
from ops.lag.cluster import Cluster, Isolation, Place, TopicSettings
from ops.lag.rules import OffsetLag

SHORT = 100
"""A lag of so few offsets may be markers and aborted records only: the first record is looked for to be sure."""

Key: TypeAlias = tuple[Place, int, Isolation]
"""A position whose first record's time is wanted."""


class Oldest:
    """Finds the ages of first waiting records, round after round. Blocks; one thread. ``settings`` answers topics'
    settings.

    ``reads_max``: so many records are read in a round at most; those that had to wait come first in the next.
    ``search_s``: so long is searched in a round at most; the next one goes on. Until then what is known of a record
    stands as a bound."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Callable[[set[str]], Mapping[str, TopicSettings]],
        *,
        reads_max: int | None = None,
        search_s: float | None = None,
    ) -> None:
        self._cluster, self._settings, self._reads_max, self._search_s = cluster, settings, reads_max, search_s
        self._stamps: dict[Key, tuple[int, bool]] = {}
        self._nothing: dict[Key, int] = {}
        self._searching: dict[Key, Search] = {}
        self._unread: set[Key] = set()
        self._last: dict[tuple[str, Place], int] = {}

    def ages(
        self, isolations: Mapping[str, Isolation], standing: Mapping[tuple[str, Place], OffsetLag], now: float
    ) -> dict[tuple[str, Place], tuple[float | None, bool]]:
        """By group and place: the age in seconds of the first record to be read (0: there is none, None: it could not
        be found out), and whether that is only a bound."""
        wanted: dict[tuple[str, Place], Key] = {
            (name, place): (place, offsets.counted_from, isolations[name])
            for (name, place), offsets in standing.items()
            if offsets.lag
        }
        ends = {key: standing[subject].counted_from + standing[subject].lag for subject, key in wanted.items()}
        known = {key: self._stamps[key] for key in ends if key in self._stamps}
        # between a position and an end that both stand nothing appears
        nothing = {key for key, end in ends.items() if self._nothing.get(key) == end}
        hints = {key: self._last[subject] for subject, key in wanted.items() if subject in self._last}
        short = {key for subject, key in wanted.items() if standing[subject].lag <= SHORT}
        unread = [key for key in ends if key in self._unread and key not in nothing]
        fresh = self._search(ends.keys() - known.keys() - nothing - self._unread, short, known, hints, int(now * 1000))
        nothing |= self._read(unread + fresh, known)
        self._nothing = {key: ends[key] for key in nothing}
        self._stamps = {key: stamp for key, stamp in known.items() if key not in self._searching}
        ages: dict[tuple[str, Place], tuple[float | None, bool]] = {}
        last: dict[tuple[str, Place], int] = {}
        for subject in standing:
            key = wanted.get(subject)
            if subject in self._last:
                last[subject] = self._last[subject]
            if key is None or key in nothing:
                ages[subject] = (0.0, False)
            elif key in known:
                stamp, is_bound = known[key]
                last[subject] = stamp
                ages[subject] = (max(0.0, now - stamp / 1000), is_bound)
            else:
                ages[subject] = (None, False)
        self._last = last
        return ages

    def _search(
        self,
        keys: set[Key],
        short: set[Key],
        known: dict[Key, tuple[int, bool]],
        hints: Mapping[Key, int],
        now_ms: int,
    ) -> list[Key]:
        """Add the timestamps of ``keys`` to ``known``; answer those whose record has to be read to be sure."""
        appended = {t for t, one in self._settings({key[0][0] for key in keys}).items() if one.stamping == "append"}
        searches = {
            key: self._searching.get(key)
            or Search(key[1], now_ms, append_time=key[0][0] in appended, hint=hints.get(key))
            for key in sorted(keys)
        }
        deadline = None if self._search_s is None else time.monotonic() + self._search_s
        while open_ones := [key for key, search in searches.items() if search.found is None]:
            for isolation, part in _requests(open_ones):
                answers = self._cluster.at_times({key[0]: searches[key].ask for key in part}, isolation)
                for key in part:
                    if key[0] in answers:
                        searches[key].take(*answers[key[0]])
                    else:
                        searches[key].found = Found(None)  # the topic went away meanwhile
            if deadline is not None and time.monotonic() >= deadline:
                break
        self._searching = {key: search for key, search in searches.items() if search.found is None}
        to_read = []
        for key, search in searches.items():
            stamp = search.found.timestamp if search.found is not None else None
            if stamp is not None:
                known[key] = (stamp, False)
            elif search.older is not None and key[0][0] in appended:
                known[key] = (search.older, True)  # holds if it may not be read
            if search.found is None:
                continue
            # The broker also answers with transaction markers and aborted records. In the middle of a log that is
            # near enough; at its end it would be a record that nobody can read and that grows older for ever.
            if stamp is None or (key in short and now_ms - stamp > CLOSE_MS):
                to_read.append(key)
        return to_read

    def _read(self, keys: list[Key], known: dict[Key, tuple[int, bool]]) -> set[Key]:
        """Read the records of ``keys``, the first of them where not all may be read in a round, and add their
        timestamps to ``known``. Answers those that have no record to wait for: only transaction markers, aborted or
        compacted records."""
        now, later = (keys, []) if self._reads_max is None else (keys[: self._reads_max], keys[self._reads_max :])
        self._unread = set(later)
        for key in self._unread & known.keys():
            known[key] = (known[key][0], True)
        nothing: set[Key] = set()
        for isolation, part in _requests(now):
            stamps = self._cluster.first_records({key[0]: key[1] for key in part}, isolation)
            for key in part:
                if key[0] in stamps:
                    stamp = stamps[key[0]]
                    if stamp is None:
                        known.pop(key, None)
                        nothing.add(key)
                    else:
                        known[key] = (stamp, False)
        return nothing


def _requests(keys: Iterable[Key]) -> Iterator[tuple[Isolation, list[Key]]]:
    """Split so that no part names a partition twice: a request holds one question for each."""
    waiting = list(keys)
    while waiting:
        isolation = waiting[0][2]
        part: dict[Place, Key] = {}
        rest: list[Key] = []
        for key in waiting:
            if key[2] == isolation and key[0] not in part:
                part[key[0]] = key
            else:
                rest.append(key)
        yield isolation, list(part.values())
        waiting = rest
