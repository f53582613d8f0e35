"""Python projections: a function in a file beside the subscription, in place of action, entity and body.

The file is read once; what was hashed is what is executed, in a module of its own that no import finds. It is code of
the project, reviewed as such, and not confined: what protects is the review, and that workers run only a file whose
hash is the one that was attached.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from consumers.expressions import shapes
from consumers.expressions.allowance import allowed_value
from consumers.subscription import Project, Projected
from schemas.contract import Contract
from schemas.event import Event
from schemas.findings import did_you_mean

BYTES_MAX: Final = 256 * 1024
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*\.py):([A-Za-z_][A-Za-z0-9_]*)\Z")
_modules: dict[tuple[str, str], ModuleType] = {}


class ProjectionError(Exception):
    """Why a projection cannot be used; becomes a finding."""


@dataclass(frozen=True, slots=True)
class Source:
    """A projection file as it was read: its bytes and their SHA-256."""

    file: str
    path: Path
    content: bytes
    sha256: str


def split(reference: str) -> tuple[str, str]:
    """File and function of ``file.py:function``. Raises ProjectionError."""
    parts = _REFERENCE.match(reference)
    if parts is None:
        raise ProjectionError(
            "A projection is written file.py:function, with a file that stands beside this one (no folders)."
        )
    return parts.group(1), parts.group(2)


def read(folder: Path, file: str) -> Source:
    """The file's bytes. Raises ProjectionError."""
    path = folder / file
    try:
        if path.resolve().parent != folder.resolve():
            raise ProjectionError(f"'{file}' leads out of the folder of this file.")
        with path.open("rb") as opened:
            content = opened.read(BYTES_MAX + 1)
    except FileNotFoundError:
        raise ProjectionError(
            f"There is no '{file}' beside this file.{did_you_mean(file, (p.name for p in folder.glob('*.py')))}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "input/output error"
        raise ProjectionError(f"'{file}' cannot be read ({reason}).") from None
    if len(content) > BYTES_MAX:
        raise ProjectionError(f"'{file}' is longer than {BYTES_MAX // 1024} kB.")
    return Source(file, path, content, hashlib.sha256(content).hexdigest())


def load(source: Source, function: str) -> Project:
    """The function, after the file was executed (once a process for the same bytes). Raises ProjectionError."""
    module = _modules.get((str(source.path), source.sha256))
    if module is None:
        module = _executed(source)
        _modules[str(source.path), source.sha256] = module
    found = vars(module).get(function)
    known = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    if not inspect.isfunction(found):
        raise ProjectionError(f"'{source.file}' has no function '{function}'.{did_you_mean(function, known)}")
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        raise ProjectionError(f"'{function}' must be a plain function: a projection neither waits nor yields.")
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        raise ProjectionError(f"'{function}' must take one argument, the event.") from None
    return found


def _executed(source: Source) -> ModuleType:
    try:
        tree = ast.parse(source.content, filename=str(source.path))
        code = compile(tree, str(source.path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ProjectionError(f"'{source.file}' is not Python: line {error.lineno}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise ProjectionError(f"'{source.file}' is not Python.") from None
    module = ModuleType(f"backbone_projection_{source.sha256[:12]}_{Path(source.file).stem}")
    module.__file__ = str(source.path)
    module.__dict__["__backbone_projection__"] = source.file
    sys.modules[module.__name__] = module  # dataclasses and annotations look their module up there
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a person's file raises becomes a finding
        del sys.modules[module.__name__]
        line = _last_line(error, str(source.path))
        place = f" in line {line}" if line else ""
        raise ProjectionError(f"'{source.file}' cannot be executed: {type(error).__name__}{place}.") from None
    return module


def _last_line(error: BaseException, path: str) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@dataclass(frozen=True, slots=True)
class Confined:
    """A projection that gets to see only what may leave: other fields are not in ``event.data``, and the key is None
    where it is a field that may not leave. A class cannot be followed through Python, so it is kept out of it."""

    function: Project
    sees: Callable[[Event], Event]

    def __call__(self, event: Event) -> Projected | None:
        return self.function(self.sees(event))


def confined(function: Project, contract: Contract, allowed: frozenset[str]) -> Confined:
    """The projection for the events of one contract, with the classes that the subscription allows."""
    shape = shapes.of_contract(contract)
    classed = {path for path, one in contract.fields.items() if one.personal_data not in (None, "none", *allowed)}
    known = frozenset(shape.fields)
    copied: Callable[[Any], Any] = allowed_value(contract, "", shape, allowed)
    key_hidden = contract.key in classed
    subject_hidden = key_hidden or contract.entity in classed

    def sees(event: Event) -> Event:
        if classed or not event.data.keys() <= known:
            return replace(
                event,
                data=copied(event.data),
                key=None if key_hidden else event.key,
                subject=None if subject_hidden else event.subject,
            )
        return event

    return Confined(function, sees)
