"""Expressions: the language of subscriptions and of ``--where``. Jinja2's syntax, our meaning, compiled to Python.

``expression`` compiles; ``translation`` turns the allowed part of Jinja2's tree into Python, with its rules in
``operators``, ``comparison``, ``narrowing``, ``filter_table``, ``allowance`` (personal data) and ``refusal``;
``shapes`` are the types known at load, ``values`` and ``filters`` what runs per event.
"""

from consumers.expressions.expression import (
    OMIT,
    Compiled,
    ExpressionError,
    build,
    compile_expression,
    compile_template,
    constant,
    function,
    parse_expression,
    parse_template,
    plain,
)
from consumers.expressions.values import ExpressionFailed

__all__ = [
    "Compiled",
    "ExpressionError",
    "ExpressionFailed",
    "OMIT",
    "build",
    "compile_expression",
    "compile_template",
    "constant",
    "function",
    "parse_expression",
    "parse_template",
    "plain",
]
