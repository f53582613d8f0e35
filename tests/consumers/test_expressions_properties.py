"""Expressions against Jinja2 itself, and against whatever hypothesis can write."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import jinja2
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.expressions import ExpressionError, ExpressionFailed, compile_expression, compile_template
from schemas.event import Event
from tests.consumers.shop import ORDERED

ORACLE = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(texts, st.integers(-(2**40), 2**40), st.booleans(), st.floats(-1e9, 1e9))
payloads = st.fixed_dictionaries(
    {
        "t": texts,
        "u": texts,
        "n": st.integers(-(10**6), 10**6),
        "f": st.floats(-1e6, 1e6),
        "b": st.booleans(),
        "l": st.lists(texts, max_size=4),
        "r": st.fixed_dictionaries({"t": texts, "n": st.integers(0, 9)}),
    }
)

text_names = st.sampled_from(["data.t", "data.u", "data.r.t", "data['t']", "(data.l | join('-'))", "'Ab c'", "''"])
number_names = st.sampled_from(["data.n", "data.f", "data.r.n", "7", "2.5", "1_000", "(data.l | length)"])


def _text(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    filters = st.sampled_from(
        ["lower", "upper", "title", "trim", "trim('a')", "replace('a', 'bb')", "replace('b', '', 1)", "truncate(5)",
         "truncate(4, true, '..', 0)", "truncate(6, false, '')"]
    )  # fmt: skip
    return st.one_of(
        st.tuples(inner, filters).map(lambda parts: f"({parts[0]} | {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} ~ {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} + {parts[1]})"),
        st.tuples(inner, number_names).map(lambda parts: f"({parts[0]} ~ {parts[1]})"),
        inner.map(lambda one: f"{one}[1:3]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} if data.b else {parts[1]})"),
    )


def _number(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        inner.map(lambda one: f"(-{one})"),
        inner.map(lambda one: f"({one} | round(2))"),
        inner.map(lambda one: f"({one} | round(1, 'floor'))"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} if not data.b else {parts[1]})"),
    )


text_expressions = st.recursive(text_names, _text, max_leaves=6)
number_expressions = st.recursive(number_names, _number, max_leaves=6)


def _truth(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda one: f"(not {one})"),
    )


order = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
conditions = st.recursive(
    st.one_of(
        st.tuples(number_expressions, order, number_expressions).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(text_expressions, order, text_expressions).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(text_expressions, st.sampled_from(["in", "not in"])).map(lambda p: f"({p[0]} {p[1]} data.l)"),
        st.tuples(text_expressions, text_expressions).map(lambda parts: f"({parts[0]} in {parts[1]})"),
        st.just("data.b"),
        st.just("(data.t is none)"),
        st.just("(data.r.t is defined)"),
    ),
    _truth,
    max_leaves=4,
)


def _event(data: dict[str, Any]) -> Event:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    return Event(id="1", type="a.B", source="s", time=moment, subject=None, key="k", data=data)


def _both(text: str, data: dict[str, Any]) -> tuple[Any, Any]:
    try:
        theirs = ORACLE.compile_expression(text, undefined_to_none=False)(data=data)
    except (TypeError, ZeroDivisionError, ValueError, OverflowError, AssertionError, jinja2.UndefinedError):
        theirs = "failed"
    try:
        ours = compile_expression(text).evaluate(_event(data))
    except ExpressionFailed:
        ours = "failed"
    return ours, theirs


@settings(max_examples=150, deadline=None)
@given(st.one_of(text_expressions, number_expressions, conditions), payloads)
def test_the_shared_language_means_what_it_means_in_jinja2(text: str, data: dict[str, Any]) -> None:
    ours, theirs = _both(text, data)
    assert ours == theirs or (ours != ours and theirs != theirs), text
    assert type(ours) is type(theirs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(texts.filter(lambda t: not re.search(r"[{}#%\r]", t)), text_expressions), max_size=4), payloads
)
def test_mixed_text_is_rendered_as_jinja2_does(parts: list[str], data: dict[str, Any]) -> None:
    written = "a" + "".join(f"{{{{ {part} }}}}" if index % 2 else part for index, part in enumerate(parts))
    try:
        theirs = ORACLE.from_string(written).render(data=data)
    except (jinja2.TemplateError, TypeError, ValueError, AssertionError):
        return
    assert compile_template(written).evaluate(_event(data)) == theirs


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(texts, max_size=4))
def test_texts_written_as_literals_come_out_as_they_went_in(text: str, items: list[str]) -> None:
    def literal(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\r", "\\r") + "'"

    assert compile_expression(literal(text)).evaluate(_event({})) == text
    written = f"[{', '.join(map(literal, items))}]"
    assert compile_expression(written).evaluate(_event({})) == items


words = st.sampled_from(
    ["data", "event", ".", "x", "r", "l", "[", "]", "(", ")", "{", "}", "{{", "}}", "{%", "%}", "{#", "|", "upper",
     "default", "optional", "allowed", "json", "'a'", '"', "1", "1.5", "10**9", "+", "-", "*", "/", "//", "%", "**",
     "~", "==", "!=", "<", "in", "not", "and", "or", "is", "none", "defined", "if", "else", ",", ":", "=", "true",
     "None", "range", "loop", "self", "__class__", "\\", "!", "?", "é", "\n", "\t"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.lists(words, max_size=30).map(" ".join), st.lists(words, max_size=30).map("".join), st.text(max_size=60)
    )
)
def test_no_text_gives_anything_but_a_value_or_a_sentence(text: str) -> None:
    began = time.process_time()
    for contract in (None, ORDERED):
        for compiler in (compile_expression, compile_template):
            verdict = _verdict(compiler, text, contract)
            assert verdict is None or (verdict.isprintable() or not text.isprintable())
    assert time.process_time() - began < 2


def _verdict(compiler: Any, text: str, contract: Any) -> str | None:
    """The sentence or code that it ends with; None: it has a value."""
    try:
        value = compiler(text, contract).evaluate(_event({"x": "ab", "t": None, "r": {"t": 1}, "l": [1, 2]}))
    except ExpressionError as error:
        offset = error.offset
        if offset is not None and not 0 <= offset <= len(text):
            raise AssertionError(f"{offset} is outside {text!r}") from None
        return str(error)
    except ExpressionFailed as error:
        return error.code
    if "object at 0x" in repr(value):
        raise AssertionError(f"{text!r} gave {value!r}")
    return None
