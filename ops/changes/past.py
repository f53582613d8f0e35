"""Past events of a subscription, looked at once more: which of them a person means, what would be asked of the vendor
now, and whether that is due, as the ledger and the open dead letters know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from consumers.expressions import ExpressionError
from consumers.merging import without
from consumers.pipeline import NotOurs, OfErased, Pipeline, Projection, Refused, ToDeliver, Wanted
from ops.changes.asked import Actions, IsOf, Together, asked_last, compare, has_reached, is_same
from ops.changes.orders import on_their_way
from ops.changes.staleness import LEDGER_WAIT_S, Guard, Verdict
from ops.changes.together import groups
from ops.control import erased_people
from ops.dead_topic import DeadTopic, Standing
from ops.event_log import holds
from ops.ledger.query import read_to_end
from schemas.codec import SchemaWanted
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.event import Event, Origin, Record
from schemas.findings import did_you_mean
from schemas.registry import SchemaNotFoundError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.app import App
    from ops.changes.plan import JsonValue
    from ops.lag.cluster import Place
    from ops.ledger.query import Ledger, StoredReceipt

Only: TypeAlias = Literal["all", "missing", "failed", "changed"]
ONLY: tuple[Only, ...] = get_args(Only)
DONE: Final = frozenset({"delivered", "skipped"})
FAILED: Final = frozenset({"rejected", "undecodable", "exhausted", "unknown", "parked"})
WITHOUT_LEDGER: Final = (
    "Without it only everything can be sent again, however old: --only all --allow-stale. Nothing was changed."
)
Due: TypeAlias = Literal[
    "due", "not_asked_for", "same", "carried", "merged", "omitted", "not_known", "refused", "superseded", "expired",
    "on_its_way", "erased",
]  # fmt: skip
"""What stands against sending an event: ``not_asked_for`` by ``--only``; ``same``, ``carried``, ``merged`` and
``omitted`` by comparison with what was sent (``ops.changes.asked.Likeness``); ``not_known``: it is older than the
ledger; ``refused``: the version attached now cannot take it; ``superseded``: newer deliveries have sent all of it;
``expired``; ``on_its_way``: another change has sent it and it waits in the inbox; ``erased``: it is about a person who
was erased after it had arrived. Of a due one nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events are meant: of these types (full names), with this record key, about this entity at the vendor, for
    which ``where`` is true; and of those all, or the ones that ``only`` says:

    missing: no delivery of it ended as delivered or skipped · failed: its last one ended as a dead letter (not what a
    person discarded) · changed: it was delivered, and the version attached now would ask something else for it: another
    action, entity or body."""

    types: tuple[str, ...]
    key: str | None = None
    entity: str | None = None
    where: str | None = None
    only: Only = "all"

    def plain(self) -> JsonValue:
        return asdict(self) | {"types": list(self.types)}


def selection_of(plain: Mapping[str, Any]) -> Selection:
    """The selection of a plan's details."""
    return Selection(**{**plain, "types": tuple(plain["types"])})


def types_named(names: Sequence[str], subscription: Subscription) -> tuple[str, ...]:
    """Event types as people write them (in full or the last part), as the subscription reads them; all without.
    Raises NotFoundError with a suggestion, InputError where a last part is that of several."""
    reads = sorted(subscription.routes)
    found = []
    for name in names:
        fitting = [full for full in reads if name in (full, full.rpartition(".")[2])]
        if len(fitting) > 1:
            raise InputError(f"'{name}' may be {' or '.join(fitting)}; give the full name.")
        if not fitting:
            known = [*reads, *(full.rpartition(".")[2] for full in reads)]
            raise NotFoundError(
                f"{subscription.name} does not read '{name}'.{did_you_mean(name, known)} It reads: {', '.join(reads)}."
            )
        found += fitting
    return tuple(dict.fromkeys(found)) or tuple(reads)


@dataclass(frozen=True, slots=True)
class Past:
    """A record that is meant, and what this subscription makes of it now; None: it would be refused, or its person was
    erased."""

    record: Record
    type: str
    made: ToDeliver | None
    is_erased: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a past event is sent again. ``send`` is also true for some that nothing is asked of the vendor for:
    their end is still missing (no receipt says it, or a dead letter is open), and the workers write it. ``letter`` is
    its open dead letter, ``omit`` what newer deliveries have sent of its body."""

    past: Past
    due: Due
    send: bool
    omit: tuple[str, ...] = ()
    letter: Standing | None = None


class Sieve:
    """Tells which records are meant. Blocks on the registry only; one thread. Raises InputError for an expression that
    fits none of the types; ``unfit`` are those it cannot be said of, which are not meant then."""

    def __init__(self, app: App, subscription: Subscription, selection: Selection) -> None:
        self._app, self._selection = app, selection
        self._pipeline = Pipeline(subscription, app.decoder, erased_people(app))
        self._key = None if selection.key is None else selection.key.encode()
        self._where, self.unfit = _conditions(subscription, selection)

    def look(self, record: Record) -> Past | None:
        """The record if it is meant. Raises UnreachableError where its schema must be fetched and cannot be."""
        if self._key is not None and record.key != self._key:
            return None
        made = self.made(record)
        if isinstance(made, NotOurs):
            return None
        if isinstance(made, OfErased):
            # whether more would have been asked of it does not matter: it is not sent
            return Past(record, made.event_type, None, is_erased=True) if self._is_of_types(made.event_type) else None
        if not isinstance(made, ToDeliver):
            type_ = made.event_type if isinstance(made, Refused) else ""
            # of what cannot be read nobody can tell whether it is meant, where more is asked than its type and key
            told = self._selection.where is None and self._selection.entity is None
            return Past(record, type_, None) if told and self._is_of_types(type_) else None
        event = made.event
        if event.type not in self._selection.types:
            return None
        if self._selection.entity is not None and made.delivery.entity != self._selection.entity:
            return None
        if self._where is not None and not (event.type in self._where and self._where[event.type](event)):
            return None
        return Past(record, event.type, made)

    def _is_of_types(self, type_: str) -> bool:
        return not type_ or type_ in self._selection.types

    def made(self, record: Record) -> Projection | None:
        """What the subscription makes of any record, meant or not; never Wanted. None: the registry has no such schema,
        so nobody can read it now. Raises as ``look``."""
        try:
            routed = self._pipeline.route(record)
            while isinstance(routed, SchemaWanted):
                self._app.decoder.load(routed)
                routed = self._pipeline.route(record)
            if not routed:
                return NotOurs()
            made = self._pipeline.project(record)
            while isinstance(made, Wanted):
                self._app.decoder.load(made.schema)
                made = self._pipeline.project(record)
        except SchemaNotFoundError:
            return None
        return made


def _conditions(
    subscription: Subscription, selection: Selection
) -> tuple[Mapping[str, Callable[[Event], bool]] | None, Mapping[str, str]]:
    """The condition by type, and the types it cannot be said of with the reason."""
    if selection.where is None:
        return None, {}
    found: dict[str, Callable[[Event], bool]] = {}
    unfit: dict[str, ExpressionError] = {}
    for type_ in selection.types:
        try:
            found[type_] = holds(selection.where, subscription.contracts[type_])
        except ExpressionError as error:
            unfit[type_] = error
    if not found:
        raise next(iter(unfit.values()))
    return found, {type_: str(error) for type_, error in unfit.items()}


class Judge:
    """Says of past events whether they are sent again. Blocks on the cluster and the ledger; one thread. ``change`` is
    the one that asks (none yet: ""). Raises RefusedError where there is no ledger and it is needed."""

    def __init__(
        self,
        app: App,
        attached: AttachedSubscription,
        subscription: Subscription,
        selection: Selection,
        *,
        allow_stale: bool,
        change: str = "",
    ) -> None:
        self._app, self._attached, self._subscription = app, attached, subscription
        self._only, self._allow_stale = selection.only, allow_stale
        # not asked at all where everything is sent as it is, or nothing that is asked of the vendor can be stale
        self._ledger = None if selection.only == "all" else self._open()
        self._guard = None if allow_stale else Guard(app, subscription)
        if self._guard is not None and self._guard.asks:
            self._ledger = self._open()
        self._dead = DeadTopic(app, subscription.name)
        self._on_their_way = on_their_way(app, subscription.name, change)
        self._known_from: Mapping[Place, int] = {}
        self._sieve = Sieve(app, subscription, replace(selection, where=None))

    def check(self) -> None:
        """Have the ledger and the open letters as they are now. Raises UnreachableError where the ledger does not read
        on to the end, RefusedError where it is empty."""
        self._dead.refresh()
        if self._guard is not None:
            self._guard.check()
        if self._ledger is None:
            return
        if self._guard is None or not self._guard.asks:
            read_to_end(self._app, wait_s=LEDGER_WAIT_S)
        if not self._ledger.exists and self._only != "all":
            raise RefusedError(f"The ledger is empty: no worker has written to it yet. {WITHOUT_LEDGER}")
        self._known_from = self._ledger.known_from(self._subscription.name)

    def judge(self, found: Sequence[Past]) -> list[Judged]:
        """One answer each, in their order. Call ``check`` first."""
        told: Mapping[Origin, Sequence[StoredReceipt]] = {}
        together: Mapping[Origin, Together] = {}
        if self._ledger is not None:
            events = {past.record.origin: None if past.made is None else past.made.event for past in found}
            told = receipts_of(self._ledger, self._subscription.name, events)
            if self._only == "changed":
                together = self._together(self._ledger, told, found)
        judged = [
            self._judged(past, told.get(past.record.origin, ()), together.get(past.record.origin)) for past in found
        ]
        if self._guard is None:
            return judged
        asked = []
        for place, one in enumerate(judged):
            origin, made = one.past.record.origin, one.past.made
            if one.due == "due" and made is not None:
                ended = told.get(origin, ())
                # what the vendor was sent for this event together with newer ones was not sent later than it
                sent_at = together[origin].receipt.origin if origin in together else origin
                asked.append((place, (sent_at, made, ended[-1].last_at if ended else None)))
        verdicts = self._guard.verdicts([one for _, one in asked])
        for (place, _), verdict in zip(asked, verdicts, strict=True):
            judged[place] = self._guarded(judged[place], verdict, told.get(judged[place].past.record.origin, ()))
        return judged

    def _together(
        self, ledger: Ledger, told: Mapping[Origin, Sequence[StoredReceipt]], found: Sequence[Past]
    ) -> dict[Origin, Together]:
        known = {past.record.origin: past for past in found}
        together = groups(self._app, ledger, self._subscription.name, told, [past.record for past in found])
        made = {id(group): group.made(self._made_of(known)) for group in together.values()}
        return {origin: made[id(group)] for origin, group in together.items()}

    def _made_of(self, known: Mapping[Origin, Past]) -> Callable[[Record], Projection | None]:
        def made(record: Record) -> Projection | None:
            past = known.get(record.origin)
            return self._sieve.made(record) if past is None else past.made

        return made

    def _guarded(self, one: Judged, verdict: Verdict, told: Sequence[StoredReceipt]) -> Judged:
        """What is due, after what newer deliveries have sent."""
        made, omit = one.past.made, tuple(sorted({*one.omit, *verdict.omit}))
        assert made is not None
        action = self._subscription.connector.actions[made.delivery.action]
        left = without(made.delivery, omit, action) if omit else made.delivery
        if left is None:
            return replace(one, due="superseded", send=self._is_endless(one.letter, told), omit=omit)
        sent = asked_last(told) if self._only == "changed" and omit else None
        if sent is not None and self._ledger is not None and is_same(sent, left, self._ledger.is_of):
            return replace(one, due="same", send=False)
        return replace(one, omit=omit)

    def _is_endless(self, letter: Standing | None, told: Sequence[StoredReceipt]) -> bool:
        """Whether nothing says yet how it ended. What was delivered and is skipped now would be taken for not
        delivered: only a missing end is written."""
        return letter is not None or (self._ledger is not None and not any(one.outcome in DONE for one in told))

    def _judged(self, past: Past, told: Sequence[StoredReceipt], together: Together | None) -> Judged:
        origin, made = past.record.origin, past.made
        letter = self._dead.open.get(origin)
        if past.is_erased:
            return Judged(past, "erased", send=False)
        if origin in self._on_their_way:
            return Judged(past, "on_its_way", send=False)
        asked = self._asked_for(past, told, together)
        if asked != "due":
            return Judged(past, asked, send=False)
        if made is None:
            return Judged(past, "refused", send=False)
        if self._is_expired(past.record):
            return Judged(past, "expired", send=self._is_endless(letter, told), letter=letter)
        actions = self._subscription.connector.actions
        omit = () if together is None else together.said_anew(origin, actions)
        return Judged(past, "due", send=True, omit=omit, letter=letter)

    def _asked_for(self, past: Past, told: Sequence[StoredReceipt], together: Together | None) -> Due:
        match self._only:
            case "all":
                return "due"
            case "missing":
                knows = ledger_knows(self._attached, self._known_from, past.record)
                return _MISSING[ending(told, knows)]
            case "failed":
                return "due" if told and told[-1].outcome in FAILED else "not_asked_for"
            case "changed":
                assert self._ledger is not None
                return changed(told, past.made, self._ledger.is_of, self._subscription.connector.actions, together)

    def _is_expired(self, record: Record) -> bool:
        expire_after = self._subscription.policies.expire_after
        if expire_after is None or self._allow_stale:
            return False
        return datetime.now(UTC) - record.time > expire_after

    def _open(self) -> Ledger:
        try:
            return self._app.ledger()
        except RefusedError as error:
            raise RefusedError(f"{error} {WITHOUT_LEDGER}") from None


def changed(
    told: Sequence[StoredReceipt], made: ToDeliver | None, is_of: IsOf, actions: Actions, together: Together | None
) -> Due:
    """Whether an event is sent again by ``--only changed``: what the vendor has of it against what would be asked now.
    Pure."""
    sent = asked_last(told)
    if sent is None or not has_reached(sent):
        return "not_asked_for"
    if made is None:
        return "refused"
    likeness = compare(sent, made, is_of, actions, together)
    return "due" if likeness == "different" else likeness


Ending: TypeAlias = Literal["done", "failed", "none", "not_known"]
_MISSING: Final[Mapping[Ending, Due]] = {
    "done": "not_asked_for", "failed": "due", "none": "due", "not_known": "not_known",
}  # fmt: skip


def ending(told: Sequence[StoredReceipt], knows: bool) -> Ending:
    """What receipts say of an event: a delivery of it was delivered or skipped; all there were ended as dead letters;
    there is none; or there is none and the ledger is too young to know (not ``knows``). Pure. Replaying what is missing
    and reconciling go by it."""
    if any(one.outcome in DONE for one in told):
        return "done"
    if told:
        return "failed"
    return "none" if knows else "not_known"


def receipts_of(
    ledger: Ledger, subscription: str, found: Mapping[Origin, Event | None]
) -> dict[Origin, list[StoredReceipt]]:
    """How deliveries of the records at these places ended, one receipt a revision, the last one last. With the event
    that stands there (None: it cannot be read), for one that was published twice has its receipt at one place only."""
    told = ledger.ended_last(subscription, found) if found else {}
    others = {
        (event.source, event.type, event.id): origin
        for origin, event in found.items()
        if event is not None and origin not in told
    }
    for one in ledger.of_identities(subscription, sorted({id_ for _, _, id_ in others})) if others else ():
        place = others.get((one.event_source, one.event_type, one.event_id))
        if place is not None:
            told.setdefault(place, []).append(one)
    return told


def ledger_knows(attached: AttachedSubscription, known_from: Mapping[Place, int], record: Record) -> bool:
    """Whether the ledger would have the record's receipt if there were one: it knows its place (``known_from``), or
    nobody has read there since the subscription was attached."""
    place = (record.topic, record.partition)
    start = attached.starts.get(place)
    if start is not None and record.offset < start.offset:
        return True
    return place in known_from and record.offset >= known_from[place]
