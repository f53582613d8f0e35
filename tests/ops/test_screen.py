from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.progress import Progress
from ops.screen import Column, Screen, duration, plain_json, printable, requested_output, shown
from ops.wording import in_context
from schemas.errors import CheckFailedError, InputError, RefusedError
from schemas.findings import Finding

ROWS = [{"name": "a", "lag": 5, "more": None}, {"name": "b", "lag": None, "more": 1}, {"name": "c", "lag": 70}]
COLUMNS = [Column("name"), Column("lag")]


def table(capsys: pytest.CaptureFixture[str], **settings: Any) -> list[str]:
    Screen(**settings).rows("test", ROWS, COLUMNS)
    return capsys.readouterr().out.splitlines()


def test_rows_are_sorted_and_what_has_no_value_stands_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line[0] for line in table(capsys, sort=("-lag",))[1:]] == ["c", "a", "b"]
    assert [line[0] for line in table(capsys, sort=("lag",))[1:]] == ["a", "c", "b"]


def test_fields_pick_and_order_columns_even_ones_that_are_not_shown_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert table(capsys, fields=("more", "name"))[0].split() == ["MORE", "NAME"]


def test_a_document_has_its_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(output="json", context="prod")
    screen.warn("look out")
    screen.rows("test", ROWS, COLUMNS)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "backbone.test/v1"
    assert document["context"] == "prod"
    assert document["at"].endswith("Z")
    assert document["warnings"] == ["look out"]
    assert document["data"] == ROWS
    assert "error" not in document


def test_an_error_after_the_document_does_not_make_a_second_one(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(output="json")
    screen.rows("test", ROWS, COLUMNS)
    screen.error(3, "too late")
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert "too late" in captured.err


def test_an_interrupted_stream_still_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Any:
        yield {"n": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Screen(output="json").stream("test", rows(), [Column("n")])
    assert json.loads(capsys.readouterr().out)["data"] == [{"n": 1}]


def test_without_a_terminal_nobody_is_asked() -> None:
    assert Screen().confirm("Do it?", yes=True)
    with pytest.raises(RefusedError, match="--yes"):
        Screen().confirm("Do it?")


def test_findings_end_the_command_when_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    warning = Finding(file="a,b.avsc", path="/x", rule="r", message="50%\nof it", severity="warning", line=3)
    Screen(output="github").findings("schema.check", [warning], checked="1 contract")
    assert capsys.readouterr().out == "::warning file=a%2Cb.avsc,line=3,title=r::/x: 50%25%0Aof it\n"
    with pytest.raises(CheckFailedError):
        Screen().findings("schema.check", [Finding(file="f", path="", rule="r", message="m")], checked="1 contract")


def test_annotations_name_files_from_the_top_of_the_repository(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were whole paths, or began where the command was typed: GitHub showed them beside no line."""
    project = tmp_path / "clone" / "services" / "billing"
    (project / "events").mkdir(parents=True)
    (tmp_path / "clone" / ".git").write_text("gitdir: elsewhere\n")  # as in a worktree
    monkeypatch.chdir(project / "events")

    def shown(file: str) -> str:
        Screen(output="github").findings(
            "s", [Finding(file=file, path="", rule="r", message="m", severity="notice")], checked="1"
        )
        return capsys.readouterr().out.removeprefix("::notice file=").partition(",")[0]

    assert shown(str(project / "events" / "A.avsc")) == "services/billing/events/A.avsc"
    assert shown("A.avsc") == "services/billing/events/A.avsc"
    assert shown("../backbone.toml") == "services/billing/backbone.toml"
    assert shown("") == ""
    (tmp_path / "clone" / ".git").unlink()
    assert shown("A.avsc") == "A.avsc", "there is no repository"


@given(st.text())
def test_foreign_text_never_reaches_the_terminal_as_control(text: str) -> None:
    assert all(char.isprintable() for char in printable(text))
    assert all(char.isprintable() or char in "\n\t" for char in printable(text, lines=True))


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.text()),
)


@given(JSON_LIKE)
def test_every_value_has_strict_json_and_a_text(value: Any) -> None:
    json.loads(plain_json(value), parse_constant=pytest.fail)
    assert isinstance(shown(value), str)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (1.5, "1.5"),
        (["a", 1], "a, 1"),
        (datetime(2026, 5, 1, 12, tzinfo=UTC), "2026-05-01T12:00:00Z"),
        (timedelta(hours=2, minutes=10, seconds=3), "2h10m"),
        (timedelta(seconds=0.42), "0.4s"),
        (timedelta(days=3), "3d"),
    ],
)
def test_values_are_written_for_people(value: Any, text: str) -> None:
    assert shown(value) == text


@given(st.timedeltas())
def test_every_duration_has_a_text(value: timedelta) -> None:
    assert duration(value)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["x", "--output", "json"], "json"),
        (["x", "--output=ndjson"], "ndjson"),
        (["x", "--output"], "table"),
        (["x", "--output", "nonsense"], "table"),
        (["x", "--", "--output", "json"], "table"),
    ],
)
def test_the_output_mode_is_known_before_the_command_line_is_parsed(arguments: list[str], output: str) -> None:
    assert requested_output(arguments) == output


def test_progress_of_an_unknown_total_shows_no_percentage_and_no_eta() -> None:
    progress = Progress(None, "events", stream=io.StringIO(), moving=False)
    progress.done = 1200
    assert progress.line(1.0) == "1,200 events  1,200/s"
    known = Progress(2000, "events", stream=None, moving=False)
    known.done = 1000
    assert known.line(2.0) == "1,000/2,000 events  500/s  eta 0:00:02"


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("-> backbone run x", "-> backbone -c prod run x"),
        ("See: backbone subscription list. Or: backbone lag x", "See: backbone -c prod subscription list. Or: "
         "backbone -c prod lag x"),
        ("Done. Take it back: backbone -c prod undo ch-2", "Done. Take it back: backbone -c prod undo ch-2"),
        ("Start it: backbone local up", "Start it: backbone local up"),
        ("See: backbone --help", "See: backbone --help"),
        ("the event backbone runs", "the event backbone runs"),
    ],
)  # fmt: skip
def test_a_command_that_is_proposed_can_be_typed_as_it_stands(
    capsys: pytest.CaptureFixture[str], text: str, typed: str
) -> None:
    """Outside local it would have looked at, or changed, another cluster."""
    assert in_context(text, "prod") == typed
    assert in_context(text, "local") == text
    Screen(context="prod", output="json").error(6, text)
    said = capsys.readouterr()
    assert typed in said.err
    assert json.loads(said.out)["error"]["message"] == typed


def test_a_field_that_no_row_has_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'lag'"):
        Screen(fields=("lga",)).rows("test", ROWS, COLUMNS)
