"""What an event was before: at a revision of git, or in the versions that are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ops.git import files_at, relative
from schemas import avsc
from schemas.contract import Contract, contract_from_schema
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
    if any(problem.rule != "bytes-decimal" for problem in avsc.problems(schema)):
        return None
    try:
        contract = contract_from_schema(schema, "" if file is None else str(file))
    except InputError:
        contract = None
    return Former(name=avsc.full_name(schema), said=said, schema=schema, file=file, contract=contract)


class Past:
    """The events of a project at a revision of git, by name and by file."""

    def __init__(self, root: Path, revision: str, texts: Mapping[PurePosixPath, bytes]) -> None:
        self._root, self._revision = root, revision
        self._texts = dict(texts)
        self._read: dict[PurePosixPath, Former | None] = {}
        self._names: dict[str, Former] | None = None

    def of(self, contract: Contract, names: Iterable[str]) -> Former | None:
        """What this contract was: the event of its name, else what its file held if that event is nowhere now
        (``names``: all events of today). None: it is new, or nothing of it has changed."""
        place = relative(self._root, Path(contract.file))
        if self._texts.get(place) is not None:
            found = self._at(place)
            if found is not None and found.name == contract.name:
                return found
        by_name = self._by_name().get(contract.name)
        if by_name is not None:
            return by_name
        found = self._at(place) if place in self._texts else None
        return found if found is not None and found.name not in set(names) else None

    def unchanged(self, file: Path, text: bytes) -> bool:
        """Whether the file holds the same bytes as then."""
        return self._texts.get(relative(self._root, file)) == text

    def all(self) -> list[Former]:
        """Every event there was."""
        return list(self._by_name().values())

    def _by_name(self) -> dict[str, Former]:
        if self._names is None:
            found = (self._at(place) for place in self._texts)
            self._names = {one.name: one for one in found if one is not None}
        return self._names

    def _at(self, place: PurePosixPath) -> Former | None:
        if place not in self._read:
            self._read[place] = former(self._texts[place], self._revision, self._root / place)
        return self._read[place]


def past(root: Path, revision: str, paths: Sequence[Path]) -> Past:
    """The events in the files at or below ``paths`` at that revision. Blocks for git; raises InputError."""
    return Past(root, revision, files_at(root, revision, paths))


def registered(registry: Registry, contract: Contract, subjects: Sequence[str]) -> list[Former]:
    """Every registered version of a contract, oldest first; of another topic's subject where its own has none
    (``subjects``: all there are): then the topic was changed. Blocks; raises what the registry raises."""
    versions = registry.versions(contract.subject)
    if versions:
        if registry.lookup(contract.subject, contract.text) is not None:
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
