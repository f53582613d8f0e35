"""The kind ``register``: schemas into the registry, and the topics that their contracts name.

The one change that may create what the audit itself needs: the audit's topic and schema, before its first record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops import topics
from ops.changes import audit
from ops.changes.kinds import ChangeKind
from ops.changes.plan import JsonValue, Plan, new_plan
from ops.changes.store import Journal
from schemas.compatibility import DEFAULT_MODE, compatible
from schemas.errors import NotFoundError, RefusedError
from schemas.findings import did_you_mean
from schemas.topics import TopicPlan

if TYPE_CHECKING:
    from ops.app import App
    from schemas.contract import Contract, Contracts
    from schemas.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectState:
    """What registering a contract would do. ``versions`` are those in the registry, oldest first."""

    contract: Contract
    state: str
    """``new``, ``unchanged``, ``new version`` or ``incompatible``"""
    versions: tuple[int, ...]
    reasons: tuple[str, ...] = ()


def subject_state(registry: Registry, contract: Contract) -> SubjectState:
    """Compare a contract with its subject. Blocks; raises what the registry raises.

    Asked of the registry and judged by our own check: either can say no.
    """
    versions = tuple(registry.versions(contract.subject))
    if not versions:
        return SubjectState(contract=contract, state="new", versions=())
    if registry.lookup(contract.subject, contract.text) is not None:
        return SubjectState(contract=contract, state="unchanged", versions=versions)
    olds = [json.loads(registry.version(contract.subject, version).schema) for version in versions]
    reasons = [
        f"{one} (against version {versions[one.against]}, {one.direction})"
        for one in compatible(contract.schema, olds, DEFAULT_MODE)
    ]
    verdict = registry.check_compatibility(contract.subject, contract.text)
    if not verdict.compatible and not reasons:
        reasons = list(verdict.reasons) or ["the registry refuses it and does not say why"]
    state = "incompatible" if reasons else "new version"
    return SubjectState(contract=contract, state=state, versions=versions, reasons=tuple(reasons))


def chosen_contracts(app: App, names: Sequence[str]) -> list[Contract]:
    """The project's contracts of these names (none: all), and always the backbone's own, the audit's first."""
    known: dict[str, Contract] = {**app.engine_contracts, **app.contracts}
    for name in names:
        if name not in known:
            raise NotFoundError(f"There is no event '{name}'.{did_you_mean(name, known)}")
    wanted = {name: known[name] for name in (names or app.contracts)}
    return list(({audit.EVENT: known[audit.EVENT], **app.engine_contracts} | wanted).values())


def register_plan(app: App, names: Sequence[str]) -> tuple[Plan | None, list[str]]:
    """The plan that registers contracts (none named: all) and creates their topics; None when nothing is missing.
    Also how existing topics differ from what is wanted, one sentence each: they are never altered.

    Raises RefusedError for what is not compatible or does not pass the lint, naming every reason; NotFoundError.
    """
    from schemas.contract import Contracts

    contracts = chosen_contracts(app, names)
    _refuse_findings(contracts, app.contracts)
    registry = app.registry
    subjects = [subject_state(registry, contract) for contract in contracts]
    refused = [subject for subject in subjects if subject.state == "incompatible"]
    if refused:
        listed = "; ".join(f"{one.contract.name}: {', '.join(one.reasons)}" for one in refused)
        raise RefusedError(
            f"Not compatible with what is registered: {listed}. Make a new event beside it ('replaces'), or take "
            "the change back. Nothing was changed."
        )
    project = Contracts({one.name: one for one in contracts if one.name not in app.engine_contracts})
    plans = [*topics.wanted_by_the_backbone(app), *topics.wanted(app, project)]
    there = topics.existing(app, [plan.name for plan in plans])
    missing = [plan for plan in plans if plan.name not in there]
    differing = [
        f"{plan.name}: {difference}"
        for plan in plans
        if plan.name in there
        for difference in topics.differences(plan, there[plan.name])
    ]
    changed = [subject for subject in subjects if subject.state != "unchanged"]
    if not changed and not missing:
        return None, differing
    summary = []
    if audit.TOPIC not in there:
        summary.append(f"the audit does not exist yet: {audit.TOPIC} and its schema are made before the first record")
    if changed:
        summary.append(f"compatibility of each subject is set to {DEFAULT_MODE}; a registered schema stays for ever")
    count = f"{len(changed)} schema{'s' if len(changed) != 1 else ''}"
    plan = new_plan(
        app,
        kind="register",
        subject=",".join(names) if names else app.project.name,
        title=f"register {count}, create {len(missing)} topic{'s' if len(missing) != 1 else ''}",
        rows=[*(_subject_row(subject) for subject in subjects), *(_topic_row(plan, plan in missing) for plan in plans)],
        summary=summary,
        steps=[
            *(["create the topics"] if missing else []),
            *(f"register {subject.contract.name}" for subject in changed),
        ],
        before={subject.contract.subject: list(subject.versions) for subject in changed},
        after={
            **{subject.contract.subject: "one more version" for subject in changed},
            **{plan.name: plan.partitions for plan in missing},
        },
        details={
            "schemas": [
                {"event": one.contract.name, "subject": one.contract.subject, "schema": one.contract.text}
                for one in changed
            ],
            "create": [
                {"name": one.name, "partitions": one.partitions, "replication": one.replication,
                 "config": dict(one.config)} for one in missing
            ],
        },
    )  # fmt: skip
    return plan, differing


def precheck(app: App, plan: Plan, done: frozenset[str]) -> None:
    for subject, schema in ((one["subject"], one["schema"]) for one in plan.details["schemas"]):
        now = app.registry.versions(subject)
        if now != plan.before[subject] and app.registry.lookup(subject, schema) is None:
            raise RefusedError(f"{subject} has other versions than when {plan.id} was planned. Plan it again.")


def before_audit(app: App, plan: Plan) -> None:
    """Make the audit's topic and schema, if this plan is the one that has to."""
    topics.create(app, [one for one in _create(plan) if one.name == audit.TOPIC])
    for one in plan.details["schemas"]:
        if one["event"] == audit.EVENT:
            _register(app, one)


def act(app: App, plan: Plan, journal: Journal) -> dict[str, JsonValue]:
    create = _create(plan)
    after: dict[str, JsonValue] = {}
    if create:
        with journal.step("create the topics") as todo:
            if todo:
                topics.create(app, create)
        there = topics.existing(app, [one.name for one in create])
        after |= {name: state.partitions for name, state in there.items()}
    for one in plan.details["schemas"]:
        with journal.step(f"register {one['event']}") as todo:
            if todo:
                _register(app, one)
        found = app.registry.lookup(one["subject"], one["schema"])
        after[one["subject"]] = None if found is None else found.version
    return after


def _register(app: App, one: dict[str, Any]) -> None:
    app.registry.register(one["subject"], one["schema"])
    # after the first version: some registries keep no mode for a subject that they do not have
    app.registry.set_compatibility(DEFAULT_MODE, one["subject"])


def _create(plan: Plan) -> list[TopicPlan]:
    return [TopicPlan(**one) for one in plan.details["create"]]


def _refuse_findings(contracts: Sequence[Contract], project: Contracts) -> None:
    from schemas.lint import lint, side_by_side

    found = [finding for contract in contracts for finding in lint(contract)]
    beside = side_by_side(project.values())
    found += [finding for contract in contracts for finding in beside.get(contract.file, ())]
    findings = [finding for finding in found if finding.severity == "error"]
    if findings:
        more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
        listed = "; ".join(str(finding) for finding in findings[:3])
        raise RefusedError(f"Contracts do not pass the check: {listed}{more}. See: backbone schema check")


def _subject_row(subject: SubjectState) -> dict[str, Any]:
    version = subject.versions[-1] if subject.versions else None
    return {"kind": "schema", "name": subject.contract.subject, "state": subject.state, "detail": _version(version)}


def _topic_row(plan: TopicPlan, missing: bool) -> dict[str, Any]:
    detail = f"{plan.partitions} partitions, {plan.replication} copies, {plan.config.get('cleanup.policy')}"
    return {"kind": "topic", "name": plan.name, "state": "new" if missing else "there", "detail": detail}


def _version(version: int | None) -> str:
    return "" if version is None else f"version {version}"


KIND = ChangeKind(
    name="register",
    precheck=precheck,
    act=act,
    before_audit=before_audit,
    not_undoable=(
        "events may carry the ids of registered schemas, and topics may hold events. "
        "Register the contract that you want instead."
    ),
)
