"""Checking contracts before they are merged: rules, compatibility with what was, and who would be hurt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.contracts.former import Former, Past, former, past, registered
from ops.contracts.impact import Changed, changed, deprecated_readers, impact, readings
from ops.files import named_file
from schemas.compatibility import DEFAULT_MODE, compatible
from schemas.contract import Contract, Contracts
from schemas.findings import Finding
from schemas.lint import Linted, lint_file, lint_folder, side_by_side
from schemas.replacement import successor_name

if TYPE_CHECKING:
    from ops.app import App

REFUSED = frozenset({"incompatible", "field-read", "promise-read"})
"""Rules of changes that are made as a new event instead."""


def check_files(
    app: App, files: Sequence[Path], *, folder: Path | None, registry: bool, base: str | None
) -> list[Finding]:
    """What is to be said of these files, file by file. What is wrong in a file is a finding, never an error.

    ``folder``: the files are all of this folder, so one that is gone is seen too. ``registry``: compare with every
    registered version, by our check and by the registry's own; that the two disagree is a warning. ``base``: compare
    with that revision of git. With either, what has changed is asked of everybody who reads it here. Blocks; raises
    InputError for an unknown revision, NotFoundError for a file that is not there, and what the registry raises.
    """
    if folder is not None and not files:
        return lint_folder(folder)
    linted = [lint_file(named_file(file)) for file in files]
    project = linted if folder is not None else [*_others(app, files), *linted]
    known = {one.contract.name: one.contract for one in project if one.contract is not None}
    beside = side_by_side(one.contract for one in project if one.contract is not None)
    before = None if base is None else past(app.project.root, base, [*_folder(app), *files], known.values())
    subjects = app.registry.subjects() if registry else []
    found: dict[str, list[Finding]] = {}
    changes: list[Changed] = []
    for one in linted:
        findings = found.setdefault(str(one.file), [])
        findings += [*one.findings, *beside.get(str(one.file), ())]
        if one.contract is None:
            continue
        then = None if before is None else before.of(one.contract, known)
        versions = registered(app.registry, one.contract, subjects) if registry else []
        if then is not None and then.schema != one.contract.schema:
            findings += _incompatible(one.contract, [then])
        if versions:
            findings += _against_registry(app, one.contract, versions)
        newest = [former for former in (then, *versions[-1:]) if former is not None]
        if any(former.schema != one.contract.schema for former in newest):
            changes.append(changed(one.contract.name, str(one.file), one.contract, newest))
    if folder is not None:
        changes += _gone(app, before, subjects, known, linted)
    for finding in _hurt(app, changes, before, known, linted):
        found.setdefault(finding.file, []).append(finding)
    return [finding for file, findings in found.items() for finding in _advised(findings, file, known)]


def _hurt(
    app: App, changes: Sequence[Changed], before: Past | None, known: dict[str, Contract], linted: Sequence[Linted]
) -> list[Finding]:
    """What the changes do to those who read, and who still reads what has an end."""
    ending = [one.contract for one in linted if one.contract is not None and one.contract.status == "deprecated"]
    # a new event beside the old ones may break a wildcard
    events_then = set() if before is None else {one.name for one in before.all()}
    if not changes and not ending and (before is None or set(known) == events_then):
        return []
    old = dict(known)
    if before is not None:
        old = {one.name: one.contract for one in before.all() if one.contract is not None}
    for change in changes:
        old |= {former.name: former.contract for former in change.formers if former.contract is not None}
    read = readings(app, Contracts(old), Contracts(known))
    return [*impact(changes, read), *(finding for one in ending for finding in deprecated_readers(one, read))]


def _gone(
    app: App, before: Past | None, subjects: Sequence[str], known: dict[str, Contract], linted: Sequence[Linted]
) -> list[Changed]:
    """Events that had a file at the revision, or are registered for a topic of this project, and have none now. A file
    that is there and is no contract at the moment is not gone."""
    gone: dict[str, list[Former]] = {}
    there = {one.file.resolve() for one in linted if one.contract is None}
    for one in () if before is None else before.all():
        if one.name not in known and (one.file is None or one.file.resolve() not in there):
            gone.setdefault(one.name, []).append(one)
    topics, broken = {one.topic for one in known.values()}, {file.stem for file in there}
    for subject in subjects:
        topic, _, name = subject.rpartition("-")
        if name not in known and topic in topics and name.rpartition(".")[2] not in broken:
            gone.setdefault(name, []).extend(_registered_event(app, subject))
    return [
        changed(name, str(next((one.file for one in formers if one.file), formers[0].said)), None, formers)
        for name, formers in sorted(gone.items())
        if formers
    ]


def _registered_event(app: App, subject: str) -> list[Former]:
    latest = app.registry.latest(subject)
    found = None if latest is None else former(latest.schema, f"the registry (version {latest.version})")
    return [found] if found is not None and found.contract is not None else []


def _against_registry(app: App, contract: Contract, versions: Sequence[Former]) -> list[Finding]:
    ours = _incompatible(contract, versions)
    if not app.registry.versions(contract.subject):
        return ours  # registered for another topic: the registry has nothing to say of this one
    verdict = app.registry.check_compatibility(contract.subject, contract.text)
    if verdict.compatible == (not ours):
        return ours
    if verdict.compatible:
        mode = app.registry.compatibility(contract.subject)
        says = f"the registry (its mode is {mode}) would accept it; our check decides"
    else:
        says = (
            f"our check finds nothing, but the registry refuses it: {', '.join(verdict.reasons) or 'without a reason'}"
        )
    severity: Any = "warning" if verdict.compatible else "error"
    return [*ours, Finding(file=contract.file, path="", rule="registry-disagrees", message=says, severity=severity)]


def _incompatible(contract: Contract, olds: Sequence[Former]) -> list[Finding]:
    return [
        Finding(
            file=contract.file,
            path=one.field,
            rule="incompatible",
            message=f"not compatible with {olds[one.against].said} ({one.direction}): {one.message}",
        )
        for one in compatible(contract.schema, [one.schema for one in olds], DEFAULT_MODE)
    ]


def _advised(findings: Sequence[Finding], file: str, known: dict[str, Contract]) -> list[Finding]:
    """The same, each once, and behind the last reason of a change that is refused what to do instead."""
    once = list(dict.fromkeys(findings))
    last = max(
        (place for place, one in enumerate(once) if one.rule in REFUSED and one.severity == "error"), default=None
    )
    contract = next((one for one in known.values() if one.file == file), None)
    if last is None or contract is None:
        return once
    once[last] = replace(once[last], message=f"{once[last].message} {instead(contract)}")
    return once


def instead(contract: Contract) -> str:
    """What to do in place of a change that is refused."""
    domain, _, name = contract.name.rpartition(".")
    new = f"{domain}.{successor_name(name)}"
    return (
        f"Take it back, or make a new event beside this one: {new} in the topic {contract.topic} with "
        f'"replaces": "{contract.name}"; publish both until the old one\'s sunset: '
        f"backbone schema deprecate {contract.name} --sunset DATE --replaced-by {new}"
    )


def _folder(app: App) -> list[Path]:
    folder = app.project.schemas
    return [folder] if isinstance(folder, Path) else []


def _others(app: App, files: Sequence[Path]) -> list[Linted]:
    """The project's other contracts, where there is a project: a file that is named is looked at among them."""
    from schemas.errors import NotFoundError

    try:
        folders = _folder(app)
    except NotFoundError:  # files of nobody's project are checked by themselves
        return []
    named = {file.resolve() for file in files}
    return [
        lint_file(file) for folder in folders for file in sorted(folder.rglob("*.avsc")) if file.resolve() not in named
    ]
