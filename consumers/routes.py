"""One route for one event type: checked against the event's contract and the action's body, compiled to functions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from connectors.connector import Action
from consumers.expressions import (
    Compiled,
    ExpressionError,
    ExpressionFailed,
    build,
    constant,
    function,
    parse_expression,
    parse_template,
    plain,
    shapes,
)
from consumers.expressions import values as results
from consumers.expressions.shapes import Shape
from consumers.expressions.values import OMIT
from consumers.subscription import Projected, Route
from schemas.contract import Contract
from schemas.event import Event
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from consumers.expressions.translation import Carried, Constants


@dataclass(frozen=True, slots=True)
class Problem:
    """``path`` is relative to the route: ``("body", "email")``."""

    path: tuple[str | int, ...]
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Value:
    """One place of a body, compiled: what stands there, and whether it may be left out."""

    python: ast.expr
    shape: Shape
    omits: bool = False
    carried: frozenset[Carried] = frozenset()
    fixed: Any = None
    is_fixed: bool = False


@dataclass(slots=True)
class _Work:
    contract: Contract
    constants: Constants
    present: frozenset[str]
    allowed: frozenset[str]
    problems: list[Problem] = field(default_factory=list)
    reads: dict[str, frozenset[str]] = field(default_factory=dict)
    carried: dict[str, frozenset[Carried]] = field(default_factory=dict)
    parts: list[tuple[str, Compiled]] = field(default_factory=list)


def condition(text: str, contract: Contract) -> tuple[Callable[[Event], bool] | None, Compiled | None, list[Problem]]:
    """A ``where``, as a function and as what is known of it."""
    try:
        compiled = parse_expression(text, contract)
    except ExpressionError as error:
        return None, None, [Problem(("where",), "expression", str(error))]
    if compiled.shape.kind not in ("boolean", "unknown"):
        word = compiled.shape.word
        return None, None, [Problem(("where",), "type", f"A condition is true or false; this is {word}.")]
    return function(compiled), compiled, []


def compile_route(
    contract: Contract,
    action: Action,
    *,
    entity: str | None,
    body: Mapping[str, Any],
    fits: Callable[[Event], bool] | None,
    where: Compiled | None,
    allowed: frozenset[str],
    place: str,
    source: Mapping[str, Any],
) -> tuple[Route | None, list[Problem]]:
    """The route, or what is wrong with it for this event."""
    from consumers.expressions.translation import Constants

    constants = Constants()
    work = _Work(contract, constants, frozenset() if where is None else where.implies, allowed)
    if where is not None:
        work.reads["where"] = where.fields
    about = _entity(entity, work)
    known = body_fields(action)
    values = {
        name: _value(value, ("body", name), work, known[name].annotation if name in known else Any)
        for name, value in body.items()
    }
    _check_body(action, values, work)
    _check_classes(work)
    if work.problems:
        return None, work.problems
    assert about is not None
    route = Route(
        events=(contract.name,),
        fits=fits,
        project=_project(action.name, about, values, constants),
        action=action.name,
        reads={where_to: fields for where_to, fields in work.reads.items() if fields},
        source=source,
        place=place,
        explain=_explain(work.parts),
        carried={
            where_to: frozenset(one.personal_data for one in carried)
            for where_to, carried in work.carried.items()
            if carried
        },
    )
    return route, []


def _project(action: str, entity: ast.expr, values: Mapping[str, Value], constants: Constants) -> Any:
    """The function that makes the action of an event: one dict, then the fields that may be left out."""
    certain = {name: value for name, value in values.items() if not value.omits}
    statements: list[ast.stmt] = [
        ast.Assign(
            [ast.Name("body", ast.Store())],
            ast.Dict([ast.Constant(name) for name in certain], [value.python for value in certain.values()]),
        )
    ]
    omit = constants.name(OMIT)
    for name, value in values.items():
        if value.omits:
            statements.append(ast.Assign([ast.Name("value", ast.Store())], value.python))
            put = ast.Subscript(ast.Name("body", ast.Load()), ast.Constant(name), ast.Store())
            statements.append(
                ast.If(
                    ast.Compare(ast.Name("value", ast.Load()), [ast.IsNot()], [omit]),
                    [ast.Assign([put], ast.Name("value", ast.Load()))],
                    [],
                )
            )
    made = ast.Call(
        constants.name(Projected),
        [],
        [
            ast.keyword("action", ast.Constant(action)),
            ast.keyword("entity", entity),
            ast.keyword("body", ast.Name("body", ast.Load())),
        ],
    )
    return build([*statements, ast.Return(made)], constants)


def _explain(parts: list[tuple[str, Compiled]]) -> Callable[[Event], str]:
    def explain(event: Event) -> str:
        for place, compiled in parts:
            try:
                function(compiled)(event)
            except ExpressionFailed:
                return place
        return ""

    return explain


def _entity(text: str | None, work: _Work) -> ast.expr | None:
    written = text if text is not None else "{{ data." + work.contract.entity + " }}"
    compiled = _template(written, ("entity",), work, body=False)
    if compiled is None:
        return None
    if compiled.constant and not str(written).strip():
        work.problems.append(Problem(("entity",), "entity", "The entity is empty."))
    if compiled.shape.kind in shapes.NESTED:
        message = f"The entity is a text or a number; this is {compiled.shape.word}."
        work.problems.append(Problem(("entity",), "type", message))
    if compiled.shape.nullable and compiled.shape.kind != "unknown":
        message = "The entity can be null here: every delivery is about something."
        work.problems.append(Problem(("entity",), "type", message))
    known_text = compiled.shape.kind == "text" and not compiled.shape.nullable
    return compiled.python if known_text else work.constants.call(results.text, compiled.python)


def _template(text: str, path: tuple[str | int, ...], work: _Work, *, body: bool = True) -> Compiled | None:
    try:
        compiled = parse_template(
            text, work.contract, constants=work.constants, present=work.present, allowed=work.allowed, body=body
        )
    except ExpressionError as error:
        work.problems.append(Problem(path, "expression", str(error)))
        return None
    work.reads[_dotted(path)] = compiled.fields
    work.carried[_dotted(path)] = compiled.carried
    if not compiled.constant:
        work.parts.append((_dotted(path), compiled))
    return compiled


def _value(value: Any, path: tuple[str | int, ...], work: _Work, annotation: Any = Any) -> Value:
    """``annotation``: what the action's body takes here."""
    if isinstance(value, str):
        compiled = _template(value, path, work)
        if compiled is None:
            return Value(ast.Constant(None), shapes.UNKNOWN)
        if compiled.constant:
            text_itself = compiled.python.value if isinstance(compiled.python, ast.Constant) else None
            return Value(compiled.python, compiled.shape, fixed=text_itself, is_fixed=True)
        native = shapes.natively(compiled.shape, annotation)
        return Value(
            compiled.python if native else plain(compiled), compiled.shape, compiled.omits, compiled.carried
        )  # fmt: skip
    if isinstance(value, Mapping):
        inner = {str(name): _value(part, (*path, str(name)), work) for name, part in value.items()}
        names: list[ast.expr | None] = [ast.Constant(name) for name in inner]
        python: ast.expr = ast.Dict(names, [part.python for part in inner.values()])
        if any(part.omits for part in inner.values()):
            python = work.constants.call(_without_omitted, python)
        fixed = {name: part.fixed for name, part in inner.items()}
        return Value(
            python,
            Shape("record", fields={name: part.shape for name, part in inner.items()}),
            fixed=fixed,
            is_fixed=all(part.is_fixed for part in inner.values()),
        )
    if isinstance(value, list):
        items = [_value(part, (*path, index), work) for index, part in enumerate(value)]
        python = ast.List([part.python for part in items], ast.Load())
        if any(part.omits for part in items):
            python = work.constants.call(_without_omitted_items, python)
        return Value(
            python,
            Shape("list", item=shapes.union([part.shape for part in items]) if items else shapes.UNKNOWN),
            fixed=[part.fixed for part in items],
            is_fixed=all(part.is_fixed for part in items),
        )
    compiled = constant(value, work.constants)
    return Value(compiled.python, compiled.shape, fixed=value, is_fixed=True)


def _without_omitted(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not OMIT}


def _without_omitted_items(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not OMIT]


def body_fields(action: Action) -> dict[str, FieldInfo]:
    """The fields of an action's body by the name that is written in files."""
    return {info.alias or name: info for name, info in action.body.model_fields.items()}


def _check_body(action: Action, values: Mapping[str, Value], work: _Work) -> None:
    known = body_fields(action)
    open_ended = action.body.model_config.get("extra") == "allow"
    for name, value in values.items():
        info = known.get(name)
        if info is None:
            if not open_ended:
                hint = did_you_mean(name, known) or f" It has: {', '.join(list(known)[:12])}."
                work.problems.append(
                    Problem(("body", name), "body-field", f"{action.name} has no field '{name}'.{hint}")
                )
            continue
        if value.is_fixed:
            wrong = _not_accepted(value.fixed, info)
        else:
            wrong = shapes.mismatch(value.shape, info.annotation)
            if wrong and wrong.startswith("can be null"):
                wrong += "; add '| optional' to leave the field out then, or '| default(…)'"
        if wrong is not None:
            work.problems.append(Problem(("body", name), "type", f"{name} of {action.name} {wrong}."))
        elif value.omits and info.is_required():
            message = (
                f"{action.name} needs '{name}', so it cannot be left out: use '| default(…)' in place of optional."
            )
            work.problems.append(Problem(("body", name), "type", message))
    for name, info in known.items():
        misspelled = any(did_you_mean(other, [name]) for other in values if other not in known)
        if info.is_required() and name not in values and not misspelled:
            work.problems.append(Problem(("body",), "body-field", f"{action.name} needs '{name}' in its body."))


def _not_accepted(value: Any, info: FieldInfo) -> str | None:
    """Why the body's model does not take a value that is written in the file (so it may be shown)."""
    kind: Any = info.annotation
    for extra in info.metadata:
        kind = Annotated[kind, extra]
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        return f"cannot be what is written here: {message[:1].lower()}{message[1:200]}"
    return None


def _check_classes(work: _Work) -> None:
    """Deny by default: nothing with a class leaves that the subscription does not allow."""
    for place, carried in work.carried.items():
        denied = sorted((one.personal_data, one.path) for one in carried if one.personal_data not in work.allowed)
        if not denied:
            continue
        path: tuple[str | int, ...] = tuple(place.split("."))
        classes = list(dict.fromkeys(personal_data for personal_data, _ in denied))
        fields = ", ".join(f"data.{field}" for _, field in denied[:5])
        listed = ", ".join(classes)
        plural = "classes" if len(classes) > 1 else "class"
        whole = " or send '{{ data | allowed }}'," if len(denied) > 1 else ""
        work.problems.append(
            Problem(
                path,
                "personal-data",
                f"{place} sends {fields}: personal data of the {plural} {listed}, which this subscription does not "
                f"allow. Leave it out,{whole} or add 'personal_data: {{purpose: …, allow: [{listed}]}}'.",
            )
        )


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(step) for step in path)
