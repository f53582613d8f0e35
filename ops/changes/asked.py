"""What the vendor was asked for an event, as its receipts tell it, and whether what would be asked now is the same: the
one comparison of ``subscription shadow`` and ``replay --only changed``. Pure.

What was sent without some of its fields (newer deliveries had sent them), or as one with other events (``send:
latest``), went out under a key that is made of which. So what would be asked now is put together in the same way before
it is compared; where no key tells how, it cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from consumers.merging import can_merge, fields_of, merged, merged_key, without
from consumers.pipeline import ToDeliver, delivery_key
from consumers.receipts import body_hash
from consumers.subscription import carried_by

if TYPE_CHECKING:
    from connectors.connector import Action, Delivery
    from ops.ledger.query import StoredReceipt
    from schemas.event import Origin

IsOf: TypeAlias = Callable[["StoredReceipt", str], bool]
"""Whether a receipt is about an entity, which it may hold as a hash (``Ledger.is_of``)."""
Actions: TypeAlias = Mapping[str, "Action"]
Likeness: TypeAlias = Literal["same", "different", "carried", "merged", "omitted"]
"""``different``: another action, entity or body. ``carried``: it was sent as one with newer events, and that would be
sent otherwise now; but of this one nothing would, as the newer ones say all of it anew. Not to be compared:
``merged``, sent as one with others, of which not all are known any more; ``omitted``, sent without fields that newer
deliveries had sent, and nobody can tell which."""
OMITTED_MAX: Final = 8
"""Of so many fields that were not sent any may be the ones that were left out; each set has a key to be tried."""


def asked_last(told: Sequence[StoredReceipt]) -> StoredReceipt | None:
    """The last time that the vendor took it, or may have; where it never did, the last time that it was asked in vain.
    None: it was never asked. ``told`` is in the order it happened."""
    reached = [one for one in told if has_reached(one)]
    asked = reached or [one for one in told if one.body_sha256 is not None]
    return asked[-1] if asked else None


def has_reached(one: StoredReceipt) -> bool:
    """Whether the vendor has what this receipt is about, or may have; also as a part of another delivery."""
    return one.merged_into is not None or (one.body_sha256 is not None and one.outcome in ("delivered", "unknown"))


def own_key(one: StoredReceipt) -> str:
    """The idempotency key it has if the event was sent by itself and whole."""
    return delivery_key(one.event_source, one.event_type, one.event_id, one.subscription, one.action, one.revision)


def is_together(one: StoredReceipt) -> bool:
    """Whether it was sent as one with others, as the first of them or the one that carries them. What a change sends
    again goes by itself."""
    if one.merged_into is not None:
        return True
    return one.change_id is None and one.body_sha256 is not None and one.idempotency_key != own_key(one)


def compare(
    sent: StoredReceipt, made: ToDeliver, is_of: IsOf, actions: Actions, together: Together | None = None
) -> Likeness:
    """What would be asked now against what was (``asked_last``). ``together``: what it was sent as one with."""
    found = _compare(sent, made, is_of, actions, together)
    # also where a change has sent it by itself since
    is_carried = together is not None and together.carries(made.delivery.sequence, actions)
    return "carried" if found == "different" and is_carried else found


def _compare(
    sent: StoredReceipt, made: ToDeliver, is_of: IsOf, actions: Actions, together: Together | None
) -> Likeness:
    if is_together(sent):
        if together is None:
            return "merged"
        as_one = together.delivery(actions)
        return "same" if as_one is not None and is_same(together.receipt, as_one, is_of) else "different"
    if sent.action != made.delivery.action or not is_of(sent, made.delivery.entity):
        return "different"
    now = _as_it_was_sent(sent, made.delivery, actions)
    return "omitted" if now is None else "same" if is_same(sent, now, is_of) else "different"


def is_same(sent: StoredReceipt, now: Delivery, is_of: IsOf) -> bool:
    """Whether the vendor would be asked what a receipt says: action, entity and body."""
    return sent.action == now.action and sent.body_sha256 == body_hash(now.body) and is_of(sent, now.entity)


def _as_it_was_sent(sent: StoredReceipt, delivery: Delivery, actions: Actions) -> Delivery | None:
    """The delivery without what was left out of it when it was sent; None where nobody can tell."""
    whole = own_key(sent)
    if sent.idempotency_key == whole:
        return delivery
    action = actions[delivery.action]
    absent = sorted(fields_of(delivery, action) - set(sent.body_fields))
    if len(absent) > OMITTED_MAX:
        return None
    as_named = replace(delivery, idempotency_key=whole)
    for count in range(len(absent), 0, -1):
        for names in combinations(absent, count):
            left = without(as_named, names, action)
            if left is not None and left.idempotency_key == sent.idempotency_key:
                return left
    return None


@dataclass(frozen=True, slots=True)
class Together:
    """Events that were sent as one. ``receipt`` is that of the one which carried them; ``made`` what is made of each
    now, in the order of the log, the carrier last (None: nothing is asked for it now)."""

    receipt: StoredReceipt
    made: Mapping[Origin, ToDeliver | None]

    def carries(self, origin: Origin, actions: Actions) -> bool:
        """Whether newer ones say all that one of its events would say now, so that it is not to be sent itself."""
        delivery, omit = self._delivery(origin), self.said_anew(origin, actions)
        return bool(omit) and without(delivery, omit, actions[delivery.action]) is None

    def delivery(self, actions: Actions) -> Delivery | None:
        """What would be sent of them as one; None where they would not go as one now."""
        found = [one.delivery for one in self.made.values() if one is not None]
        if len(found) < len(self.made):
            return None
        action = actions[found[-1].action]
        if not action.upsert or not all(can_merge(*both, action) for both in pairwise(found)):
            return None
        return merged(found, action)

    def as_one(self, actions: Actions) -> ToDeliver | None:
        """The same as if the event that carries them asked it; what any of them carries of people, it carries."""
        delivery = self.delivery(actions)
        found = [one for one in self.made.values() if one is not None]
        if delivery is None:
            return None
        carried = carried_by(one.route for one in found)
        return ToDeliver(found[-1].event, delivery, replace(found[-1].route, carried=carried))

    def said_anew(self, origin: Origin, actions: Actions) -> tuple[str, ...]:
        """The fields of one of its events that a newer one of the same thing says as well."""
        mine = self._delivery(origin)
        action = actions[mine.action]
        newer = [one.delivery for place, one in self.made.items() if one is not None and place.offset > origin.offset]
        names = {name for one in newer if can_merge(mine, one, action) for name in fields_of(one, action)}
        return tuple(sorted(names & fields_of(mine, action)))

    def _delivery(self, origin: Origin) -> Delivery:
        made = self.made[origin]
        assert made is not None
        return made.delivery


def is_whole(carrier: StoredReceipt, others: Sequence[StoredReceipt]) -> bool:
    """Whether a delivery was made of exactly these: its key is made of all of theirs. ``others`` are in the order of
    the log."""
    keys = [*(own_key(one) for one in others), own_key(carrier)]
    return bool(others) and carrier.idempotency_key == merged_key(keys)
