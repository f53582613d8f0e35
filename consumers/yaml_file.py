"""A YAML file as a tree that knows its lines. The part of YAML that people mean, and a sentence for each of its traps.

Values follow YAML 1.2 (JSON's words); what YAML 1.1 and 1.2 read differently is refused with the advice to put quotes
around it. Anchors, aliases, tags, duplicate keys and several documents are refused. Bounded before and while it is
parsed: 100 kB of ``[`` keep libyaml busy for ten seconds, and aliases explode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

BYTES_MAX: Final = 256 * 1024
FLOWS_MAX: Final = 5_000
DEPTH_MAX: Final = 20
VALUES_MAX: Final = 50_000


@dataclass(slots=True)
class Node:
    """A value and where it stands. ``value``: a scalar, a dict of Nodes or a list of Nodes. ``key_lines`` are the lines
    of a mapping's keys; lines count from 1."""

    value: Any
    line: int
    plain: bool = False
    key_lines: dict[str, int] = field(default_factory=dict)

    def data(self) -> Any:
        """The same without the lines."""
        if isinstance(self.value, dict):
            return {name: node.data() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """The line of the place at ``path``, or of the nearest one above it that exists."""
        node, line = self, self.line
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                line = node.key_lines.get(str(step), line)
                node = node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.line
            else:
                break
        return line


@dataclass(frozen=True, slots=True)
class Trap:
    """Something in the text that is refused. ``path`` as in findings."""

    line: int | None
    path: str
    rule: str
    message: str


_Event: TypeAlias = Any


def read(content: bytes | str) -> tuple[Node | None, list[Trap]]:
    """The tree of a text, or None, and everything that is wrong with it. Never raises."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        size = len(content) if isinstance(content, bytes) else len(text.encode())
    except UnicodeError:
        return None, [Trap(None, "", "yaml-encoding", "This is not a text in UTF-8.")]
    if size > BYTES_MAX:
        return None, [Trap(None, "", "yaml-size", f"This is longer than {BYTES_MAX // 1024} kB.")]
    if text.count("[") + text.count("{") > FLOWS_MAX:
        return None, [Trap(None, "", "yaml-size", f"There are more than {FLOWS_MAX:,} opening brackets in it.")]
    lines = text.splitlines()
    try:
        return _Builder(lines).build(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except _Stop as stop:
        return None, [stop.trap]
    except yaml.YAMLError as error:
        return None, [_explained(error, lines)]


class _Stop(Exception):
    def __init__(self, trap: Trap) -> None:
        self.trap = trap


@dataclass(slots=True)
class _Open:
    node: Node
    path: str
    key: str | None = None
    key_line: int = 0


class _Builder:
    """Turns the parser's events into Nodes, with a stack of its own (libyaml's composer recurses)."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._traps: list[Trap] = []
        self._stack: list[_Open] = []
        self._values = 0

    def build(self, events: Iterator[_Event]) -> tuple[Node | None, list[Trap]]:
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "yaml-documents", "A second document begins here ('---'): one file is one.")
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._stack.pop()
            elif isinstance(event, yaml.AliasEvent):
                self._stop(
                    event, "yaml-alias", f"'*{event.anchor}' is an alias, which is not available here: write the value "
                    "out, or put quotes around a text that begins with '*'.",
                )  # fmt: skip
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event)
                root = root or node
        return root, self._traps

    def _node(self, event: _Event) -> Node:
        self._values += 1
        if self._values > VALUES_MAX:
            self._stop(event, "yaml-size", f"There are more than {VALUES_MAX:,} values in it.")
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.node.value, dict) and top.key is None:
            return self._begin_key(event, top)
        if event.anchor is not None:
            self._stop(
                event, "yaml-alias", "Anchors ('&') are not available here: write values out, or put quotes around a "
                "text that begins with '&'.",
            )  # fmt: skip
        path = self._path(top)
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path)
        else:
            self._check_tag(event)
            node = Node({} if isinstance(event, yaml.MappingStartEvent) else [], event.start_mark.line + 1)
        self._place(node, top)
        if not isinstance(event, yaml.ScalarEvent):
            if len(self._stack) >= DEPTH_MAX:
                self._stop(event, "yaml-depth", f"This is nested deeper than {DEPTH_MAX} levels.")
            self._stack.append(_Open(node, path))
        return node

    def _begin_key(self, event: _Event, top: _Open) -> Node:
        line = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            written = self._lines[event.start_mark.line] if event.start_mark.line < len(self._lines) else ""
            if "{{" in written or "{" in written:
                self._stop(event, "yaml-braces", _BRACES)
            self._stop(event, "yaml-key", "A name must be a text.")
        if event.anchor is not None:
            self._stop(event, "yaml-alias", "Anchors ('&') are not available here: write values out.")
        self._check_tag(event)
        key = event.value
        if event.implicit[0] and _ambiguous(key):
            self._trap(line, f"{top.path}.{key}".lstrip("."), "yaml-word", _ambiguity(key))
        if key in top.node.value:
            first = top.node.key_lines[key]
            self._trap(
                line, f"{top.path}.{key}".lstrip("."), "yaml-duplicate",
                f"'{_shown(key)}' stands here twice (first in line {first}): one would win silently.",
            )  # fmt: skip
        top.key, top.key_line = key, line
        return Node(key, line)

    def _path(self, top: _Open | None) -> str:
        if top is None:
            return ""
        if isinstance(top.node.value, dict):
            return f"{top.path}.{_shown(top.key or '')}".lstrip(".")
        return f"{top.path}[{len(top.node.value)}]"

    def _place(self, node: Node, top: _Open | None) -> None:
        if top is None:
            return
        if isinstance(top.node.value, dict):
            key = top.key or ""
            top.node.value[key] = node
            top.node.key_lines.setdefault(key, top.key_line)
            top.key = None
        else:
            top.node.value.append(node)

    def _scalar(self, event: _Event, path: str) -> Node:
        self._check_tag(event)
        line = event.start_mark.line + 1
        if not event.implicit[0] or event.style not in (None, ""):
            return Node(event.value, line)
        text = event.value
        rest = ""
        if event.end_mark.line < len(self._lines):
            rest = self._lines[event.end_mark.line][event.end_mark.column :]
        comment = _COMMENT.match(rest if text else rest.lstrip(":").lstrip(","))
        if comment is not None:
            self._trap(
                line, path, "yaml-comment",
                f"Everything from '{_shown(comment.group(1))}' on is a comment in YAML: put quotes around the whole "
                "value (or a blank behind '#', if a comment is meant).",
            )  # fmt: skip
        if _ambiguous(text):
            self._trap(line, path, "yaml-word", _ambiguity(text))
            return Node(text, line)
        return Node(_value(text), line, plain=True)

    def _check_tag(self, event: _Event) -> None:
        if event.tag not in (None, ""):
            self._stop(
                event, "yaml-tag", "A '!' at the beginning is a tag in YAML: write 'not …' for a negation, or put "
                "quotes around the text.",
            )  # fmt: skip

    def _trap(self, line: int, path: str, rule: str, message: str) -> None:
        if len(self._traps) < 100:
            self._traps.append(Trap(line, path, rule, message))

    def _stop(self, event: _Event, rule: str, message: str) -> None:
        top = self._stack[-1] if self._stack else None
        raise _Stop(Trap(event.start_mark.line + 1, self._path(top).rstrip("."), rule, message))


_BRACES = "YAML reads '{{' as the beginning of a mapping: put quotes around the whole value, like \"{{ data.name }}\"."
_COMMENT = re.compile(r"\s+(#[^\s#]\S*)")
_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?\Z")
_ODD_NUMBER = re.compile(
    r"[-+]?(0[0-9_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"
    r"|[0-9]+\.|\.[0-9]+|\.inf|\.nan|[0-9]{20,}|[0-9.]+[eE][-+]?[0-9]+)\Z|\+[0-9].*\Z",
    re.IGNORECASE,
)  # fmt: skip
_CONSTANTS: Mapping[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def _ambiguous(text: str) -> bool:
    """Whether readers of YAML disagree on what a plain value is."""
    if text.lower() in _WORDS:
        return True
    number = _NUMBER.match(text)
    if number is not None and not (number.group(3) and not number.group(2)):
        return False
    return _ODD_NUMBER.match(text) is not None


def _ambiguity(text: str) -> str:
    if text.lower() in _WORDS:
        instead = "true" if text.lower() in ("yes", "on", "y") else "false"
        return (
            f"'{text}' is {instead} to some readers of YAML, text to others: put quotes around it, or write {instead}."
        )
    return f"'{_shown(text)}' is a different number to different readers of YAML: put quotes around it."


def _value(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = _NUMBER.match(text)
    if number is None:
        return text
    return float(text) if number.group(2) or number.group(3) else int(text)


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


_UNQUOTED_BRACES = re.compile(r"(:\s+|-\s+|^\s*|[\[,]\s*)\{\{")
_QUOTE_THEN_MORE = re.compile(r":\s+('[^']*'|\"[^\"]*\")\s*[^\s,#\]}]")


def _explained(error: yaml.YAMLError, lines: list[str]) -> Trap:
    """The parser's complaint in words that say what to do."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "It cannot be read.")
    number = mark.line if mark is not None else None
    near = [n for n in (number, None if number is None else number - 1) if n is not None and 0 <= n < len(lines)]
    for n in near:
        line = lines[n]
        if _UNQUOTED_BRACES.search(line):
            return Trap(n + 1, "", "yaml-braces", _BRACES)
        if re.search(r":\s+#\S", line):
            return Trap(n + 1, "", "yaml-comment", "'#' begins a comment in YAML: put quotes around the value.")
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return Trap(n + 1, "", "yaml-tab", "Lines are indented by blanks, never by tabs.")
        if _QUOTE_THEN_MORE.search(line):
            return Trap(
                n + 1, "", "yaml-quotes", "A value that begins with a quote ends at the next one: put the whole value "
                "into quotes of the other kind, like where: \"'a' in data.tags\".",
            )  # fmt: skip
    line_number = None if number is None else number + 1
    if "mapping values are not allowed" in problem:
        return Trap(
            line_number, "", "yaml-colon", "A colon and a blank make a new name in YAML: put quotes around the whole "
            "value, or mend the indentation.",
        )  # fmt: skip
    if "cannot start any token" in problem:
        return Trap(line_number, "", "yaml-start", "A value cannot begin with this sign: put quotes around it.")
    if "special characters are not allowed" in problem or "control characters" in problem:
        return Trap(line_number, "", "yaml-encoding", "There is a control character in it.")
    return Trap(line_number, "", "yaml-syntax", f"This is not YAML: {problem[:200].rstrip('.')}.")
