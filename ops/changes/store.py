"""Plans and how far they have come, as files under ``.backbone/changes/<context>/``.

``ch-xxxxx.json`` is the plan and never changes; ``ch-xxxxx.state.json`` is written (and synced) before and after
every step, so that a kill at any moment leaves the truth behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ops.changes.plan import JsonValue, Plan, dump, is_id, parse
from ops.files import write_whole
from schemas.errors import InputError, NotFoundError, RefusedError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App


@dataclass(slots=True, kw_only=True)
class Progressed:
    """How far a change has come on this machine.

    planned: nothing was done · applying: begun, not ended (or cut) · applied · failed: ended before its first step
    was done · cancelled: a person ended it in the middle · undone."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "hide_input_in_errors": True}

    state: Literal["planned", "applying", "applied", "failed", "cancelled", "undone"] = "planned"
    done: list[str] = field(default_factory=list)
    doing: str = ""
    notes: dict[str, JsonValue] = field(default_factory=dict)
    after: dict[str, JsonValue] = field(default_factory=dict)
    error: str = ""
    undone_by: str = ""
    at: str = ""


class Store:
    """The changes of one context on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, app: App) -> Store:
        return cls(app.project.root / ".backbone" / "changes" / app.screen.context)

    def taken(self, change_id: str) -> bool:
        return self._plan_file(change_id).exists()

    def save(self, plan: Plan) -> None:
        """Write a new plan, readable by its owner only (plans may quote what they change)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._plan_file(plan.id), dump(plan))

    def load(self, change_id: str) -> Plan:
        """Raises NotFoundError (naming the context that has it, or the nearest id), InputError for a broken file."""
        file = self._plan_file(change_id) if is_id(change_id) else None
        try:
            if file is not None:
                plan = parse(file.read_bytes(), file)
                if plan.context != self.folder.name:
                    raise InputError(
                        f"{file} is a plan for the context '{plan.context}' and cannot be used in '{self.folder.name}'."
                    )
                return plan
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}.") from None
        for other in sorted(self.folder.parent.glob(f"*/{change_id}.json")) if is_id(change_id) else ():
            name = other.parent.name
            raise NotFoundError(f"{change_id} was planned in the context '{name}'. Say so: backbone -c {name} …")
        raise NotFoundError(
            f"There is no change '{change_id}' on this machine.{did_you_mean(change_id, self.ids())} "
            "See: backbone change list"
        )

    def ids(self) -> list[str]:
        """Every plan here, oldest file first."""
        found = [path for path in self.folder.glob("ch-*.json") if is_id(path.stem)]
        return [path.stem for path in sorted(found, key=lambda path: (path.stat().st_mtime, path.name))]

    def progressed(self, change_id: str) -> Progressed:
        """How far it has come. Raises InputError for a broken state file."""
        from pydantic import TypeAdapter, ValidationError

        file = self._state_file(change_id)
        try:
            content = json.loads(file.read_bytes())
            if not isinstance(content, dict) or set(content) != {one.name for one in fields(Progressed)}:
                raise ValueError  # half a file must not read as "nothing was done"
            return TypeAdapter(Progressed).validate_python(content)
        except FileNotFoundError:
            return Progressed()
        except (ValidationError, ValueError, RecursionError, OSError):
            raise InputError(f"{file} cannot be read. See what was done: backbone change show {change_id}") from None

    def keep(self, change_id: str, progressed: Progressed) -> None:
        """Write how far it has come, on the disk when this returns."""
        progressed.at = datetime.now(UTC).isoformat(timespec="seconds")
        content = {one.name: getattr(progressed, one.name) for one in fields(progressed)}
        write_whole(self._state_file(change_id), json.dumps(content, ensure_ascii=False, indent=2) + "\n")

    def is_running(self, change_id: str) -> bool:
        """Whether a process on this machine is applying or undoing it right now."""
        try:
            with self.locked(change_id):
                return False
        except RefusedError:
            return True

    @contextlib.contextmanager
    def locked(self, change_id: str) -> Iterator[None]:
        """Nobody else on this machine applies or undoes the change meanwhile. Raises RefusedError if somebody does."""
        with (self.folder / f"{change_id}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RefusedError(f"{change_id} is being applied or undone by another process right now.") from None
            yield

    def _plan_file(self, change_id: str) -> Path:
        return self.folder / f"{change_id}.json"

    def _state_file(self, change_id: str) -> Path:
        return self.folder / f"{change_id}.state.json"


class Journal:
    """What ``act`` writes down while it acts."""

    def __init__(self, store: Store, plan: Plan, progressed: Progressed) -> None:
        self._store = store
        self._plan = plan
        self._progressed = progressed

    @property
    def done(self) -> frozenset[str]:
        return frozenset(self._progressed.done)

    @property
    def notes(self) -> dict[str, JsonValue]:
        """What was noted, also by an earlier, cut try."""
        return self._progressed.notes

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[bool]:
        """One step; False if an earlier try has done it. That it begins, and that it is done, is on the disk."""
        if name in self._progressed.done:
            yield False
            return
        self._progressed.doing = name
        self._store.keep(self._plan.id, self._progressed)
        yield True
        self._progressed.done.append(name)
        self._progressed.doing = ""
        self._store.keep(self._plan.id, self._progressed)

    def note(self, name: str, value: JsonValue) -> None:
        """Keep a value that undo or a second try needs; on the disk when this returns."""
        self.note_all({name: value})

    def note_all(self, values: dict[str, JsonValue]) -> None:
        """Keep several: a kill leaves all of them or none."""
        self._progressed.notes |= values
        self._store.keep(self._plan.id, self._progressed)
