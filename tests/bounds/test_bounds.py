"""No text, however broken, makes a reader of ours raise, or takes it more than 2 s of CPU or 200 MiB of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.connector import connector_types
from consumers.loader import check_text
from ops.settings import load_project
from schemas.avsc import SchemaTextError, parse
from schemas.contract import contract_from_schema, load_contracts
from schemas.errors import BackboneError
from schemas.findings import FINDINGS_MAX, did_you_mean
from schemas.lint import lint
from schemas.pattern import WEIGHT_MAX, compiled, weight
from tests.bounds.__main__ import CPU_MAX_S
from tests.bounds.texts import CONTRACT, CORPUS, PROJECT, SUBSCRIPTION
from tests.conftest import ROOT


def read_all(kind: str) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What came of every text, and the one that ended the process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bounds", kind], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    rows, begun = {}, None
    for line in done.stdout.splitlines():
        row = json.loads(line)
        begun = row.get("begins")
        if begun is None:
            rows[row["name"]] = row
    assert rows, done.stderr
    return rows, begun


@pytest.mark.parametrize("kind", ["contract", "subscription", "project"])
def test_no_hostile_text_raises_or_takes_long_or_takes_much(kind: str) -> None:
    rows, killed = read_all(kind)
    assert killed is None, f"the process ended at: {killed}"
    assert set(rows) == {name for name, _ in CORPUS[kind]()}
    assert {name: row["problem"] for name, row in rows.items() if row["problem"]} == {}
    assert {name: row["cpu_s"] for name, row in rows.items() if row["cpu_s"] > CPU_MAX_S} == {}
    assert not any("Traceback" in row["said"] for row in rows.values())


def test_the_limits_are_at_work() -> None:
    rows, killed = read_all("misbehaving")
    assert killed == "spin"
    assert "ValueError" in rows["raise"]["problem"]
    assert "MemoryError" in rows["eat"]["problem"]
    assert rows["well"]["problem"] == ""


# --- valid files with something changed: what a person's hand, a merge or a broken disk does


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    content = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(["change", "cut", "double", "insert"])):
            case "change":
                content[place] = draw(st.integers(0, 255))
            case "cut":
                del content[place : place + draw(st.integers(1, 60))]
            case "double":
                content[place:place] = content[place : place + draw(st.integers(1, 200))]
            case _:
                content[place:place] = draw(st.sampled_from(_PIECES)).encode("utf-8", "surrogatepass")
        if not content:
            return b""
    return bytes(content)


_PIECES = ["{", "}", "[", "]", '"', "'", ":", ",", "\n", "{{ ", " }}", "null", "-1", "1e999", "NaN", "\x00", "\ufeff",
           "\ud800", "&a", "*a", "!t ", "# ", "| ", "9" * 30, "é", "\u2028", "\\u0000", "[[", "]]", "= "]  # fmt: skip
_KNOWN = load_contracts(ROOT / "schemas" / "events")
_CONNECTIONS = load_project(ROOT).connection_types(connector_types())


@given(damaged(json.dumps(CONTRACT, indent=1)))
@settings(max_examples=150)
def test_a_damaged_contract_is_a_contract_or_findings(text: bytes) -> None:
    try:
        schema = parse(text)
    except SchemaTextError:
        return
    errors = [one for one in lint(schema, "x") if one.severity == "error"]
    assert len(errors) <= 3 * FINDINGS_MAX
    try:
        contract_from_schema(schema)
    except BackboneError:
        assert errors, "what is no contract is found by lint"
    except (TypeError, AttributeError):
        assert not isinstance(schema, dict)


@given(damaged(SUBSCRIPTION))
@settings(max_examples=150)
def test_a_damaged_subscription_is_one_or_findings(text: bytes) -> None:
    folder = ROOT / "consumers" / "subscriptions"
    found, findings = check_text("crm-contacts", text, contracts=_KNOWN, connections=_CONNECTIONS, folder=folder)
    assert (found is None) == any(one.severity == "error" for one in findings)
    assert len(findings) <= 3 * FINDINGS_MAX
    assert all(one.message and one.rule for one in findings)


@given(damaged(PROJECT))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_project_file_is_one_or_one_sentence(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "backbone.toml"
    file.write_bytes(text)
    sentence = f"{file}: []"
    try:
        project = load_project(tmp_path)
        project.connection_types(connector_types())
    except BackboneError as error:
        sentence = str(error)
    assert sentence.startswith(f"{file}: ")
    assert sentence.endswith("]")
    assert sentence.isprintable()


# --- the bounds themselves


@given(st.text("ab(){}[]0123,.*+?|\\\\wds^$", max_size=30), st.text("ab1. ", max_size=20))
def test_a_pattern_is_run_or_refused_and_its_weight_is_a_number(pattern: str, value: str) -> None:
    assert weight(pattern) >= 0
    if weight(pattern) > WEIGHT_MAX:
        return
    try:
        search = compiled(pattern)
    except ValueError:
        return
    assert search(value) in (True, False)


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("abc", 3),
        ("a{9}", 9),
        ("(ab){3,5}", 10),
        (r"\w{10}", 500),
        ("(a{10}){10}", 100),
        ("[^@]{2}", 10),
        ("((a{9}", 9),
    ],
)
def test_repetitions_weigh_what_they_stand_for(pattern: str, least: int) -> None:
    assert least <= weight(pattern) <= 2 * least + 10


def test_a_patterns_dollar_is_the_end_and_a_newline_is_a_letter() -> None:
    assert compiled("^[A-Z]{3}$")("EUR")
    assert not compiled("^[A-Z]{3}$")("EUR\n")


def test_a_hint_is_the_nearest_name_and_hostile_names_have_none() -> None:
    assert did_you_mean("emial", ["name", "email", "mail"]) == " Did you mean 'email'?"
    assert did_you_mean("x" * 61, ["x" * 61]) == ""
    assert did_you_mean("ownr", [f"k{n}" for n in range(1_000)] + ["owner"]) == ""
    assert did_you_mean("zzz", ["owner"]) == ""
