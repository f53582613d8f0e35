"""Expressions: the language of subscriptions and of ``--where``. Jinja2's syntax, our meaning, compiled to Python.

Jinja2's lexer and parser read the text (analysts know the syntax from dbt); ``translation`` turns the
allowed part of it into a Python expression, once; the result is a plain function of an event. Nothing that a person
writes is ever executed as code: it becomes constants of that function. (Jinja2's own evaluation costs thirty times as
much a call, and its sandbox does not stop ``'a' * 10**9``.)
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from consumers.expressions import values
from consumers.expressions.shapes import NULL, PLAIN, Shape, of_constant
from consumers.expressions.values import OMIT, UNDEFINED, ExpressionFailed
from schemas.contract import Contract
from schemas.errors import InputError
from schemas.event import Event

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.environment import Environment

    from consumers.expressions.translation import Carried, Constants, Piece, Translator

EXPRESSION_MAX: Final = 4_000
"""Characters of one expression or template."""

Evaluate = Callable[[Event], Any]


class ExpressionError(InputError):
    """An expression is refused. ``offset`` is the place in its text, in characters from 0."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        place = "" if offset is None else f" (at character {offset + 1})"
        super().__init__(f"{message}{place}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression as a Python tree over the names ``event`` and ``data``, before it becomes a function: routes put
    several into one. ``carried`` are the personal fields that travel in its value; ``omits``: it may be OMIT."""

    python: ast.expr
    shape: Shape
    fields: frozenset[str]
    carried: frozenset[Carried]
    omits: bool
    constants: Constants
    constant: bool = False
    implies: frozenset[str] = frozenset()
    """paths that are not null where it is true"""


@dataclass(frozen=True, slots=True)
class Expression:
    """``evaluate`` gives the value for an event or raises ExpressionFailed; it is pure and quick. ``fields`` are the
    dotted paths of the payload that it reads (``""`` is the payload as a whole)."""

    text: str
    evaluate: Evaluate
    fields: frozenset[str]
    shape: Shape
    carried: frozenset[Carried] = field(default_factory=frozenset)


def compile_expression(text: str, contract: Contract | None = None) -> Expression:
    """An expression without braces, as in ``where``: ``data.total_minor > 100_000``.

    With a contract its fields and types are checked. Raises ExpressionError.
    """
    return _finished(text, parse_expression(text, contract))


def compile_template(text: str, contract: Contract | None = None) -> Expression:
    """A text with ``{{ … }}``. One whole expression keeps its type; anything else is text. Raises ExpressionError."""
    return _finished(text, parse_template(text, contract))


def _finished(text: str, compiled: Compiled) -> Expression:
    return Expression(text, function(compiled), compiled.fields, compiled.shape, compiled.carried)


def parse_expression(
    text: str,
    contract: Contract | None = None,
    *,
    constants: Constants | None = None,
    present: frozenset[str] = frozenset(),
    allowed: frozenset[str] = frozenset(),
) -> Compiled:
    """As ``compile_expression``, for a route. Raises ExpressionError."""
    from consumers.expressions.narrowing import implied

    with _Door():
        _check_length(text)
        if text.lstrip().startswith("{{"):
            raise ExpressionError("This is an expression already: leave the braces out.", text.index("{{"))
        translator, constants = _translator(contract, constants, present, allowed)
        tree = _parsed(_tokens(text, "variable"), text)
        piece = translator.translate(tree)
        return _compiled(piece, translator, constants, implies=implied(tree))


def parse_template(
    text: str,
    contract: Contract | None = None,
    *,
    constants: Constants | None = None,
    present: frozenset[str] = frozenset(),
    allowed: frozenset[str] = frozenset(),
    body: bool = True,
) -> Compiled:
    """As ``compile_template``, for a route. ``body``: ``optional`` may be used. Raises ExpressionError."""
    with _Door():
        _check_length(text)
        if "{" not in text:
            translator, constants = _translator(contract, constants, present, allowed)
            return Compiled(
                ast.Constant(text), of_constant(text), frozenset(), frozenset(), False, constants, constant=True
            )
        parts = _split(text)
        translator, constants = _translator(contract, constants, present, allowed)
        if all(isinstance(part, str) for part, _ in parts):
            content = "".join(str(part) for part, _ in parts)
            return Compiled(
                ast.Constant(content), of_constant(content), frozenset(), frozenset(), False, constants, constant=True
            )
        spoken = [(part, offset) for part, offset in parts if not (isinstance(part, str) and not part.strip())]
        if len(spoken) == 1 and not isinstance(spoken[0][0], str):
            piece = translator.translate(spoken[0][0], tail=body)
            return _compiled(piece, translator, constants)
        from consumers.expressions.translation import Piece

        pieces = [
            Piece(ast.Constant(part), of_constant(part)) if isinstance(part, str) else translator.translate(part)
            for part, _ in parts
        ]
        return _compiled(translator.mixed(pieces, [offset for _, offset in parts]), translator, constants)


def constant(value: Any, constants: Constants) -> Compiled:
    """A value written in the file that is no text."""
    return Compiled(
        ast.Constant(value), NULL if value is None else of_constant(value), frozenset(), frozenset(), False, constants,
        constant=True,
    )  # fmt: skip


def plain(compiled: Compiled) -> ast.expr:
    """Its Python, with a conversion to what JSON has where the value may be something else."""
    if compiled.shape.kind in PLAIN | {"number"} or compiled.constant:
        return compiled.python
    if compiled.omits:
        return compiled.constants.call(_plain_or_omit, compiled.python)
    return compiled.constants.call(values.plain, compiled.python)


def function(compiled: Compiled) -> Evaluate:
    """The function of an expression."""
    needs_data = "data" in _names(compiled.python)
    evaluate: Evaluate = build([ast.Return(compiled.python)], compiled.constants, needs_data=needs_data)
    return evaluate


def build(body: list[ast.stmt], constants: Constants, *, needs_data: bool = True) -> Any:
    """A function ``(event)`` with these statements, which may use ``event``, ``data`` and the constants; whatever goes
    wrong in it comes out as ExpressionFailed."""
    start: list[ast.stmt] = []
    if needs_data:
        data = ast.Attribute(ast.Name("event", ast.Load()), "data", ast.Load())
        start = [ast.Assign([ast.Name("data", ast.Store())], data)]
    failed = constants.call(values.failed, ast.Name("error", ast.Load()))
    guarded = ast.Try(
        body=body,
        handlers=[
            ast.ExceptHandler(ast.Name("Exception", ast.Load()), "error", [ast.Raise(failed, ast.Constant(None))])
        ],
        orelse=[],
        finalbody=[],
    )
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg("event")], kwonlyargs=[], kw_defaults=[], defaults=[])
    definition = ast.FunctionDef("evaluate", arguments, [*start, guarded], [])
    module = ast.fix_missing_locations(ast.Module([definition], []))
    scope: dict[str, Any] = {"__builtins__": {"Exception": Exception}, **constants.values}
    exec(compile(module, "<expression>", "exec"), scope)  # our own tree: see the docstring of this file
    return scope["evaluate"]


def _plain_or_omit(value: Any) -> Any:
    return value if value is OMIT else values.plain(value)


def _names(tree: ast.expr) -> Iterator[str]:
    return (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _compiled(
    piece: Piece, translator: Translator, constants: Constants, *, implies: frozenset[str] = frozenset()
) -> Compiled:
    return Compiled(
        piece.python, piece.shape, frozenset(translator.fields), piece.carried, piece.omits, constants, implies=implies
    )


def _translator(
    contract: Contract | None, constants: Constants | None, present: frozenset[str], allowed: frozenset[str]
) -> tuple[Translator, Constants]:
    from consumers.expressions import translation

    constants = translation.Constants() if constants is None else constants
    return translation.Translator(contract, constants, present=present, allowed=allowed), constants


# -- reading the text with Jinja2 ------------------------------------------------------------------------------------

_Raw = tuple[int, str, str]


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment

    return Environment(keep_trailing_newline=True, autoescape=False)


class _Door:
    """What Jinja2 and the translation raise becomes ExpressionError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ExpressionError):
            return
        from jinja2 import TemplateError, TemplateSyntaxError

        from consumers.expressions.refusal import RefusedHere

        if isinstance(error, RefusedHere):
            raise ExpressionError(error.message, error.offset) from None
        if isinstance(error, TemplateSyntaxError):
            raise ExpressionError(_sentence(error.message or ""), max(0, error.lineno - 1)) from None
        if isinstance(error, (RecursionError, MemoryError)):
            raise ExpressionError("This is nested too deeply.") from None
        if isinstance(error, (TemplateError, ValueError, SyntaxError, OverflowError)):
            raise ExpressionError("This cannot be read as an expression.") from None


def _sentence(message: str) -> str:
    """Jinja2's words for a person who writes subscriptions."""
    message = (
        re.sub(r" at \d+$", "", message).replace("end of template", "end").replace("end of print statement", "end")
    )
    message = message.strip().rstrip(".")
    return f"{message[:1].upper()}{message[1:200]}." if message else "This cannot be read as an expression."


def _check_length(text: str) -> None:
    if len(text) > EXPRESSION_MAX:
        raise ExpressionError(f"This is longer than {EXPRESSION_MAX:,} characters.")


def _tokens(text: str, state: str | None = None) -> list[_Raw]:
    """Jinja2's tokens, with the place in the text (from 1) where it has the line: so every node knows its place."""
    from jinja2 import TemplateSyntaxError

    found: list[_Raw] = []
    offset = 0
    try:
        for _, kind, value in _environment().lexer.tokeniter(text, None, None, state):
            found.append((offset + 1, kind, value))
            offset += len(value)
    except TemplateSyntaxError as error:
        raise ExpressionError(_sentence(error.message or ""), offset) from None
    return found


def _split(text: str) -> list[tuple[str | nodes.Expr, int]]:
    """The literal texts and the parsed expressions of a template, each with its place."""
    parts: list[tuple[str | nodes.Expr, int]] = []
    inside: list[_Raw] | None = None
    start = 0
    for place, kind, value in _tokens(text):
        if kind in ("block_begin", "raw_begin"):
            raise ExpressionError("'{% … %}' is not available: only expressions in '{{ … }}'.", place - 1)
        if kind == "comment_begin":
            raise ExpressionError("'{# … #}' is not available here; a comment of the file begins with '#'.", place - 1)
        if kind == "variable_begin":
            if value != "{{":
                raise ExpressionError("Write '{{' without a sign behind it.", place - 1)
            inside, start = [], place - 1
        elif kind == "variable_end":
            if value != "}}":
                raise ExpressionError("Write '}}' without a sign before it.", place - 1)
            parts.append((_parsed(inside or [], text, place - 1), start))
            inside = None
        elif inside is not None:
            inside.append((place, kind, value))
        else:
            parts.append((value, place - 1))
    if inside is not None:
        raise ExpressionError("'{{' is never closed by '}}'.", start)
    return parts


def _parsed(tokens: list[_Raw], text: str, end: int | None = None) -> nodes.Expr:
    from jinja2.lexer import TokenStream
    from jinja2.parser import Parser

    end = len(text) if end is None else end
    environment = _environment()
    if not any(kind != "whitespace" for _, kind, _ in tokens):
        raise ExpressionError("There is no expression here.", max(0, end - 1))
    parser = Parser(environment, "", state="variable")
    parser.stream = TokenStream(environment.lexer.wrap(iter(tokens)), None, None)
    tree = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        hint = " Compare with '=='." if token.value == "=" or token.type == "assign" else ""
        raise ExpressionError(f"The expression ends before '{str(token.value)[:20]}'.{hint}", token.lineno - 1)
    return tree


__all__ = [
    "OMIT", "UNDEFINED", "Expression", "ExpressionError", "ExpressionFailed", "compile_expression", "compile_template",
]  # fmt: skip
