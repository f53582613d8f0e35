"""The vendor's state against the expected one, page by page. Changes nothing there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from connectors.connector import Rejected
from consumers.receipts import about_text
from ops.changes.staleness import guarded_actions
from ops.reconcile.comparison import Difference, Window, compared, unexpected
from ops.reconcile.expected import Expectations, Expected, mask
from ops.reconcile.reading import subject_of
from ops.reconcile.result import VendorState

if TYPE_CHECKING:
    from connectors.connector import Action, Listed
    from consumers.subscription import Subscription
    from ops.ledger.query import Ledger
    from ops.reconcile.asking import Asking


class Vendor:
    """One subscription's vendor. ``others``: the topics of other attached subscriptions that write there, by name;
    ``salt`` makes the subjects of differences; ``keep`` takes each difference as it is found. ``state`` counts."""

    def __init__(
        self,
        subscription: Subscription,
        expected: Expectations,
        ledger: Ledger,
        window: Window,
        *,
        others: Mapping[str, frozenset[str]],
        salt: str,
        keep: Callable[[Difference], object],
    ) -> None:
        self._subscription, self._expected, self._ledger, self._window = subscription, expected, ledger, window
        self._others, self._salt, self._keep = others, salt, keep
        self._actions = subscription.connector.actions
        self.state = VendorState(compared=True)

    async def compare(self, asking: Asking, *, extra: bool) -> None:
        """Ask for everything that is expected, and with ``extra`` for everything of ours that is there."""
        async with asking:
            for page in self._expected.pages(self._subscription.connector.batch_max):
                await self._page(asking, page)
            if extra:
                await self._too_much(asking)
            else:
                self.state.extra_why = "not asked for"

    # ---- what is expected

    async def _page(self, asking: Asking, page: Sequence[Expected]) -> None:
        state = self.state
        wanted = [one for one in page if self._is_told(one)]
        if not wanted:
            return
        action = self._actions[wanted[0].action]
        deliveries = [one.delivery(action) for one in wanted]
        state.entities += len(wanted)
        for one, delivery, kept in zip(wanted, deliveries, await asking.read_back(deliveries), strict=True):
            if isinstance(kept, Rejected):
                state.unreadable += 1
                continue
            about = about_text(delivery, action)
            different = compared(one, kept, about, subject_of((one.action, about, one.entity), self._salt))
            if different is None:
                state.equal += 1
            else:
                self._keep(different)

    def _is_told(self, one: Expected) -> bool:
        """Whether the vendor's state of this entity can be judged; counted where it cannot."""
        state = self.state
        if one.doubt == "in_motion":
            state.in_motion += 1
        elif one.doubt == "open_letter":
            state.open_letter += 1
        elif self._is_erased(one):
            state.erased += 1
        else:
            return one.newest is not None
        return False

    @cached_property
    def _erased(self) -> Mapping[tuple[str, str, str], datetime]:
        return self._ledger.erased(self._subscription.name)

    def _is_erased(self, one: Expected) -> bool:
        """Whether the vendor has erased it, for a person, since the newest event about it."""
        action = self._actions[one.action]
        if not action.erased_by or one.newest is None or not self._erased:
            return False
        newest = datetime.fromtimestamp(one.newest.at / 1000, UTC)
        about = " ".join(str(one.about.get(name, "")) for name in action.about)
        return any(
            (at := self._erased.get((action.erased_by, of, entity))) is not None and newest <= at
            for of in {*self._ledger.forms(about), about}
            for entity in self._ledger.forms(one.entity)
        )

    # ---- what is not

    async def _too_much(self, asking: Asking) -> None:
        state, kind = self.state, self._subscription.connector
        if not kind.list_ours:
            state.extra_why = f"the connector {kind.name} cannot tell which things there are ours"
            return
        whole: dict[tuple[str, str], Mapping[str, Any]] = {
            (name, ""): {} for name in guarded_actions(self._subscription) if not self._actions[name].about
        }
        for (name, about), fields in sorted((whole | self._expected.abouts).items(), key=lambda one: one[0]):
            action, after = self._actions[name], ""
            while True:
                page = await asking.list_ours(fields, after)
                if self._others and any(one.origin is None for one in page.found):
                    verb = "writes" if len(self._others) == 1 else "write"
                    names = ", ".join(sorted(self._others))
                    state.extra_why = f"{names} {verb} there, too, and the vendor does not say who made what"
                    return
                state.listed += len(page.found)
                for listed in page.found:
                    for different in self._judged(listed, action, about):
                        self._keep(different)
                if page.after is None:
                    break
                after = page.after

    def _judged(self, listed: Listed, action: Action, about: str) -> Iterator[Difference]:
        key = (action.name, about, listed.entity)
        if self._expected.known(key) is not None:
            return
        state = self.state
        match unexpected(listed, self._window):
            case "before":
                state.before += 1
            case "after":
                state.after += 1
            case "others":
                state.others += 1
            case "extra":
                yield Difference(
                    kind="extra", action=action.name, about=about or None,
                    entity=self._entity_mask or listed.entity, reference=listed.reference,
                    subject=subject_of(key, self._salt), why="no event that was read made it",
                )  # fmt: skip

    @cached_property
    def _entity_mask(self) -> str:
        """What stands in place of an entity that no event is known of, where some route's is personal."""
        routes = [route for routes in self._subscription.routes.values() for route in routes]
        return mask(
            frozenset().union(*(one.carried.get(at, frozenset()) for one in routes for at in ("entity", "body")))
        )
