"""Results of reconciling, as files under ``.backbone/reconcile/<context>/``: ``rc-xxxxx.rows`` holds the differences, a
line of JSON each, and ``rc-xxxxx.json`` what was found in all. The latter is written last: without it there is none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ops.changes.plan import is_id, new_id
from ops.files import write_whole
from ops.reconcile.comparison import KINDS, REPAIRED, Difference, Kind
from schemas.errors import InputError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App

FORMAT: Final = "backbone.reconcile_result/v1"
PREFIX: Final = "rc-"
KEPT_MAX: Final = 50
"""So many results of a context are kept; the oldest go."""


def folder(root: Path, context: str) -> Path:
    """Where a project keeps the results of a context."""
    return root / ".backbone" / "reconcile" / context


@dataclass(slots=True, kw_only=True)
class VendorState:
    """How the vendor's state was compared. ``why``: why not, where it was not; ``entities`` were asked for, ``equal``
    are as expected; of ``in_motion``, ``open_letter``, ``erased`` and ``unreadable`` nobody can say. ``extra_why``: why
    what is too much there cannot be known (None: it is); ``listed`` things there are ours, ``before``, ``after`` and
    ``others`` of which cannot be judged."""

    compared: bool = False
    why: str | None = None
    entities: int = 0
    equal: int = 0
    in_motion: int = 0
    open_letter: int = 0
    erased: int = 0
    unreadable: int = 0
    extra_why: str | None = None
    listed: int = 0
    before: int = 0
    after: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One reconciliation. ``stages`` and ``differences`` count records and things; ``places`` are the partitions with
    theirs; ``read_to``: up to where each partition was read; ``salt``: with it a difference's ``subject`` is made;
    ``rows_sha256`` of the file of differences; ``said``: what a person should know besides."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "hide_input_in_errors": True}

    id: str
    subscription: str
    version: str
    connection: str
    at: datetime
    begin: str
    end: str | None
    published: int
    holes: int
    stages: dict[str, int]
    proved: int
    uncounted: int
    unwanted: int
    places: list[dict[str, Any]]
    differences: dict[str, int]
    vendor: VendorState
    said: list[str] = field(default_factory=list)
    read_to: list[tuple[str, int, int]] = field(default_factory=list)
    salt: str = ""
    rows_sha256: str = ""

    @property
    def agrees(self) -> bool:
        return not any(self.differences.values())

    @property
    def repairable(self) -> int:
        return sum(self.differences.get(kind, 0) for kind in REPAIRED)


class Differences:
    """How many differences of each kind the last result of each subscription has, read again and again: each file is
    read once. One thread."""

    def __init__(self, folder: Path) -> None:
        self._store = ResultStore(folder)
        self._read: dict[str, tuple[str, dict[str, int]]] = {}

    def now(self) -> dict[str, dict[str, int]]:
        """By subscription and kind; nothing of those that nobody has reconciled here. What cannot be read is left
        out: another version wrote it, or it was dropped meanwhile."""
        ids = self._store.ids()
        self._read = {one: self._read[one] for one in ids if one in self._read}
        for one in ids:
            if one not in self._read:
                try:
                    content = json.loads((self._store.folder / f"{one}.json").read_bytes())["result"]
                    counts = {kind: int(content["differences"].get(kind, 0)) for kind in KINDS}
                    self._read[one] = (str(content["subscription"]), {str(kind): n for kind, n in counts.items()})
                except (OSError, ValueError, KeyError, TypeError, AttributeError):
                    self._read[one] = ("", {})
        return {name: counts for name, counts in (self._read[one] for one in ids) if name}


class ResultStore:
    """The results of one context on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, app: App) -> ResultStore:
        return cls(folder(app.project.root, app.screen.context))

    def new_id(self) -> str:
        return new_id(lambda one: self._head(one).exists(), PREFIX)

    def write_rows(self, result_id: str, rows: Iterable[Difference]) -> tuple[dict[str, int], str]:
        """Write the differences; how many there are of each kind, and the file's SHA-256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        counts, digest = dict.fromkeys(KINDS, 0), hashlib.sha256()
        temporary = self.rows_file(result_id).with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for row in rows:
                line = json.dumps(row.plain(), ensure_ascii=True).encode() + b"\n"
                file.write(line)
                digest.update(line)
                counts[row.kind] += row.count
        temporary.replace(self.rows_file(result_id))
        return {str(kind): count for kind, count in counts.items()}, digest.hexdigest()

    def save(self, result: Result) -> None:
        """Have it found; the oldest beyond ``KEPT_MAX`` are dropped."""
        content = {"format": FORMAT, "result": asdict(result)}
        text = json.dumps(content, ensure_ascii=False, default=lambda at: at.astimezone(UTC).isoformat())
        write_whole(self._head(result.id), text)
        for old in self.ids()[:-KEPT_MAX]:
            self._head(old).unlink(missing_ok=True)
            self.rows_file(old).unlink(missing_ok=True)

    def ids(self) -> list[str]:
        """Every result here, the oldest first."""
        found = [path for path in self.folder.glob(f"{PREFIX}*.json") if is_id(path.stem, PREFIX)]
        return [path.stem for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]

    def load(self, result_id: str) -> Result:
        """Raises NotFoundError, InputError for a broken file."""
        from pydantic import TypeAdapter, ValidationError

        file = self._head(result_id)
        try:
            if not is_id(result_id, PREFIX):
                raise FileNotFoundError
            content = json.loads(file.read_bytes())
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError
            return TypeAdapter(Result).validate_python(content["result"])
        except FileNotFoundError:
            raise NotFoundError(
                f"There is no result '{result_id}' on this machine.{did_you_mean(result_id, self.ids())} "
                "Make one: backbone reconcile run NAME"
            ) from None
        except (ValidationError, ValueError, KeyError, RecursionError, OSError):
            raise InputError(f"{file} is no result of this version. Make a new one: backbone reconcile run") from None

    def latest(self) -> dict[str, Result]:
        """The newest result of each subscription. Those that cannot be read are left out."""
        found: dict[str, Result] = {}
        for result_id in self.ids():
            try:
                result = self.load(result_id)
            except (InputError, NotFoundError):  # of another version, or dropped meanwhile
                continue
            found[result.subscription] = result
        return found

    def named(self, name: str | None) -> Result:
        """A result by its id, the last one of a subscription, or the last of all. Raises NotFoundError."""
        if name is not None and is_id(name, PREFIX):
            return self.load(name)
        found = self.latest()
        if name is not None and name in found:
            return found[name]
        if name is None and found:
            return max(found.values(), key=lambda result: result.at)
        what = "Nothing was reconciled" if name is None else f"'{name}' was not reconciled"
        raise NotFoundError(
            f"{what} on this machine yet.{did_you_mean(name or '', found)} "
            f"Do it: backbone reconcile run {'NAME' if name is None else name}"
        )

    def rows(self, result: Result, kinds: Iterable[Kind] = ()) -> Iterator[Difference]:
        """The differences of a result, of these kinds (all without). Raises InputError where the file is not the one
        that was written."""
        wanted, digest = frozenset(kinds), hashlib.sha256()
        names = {one.name for one in fields(Difference)}
        try:
            with self.rows_file(result.id).open("rb") as file:
                for line in file:
                    digest.update(line)
                    content = json.loads(line)
                    if set(content) != names:
                        raise ValueError("another version's")
                    for name in ("fields", "send"):
                        content[name] = tuple(content[name])
                    if not wanted or content["kind"] in wanted:
                        yield Difference(**content)
        except (OSError, ValueError, TypeError):
            digest.update(b"broken")
        if digest.hexdigest() != result.rows_sha256:
            raise InputError(
                f"{self.rows_file(result.id)} is not as it was written. Make a new result: "
                f"backbone reconcile run {result.subscription}"
            )

    def rows_file(self, result_id: str) -> Path:
        return self.folder / f"{result_id}.rows"

    def _head(self, result_id: str) -> Path:
        return self.folder / f"{result_id}.json"
