"""Which events were sent as one (``send: latest``): the ledger says it, and their records still stand in the topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumers.pipeline import Projection, ToDeliver
from ops.changes.asked import Together, is_together, is_whole
from ops.lag.cluster import Cluster
from ops.reading import read_spans

if TYPE_CHECKING:
    from ops.app import App
    from ops.lag.cluster import Place
    from ops.ledger.query import Ledger, StoredReceipt
    from schemas.event import Origin, Record


@dataclass(frozen=True, slots=True)
class Group:
    """The receipt of a delivery that carried several events, and their records, the carrier's last."""

    receipt: StoredReceipt
    records: tuple[Record, ...]

    def made(self, make: Callable[[Record], Projection | None]) -> Together:
        """What a version makes of each now. Raises what ``make`` does."""
        found = ((record.origin, make(record)) for record in self.records)
        return Together(self.receipt, {place: one if isinstance(one, ToDeliver) else None for place, one in found})


def groups(
    app: App,
    ledger: Ledger,
    subscription: str,
    told: Mapping[Origin, Sequence[StoredReceipt]],
    records: Iterable[Record],
) -> dict[Origin, Group]:
    """For each of these events (``told``: their receipts) that was sent as one with others, with which; not in it:
    those sent by themselves, and those of which the ledger or the topic does not have all any more.

    Blocks on the ledger, and on the cluster for those that are not among the ``records``. Raises UnreachableError."""
    asked = [one for ones in told.values() for one in ones if is_together(one)]
    if not asked:
        return {}
    whole = [found for found in ledger.sent_together(subscription, asked) if is_whole(found[-1], found[:-1])]
    there = {record.origin: record for record in records}
    there |= _read(app, [one.origin for found in whole for one in found if one.origin not in there])
    known: dict[Origin, Group] = {}
    for found in whole:
        if all(one.origin in there for one in found):
            group = Group(found[-1], tuple(there[one.origin] for one in found))
            known |= {one.origin: group for one in found}
    return known


def _read(app: App, origins: Sequence[Origin]) -> dict[Origin, Record]:
    """The records at these places, as far as they are there."""
    wanted: dict[Place, set[int]] = {}
    for topic, partition, offset in origins:
        wanted.setdefault((topic, partition), set()).add(offset)
    if not wanted:
        return {}
    starts = Cluster(app.admin(), app.consumer).starts(wanted)
    spans = {
        place: [(offset, offset + 1) for offset in sorted(offsets) if offset >= starts[place]]
        for place, offsets in wanted.items()
        if place in starts
    }
    return {record.origin: record for records in read_spans(app, spans) for record in records}
