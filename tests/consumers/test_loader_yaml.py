"""YAML as subscriptions have it: each trap has its sentence, and nothing takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.yaml_file import read


@pytest.mark.parametrize(
    ("text", "rule", "line", "words"),
    [
        ("body:\n  text: {{ data.x }}", "yaml-braces", 2, "put quotes around the whole value"),
        ("text: {{ data.x }} and more", "yaml-braces", 1, "quotes"),
        ("- {{ data.x | upper }}", "yaml-braces", 1, "quotes"),
        ("a: [{{ x }}]", "yaml-braces", 1, "quotes"),
        ("channel: #sales", "yaml-comment", 1, "'#sales'"),
        ("text: Order #{{ data.x }}", "yaml-comment", 1, "comment"),
        ("text: Order #1", "yaml-comment", 1, "#1"),
        ("a: {channel: #sales}", "yaml-comment", 1, "quotes"),
        ("where: data.x == 'a': b", "yaml-colon", 1, "colon"),
        ("text: Note: {{ x }}", "yaml-braces", 1, "quotes"),
        ("where: 'a' in data.tags", "yaml-quotes", 1, "ends at the next one"),
        ('where: "a" == data.x', "yaml-quotes", 1, "ends at the next one"),
        ("x: no", "yaml-word", 1, "'no' is false to some readers"),
        ("x: On", "yaml-word", 1, "true to some"),
        ("yes: 1", "yaml-word", 1, "quotes"),
        ("at: 12:30:45", "yaml-word", 1, "different number"),
        ("zip: 01234", "yaml-word", 1, "different number"),
        ("id: 0x1F", "yaml-word", 1, "different number"),
        ("total: 1_000", "yaml-word", 1, "different number"),
        ("total: 1e3", "yaml-word", 1, "different number"),
        ("a: 1\nb: 2\na: 3", "yaml-duplicate", 3, "first in line 1"),
        ("a: &x 1\nb: *x", "yaml-alias", 1, "Anchors"),
        ("b: *x", "yaml-alias", 1, "alias"),
        ("where: !data.x", "yaml-tag", 1, "write 'not …'"),
        ("x: !!python/object:os.system a", "yaml-tag", 1, "tag"),
        ("a:\n\tb: 1", "yaml-tab", 2, "never by tabs"),
        ("a: @x", "yaml-start", 1, "quotes"),
        ("a: `x`", "yaml-start", 1, "quotes"),
        ("a: 1\n---\nb: 2", "yaml-documents", 2, "second document"),
        ("? [a]\n: b", "yaml-key", 1, "name"),
        ("a: 'x", "yaml-syntax", 1, "not YAML"),
    ],
)
def test_every_trap_has_a_sentence_of_its_own_with_its_line(text: str, rule: str, line: int, words: str) -> None:
    _, traps = read(text)
    assert traps
    assert (traps[0].rule, traps[0].line if rule != "yaml-syntax" else line) == (rule, line)
    assert words in traps[0].message


@pytest.mark.parametrize(
    "text",
    [
        "a: b # a comment",
        "a: '#sales'",
        'a: "{{ data.x }}"',
        "a: |\n  {{ data.x }} #1\n",
        "where: data.plan != 'internal'   # an expression",
        "a: [1, -2.5, true, null, ~, text, '1_000']",
        "a: {b: {c: 2026-05-01}}",
        "where: data.total >= 1_000 and data.currency in ['EUR', 'USD']",
        "a: https://x.org/#top",
    ],
)
def test_what_is_no_trap_is_read(text: str) -> None:
    node, traps = read(text)
    assert not traps
    assert node is not None


def test_values_are_those_of_yaml_1_2() -> None:
    node, _ = read("a: true\nb: null\nc: 12\nd: -1.5\ne: text\nf: ''\ng: 2026-05-01\nh:\ni: [x, {y: z}]\n")
    assert node is not None
    assert node.data() == {
        "a": True, "b": None, "c": 12, "d": -1.5, "e": "text", "f": "", "g": "2026-05-01", "h": None,
        "i": ["x", {"y": "z"}],
    }  # fmt: skip


def test_places_have_their_lines() -> None:
    node, _ = read("a: 1\nroutes:\n  - event: x\n    body:\n      email: y\n")
    assert node is not None
    assert node.line_of(("routes", 0, "body", "email")) == 5
    assert node.line_of(("routes", 0, "nothing")) == 3
    assert node.line_of(("routes", 7)) == 2


HOSTILE = {
    "brackets": "[" * 100_000,
    "braces": "{" * 4_999,
    "brackets in pairs": "[]" * 2_400,
    "dashes": "- " * 100_000,
    "questions": "? " * 100_000,
    "colons": "a: " * 80_000,
    "deep": "\n".join(" " * i + "a:" for i in range(650)),
    "nested flow": "[? " * 4_000,
    "anchors": "&a " * 80_000,
    "tags": "!a " * 80_000,
    "billion laughs": "a: &a [x,x]\n" + "\n".join(f"b{i}: &b{i} [*a,*a]" for i in range(100)),
    "documents": "---\n" * 50_000,
    "directives": "%YAML 1.1\n" * 20_000,
    "quotes": "'\n" * 50_000,
    "many lines": "\n" * 200_000,
    "many values": "a:\n" * 80_000,
    "one long key": "k" * 200_000 + ": 1",
    "comments": "# x\n" * 60_000,
    "spaces": " " * 250_000,
    "literal": "a: |\n" + "  x\n" * 60_000,
    "too long": "a" * 300_000,
    "a null": "a: \x00",
    "half a character": b"a: \xff\xfe",
    "utf-16": "a: 1".encode("utf-16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_keeps_the_reader_busy(name: str) -> None:
    began = time.process_time()
    read(HOSTILE[name])
    assert time.process_time() - began < 2


pieces = st.sampled_from(
    ["a", "b: ", "- ", "? ", ": ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", "{{ x }}", "'", '"', "#", " #x", "&a",
     "*a", "!t ", "|", ">", "|-\n", "---", "...", "%", "@", "\t", "no", "1", "1e3", ",", "\\", "\ufeff", "é",
     "\u2028", "\r\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(pieces, max_size=25).map("".join), st.text(max_size=80), st.binary(max_size=60)))
def test_any_text_is_read_or_refused_with_a_sentence(text: Any) -> None:
    node, traps = read(text)
    for trap in traps:
        assert trap.message
        assert trap.message[-1] in ".)"
        assert trap.line is None or trap.line >= 1
    if node is not None and not traps:
        node.data()


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text(st.characters(codec="ascii"), max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abcdefgh", min_size=2, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text("abcdefgh", min_size=2, max_size=5), plain, min_size=1, max_size=4))
def test_what_pyyaml_writes_is_read_as_it_was(value: dict[str, Any]) -> None:
    node, traps = read(yaml.safe_dump(value))
    assert [trap for trap in traps if trap.rule not in ("yaml-alias", "yaml-word")] == []
    if not traps and node is not None:
        assert node.data() == value
