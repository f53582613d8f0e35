"""House rules that a test can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("schemas", "producers", "connectors", "consumers", "ops")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ENVIRONMENT_DOORS = {
    "ops/settings.py",
    "ops/project_place.py",
    "producers/settings.py",
    # what child processes are given, and where a system's Java is: not settings of the backbone
    "ops/benchmarks/peering.py",
    "ops/demo/demo.py",
    "ops/local/artifacts.py",
    "ops/local/java.py",
}
BANNED = re.compile(r"(util|helper|common|base|manager|handler|processor|service|data|info|misc)s?$", re.IGNORECASE)
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
TOP_LEVEL = {
    "pyproject.toml", "producers", "consumers", "schemas", "connectors", "ops", "tests", "docker-compose.yml",
    "README.md", "Makefile", "CHANGELOG.md", "LICENSE", "backbone.toml", "requirements.lock", "requirements-dev.lock",
    "backbone.schema.json",
    "requirements-peers.lock", ".ci", ".git", ".gitignore",
}  # fmt: skip


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_only_its_doors_read_the_environment() -> None:
    readers = {named(path) for path in FILES if re.search(r"\bos\.(environ|getenv)\b", path.read_text())}
    assert readers <= ENVIRONMENT_DOORS


def test_every_metric_of_ours_is_named_in_one_file() -> None:
    """The names of other exporters stand beside it, in ``compat.py``."""
    made = re.compile(r"(?:name=|Counter\(|Gauge\(|Histogram\(|Enum\(|Family\()\s*\"(?:backbone|kafka)_")
    naming = {named(path) for path in FILES if named(path).startswith("ops/") and made.search(path.read_text())}
    assert naming == {"ops/watch/metrics.py"}


def test_a_clone_has_no_other_folders_and_files_on_top() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    found = {path.name for path in ROOT.iterdir() if not any(Path(path.name).match(pattern) for pattern in ignored)}
    assert found <= TOP_LEVEL


@pytest.mark.parametrize("path", FILES, ids=named)
def test_names_say_what_a_thing_is(path: Path) -> None:
    """The demo's example service is a service."""
    names = [path.stem] if named(path) != "ops/demo/service.py" else []
    names += [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    for name in names:
        words = WORDS.findall(name) or [name]
        assert not BANNED.match(words[-1]), f"{name} in {named(path)}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_is_passed_over_in_silence(path: Path) -> None:
    """``except Exception: pass`` and its kin hide losses."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
        )
        silent = all(isinstance(statement, ast.Pass) for statement in node.body)
        assert not (broad and silent), f"{named(path)}:{node.lineno}"


def test_nothing_is_left_for_later_in_the_code() -> None:
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    assert [named(path) for path in FILES if marks.search(path.read_text())] == []
