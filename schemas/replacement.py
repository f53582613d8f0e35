"""One event that takes the place of another: an incompatible change is a new record beside the old one.

``billing.InvoiceCreatedV2`` says ``"replaces": "billing.InvoiceCreated"`` and is published to the same topic; the old
one is ``deprecated``, says ``"replaced_by"`` and until when it is published (``"sunset"``). What the two contracts must
say of each other is checked here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date

from schemas.avsc import Problem, shown
from schemas.contract import Contract
from schemas.findings import did_you_mean


def replacement_problems(contract: Contract, known: Mapping[str, Contract], today: date) -> list[Problem]:
    """What is wrong with what a contract says of the event it replaces, or that replaces it, and of its end.
    ``known``: all contracts by name."""
    return [*_replaces(contract, known), *_replaced(contract, known), *_sunset(contract, today)]


def successor_name(name: str) -> str:
    """What the next incompatible version of an event is called: ``InvoiceCreatedV2``, after that ``V3``."""
    found = re.fullmatch(r"(.+)V([0-9]{1,6})", name)
    return f"{found[1]}V{int(found[2]) + 1}" if found else f"{name}V2"


def _replaces(contract: Contract, known: Mapping[str, Contract]) -> Iterator[Problem]:
    old_name = contract.replaces
    if old_name is None:
        return
    place = "/backbone/replaces"
    old = known.get(old_name)
    if old_name == contract.name:
        yield Problem(place, "replaces", "an event does not replace itself; name the one before it.")
    elif old is None:
        hint = did_you_mean(old_name, known) or " If the old one is gone, take 'replaces' out."
        yield Problem(place, "replaces", f"there is no event {shown(old_name)}.{hint}")
    elif old.topic != contract.topic:
        message = f"{old_name} is in the topic {old.topic}; what replaces it goes there too, so that the order is kept."
        yield Problem("/backbone/topic", "replaces", message)
    elif _in_a_circle(contract, known):
        yield Problem(
            place, "replaces", "the events replace each other in a circle; the newest replaces the older one."
        )
    elif old.status != "deprecated" or old.replaced_by is None:
        message = (
            f"it replaces {old_name}, and nobody is told until when that is published: "
            f"backbone schema deprecate {old_name} --sunset DATE --replaced-by {contract.name}"
        )
        yield Problem(place, "not-announced", message)


def _in_a_circle(contract: Contract, known: Mapping[str, Contract]) -> bool:
    seen = {contract.name}
    one: Contract | None = contract
    while one is not None and one.replaces is not None:
        if one.replaces in seen:
            return True
        seen.add(one.replaces)
        one = known.get(one.replaces)
    return False


def _replaced(contract: Contract, known: Mapping[str, Contract]) -> Iterator[Problem]:
    new_name = contract.replaced_by
    if new_name is None:
        return
    place = "/backbone/replaced_by"
    new = known.get(new_name)
    if new is None:
        yield Problem(place, "replaced-by", f"there is no event {shown(new_name)}.{did_you_mean(new_name, known)}")
    elif new.replaces != contract.name:
        message = f'{new_name} does not say that it replaces this one: "replaces": "{contract.name}" is missing there.'
        yield Problem(place, "replaced-by", message)


def _sunset(contract: Contract, today: date) -> Iterator[Problem]:
    sunset = contract.sunset
    if contract.status == "deprecated" and sunset is None:
        message = (
            "a deprecated event says until when it is published: "
            f"backbone schema deprecate {contract.name} --sunset DATE --replaced-by EVENT"
        )
        yield Problem("/backbone/sunset", "no-sunset", message)
    elif contract.status != "deprecated" and (sunset is not None or contract.replaced_by is not None):
        said = "sunset" if sunset is not None else "replaced_by"
        message = f'it has {shown(said)} and is {contract.status}; write "status": "deprecated", or take it out.'
        yield Problem("/backbone/status", "not-deprecated", message)
    elif sunset is not None and sunset < today:
        message = (
            f"its sunset was {sunset}: once nobody publishes and reads it any more take its file away, "
            "else give it a later day."
        )
        yield Problem("/backbone/sunset", "sunset-passed", message)
