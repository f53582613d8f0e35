"""From a subscription's text to a compiled Subscription, or to everything that is wrong with it, with its line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from connectors.connector import ConnectorType
from consumers import projections, yaml_file
from consumers.expressions import Compiled
from consumers.policies import fed_from_several, in_force
from consumers.projections import ProjectionError, Source
from consumers.routes import Problem, compile_route, condition
from consumers.subscription import Route, Subscription
from consumers.subscription_file import RouteForm, SubscriptionForm, TestForm, dotted, read_form
from consumers.yaml_file import Node
from schemas.contract import Contract, Contracts, engine_contracts
from schemas.contract_form import PERSONAL_DATA_CLASSES
from schemas.errors import InputError
from schemas.event import Event
from schemas.findings import FINDINGS_MAX, Finding, did_you_mean

RESERVED: Final = frozenset({"backbone", "run", "ledger", "monitor", "outbox", "ingress"})
NAME_MAX: Final = 100
COMPILED_MAX: Final = 100_000
"""Characters of all values, each counted once for every event that its route reads; some 15 µs each."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_WILDCARD = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*\.)*\*\Z")


def check_file(
    path: Path,
    *,
    contracts: Contracts,
    connections: Mapping[str, ConnectorType],
    events: Sequence[str] | None = None,
) -> tuple[Subscription | None, list[Finding]]:
    """See ``consumers.subscription.check_subscription``."""
    file = str(path)
    if path.suffix != ".yaml":
        return None, [_about_file(file, "name", "The file of a subscription ends in .yaml.")]
    try:
        with path.open("rb") as opened:
            content = opened.read(yaml_file.BYTES_MAX + 1)
    except FileNotFoundError:
        beside = (other.name for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else ()
        return None, [_about_file(file, "file", f"There is no such file.{did_you_mean(path.name, beside)}")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "input/output error"
        return None, [_about_file(file, "file", f"It cannot be read ({reason}).")]
    return check_text(
        path.stem, content, contracts=contracts, connections=connections, folder=path.parent, events=events, file=file
    )


def check_text(
    name: str,
    text: str | bytes,
    *,
    contracts: Contracts,
    connections: Mapping[str, ConnectorType],
    folder: Path,
    events: Sequence[str] | None = None,
    projections: Mapping[str, str] | None = None,
    file: str = "",
) -> tuple[Subscription | None, list[Finding]]:
    """The same for a text. ``projections``: the SHA-256 that each Python file must have."""
    file = file or f"{name}.yaml"
    root, traps = yaml_file.read(text)
    findings = [
        Finding(file=file, path=trap.path, rule=trap.rule, message=trap.message, line=trap.line) for trap in traps
    ]
    if root is None:
        return None, findings or [_about_file(file, "empty", "The file is empty.")]
    form, wrong = read_form(root, file)
    if form is None or findings:
        return None, _in_order([*findings, *wrong])
    written = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    return _Loading(name, written, root, form, contracts, connections, folder, events, projections, file).result()


def name_problem(name: str) -> str:
    """Why a subscription cannot have this name; empty when it can."""
    if name in RESERVED:
        return f"'{name}' is a reserved name: call the file something else."
    if not _NAME.match(name) or len(name) > NAME_MAX:
        return (
            f"'{name[:NAME_MAX]}' is no name for a subscription (its file's name): lower-case letters and digits with "
            f"single dashes between them, at most {NAME_MAX}."
        )
    return ""


class _Enough(Exception):
    """There are more findings than anybody reads."""


class _Loading:
    """One file on its way; collects findings, and makes the Subscription if none of them is an error."""

    def __init__(
        self,
        name: str,
        text: str,
        root: Node,
        form: SubscriptionForm,
        contracts: Contracts,
        connections: Mapping[str, ConnectorType],
        folder: Path,
        frozen: Sequence[str] | None,
        expected: Mapping[str, str] | None,
        file: str,
    ) -> None:
        self._name, self._text, self._root, self._form, self._file = name, text, root, form, file
        # the backbone's own events may be read too, by their full names
        self._contracts = Contracts({**engine_contracts(), **contracts})
        self._connections, self._folder = connections, folder
        self._frozen = None if frozen is None else frozenset(frozen)
        self._expected = expected
        self._findings: list[Finding] = []
        self._sources: dict[str, Source] = {}
        self._routes: dict[str, list[Route]] = {}
        allow = form.personal_data.allow if form.personal_data else []
        self._allowed = frozenset(allow)

    def result(self) -> tuple[Subscription | None, list[Finding]]:
        try:
            return self._result()
        except _Enough:
            return None, _in_order(self._findings)

    def _result(self) -> tuple[Subscription | None, list[Finding]]:
        self._check_name()
        connector = self._connections.get(self._form.connection)
        if connector is None:
            known = f" There is: {', '.join(self._connections)}." if self._connections else ""
            hint = did_you_mean(self._form.connection, self._connections) or known
            self._error(("connection",), "connection", f"backbone.toml has no connection of this name.{hint}")
        self._check_personal_data()
        read = [self._events_of(index, route) for index, route in enumerate(self._form.routes)]
        self._check_replaced({event for events in read for event in events})
        self._check_size(read)
        closed: dict[str, list[tuple[int, str | None]]] = {}
        for index, (route, events) in enumerate(zip(self._form.routes, read, strict=True)):
            self._check_reachable(index, route, events, closed)
            if connector is not None:
                self._route(index, route, events, connector)
        policies, sources = in_force(
            self._form.policies,
            routes=self._form.routes,
            connector=connector,
            contracts=[self._contracts[event] for event in {event for events in read for event in events}],
            error=self._error,
        )
        for index, message in fed_from_several(
            self._form.routes, read, policies=policies, connector=connector, contracts=self._contracts
        ):
            self._findings.append(self._finding(("routes", index), "order", message, "warning"))
        tests = self._tests(connector)
        if not self._routes and not self._findings:
            self._error(("routes",), "event", "It reads no event: none of those that were frozen is known here.")
        if connector is None or any(finding.severity == "error" for finding in self._findings):
            return None, _in_order(self._findings)
        hashes = {file: source.sha256 for file, source in sorted(self._sources.items())}
        subscription = Subscription(
            name=self._name,
            description=self._form.description,
            owner=self._form.owner,
            connection=self._form.connection,
            connector=connector,
            policies=policies,
            routes={event: tuple(routes) for event, routes in sorted(self._routes.items())},
            contracts={event: self._contracts[event] for event in sorted(self._routes)},
            version=version(self._root.data(), hashes),
            text=self._text,
            projection_hashes=hashes,
            personal_data_allowed=self._allowed,
            purpose=self._form.personal_data.purpose if self._form.personal_data else "",
            file=self._file,
            policy_sources=sources,
            tests=tests,
        )
        return subscription, _in_order(self._findings)

    # -- the parts ---------------------------------------------------------------------------------------------------

    def _check_name(self) -> None:
        problem = name_problem(self._name)
        if problem:
            self._error((), "name", problem)

    def _check_personal_data(self) -> None:
        for index, allowed in enumerate(self._form.personal_data.allow if self._form.personal_data else []):
            if allowed not in PERSONAL_DATA_CLASSES or allowed == "none":
                classes = [one for one in PERSONAL_DATA_CLASSES if one != "none"]
                hint = did_you_mean(allowed, classes) or f" There is: {', '.join(classes)}."
                place = ("personal_data", "allow", index)
                self._error(place, "personal-data", f"'{allowed}' is no personal-data class.{hint}")

    def _events_of(self, index: int, route: RouteForm) -> list[str]:
        """The event types of a route, wildcards resolved, in order; each once."""
        found: dict[str, None] = {}
        several = isinstance(self._node("routes", index, "event").value, list)
        for position, written in enumerate(route.event):
            place = ("routes", index, "event", position) if several else ("routes", index, "event")
            if "*" in written:
                found.update(dict.fromkeys(self._resolved(written, place)))
            elif written in self._contracts:
                if written in found:
                    self._error(place, "event", f"'{written}' stands here twice.")
                found[written] = None
            else:
                hint = did_you_mean(written, self._contracts)
                if not hint:
                    ends = [name for name in self._contracts if name.rpartition(".")[2] == written.rpartition(".")[2]]
                    hint = f" Did you mean '{ends[0]}'?" if ends else " See: backbone catalog show NAME."
                self._error(place, "event", f"There is no event '{written[:100]}'.{hint}")
        return list(found)

    def _resolved(self, written: str, place: tuple[str | int, ...]) -> list[str]:
        if not _WILDCARD.match(written):
            self._error(place, "event", "A wildcard is '*' alone behind a domain, like 'billing.*'.")
            return []
        prefix = written[:-1]
        if prefix.startswith("backbone."):
            self._error(place, "event", "The backbone's own events are named one by one, never by '*'.")
            return []
        found = [name for name in self._contracts if name.startswith(prefix) and not name.startswith("backbone.")]
        if self._frozen is not None:
            found = [name for name in found if name in self._frozen]
            return self._one_of_each(found, written, place)
        if not found:
            domains = sorted({name.rpartition(".")[0] + ".*" for name in self._contracts})
            hint = did_you_mean(written, domains) or f" There is: {', '.join(domains)}."
            self._error(place, "event", f"No event fits '{written}'.{hint}")
        return self._one_of_each(found, written, place)

    @cached_property
    def _named(self) -> frozenset[str]:
        """Every event that a route names, wildcards as they are written."""
        return frozenset(event for route in self._form.routes for event in route.event)

    def _one_of_each(self, found: list[str], written: str, place: tuple[str | int, ...]) -> list[str]:
        """Of an event and the one that replaces it, both published for a time, a wildcard reads the one that the file
        names somewhere, else the old one: a new version never changes by itself what a subscription reads."""
        kept = dict.fromkeys(found)
        for new in found:
            # also one that was left out already: the third version is no more read than the second
            older = [old for old in self._replaced_by(new) if old in found]
            if not older:
                continue
            if new in self._named:
                for old in older:
                    kept.pop(old, None)
                continue
            kept.pop(new, None)
            message = (
                f"{new} replaces {older[0]}, which '{written}' reads: it is left out until this file names it. "
                "Both are published for a time."
            )
            self._findings.append(self._finding(place, "successor-left-out", message, "warning"))
        return list(kept)

    def _replaced_by(self, new: str) -> list[str]:
        """The event that it replaces, the one that this one replaces, and so on."""
        older: list[str] = []
        old = self._contracts[new].replaces
        while old is not None and old in self._contracts and old not in older:
            older.append(old)
            old = self._contracts[old].replaces
        return older

    def _check_replaced(self, read: set[str]) -> None:
        for event in sorted(read):
            old = next((old for old in self._replaced_by(event) if old in read), None)
            if old is not None and old != event:
                message = f"Both {old} and {event}, which replaces it, are read: the service publishes both for a time."
                self._error(("routes",), "replaced", message)

    def _check_size(self, read: list[list[str]]) -> None:
        """Every value is compiled for every event: a small file with a wildcard can be a lot of work."""
        size = sum(len(events) * _size(route) for route, events in zip(self._form.routes, read, strict=True))
        if size > COMPILED_MAX:
            message = (
                f"Compiled for every event that is read, its routes are {size:,} characters, more than "
                f"{COMPILED_MAX:,}: divide them among several subscriptions."
            )
            self._error(("routes",), "too-much", message)
            raise _Enough

    def _check_reachable(
        self, index: int, route: RouteForm, events: list[str], closed: dict[str, list[tuple[int, str | None]]]
    ) -> None:
        where = None if route.where is None else " ".join(route.where.split())
        blocked = []
        for event in events:
            before = [i for i, condition in closed.get(event, []) if condition is None or condition == where]
            if before:
                blocked.append(before[0])
            closed.setdefault(event, []).append((index, where))
        if events and len(blocked) == len(events):
            message = (
                f"No event ever comes here: routes[{blocked[0]}] above takes them all. The first fitting route wins."
            )
            self._error(("routes", index), "unreachable", message)

    def _route(self, index: int, route: RouteForm, events: list[str], connector: ConnectorType) -> None:
        place = ("routes", index)
        source = self._node("routes", index).data()
        action = None
        project = None
        if route.projection is not None:
            for name in ("action", "entity", "body"):
                if getattr(route, name) is not None:
                    self._error(
                        (*place, name), "form", f"A projection stands in place of '{name}': leave one of them out."
                    )
            project = self._projection((*place, "projection"), route.projection)
        elif route.action is None:
            self._error(place, "missing", "A route needs an action and its body, or a projection.")
        else:
            action = connector.actions.get(route.action)
            if action is None:
                hint = did_you_mean(route.action, connector.actions) or f" There is: {', '.join(connector.actions)}."
                self._error((*place, "action"), "action", f"{connector.name} has no action '{route.action}'.{hint}")
        problems: dict[Problem, list[str]] = {}
        for event in events:
            contract = self._contracts[event]
            fits, where, found = self._condition(route, contract)
            if action is not None:
                compiled, more = compile_route(
                    contract,
                    action,
                    entity=route.entity,
                    body=route.body or {},
                    fits=fits,
                    where=where,
                    allowed=self._allowed,
                    place=dotted(place),
                    source=source,
                )
                found = [*found, *more]
                if compiled is not None:
                    self._routes.setdefault(event, []).append(compiled)
            elif project is not None:
                self._routes.setdefault(event, []).append(self._python(project, contract, fits, place, source))
            for problem in found:
                problems.setdefault(problem, []).append(event)
        for problem, concerned in problems.items():
            some = f"{', '.join(concerned)}: " if len(concerned) < len(events) else ""
            self._error((*place, *problem.path), problem.rule, f"{some}{problem.message}")

    def _condition(
        self, route: RouteForm, contract: Contract
    ) -> tuple[Callable[[Event], bool] | None, Compiled | None, list[Problem]]:
        return (None, None, []) if route.where is None else condition(route.where, contract)

    def _python(
        self, project: Any, contract: Contract, fits: Any, place: tuple[str | int, ...], source: Mapping[str, Any]
    ) -> Route:
        sent = frozenset(
            field.personal_data for field in contract.fields.values() if field.personal_data in self._allowed
        )
        classes = frozenset(one for one in sent if one is not None)
        return Route(
            events=(contract.name,),
            fits=fits,
            project=projections.confined(project, contract, self._allowed),
            action=None,
            reads=None,
            source=source,
            place=dotted(place),
            carried={"entity": classes, "body": classes} if classes else {},
        )

    def _projection(self, place: tuple[str | int, ...], reference: str) -> Any:
        try:
            file, function = projections.split(reference)
            source = self._sources.get(file) or projections.read(self._folder, file)
            if self._expected is not None and self._expected.get(file) != source.sha256:
                raise ProjectionError(
                    f"'{file}' is not the file that was attached (another hash): deploy that one, or attach this one."
                )
            self._sources[file] = source
            return projections.load(source, function)
        except ProjectionError as error:
            self._error(place, "projection", str(error))
            return None

    def _tests(self, connector: ConnectorType | None) -> tuple[Mapping[str, Any], ...]:
        from consumers.rehearsal import answer

        for index, test in enumerate(self._form.tests or []):
            for position, word in enumerate(test.vendor):
                try:
                    answer(word)
                except InputError as error:
                    self._error(("tests", index, "vendor", position), "vendor", str(error))
            self._check_test(index, test, connector)
        return tuple(test.model_dump(exclude_unset=True) for test in self._form.tests or [])

    def _check_test(self, index: int, test: TestForm, connector: ConnectorType | None) -> None:
        for position, given in enumerate(test.given):
            place = ("tests", index, "given", position)
            contract = self._contracts.get(given.event)
            if contract is None:
                hint = did_you_mean(given.event, self._contracts)
                self._error((*place, "event"), "event", f"There is no event '{given.event[:100]}'.{hint}")
                continue
            for name in given.data:
                if name not in contract.fields:
                    hint = did_you_mean(name, contract.fields)
                    self._error((*place, "data", name), "field", f"{contract.name} has no field '{name[:100]}'.{hint}")
        for position, expected in enumerate(test.expect):
            place = ("tests", index, "expect", position)
            if connector and expected.action is not None and expected.action not in connector.actions:
                hint = did_you_mean(expected.action, connector.actions)
                message = f"{connector.name} has no action '{expected.action[:100]}'.{hint}"
                self._error((*place, "action"), "action", message)

    def _node(self, *place: str | int) -> Node:
        """What is written at a place of the form."""
        node = self._root
        for step in place:
            node = node.value[step]
        return node

    # -- findings ----------------------------------------------------------------------------------------------------

    def _error(self, place: tuple[str | int, ...], rule: str, message: str) -> None:
        self._findings.append(self._finding(place, rule, message, "error"))
        if len(self._findings) >= FINDINGS_MAX:
            raise _Enough

    def _finding(self, place: tuple[str | int, ...], rule: str, message: str, severity: Any) -> Finding:
        line = self._root.line_of(place) if place else None
        return Finding(
            file=self._file, path=dotted(place), rule=rule, message=message, line=line, severity=severity
        )  # fmt: skip


def version(document: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """The first 6 hex digits of the SHA-256 of what the file says, but for description, owner and tests, and of the
    hashes of the projection files. Comments, order of names and layout do not count."""
    meaning = {name: value for name, value in document.items() if name not in ("description", "owner", "tests")}
    written = json.dumps([meaning, dict(hashes)], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _size(value: Any) -> int:
    """About how much work it is to compile what stands in a route, in characters."""
    if isinstance(value, RouteForm):
        return _size(value.where) + _size(value.entity) + _size(value.body)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list):
        return sum(map(_size, value))
    return 6 + (len(value) if isinstance(value, str) else 0)


def _about_file(file: str, rule: str, message: str) -> Finding:
    return Finding(file=file, path="", rule=rule, message=message)


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(dict.fromkeys(findings), key=lambda one: (one.line or 0, one.path, one.rule))
