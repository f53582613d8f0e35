"""The plan of an erasure: what every vendor got about a person, what each is asked to erase, and what is left to do.

The ledger knows what was sent. What a vendor is asked needs the entity in plain words: it stands in the receipt, or is
the value that the person is erased by, or is made once more from the event, as long as that is in its topic. Plans and
inboxes hold it sealed (``consumers.sealing``); the value itself is in no file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from connectors.connector import Action
from consumers.erased import key_id, mark_of, text_of
from consumers.pipeline import Pipeline, ToDeliver, Wanted
from consumers.receipts import about_text, hashed
from consumers.sealing import seal
from ops.catalog.data_map import entity_shown
from ops.changes.orders import grown_topics, inbox_partitions, standing_json
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.staleness import LEDGER_WAIT_S, attached_subscription
from ops.dead_topic import Standing
from ops.ledger.given import Given, given
from ops.ledger.question import AboutValue, parse_question
from ops.wording import are, counted, shown
from schemas.errors import BackboneError, InputError, NotFoundError, RefusedError
from schemas.event import Event

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from ops.app import App
    from ops.deadletters import OpenLetter
    from ops.ledger.query import Ledger

MARK = "mark the person as erased"
OUTCOME = "see what came of it"
DETACHED = "the subscription is not attached, so nobody would ask"


def letters_step(name: str) -> str:
    return f"close the dead letters of {name}"


def asking_step(name: str) -> str:
    return f"ask for erasures by {name}"


@dataclass(frozen=True, slots=True)
class Person:
    """Who is erased: a field of events and its value. ``types`` are the events that have the field."""

    field: str
    value: str
    types: frozenset[str]
    mark: str

    @property
    def name(self) -> str:
        """What people see in place of the value, and ``--confirm`` must name."""
        return f"{self.field}:{self.mark[:8]}"


@dataclass(slots=True)
class _Asking:
    """What is asked, or why it cannot be."""

    given: Given
    action: str = ""
    entity: str = ""
    about: str = ""
    key: str | None = None
    by_hand: str = ""

    @property
    def words(self) -> str:
        if self.given.erased_at is not None:
            return "erased already"
        return f"by hand: {self.by_hand}" if self.by_hand else self.action


def erase_plan(app: App, question: str, *, wait_s: float = 30.0) -> Plan:
    """Resolve a person to what vendors got, from a ledger that has read to its end. Blocks; changes nothing. Raises
    InputError where the context has no installation key or the question is none, NotFoundError for an unknown field,
    RefusedError and UnreachableError where the ledger cannot tell."""
    from ops.ledger.query import read_to_end

    person = person_of(app, question)
    ledger = app.ledger()
    read_to_end(app, wait_s=LEDGER_WAIT_S)
    if not ledger.exists:
        raise RefusedError(
            "The ledger is empty, so what vendors got is not known: no worker has written to it yet. Start one: "
            "backbone run. Nothing was changed."
        )
    control = app.control()
    found = what_was_given(app, ledger, person)
    recovery = _Recovery(app, person, control.subscriptions)
    askings = [recovery.asking(one) for one in found]
    letters = _letters(app, person, {*control.subscriptions, *control.detached})
    asked = [one for one in askings if one.action and not one.by_hand and one.given.erased_at is None]
    names = sorted({*(one.given.receipt.subscription for one in asked), *letters})
    by_hand = [one for one in askings if one.by_hand and one.given.erased_at is None]
    title = f"erase {person.name}: {counted(len(asked), 'erasure')} asked of vendors"
    return new_plan(
        app,
        kind="erase",
        subject=person.name,
        title=title,
        rows=[_row(one) for one in askings],
        summary=_summary(app, person, askings, letters, control.subscriptions),
        steps=[
            MARK,
            *(letters_step(name) for name in sorted(letters)),
            *(asking_step(name) for name in sorted({one.given.receipt.subscription for one in asked})),
            OUTCOME,
        ],
        preconditions={"given": sorted(one.key for one in found)},
        before={"vendors": sorted({one.receipt.connection for one in found})},
        after={"asked": len(asked), "by_hand": len(by_hand), "letters_closed": sum(map(len, letters.values()))},
        details={
            "field": person.field,
            "events": sorted(person.types),
            "mark": person.mark,
            "key_id": key_id(app.installation_key),
            "value": seal(person.value, app.installation_key),
            "wait_s": wait_s,
            "by_hand": [
                {"connection": one.given.receipt.connection, "action": one.given.receipt.action, "why": one.by_hand}
                for one in by_hand
            ],
            "subscriptions": {
                name: _of_subscription(
                    app,
                    control.subscriptions.get(name),
                    [one for one in asked if one.given.receipt.subscription == name],
                    letters.get(name, []),
                    name,
                )
                for name in names
            },
        },
        severe="vendors delete it for good",
    )


def person_of(app: App, question: str) -> Person:
    """Who ``FIELD=VALUE`` is. Raises InputError, NotFoundError; no message repeats the value."""
    asked = parse_question(question, app.contracts)
    if not isinstance(asked, AboutValue):
        raise InputError("A person is named FIELD=VALUE, for example user_id=u-4711.")
    if "." in asked.field:
        raise InputError(f"'{asked.field}' lies inside another field: name one that stands by itself in events.")
    return Person(asked.field, asked.value, asked.types, mark_of(asked.field, asked.value, app.installation_key))


def what_was_given(app: App, ledger: Ledger, person: Person) -> list[Given]:
    """What vendors got about a person, as far as the ledger has read."""
    actions = {name: one.actions for name, one in app.connection_types.items()}
    return given(ledger.about(person.value, person.types), actions)


# ---- what is asked of each ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Recovery:
    """Finds in plain words what receipts hold hashed."""

    app: App
    person: Person
    attached: Mapping[str, AttachedSubscription]
    _pipelines: dict[str, Pipeline | None] = field(default_factory=dict)

    def asking(self, one: Given) -> _Asking:
        receipt = one.receipt
        asking = _Asking(one)
        connector = self.app.connection_types.get(receipt.connection)
        action = connector.actions.get(receipt.action) if connector is not None else None
        if connector is None or action is None:
            asking.by_hand = f"backbone.toml has no {receipt.connection} with {receipt.action} any more"
        elif not action.erased_by:
            asking.by_hand = f"{connector.name} has no erasure of {receipt.action}"
        elif receipt.subscription not in self.attached:
            asking.by_hand = DETACHED
        else:
            self._complete(asking, action, connector.actions[action.erased_by])
        return asking

    def _complete(self, asking: _Asking, action: Action, erasing: Action) -> None:
        receipt, key = asking.given.receipt, self.app.installation_key
        asking.action, asking.entity, asking.about = erasing.name, receipt.entity, receipt.about
        asking.key = None if receipt.record_key_hashed else receipt.record_key
        if erasing.by_reference and (receipt.reference is None or receipt.reference_hashed):
            asking.by_hand = f"{receipt.connection} gave no id of it" if receipt.reference is None else (
                "the vendor's id of it is known as a hash only"
            )  # fmt: skip
            return
        if receipt.record_key_hashed and receipt.record_key == hashed(self.person.value, key):
            asking.key = self.person.value
        if receipt.entity_hashed and receipt.entity == hashed(self.person.value, key):
            asking.entity = self.person.value
            if not receipt.about:
                return
        elif not receipt.entity_hashed:
            return
        made = self._made_again(asking.given)
        if made is None:
            asking.by_hand = "it is known as a hash only, and its event is not in the topic any more"
            return
        delivery, record_key = made.delivery, made.event.key
        about = about_text(delivery, action)
        if hashed(delivery.entity, key) != receipt.entity or (about and hashed(about, key) != receipt.about):
            asking.by_hand = "it is known as a hash only, and this version of the subscription makes another one of it"
            return
        asking.entity, asking.about, asking.key = delivery.entity, about, record_key

    def _made_again(self, one: Given) -> ToDeliver | None:
        """What the subscription makes of the newest event now; None where that is gone, or it makes nothing."""
        from ops.event_log import read_one

        pipeline = self._pipeline(one.receipt.subscription)
        if pipeline is None:
            return None
        try:
            record = read_one(self.app, *one.receipt.origin)
            made = pipeline.project(record)
            while isinstance(made, Wanted):
                self.app.decoder.load(made.schema)
                made = pipeline.project(record)
        except BackboneError:
            return None
        return made if isinstance(made, ToDeliver) else None

    def _pipeline(self, name: str) -> Pipeline | None:
        if name not in self._pipelines:
            try:
                subscription = attached_subscription(self.app, self.attached[name])
                self._pipelines[name] = Pipeline(subscription, self.app.decoder)
            except RefusedError:
                self._pipelines[name] = None
        return self._pipelines[name]


def _of_subscription(
    app: App,
    attached: AttachedSubscription | None,
    asked: Sequence[_Asking],
    letters: Sequence[Standing],
    name: str,
) -> JsonValue:
    """What the change needs to act on one subscription. Everything personal is sealed. The newest event of each goes
    along as its envelope and place."""
    key = app.installation_key
    return {
        "inbox_partitions": inbox_partitions(app, name) if attached is not None else 0,
        "grown": grown_topics(app, attached) if attached is not None else [],
        "letters": [standing_json(one) for one in letters],
        "erasures": [
            {
                "number": number,
                "action": one.action,
                "entity": seal(one.entity, key),
                "personal": one.given.receipt.entity_hashed,
                "about": seal(one.about, key),
                "reference": one.given.receipt.reference,
                "key": None if one.key is None else seal(one.key, key),
                "origin": str(one.given.receipt.origin),
                "event": [
                    one.given.receipt.event_id,
                    one.given.receipt.event_type,
                    one.given.receipt.event_source,
                    one.given.receipt.event_time.isoformat(),
                ],
            }
            for number, one in enumerate(asked, 1)
        ],
    }


# ---- dead letters ---------------------------------------------------------------------------------------------------


def _letters(app: App, person: Person, names: Collection[str]) -> dict[str, list[Standing]]:
    """The open letters about the person, by subscription: those whose event has the value, or where it cannot be
    decoded, whose key has it."""
    from ops.dead_topic import DeadTopic
    from ops.deadletters import dead_topics, open_letters

    found: dict[str, list[Standing]] = {}
    for name, letters in open_letters(app, dead_topics(app, sorted(names)), keep_values=True).items():
        theirs = {one.letter.origin for one in letters.letters if _is_about(app, person, one)}
        if theirs:
            dead = DeadTopic(app, name)
            dead.refresh()
            found[name] = [standing for origin, standing in dead.open.items() if origin in theirs]
    return found


def _is_about(app: App, person: Person, found: OpenLetter) -> bool:
    from ops.event_log import decoded, read_one

    letter = found.letter
    record = letter.record
    if letter.omitted is not None:
        try:
            record = read_one(app, *letter.origin)
        except NotFoundError:
            return False
    if record.value is None:
        return False
    event = decoded(app, record)
    if isinstance(event, Event):
        value = event.data.get(person.field)
        return value is not None and text_of(value) == person.value
    is_key = any(one.topic == record.topic and one.key == person.field for one in app.contracts.values())
    return is_key and record.key == person.value.encode("utf-8", "surrogatepass")


# ---- what people see ------------------------------------------------------------------------------------------------


def _row(asking: _Asking) -> dict[str, JsonValue]:
    one = asking.given
    return {
        "subscription": one.receipt.subscription,
        "vendor": one.receipt.connection,
        "action": one.receipt.action,
        "entity": entity_shown(one),
        "personal_data": list(one.classes),
        "first_at": shown(one.first_at),
        "last_at": shown(one.last_at),
        "events": one.count,
        "asked": asking.words,
    }


def _summary(
    app: App,
    person: Person,
    askings: Sequence[_Asking],
    letters: Mapping[str, Sequence[Standing]],
    attached: Mapping[str, AttachedSubscription],
) -> list[str]:
    said = []
    if not askings:
        said.append(
            f"the ledger knows nothing that a vendor got about this {person.field} as an event's entity, key or "
            "subject; where it is another field, erase by the field that is"
        )
    by_hand = [one for one in askings if one.by_hand and one.given.erased_at is None]
    if by_hand:
        said.append(f"{are(len(by_hand), 'row')} for a person to erase by hand: nobody else can (exit 7)")
    for name, found in sorted(letters.items()):
        said.append(f"{are(len(found), 'open dead letter')} of {name} closed as erased")
    said.append(
        "events about this person that have arrived by then are never sent again, by no subscription; those that "
        "arrive later are sent"
    )
    for name in sorted({one.given.receipt.subscription for one in askings if one.action and not one.by_hand}):
        if (state := attached[name].state.state) != "running":
            said.append(f"{name} is {state}: its erasures wait until: backbone subscription resume {name}")
    said.append(_remains(app, person))
    return said


def _remains(app: App, person: Person) -> str:
    """What Kafka keeps, and until when at most."""
    kept: dict[str, timedelta] = {}
    for name in person.types:
        contract = app.contracts[name]
        kept[contract.topic] = max(contract.retention, kept.get(contract.topic, timedelta()))
    today = datetime.now(UTC)
    until = ", ".join(f"{topic} until {(today + span).date()}" for topic, span in sorted(kept.items()))
    return (
        f"the events themselves stay in Kafka as long as it keeps them: {until} by contract; a dead letter's bytes "
        "until its topic is compacted"
    )
