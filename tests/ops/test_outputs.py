"""The schemas of JSON documents: one for each that a command prints, and they are what was learned from real ones."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import outputs
from tests.conftest import ROOT

FILES = sorted(outputs.FOLDER.glob("*.json"))
PRINTERS = {"rows", "document", "stream", "findings"}


def printed() -> Iterator[str]:
    """The names of all documents that the commands print."""
    for path in sorted((ROOT / "ops").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in PRINTERS
                and ast.unparse(node.func.value).endswith("screen")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value)


def test_every_document_that_a_command_prints_has_a_schema_and_no_other_has() -> None:
    assert {path.stem for path in FILES} == set(printed())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_schema_is_one_and_names_its_document_and_command(path: Any) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"backbone.{path.stem}/v1"
    assert outputs.file_of(schema["$id"]) == path
    assert schema["title"].startswith("`backbone ")


def test_a_field_that_no_schema_names_and_one_of_another_type_are_found() -> None:
    right = {"id": "ch-7f3ab", "state": "applied", "error": "", "after": {"sent": 3}}
    outputs.check("backbone.change.watch/v1", right)
    for wrong in (right | {"new": 1}, right | {"state": 7}, {"id": "ch-7f3ab"}):
        with pytest.raises(AssertionError, match=r"backbone.change.watch/v1"):
            outputs.check("backbone.change.watch/v1", wrong)
    with pytest.raises(AssertionError, match="has no schema"):
        outputs.check("backbone.nothing/v1", {})


scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3))
names = st.sampled_from(["id", "rows", "outcomes", "lag", "producers"])
documents = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3))
)


@given(st.lists(documents, min_size=1, max_size=4))
def test_what_was_learned_from_documents_holds_for_each_of_them(found: list[Any]) -> None:
    schema = None
    for one in found:
        schema = outputs.learned(schema, one)
    validator = jsonschema.Draft202012Validator(outputs.closed(schema))
    assert all(validator.is_valid(one) for one in found)
