"""The kinds of changes there are. A module is imported only when a change of its kind is applied or undone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import NotFoundError

if TYPE_CHECKING:
    from ops.app import App
    from ops.changes.plan import JsonValue, Plan
    from ops.changes.store import Journal

KINDS: Mapping[str, str] = {
    "register": "ops.changes.register",
    "attach": "ops.changes.attach",
    "detach": "ops.changes.attach",
    "pause": "ops.changes.pause",
    "resume": "ops.changes.pause",
    "rewind": "ops.changes.rewind",
    "connection_pause": "ops.changes.connection",
    "connection_resume": "ops.changes.connection",
    "redrive": "ops.changes.redrive",
    "replay": "ops.changes.replay",
    "repair": "ops.changes.repair",
    "discard": "ops.changes.discard",
    "set_aside": "ops.changes.set_aside",
    "erase": "ops.changes.erase",
    "steer": "ops.changes.steering",
}
"""Where a kind's constant ``KIND`` (or ``KIND_<NAME>`` where a module has several) stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeKind:
    """How one kind of change is checked, done and taken back; see ``ops.changes`` for what each function promises.

    ``undo`` None: it cannot be taken back, and ``not_undoable`` says why. ``before_audit`` is for the one kind that
    creates what the audit itself needs. ``long``: it may run for hours, chunk by chunk, each checked anew: it can be
    paused, throttled and cancelled (``ops.changes.steering``), and one that was cut goes on however old its plan is.
    ``left_over`` says of the values after what a person has to do besides (empty: nothing): the change is done, and the
    command ends with exit 7.
    """

    name: str
    precheck: Callable[[App, Plan, frozenset[str]], None]
    act: Callable[[App, Plan, Journal], dict[str, JsonValue]]
    undo: Callable[[App, Plan, Mapping[str, JsonValue], frozenset[str]], Plan] | None = None
    not_undoable: str = ""
    before_audit: Callable[[App, Plan], None] | None = None
    long: bool = False
    left_over: Callable[[Mapping[str, JsonValue]], str] | None = None


def kind(name: str) -> ChangeKind:
    """Raises NotFoundError for a kind that this version does not know."""
    if name not in KINDS:
        raise NotFoundError(f"This version knows no change of the kind '{name}'.")
    module = importlib.import_module(KINDS[name])
    found = getattr(module, f"KIND_{name.upper()}", None) or module.KIND
    assert isinstance(found, ChangeKind)
    return found
