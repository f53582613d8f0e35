"""Batches: heads of distinct lanes that are asked of the vendor in one call. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from connectors.connector import Delivery
from consumers.work import Work


@dataclass(slots=True)
class Batch:
    """One call: works of distinct lanes and what is asked for each. ``look_up``: the vendor is asked whether the one
    delivery in it has happened. (Not frozen: it is made per call.)"""

    works: list[Work]
    deliveries: list[Delivery]
    background: bool
    look_up: bool = False
    began: float = 0.0


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
        if self._max == 1 or work.doubtful:
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

    def pull(self, work: Work) -> bool:
        """Take one out again that was not sent yet; False when it is not here."""
        for action, batch in self._forming.items():
            if (found := next((entity for entity, one in batch.items() if one is work), None)) is not None:
                del batch[found]
                if not batch:
                    del self._forming[action]
                return True
        for ready in self.ready:
            if work in ready:
                ready.remove(work)
                if not ready:
                    self.ready.remove(ready)
                return True
        return False
