"""A plan: everything that a change will do, in absolute values, with what it was made from."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from schemas.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from ops.app import App

JsonValue: TypeAlias = Any
"""None, bool, int, float, str, or lists and string-keyed mappings of them."""

VALID_FOR = timedelta(minutes=60)
FORMAT = "backbone.plan/v1"
# no 0/o, 1/l/i: an id is read aloud at 3 a.m.
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a change will do. Made by ``new_plan``; stored as JSON; never altered after that (its hash is audited).

    ``subject`` is what it is about and what ``--confirm`` must name; ``title`` one sentence; ``summary`` sentences for
    people; ``rows`` the table they see; ``steps`` the names of what is done one by one; ``preconditions`` what
    ``precheck`` compares; ``before`` and ``after`` the values it changes (audited); ``details`` whatever the kind
    needs to act; ``severe`` says why ``--confirm`` is needed, empty if it is not; ``undoes`` the id of the change
    that it takes back.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "hide_input_in_errors": True}

    id: str
    kind: str
    context: str
    subject: str
    title: str
    created: datetime
    expires: datetime
    author: str
    reason: str = ""
    summary: tuple[str, ...] = ()
    rows: tuple[dict[str, JsonValue], ...] = ()
    steps: tuple[str, ...] = ()
    preconditions: dict[str, JsonValue] = field(default_factory=dict)
    before: dict[str, JsonValue] = field(default_factory=dict)
    after: dict[str, JsonValue] = field(default_factory=dict)
    details: dict[str, JsonValue] = field(default_factory=dict)
    severe: str = ""
    undoes: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's canonical JSON, in hex: what was shown is what is audited and done."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()

    def expired_at(self, now: datetime) -> bool:
        return now >= self.expires


def new_plan(
    app: App,
    *,
    kind: str,
    subject: str,
    title: str,
    rows: Sequence[Mapping[str, JsonValue]] = (),
    summary: Sequence[str] = (),
    steps: Sequence[str] = (),
    preconditions: Mapping[str, JsonValue] | None = None,
    before: Mapping[str, JsonValue] | None = None,
    after: Mapping[str, JsonValue] | None = None,
    details: Mapping[str, JsonValue] | None = None,
    severe: str = "",
    undoes: str = "",
    reason: str = "",
) -> Plan:
    """A plan of this context with an id that no plan on this machine has. Values must be JSON values."""
    from ops.changes.store import Store
    from ops.settings import user_name

    now = datetime.now(UTC).replace(microsecond=0)
    store = Store.of(app)
    return Plan(
        id=new_id(store.taken), kind=kind, context=app.screen.context, subject=subject, title=title, created=now,
        expires=now + VALID_FOR, author=user_name(), reason=reason, summary=tuple(summary),
        rows=tuple(dict(row) for row in rows), steps=tuple(steps), preconditions=dict(preconditions or {}),
        before=dict(before or {}), after=dict(after or {}), details=dict(details or {}), severe=severe, undoes=undoes,
    )  # fmt: skip


def new_id(taken: Any, prefix: str = "ch-") -> str:
    """``ch-`` and five letters; ``taken(id)`` says which are in use."""
    while True:
        candidate = prefix + "".join(secrets.choice(_LETTERS) for _ in range(5))
        if not taken(candidate):
            return candidate


def is_id(text: str, prefix: str = "ch-") -> bool:
    """Whether it looks like a change's id (so that a path never comes of it)."""
    rest = text.removeprefix(prefix)
    return text.startswith(prefix) and 1 <= len(rest) <= 12 and all(char in _LETTERS for char in rest)


def dump(plan: Plan) -> str:
    """The plan's file: JSON with its hash."""
    content = {"format": FORMAT, "hash": plan.hash, "plan": asdict(plan)}
    return json.dumps(content, ensure_ascii=False, indent=2, default=_time) + "\n"


def parse(text: bytes, file: Path | str) -> Plan:
    """The plan of a file's content. Raises InputError with one sentence for anything that is not a plan as ``dump``
    wrote it; it was edited, cut or made by another version."""
    from pydantic import TypeAdapter, ValidationError

    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{file} is not a plan: it is not JSON. Plan the change again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or set(content) != {"format", "hash", "plan"}:
        raise InputError(f"{file} is not a plan of this version ({FORMAT}). Plan the change again.")
    try:
        plan = TypeAdapter(Plan).validate_python(content["plan"])
    except (ValidationError, RecursionError) as error:
        where = ""
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ": " + ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file} is not a complete plan{where}. Plan the change again.") from None
    if plan.created.tzinfo is None or plan.expires.tzinfo is None or not is_id(plan.id):
        raise InputError(f"{file} is not a complete plan. Plan the change again.")
    try:
        intact = plan.hash == content["hash"]
    except (ValueError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise InputError(f"{file} was altered after it was planned. Plan the change again.")
    return plan


def _canonical(plan: Plan) -> str:
    return json.dumps(asdict(plan), ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_time)


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} is not a JSON value")
