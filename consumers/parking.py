"""Parked keys: while a key has an open dead letter, its later events are set aside behind it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.assignment import Place

PARKED_KEYS_MAX = 1_000


class ParkedKeys:
    """The open letters of the partitions owned here, by key. A record without a key stands alone and parks nothing."""

    def __init__(self) -> None:
        self._open: dict[Place, dict[bytes, set[int]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def begin(self, place: Place, letters: Sequence[tuple[bytes | None, int]]) -> None:
        """A partition is taken on, with the key and offset of each of its open letters."""
        self._open[place] = {}
        for key, offset in letters:
            self.opened(place, key, offset)

    def end(self, place: Place) -> None:
        """A partition is given up."""
        self._open.pop(place, None)

    def opened(self, place: Place, key: bytes | None, offset: int) -> None:
        """A letter of a partition that is owned here was acked."""
        keys = self._open.get(place)
        if keys is not None and key is not None:
            keys.setdefault(key, set()).add(offset)

    def closed(self, place: Place, key: bytes | None, offset: int) -> None:
        """A letter's tombstone was acked; the key goes on when it was the last."""
        keys = self._open.get(place)
        if keys is None or key is None or key not in keys:
            return
        keys[key].discard(offset)
        if not keys[key]:
            del keys[key]

    def is_parked(self, place: Place, key: bytes | None) -> bool:
        return key is not None and key in self._open.get(place, ())

    def first(self, place: Place, key: bytes | None) -> int | None:
        """The offset of the key's first open letter; None when it is not parked."""
        offsets = self._open.get(place, {}).get(key) if key is not None else None
        return min(offsets) if offsets else None

    def oldest(self, limit: int) -> list[tuple[Place, int, int]]:
        """Place, offset of the first open letter, and how many letters: of at most ``limit`` keys, oldest offsets
        first."""
        found = [(place, min(offsets), len(offsets)) for place, keys in self._open.items() for offsets in keys.values()]
        return sorted(found, key=lambda one: one[1])[:limit]
