"""The contracts of a project without the files (``schemas = "registry"``): read from the registry, attributes included.

What was read is kept beside the schemas by id, so that a worker starts with the registry away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from schemas import avsc
from schemas.contract import Contract, Contracts, contract_from_schema
from schemas.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from schemas.registry import Registry
    from schemas.schema_cache import SchemaCache

KEPT = "contracts"
"""Their name in the cache."""
Warn = Callable[[str], object]


def registered_contracts(registry: Registry, kept: SchemaCache, warn: Warn) -> Contracts:
    """The newest version of every contract in the registry but the backbone's own, or those read last when it does not
    answer, which is warned of. Blocks; raises UnreachableError where none were read before, and what else the registry
    raises.

    A schema without the attribute ``backbone`` is somebody else's and is passed over; one with it that is no contract
    is a warning.
    """
    try:
        texts = registry.listed_schemas()
    except UnreachableError:
        before = kept.read(KEPT)
        if before is None:
            raise
        warn("The registry does not answer; the contracts are those that it had when it was asked last.")
        return contracts_in(json.loads(before), warn, _first, lambda _: None)

    def newest(subject: str) -> str | None:
        latest = registry.latest(subject)
        return None if latest is None else latest.schema

    found = contracts_in(texts, warn, lambda twins: _newest(registry, twins, warn), newest)
    written = json.dumps([contract.text for contract in found.values()], ensure_ascii=False)
    if kept.read(KEPT) != written:
        kept.write(KEPT, written)
    return found


def contracts_in(
    texts: Iterable[str],
    warn: Warn,
    choose: Callable[[list[Contract]], Contract],
    newest: Callable[[str], str | None],
) -> Contracts:
    """The contracts among schemas. ``newest`` answers a subject's newest text where several versions of it are listed,
    ``choose`` says which of several contracts of one name (on several topics) is in force."""
    versions: dict[str, list[str]] = {}
    for text in texts:
        if '"backbone"' in text:
            versions.setdefault(_subject(text) or text, []).append(text)
    by_name: dict[str, dict[str, Contract]] = {}
    for subject, listed in versions.items():
        text = listed[0] if len(listed) == 1 else newest(subject) or listed[-1]
        name = "a schema"
        try:
            schema = avsc.parse(text)
            if not isinstance(schema, dict) or "backbone" not in schema:
                continue
            if isinstance(schema.get("name"), str):
                name = avsc.full_name(schema)
            if name.startswith("backbone."):
                continue
            contract = contract_from_schema(schema, f"registry:{name}")
        except InputError as error:
            warn(f"{name[:200]} in the registry is no contract and is left out: {error}")
            continue
        by_name.setdefault(contract.name, {})[contract.subject] = contract
    return Contracts(
        {
            name: choose(list(twins.values())) if len(twins) > 1 else next(iter(twins.values()))
            for name, twins in by_name.items()
        }
    )


def _subject(text: str) -> str | None:
    """The subject that a contract's text belongs to, before anything in it is checked."""
    try:
        schema = json.loads(text)
        topic, name = schema["backbone"]["topic"], schema["name"]
        full = name if "." in name else f"{schema['namespace']}.{name}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return f"{topic}-{full}"


def _first(twins: list[Contract]) -> Contract:
    return twins[0]


def _newest(registry: Registry, twins: list[Contract], warn: Warn) -> Contract:
    """An event has one topic: where it moved, the old subject is still there. Ids grow: the highest is the newest."""
    latest = {one.subject: registry.latest(one.subject) for one in twins}
    ids = {subject: -1 if found is None else found.id for subject, found in latest.items()}
    newest = max(twins, key=lambda one: (ids[one.subject], one.subject))
    topics = ", ".join(sorted(one.topic for one in twins if one is not newest))
    warn(f"{newest.name} is registered for the topics {topics} as well; {newest.topic}, the newest, is taken.")
    return newest
