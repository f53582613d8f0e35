"""Announcing the end of an event: its contract says until when it is published and what is read instead.

It edits files that stand in git, so it is no change of the cluster: who merges them decides.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from schemas import avsc
from schemas.contract import Contract, checked_contract, contract_problems, read_bytes
from schemas.edit import with_promises
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.findings import did_you_mean
from schemas.replacement import replacement_problems

if TYPE_CHECKING:
    from schemas.contract import Contracts


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A file as it is and as it is to be."""

    file: Path
    before: str
    after: str

    @property
    def lines(self) -> list[str]:
        """What changes, line by line with ``-`` and ``+``."""
        found = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), n=0, lineterm="")
        return [line for line in found if not line.startswith(("---", "+++", "@@"))]


def deprecation(contracts: Contracts, event: str, *, sunset: str, replaced_by: str | None, today: date) -> list[Edit]:
    """The edits that announce the end of an event; empty: its file says so already. Writes nothing.

    Raises NotFoundError for an event that is not known, InputError for a day that is none or is past, RefusedError for
    a successor that cannot take the event's place.
    """
    old = _known(contracts, event)
    day = _day(sunset, today)
    promises = {"status": "deprecated", "sunset": day.isoformat()}
    edits = []
    if replaced_by is not None:
        new = _successor(contracts, old, replaced_by)
        promises["replaced_by"] = new.name
        edits.append(_edit(new, {"replaces": old.name}))
    elif old.replaced_by is not None:
        _successor(contracts, old, old.replaced_by)
    edits.insert(0, _edit(old, promises))
    _refuse_what_is_wrong(contracts, edits, today)
    return [one for one in edits if one.before != one.after]


def write(edits: list[Edit]) -> None:
    """Write the files, each whole or not at all. Raises InputError for one that was changed meanwhile."""
    for one in edits:
        if _text(one.file) != one.before:
            raise RefusedError(f"{one.file} was changed meanwhile. Nothing was written; run it again.")
    for one in edits:
        partial = one.file.with_name(f".{one.file.name}.{os.getpid()}")
        partial.write_bytes(one.after.encode())
        partial.chmod(one.file.stat().st_mode)
        partial.replace(one.file)


def _known(contracts: Contracts, name: str) -> Contract:
    if name not in contracts:
        raise NotFoundError(f"There is no event '{name[:100]}' here.{did_you_mean(name, contracts)}")
    return contracts[name]


def _day(written: str, today: date) -> date:
    try:
        day = date.fromisoformat(written)
    except ValueError:
        raise InputError(f"--sunset: '{written[:40]}' is no day; write it like {today.year + 1}-03-31.") from None
    if day < today:
        raise InputError(f"--sunset: {day} is past; give the last day on which the event is published.")
    return day


def _successor(contracts: Contracts, old: Contract, name: str) -> Contract:
    new = _known(contracts, name)
    if new.name == old.name:
        raise InputError(f"--replaced-by: {name} does not replace itself; name the new event.")
    if new.topic != old.topic:
        raise RefusedError(
            f"{new.name} is in the topic {new.topic} and {old.name} in {old.topic}: what replaces an event goes to the "
            "same topic, so that the order is kept. Nothing was written."
        )
    if new.replaces not in (None, old.name):
        raise RefusedError(f"{new.name} replaces {new.replaces} already. Nothing was written.")
    return new


def _edit(contract: Contract, promises: Mapping[str, str]) -> Edit:
    file = Path(contract.file)
    before = _text(file)
    stated = contract.schema["backbone"]
    wanted = {name: value for name, value in promises.items() if stated.get(name) != value}
    return Edit(file=file, before=before, after=with_promises(before, wanted))


def _text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as that first.") from None


def _refuse_what_is_wrong(contracts: Contracts, edits: list[Edit], today: date) -> None:
    """What would be written is read as any other file is."""
    known = dict(contracts)
    for one in edits:
        schema = avsc.parse(one.after, str(one.file))
        problems = contract_problems(schema)
        if problems:
            raise RefusedError(f"{one.file}: {problems[0].message} Nothing was written.")
        contract = checked_contract(schema, str(one.file))
        known[contract.name] = contract
    for one in edits:
        contract = next(found for found in known.values() if found.file == str(one.file))
        for problem in replacement_problems(contract, known, today):
            raise RefusedError(f"{contract.name}: {problem.message} Nothing was written.")
