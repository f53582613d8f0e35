"""The publisher's own modules, taken into a package under another name.

What is taken follows from the imports, those inside of functions and for type checkers too: everything that
``ENTRANCES`` reach within ``schemas`` and ``producers``. Only import statements are rewritten, at the place where
Python's own parser finds them; a module that cannot be moved so (it imports by a text, or from elsewhere in the engine,
or a library that services do not have) ends the build, so that a package never needs more than it says.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.errors import BackboneError

ENTRANCES = (
    "producers.errors", "producers.facts", "producers.memory", "producers.publisher", "producers.settings",
    "schemas.contract", "schemas.errors", "schemas.event", "schemas.registry",
)  # fmt: skip
"""What a package offers, and what the generated models need."""

LIBRARIES: Mapping[str, str] = {
    "confluent_kafka": "confluent-kafka", "fastavro": "fastavro", "pydantic": "pydantic", "pydantic_core": "pydantic",
    "urllib3": "urllib3",
}  # fmt: skip
"""The libraries of services by the name they are imported by, with the name they are installed by."""

OURS = ("producers", "schemas")
_IMPORT = re.compile(r"^\s*(from|import)\s+(producers|schemas)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Imported:
    """An import statement: ``module`` as written, and the modules and libraries it may load."""

    node: ast.Import | ast.ImportFrom
    module: str
    loads: tuple[str, ...]


def vendored(name: str) -> dict[str, str]:
    """The text of every module that is taken, by its path below the folder of our code, for a package in which that
    folder is imported as ``name`` (``acme_events._backbone``)."""
    texts = {f"{folder}/__init__.py": f'"""Taken from event-backbone: {folder}."""\n' for folder in OURS}
    for module in modules():
        top, _, rest = module.partition(".")
        texts[f"{top}/{_place(module, rest)}"] = moved(_source(module), name, module)
    return dict(sorted(texts.items()))


@cache
def modules() -> Mapping[str, frozenset[str]]:
    """The modules that are taken, sorted, each with those of ours it imports. Raises BackboneError for one that a
    package cannot hold."""
    found: dict[str, frozenset[str]] = {}
    waiting = list(ENTRANCES)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        needs = set()
        for one in imports(_source(module), module):
            for loaded in one.loads:
                top = loaded.partition(".")[0]
                if top not in OURS and top not in LIBRARIES and not _standard(top):
                    raise BackboneError(f"{module} imports {loaded}, which a package for services does not have.")
                if top in OURS:
                    needs.add(loaded)
        found[module] = frozenset(needs)
        waiting += needs
    return dict(sorted(found.items()))


def moved(text: str, name: str, module: str) -> str:
    """The module's text with what it imports from ``schemas`` and ``producers`` imported from below ``name``. Nothing
    else changes. Raises BackboneError for an import that is not written plainly."""
    lines = text.encode().splitlines(keepends=True)  # the parser counts bytes
    for one in imports(text, module):
        if one.module.partition(".")[0] not in OURS:
            continue
        written = f"from {one.module} import".encode()
        line, start = one.node.lineno - 1, one.node.col_offset
        if not lines[line][start:].startswith(written):
            raise BackboneError(f"{module}, line {line + 1}: write it 'from {one.module} import NAME'.")
        rest = lines[line][start + len(written) :]
        lines[line] = lines[line][:start] + f"from {name}.{one.module} import".encode() + rest
    return b"".join(lines).decode()


@cache
def imports(text: str, module: str) -> tuple[Imported, ...]:
    """Every import statement of a text, from its end, so that the places of those before it stay what they are.
    Raises BackboneError for what loads modules in another way."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [Imported(node, one.name, (one.name,)) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise BackboneError(f"{module}, line {node.lineno}: a relative import cannot be moved.")
            name = node.module or ""
            below = [f"{name}.{one.name}" for one in node.names]
            loads = tuple(one for one in below if name in OURS and _is_module(one)) or (name,)
            found.append(Imported(node, name, loads))
        elif _loads_by_text(node):
            raise BackboneError(
                f"{module}, line {getattr(node, 'lineno', 0)}: what is loaded by a text cannot be moved."
            )
    return tuple(sorted(found, key=lambda one: (-one.node.lineno, -one.node.col_offset)))


def _loads_by_text(node: ast.AST) -> bool:
    """Whether a call or a text (of code that is made while it runs) loads modules unseen."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return called in ("import_module", "__import__")
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_IMPORT.search(node.value))


def _standard(top: str) -> bool:
    return top in sys.stdlib_module_names


@cache
def _is_module(name: str) -> bool:
    return _file(name).is_file()


def _file(module: str) -> Path:
    top, _, rest = module.partition(".")
    return _folder(top) / _place(module, rest)


def _place(module: str, rest: str) -> str:
    """Where a module stands in its top folder: a file, or a folder with its window."""
    place = rest.replace(".", "/")
    return f"{place}/__init__.py" if (_folder(module.partition(".")[0]) / place).is_dir() else f"{place}.py"


def _folder(top: str) -> Path:
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None:
        raise BackboneError(f"The folder '{top}' of event-backbone is not installed.")
    return Path(found.origin).parent


def _source(module: str) -> str:
    try:
        return _file(module).read_text("utf-8")
    except OSError as error:
        raise BackboneError(f"{module} of event-backbone cannot be read ({error.strerror}).") from None
