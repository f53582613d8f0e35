"""Batches: heads of distinct lanes that are asked of the vendor in one call. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from consumers.work import Work


class Batches:
    """Forms batches of one action and distinct entities, at most ``batch_max`` each; ``ready`` are those to be sent,
    the next one on the left."""

    def __init__(self, batch_max: int) -> None:
        self._max = batch_max
        self._forming: dict[str, dict[str, Work]] = {}
        self.ready: deque[list[Work]] = deque()

    @property
    def forming(self) -> bool:
        """Whether some are not full yet: they linger for a moment, then ``flush`` sends them."""
        return bool(self._forming)

    def add(self, work: Work) -> None:
        """Take one projected work in."""
        delivery = work.delivery
        assert delivery is not None
        if self._max == 1:
            self.ready.append([work])
            return
        batch = self._forming.setdefault(delivery.action, {})
        if delivery.entity in batch:
            self.ready.append(list(batch.values()))
            batch.clear()
        batch[delivery.entity] = work
        if len(batch) >= self._max:
            self.ready.append(list(self._forming.pop(delivery.action).values()))

    def flush(self) -> None:
        """What is forming is ready as it is."""
        self.ready.extend(list(batch.values()) for batch in self._forming.values())
        self._forming.clear()

    def halve(self, refused: Iterable[Work]) -> None:
        """A batch that was refused as a whole is next, in two halves."""
        works = list(refused)
        middle = (len(works) + 1) // 2
        for half in (works[middle:], works[:middle]):
            if half:
                self.ready.appendleft(half)
