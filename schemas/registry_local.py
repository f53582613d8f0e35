"""Registries without a server, with the same checks: ``memory://NAME`` for tests and ``file://DIR`` for laptops."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from schemas.avsc import shown
from schemas.compatibility import DEFAULT_MODE, MODES, compatible
from schemas.errors import InputError
from schemas.registry import (
    IncompatibleSchemaError,
    Registered,
    RegistryUnavailableError,
    SchemaNotFoundError,
    Verdict,
    check_schema,
)


@dataclass(slots=True)
class _State:
    """What a registry knows: texts by id (1, 2, ...), the ids of every subject's versions, and the modes."""

    texts: list[str] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=lambda: {"": DEFAULT_MODE})


class _Store:
    """Holds the state: for the time of a ``with`` block nobody else reads or writes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._state = _State()

    @contextmanager
    def reading(self) -> Iterator[_State]:
        with self._lock:
            yield self._state

    @contextmanager
    def writing(self) -> Iterator[_State]:
        with self._lock:
            yield self._state


class _FileStore:
    """The state in ``DIR/registry.json``, replaced whole under a lock between processes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "registry.json"
        self._lock = threading.RLock()

    @contextmanager
    def reading(self) -> Iterator[_State]:
        with self._lock:
            yield self._load()

    @contextmanager
    def writing(self) -> Iterator[_State]:
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / "registry.lock").open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    state = self._load()
                    yield state
                    partial = self._folder / f".registry-{os.getpid()}.partial"
                    text = {"texts": state.texts, "subjects": state.subjects, "modes": state.modes}
                    partial.write_text(json.dumps(text, ensure_ascii=False, indent=1), "utf-8")
                    os.replace(partial, self._file)
            except OSError as error:
                raise RegistryUnavailableError(f"{self._folder}: cannot be written ({error.strerror}).") from None

    def _load(self) -> _State:
        try:
            loaded = json.loads(self._file.read_text("utf-8"))
            return _State(list(loaded["texts"]), dict(loaded["subjects"]), dict(loaded["modes"]))
        except FileNotFoundError:
            return _State()
        except OSError as error:
            raise RegistryUnavailableError(f"{self._file}: cannot be read ({error.strerror}).") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RegistryUnavailableError(f"{self._file}: is not a registry's file.") from None


class LocalRegistry:
    """A registry over a store. Ids are 1, 2, ...; the same schema has the same id in every subject."""

    def __init__(self, store: _Store | _FileStore) -> None:
        self._store = store

    def schema(self, id: int) -> str:
        with self._store.reading() as state:
            if not 1 <= id <= len(state.texts):
                raise SchemaNotFoundError(f"the registry knows no schema {id}.")
            return state.texts[id - 1]

    def schema_by_guid(self, guid: str) -> str:
        with self._store.reading() as state:
            for text in state.texts:
                if guid_of(text) == guid.lower():
                    return text
        raise SchemaNotFoundError(f"the registry knows no schema {shown(guid)}.")

    def lookup(self, subject: str, schema: str) -> Registered | None:
        wanted = _canonical(schema)
        with self._store.reading() as state:
            return _find(state, subject, wanted)

    def register(self, subject: str, schema: str) -> Registered:
        wanted = _canonical(schema)
        if not subject:
            raise InputError("a subject needs a name.")
        with self._store.writing() as state:
            known = _find(state, subject, wanted)
            if known:
                return known
            verdict = _verdict(state, subject, wanted)
            if not verdict.compatible:
                raise IncompatibleSchemaError(f"the registry refuses the schema: {'; '.join(verdict.reasons)[:500]}")
            texts = [_canonical(text) for text in state.texts]
            if wanted in texts:
                id = texts.index(wanted) + 1
            else:
                state.texts.append(schema)
                id = len(state.texts)
            ids = state.subjects.setdefault(subject, [])
            ids.append(id)
            return Registered(subject, len(ids), id, state.texts[id - 1])

    def latest(self, subject: str) -> Registered | None:
        versions = self.versions(subject)
        return self.version(subject, versions[-1]) if versions else None

    def version(self, subject: str, version: int) -> Registered:
        with self._store.reading() as state:
            ids = state.subjects.get(subject, [])
            if not 1 <= version <= len(ids):
                raise SchemaNotFoundError(f"the registry knows no version {version} of {shown(subject)}.")
            return Registered(subject, version, ids[version - 1], state.texts[ids[version - 1] - 1])

    def versions(self, subject: str) -> list[int]:
        with self._store.reading() as state:
            return list(range(1, len(state.subjects.get(subject, ())) + 1))

    def subjects(self) -> list[str]:
        with self._store.reading() as state:
            return sorted(state.subjects)

    def listed_schemas(self) -> list[str]:
        with self._store.reading() as state:
            return sorted({state.texts[ids[-1] - 1] for ids in state.subjects.values()})

    def check_compatibility(self, subject: str, schema: str) -> Verdict:
        wanted = _canonical(schema)
        with self._store.reading() as state:
            return _verdict(state, subject, wanted)

    def compatibility(self, subject: str | None = None) -> str:
        with self._store.reading() as state:
            return state.modes.get(subject or "", state.modes[""])

    def set_compatibility(self, level: str, subject: str | None = None) -> None:
        if level not in MODES:
            raise InputError(f"the compatibility mode is one of {', '.join(MODES)}, not {shown(level)}.")
        with self._store.writing() as state:
            state.modes[subject or ""] = level


def _canonical(text: str) -> str:
    """One text for the same schema, attributes and docs included. Raises InputError for a text that is no schema."""
    return json.dumps(check_schema(text), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def guid_of(text: str) -> str:
    """The global id of a schema here: a UUID made of its content."""
    return str(UUID(bytes=hashlib.sha256(_canonical(text).encode()).digest()[:16]))


def _find(state: _State, subject: str, wanted: str) -> Registered | None:
    for version, id in enumerate(state.subjects.get(subject, ()), 1):
        if _canonical(state.texts[id - 1]) == wanted:
            return Registered(subject, version, id, state.texts[id - 1])
    return None


def _verdict(state: _State, subject: str, wanted: str) -> Verdict:
    olds: list[Any] = [json.loads(state.texts[id - 1]) for id in state.subjects.get(subject, ())]
    mode = state.modes.get(subject, state.modes[""])
    if not olds or mode == "NONE":
        return Verdict(True)
    reasons = tuple(str(one) for one in compatible(json.loads(wanted), olds, mode))
    return Verdict(not reasons, reasons)


_MEMORY: dict[str, LocalRegistry] = {}
_MEMORY_LOCK = threading.Lock()


def memory_registry(name: str) -> LocalRegistry:
    """The registry of this name in this process; it lives as long as the process."""
    with _MEMORY_LOCK:
        return _MEMORY.setdefault(name, LocalRegistry(_Store()))


def file_registry(folder: Path) -> LocalRegistry:
    """The registry in this folder, shared by every process that opens it. Only a change writes."""
    return LocalRegistry(_FileStore(folder))
