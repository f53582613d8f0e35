"""What differs between two versions of a schema, field by field: what a person reviews and readers are asked about.

Compatibility says whether bytes can still be read; this says what changed, also where every byte can be read (a removed
field that had a default, a new personal-data class, another topic). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from schemas import avsc
from schemas.avsc import label, shown
from schemas.contract_form import CONSTRAINTS
from schemas.errors import InputError

Kind: TypeAlias = Literal[
    "added", "removed", "renamed", "retyped", "symbols", "default", "tightened", "loosened", "personal_data", "doc",
    "attribute", "promise",
]  # fmt: skip

_STRUCTURE = frozenset({"name", "type", "default", "doc", "personal_data", "aliases", "order", *CONSTRAINTS})
_LOWER_BOUNDS = ("minLength", "minimum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that changed. ``path`` is the dotted field as in ``Contract.fields`` (empty: the record itself), by its
    old name where it was renamed; ``what`` the attribute (``type``, ``maxLength``, ``topic``); ``before`` and ``after``
    are plain JSON, None where there was or is none."""

    path: str
    kind: Kind
    what: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        name = repr(self.path) if self.path else "the event"
        match self.kind:
            case "added":
                return f"{name} is new ({self.after})"
            case "removed":
                return f"{name} was removed"
            case "renamed":
                return (
                    f"{name} is called {self.after!r} now" if self.path else f"{self.before} is called {self.after} now"
                )
            case "retyped":
                return f"{name} is {self.after} and was {self.before}"
            case "symbols":
                return f"{name} {_symbols_in_words(self.before, self.after)}"
            case "doc":
                return f"{name} is described in other words"
            case "promise":
                return f"the {self.what.replace('_', ' ')} is {_value(self.after)} and was {_value(self.before)}"
            case "personal_data":
                return f"{name} has the personal-data class {_value(self.after)} and had {_value(self.before)}"
            case _:
                what = "the default" if self.kind == "default" else self.what
                return f"{name} has {what} {_value(self.after)} and had {_value(self.before)}"


def differences(old: Any, new: Any) -> list[Difference]:
    """Everything that changed from ``old`` to ``new`` (parsed JSON of records), in the order of the old fields, then of
    the new ones. Raises InputError for a schema that is none, or is no record."""
    for schema in (old, new):
        found = avsc.undecodable(schema)
        if found:
            raise InputError(f"not a schema that can be compared: {found[0].path} {found[0].message}")
        if not isinstance(schema, Mapping) or schema["type"] not in ("record", "error"):
            raise InputError("not a schema that can be compared: an event is an Avro record.")
    if old == new:
        return []
    before, after = avsc.resolved(old), avsc.resolved(new)
    return [*_event(before, after), *_record(before, after, "")]


def _event(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    if old["name"] != new["name"]:
        yield Difference(path="", kind="renamed", what="name", before=old["name"], after=new["name"])
    if old.get("doc") != new.get("doc"):
        yield Difference(path="", kind="doc", what="doc", before=old.get("doc"), after=new.get("doc"))
    promised, promises = (one if isinstance(one, Mapping) else {} for one in (old.get("backbone"), new.get("backbone")))
    for name in dict.fromkeys([*promised, *promises]):
        if promised.get(name) != promises.get(name):
            yield Difference(
                path="", kind="promise", what=str(name), before=promised.get(name), after=promises.get(name)
            )


def _record(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    were, are = ({one["name"]: one for one in schema["fields"]} for schema in (old, new))
    renamed = {
        alias: one
        for name, one in are.items()
        if name not in were
        for alias in _aliases(one)
        if alias in were and alias not in are
    }
    for name, one in were.items():
        here = f"{path}.{name}" if path else name
        now = are.get(name) or renamed.get(name)
        if now is None:
            yield Difference(path=here, kind="removed", what="type", before=label(one["type"]))
            continue
        if now["name"] != name:
            to = f"{path}.{now['name']}" if path else now["name"]
            yield Difference(path=here, kind="renamed", what="name", before=here, after=to)
        yield from _attributes(one, now, here)
        yield from _type(one["type"], now["type"], here)
    known = {one["name"] for one in renamed.values()}
    for name, one in are.items():
        if name not in were and name not in known:
            default = f", default {_value(one['default'])}" if "default" in one else ", no default"
            yield Difference(
                path=f"{path}.{name}" if path else name, kind="added", what="type", after=label(one["type"]) + default
            )


def _aliases(one: Mapping[str, Any]) -> list[str]:
    aliases = one.get("aliases")
    return [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []


def _attributes(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Difference]:
    if ("default" in old, old.get("default")) != ("default" in new, new.get("default")):
        before, after = (_value(one["default"]) if "default" in one else None for one in (old, new))
        yield Difference(path=path, kind="default", what="default", before=before, after=after)
    for name in CONSTRAINTS:
        if old.get(name) != new.get(name):
            tighter = _tighter(name, old.get(name), new.get(name))
            yield Difference(
                path=path,
                kind="tightened" if tighter else "loosened",
                what=name,
                before=old.get(name),
                after=new.get(name),
            )
    if _class(old) != _class(new):
        yield Difference(path=path, kind="personal_data", what="personal_data", before=_class(old), after=_class(new))
    if old.get("doc") != new.get("doc"):
        yield Difference(path=path, kind="doc", what="doc", before=old.get("doc"), after=new.get("doc"))
    for name in dict.fromkeys([*old, *new]):
        if name not in _STRUCTURE and old.get(name) != new.get(name):
            yield Difference(path=path, kind="attribute", what=str(name), before=old.get(name), after=new.get(name))


def _class(one: Mapping[str, Any]) -> Any:
    stated = one.get("personal_data")
    return None if stated == "none" else stated


def _tighter(name: str, before: Any, after: Any) -> bool:
    """Whether fewer values fit than before. Of two patterns it is not known: another one is taken for tighter."""
    if after is None or before is None:
        return before is None
    try:
        return bool(after > before) if name in _LOWER_BOUNDS else name == "pattern" or bool(after < before)
    except TypeError:
        return True


def _type(old: Any, new: Any, path: str) -> Iterator[Difference]:
    """Goes down as long as both have the same shape."""
    if old == new:
        return
    (was, was_nullable), (is_, nullable) = avsc.without_null(old), avsc.without_null(new)
    if was_nullable != nullable:
        yield Difference(path=path, kind="retyped", what="type", before=label(old), after=label(new))
        if label(was) != label(is_):
            return  # that says it all
    if isinstance(was, list) and isinstance(is_, list):
        branches = {label(one): one for one in is_}
        if {label(one) for one in was} != set(branches):
            yield Difference(path=path, kind="retyped", what="type", before=label(old), after=label(new))
        for one in was:
            if label(one) in branches:
                yield from _type(one, branches[label(one)], path)
        return
    kinds = [one["type"] if isinstance(one, Mapping) else one for one in (was, is_)]
    if kinds[0] == kinds[1] and isinstance(was, Mapping) and isinstance(is_, Mapping):
        match kinds[0]:
            case "record" | "error":
                yield from _record(was, is_, path)
                return
            case "array":
                yield from _type(was["items"], is_["items"], path)
                return
            case "map":
                yield from _type(was["values"], is_["values"], f"{path}.*")
                return
            case "enum":
                if was["symbols"] != is_["symbols"]:
                    before, after = list(was["symbols"]), list(is_["symbols"])
                    yield Difference(path=path, kind="symbols", what="symbols", before=before, after=after)
                return
    if label(was) != label(is_):
        yield Difference(path=path, kind="retyped", what="type", before=label(old), after=label(new))


def _symbols_in_words(before: list[str], after: list[str]) -> str:
    more, fewer = ([one for one in a if one not in b] for a, b in ((after, before), (before, after)))
    parts = [f"can be {_some(more)} now"] if more else []
    parts += [f"can not be {_some(fewer)} any more"] if fewer else []
    return " and ".join(parts) or "has its symbols in another order"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _value(value: Any) -> str:
    """An attribute's value in a sentence, cut where it is long."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown(text)[1:-1] if text else '""'
