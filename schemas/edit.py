"""Setting what a contract promises in the text of its file; every other character stays as a person wrote it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

from schemas.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class _Member(NamedTuple):
    """One ``"name": value`` of an object: where its name begins, and where its value does and ends."""

    name: str
    at: int
    value_at: int
    end: int


def with_promises(text: str, promises: Mapping[str, str]) -> str:
    """The text of an .avsc with these texts set in its ``backbone`` object: one that stands there gets the new value in
    its place, another one is added at the end in the way the ones before are laid out.

    ``text`` is JSON (``schemas.avsc.parse`` accepts it). Raises InputError where it has no ``backbone`` object.
    """
    for name, value in promises.items():
        text = _with_promise(text, name, value)
    return text


def _with_promise(text: str, name: str, value: str) -> str:
    whole = _members(text, _space(text, 1 if text.startswith("\ufeff") else 0))
    backbone = next((one for one in whole if one.name == "backbone"), None)
    if backbone is None or text[backbone.value_at] != "{":
        raise InputError("the schema has no 'backbone' object to write to.")
    members = _members(text, backbone.value_at)
    written = json.dumps(value, ensure_ascii=False)
    for one in members:
        if one.name == name:
            return text[: one.value_at] + written + text[one.end :]
    if not members:
        inside = backbone.value_at + 1
        return f"{text[:inside]}{json.dumps(name)}: {written}{text[inside:]}"
    last = members[-1]
    between = text[members[-2].end : last.at] if len(members) > 1 else ", "
    colon = text[last.at + len(json.dumps(last.name, ensure_ascii=False)) : last.value_at]
    colon = colon if re.fullmatch(r"\s*:\s*", colon) else ": "
    return f"{text[: last.end]}{between}{json.dumps(name)}{colon}{written}{text[last.end :]}"


def _members(text: str, at: int) -> list[_Member]:
    """The members of the object that begins at ``at``; empty for what is none."""
    members: list[_Member] = []
    if text[at : at + 1] != "{":
        return members
    place = _space(text, at + 1)
    while text[place] == '"':
        begins = place
        name, place = scanstring(text, place + 1)
        place = _space(text, place)  # at the colon
        value_at = _space(text, place + 1)
        _, end = _DECODER.raw_decode(text, value_at)
        members.append(_Member(name, begins, value_at, end))
        place = _space(text, end)
        if text[place] == ",":
            place = _space(text, place + 1)
    return members


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()
