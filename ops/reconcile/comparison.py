"""What a vendor has against what it should have, entity by entity; and which events would mend it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from ops.reconcile.counting import FOUND, Finding, Found

if TYPE_CHECKING:
    from connectors.connector import Kept, Listed
    from ops.lag.cluster import Place
    from ops.reconcile.expected import Expected

AtVendor: TypeAlias = Literal["missing", "different", "extra"]
AT_VENDOR: Final[tuple[AtVendor, ...]] = get_args(AtVendor)
Kind: TypeAlias = Found | AtVendor
KINDS: Final[tuple[Kind, ...]] = (*FOUND, *AT_VENDOR)
"""Every kind of difference, in the order in which they are told."""
REPAIRED: Final = frozenset({"missing", "different"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it should be. Of the ledger: ``count`` records in ``[start, end)`` of a partition. Of
    the vendor: an entity, with what a person sees of it and of the ``fields`` that differ (name, expected, found), and
    its ``reference`` there. ``holds``: by event (its origin), the fields whose newest value it said; ``send``: the
    events that mend it, ``as_of`` the newest about the entity. ``subject`` tells the entity from others and names
    nobody."""

    kind: Kind
    topic: str | None = None
    partition: int | None = None
    start: int | None = None
    end: int | None = None
    count: int = 1
    action: str | None = None
    about: str | None = None
    entity: str | None = None
    reference: str | None = None
    fields: tuple[Mapping[str, Any], ...] = ()
    why: str | None = None
    subject: str | None = None
    holds: Mapping[str, list[str]] = field(default_factory=dict)
    send: tuple[str, ...] = ()
    as_of: str | None = None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def of_ledger(place: Place, found: Finding) -> Difference:
    """A finding of the counting."""
    return Difference(
        kind=found.kind, topic=place[0], partition=place[1], start=found.start, end=found.end, count=found.count
    )


def compared(one: Expected, kept: Kept | None, about: str, subject: str) -> Difference | None:
    """How the vendor's state of an entity differs from the expected one; None: it does not."""
    if not one.should_be:
        if kept is None or one.gone is None:
            return None
        return Difference(
            kind="extra", action=one.action, about=about or None, entity=one.mask or one.entity,
            reference=kept.reference, subject=subject,
            why=f"the event at {one.gone.origin} deleted it",
        )  # fmt: skip
    if kept is None:
        names = list(one.values)
        return _mended(one, "missing", names, about, subject, (), None)
    names = [name for name in one.values if kept.asked.get(name) != kept.found.get(name)]
    if not names:
        return None
    fields = tuple(
        {
            "name": name,
            "expected": one.values[name].mask or kept.asked.get(name),
            "found": one.values[name].mask or kept.found.get(name),
        }
        for name in names
    )
    return _mended(one, "different", names, about, subject, fields, kept.reference)


def _mended(
    one: Expected,
    kind: AtVendor,
    names: list[str],
    about: str,
    subject: str,
    fields: tuple[Mapping[str, Any], ...],
    reference: str | None,
) -> Difference:
    """With the events that said what is wrong there now; of an entity without any field, the one that wrote it."""
    assert one.written is not None
    holds: dict[str, list[str]] = {}
    for name, value in one.values.items():
        holds.setdefault(str(value.stamp.origin), []).append(name)
    send = {one.values[name].stamp for name in names} or {one.written}
    in_order = sorted(send, key=lambda stamp: (stamp.origin[:2], stamp.origin.offset))
    return Difference(
        kind=kind, action=one.action, about=about or None, entity=one.mask or one.entity, reference=reference,
        fields=fields, subject=subject, holds=holds, send=tuple(str(stamp.origin) for stamp in in_order),
        as_of=str(one.written.origin),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """What was read of the topics: offsets ``[low, high)`` by partition. ``whole``: from the beginning of the logs;
    ``since``: when the first record that was read arrived. ``readers``: topics that other subscriptions bring to the
    same connection."""

    spans: Mapping[Place, tuple[int, int]]
    whole: bool
    since: datetime | None
    readers: frozenset[str] = frozenset()


Extra: TypeAlias = Literal["extra", "before", "after", "others"]
"""What a thing at the vendor is that no event made which was read: too much; made before what was read; written since;
or by another subscription."""


def unexpected(listed: Listed, window: Window) -> Extra:
    """Of a thing of ours at the vendor that is not expected there. What may come from events that are deleted by now
    is not too much."""
    if listed.origin is not None:
        topic, partition, offset = listed.origin
        span = window.spans.get((topic, partition))
        if topic in window.readers:
            return "others"
        if span is None:
            return "extra"
        return "before" if offset < span[0] else "after" if offset >= span[1] else "extra"
    if window.whole:
        return "extra"
    if listed.made_at is None or window.since is None or listed.made_at < window.since:
        return "before"
    return "extra"
