"""Two versions of a schema side by side: what differs, whether each can read the other, and whom it would hurt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.contracts.former import Former, former, past
from ops.contracts.impact import changed, impact, readings
from ops.files import named_file
from ops.git import files_at
from schemas.compatibility import Incompatibility, check
from schemas.contract import Contract, Contracts, read_bytes
from schemas.errors import InputError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App

_EVENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,8}\Z|latest\Z")


def side(app: App, written: str) -> Former:
    """What one argument of ``schema diff`` means: a file, ``EVENT`` (its file here), ``EVENT:3`` and ``EVENT:latest``
    (registered), ``EVENT@REVISION`` or ``REVISION:PATH`` (git; the path from the project's folder).

    Blocks. Raises NotFoundError, InputError for what is no schema, and what git and the registry raise.
    """
    if not written.isprintable() or not written:
        raise InputError("A side of the comparison is a file, an event, a version of it or a file of git.")
    event, _, version = written.rpartition(":")
    name, _, revision = written.partition("@")
    if _EVENT.match(event) and _VERSION.match(version):
        return _registered(app, event, version)
    if revision and _EVENT.match(name):
        return _of_revision(app, name, revision)
    revision, _, path = written.partition(":")
    if revision and path and not Path(written).exists():
        return _file_of_revision(app, revision, path, written)
    if _EVENT.match(written) and not written.endswith(".avsc") and not Path(written).exists():
        contract = _contract(app, written)
        return Former(name=contract.name, said=written, schema=contract.schema, contract=contract)
    file = named_file(Path(written))
    return _schema(former(read_bytes(file), written, file), written)


def compared(app: App, old: Former, new: Former) -> dict[str, Any]:
    """The comparison as plain data: ``differences``, ``compatible`` both ways with ``reasons``, and ``impact``. Blocks
    for the subscriptions' files; a comparison never says no."""
    change = changed(old.name, new.said, new, [old])
    now = _project_contracts(app)
    read = []
    if now is not None:
        before = Contracts(now | {one.name: one.contract for one in (old,) if one.contract is not None})
        after = Contracts(now | {one.name: one.contract for one in (new,) if one.contract is not None})
        read = readings(app, before, after) if change.differing else []
    backward, forward = check(new.schema, old.schema), check(old.schema, new.schema)
    return {
        "old": {"name": old.said, "event": old.name},
        "new": {"name": new.said, "event": new.name},
        "differences": [
            {
                "field": one.path or None,
                "kind": one.kind,
                "attribute": one.what,
                "before": one.before,
                "after": one.after,
                "says": str(one),
            }
            for one, _ in change.differing
        ],
        "compatible": {"backward": not backward, "forward": not forward, "full": not backward and not forward},
        "reasons": [*_reasons("backward", backward), *_reasons("forward", forward)],
        "impact": [
            {"field": one.path or None, "severity": one.severity, "rule": one.rule, "message": one.message}
            for one in impact([change], read)
        ],
    }


def _reasons(direction: str, found: list[Incompatibility]) -> Iterator[dict[str, Any]]:
    for one in found:
        yield {"direction": direction, "field": one.field or None, "kind": one.kind, "message": one.message}


def _project_contracts(app: App) -> dict[str, Contract] | None:
    """The project's contracts by name; None where files of nobody's project are compared."""
    try:
        return dict(app.contracts)
    except NotFoundError:  # there is no backbone.toml
        return None


def _contract(app: App, name: str) -> Contract:
    known = {**app.contracts, **app.engine_contracts}
    if name not in known:
        raise NotFoundError(f"There is no event '{name[:100]}' and no file of that name.{did_you_mean(name, known)}")
    return known[name]


def _registered(app: App, event: str, version: str) -> Former:
    contract = _contract(app, event)
    if version == "latest":
        latest = app.registry.latest(contract.subject)
        if latest is None:
            raise NotFoundError(f"{event} is not registered. Do it: backbone schema register {event}")
        found = latest
    else:
        found = app.registry.version(contract.subject, int(version))
    said = f"{event}:{found.version}"
    return _schema(former(found.schema, said), said)


def _of_revision(app: App, event: str, revision: str) -> Former:
    folder = app.project.schemas
    if not isinstance(folder, Path):
        raise InputError("This project reads its contracts from the registry: name versions, like EVENT:3.")
    events = {one.name: one for one in past(app.project.root, revision, [folder], ()).all()}
    if event not in events:
        raise NotFoundError(f"{revision} has no event '{event[:100]}'.{did_you_mean(event, events)}")
    return replace(events[event], said=f"{event}@{revision}")


def _file_of_revision(app: App, revision: str, path: str, written: str) -> Former:
    root = app.project.root
    texts = files_at(root, revision, [root / path], suffix=Path(path).suffix)
    if len(texts) != 1:
        raise NotFoundError(f"{revision} has no file '{path}'; name it from the project's folder {root}.")
    (text,) = texts.values()
    return _schema(former(text, written), written)


def _schema(found: Former | None, written: str) -> Former:
    if found is None:
        raise InputError(f"{written} is no Avro schema of a record; see: backbone schema check FILE")
    return found
