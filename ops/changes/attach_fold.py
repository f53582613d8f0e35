"""``attach --fold``: whether the past of a subscription can be folded, and what people are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import InputError

if TYPE_CHECKING:
    from consumers.subscription import Subscription
    from ops.positions import Position


def check_fold(subscription: Subscription, position: Position | None) -> None:
    """Raises InputError where there is nothing to fold, or what is sent cannot be folded."""
    name = subscription.name
    if subscription.policies.send != "latest":
        raise InputError(
            f"--fold merges all events about one thing into one delivery, and {name} sends every event. Set "
            f"'send: latest' in its policies if the newest values are enough there, or attach it without --fold. "
            "Nothing was changed."
        )
    actions = subscription.connector.actions
    asked = [route.action for routes in subscription.routes.values() for route in routes]
    if (other := next((name for name in asked if name is not None and not actions[name].upsert), None)) is not None:
        raise InputError(
            f"--fold merges upserts, and {name} asks {other}, which is none: each says something of its own. "
            "Attach it without --fold. Nothing was changed."
        )
    if position is None or position.kind == "latest":
        raise InputError(
            f"--fold is for the past that {name} begins with: say where it begins, --from earliest or --from @time. "
            "Nothing was changed."
        )


def fold_sentence(events: int) -> str:
    """What a plan says of it. How many things there are is known when all events were read, and not before."""
    return (
        f"folded: about {events:,} events are read, and one delivery an entity is sent: all of its events merged, the "
        "newest value of each field; what is published meanwhile follows after them"
    )
