"""A schema that refers to types in other subjects, written out as one schema that stands alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from schemas import avsc
from schemas.avsc import shown
from schemas.errors import InputError

REFERENCES_MAX = 64


def written_out(text: str, references: Any, fetch: Callable[[str, int], tuple[str, Any]], what: str) -> str:
    """The text of ``text`` with every type of ``references`` (a registry's list of name, subject and version) written
    out where it is first used. ``fetch`` answers the text and the references of one version; it is called at most 64
    times. Raises InputError for references that are broken or go round in a circle."""
    definitions: dict[str, Any] = {}
    _collect(references, fetch, definitions, what, ())
    return json.dumps(_Writer(definitions).type(avsc.parse(text, what), ""), ensure_ascii=False)


def _collect(
    references: Any,
    fetch: Callable[[str, int], tuple[str, Any]],
    definitions: dict[str, Any],
    what: str,
    path: tuple[tuple[str, int], ...],
) -> None:
    for one in references if isinstance(references, list) else []:
        if not isinstance(one, dict):
            raise InputError(f"{what}: a reference is not an object.")
        subject, version = one.get("subject"), one.get("version")
        if not isinstance(subject, str) or not isinstance(version, int):
            raise InputError(f"{what}: a reference needs a subject and a version.")
        if (subject, version) in path:
            raise InputError(f"{what}: its references go round in a circle at {shown(subject)}.")
        if len(path) >= avsc.DEPTH_MAX or len(definitions) >= REFERENCES_MAX:
            raise InputError(f"{what}: more references than are followed.")
        text, further = fetch(subject, version)
        _collect(further, fetch, definitions, what, (*path, (subject, version)))
        schema = avsc.parse(text, what)
        if isinstance(schema, dict) and isinstance(schema.get("name"), str):
            # without a namespace of its own it must not take that of the place where it is written out
            definitions.setdefault(avsc.full_name(schema), {"namespace": "", **schema})


class _Writer:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.done: set[str] = set()
        self.depth = 0

    def type(self, schema: Any, namespace: str) -> Any:
        self.depth += 1
        try:
            if self.depth > 200:
                raise InputError("the schema is nested too deeply.")
            return self._type(schema, namespace)
        finally:
            self.depth -= 1

    def _type(self, schema: Any, namespace: str) -> Any:
        if isinstance(schema, str):
            for full in (f"{namespace}.{schema}" if namespace and "." not in schema else schema, schema):
                if full in self.definitions and full not in self.done and schema not in avsc.PRIMITIVES:
                    return self.type(self.definitions[full], "")
            return schema
        if isinstance(schema, list):
            return [self.type(branch, namespace) for branch in schema]
        if not isinstance(schema, dict):
            return schema
        out = dict(schema)
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            if not isinstance(schema.get("name"), str):
                return schema
            full = avsc.full_name(schema, namespace)
            self.done.add(full)
            if isinstance(schema.get("fields"), list):
                inner = full.rpartition(".")[0]
                out["fields"] = [
                    {**one, "type": self.type(one["type"], inner)} if isinstance(one, dict) and "type" in one else one
                    for one in schema["fields"]
                ]
            return out
        for part in ("items", "values"):
            if part in schema:
                out[part] = self.type(schema[part], namespace)
        if not isinstance(kind, str) or (kind not in avsc.PRIMITIVES and kind not in ("array", "map")):
            out["type"] = self.type(kind, namespace)
        return out
