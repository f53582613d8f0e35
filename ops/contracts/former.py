"""What an event was before: at a revision of git, or in the versions that are registered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ops.git import files_at, relative
from schemas import avsc
from schemas.contract import Contract, checked_contract, promise_problems, read_bytes
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """An earlier state of an event. ``said`` is what people call it (``origin/main``, ``version 3``); ``file`` where it
    stood, if in a file; ``contract`` None: it is a schema, and was no contract by today's rules."""

    name: str
    said: str
    schema: Mapping[str, Any]
    file: Path | None = None
    contract: Contract | None = None


def former(text: str | bytes, said: str, file: Path | None = None) -> Former | None:
    """The event of a schema's text; None where it is no schema of a record: nothing relies on that."""
    try:
        schema = avsc.parse(text)
    except InputError:
        return None
    if not isinstance(schema, dict) or schema.get("type") not in ("record", "error"):
        return None
    if avsc.undecodable(schema):
        return None
    contract = None if promise_problems(schema) else checked_contract(schema, "" if file is None else str(file))
    return Former(name=avsc.full_name(schema), said=said, schema=schema, file=file, contract=contract)


class Past:
    """The events of a project at a revision of git, by name and by file. ``today``: contracts as they are now; a file
    that still holds the same bytes is not read a second time."""

    def __init__(
        self, root: Path, revision: str, texts: Mapping[PurePosixPath, bytes], today: Iterable[Contract] = ()
    ) -> None:
        self._root = root
        self._files: dict[PurePosixPath, Former] = {}
        for contract in today:
            place = relative(root, Path(contract.file))
            if texts.get(place) == read_bytes(Path(contract.file)):
                self._files[place] = Former(
                    name=contract.name,
                    said=revision,
                    schema=contract.schema,
                    file=Path(contract.file),
                    contract=contract,
                )
        for place, text in texts.items():
            found = None if place in self._files else former(text, revision, root / place)
            if found is not None:
                self._files[place] = found
        self._names = {one.name: one for one in self._files.values()}

    def of(self, contract: Contract, names: Collection[str]) -> Former | None:
        """What this contract was: the event of its name, else what its file held if that event is nowhere now
        (``names``: all events of today). None: it is new."""
        there = self._files.get(relative(self._root, Path(contract.file)))
        if there is not None and (there.name == contract.name or there.name not in names):
            return there
        return self._names.get(contract.name)

    def all(self) -> list[Former]:
        """Every event there was."""
        return list(self._names.values())


def past(root: Path, revision: str, paths: Sequence[Path], today: Iterable[Contract]) -> Past:
    """The events in the files at or below ``paths`` at that revision. Blocks for git; raises InputError."""
    return Past(root, revision, files_at(root, revision, paths), today)


def registered(registry: Registry, contract: Contract, subjects: Sequence[str]) -> list[Former]:
    """Every registered version of a contract, oldest first, empty where it is the newest one itself; of another topic's
    subject where its own has none (``subjects``: all there are): then the topic was changed. Blocks; raises what the
    registry raises."""
    versions = registry.versions(contract.subject)
    if versions:
        found = registry.lookup(contract.subject, contract.text)
        if found is not None and found.version == versions[-1]:
            return []
        return _versions(registry, contract.subject, versions, "version {}")
    elsewhere = [one for one in subjects if one.endswith(f"-{contract.name}")]
    return [
        one
        for subject in elsewhere
        for one in _versions(registry, subject, registry.versions(subject)[-1:], f"version {{}} of {subject}")
    ]


def _versions(registry: Registry, subject: str, versions: Sequence[int], said: str) -> list[Former]:
    found = (former(registry.version(subject, one).schema, said.format(one)) for one in versions)
    return [one for one in found if one is not None]
