"""Checking contract files: the lint, and compatibility with what is registered or stands in git."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.files import named_file
from schemas.compatibility import DEFAULT_MODE, compatible
from schemas.contract import Contract, load_contract
from schemas.errors import InputError
from schemas.findings import Finding
from schemas.lint import lint, lint_folder

if TYPE_CHECKING:
    from ops.app import App


def check_files(
    app: App, files: Sequence[Path], *, folder: Path | None, registry: bool, base: str | None
) -> list[Finding]:
    """What is wrong in these files, in their order. A file that is no contract is a finding, not an error.

    ``folder``: the files are all of this folder, and are also looked at side by side.

    ``registry``: compare with every registered version, by our check and by the registry's own; that the two
    disagree is a warning. ``base``: compare with the file at that revision of git. Blocks; raises InputError for an
    unknown revision, and what the registry raises.
    """
    if base is not None:
        _git(app.project.root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", missing=base)
    findings = [] if folder is None else lint_folder(folder)
    for file in files:
        named_file(file)
        found = [finding for finding in findings if finding.file == str(file)] if folder else lint(file)
        findings += [] if folder else found
        try:
            contract = load_contract(file)
        except InputError as error:
            if not any(finding.severity == "error" for finding in found):
                # it is another file than the one that was linted a moment ago
                findings.append(Finding(file=str(file), path="", rule="unreadable", message=str(error)))
            continue
        if registry:
            findings += _against_registry(app, contract, file)
        if base is not None:
            findings += _against_git(app.project.root, base, contract, file)
    return findings


def _against_registry(app: App, contract: Contract, file: Path) -> list[Finding]:
    versions = app.registry.versions(contract.subject)
    if not versions or app.registry.lookup(contract.subject, contract.text) is not None:
        return []
    olds = [json.loads(app.registry.version(contract.subject, version).schema) for version in versions]
    ours = [
        Finding(
            file=str(file),
            path=one.field,
            rule="incompatible",
            message=f"not compatible with version {versions[one.against]} ({one.direction}): {one.message}",
        )
        for one in compatible(contract.schema, olds, DEFAULT_MODE)
    ]
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
    return [*ours, Finding(file=str(file), path="", rule="registry-disagrees", message=says, severity=severity)]


def _against_git(root: Path, base: str, contract: Contract, file: Path) -> list[Finding]:
    try:
        place = file.resolve().relative_to(root.resolve())
    except ValueError:
        raise InputError(f"{file} is not in the project {root}, so git does not know it.") from None
    text = _git(root, "show", f"{base}:./{place.as_posix()}")
    if text is None:
        return []  # a new file
    try:
        old = json.loads(text)
    except ValueError:
        return []  # it was no contract then: nothing relies on it
    return [
        Finding(
            file=str(file),
            path=one.field,
            rule="incompatible",
            message=f"not compatible with {base} ({one.direction}): {one.message}",
        )
        for one in compatible(contract.schema, [old], DEFAULT_MODE)
    ]


def _git(root: Path, *arguments: str, missing: str | None = None) -> str | None:
    """What git says, or None where it has no such file."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise InputError("--base needs git, which is not installed.") from None
    except subprocess.TimeoutExpired:
        raise InputError("git did not answer within 30 s.") from None
    if done.returncode == 0:
        return done.stdout
    if missing is not None:
        raise InputError(f"git knows no revision '{missing}' in {root}.")
    return None
