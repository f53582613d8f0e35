"""Whether sending an old upsert again would overwrite newer values: what was sent later of the same thing is left out.

The ledger knows what was sent later. What is delivered between the question and the sending is the limit of this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from consumers.merging import fields_of, without
from consumers.pipeline import NotOurs, Pipeline, ToDeliver, Wanted
from consumers.receipts import about_text
from consumers.subscription import Subscription, load_text
from ops.changes.orders import erasure_of
from ops.ledger.query import Older
from schemas.errors import BackboneError, RefusedError, UnreachableError
from schemas.event import Origin, Record

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.deadletter import DeadLetter
    from ops.app import App
    from ops.ledger.query import Ledger

LEDGER_WAIT_S: Final = 20.0
"""So long the ledger may take to write what is on its way to it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would come of a letter now. ``omit``: fields of its body that later deliveries have sent; ``superseded``:
    nothing is left of it; ``refused``: the map refuses it still; ``not_ours``: no route takes it any more."""

    kind: Literal["fresh", "stale", "superseded", "refused", "not_ours", "not_known"]
    omit: tuple[str, ...] = ()


FRESH = Verdict("fresh")


def attached_subscription(app: App, attached: AttachedSubscription) -> Subscription:
    """The subscription as it runs, compiled here. Raises RefusedError where this project cannot (another projection
    file, a connection that it does not have)."""
    definition = attached.definition
    assert definition is not None
    try:
        return load_text(
            attached.name,
            definition.text,
            contracts=app.contracts,
            connections=app.connection_types,
            folder=app.project.subscriptions,
            events=definition.events,
            projections=definition.projections,
        )
    except BackboneError as error:
        raise RefusedError(
            f"{attached.name}@{definition.version} cannot be loaded here, so what it would send is not known: {error}"
        ) from None


def guarded_actions(subscription: Subscription) -> frozenset[str]:
    """The actions of a subscription whose old deliveries could overwrite newer ones."""
    asked = {route.action for routes in subscription.routes.values() for route in routes}
    actions = subscription.connector.actions
    names = set(actions) if None in asked else {name for name in asked if name is not None}
    return frozenset(name for name in names if actions[name].upsert)


class Guard:
    """Judges letters of one subscription. Blocks on the registry, the cluster and the ledger; one thread.

    Raises RefusedError where the context keeps no ledger although the subscription has actions that need it, naming
    ``--allow-stale``."""

    def __init__(self, app: App, subscription: Subscription) -> None:
        self._app, self._subscription = app, subscription
        self._pipeline = Pipeline(subscription, app.decoder)
        self._guarded = guarded_actions(subscription)
        self._ledger = self._open() if self._guarded else None

    @property
    def asks(self) -> bool:
        """Whether anything of this subscription can be stale, so that the ledger is asked."""
        return self._ledger is not None

    def check(self) -> None:
        """Raises RefusedError, UnreachableError where the ledger cannot tell what was sent later: there is none, or it
        does not read on to the end."""
        if self._ledger is None:
            return
        from ops.ledger.query import read_to_end

        try:
            read_to_end(self._app, wait_s=LEDGER_WAIT_S)
        except UnreachableError as error:
            raise UnreachableError(f"{error} {self._otherwise()}") from None
        if not self._ledger.exists:
            raise RefusedError(f"The ledger is empty: no worker has written to it yet. {self._otherwise()}")

    def judge(self, found: Iterable[DeadLetter]) -> dict[Origin, Verdict]:
        """What would come of these letters now, by origin. Raises as ``check``."""
        verdicts: dict[Origin, Verdict] = {}
        guarded: list[tuple[Origin, ToDeliver, datetime | None]] = []
        for letter in found:
            if erasure_of(letter) is not None:
                verdicts[letter.origin] = FRESH
                continue
            made = self._made(letter.record)
            if isinstance(made, Verdict):
                verdicts[letter.origin] = made
            else:
                guarded.append((letter.origin, made, _moment(letter.last_at)))
        if any(made.delivery.action in self._guarded for _, made, _ in guarded):
            self.check()
        judged = self.verdicts(guarded)
        return verdicts | {origin: one for (origin, _, _), one in zip(guarded, judged, strict=True)}

    def verdicts(self, asked: Sequence[tuple[Origin, ToDeliver, datetime | None]]) -> list[Verdict]:
        """Of each event's delivery, whether sending it now would overwrite newer values. With it, when it was dealt
        with before, for what was sent from other partitions. Call ``check`` first."""
        actions = self._subscription.connector.actions
        guarded = [
            (place, Older(action=made.delivery.action, entity=made.delivery.entity, origin=origin, since=since,
                          about=about_text(made.delivery, actions[made.delivery.action])))
            for place, (origin, made, since) in enumerate(asked)
            if made.delivery.action in self._guarded
        ]  # fmt: skip
        verdicts = [FRESH] * len(asked)
        if self._ledger is None or not guarded:
            return verdicts
        later = self._ledger.sent_later(self._subscription.name, [older for _, older in guarded])
        for (place, older), names in zip(guarded, later, strict=True):
            delivery, action = asked[place][1].delivery, actions[older.action]
            omit = tuple(sorted(names & fields_of(delivery, action)))
            if omit:
                left = without(delivery, omit, action)
                verdicts[place] = Verdict("stale" if left is not None else "superseded", omit)
        return verdicts

    def _made(self, record: Record) -> ToDeliver | Verdict:
        try:
            made = self._pipeline.project(record)
            while isinstance(made, Wanted):
                self._app.decoder.load(made.schema)
                made = self._pipeline.project(record)
        except BackboneError:
            return Verdict("not_known")  # its schema is not to be had: the runtime waits for it as always
        if isinstance(made, ToDeliver):
            return made
        return Verdict("not_ours") if isinstance(made, NotOurs) else Verdict("refused")

    def _open(self) -> Ledger:
        from ops.ledger.query import open_ledger

        try:
            ledger = open_ledger(self._app)
        except RefusedError as error:
            raise RefusedError(f"{error} {self._otherwise()}") from None
        self._app.on_close(ledger.close)
        return ledger

    def _otherwise(self) -> str:
        names = ", ".join(sorted(self._guarded))
        return (
            f"Without it nobody knows whether this would overwrite newer values ({names} writes what an event "
            "said then). To send all of it all the same: --allow-stale. Nothing was changed."
        )


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
